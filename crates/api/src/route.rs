//! The one list of the API's operations: the server registers exactly these, and the OpenAPI document describes exactly
//! these.
//!
//! Operations on documents follow from the table of kinds. Who may call one is part of the list ([`Access`]). How an
//! operation is carried out is the server's knowledge.

mod parameter;

use http::Method;

pub use self::parameter::{Parameter, Place, REVISION_MAX, TIMEOUT_MAX_S};
use crate::kind::{KINDS, Kind, Verb};
use crate::problem::{self, ProblemKind};

/// Where objects live.
pub const BASE: &str = "/apis/stolos.dev/v1";
/// Longest request body in bytes.
pub const BODY_LEN_MAX: usize = 8 * 1024 * 1024;
/// Media type of a merge patch (RFC 7396).
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// Media types of a document.
pub const DOCUMENT: &[&str] = &["application/json", "application/yaml"];

/// What an operation does. The server has one handler for each.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// Objects of a kind, a page of them, or their changes.
    List(&'static Kind),
    /// One object.
    Read(&'static Kind),
    /// A new object.
    Create(&'static Kind),
    /// An object as a whole.
    Replace(&'static Kind),
    /// Some fields of an object.
    Patch(&'static Kind),
    /// An object's end.
    Delete(&'static Kind),
    /// Many documents in one transaction.
    Apply,
    /// Why a flow is allowed or refused.
    Explain,
    /// What was seen.
    Flows,
    /// Who changed what.
    Audit,
    /// A token with which one node can join.
    JoinToken,
    /// A new handshake key of every node.
    RotateNodeKeys,
    /// A new fleet key.
    RotateFleetKey,
    /// The process lives.
    Health,
    /// The process serves.
    Ready,
    /// What is counted.
    Metrics,
    /// The OpenAPI document.
    OpenApi,
    /// The same for people.
    Docs,
    /// The JSON schema of a kind, for editors.
    Schema(&'static Kind),
}

/// Who may call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody who reaches the port.
    Anyone,
    /// An operator.
    Operator,
}

/// What a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// None.
    Empty,
    /// One document of the kind.
    Document(&'static str),
    /// A merge patch of a document.
    Patch,
    /// A JSON value of this component.
    Json(&'static str),
    /// The same, or none: then an empty mapping is meant.
    JsonOrEmpty(&'static str),
}

/// What a good answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A JSON value of this component.
    Json(&'static str),
    /// A list of objects of the kind, or lines of their changes.
    Objects(&'static str),
    /// A JSON value of this component, or lines of the other.
    Lines(&'static str, &'static str),
    /// Text of this media type.
    Text(&'static str),
    /// Any JSON mapping.
    Mapping,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// How it is asked for.
    pub method: Method,
    /// Where, with `{name}` for what varies.
    pub path: String,
    /// What it does.
    pub action: Action,
    /// Unique name, `listPolicies`.
    pub id: String,
    /// One sentence.
    pub about: String,
    /// Heading under which pages show it.
    pub tag: &'static str,
    /// Who may call it.
    pub access: Access,
    /// What the address takes.
    pub parameters: Vec<Parameter>,
    /// What is sent.
    pub body: Body,
    /// Statuses of good answers, and what each holds.
    pub answers: Vec<(u16, Content)>,
    /// What can go wrong, beside what can go wrong everywhere.
    pub problems: Vec<ProblemKind>,
}

/// Every operation: the table.
pub fn operations() -> Vec<Operation> {
    let mut all: Vec<Operation> = KINDS.iter().flat_map(of_kind).collect();
    all.extend(of_fleet());
    all.extend(of_process());
    all.extend(KINDS.iter().map(|kind| {
        let about = format!("The JSON schema of {} documents, for editors.", kind.name);
        let schema = Operation::new(Method::GET, format!("/schemas/{}.json", kind.name), Action::Schema(kind), about);
        schema.named(format!("schema{}", kind.name)).under("description").public().answers(200, Content::Mapping)
    }));
    all
}

/// What the table of kinds says can be done with objects of a kind.
fn of_kind(kind: &'static Kind) -> Vec<Operation> {
    use problem::{ALREADY_EXISTS, CONFLICT, CONTINUE_EXPIRED, CONTINUE_UNKNOWN, INVALID, NAMESPACE_IN_USE};
    use problem::{BAD_LABEL_SELECTOR, NOT_FOUND, PRECONDITION_FAILED};
    let (many, one) = (format!("{BASE}/{}", kind.plural), format!("{BASE}/{}/{{name}}", kind.plural));
    let (name, document) = (kind.name, Body::Document(kind.name));
    let plural = || format!("{}{}", name, if name.ends_with('y') { "" } else { "s" }).replace("Policy", "Policies");
    let mut all = Vec::new();
    if kind.verbs.contains(&Verb::List) {
        let about = format!("Objects of kind {name} by namespace and name, in pages; with `watch` their changes.");
        let list =
            Operation::new(Method::GET, many.clone(), Action::List(kind), about).named(format!("list{}", plural()));
        let list = list.takes(parameter::list(kind)).answers(200, Content::Objects(name));
        all.push(list.fails(&[CONTINUE_UNKNOWN, CONTINUE_EXPIRED, BAD_LABEL_SELECTOR, problem::RANGE]));
    }
    if kind.verbs.contains(&Verb::Get) {
        let about = format!("One object of kind {name}.");
        let read = Operation::new(Method::GET, one.clone(), Action::Read(kind), about).named(format!("get{name}"));
        all.push(read.takes(parameter::one(kind)).answers(200, Content::Json(name)).fails(&[NOT_FOUND]));
    }
    if kind.writable() {
        let wrong = [INVALID, CONFLICT];
        let about = format!("Creates an object of kind {name}; there must be none of its name.");
        let create = Operation::new(Method::POST, many, Action::Create(kind), about).named(format!("create{name}"));
        let create = create.takes(parameter::create(kind)).sends(document);
        let create = create.answers(200, Content::Json(name)).answers(201, Content::Json(name));
        all.push(create.fails(&wrong).fails(&[ALREADY_EXISTS]));
        let about = format!("Writes an object of kind {name} as a whole: replaces the one there is, or creates it.");
        let replace = Operation::new(Method::PUT, one.clone(), Action::Replace(kind), about);
        let replace = replace.named(format!("replace{name}")).takes(parameter::change(kind)).sends(document);
        let replace = replace.answers(200, Content::Json(name)).answers(201, Content::Json(name));
        all.push(replace.fails(&wrong).fails(&[PRECONDITION_FAILED]));
        let about = format!("Changes some fields of an object of kind {name} (RFC 7396): null takes a field out.");
        let patch =
            Operation::new(Method::PATCH, one.clone(), Action::Patch(kind), about).named(format!("patch{name}"));
        let patch = patch.takes(parameter::change(kind)).sends(Body::Patch).answers(200, Content::Json(name));
        all.push(patch.fails(&wrong).fails(&[NOT_FOUND, PRECONDITION_FAILED]));
    }
    if kind.verbs.contains(&Verb::Delete) {
        let about = format!("Deletes an object of kind {name} that nothing needs; gives back what it was.");
        let delete = Operation::new(Method::DELETE, one, Action::Delete(kind), about).named(format!("delete{name}"));
        let delete = delete.takes(parameter::delete(kind)).answers(200, Content::Json(name));
        all.push(delete.fails(&[NOT_FOUND, CONFLICT, PRECONDITION_FAILED, NAMESPACE_IN_USE, problem::ROOT_FIXED]));
    }
    all.into_iter().map(|operation| operation.under(name)).collect()
}

fn of_fleet() -> Vec<Operation> {
    let post = |path: &str, action, about: &str| Operation::new(Method::POST, format!("{BASE}/{path}"), action, about);
    let apply =
        post("apply", Action::Apply, "Creates or changes many documents in one transaction: all of them, or none.")
            .named("apply")
            .takes(vec![parameter::dry_run()])
            .sends(Body::Json("ApplyRequest"))
            .answers(200, Content::Json("ApplyResponse"))
            .fails(&[problem::INVALID, problem::CONFLICT, problem::NAMESPACE_MISSING, problem::RANGE]);
    let explain =
        post("explain", Action::Explain, "Why a flow is allowed or refused, and the smallest rule to allow it.")
            .named("explain")
            .sends(Body::Json("ExplainRequest"))
            .answers(200, Content::Json("ExplainAnswer"))
            .fails(&[problem::NOT_FOUND, problem::AMBIGUOUS, problem::RANGE]);
    let about = "Connections as the nodes report them; with `follow` one a line as they come.";
    let flows = Operation::new(Method::GET, format!("{BASE}/flows"), Action::Flows, about)
        .named("listFlows")
        .takes(parameter::flows())
        .answers(200, Content::Lines("FlowList", "FlowRow"));
    let about = "The audit trail after an entry, oldest first, as it was hashed: who changed what, from where.";
    let audit = Operation::new(Method::GET, format!("{BASE}/audit"), Action::Audit, about)
        .named("listAudit")
        .takes(parameter::audit())
        .answers(200, Content::Json("AuditList"));
    let token =
        post("clusters/{name}/join-tokens", Action::JoinToken, "A one-time token with which one node can join.")
            .named("createJoinToken")
            .takes(vec![parameter::name("Cluster")])
            .sends(Body::JsonOrEmpty("JoinTokenRequest"))
            .answers(201, Content::Json("JoinTokenResponse"))
            .fails(&[problem::NOT_FOUND, problem::TOKEN_LIMIT, problem::RANGE]);
    let about = "Asks every node for a new handshake key; each is used once every peer has it.";
    let nodes = post("authority/rotate-node-keys", Action::RotateNodeKeys, about)
        .named("rotateNodeKeys")
        .answers(200, Content::Json("NodeKeysRotated"));
    let about = "Makes a new fleet key (the filter for SYNs); used once every node has it.";
    let fleet = post("authority/rotate-fleet-key", Action::RotateFleetKey, about)
        .named("rotateFleetKey")
        .answers(200, Content::Json("FleetKeyRotated"))
        .fails(&[problem::ROTATION_BUSY]);
    vec![
        apply.under("documents"),
        explain.under("flows"),
        flows.under("flows"),
        audit.under("audit"),
        token.under("Cluster"),
        nodes.under("authority"),
        fleet.under("authority"),
    ]
}

fn of_process() -> Vec<Operation> {
    let get = |path: &str, action, about: &str| Operation::new(Method::GET, path, action, about);
    let plain = Content::Text("text/plain");
    vec![
        get("/healthz", Action::Health, "The process lives.").named("health").public().answers(200, plain),
        get("/readyz", Action::Ready, "The database answers, and the server is not stopping.")
            .named("ready")
            .public()
            .answers(200, plain),
        get("/metrics", Action::Metrics, "What is counted, as OpenMetrics text.")
            .named("metrics")
            .answers(200, Content::Text("application/openmetrics-text")),
        get("/openapi.json", Action::OpenApi, "This document: OpenAPI 3.1, made from the list that the server serves.")
            .named("openapi")
            .under("description")
            .public()
            .answers(200, Content::Mapping),
        get("/docs", Action::Docs, "The same for people.")
            .named("docs")
            .under("description")
            .public()
            .answers(200, Content::Text("text/html")),
    ]
}

impl Operation {
    fn new(method: Method, path: impl Into<String>, action: Action, about: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            action,
            id: String::new(),
            about: about.into(),
            tag: "process",
            access: Access::Operator,
            parameters: Vec::new(),
            body: Body::Empty,
            answers: Vec::new(),
            problems: vec![problem::INTERNAL, problem::UNAVAILABLE, problem::STANDBY],
        }
    }

    fn named(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    fn under(mut self, tag: &'static str) -> Self {
        self.tag = tag;
        self
    }

    fn public(mut self) -> Self {
        self.access = Access::Anyone;
        self
    }

    fn takes(mut self, parameters: Vec<Parameter>) -> Self {
        self.parameters = parameters;
        self
    }

    fn sends(mut self, body: Body) -> Self {
        self.body = body;
        self.fails(&[problem::BODY_TOO_LARGE, problem::UNSUPPORTED_MEDIA, problem::TOO_DEEP])
    }

    fn answers(mut self, status: u16, content: Content) -> Self {
        self.answers.push((status, content));
        self
    }

    fn fails(mut self, problems: &[ProblemKind]) -> Self {
        self.problems.extend_from_slice(problems);
        self
    }

    /// Everything that can go wrong: its own problems, and those of whoever calls.
    pub fn all_problems(&self) -> Vec<ProblemKind> {
        let mut all = self.problems.clone();
        if !self.parameters.is_empty() || self.body != Body::Empty {
            all.push(problem::BAD_REQUEST);
        }
        if self.method != Method::GET {
            all.push(problem::OUTCOME_UNKNOWN);
        }
        if self.access != Access::Anyone {
            all.extend([problem::UNAUTHENTICATED, problem::FORBIDDEN]);
        }
        all.sort_by_key(|kind| (kind.status, kind.code));
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_verb_of_every_kind_is_an_operation_and_ids_are_unique() {
        let all = operations();
        let ids: BTreeSet<&str> = all.iter().map(|operation| operation.id.as_str()).collect();
        assert_eq!(ids.len(), all.len(), "{ids:?}");
        let places: BTreeSet<_> =
            all.iter().map(|operation| (operation.path.as_str(), operation.method.as_str())).collect();
        assert_eq!(places.len(), all.len());
        for id in ["listPolicies", "watchless", "patchNamespace", "deleteNode", "getWorkload"] {
            assert_eq!(ids.contains(id), id != "watchless", "{id}");
        }
        assert!(!ids.contains("createNode") && !ids.contains("deleteWorkload"));
    }

    #[test]
    fn whatever_varies_in_an_address_is_a_parameter() {
        for operation in operations() {
            let varies = operation.path.contains("{name}");
            assert_eq!(varies, operation.parameters.iter().any(|p| p.place == Place::Path), "{}", operation.id);
            assert!(!operation.answers.is_empty() && !operation.id.is_empty(), "{}", operation.path);
        }
    }
}
