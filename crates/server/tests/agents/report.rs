//! What nodes report: limits of their cluster, slots and their reuse, flows.

use api::flow::{FlowQuery, Verdict};
use api::sync as wire;
use api::sync::agent_message::Message as From;
use api::sync::server_message::Message as To;
use serde_json::json;
use server::registry::Limits;

use crate::support::{Agent, EnrolledNode, Running, uid, workload};

async fn until_refused(agent: &mut Agent, count: usize) -> Vec<String> {
    agent.until("a refusal", |a| a.refused.len() >= count).await;
    agent.refused.iter().map(|r| r.code.clone()).collect()
}

fn is_placed(agent: &Agent, number: u32) -> bool {
    agent.state.contains_key(&format!("workload/{}", uid(number)))
}

fn placed(agent: &Agent, number: u32) -> wire::PlacedWorkload {
    agent.object(&format!("workload/{}", uid(number)))
}

#[tokio::test]
async fn a_cluster_limits_labels_and_namespaces_of_its_nodes() {
    let server = Running::start().await;
    let spec = json!({"namespace": "/acme/eu-1", "labelKeys": ["app"], "allowedNamespaces": ["shop/**"]});
    server.put("Cluster", "/", "eu-1", spec).await;
    let mut agent = server.agent("eu-1", "n1").await;
    let shop = wire::LocalWorkload { relative_namespace: "shop".into(), ..workload(1, "web", &[("app", "web")]) };
    let climbing = wire::LocalWorkload { relative_namespace: "../us-1".into(), ..workload(2, "a", &[]) };
    let elsewhere = wire::LocalWorkload { relative_namespace: "ops".into(), ..workload(3, "b", &[]) };
    let label = workload(4, "c", &[("role", "admin")]);
    let system = workload(5, "d", &[("@cluster", "us-1")]);
    let taken = wire::LocalWorkload { uid: uid(6), ..shop.clone() };
    agent.report(true, &[shop.clone(), climbing, elsewhere, label, system, taken], &[]).await;
    agent.until("the good one", |a| is_placed(a, 1)).await;
    assert_eq!(until_refused(&mut agent, 5).await, ["E4024", "E4024", "E4025", "E4027", "E4022"]);
    assert_eq!(agent.keys("workload/").len(), 1);
    let status = server.status("Workload", "/acme/eu-1", "c.n1", |s| s["state"] == "refused").await;
    assert_eq!(status["refused"]["code"], "E4025");
    server.status("Node", "/", "n1", |s| s["alarms"].as_array().is_some_and(|a| a.len() == 5)).await;
    // What was accepted keeps its last good identity.
    let worse = wire::LocalWorkload { labels: [("role".to_owned(), "x".to_owned())].into(), ..shop };
    agent.report(false, &[worse], &[]).await;
    until_refused(&mut agent, 6).await;
    let status = server.status("Workload", "/acme/eu-1/shop", "web.n1", |s| !s["refused"].is_null()).await;
    assert_eq!(status["attributes"]["app"], "web");
    assert!(is_placed(&agent, 1));
}

#[tokio::test]
async fn rule_12_a_slot_is_reused_only_after_every_node_has_acknowledged() {
    let server = Running::with(Limits { slot_max: 1, ..Limits::default() }).await.clusters().await;
    let (mut one, mut two) = (server.agent("eu-1", "n1").await, server.agent("us-1", "n2").await);
    one.report(true, &[workload(1, "old", &[])], &[]).await;
    one.until("the old one", |a| is_placed(a, 1)).await;
    let old = placed(&one, 1);
    two.until("the old one", |a| a.keys("peer/").len() == 1).await;
    two.acknowledges = false;
    one.report(true, &[], &[]).await;
    one.until("the removal", |a| !is_placed(a, 1)).await;
    two.until("the removal", |a| a.keys("peer/").is_empty()).await;
    let workloads = [workload(2, "new", &[])];
    one.report(true, &workloads, &[]).await;
    assert_eq!(until_refused(&mut one, 1).await, ["E4030"]);
    two.acknowledge().await;
    server.status("Node", "/", "n2", |s| s["appliedRevision"] == two.revision).await;
    one.report(true, &workloads, &[]).await;
    one.until("the new one", |a| is_placed(a, 2)).await;
    let new = placed(&one, 2);
    assert_eq!(new.slot, old.slot);
    assert_ne!(new.instance, old.instance);
}

#[tokio::test]
async fn a_complete_report_removes_what_it_does_not_list() {
    let server = Running::start().await.clusters().await;
    let mut agent = server.agent("eu-1", "n1").await;
    agent.report(true, &[workload(1, "a", &[]), workload(2, "b", &[])], &[]).await;
    agent.until("both", |a| is_placed(a, 1) && is_placed(a, 2)).await;
    agent.report(false, &[workload(3, "c", &[])], &[&uid(1)]).await;
    agent.until("the change", |a| !is_placed(a, 1) && is_placed(a, 3)).await;
    agent.report(true, &[workload(3, "c", &[])], &[]).await;
    agent.until("the removal", |a| !is_placed(a, 2)).await;
    assert_eq!(placed(&agent, 3).slot, 3);
}

