//! What a compromised node can do with its stream: nothing to others, and what it does is seen.

use std::time::Duration;

use api::sync as wire;
use api::sync::agent_message::Message as From;
use api::sync::server_message::Message as To;
use serde_json::json;
use server::registry::Limits;
use tonic::Code;

use crate::support::{Agent, Running, uid, workload};

async fn echo(agent: &mut Agent, echo: u64) {
    agent.send(From::Clock(wire::Clock { agent_unix_ns: 0, echo })).await;
    agent.until("the echo", |a| a.other.iter().any(|m| matches!(m, To::Clock(c) if c.echo == echo))).await;
}

#[tokio::test]
async fn a_node_that_floods_the_server_is_heard_slowly_and_nobody_else_is() {
    let server = Running::start().await.clusters().await;
    let (flooder, mut other) = (server.agent("eu-1", "n1").await, server.agent("us-1", "n2").await);
    other.until("a snapshot", |a| a.snapshots == 1).await;
    // The channel holds as many as the server has not taken: when the last is in it, all but those were heard.
    let cut = wire::Cut { revocation_uid: "none".into(), ..wire::Cut::default() };
    for _ in 0..10_150 {
        flooder.send(From::Cut(cut.clone())).await;
    }
    let status = server.status("Node", "/", "n1", |s| s["alarms"][0]["code"] == "E4032").await;
    assert_eq!(status["alarms"][0]["object"], "budget");
    echo(&mut other, 9).await;
    // It is heard again when it has earned what it spent, and then nothing is the matter.
    server
        .status("Node", "/", "n1", |s| s["alarms"].as_array().is_some_and(|a| a.iter().all(|a| a["code"] != "E4032")))
        .await;
}

#[tokio::test]
async fn a_stream_that_never_acknowledges_ends_and_says_why() {
    let apply_timeout = Duration::from_millis(300);
    let server = Running::with(Limits { apply_timeout, ..Running::limits() }).await.clusters().await;
    let mut agent = server.agent("eu-1", "n1").await;
    agent.acknowledges = false;
    let ended = agent.ending().await.expect("a reason");
    assert_eq!((ended.code(), ended.message()), (Code::DeadlineExceeded, "the agent did not answer a state in time"));
    server.status("Node", "/", "n1", |s| s["connected"] == false).await;
    // An acknowledgement of something that was never sent moves nothing.
    let mut agent = server.agent("eu-1", "n2").await;
    agent.acknowledges = false;
    agent.until("a snapshot", |a| a.snapshots == 1).await;
    agent.send(From::Applied(wire::Applied { revision: u64::MAX, took_ms: 0 })).await;
    let ended = agent.ending().await.expect("a reason");
    assert_eq!(ended.code(), Code::DeadlineExceeded);
    let status = server.status("Node", "/", "n2", |s| s["connected"] == false).await;
    assert_eq!(status["appliedRevision"].as_u64().unwrap_or(0), 0);
}

#[tokio::test]
async fn a_node_has_no_more_workloads_than_its_kernel_holds() {
    let server = Running::with(Limits { workloads_max: 3, ..Running::limits() }).await.clusters().await;
    let mut agent = server.agent("eu-1", "n1").await;
    let all: Vec<_> = (1..=5).map(|number| workload(number, &format!("w{number}"), &[])).collect();
    agent.report(true, &all, &[]).await;
    agent.until("the refusals", |a| a.refused.len() == 2).await;
    assert!(agent.refused.iter().all(|refused| refused.code == "E4030"), "{:?}", agent.refused);
    agent.until("those that fit", |a| a.keys("workload/").len() == 3).await;
    // What is there may change; what goes makes room.
    agent.report(false, &[workload(1, "w1", &[("app", "web")])], &[]).await;
    agent.report(false, &[workload(5, "w5", &[])], &[&uid(2)]).await;
    agent.until("the newcomer", |a| a.state.contains_key(&format!("workload/{}", uid(5)))).await;
    assert_eq!(agent.refused.len(), 2);
}

#[tokio::test]
async fn no_text_of_a_node_hides_an_alarm_or_grows_without_bound() {
    let server = Running::start().await.clusters().await;
    let mut agent = server.agent("eu-1", "n1").await;
    let hour = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap() + 3_600_000_000_000;
    agent.send(From::Clock(wire::Clock { agent_unix_ns: hour, echo: 1 })).await;
    server.status("Node", "/", "n1", |s| s["alarms"][0]["object"] == "clock").await;
    let long = "x".repeat(1 << 20);
    let named = |uid: &str| wire::LocalWorkload { uid: uid.into(), ..workload(1, "web", &[]) };
    agent.report(false, &[named("clock"), named(&long)], &["clock"]).await;
    agent.until("the refusals", |a| a.refused.len() == 2).await;
    let status = server.status("Node", "/", "n1", |s| s["alarms"].as_array().is_some_and(|a| a.len() == 2)).await;
    assert!(status.to_string().len() < 4096, "{status}");
    assert!(status["alarms"].as_array().unwrap().iter().any(|alarm| alarm["code"] == "E4009"), "{status}");
}

#[tokio::test]
async fn an_alarm_that_an_agent_raised_ends_when_it_says_so_or_begins_anew() {
    let server = Running::start().await.clusters().await;
    let agent = server.agent("eu-1", "n1").await;
    let raised = |object: &str, over| {
        From::Alarm(wire::AlarmRaised { code: "K5002".into(), object: object.into(), message: "m".into(), over })
    };
    agent.send(raised("state", false)).await;
    agent.send(raised("list", false)).await;
    server.status("Node", "/", "n1", |s| s["alarms"].as_array().is_some_and(|a| a.len() == 2)).await;
    agent.send(raised("state", true)).await;
    server.status("Node", "/", "n1", |s| s["alarms"].as_array().is_some_and(|a| a.len() == 1)).await;
    let _agent = agent.reconnect(&server).await;
    server.status("Node", "/", "n1", |s| s["alarms"] == json!([])).await;
}
