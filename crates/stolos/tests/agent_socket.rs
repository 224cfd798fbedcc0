//! The verbs of a node against an agent that answers what it is told to: over a real Unix socket, by the real binary.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// An agent of canned answers: `METHOD path` and the status and body for it.
struct Agent {
    directory: tempfile::TempDir,
}

impl Agent {
    fn answering(answers: Vec<(&'static str, u16, Value)>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let listener = UnixListener::bind(directory.path().join("agent.sock")).expect("the directory is ours");
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answers = answers.clone();
                std::thread::spawn(move || serve(stream, &answers));
            }
        });
        Self { directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stolos"));
        command.args(words).env_clear().env("STOLOS_SOCKET", self.socket()).env("PATH", "/usr/bin:/bin");
        // As on a machine without ca-certificates.
        command.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/nonexistent");
        command.stdin(Stdio::null()).output().expect("the binary was built for this test")
    }
}

/// Answers one connection until the other end closes it.
fn serve(stream: UnixStream, answers: &[(&str, u16, Value)]) {
    let mut writer = stream.try_clone().expect("a descriptor");
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(reader.read_line(&mut head), Ok(1..)) {
                return;
            }
        }
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let wanted = head.split(" HTTP/").next().unwrap_or_default();
        let missing = (404, json!({"code": "K5999", "message": format!("no answer for {wanted}"), "mend": ""}));
        let found = answers.iter().find(|(request, ..)| *request == wanted);
        let (status, answer) = found.map_or(missing, |(_, status, answer)| (*status, answer.clone()));
        let text = answer.to_string();
        let head =
            format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", text.len());
        if writer.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

fn workload(name: &str, labels: Value) -> Value {
    json!({"uid": "u-1", "name": name, "type": "process", "namespace": "/acme", "labels": labels, "observed": {},
        "cgroup": "/sys/fs/cgroup/x", "addresses": [], "slot": 3, "state": "active"})
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn label_says_what_the_labels_are_now() {
    let agent = Agent::answering(vec![
        ("GET /v1/workloads", 200, json!({"workloads": [workload("web", json!({"app": "web"}))]})),
        (
            "PATCH /v1/workloads/web/labels",
            200,
            json!({"workload": workload("web", json!({"app": "web", "tier": "front"})), "live": true}),
        ),
    ]);
    let done = agent.run(&["label", "web", "tier=front"]);
    assert_eq!((done.status.code(), out(&done).as_str()), (Some(0), "web: app=web, tier=front\n"));
    let json: Value = serde_json::from_slice(&agent.run(&["label", "web", "tier=front", "-o", "json"]).stdout).unwrap();
    assert_eq!((&json["live"], &json["workload"]["labels"]["tier"]), (&true.into(), &"front".into()));
    let wrong = agent.run(&["label", "wbe", "tier=front"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(out(&wrong).contains("error[C6021]") && out(&wrong).contains("did you mean `web`?"), "{}", out(&wrong));
}

#[test]
fn a_refusal_keeps_the_agents_code_and_advice() {
    let agent = Agent::answering(vec![
        ("GET /v1/workloads", 200, json!({"workloads": [workload("web", json!({}))]})),
        (
            "PATCH /v1/workloads/web/labels",
            422,
            json!({"code": "E4105", "message": "the cluster does not allow the key `tier`.", "mend": "Ask its owner."}),
        ),
    ]);
    let refused = agent.run(&["label", "web", "tier=front"]);
    assert_eq!(refused.status.code(), Some(1));
    let text = out(&refused);
    assert!(
        text.starts_with("error[E4105]: the cluster does not allow the key `tier`\n  help: Ask its owner."),
        "{text}"
    );
}

#[test]
fn a_failed_check_is_an_exit_status_and_a_bundle_has_it() {
    let checks = json!({"checks": [
        {"name": "kernel", "result": "ok", "message": "Linux 6.1"},
        {"name": "clock", "result": "fail", "message": "off by an hour", "code": "K5001", "mend": "set it"}]});
    let agent = Agent::answering(vec![("GET /v1/doctor", 200, checks)]);
    let bundle = agent.directory.path().join("bundle.json");
    let done = agent.run(&["doctor", "--bundle", &bundle.display().to_string()]);
    assert_eq!(done.status.code(), Some(1));
    let text = out(&done);
    assert!(text.contains("FAIL    clock   off by an hour") && text.contains("clock [K5001]: set it"), "{text}");
    let bundle: Value = serde_json::from_str(&std::fs::read_to_string(bundle).unwrap()).unwrap();
    assert_eq!(bundle["doctor"]["checks"][1]["name"], "clock");
}

#[test]
fn an_agent_of_another_version_is_said_to_be_one() {
    let agent = Agent::answering(vec![("GET /v1/status", 200, json!({"colour": "blue"}))]);
    let strange = agent.run(&["agent", "status"]);
    assert_eq!(strange.status.code(), Some(1));
    assert!(out(&strange).contains("error[C6013]: the agent answered"), "{}", out(&strange));
}

#[test]
fn run_starts_nothing_where_no_cgroup_can_be_made() {
    let status = json!({"version": "0", "cgroup_root": "/tmp", "server": {"source": "x", "connected": false,
        "since": "2030-01-01T00:00:00Z"}, "enforcement": {"attached": true}, "revision": 0,
        "clock": {"source": "server"}, "workloads": [], "features": [], "denials": 0, "alarms": [], "not_captured": []});
    let agent = Agent::answering(vec![("GET /v1/status", 200, status)]);
    let marker = agent.directory.path().join("started");
    let refused = agent.run(&["run", "--", "touch", &marker.display().to_string()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(out(&refused).contains("error[C6015]: no cgroup below /tmp"), "{}", out(&refused));
    assert!(!marker.exists());
}
