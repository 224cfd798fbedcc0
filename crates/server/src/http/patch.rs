//! `PATCH …/{plural}/{name}`: a merge patch (RFC 7396), read, merged and written in one transaction.

use api::kind::Kind;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use super::answer::{Answer, Refused};
use super::body::{self, Name, Params};
use super::object::{Write, WriteParams, absent, key_of, namespace_of};
use super::precondition::IfMatch;
use crate::authn::Admin;
use crate::control::Shared;

/// How messages call the document that a patch makes.
const CALLED: &str = "the patched document";

pub(super) async fn patch(
    kind: &'static Kind,
    admin: Admin,
    State(control): State<Shared>,
    Name(name): Name,
    Params(params): Params<WriteParams>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Response> {
    let key = key_of(kind, params.namespace.as_deref(), &name)?;
    let (namespace, if_match) = (namespace_of(kind, Some(&key.namespace))?, IfMatch::of(&headers)?);
    let changes = body::patch(&headers, body).await?;
    let mut transaction = control.begin_as(&admin).await?;
    let stored = transaction.get(&key).await?;
    if_match.check(&key, stored.as_ref())?;
    let mut object = stored.ok_or_else(|| absent(&key))?;
    // The system's part is not the author's to change, and not his to be refused for.
    object.status = None;
    let strange = |error: serde_json::Error| Refused::internal(&error);
    let mut document = serde_json::to_value(&object).map_err(strange)?;
    merge(&mut document, changes);
    let text = serde_json::to_string_pretty(&document).map_err(strange)?;
    let write = Write { kind, namespace: &namespace, name: Some(&name), new: false, dry_run: params.dry_run };
    let result = write.admit(&control, &mut transaction, &text, CALLED).await?;
    Ok(write.end(&admin, &control, transaction, result).await?.into_response())
}

/// RFC 7396, section 2. Depth is bounded by the reading of the body.
fn merge(target: &mut Value, changes: Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (key, change) in changes {
        match change {
            Value::Null => {
                fields.remove(&key);
            }
            Value::Object(changes) => merge(fields.entry(key).or_insert(Value::Null), changes),
            other => {
                fields.insert(key, other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The examples of RFC 7396, appendix A, whose patch is a mapping.
    #[test]
    fn the_examples_of_the_rfc() {
        for (before, change, after) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let (mut target, Value::Object(changes)) = (before.clone(), change.clone()) else { panic!("{change}") };
            merge(&mut target, changes);
            assert_eq!(target, after, "{before} with {change}");
        }
    }
}
