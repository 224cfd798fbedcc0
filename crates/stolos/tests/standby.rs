//! Two real servers on one real PostgreSQL: one serves, the other stands by and takes over; nothing that was acknowledged
//! is lost, and a server that slept through its turn writes nothing.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use api::admin::AdminConfig;
use api::apply::{ApplyRequest, Source};
use api::client::{Client, ListQuery};
use api::object::Revision;
use api::problem::STANDBY;
use pgtest::{Cluster, Sort, Stop};
use rustix::process::{Pid, Signal, kill_process};

/// Nothing here takes so long.
const LIMIT: Duration = Duration::from_secs(60);
/// Writes between two events.
const WRITES: usize = 25;

/// A database with two data directories on it.
struct Place {
    cluster: Cluster,
    database: String,
    directory: tempfile::TempDir,
    a: Site,
    b: Site,
}

/// One server's directory, and where it listens.
struct Site {
    data: PathBuf,
    address: SocketAddr,
    client: Client,
}

/// Ends the server with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("it is ours");
    }

    /// Until every thread of it stands still: a signal is on its way when `kill` returns.
    async fn until_stopped(&self) {
        let tasks = format!("/proc/{}/task", self.0.id());
        let stopped = |task: std::fs::DirEntry| {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("State:\tT"))
        };
        let all = || std::fs::read_dir(&tasks).expect("it runs").filter_map(Result::ok).all(stopped);
        let begun = Instant::now();
        while !all() {
            assert!(begun.elapsed() < LIMIT, "it does not stop");
            tokio::task::yield_now().await;
        }
    }
}

fn stolos(words: &[&str], database: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stolos"));
    command.args(words).env("STOLOS_STORE", database).stdin(Stdio::null());
    command.output().expect("the binary was built for this test")
}

fn init(data: &Path, database: &str, more: &[&str]) -> Output {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let (listen, data) = (free.to_string(), data.to_string_lossy().into_owned());
    stolos(&[&["server", "init", "--name", "127.0.0.1", "--listen", &listen, "--data", &data], more].concat(), database)
}

impl Site {
    fn made(data: PathBuf, init: &Output) -> Self {
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        let admin = fs::read_to_string(data.join("admin.yaml")).expect("made by init");
        let config = AdminConfig::parse(&admin).expect("valid");
        let address = config.server.trim_start_matches("https://").parse().expect("an address");
        Self { data, address, client: Client::new(&config).expect("a client") }
    }

    /// The URL is in server.yaml; standard error goes to a file.
    fn start(&self) -> Running {
        let log = File::options().append(true).create(true).open(self.log()).expect("the directory is ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_stolos"));
        command.args(["server", "run", "--data"]).arg(&self.data).env_remove("STOLOS_STORE");
        command.env("STOLOS_LOG", "debug").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Running(command.spawn().expect("the binary was built for this test"))
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// What it answers to a probe without a certificate.
    async fn probe(&self, path: &str) -> Option<(u16, String)> {
        let ca = fs::read_to_string(self.data.join("ca.pem")).expect("made by init");
        let ca = api::tls::certificates_from_pem(&ca, "the authority").expect("a certificate").remove(0);
        let tls = api::tls::client_config(&ca, None).expect("TLS");
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().expect("a client");
        let answer = client.get(format!("https://{}{path}", self.address)).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    async fn until(&self, path: &str, status: u16, words: &str) {
        let end = Instant::now() + LIMIT;
        loop {
            let answer = self.probe(path).await;
            if answer.as_ref().is_some_and(|(found, text)| *found == status && text.contains(words)) {
                return;
            }
            assert!(Instant::now() < end, "{path} does not become {status} `{words}`: {answer:?}");
            tokio::task::yield_now().await;
        }
    }

    async fn until_serving(&self) {
        self.until("/readyz", 200, "ready").await;
    }

    /// Stands by for another one.
    async fn until_standby(&self, other: &Site) {
        self.until("/readyz", 503, &format!("https://{} serves", other.address)).await;
    }

    async fn names(&self) -> Vec<String> {
        let list = self.client.list_any("Policy", &ListQuery::default()).await.expect("a list");
        list.items.into_iter().map(|object| object.metadata.name).collect()
    }
}

impl Place {
    fn new() -> Self {
        let cluster = Cluster::start().expect("PostgreSQL");
        let database = cluster.database(Sort::Bytes).expect("a database");
        let directory = tempfile::tempdir().expect("a directory");
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        let key = a.join("seal.key").to_string_lossy().into_owned();
        let absent = init(&b, &database, &["--seal-key", &key]);
        assert!(String::from_utf8_lossy(&absent.stderr).contains("seal.key is not there"), "{absent:?}");
        let a = Site::made(a.clone(), &init(&a, &database, &[]));
        let again = init(&b, &database, &[]);
        assert!(String::from_utf8_lossy(&again.stderr).contains("holds a control plane already"), "{again:?}");
        assert!(!b.exists(), "nothing was made");
        let b = Site::made(b.clone(), &init(&b, &database, &["--seal-key", &key]));
        Self { cluster, database, directory, a, b }
    }

