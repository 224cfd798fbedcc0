//! `/apis/stolos.dev/v1/{plural}[/{name}]`: list, watch, get, create, replace, delete.

use api::apply::{ApplyOutcome, Source};
use api::kind::{self, Kind, Scope, Verb};
use api::object::{Object, ObjectKey, Revision};
use api::problem::{self, Diagnostic, Problem, Severity};
use api::watch::ObjectList;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use policy::namespace::NamespacePath;
use policy::selector::{Pattern, Selector, Test};
use serde::Deserialize;
use store::document::{Filter, LabelTest, Precondition};
use tracing::info;

use super::answer::{Answer, Refused};
use super::body::{self, Params};
use super::{status, watch};
use crate::admission::{self, AdmitError};
use crate::authn::Admin;
use crate::control::Shared;
use crate::manifest;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/apis/stolos.dev/v1/{plural}", get(list).post(create))
        .route("/apis/stolos.dev/v1/{plural}/{name}", get(read).put(replace).delete(delete))
}

/// Parameters of a list or watch.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListParams {
    namespace: Option<String>,
    #[serde(default)]
    subtree: bool,
    labels: Option<String>,
    #[serde(default)]
    watch: bool,
    revision: Option<u64>,
}

/// Parameters of one object.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OneParams {
    namespace: Option<String>,
    revision: Option<u64>,
}

/// The kind of a path, if it offers a verb.
fn kind_of(plural: &str, verb: Verb) -> Answer<&'static Kind> {
    let Some(kind) = kind::KINDS.iter().find(|kind| kind.plural == plural) else {
        let plurals: Vec<&str> = kind::KINDS.iter().map(|kind| kind.plural).collect();
        let shown: String = plural.chars().take(100).collect();
        let detail = format!("there is no kind `{shown}`; the kinds are {}", plurals.join(", "));
        return Err(Refused::new(problem::NO_SUCH_ROUTE, detail));
    };
    if !kind.verbs.contains(&verb) {
        let detail = format!("a {} is reported by agents: it can be read, not written", kind.name);
        return Err(Refused::new(problem::UNSUPPORTED_VERB, detail));
    }
    Ok(kind)
}

fn namespace_of(kind: &Kind, given: Option<&str>) -> Answer<NamespacePath> {
    let path = NamespacePath::new(given.unwrap_or("/"))
        .map_err(|e| Refused::new(problem::BAD_REQUEST, format!("`namespace`: {e}")))?;
    Ok(if kind.scope == Scope::Fleet { NamespacePath::root() } else { path })
}

async fn list(
    _: Admin,
    State(control): State<Shared>,
    Path(plural): Path<String>,
    Params(params): Params<ListParams>,
) -> Answer<Response> {
    let kind = kind_of(&plural, if params.watch { Verb::Watch } else { Verb::List })?;
    let filter = filter(kind, &params)?;
    if params.watch {
        return Ok(watch::answer(control, filter, params.revision.map(Revision)));
    }
    let (items, revision) = control.store.list(&filter).await?;
    let fleet = control.registry.fleet();
    let items = items.into_iter().map(|object| status::filled(&fleet, object)).collect();
    Ok(Json(ObjectList { items, revision }).into_response())
}

fn filter(kind: &Kind, params: &ListParams) -> Answer<Filter> {
    let namespace = match (&params.namespace, kind.scope) {
        (Some(given), Scope::Namespace) => Some(namespace_of(kind, Some(given))?.to_string()),
        _ => None,
    };
    let labels = params.labels.as_deref().map_or(Ok(Vec::new()), label_tests)?;
    Ok(Filter { kind: Some(kind.name.to_owned()), namespace, subtree: params.subtree, labels })
}

/// A selector on objects' own labels: the grammar of policies, without prefixes and subtrees.
fn label_tests(text: &str) -> Answer<Vec<LabelTest>> {
    let bad = |why: String| Refused::new(problem::BAD_REQUEST, format!("`labels`: {why}"));
    let selector = Selector::parse(text).map_err(|e| bad(e.to_string()))?.selector;
    let exact = |patterns: &[Pattern]| -> Answer<Vec<String>> {
        let value = |pattern: &Pattern| match pattern {
            Pattern::Exact(value) => Ok(value.clone()),
            other => Err(bad(format!("`{other}` is no plain value"))),
        };
        patterns.iter().map(value).collect()
    };
    let test = |r: &policy::selector::Requirement| {
        Ok(match &r.test {
            Test::Exists => LabelTest::Present(r.key.clone()),
            Test::Absent => LabelTest::Absent(r.key.clone()),
            Test::In(patterns) => LabelTest::In(r.key.clone(), exact(patterns)?),
            Test::NotIn(patterns) => LabelTest::NotIn(r.key.clone(), exact(patterns)?),
        })
    };
    selector.requirements().iter().map(test).collect()
}

