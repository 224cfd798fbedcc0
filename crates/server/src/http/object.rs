//! `/apis/stolos.dev/v1/{plural}[/{name}]`: list, watch, get, create, replace, delete.

use std::time::Duration;

use api::apply::{ApplyOutcome, ApplyResult, Source};
use api::kind::{Kind, Scope, Verb};
use api::object::{ObjectKey, Revision};
use api::problem::{self, Diagnostic, Problem, Severity};
use api::route::{BASE, REVISION_MAX, TIMEOUT_MAX_S};
use api::watch::{LIMIT_MAX, ObjectList};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use policy::namespace::NamespacePath;
use policy::selector::{Pattern, Requirement, Selector, Test};
use serde::Deserialize;
use store::Transaction;
use store::document::{Filter, LabelTest, Precondition};
use tracing::info;

use super::answer::{Answer, Refused};
use super::body::{self, Name, Params, within};
use super::page::Place;
use super::precondition::{IfMatch, Tagged};
use super::{status, watch};
use crate::admission::{self, AdmitError};
use crate::authn::Admin;
use crate::control::Shared;
use crate::manifest;

/// Parameters of a list or watch.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListParams {
    namespace: Option<String>,
    #[serde(default)]
    subtree: bool,
    label_selector: Option<String>,
    limit: Option<u32>,
    #[serde(rename = "continue")]
    next: Option<String>,
    #[serde(default)]
    watch: bool,
    revision: Option<u64>,
    timeout_seconds: Option<u32>,
}

/// Parameters of one object.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OneParams {
    pub(super) namespace: Option<String>,
}

/// Parameters of a write of one object.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WriteParams {
    pub(super) namespace: Option<String>,
    #[serde(default)]
    pub(super) dry_run: bool,
}

/// Parameters of a deletion.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeleteParams {
    namespace: Option<String>,
    #[serde(default)]
    dry_run: bool,
    revision: Option<u64>,
}

/// The namespace that an address names. Kinds of the whole fleet live in the root, and nowhere else.
pub(super) fn namespace_of(kind: &Kind, given: Option<&str>) -> Answer<NamespacePath> {
    let bad = |why: String| Refused::new(problem::BAD_REQUEST, format!("`namespace`: {why}"));
    let path = NamespacePath::new(given.unwrap_or("/")).map_err(|e| bad(e.to_string()))?;
    match kind.scope {
        Scope::Fleet if !path.is_root() => {
            Err(bad(format!("a {} belongs to the whole fleet; leave it out", kind.name)))
        }
        _ => Ok(path),
    }
}

/// What an address names.
pub(super) fn key_of(kind: &Kind, namespace: Option<&str>, name: &str) -> Answer<ObjectKey> {
    Ok(ObjectKey::new(kind.name, namespace_of(kind, namespace)?.as_str(), name))
}

pub(super) fn absent(key: &ObjectKey) -> Refused {
    Refused::new(problem::NOT_FOUND, format!("there is no {key}"))
}

pub(super) async fn list(
    kind: &'static Kind,
    _: Admin,
    State(control): State<Shared>,
    Params(params): Params<ListParams>,
) -> Answer<Response> {
    let filter = filter(kind, &params)?;
    let limit = within("limit", params.limit, 1..=LIMIT_MAX)?;
    let revision = within("revision", params.revision, 0..=REVISION_MAX)?.map(Revision);
    let timeout = within("timeoutSeconds", params.timeout_seconds, 0..=TIMEOUT_MAX_S)?;
    if params.watch {
        if !kind.verbs.contains(&Verb::Watch) || limit.is_some() || params.next.is_some() {
            return Err(Refused::new(problem::RANGE, "`limit` and `continue` are of lists, not of a watch"));
        }
        let lasts = timeout.map(|seconds| Duration::from_secs(seconds.into()));
        return Ok(watch::answer(control, filter, revision, lasts));
    }
    let place = params.next.as_deref().map(|token| Place::of(token, kind, &filter)).transpose()?;
    let after = place.as_ref().map(|place| (place.after.0.as_str(), place.after.1.as_str()));
    let page = control.store.page(kind.name, &filter, after, limit.unwrap_or(LIMIT_MAX) as usize).await?;
    if let Some(place) = &place {
        place.check(&page)?;
    }
    let revision = place.map_or(page.revision, |place| place.revision);
    let next = Place::behind(&page, revision).map(|place| place.token(kind, &filter));
    let fleet = control.registry.fleet();
    let items = page.objects.into_iter().map(|object| status::filled(&fleet, object)).collect();
    Ok(Json(ObjectList { items, revision, next }).into_response())
}

