//! The typed client of the server's API, for the command line, agents and tests.

use std::marker::PhantomData;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::admin::AdminConfig;
use crate::apply::{ApplyRequest, ApplyResponse};
use crate::audit::AuditList;
use crate::authority::{FleetKeyRotated, NodeKeysRotated};
use crate::explain::{ExplainAnswer, ExplainRequest};
use crate::flow::{FlowList, FlowQuery, FlowRow};
use crate::kind::{self, Scope, Spec};
use crate::object::{Object, Revision};
use crate::problem::Problem;
use crate::route;
use crate::tls::{self, ClientIdentity, TlsError};
use crate::token::{JoinTokenRequest, JoinTokenResponse};
use crate::watch::{ObjectList, WatchEvent};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take that is not a stream.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest line of a stream in bytes.
const LINE_LEN_MAX: usize = 8 * 1024 * 1024;

/// A server's API. Cloning shares its connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No answer: wrong address, no server, another authority, or a timeout.
    #[error("the server {server} cannot be reached")]
    Unreachable {
        /// Where the client looked for it.
        server: String,
        /// What the network said.
        #[source]
        source: reqwest::Error,
    },
    /// The server said no, and why.
    #[error(transparent)]
    Refused(Box<Problem>),
    /// The answer is not what this version expects.
    #[error("the answer of {server} cannot be read; is it a Stolos server of this version?")]
    Unreadable {
        /// Who answered.
        server: String,
    },
    /// The server's URL is malformed.
    #[error("`{0}` is no URL of a server")]
    Url(String),
    /// The credentials do not work.
    #[error("the credentials cannot be used")]
    Tls(#[from] TlsError),
}

impl ClientError {
    /// The server's problem document, if it sent one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }
}

/// Which objects a list or watch is of. Everything given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListQuery {
    /// In this namespace; absent means everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// With `namespace`: and in those below it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub subtree: bool,
    /// A selector on the objects' own labels: `team=web,tier in (a,b),!legacy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PageQuery<'a> {
    #[serde(flatten)]
    list: &'a ListQuery,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

#[derive(Serialize)]
struct WatchQuery<'a> {
    #[serde(flatten)]
    list: &'a ListQuery,
    watch: bool,
    revision: Revision,
}

impl Client {
    /// A client with an operator's credentials.
    pub fn new(config: &AdminConfig) -> Result<Self, ClientError> {
        let authorities = tls::certificates_from_pem(&config.ca, "authority's certificate")?;
        let identity = ClientIdentity::from_pem(&config.certificate, &config.key)?;
        Self::with_tls(&config.server, tls::client_config(&authorities[0], Some(identity))?)
    }