async fn read(
    _: Admin,
    State(control): State<Shared>,
    Path((plural, name)): Path<(String, String)>,
    Params(params): Params<OneParams>,
) -> Answer<Json<Object>> {
    let kind = kind_of(&plural, Verb::Get)?;
    let key = ObjectKey::new(kind.name, namespace_of(kind, params.namespace.as_deref())?.as_str(), &name);
    let found = control.store.get(&key).await?;
    let object = found.ok_or_else(|| Refused::new(problem::NOT_FOUND, format!("there is no {key}")))?;
    Ok(Json(status::filled(&control.registry.fleet(), object)))
}

async fn create(
    admin: Admin,
    State(control): State<Shared>,
    Path(plural): Path<String>,
    Params(params): Params<OneParams>,
    body: Body,
) -> Answer<Response> {
    let kind = kind_of(&plural, Verb::Write)?;
    let default = namespace_of(kind, params.namespace.as_deref())?;
    let (object, _) = write_one(&admin, &control, body, &default, None, true, kind).await?;
    Ok((StatusCode::CREATED, Json(object)).into_response())
}

async fn replace(
    admin: Admin,
    State(control): State<Shared>,
    Path((plural, name)): Path<(String, String)>,
    Params(params): Params<OneParams>,
    body: Body,
) -> Answer<Response> {
    let kind = kind_of(&plural, Verb::Write)?;
    let namespace = namespace_of(kind, params.namespace.as_deref())?;
    let (object, outcome) = write_one(&admin, &control, body, &namespace, Some(&name), false, kind).await?;
    let status = if outcome == ApplyOutcome::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(object)).into_response())
}

/// Writes the one document of a body. With `name`, the document must be the one that the address names.
async fn write_one(
    admin: &Admin,
    control: &Shared,
    body: Body,
    namespace: &NamespacePath,
    name: Option<&str>,
    absent: bool,
    kind: &Kind,
) -> Answer<(Object, ApplyOutcome)> {
    let sources = [Source { name: String::new(), text: body::text(body).await? }];
    let (manifests, diagnostics) = manifest::read(&sources, namespace);
    refuse_errors(&diagnostics)?;
    let [manifest] = &manifests[..] else {
        return Err(Refused::new(problem::BAD_REQUEST, "exactly one document is taken here; use apply for more"));
    };
    let key = manifest.object.key();
    let named = name.is_none_or(|name| key.name == name && key.namespace == namespace.as_str());
    if key.kind != kind.name || !named {
        let detail = format!("the document is {key}, and the address names another object");
        return Err(Refused::new(problem::BAD_REQUEST, detail));
    }
    let mut write = control.store.begin().await?;
    let admitted = admission::admit(&mut write, &manifests, absent, control.now()).await?;
    let revision = write.commit().await?;
    control.registry.caught_up(revision).await;
    let Some(result) = admitted.results.into_iter().next() else {
        return Err(Refused::new(problem::INTERNAL, "the server failed; nothing was acknowledged"));
    };
    info!(by = admin.name(), object = %key, %revision, outcome = %result.outcome, "object written");
    Ok((status::filled(&control.registry.fleet(), result.object), result.outcome))
}

async fn delete(
    admin: Admin,
    State(control): State<Shared>,
    Path((plural, name)): Path<(String, String)>,
    Params(params): Params<OneParams>,
) -> Answer<Json<Object>> {
    let kind = kind_of(&plural, Verb::Delete)?;
    let key = ObjectKey::new(kind.name, namespace_of(kind, params.namespace.as_deref())?.as_str(), &name);
    let precondition = params.revision.map_or(Precondition::None, |revision| Precondition::At(Revision(revision)));
    let mut write = control.store.begin().await?;
    let object = admission::remove(&mut write, &key, precondition).await?;
    let revision = write.commit().await?;
    control.registry.caught_up(revision).await;
    info!(by = admin.name(), object = %key, %revision, "object deleted");
    Ok(Json(object))
}

impl From<AdmitError> for Refused {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::Refused(problem) => Self(problem),
            AdmitError::Write(error) => error.into(),
        }
    }
}

/// Nothing is written when any document has an error.
pub(super) fn refuse_errors(diagnostics: &[Diagnostic]) -> Answer<()> {
    match diagnostics.iter().any(|d| d.severity == Severity::Error) {
        true => Err(Problem::invalid(diagnostics.to_vec()).into()),
        false => Ok(()),
    }
}
