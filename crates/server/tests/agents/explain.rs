//! What an explanation says of nodes that do not enforce it yet.

use api::explain::{ExplainRequest, NodeBehind};
use api::sync as wire;
use serde_json::json;

use crate::support::{Agent, Running, uid, workload};

async fn placed(agent: &mut Agent, number: u32, name: &str) {
    agent.report(true, &[workload(number, name, &[("app", name)])], &[]).await;
    agent.until_object(&format!("workload/{}", uid(number)), |_: &wire::PlacedWorkload| true).await;
}

#[tokio::test]
async fn an_explanation_names_the_node_that_is_behind_and_its_revision() {
    let server = Running::start().await.clusters().await;
    let (mut one, mut two) = (server.agent("eu-1", "n1").await, server.agent("us-1", "n2").await);
    placed(&mut one, 1, "web").await;
    placed(&mut two, 2, "db").await;
    one.until("both peers", |a| a.keys("peer/").len() == 2).await;
    let question = ExplainRequest { from: "web@eu-1".into(), to: "db@us-1".into(), port: "tcp/6379".into() };
    server.status("Node", "/", "n2", |s| s["appliedRevision"] == two.revision).await;
    let before = two.revision;
    two.acknowledges = false;
    let spec = json!({"from": ["app=web"], "to": ["app=db"], "action": "allow"});
    server.put("Policy", "/acme", "p", spec).await;
    two.until("the policy", |a| a.state.contains_key("policy//acme:p")).await;
    one.until("the policy", |a| a.state.contains_key("policy//acme:p")).await;
    server.status("Node", "/", "n1", |s| s["appliedRevision"] == one.revision).await;
    let answer = server.api().explain(&question).await.unwrap();
    assert_eq!(answer.behind, [NodeBehind { node: "n2".into(), revision: before, connected: true }]);
    let said = format!("this is revision {}, and n2 enforces revision {before}", answer.revision);
    assert!(answer.text.contains(&said), "{}", answer.text);
    two.acknowledge().await;
    server.status("Node", "/", "n2", |s| s["appliedRevision"] == two.revision).await;
    assert_eq!(server.api().explain(&question).await.unwrap().behind, []);
    // After a restart the server still knows what a node that is away had confirmed.
    let had = two.revision;
    let server = server.restart().await;
    server.put("Policy", "/acme", "q", json!({"from": ["app=x"], "to": ["app=db"], "action": "allow"})).await;
    let revision = server.control.registry.changes().wait_for(|r| *r > had).await.map(|r| *r).unwrap();
    let answer = server.api().explain(&question).await.unwrap();
    assert!(answer.revision >= revision);
    assert!(answer.behind.contains(&NodeBehind { node: "n2".into(), revision: had, connected: false }), "{answer:?}");
}
