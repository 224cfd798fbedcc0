//! The server as the verbs see it: the API's client, with every way to fail turned into a sentence.

use api::apply::{ApplyRequest, ApplyResponse};
use api::audit::AuditList;
use api::authority::{FleetKeyRotated, NodeKeysRotated};
use api::client::{Client, ClientError, Lines, ListQuery};
use api::explain::{ExplainAnswer, ExplainRequest};
use api::flow::{FlowList, FlowQuery, FlowRow};
use api::kind::Kind;
use api::kind::revocation::{RevocationSpec, RevocationStatus};
use api::object::{Object, ObjectKey, Revision};
use api::problem::Problem;
use api::token::{JoinTokenRequest, JoinTokenResponse};
use api::watch::{ObjectList, WatchEvent};
use serde::de::DeserializeOwned;

use crate::args::{Connection, Scope};
use crate::config::Operator;
use crate::failure::{C, Failure, Outcome};
use crate::output::printable;
use crate::{manifest, reach};

/// A server and what was typed about where in it.
pub(crate) struct Server {
    client: Client,
    operator: Operator,
    namespace: Option<String>,
}

/// A revocation with what it did.
pub(crate) type Revocation = Object<RevocationSpec, RevocationStatus>;

impl Server {
    /// The server of the operator's configuration; opens no connection yet.
    pub(crate) fn configured(connection: &Connection, scope: &Scope) -> Result<Self, Failure> {
        let operator = Operator::load(connection)?;
        let client = Client::new(&operator.admin).map_err(|error| failure(&error, &operator))?;
        let namespace = scope.namespace.clone().or_else(|| operator.namespace.clone());
        Ok(Self { client, operator, namespace })
    }

    /// Its URL.
    pub(crate) fn url(&self) -> &str {
        self.client.server()
    }

    /// The namespace that was typed, else the context's.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Objects of a kind, in the namespace that was typed and below it, else everywhere; `labels` is a selector on their
    /// own labels.
    pub(crate) async fn list(&self, kind: &Kind, labels: Option<&str>) -> Result<ObjectList, Failure> {
        self.told(self.client.list_any(kind.name, &self.query(labels)).await)
    }

    /// Objects of a kind in a namespace and below it, whatever was typed.
    pub(crate) async fn list_in(&self, kind: &Kind, namespace: &str) -> Result<Vec<Object>, Failure> {
        let query = ListQuery { namespace: Some(namespace.to_owned()), subtree: true, label_selector: None };
        Ok(self.told(self.client.list_any(kind.name, &query).await)?.items)
    }