    /// A client with any TLS configuration, for what needs no certificate.
    pub fn with_tls(server: &str, tls: rustls::ClientConfig) -> Result<Self, ClientError> {
        let bad = || ClientError::Url(server.to_owned());
        let base = Url::parse(server).map_err(|_| bad())?;
        if base.scheme() != "https" || base.cannot_be_a_base() {
            return Err(bad());
        }
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|source| ClientError::Unreachable { server: server.to_owned(), source })?;
        Ok(Self { http, base })
    }

    /// The server's URL.
    pub fn server(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// One object.
    pub async fn get<S: Spec>(&self, namespace: &str, name: &str) -> Result<Object<S, S::Status>, ClientError> {
        self.json(self.one(Method::GET, S::KIND, namespace, name)).await
    }

    /// One object of a kind that is known only at run time.
    pub async fn get_any(&self, kind: &str, namespace: &str, name: &str) -> Result<Object, ClientError> {
        self.json(self.one(Method::GET, kind, namespace, name)).await
    }

    /// Objects of a kind.
    pub async fn list<S: Spec>(&self, query: &ListQuery) -> Result<Vec<Object<S, S::Status>>, ClientError> {
        let items = self.list_any(S::KIND, query).await?.items;
        let typed = items.into_iter().map(|object| serde_json::to_value(object).and_then(serde_json::from_value));
        typed.collect::<Result<_, _>>().map_err(|_| self.unreadable())
    }

    /// Objects of a kind that is known only at run time, all pages of them, and the revision to watch from.
    pub async fn list_any(&self, kind: &str, query: &ListQuery) -> Result<ObjectList, ClientError> {
        let mut all = self.page(kind, query, None, None).await?;
        while let Some(next) = all.next.take() {
            let page = self.page(kind, query, None, Some(&next)).await?;
            all.items.extend(page.items);
            all.next = page.next;
        }
        Ok(all)
    }

    /// One page of a list: at most `limit` objects, behind those of the page whose `next` is given.
    pub async fn page(
        &self,
        kind: &str,
        query: &ListQuery,
        limit: Option<u32>,
        next: Option<&str>,
    ) -> Result<ObjectList, ClientError> {
        self.json(self.call(Method::GET, &[plural(kind)], &PageQuery { list: query, limit, next })).await
    }

    /// Creates an object; there must be none of its name.
    pub async fn create(&self, object: &Object) -> Result<Object, ClientError> {
        self.json(self.call(Method::POST, &[plural(&object.kind)], &()).json(object)).await
    }

    /// Replaces an object, or creates it. With `metadata.revision`, only if nobody wrote since.
    pub async fn replace(&self, object: &Object) -> Result<Object, ClientError> {
        let (namespace, name) = (&object.metadata.namespace, &object.metadata.name);
        self.json(self.one(Method::PUT, &object.kind, namespace, name).json(object)).await
    }

    /// Changes some fields of an object by a merge patch (RFC 7396); `metadata.revision` in it is a precondition.
    pub async fn patch(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> Result<Object, ClientError> {
        // Before the body: the media type that is there stays.
        let call = self.one(Method::PATCH, kind, namespace, name).header(CONTENT_TYPE, route::MERGE_PATCH);
        self.json(call.json(patch)).await
    }

    /// Deletes an object; gives back what it was.
    pub async fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<Object, ClientError> {
        self.json(self.one(Method::DELETE, kind, namespace, name)).await
    }

    /// Applies files: all documents, or none.
    pub async fn apply(&self, request: &ApplyRequest, dry_run: bool) -> Result<ApplyResponse, ClientError> {
        self.json(self.call(Method::POST, &["apply"], &[("dryRun", dry_run)]).json(request)).await
    }

    /// Follows changes of a kind after a revision.
    pub async fn watch(&self, kind: &str, query: &ListQuery, from: Revision) -> Result<Lines<WatchEvent>, ClientError> {
        let query = WatchQuery { list: query, watch: true, revision: from };
        self.lines(self.call(Method::GET, &[plural(kind)], &query)).await
    }

    /// Why a flow is allowed or refused.
    pub async fn explain(&self, request: &ExplainRequest) -> Result<ExplainAnswer, ClientError> {
        self.json(self.call(Method::POST, &["explain"], &()).json(request)).await
    }

    /// Flows that were seen.
    pub async fn flows(&self, query: &FlowQuery) -> Result<FlowList, ClientError> {
        self.json(self.call(Method::GET, &["flows"], &FlowQuery { follow: false, ..query.clone() })).await
    }

    /// Flows as they come; a row comes again when it changes.
    pub async fn follow_flows(&self, query: &FlowQuery) -> Result<Lines<FlowRow>, ClientError> {
        self.lines(self.call(Method::GET, &["flows"], &FlowQuery { follow: true, ..query.clone() })).await
    }

    /// A new join token for a cluster.
    pub async fn join_token(
        &self,
        cluster: &str,
        request: &JoinTokenRequest,
    ) -> Result<JoinTokenResponse, ClientError> {
        self.json(self.call(Method::POST, &["clusters", cluster, "join-tokens"], &()).json(request)).await
    }

    /// Asks every node for a new handshake key.
    pub async fn rotate_node_keys(&self) -> Result<NodeKeysRotated, ClientError> {
        self.json(self.call(Method::POST, &["authority", "rotate-node-keys"], &())).await
    }

    /// Makes a new fleet key.
    pub async fn rotate_fleet_key(&self) -> Result<FleetKeyRotated, ClientError> {
        self.json(self.call(Method::POST, &["authority", "rotate-fleet-key"], &())).await
    }

    /// Records of the audit trail after a number, oldest first.
    pub async fn audit(&self, after: u64, limit: u32) -> Result<AuditList, ClientError> {
        let query = [("after", Value::from(after)), ("limit", Value::from(limit))];
        self.json(self.call(Method::GET, &["audit"], &query)).await
    }

    fn one(&self, method: Method, kind: &str, namespace: &str, name: &str) -> RequestBuilder {
        let fleet = kind::find(kind).is_some_and(|kind| kind.scope == Scope::Fleet);
        let query: &[(&str, &str)] = if fleet { &[] } else { &[("namespace", namespace)] };
        self.call(method, &[plural(kind), name], &query)
    }

    /// A request below `/apis/stolos.dev/v1`; `query` is a mapping or a list of pairs.
    fn call(&self, method: Method, path: &[&str], query: &impl Serialize) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(route::BASE.split('/').skip(1)).extend(path);
        }
        self.http.request(method, with_query(url, query))
    }

    async fn json<T: DeserializeOwned>(&self, call: RequestBuilder) -> Result<T, ClientError> {
        let answer = self.send(call.timeout(ANSWER_TIMEOUT)).await?;
        answer.json().await.map_err(|source| match source.is_decode() {
            true => self.unreadable(),
            false => self.unreachable(source),
        })
    }

    async fn lines<T>(&self, call: RequestBuilder) -> Result<Lines<T>, ClientError> {
        let answer = self.send(call).await?;
        Ok(Lines { answer, client: self.clone(), buffer: Vec::new(), scanned: 0, item: PhantomData })
    }

    async fn send(&self, call: RequestBuilder) -> Result<Response, ClientError> {
        let answer = call.send().await.map_err(|source| self.unreachable(source))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.map_err(|source| self.unreachable(source))?;
        let problem = serde_json::from_slice(&body).map_err(|_| self.unreadable())?;
        Err(ClientError::Refused(Box::new(problem)))
    }

    fn unreachable(&self, source: reqwest::Error) -> ClientError {
        // The URL is told once, in the sentence.
        ClientError::Unreachable { server: self.server().to_owned(), source: source.without_url() }
    }

    fn unreadable(&self) -> ClientError {
        ClientError::Unreadable { server: self.server().to_owned() }
    }
}

