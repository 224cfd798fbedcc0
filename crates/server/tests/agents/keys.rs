//! Key generations rotate by command, and never before every node knows the next one.

use api::sync as wire;
use api::sync::agent_message::Message as From;
use api::sync::server_message::Message as To;
use server::registry::key::RotateError;

use crate::support::{Running, key_named};

#[tokio::test]
async fn the_fleet_key_rotates_when_every_node_has_the_next_one() {
    let server = Running::start().await.clusters().await;
    let (mut one, mut two) = (server.agent("eu-1", "n1").await, server.agent("us-1", "n2").await);
    let first: wire::FleetKey = one.until_object("fleet-key/0", |k: &wire::FleetKey| k.send).await;
    two.until_object("fleet-key/0", |k: &wire::FleetKey| k.send).await;
    two.acknowledges = false;
    assert_eq!(server.control.registry.rotate_fleet_key().await.unwrap(), 1);
    let next: wire::FleetKey = one.until_object("fleet-key/1", |_| true).await;
    assert!(!next.send && next.key != first.key && next.key.len() == 16);
    two.until_object("fleet-key/1", |_: &wire::FleetKey| true).await;
    assert!(matches!(server.control.registry.rotate_fleet_key().await, Err(RotateError::Busy(_))));
    assert!(one.object::<wire::FleetKey>("fleet-key/0").send);
    two.acknowledge().await;
    one.until_object("fleet-key/1", |k: &wire::FleetKey| k.send).await;
    two.until("the old one's end", |a| !a.state.contains_key("fleet-key/0")).await;
    one.until("the old one's end", |a| !a.state.contains_key("fleet-key/0")).await;
    let server = server.restart().await;
    let mut one = one.reconnect(&server).await;
    one.until("a snapshot", |a| a.snapshots == 1).await;
    assert_eq!(one.object::<wire::FleetKey>("fleet-key/1").key, next.key);
}

#[tokio::test]
async fn a_node_key_rotates_by_command() {
    let server = Running::start().await.clusters().await;
    let (mut one, mut two) = (server.agent("eu-1", "n1").await, server.agent("us-1", "n2").await);
    two.until_object("node-key/1/0", |k: &wire::NodeKey| k.send).await;
    one.until("a snapshot", |a| a.snapshots == 1).await;
    server.control.registry.rotate_node_keys([one.node.id]).await.unwrap();
    one.until("the command", |a| a.other.contains(&To::RotateKey(wire::RotateKey { generation: 1 }))).await;
    one.node.key = (1, key_named("another"));
    one.send(From::HandshakeKey(one.node.public_key())).await;
    let settled = |a: &crate::support::Agent| {
        a.state.contains_key("node-key/1/1")
            && a.object::<wire::NodeKey>("node-key/1/1").send
            && !a.state.contains_key("node-key/1/0")
    };
    // Neither end moves on without the other: both must be heard.
    tokio::join!(one.until("the new key", settled), two.until("the new key", settled));
    assert_eq!(one.object::<wire::Settings>("settings").own_key_generation, 1);
    assert_eq!(two.object::<wire::NodeKey>("node-key/1/1").public, key_named("another"));
    server.status("Node", "/", "n1", |s| s["keyGeneration"] == 1).await;
}

#[tokio::test]
async fn an_agent_that_lost_its_key_is_asked_for_another() {
    let server = Running::start().await.clusters().await;
    let mut agent = server.agent("eu-1", "n1").await;
    agent.until("a snapshot", |a| a.snapshots == 1).await;
    agent.node.key = (0, key_named("made anew"));
    let mut agent = agent.reconnect(&server).await;
    agent.until("the command", |a| a.other.contains(&To::RotateKey(wire::RotateKey { generation: 1 }))).await;
}

#[tokio::test]
async fn a_key_that_is_not_signed_by_the_node_ends_the_stream() {
    let server = Running::start().await.clusters().await;
    let mut agent = server.agent("eu-1", "n1").await;
    let key = wire::NodePublicKey { signature: vec![0; 64], ..agent.node.public_key() };
    agent.send(From::HandshakeKey(wire::NodePublicKey { generation: 1, ..key })).await;
    let ended = agent.ending().await.expect("a reason");
    assert!(ended.message().starts_with("E4006"), "{ended:?}");
}
