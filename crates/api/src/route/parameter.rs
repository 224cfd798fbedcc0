//! What the addresses of operations take.

use serde_json::{Value, json};

use crate::audit::PAGE_MAX;
use crate::kind::{Kind, Scope};
use crate::object::NAMESPACE_PATTERN;
use crate::watch::LIMIT_MAX;

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the path.
    Path,
    /// Behind the question mark.
    Query,
    /// In a header.
    Header,
}

/// One parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Where it stands. In the path it is required, elsewhere not.
    pub place: Place,
    /// One or two sentences.
    pub about: String,
    /// JSON schema of its value.
    pub schema: Value,
}

/// What If-Match takes: any revision, or one.
const ETAG_PATTERN: &str = r#"^(\*|"[0-9]{1,18}")$"#;
/// Revisions in queries: whole numbers that every client can write exactly.
pub const REVISION_MAX: u64 = 1 << 53;
/// Longest life of a stream in seconds that a caller can ask for.
pub const TIMEOUT_MAX_S: u32 = 86_400;

fn query(name: &'static str, about: impl Into<String>, schema: Value) -> Parameter {
    Parameter { name, place: Place::Query, about: about.into(), schema }
}

fn flag(name: &'static str, about: &str) -> Parameter {
    query(name, about, json!({"type": "boolean", "default": false}))
}

fn revision(about: &str) -> Parameter {
    query("revision", about, json!({"type": "integer", "minimum": 0, "maximum": REVISION_MAX}))
}

fn namespace(about: &str) -> Parameter {
    query("namespace", about, json!({"type": "string", "pattern": NAMESPACE_PATTERN, "examples": ["/"]}))
}

fn timeout(about: &str) -> Parameter {
    query("timeoutSeconds", about, json!({"type": "integer", "minimum": 0, "maximum": TIMEOUT_MAX_S}))
}

/// The name in the path.
pub(super) fn name(kind: &str) -> Parameter {
    let about = match kind {
        crate::kind::NAMESPACE => "Last segment of the namespace's path; `/` (as `%2F`) is the root.".to_owned(),
        kind => format!("Name of the {kind}."),
    };
    let schema = json!({"type": "string", "minLength": 1, "examples": [crate::openapi::example::NAME]});
    Parameter { name: "name", place: Place::Path, about, schema }
}

/// `dryRun`.
pub(super) fn dry_run() -> Parameter {
    flag("dryRun", "Does everything but write: the answer is the one that the write would get.")
}

fn if_match() -> Parameter {
    let about =
        "Only if the object is at this revision: the ETag that it was read with; `*` only if it is there at all.";
    let schema = json!({"type": "string", "pattern": ETAG_PATTERN, "examples": ["*"]});
    Parameter { name: "If-Match", place: Place::Header, about: about.to_owned(), schema }
}

fn own_namespace(kind: &Kind) -> Option<Parameter> {
    (kind.scope == Scope::Namespace).then(|| namespace("The namespace that the object is in; absent means `/`."))
}

pub(super) fn list(kind: &Kind) -> Vec<Parameter> {
    let mut all = Vec::new();
    if kind.scope == Scope::Namespace {
        all.push(namespace("Only objects in this namespace; absent means everywhere."));
        all.push(flag("subtree", "With `namespace`: and in those below it."));
    }
    let about = "Only objects whose own labels fit: `team=web,tier in (a,b),!legacy`.";
    let selector = json!({"type": "string", "minLength": 1, "examples": ["team=web"]});
    all.push(query("labelSelector", about, selector));
    let about = format!("At most so many objects; absent means {LIMIT_MAX}.");
    all.push(query("limit", about, json!({"type": "integer", "minimum": 1, "maximum": LIMIT_MAX})));
    let about = "The `continue` of the page before: what comes behind it. All but `limit` must be as it was.";
    all.push(query("continue", about, json!({"type": "string", "minLength": 1})));
    all.push(flag("watch", "Answers one change a line and goes on; resumes behind the revision of the last bookmark."));
    all.push(revision("With `watch`: changes after this revision. Absent: everything there is, then changes."));
    all.push(timeout("With `watch`: ends after this time; 0 as soon as everything until now has been sent."));
    all
}

pub(super) fn one(kind: &Kind) -> Vec<Parameter> {
    [Some(name(kind.name)), own_namespace(kind)].into_iter().flatten().collect()
}

pub(super) fn create(kind: &Kind) -> Vec<Parameter> {
    [own_namespace(kind), Some(dry_run())].into_iter().flatten().collect()
}

pub(super) fn change(kind: &Kind) -> Vec<Parameter> {
    [one(kind), vec![dry_run(), if_match()]].concat()
}

pub(super) fn delete(kind: &Kind) -> Vec<Parameter> {
    [change(kind), vec![revision("Only if the object is at this revision.")]].concat()
}

pub(super) fn audit() -> Vec<Parameter> {
    vec![
        query("after", "Entries after this number.", json!({"type": "integer", "minimum": 0, "maximum": REVISION_MAX})),
        query("limit", "At most so many.", json!({"type": "integer", "minimum": 1, "maximum": PAGE_MAX})),
    ]
}

pub(super) fn flows() -> Vec<Parameter> {
    let end = |about| (about, json!({"type": "string", "minLength": 1}));
    let verdict = || json!({"type": "string", "enum": ["allow", "deny"]});
    let (from, to) = (end("Workload reference, network or address of the client."), end("The same of the server."));
    vec![
        query("after", "Only rows after this id.", json!({"type": "integer", "minimum": 0, "maximum": REVISION_MAX})),
        query("from", from.0, from.1),
        query("to", to.0, to.1),
        namespace("Only flows with an end in this namespace or below it."),
        query("verdict", "What happened.", verdict()),
        query("would", "What enforcing would have said.", verdict()),
        query("since", "Only flows seen since.", json!({"type": "string", "format": "date-time"})),
        query("limit", "At most so many, the newest.", json!({"type": "integer", "minimum": 1, "maximum": 10_000})),
        flag("follow", "Answers one row a line and goes on; a row comes again when it changes."),
        timeout("With `follow`: ends after this time; 0 as soon as everything until now has been sent."),
    ]
}