/// An answer of one JSON value a line, as it comes.
#[derive(Debug)]
pub struct Lines<T> {
    answer: Response,
    client: Client,
    buffer: Vec<u8>,
    /// So much of the buffer has no line end.
    scanned: usize,
    item: PhantomData<T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next value; `None` when the server ended the stream. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer[self.scanned..].iter().position(|&c| c == b'\n') {
                let rest = self.buffer.split_off(self.scanned + end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                self.scanned = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return serde_json::from_slice(&line).map(Some).map_err(|_| self.client.unreadable());
            }
            self.scanned = self.buffer.len();
            match self.answer.chunk().await.map_err(|source| self.client.unreachable(source))? {
                Some(chunk) if self.buffer.len() + chunk.len() <= LINE_LEN_MAX => self.buffer.extend_from_slice(&chunk),
                Some(_) => return Err(self.client.unreadable()),
                None => return Ok(None),
            }
        }
    }
}

/// The word of a kind in URLs; an unknown kind is asked for as it is, and the server says that it is unknown.
fn plural(kind: &str) -> &str {
    kind::find(kind).map_or(kind, |kind| kind.plural)
}

fn with_query(mut url: Url, query: &impl Serialize) -> Url {
    let pairs: Vec<(String, Value)> = match serde_json::to_value(query) {
        Ok(Value::Object(fields)) => fields.into_iter().collect(),
        Ok(Value::Array(pairs)) => pairs.into_iter().filter_map(|pair| serde_json::from_value(pair).ok()).collect(),
        _ => Vec::new(),
    };
    if !pairs.is_empty() {
        let mut encoded = url.query_pairs_mut();
        for (key, value) in pairs {
            match value {
                Value::String(text) => encoded.append_pair(&key, &text),
                other => encoded.append_pair(&key, &other.to_string()),
            };
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_queries_are_escaped() {
        let tls = tls::pinned_config(identity::fingerprint::Fingerprint::of(b"")).unwrap();
        let client = Client::with_tls("https://a:1/", tls).unwrap();
        let root = client.one(Method::GET, "Namespace", "/", "/").build().unwrap();
        assert_eq!(root.url().as_str(), "https://a:1/apis/stolos.dev/v1/namespaces/%2F?namespace=%2F");
        let query = FlowQuery { from: Some("web@eu & co".into()), limit: Some(5), ..FlowQuery::default() };
        let flows = client.call(Method::GET, &["flows"], &query).build().unwrap();
        assert_eq!(flows.url().query(), Some("from=web%40eu+%26+co&limit=5"));
    }

    #[test]
    fn only_https_is_spoken() {
        for bad in ["http://a", "a:1", "", "data:x"] {
            let tls = tls::pinned_config(identity::fingerprint::Fingerprint::of(b"")).unwrap();
            assert!(matches!(Client::with_tls(bad, tls), Err(ClientError::Url(_))), "{bad}");
        }
    }
}
