//! One object by what people call it; else what they may have meant.

use api::kind::Kind;
use api::object::{Object, ObjectKey};

use crate::failure::{C, Failure};
use crate::server::Server;

/// The one object of a kind that `name` means in the server's namespace or below it.
///
/// Errors: none, with a suggestion; several, which are named.
pub(crate) async fn one(server: &Server, kind: &Kind, name: &str) -> Result<Object, Failure> {
    let list = server.list(kind, None).await?;
    let mut found: Vec<&Object> = list.items.iter().filter(|object| called(object, name)).collect();
    match (found.pop(), found.as_slice()) {
        (Some(one), []) => Ok(one.clone()),
        (None, _) => Err(no_such(kind, name, server.namespace(), &list.items)),
        (Some(last), others) => {
            let named: Vec<String> = others.iter().chain([&last]).map(|object| word(&object.key())).collect();
            Err(Failure::usage(
                C::NAME_UNKNOWN,
                format!("{} objects are called `{name}`", named.len()),
                format!("write which: {}", named.join(", or ")),
            ))
        }
    }
}

/// Whether people call the object so: by its name, a namespace also by its path, a workload also without its node.
pub(crate) fn called(object: &Object, word: &str) -> bool {
    let key = object.key();
    match key.kind.as_str() {
        "Namespace" => key.path() == word || key.name == word,
        "Workload" => key.name == word || key.name.strip_prefix(word).is_some_and(|rest| rest.starts_with('.')),
        _ => key.name == word,
    }
}

pub(crate) fn no_such(kind: &Kind, name: &str, namespace: Option<&str>, there: &[Object]) -> Failure {
    let distance = |object: &Object| {
        // A workload's name here is NAME.NODE; people type the first part.
        let whole = object.metadata.name.as_str();
        let short = whole.split('.').next().unwrap_or(whole);
        [whole, short].map(|known| strsim::damerau_levenshtein(known, name)).into_iter().min().unwrap_or_default()
    };
    // What shares no letter is no slip of the finger.
    let limit = 3.min(name.len().saturating_sub(1));
    let near = there.iter().map(|object| (distance(object), object.key())).min().filter(|(near, _)| *near <= limit);
    let mend = match near {
        Some((_, key)) => format!("did you mean `{}`?", word(&key)),
        None => format!("`stolos get {}` lists them", kind.plural),
    };
    let place = namespace.map(|namespace| format!(" in {namespace} or below")).unwrap_or_default();
    Failure::new(C::NAME_UNKNOWN, format!("there is no {} `{name}`{place}", kind.name), mend)
}

/// The words after `get KIND` that name one object.
pub(crate) fn word(key: &ObjectKey) -> String {
    match (key.kind.as_str(), key.namespace.as_str()) {
        ("Namespace", _) => key.path(),
        (_, "/") => key.name.clone(),
        (_, namespace) => format!("{} -n {namespace}", key.name),
    }
}

#[cfg(test)]
mod tests {
    use api::kind;
    use serde_json::json;

    use super::*;

    fn object(kind: &str, namespace: &str, name: &str) -> Object {
        serde_json::from_value(json!({"apiVersion": "stolos.dev/v1", "kind": kind, "spec": {},
            "metadata": {"namespace": namespace, "name": name}}))
        .unwrap()
    }

    #[test]
    fn objects_are_found_by_what_people_call_them() {
        assert!(called(&object("Namespace", "/acme", "prod"), "/acme/prod"));
        assert!(called(&object("Workload", "/acme", "web.node-1"), "web"));
        assert!(!called(&object("Workload", "/acme", "web-2.node-1"), "web"));
        assert!(!called(&object("Policy", "/acme", "web.a"), "web"));
    }

    #[test]
    fn a_wrong_name_gets_a_suggestion_with_its_namespace() {
        let there = [object("Policy", "/acme", "web-to-db")];
        let text = no_such(kind::find("policy").unwrap(), "web-to-bd", None, &there).to_string();
        assert!(text.contains("did you mean `web-to-db -n /acme`?"), "{text}");
        let there = [object("Workload", "/acme", "web.n1")];
        let text = no_such(kind::find("workload").unwrap(), "wbe", None, &there).to_string();
        assert!(text.contains("did you mean `web.n1 -n /acme`?"), "{text}");
        let text = no_such(kind::find("policy").unwrap(), "other", Some("/x"), &[]).to_string();
        assert!(text.contains("in /x or below") && text.contains("`stolos get policies`"), "{text}");
    }
}