fn filter(kind: &Kind, params: &ListParams) -> Answer<Filter> {
    let namespace = match &params.namespace {
        Some(given) => Some(namespace_of(kind, Some(given))?.to_string()),
        None => None,
    };
    let labels = params.label_selector.as_deref().map_or(Ok(Vec::new()), label_tests)?;
    Ok(Filter { kind: Some(kind.name.to_owned()), namespace, subtree: params.subtree, labels })
}

/// A selector on objects' own labels: the grammar of policies, without prefixes and subtrees.
fn label_tests(text: &str) -> Answer<Vec<LabelTest>> {
    let bad = |why: String| Refused::new(problem::BAD_LABEL_SELECTOR, format!("`labelSelector`: {why}"));
    let selector = Selector::parse(text).map_err(|e| bad(e.to_string()))?.selector;
    let exact = |patterns: &[Pattern]| -> Answer<Vec<String>> {
        let value = |pattern: &Pattern| match pattern {
            Pattern::Exact(value) => Ok(value.clone()),
            other => Err(bad(format!("`{other}` is no plain value"))),
        };
        patterns.iter().map(value).collect()
    };
    let test = |r: &Requirement| {
        Ok(match &r.test {
            Test::Exists => LabelTest::Present(r.key.clone()),
            Test::Absent => LabelTest::Absent(r.key.clone()),
            Test::In(patterns) => LabelTest::In(r.key.clone(), exact(patterns)?),
            Test::NotIn(patterns) => LabelTest::NotIn(r.key.clone(), exact(patterns)?),
        })
    };
    selector.requirements().iter().map(test).collect()
}

pub(super) async fn read(
    kind: &'static Kind,
    _: Admin,
    State(control): State<Shared>,
    Name(name): Name,
    Params(params): Params<OneParams>,
) -> Answer<Tagged> {
    let key = key_of(kind, params.namespace.as_deref(), &name)?;
    let object = control.store.get(&key).await?.ok_or_else(|| absent(&key))?;
    Ok(Tagged(status::filled(&control.registry.fleet(), object)))
}

pub(super) async fn create(
    kind: &'static Kind,
    admin: Admin,
    State(control): State<Shared>,
    Params(params): Params<WriteParams>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Response> {
    let namespace = namespace_of(kind, params.namespace.as_deref())?;
    let text = body::document(&headers, body).await?;
    let write = Write { kind, namespace: &namespace, name: None, new: true, dry_run: params.dry_run };
    let mut transaction = control.begin_as(&admin).await?;
    let result = write.admit(&control, &mut transaction, &text, "").await?;
    Ok(write.end(&admin, &control, transaction, result).await?.into_response())
}

pub(super) async fn replace(
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
    let text = body::document(&headers, body).await?;
    let write = Write { kind, namespace: &namespace, name: Some(&name), new: false, dry_run: params.dry_run };
    let mut transaction = control.begin_as(&admin).await?;
    if if_match != IfMatch::Absent {
        if_match.check(&key, transaction.get(&key).await?.as_ref())?;
    }
    let result = write.admit(&control, &mut transaction, &text, "").await?;
    Ok(write.end(&admin, &control, transaction, result).await?.into_response())
}

/// The write of one document.
pub(super) struct Write<'a> {
    pub(super) kind: &'static Kind,
    /// Where the document belongs if it does not say.
    pub(super) namespace: &'a NamespacePath,
    /// The name in the address, and with it the namespace, are the document's.
    pub(super) name: Option<&'a str>,
    /// There must be none of its name.
    pub(super) new: bool,
    pub(super) dry_run: bool,
}

