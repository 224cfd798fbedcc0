use api::local::WorkloadState;
use axum::body::{Body as HttpBody, to_bytes};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::config::Source;

const UID: &str = "0198c0de-0000-7000-8000-000000000001";

fn workload(state: WorkloadState, labels: &[(&str, &str)], live: &[(&str, &str)]) -> WorkloadView {
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let pending = state == WorkloadState::Pending;
    WorkloadView {
        workload: Workload {
            uid: UID.into(),
            name: "web".into(),
            kind: "process".into(),
            namespace: String::new(),
            labels: map(labels),
            observed: Default::default(),
            cgroup: "/c/web".into(),
            addresses: Vec::new(),
            slot: None,
            state,
            reason: pending.then(|| "the server has not placed it yet".to_owned()),
            code: pending.then(|| code::WORKLOAD_PENDING.id.to_owned()),
        },
        live_labels: (!pending).then(|| map(live)),
        everywhere: !pending,
    }
}

/// A door whose node says yes to everything; what follows is the test's to publish.
fn door(found: WorkloadView) -> (Router, watch::Sender<Arc<View>>) {
    let (requests, mut asked) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(request) = asked.recv().await {
            match request {
                Request::Register(_, answer) | Request::Remove(_, answer) | Request::Label(_, _, answer) => {
                    drop(answer.send(Ok(UID.to_owned())));
                }
                Request::Detach(_, answer) | Request::Attach(answer) => drop(answer.send(Ok(()))),
            }
        }
    });
    let view = View { workloads: [(UID.to_owned(), found)].into(), ..View::default() };
    let (publish, view) = watch::channel(Arc::new(view));
    let config = Arc::new(Config::new(Source::Server { join_token: None }));
    (router(Door { requests, view, config }), publish)
}

async fn ask(router: Router, uid: u32, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
    let mut request = HttpRequest::builder().method(method).uri(path).header("content-type", "application/json");
    let caller = ConnectInfo(Caller { uid: Some(uid) });
    request.extensions_mut().expect("well-formed").insert(caller);
    let request = request.body(HttpBody::from(body.to_string())).expect("well-formed");
    let response = router.oneshot(request).await.expect("infallible");
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn only_root_is_served() {
    let (router, _publish) = door(workload(WorkloadState::Active, &[], &[]));
    let (status, body) = ask(router, 1000, "GET", "/v1/status", Value::Null).await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::FORBIDDEN, Some("K5026")));
}

#[tokio::test]
async fn a_slip_in_a_request_is_a_refusal_that_names_it() {
    let (router, _publish) = door(workload(WorkloadState::Active, &[], &[]));
    let (status, body) = ask(router.clone(), 0, "PATCH", "/v1/workloads/web/labels", json!({"sett": {}})).await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::BAD_REQUEST, Some("K5028")));
    assert!(body["message"].as_str().is_some_and(|message| message.contains("sett")), "{body}");
    let (_, body) = ask(router, 0, "GET", "/v2/nothing", Value::Null).await;
    assert_eq!(body["code"].as_str(), Some("K5028"));
}

#[tokio::test]
async fn a_registration_is_answered_with_a_warning_when_its_time_is_over() {
    let (router, _publish) = door(workload(WorkloadState::Pending, &[], &[]));
    let request = json!({"uid": UID, "name": "web", "cgroup": "/c/web", "wait_ms": 1});
    let (status, body) = ask(router, 0, "POST", "/v1/workloads", request).await;
    assert_eq!((status, body["workload"]["state"].as_str()), (StatusCode::OK, Some("pending")));
    assert!(body["warning"].as_str().is_some_and(|warning| warning.contains("not placed")), "{body}");
}

#[tokio::test]
async fn a_registration_waits_until_every_node_knows_the_workload() {
    let here = WorkloadView { everywhere: false, ..workload(WorkloadState::Active, &[], &[]) };
    let (router, publish) = door(here.clone());
    let request = |wait_ms| json!({"uid": UID, "name": "web", "cgroup": "/c/web", "wait_ms": wait_ms});
    let (status, body) = ask(router.clone(), 0, "POST", "/v1/workloads", request(1)).await;
    assert_eq!((status, body["workload"]["state"].as_str()), (StatusCode::OK, Some("active")));
    let warning = body["warning"].as_str().expect("live here alone is worth a word");
    assert!(warning.contains("not every node has confirmed it yet"), "{warning}");
    let asking = tokio::spawn(ask(router, 0, "POST", "/v1/workloads", request(30_000)));
    let view =
        View { workloads: [(UID.to_owned(), WorkloadView { everywhere: true, ..here })].into(), ..View::default() };
    publish.send_replace(Arc::new(view));
    let (_, body) = asking.await.expect("no panic");
    assert!(body["warning"].is_null(), "{body}");
}

#[tokio::test]
async fn a_label_change_waits_until_the_kernel_has_it() {
    let (router, publish) = door(workload(WorkloadState::Active, &[("app", "old")], &[("app", "old")]));
    let change = json!({"set": {"app": "new"}, "wait_ms": 30_000});
    let asking = tokio::spawn(ask(router, 0, "PATCH", "/v1/workloads/web/labels", change));
    let show = |found| {
        let view = View { workloads: [(UID.to_owned(), found)].into(), ..View::default() };
        publish.send_replace(Arc::new(view));
    };
    show(workload(WorkloadState::Active, &[("app", "new")], &[("app", "old")]));
    tokio::task::yield_now().await;
    assert!(!asking.is_finished(), "told, but not live");
    show(workload(WorkloadState::Active, &[("app", "new")], &[("app", "new")]));
    let (status, body) = asking.await.expect("no panic");
    assert_eq!((status, body["live"].as_bool()), (StatusCode::OK, Some(true)));
}

#[tokio::test]
async fn metrics_have_every_reason() {
    let text = metrics::text(&View::default());
    for reason in policy::reason::Reason::ALL {
        let line = format!("stolos_agent_refused_total{{reason=\"{}\"}} 0", reason.label());
        assert!(text.contains(&line), "{line}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_socket_is_private_and_a_live_one_is_not_taken() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("run/agent.sock");
    let listener = listen(&path).expect("made");
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(matches!(listen(&path), Err(SocketError::Taken(_))));
    drop(listener);
    assert!(listen(&path).is_ok(), "what nobody serves is replaced");
}
