//! A real server on a free port with a data directory of its own.

use api::admin::AdminConfig;
use api::client::Client;
use api::problem::Problem;
use api::tls::{self, ClientIdentity};
use identity::authority::{NodeRequest, certificate_pem};
use identity::fingerprint::Fingerprint;
use identity::ids::NodeId;
use jiff::Timestamp;
use server::Server;
use server::config::{Config, Paths};
use server::control::Shared;
use server::init::{InitOptions, InitReport, init};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) struct Running {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) report: InitReport,
    pub(crate) control: Shared,
    port: u16,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

pub(crate) fn options(data: impl Into<std::path::PathBuf>) -> InitOptions {
    InitOptions {
        data: data.into(),
        trust_domain: "example.org".into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        names: vec!["127.0.0.1".into()],
        admin: "root".into(),
        store: None,
        seal_key: None,
        now: Timestamp::now(),
    }
}

impl Running {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let report = init(&options(dir.path().join("data"))).await.unwrap();
        let bound = Server::bind(Config::new(dir.path().join("data"))).await.unwrap();
        let (port, control) = (bound.address().port(), bound.control().expect("alone on its file").clone());
        let cancel = CancellationToken::new();
        let task = tokio::spawn(bound.run(cancel.clone()));
        Self { dir, report, control, port, cancel, task }
    }

    /// Stops it; everything drains.
    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        tokio::time::timeout(std::time::Duration::from_secs(30), self.task).await.unwrap().unwrap();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn admin_config(&self) -> AdminConfig {
        let file = Paths::of(&self.dir.path().join("data")).admin;
        let config = AdminConfig::parse(&std::fs::read_to_string(file).unwrap()).unwrap();
        AdminConfig { server: self.url(""), ..config }
    }

    /// The typed client with the operator's credentials.
    pub(crate) fn api(&self) -> Client {
        Client::new(&self.admin_config()).unwrap()
    }

    pub(crate) fn identity(&self) -> ClientIdentity {
        let config = self.admin_config();
        ClientIdentity::from_pem(&config.certificate, &config.key).unwrap()
    }

    pub(crate) fn admin(&self) -> reqwest::Client {
        self.client_with(self.identity())
    }

    pub(crate) fn node(&self, id: u32) -> reqwest::Client {
        let request = NodeRequest::generate().unwrap();
        let id = NodeId::new(id).unwrap();
        let issued = self.control.authority.issue_node(&request.request_der, id, Timestamp::now()).unwrap();
        let certificate = certificate_pem(&issued.certificate);
        self.client_with(ClientIdentity::from_pem(&certificate, &request.key_pem).unwrap())
    }

    pub(crate) fn client_with(&self, identity: ClientIdentity) -> reqwest::Client {
        self.client(tls::client_config(self.control.authority.root(), Some(identity)).unwrap())
    }

    pub(crate) fn anonymous(&self) -> reqwest::Client {
        self.client(tls::client_config(self.control.authority.root(), None).unwrap())
    }

    pub(crate) fn pinned(&self, authority: Fingerprint) -> reqwest::Client {
        self.client(tls::pinned_config(authority).unwrap())
    }

    fn client(&self, tls: rustls::ClientConfig) -> reqwest::Client {
        reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
    }

    pub(crate) async fn text(&self, client: &reqwest::Client, path: &str) -> (u16, String) {
        let answer = client.get(self.url(path)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    pub(crate) fn problem(&self, body: &str) -> Problem {
        serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"))
    }
}