impl Write<'_> {
    /// Puts the one document of a text into a transaction.
    pub(super) async fn admit(
        &self,
        control: &Shared,
        transaction: &mut Transaction,
        text: &str,
        called: &str,
    ) -> Answer<ApplyResult> {
        let sources = [Source { name: called.to_owned(), text: text.to_owned() }];
        let (manifests, diagnostics) = manifest::read(&sources, self.namespace);
        refuse_errors(&diagnostics)?;
        let [manifest] = &manifests[..] else {
            return Err(Refused::new(problem::BAD_REQUEST, "exactly one document is taken here; use apply for more"));
        };
        let key = manifest.object.key();
        let named = self.name.is_none_or(|name| key.name == name && key.namespace == self.namespace.as_str());
        if key.kind != self.kind.name || !named {
            let detail = format!("the document is {key}, and the address names another object");
            return Err(Refused::new(problem::INVALID, detail));
        }
        let admitted = admission::admit(transaction, &manifests, self.new, control.now()).await?;
        let mut results = admitted.results.into_iter();
        results.next().ok_or_else(|| Refused::new(problem::INTERNAL, "the server failed; nothing was acknowledged"))
    }

    /// Commits, or with `dryRun` forgets, and answers with what is or would be.
    pub(super) async fn end(
        &self,
        admin: &Admin,
        control: &Shared,
        transaction: Transaction,
        result: ApplyResult,
    ) -> Answer<impl IntoResponse + use<>> {
        let ApplyResult { object, outcome } = result;
        let key = object.key();
        if self.dry_run {
            drop(transaction);
        } else {
            let revision = transaction.commit().await?;
            control.registry.caught_up(revision).await;
            info!(by = admin.name(), object = %key, %revision, %outcome, "object written");
        }
        let mut place = HeaderMap::new();
        let mut status = StatusCode::OK;
        // What was only tried is nowhere.
        if outcome == ApplyOutcome::Created && !self.dry_run {
            status = StatusCode::CREATED;
            place.extend(location(self.kind, &key).map(|value| (header::LOCATION, value)));
        }
        Ok((status, place, Tagged(status::filled(&control.registry.fleet(), object))))
    }
}

/// Where an object is, as a path. Names have nothing that a path would have to escape but the root's slash.
fn location(kind: &Kind, key: &ObjectKey) -> Option<HeaderValue> {
    let name = key.name.replace('/', "%2F");
    let place = format!("{BASE}/{}/{name}", kind.plural);
    let place = match kind.scope {
        Scope::Fleet => place,
        Scope::Namespace => format!("{place}?namespace={}", key.namespace),
    };
    HeaderValue::from_str(&place).ok()
}

pub(super) async fn delete(
    kind: &'static Kind,
    admin: Admin,
    State(control): State<Shared>,
    Name(name): Name,
    Params(params): Params<DeleteParams>,
    headers: HeaderMap,
) -> Answer<Tagged> {
    let key = key_of(kind, params.namespace.as_deref(), &name)?;
    let if_match = IfMatch::of(&headers)?;
    let revision = within("revision", params.revision, 0..=REVISION_MAX)?;
    let precondition = revision.map_or(Precondition::None, |revision| Precondition::At(Revision(revision)));
    let mut write = control.begin_as(&admin).await?;
    let stored = write.get(&key).await?;
    if_match.check(&key, stored.as_ref())?;
    let object = admission::remove(&mut write, &key, precondition).await?;
    if params.dry_run {
        drop(write);
    } else {
        let revision = write.commit().await?;
        control.registry.caught_up(revision).await;
        info!(by = admin.name(), object = %key, %revision, "object deleted");
    }
    Ok(Tagged(object))
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