    /// Neither logs nor records show what they must not.
    fn shows_no_secret(&self) {
        for site in [&self.a, &self.b] {
            let log = fs::read_to_string(site.log()).unwrap_or_default();
            assert!(!log.contains(self.cluster.password()) && !log.contains("PRIVATE KEY"), "{log}");
        }
        let name = self.database.rsplit('/').next().expect("a name");
        let plain = "SELECT count(*) FROM records WHERE position('PRIVATE KEY'::bytea in value) > 0";
        assert_eq!(self.cluster.psql(name, plain).expect("counted"), "0");
        let sealed = "SELECT count(*) FROM records WHERE space IN ('secret', 'fleet-keys') AND \
                      position('stolos-sealed-1'::bytea in value) <> 1";
        assert_eq!(self.cluster.psql(name, sealed).expect("counted"), "0");
    }
}

fn policy(number: usize) -> ApplyRequest {
    let text = format!(
        "apiVersion: stolos.dev/v1\nkind: Policy\nmetadata: {{namespace: /, name: p{number}}}\n\
         spec: {{from: [app=a], to: [app=b], action: allow}}\n"
    );
    ApplyRequest { sources: vec![Source { name: "p.yaml".into(), text }], ..ApplyRequest::default() }
}

/// An operator's program that knows both servers: it asks the other one when one does not answer, and notes what was
/// acknowledged.
struct Writer<'a> {
    servers: [&'a Client; 2],
    acknowledged: Vec<String>,
    last: Revision,
}

impl<'a> Writer<'a> {
    fn new(place: &'a Place) -> Self {
        Self { servers: [&place.a.client, &place.b.client], acknowledged: Vec::new(), last: Revision(0) }
    }

    async fn write(&mut self) {
        let (number, end) = (self.acknowledged.len(), Instant::now() + LIMIT);
        loop {
            match self.servers[0].apply(&policy(number), false).await {
                Ok(done) => {
                    assert!(done.revision > self.last || done.changed_nothing(), "revisions only rise");
                    self.last = done.revision;
                    self.acknowledged.push(format!("p{number}"));
                    return;
                }
                Err(error) => {
                    assert!(Instant::now() < end, "nobody takes write {number}: {error}");
                    self.servers.swap(0, 1);
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    async fn writes(&mut self, count: usize) {
        for _ in 0..count {
            self.write().await;
        }
    }

    async fn found_all(&self, site: &Site) {
        let names = site.names().await;
        for name in &self.acknowledged {
            assert!(names.contains(name), "{name} was acknowledged and is lost");
        }
    }
}

trait Unchanged {
    fn changed_nothing(&self) -> bool;
}

impl Unchanged for api::apply::ApplyResponse {
    /// A repeated write whose first answer was lost.
    fn changed_nothing(&self) -> bool {
        self.results.iter().all(|result| result.outcome == api::apply::ApplyOutcome::Unchanged)
    }
}

#[tokio::test]
async fn the_standby_takes_over_and_nothing_acknowledged_is_lost() {
    let place = Place::new();
    let (a, b) = (&place.a, &place.b);
    let mut first = a.start();
    a.until_serving().await;
    let second = b.start();
    b.until_standby(a).await;
    b.until("/healthz", 200, "ok").await;
    let refused = b.client.list_any("Policy", &ListQuery::default()).await.expect_err("it stands by");
    assert!(refused.problem().is_some_and(|problem| problem.code == STANDBY.code), "{refused}");

    let mut writer = Writer::new(&place);
    writer.writes(WRITES).await;
    first.0.kill().expect("killed");
    let killed = Instant::now();
    writer.write().await;
    println!("kill -9: the next write was acknowledged after {:?}", killed.elapsed());
    assert!(killed.elapsed() < server::LEASE_TIME + Duration::from_secs(5), "{:?}", killed.elapsed());
    drop(first);
    writer.writes(WRITES).await;
    b.until_serving().await;
    writer.found_all(b).await;

    // It comes back as the one that stands by; a server that is told to stop gives its turn away at once.
    let _first = a.start();
    a.until_standby(b).await;
    second.signal(Signal::TERM);
    let told = Instant::now();
    writer.write().await;
    println!("SIGTERM: the next write was acknowledged after {:?}", told.elapsed());
    assert!(told.elapsed() < server::LEASE_TIME, "{:?}", told.elapsed());
    writer.writes(WRITES).await;
    a.until_serving().await;
    writer.found_all(a).await;
    place.shows_no_secret();
}

#[tokio::test]
async fn a_server_that_slept_through_its_turn_writes_nothing_and_stands_by() {
    let place = Place::new();
    let (a, b) = (&place.a, &place.b);
    let first = a.start();
    a.until_serving().await;
    let _second = b.start();
    b.until_standby(a).await;
    let mut writer = Writer::new(&place);
    writer.writes(WRITES).await;

    first.signal(Signal::STOP);
    first.until_stopped().await;
    // Taken by the kernel, and answered when it wakes.
    let asleep = a.client.clone();
    let late = tokio::spawn(async move { asleep.apply(&policy(999_999), false).await });
    b.until_serving().await;
    let before = writer.last;
    writer.servers.swap(0, 1);
    writer.writes(WRITES).await;
    assert!(writer.last > before);
    first.signal(Signal::CONT);
    let late = tokio::time::timeout(LIMIT, late).await.expect("in time").expect("no panic");
    // In which words it is refused depends on how far it got; that it is not acknowledged does not.
    assert!(late.is_err(), "{late:?}");
    a.until_standby(b).await;
    writer.writes(WRITES).await;
    writer.found_all(b).await;
    assert!(!b.names().await.contains(&"p999999".to_owned()), "who had lost his turn has written");
    place.shows_no_secret();
}

#[tokio::test]
async fn a_restart_of_the_database_is_outlived() {
    let place = Place::new();
    let a = &place.a;
    let _first = a.start();
    a.until_serving().await;
    let mut writer = Writer::new(&place);
    writer.servers = [&a.client, &a.client];
    for _ in 0..2 {
        writer.writes(WRITES).await;
        place.cluster.stop(Stop::Immediate).expect("stopped");
        a.until("/readyz", 503, "").await;
        place.cluster.start_again().expect("started");
        writer.writes(WRITES).await;
    }
    a.until_serving().await;
    writer.found_all(a).await;
    place.shows_no_secret();
    assert!(place.directory.path().exists());
}