    /// Their changes after a revision.
    pub(crate) async fn watch(
        &self,
        kind: &Kind,
        labels: Option<&str>,
        from: Revision,
    ) -> Result<Changes<'_>, Failure> {
        let lines = self.told(self.client.watch(kind.name, &self.query(labels), from).await)?;
        Ok(Stream { server: self, lines })
    }

    fn query(&self, labels: Option<&str>) -> ListQuery {
        let namespace = self.namespace.clone();
        ListQuery { subtree: namespace.is_some(), namespace, label_selector: labels.map(str::to_owned) }
    }

    /// One object; `None` where there is none.
    pub(crate) async fn object(&self, key: &ObjectKey) -> Result<Option<Object>, Failure> {
        match self.client.get_any(&key.kind, &key.namespace, &key.name).await {
            Err(ClientError::Refused(problem)) if problem.status == 404 => Ok(None),
            answer => self.told(answer).map(Some),
        }
    }

    /// All objects of a kind with their types, and the revision they are of.
    pub(crate) async fn all<S, T>(&self, kind: &str) -> Result<(Vec<Object<S, T>>, Revision), Failure>
    where
        S: DeserializeOwned,
        T: DeserializeOwned,
    {
        let list = self.told(self.client.list_any(kind, &ListQuery::default()).await)?;
        let typed = list.items.iter().map(retyped).collect::<Option<Vec<_>>>();
        Ok((typed.ok_or_else(|| self.strange())?, list.revision))
    }

    /// Stores a new Revocation.
    pub(crate) async fn revoke(&self, object: &Object) -> Result<Revocation, Failure> {
        let stored = self.told(self.client.create(object).await)?;
        retyped(&stored).ok_or_else(|| self.strange())
    }

    /// A Revocation as it is now.
    pub(crate) async fn revocation(&self, name: &str) -> Result<Revocation, Failure> {
        self.told(self.client.get::<RevocationSpec>("/", name).await)
    }

    /// Applies documents, all or none.
    pub(crate) async fn apply(&self, request: &ApplyRequest, dry_run: bool) -> Result<ApplyResponse, Failure> {
        self.told(self.client.apply(request, dry_run).await)
    }

    /// Deletes one object.
    pub(crate) async fn delete(&self, key: &ObjectKey) -> Outcome {
        self.told(self.client.delete(&key.kind, &key.namespace, &key.name).await).map(|_| ())
    }

    /// Flows that were seen.
    pub(crate) async fn flows(&self, query: &FlowQuery) -> Result<FlowList, Failure> {
        self.told(self.client.flows(query).await)
    }

    /// Flows as they come.
    pub(crate) async fn follow_flows(&self, query: &FlowQuery) -> Result<Rows<'_>, Failure> {
        let lines = self.told(self.client.follow_flows(query).await)?;
        Ok(Stream { server: self, lines })
    }

    /// Why a flow is allowed or refused.
    pub(crate) async fn explain(&self, request: &ExplainRequest) -> Result<ExplainAnswer, Failure> {
        self.told(self.client.explain(request).await)
    }

    /// A new join token.
    pub(crate) async fn join_token(
        &self,
        cluster: &str,
        request: &JoinTokenRequest,
    ) -> Result<JoinTokenResponse, Failure> {
        self.told(self.client.join_token(cluster, request).await)
    }

    /// Asks every node for a new handshake key.
    pub(crate) async fn rotate_node_keys(&self) -> Result<NodeKeysRotated, Failure> {
        self.told(self.client.rotate_node_keys().await)
    }

    /// Makes a new fleet key.
    pub(crate) async fn rotate_fleet_key(&self) -> Result<FleetKeyRotated, Failure> {
        self.told(self.client.rotate_fleet_key().await)
    }

    /// Records of the audit trail after a number.
    pub(crate) async fn audit(&self, after: u64, limit: u32) -> Result<AuditList, Failure> {
        self.told(self.client.audit(after, limit).await)
    }

    fn told<T>(&self, answer: Result<T, ClientError>) -> Result<T, Failure> {
        answer.map_err(|error| failure(&error, &self.operator))
    }

    /// What it says makes no sense.
    pub(crate) fn strange(&self) -> Failure {
        failure(&ClientError::Unreadable { server: self.url().to_owned() }, &self.operator)
    }
}

/// Values as they come.
pub(crate) struct Stream<'a, T> {
    server: &'a Server,
    lines: Lines<T>,
}

/// Flows as they come.
pub(crate) type Rows<'a> = Stream<'a, FlowRow>;
/// Changes as they come.
pub(crate) type Changes<'a> = Stream<'a, WatchEvent>;

impl<T: DeserializeOwned> Stream<'_, T> {
    /// The next one; `None` when the server ended the stream. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, Failure> {
        self.server.told(self.lines.next().await)
    }
}

fn retyped<S: DeserializeOwned, T: DeserializeOwned>(object: &Object) -> Option<Object<S, T>> {
    serde_json::to_value(object).and_then(serde_json::from_value).ok()
}

fn failure(error: &ClientError, operator: &Operator) -> Failure {
    match error {
        ClientError::Unreachable { source, .. } => reach::failure(source, &operator.admin.server, &operator.file),
        ClientError::Refused(problem) => refused(problem),
        ClientError::Unreadable { server } => Failure::new(
            C::ANSWER_STRANGE,
            format!("{server} answered with something this version does not understand"),
            "compare `stolos version` here and there; the two are probably of different versions",
        ),
        ClientError::Url(_) | ClientError::Tls(_) => Failure::new(
            C::CONFIG_BAD,
            format!("{} cannot be used: {error}{}", operator.file.display(), cause(error)),
            "take the file as `stolos server init` wrote it",
        ),
    }
}

fn cause(error: &ClientError) -> String {
    std::error::Error::source(error).map(|source| format!(" ({source})")).unwrap_or_default()
}

/// A problem document: every diagnostic as a compiler shows it, else one sentence with its code.
fn refused(problem: &Problem) -> Failure {
    if !problem.diagnostics.is_empty() {
        let errors = manifest::report(&problem.diagnostics);
        let plural = if errors == 1 { "problem" } else { "problems" };
        return Failure::Reported(format!("{errors} {plural}; nothing was written"));
    }
    let mend = policy::code::find(&problem.code).map(|code| code.mend).unwrap_or_default();
    Failure::new(&problem.code, printable(problem.detail.trim_end_matches('.')), mend)
}
