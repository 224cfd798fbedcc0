//! `kill -9` of a real server in the middle of writes: nothing that it acknowledged is lost, and watches go on.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api::admin::AdminConfig;
use api::apply::{ApplyRequest, Source};
use api::client::{Client, ListQuery};
use api::object::Revision;
use api::watch::WatchEvent;

/// Nothing here takes so long.
const LIMIT: Duration = Duration::from_secs(60);
/// Writes that are acknowledged before the kill.
const WRITES: usize = 40;

/// Ends the server with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(data: &Path) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stolos"));
    command
        .args(["server", "run", "--data"])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Server(command.spawn().expect("the binary was built for this test"))
}

async fn until_ready(client: &Client) {
    let end = Instant::now() + LIMIT;
    while let Err(error) = client.list_any("Namespace", &ListQuery::default()).await {
        assert!(Instant::now() < end, "the server does not answer: {error}");
        tokio::task::yield_now().await;
    }
}

fn policy(number: usize) -> ApplyRequest {
    let text = format!(
        "apiVersion: stolos.dev/v1\nkind: Policy\nmetadata: {{namespace: /, name: p{number}}}\n\
         spec: {{from: [app=a], to: [app=b], action: allow}}\n"
    );
    ApplyRequest { sources: vec![Source { name: "p.yaml".into(), text }], ..ApplyRequest::default() }
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_by_kill_9_and_a_watch_resumes() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    // A port that nobody has just now.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let init = Command::new(env!("CARGO_BIN_EXE_stolos"))
        .args(["server", "init", "--name", "127.0.0.1", "--listen", &free.to_string(), "--data"])
        .arg(&data)
        .output()
        .expect("the binary was built for this test");
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    let admin = std::fs::read_to_string(data.join("admin.yaml")).expect("made by init");
    let config = AdminConfig { server: format!("https://{free}"), ..AdminConfig::parse(&admin).expect("valid") };
    let client = Client::new(&config).expect("a client");
    let mut server = start(&data);
    until_ready(&client).await;
    let begun = client.list_any("Policy", &ListQuery::default()).await.expect("a list").revision;
    let mut acknowledged = Vec::new();
    let mut last = Revision(0);
    for number in 0.. {
        if number == WRITES {
            // The writes go on while it dies.
            server.0.kill().expect("killed");
        }
        match client.apply(&policy(number), false).await {
            Ok(done) => {
                assert!(done.revision > last, "revisions only rise");
                last = done.revision;
                acknowledged.push(format!("p{number}"));
            }
            Err(_) if number >= WRITES => break,
            Err(error) => panic!("write {number}: {error}"),
        }
    }
    drop(server);
    let _server = start(&data);
    until_ready(&client).await;
    let after = client.list_any("Policy", &ListQuery::default()).await.expect("a list");
    let names: Vec<&str> = after.items.iter().map(|object| object.metadata.name.as_str()).collect();
    for name in &acknowledged {
        assert!(names.contains(&name.as_str()), "{name} was acknowledged and is lost");
    }
    assert!(after.revision >= last);
    // A watch from before the kill sees every one of them, once, and no reason to start over.
    let mut watch = client.watch("Policy", &ListQuery::default(), begun).await.expect("a watch");
    let mut seen = Vec::new();
    while seen.len() < names.len() {
        let event = tokio::time::timeout(LIMIT, watch.next()).await.expect("in time").expect("readable");
        match event.expect("the stream goes on") {
            WatchEvent::Put { object } => seen.push(object.metadata.name),
            WatchEvent::Bookmark { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    seen.sort_unstable();
    let mut names = names;
    names.sort_unstable();
    assert_eq!(seen, names);
}