#[tokio::test]
async fn the_earlier_claim_of_an_address_holds() {
    let server = Running::start().await.clusters().await;
    let node = EnrolledNode::enrol(&server, &server.token("eu-1").await, "n1").await.unwrap();
    let mut one = Agent::connect(&server, node.at(&["10.0.0.5"])).await;
    one.until("its place", |a| a.state.contains_key("place/10.0.0.5")).await;
    let node = EnrolledNode::enrol(&server, &server.token("eu-1").await, "n2").await.unwrap();
    let mut two = Agent::connect(&server, node.at(&["10.0.0.5", "10.0.0.6"])).await;
    two.until("its place", |a| a.state.contains_key("place/10.0.0.6")).await;
    let place: wire::Place = two.object("place/10.0.0.5");
    assert_eq!(place.target, Some(wire::place::Target::Node(1)));
    let status = server.status("Node", "/", "n2", |s| s["alarms"][0]["code"] == "E4029").await;
    assert!(status["alarms"][0]["message"].as_str().unwrap().contains("node `n1`"));
}

#[tokio::test]
async fn a_deleted_node_disappears_everywhere() {
    let server = Running::start().await.clusters().await;
    let (mut one, mut two) = (server.agent("eu-1", "n1").await, server.agent("us-1", "n2").await);
    one.report(true, &[workload(1, "web", &[])], &[]).await;
    two.until("the peer", |a| a.keys("peer/1/").len() == 1).await;
    server.delete("Node", "/", "n1").await;
    two.until("nothing of it", |a| a.keys("peer/1/").is_empty() && a.keys("node-key/1/").is_empty()).await;
    let ended = one.ending().await.expect("its stream ends with a reason");
    assert!(ended.message().starts_with("E40"), "{ended:?}");
    assert!(
        server
            .control
            .store
            .get(&api::object::ObjectKey::new("Workload", "/acme/eu-1", "web.n1"))
            .await
            .unwrap()
            .is_none()
    );
}

fn flow(agent: &Agent, isn: u32) -> wire::Flow {
    wire::Flow {
        direction: "egress".into(),
        local: Some(wire::PeerRef { node: agent.node.id.get(), slot: 1 }),
        peer_address: "192.0.2.1".into(),
        protocol: 6,
        port: 80,
        dialled_port: 80,
        client_isn: isn,
        verdict: "deny".into(),
        would: "deny".into(),
        reason: "default-deny".into(),
        count: 1,
        first_unix_ms: jiff::Timestamp::now().as_millisecond(),
        last_unix_ms: jiff::Timestamp::now().as_millisecond(),
        ..wire::Flow::default()
    }
}

#[tokio::test]
async fn flows_are_stored_once_and_outlast_a_restart() {
    let server = Running::start().await.clusters().await;
    let mut agent = server.agent("eu-1", "n1").await;
    agent.report(true, &[workload(1, "web", &[])], &[]).await;
    agent.until("the workload", |a| is_placed(a, 1)).await;
    let batch = wire::FlowBatch { sequence: 1, flows: vec![flow(&agent, 1), flow(&agent, 2)], sampled_out: 0 };
    let stored = |sequence| move |a: &Agent| a.other.contains(&To::FlowsStored(wire::FlowsStored { sequence }));
    agent.send(From::Flows(batch.clone())).await;
    agent.until("the answer", stored(1)).await;
    agent.send(From::Flows(batch.clone())).await;
    agent.send(From::Flows(wire::FlowBatch { sequence: 2, flows: vec![flow(&agent, 3)], sampled_out: 4 })).await;
    agent.until("the answer", stored(2)).await;
    let before = server.control.flows.list(&FlowQuery { verdict: Some(Verdict::Deny), ..FlowQuery::default() });
    assert_eq!((before.items.len(), before.sampled_out), (3, 4));
    assert_eq!(before.items[0].client.workload.as_deref(), Some("/acme/eu-1/web"));
    let server = server.restart().await;
    assert_eq!(server.control.flows.list(&FlowQuery::default()).items, before.items);
    let mut agent = agent.reconnect(&server).await;
    agent.send(From::Flows(batch)).await;
    agent.until("the answer", stored(2)).await;
    assert_eq!(server.control.flows.list(&FlowQuery::default()).items.len(), 3);
}

#[tokio::test]
async fn a_clock_that_is_far_off_raises_an_alarm() {
    let server = Running::start().await.clusters().await;
    let mut agent = server.agent("eu-1", "n1").await;
    let hour = 3_600_000_000_000;
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
    agent.send(From::Clock(wire::Clock { agent_unix_ns: now + hour, echo: 7 })).await;
    agent.until("the echo", |a| a.other.iter().any(|m| matches!(m, To::Clock(c) if c.echo == 7))).await;
    server.status("Node", "/", "n1", |s| s["alarms"][0]["code"] == "E4009").await;
    agent.send(From::Clock(wire::Clock { agent_unix_ns: now, echo: 8 })).await;
    server.status("Node", "/", "n1", |s| s["alarms"] == json!([])).await;
}
