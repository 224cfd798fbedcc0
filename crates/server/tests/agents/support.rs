//! A real server on a free port, and an agent that speaks the real protocol and keeps its state in a map.

use std::collections::BTreeMap;
use std::time::Duration;

use api::admin::AdminConfig;
use api::client::Client;
use api::object::{Object, ObjectKey};
use api::sync as wire;
use api::sync::agent_message::Message as From;
use api::sync::enrolment_client::EnrolmentClient;
use api::sync::server_message::Message as To;
use api::sync::sync_client::SyncClient;
use api::tls::{self, ClientIdentity};
use hyper_util::rt::TokioIo;
use identity::authority::{NodeRequest, certificate_pem};
use identity::ids::NodeId;
use identity::node_key;
use identity::seal::{Seal, digest};
use jiff::Timestamp;
use prost::Message;
use serde_json::{Value, json};
use server::Server;
use server::config::{Config, Paths};
use server::control::Shared;
use server::init::{InitOptions, init};
use server::registry::Limits;
use store::document::Precondition;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// Nothing in these tests takes so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Running {
    dir: tempfile::TempDir,
    limits: Limits,
    pub(crate) control: Shared,
    pub(crate) port: u16,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::with(Self::limits()).await
    }

    /// What a server of these tests has unless one says otherwise.
    pub(crate) fn limits() -> Limits {
        Limits { status_delay: Duration::from_millis(10), ..Limits::default() }
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = InitOptions {
            data: dir.path().join("data"),
            trust_domain: "example.org".into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            names: vec!["127.0.0.1".into()],
            admin: "root".into(),
            store: None,
            seal_key: None,
            now: Timestamp::now(),
        };
        init(&options).await.unwrap();
        Self::serve(dir, limits).await
    }

    async fn serve(dir: tempfile::TempDir, limits: Limits) -> Self {
        let config = Config { limits, ..Config::new(dir.path().join("data")) };
        let bound = Server::bind(config).await.unwrap();
        let (port, control) = (bound.address().port(), bound.control().expect("alone on its file").clone());
        let cancel = CancellationToken::new();
        let task = tokio::spawn(bound.run(cancel.clone()));
        Self { dir, limits, control, port, cancel, task }
    }

    /// Stops it and starts it again on the same data.
    pub(crate) async fn restart(self) -> Self {
        self.cancel.cancel();
        tokio::time::timeout(LIMIT, self.task).await.unwrap().unwrap();
        drop(self.control);
        Self::serve(self.dir, self.limits).await
    }

    /// Two clusters with equal addresses, and an enforcing namespace.
    pub(crate) async fn clusters(self) -> Self {
        for (name, namespace) in [("eu-1", "/acme/eu-1"), ("us-1", "/acme/us-1")] {
            let spec = json!({"namespace": namespace, "addressRanges": ["10.0.0.0/24"]});
            self.put("Cluster", "/", name, spec).await;
        }
        self
    }

    pub(crate) async fn put(&self, kind: &str, namespace: &str, name: &str, spec: Value) -> u64 {
        let object = json!({
            "apiVersion": "stolos.dev/v1", "kind": kind, "metadata": {"namespace": namespace, "name": name}, "spec": spec
        });
        let object: Object = serde_json::from_value(object).unwrap();
        let mut transaction = self.control.store.begin().await.unwrap();
        transaction.put(&object, Precondition::None, Timestamp::now()).await.unwrap();
        transaction.commit().await.unwrap().0
    }

    pub(crate) async fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let mut transaction = self.control.store.begin().await.unwrap();
        let key = ObjectKey::new(kind, namespace, name);
        assert!(transaction.delete(&key, Precondition::None).await.unwrap().is_some());
        transaction.commit().await.unwrap();
    }

    /// Waits until a document's status is as wanted.
    pub(crate) async fn status(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let key = ObjectKey::new(kind, namespace, name);
        let mut commits = self.control.store.commits();
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                commits.mark_unchanged();
                let object = self.control.store.get(&key).await.unwrap();
                if let Some(status) = object.and_then(|o| o.status).filter(&wanted) {
                    return status;
                }
                commits.changed().await.unwrap();
            }
        });
        match found.await {
            Ok(status) => status,
            Err(_) => panic!("{key} is {:?}", self.control.store.get(&key).await),
        }
    }

    /// An operator's client.
    pub(crate) fn api(&self) -> Client {
        let file = Paths::of(&self.dir.path().join("data")).admin;
        let config = AdminConfig::parse(&std::fs::read_to_string(file).unwrap()).unwrap();
        Client::new(&AdminConfig { server: format!("https://127.0.0.1:{}", self.port), ..config }).unwrap()
    }

    pub(crate) async fn token(&self, cluster: &str) -> String {
        self.control.registry.make_token(cluster, Duration::from_secs(600), None).await.unwrap().0
    }

    pub(crate) async fn channel(&self, identity: Option<ClientIdentity>) -> Channel {
        let mut config = tls::client_config(self.control.authority.root(), identity).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let port = self.port;
        let connect = tower::service_fn(move |_: http::Uri| {
            let connector = connector.clone();
            async move {
                let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
                stream.set_nodelay(true)?;
                let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        // TLS is the connector's.
        Endpoint::from_static("http://127.0.0.1").connect_with_connector(connect).await.unwrap()
    }

    /// Enrols a node and connects its agent.
    pub(crate) async fn agent(&self, cluster: &str, hostname: &str) -> Agent {
        let token = self.token(cluster).await;
        let node = EnrolledNode::enrol(self, &token, hostname).await.unwrap();
        Agent::connect(self, node).await
    }
}

/// What a node keeps of its enrolment.
#[derive(Clone)]
pub(crate) struct EnrolledNode {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) key_pem: String,
    certificate: String,
    verify_key: [u8; 32],
    /// Generation and public half of the handshake key.
    pub(crate) key: (u32, [u8; 32]),
    addresses: Vec<String>,
}

impl EnrolledNode {
    pub(crate) async fn enrol(server: &Running, token: &str, hostname: &str) -> Result<Self, Status> {
        let request = NodeRequest::generate().unwrap();
        let public = key_named(hostname);
        let signature = node_key::sign(&request.key_pem, 0, &public).unwrap();
        let asked = wire::EnrolRequest {
            token_secret: token.into(),
            csr_der: request.request_der.clone(),
            hostname: hostname.into(),
            handshake_key: Some(wire::NodePublicKey { generation: 0, public: public.to_vec(), signature }),
        };
        let mut client = EnrolmentClient::new(server.channel(None).await);
        let answer = client.enrol(asked).await?.into_inner();
        assert_eq!(answer.trust_domain, "example.org");
        Ok(Self {
            id: NodeId::new(answer.node_id).unwrap(),
            name: answer.node_name,
            key_pem: request.key_pem.to_string(),
            certificate: certificate_pem(&answer.certificate_der.into()),
            verify_key: answer.snapshot_verify_key.try_into().unwrap(),
            key: (0, public),
            addresses: Vec::new(),
        })
    }

    pub(crate) fn identity(&self) -> ClientIdentity {
        ClientIdentity::from_pem(&self.certificate, &self.key_pem).unwrap()
    }

    pub(crate) fn public_key(&self) -> wire::NodePublicKey {
        let (generation, public) = self.key;
        let signature = node_key::sign(&self.key_pem, generation, &public).unwrap();
        wire::NodePublicKey { generation, public: public.to_vec(), signature }
    }
}

/// 32 bytes that are no low-order point.
pub(crate) fn key_named(name: &str) -> [u8; 32] {
    *identity::fingerprint::Fingerprint::of(name.as_bytes()).as_bytes()
}

/// An agent with an open stream.
pub(crate) struct Agent {
    pub(crate) node: EnrolledNode,
    pub(crate) welcome: wire::Welcome,
    pub(crate) state: BTreeMap<String, Vec<u8>>,
    pub(crate) revision: u64,
    /// When the seal of what it has ends.
    pub(crate) expires_unix_s: i64,
    /// Whether it answers states.
    pub(crate) acknowledges: bool,
    pub(crate) snapshots: u32,
    pub(crate) deltas: u32,
    pub(crate) refused: Vec<wire::WorkloadRefused>,
    pub(crate) other: Vec<To>,
    /// A state that it has and has not answered.
    unanswered: Option<u64>,
    chunks: Vec<wire::Object>,
    outbound: mpsc::Sender<wire::AgentMessage>,
    inbound: Streaming<wire::ServerMessage>,
}

impl Agent {
    pub(crate) async fn connect(server: &Running, node: EnrolledNode) -> Self {
        Self::connect_with(server, node, BTreeMap::new(), 0).await.unwrap()
    }

    pub(crate) async fn connect_with(
        server: &Running,
        node: EnrolledNode,
        state: BTreeMap<String, Vec<u8>>,
        revision: u64,
    ) -> Result<Self, Status> {
        let (outbound, receiver) = mpsc::channel(16);
        let hello = wire::Hello {
            protocol: 1,
            agent_version: "test".into(),
            have_revision: revision,
            handshake_key: Some(node.public_key()),
            node_addresses: node.addresses.clone(),
            process: "process-1".into(),
            ..wire::Hello::default()
        };
        outbound.send(message(From::Hello(hello))).await.unwrap();
        let mut client = SyncClient::new(server.channel(Some(node.identity())).await);
        let mut inbound = client.sync(ReceiverStream::new(receiver)).await?.into_inner();
        let first = tokio::time::timeout(LIMIT, inbound.message()).await.unwrap()?.unwrap();
        let Some(To::Welcome(welcome)) = first.message else { panic!("{first:?}") };
        Ok(Self {
            node,
            welcome,
            state,
            revision,
            expires_unix_s: 0,
            acknowledges: true,
            snapshots: 0,
            deltas: 0,
            refused: Vec::new(),
            other: Vec::new(),
            unanswered: None,
            chunks: Vec::new(),
            outbound,
            inbound,
        })
    }

    /// Ends the stream and connects again, with what it has.
    pub(crate) async fn reconnect(self, server: &Running) -> Self {
        let Self { node, state, revision, .. } = self;
        Self::connect_with(server, node, state, revision).await.unwrap()
    }

    pub(crate) async fn send(&self, said: From) {
        self.outbound.send(message(said)).await.unwrap();
    }

    pub(crate) async fn report(&self, complete: bool, workloads: &[wire::LocalWorkload], removed: &[&str]) {
        let removed_uids = removed.iter().map(|uid| (*uid).to_owned()).collect();
        self.send(From::Workloads(wire::WorkloadReport { complete, upserted: workloads.to_vec(), removed_uids })).await;
    }

    /// Handles messages until the predicate holds.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let end = tokio::time::Instant::now() + LIMIT;
        while !wanted(self) {
            match tokio::time::timeout_at(end, self.inbound.message()).await {
                Ok(Ok(Some(wire::ServerMessage { message: Some(message) }))) => {
                    self.hear(message).await;
                    // Only what is waited for is held back: a state before it, unanswered, would keep it from coming.
                    if !wanted(self)
                        && let Some(revision) = self.unanswered.take()
                    {
                        self.send(From::Applied(wire::Applied { revision, took_ms: 1 })).await;
                    }
                }
                Ok(other) => panic!("waiting for {what}: {other:?}"),
                Err(_) => panic!("waiting for {what}: at revision {}, {:#?}", self.revision, self.state.keys()),
            }
        }
    }

    /// Waits until the state has this object as wanted.
    pub(crate) async fn until_object<M: Message + Default>(&mut self, key: &str, wanted: impl Fn(&M) -> bool) -> M {
        self.until(key, |agent| agent.state.get(key).is_some_and(|v| wanted(&M::decode(v.as_slice()).unwrap()))).await;
        self.object(key)
    }

    pub(crate) fn object<M: Message + Default>(&self, key: &str) -> M {
        M::decode(self.state.get(key).unwrap_or_else(|| panic!("no {key}")).as_slice()).unwrap()
    }

    pub(crate) fn keys(&self, prefix: &str) -> Vec<&str> {
        self.state.keys().filter(|k| k.starts_with(prefix)).map(String::as_str).collect()
    }

    /// How the stream ends.
    pub(crate) async fn ending(&mut self) -> Option<Status> {
        let ended = async {
            loop {
                match self.inbound.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(status) => return Some(status),
                }
            }
        };
        tokio::time::timeout(LIMIT, ended).await.unwrap()
    }

    /// Answers the state that it holds unanswered.
    pub(crate) async fn acknowledge(&mut self) {
        self.acknowledges = true;
        if let Some(revision) = self.unanswered.take() {
            self.send(From::Applied(wire::Applied { revision, took_ms: 1 })).await;
        }
    }

    async fn hear(&mut self, message: To) {
        match message {
            To::Snapshot(chunk) => {
                self.chunks.extend(chunk.objects);
                if chunk.last {
                    let objects = std::mem::take(&mut self.chunks);
                    self.state = objects.into_iter().map(|o| (o.key, o.value)).collect();
                    self.snapshots += 1;
                    self.apply(chunk.revision, chunk.seal.unwrap()).await;
                }
            }
            To::Delta(delta) => {
                assert_eq!(delta.from_revision, self.revision, "a delta from what it has");
                assert!(delta.to_revision >= self.revision);
                for key in delta.removed {
                    assert!(self.state.remove(&key).is_some(), "{key} removed and not there");
                }
                self.state.extend(delta.upserted.into_iter().map(|o| (o.key, o.value)));
                self.deltas += 1;
                self.apply(delta.to_revision, delta.seal.unwrap()).await;
            }
            To::Refused(refused) => self.refused.push(refused),
            other => self.other.push(other),
        }
    }

    async fn apply(&mut self, revision: u64, seal: wire::Seal) {
        let seal = Seal::from_parts(seal.expires_unix_s, &seal.digest, &seal.signature).unwrap();
        let digest = digest(self.state.iter().map(|(k, v)| (k.as_str(), v.as_slice())));
        seal.check_at(&self.node.verify_key, self.node.id, revision, &digest, Timestamp::now()).unwrap();
        (self.revision, self.expires_unix_s) = (revision, seal.expires_unix_s);
        match self.acknowledges {
            true => self.send(From::Applied(wire::Applied { revision, took_ms: 1 })).await,
            false => self.unanswered = Some(revision),
        }
    }
}

impl EnrolledNode {
    pub(crate) fn at(mut self, addresses: &[&str]) -> Self {
        self.addresses = addresses.iter().map(|a| (*a).to_owned()).collect();
        self
    }
}

fn message(said: From) -> wire::AgentMessage {
    wire::AgentMessage { message: Some(said) }
}

/// A workload as agents report it; its uid is made from its number.
pub(crate) fn workload(number: u32, name: &str, labels: &[(&str, &str)]) -> wire::LocalWorkload {
    wire::LocalWorkload {
        uid: uid(number),
        name: name.into(),
        r#type: "process".into(),
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..wire::LocalWorkload::default()
    }
}

pub(crate) fn uid(number: u32) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}
