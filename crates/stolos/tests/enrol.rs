//! A real agent's enrolment at a real server: wrong, used and foreign tokens, and clocks that are off by an hour.

use std::time::Duration;

use agent::disk::Disk;
use agent::sync::credential::Credential;
use agent::sync::enrol::{EnrolError, enrol};
use api::apply::Source;
use api::token::JoinToken;
use jiff::{SignedDuration, Timestamp};
use policy::namespace::NamespacePath;
use server::Server;
use server::config::Config;
use server::control::Shared;
use server::init::{InitOptions, init};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Running {
    dir: tempfile::TempDir,
    control: Shared,
    url: String,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// A server made now, by a clock that is off by so much.
    async fn start(off: SignedDuration) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        let options = InitOptions {
            data: data.clone(),
            trust_domain: "example.org".into(),
            listen: "127.0.0.1:0".parse().expect("an address"),
            names: vec!["127.0.0.1".into()],
            admin: "root".into(),
            store: None,
            seal_key: None,
            now: Timestamp::now() + off,
        };
        init(&options).await.expect("made");
        let clock = std::sync::Arc::new(move || Timestamp::now() + off);
        let bound = Server::bind(Config { clock, ..Config::new(data) }).await.expect("bound");
        let url = format!("https://127.0.0.1:{}", bound.address().port());
        let control = bound.control().expect("alone on its file").clone();
        let cancel = CancellationToken::new();
        let task = tokio::spawn(bound.run(cancel.clone()));
        let running = Self { dir, control, url, cancel, task };
        running.cluster().await;
        running
    }

    /// As an operator makes it; his machine tells the time as the server does.
    async fn cluster(&self) {
        let text = "apiVersion: stolos.dev/v1\nkind: Cluster\nmetadata: {name: eu-1}\nspec: {namespace: /}\n";
        let request = [Source { name: "c.yaml".into(), text: text.into() }];
        let (manifests, diagnostics) = server::manifest::read(&request, &NamespacePath::root());
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        let mut write = self.control.store.begin().await.expect("begun");
        server::admission::admit(&mut write, &manifests, false, self.control.now()).await.expect("admitted");
        let revision = write.commit().await.expect("committed");
        self.control.registry.caught_up(revision).await;
    }

    async fn token(&self) -> JoinToken {
        let (secret, _) =
            self.control.registry.make_token("eu-1", Duration::from_secs(600), None).await.expect("a token");
        JoinToken { server: self.url.clone(), ca: self.control.authority_fingerprint(), secret }
    }

    fn disk(&self, name: &str) -> Disk {
        Disk::open(&self.dir.path().join(name)).expect("opened")
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.task.await.expect("it ends");
    }
}

fn sentence(refused: Result<Credential, EnrolError>) -> String {
    refused.expect_err("it was enrolled").to_string()
}

#[tokio::test]
async fn a_token_is_good_for_one_node_and_its_own_server() {
    let server = Running::start(SignedDuration::ZERO).await;
    let token = server.token().await;
    let enrolled = enrol(&server.disk("n1"), &token, "n1").await.expect("enrolled");
    assert_eq!(enrolled.enrolled.name, "n1");
    assert!(Credential::load(&server.disk("n1")).expect("readable").is_some());
    let used = sentence(enrol(&server.disk("n2"), &token, "n2").await);
    assert_eq!(used, "E4002: the join token was used already");
    let guessed = JoinToken { secret: "guessed".into(), ..token.clone() };
    let unknown = sentence(enrol(&server.disk("n2"), &guessed, "n2").await);
    assert_eq!(unknown, "E4001: the join token is not known to this server");
    // Another server at that address: nothing is said to it, not even the token.
    let other = Running::start(SignedDuration::ZERO).await;
    let foreign = JoinToken { server: other.url.clone(), ..server.token().await };
    let text = sentence(enrol(&server.disk("n2"), &foreign, "n2").await);
    assert!(text.contains("the server's authority is not the one that the join token names"), "{text}");
    assert!(Credential::load(&server.disk("n2")).expect("readable").is_none());
    // What was refused may be tried again with a good token, and no refusal has cost one.
    let token = server.token().await;
    assert!(enrol(&server.disk("n2"), &token, "n2").await.is_ok());
    server.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_node_whose_clock_is_an_hour_behind_a_new_servers_is_told_to_set_it() {
    let server = Running::start(SignedDuration::from_hours(1)).await;
    let token = server.token().await;
    let behind = sentence(enrol(&server.disk("n1"), &token, "n1").await);
    assert_eq!(
        behind,
        "this machine's clock is behind: the server's certificate is not valid yet; set the clock (UTC)"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_node_whose_clock_is_an_hour_ahead_enrols_and_follows_the_servers_clock() {
    let server = Running::start(SignedDuration::from_hours(-1)).await;
    let token = server.token().await;
    let enrolled = enrol(&server.disk("n1"), &token, "n1").await.expect("certificates outlast an hour").enrolled;
    let by_server = (server.control.now() + Duration::from_secs(24 * 3600)).as_second();
    assert!(enrolled.not_after_unix_s > by_server, "the certificate's time is the server's");
    server.stop().await;
}
