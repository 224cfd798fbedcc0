//! Join tokens and certificates.

use std::time::Duration;

use api::sync as wire;
use serde_json::json;
use tonic::Code;

use crate::support::{Agent, EnrolledNode, Running, uid, workload};

async fn refusal(server: &Running, token: &str, hostname: &str) -> (Code, String) {
    let status = EnrolledNode::enrol(server, token, hostname).await.err().expect("it was enrolled");
    let code = status.metadata().get("stolos-code").expect("no code").to_str().unwrap().to_owned();
    assert!(status.message().starts_with(&code), "{status:?}");
    (status.code(), code)
}

#[tokio::test]
async fn a_token_admits_one_node_into_its_cluster() {
    let server = Running::start().await.clusters().await;
    let token = server.token("us-1").await;
    let node = EnrolledNode::enrol(&server, &token, "Host-1.example.org").await.unwrap();
    assert_eq!((node.id.get(), node.name.as_str()), (1, "host-1.example.org"));
    assert_eq!(refusal(&server, &token, "host-2").await, (Code::PermissionDenied, "E4002".into()));
    assert_eq!(refusal(&server, "guessed", "host-2").await, (Code::PermissionDenied, "E4001".into()));
    let status = server.status("Node", "/", &node.name, |s| s["cluster"] == "us-1").await;
    assert_eq!((status["id"].as_u64(), status["namespace"].as_str()), (Some(1), Some("/acme/us-1")));
    assert_eq!(status["realm"], "us-1");
    let status = server.status("Cluster", "/", "us-1", |s| s["nodes"] == 1).await;
    assert_eq!(status["openJoinTokens"], 0);
}

#[tokio::test]
async fn tokens_end_with_their_time_and_their_cluster() {
    let server = Running::start().await.clusters().await;
    let (expired, _) = server.control.registry.make_token("eu-1", Duration::ZERO, None).await.unwrap();
    assert_eq!(refusal(&server, &expired, "host").await.1, "E4003");
    let token = server.token("eu-1").await;
    server.delete("Cluster", "/", "eu-1").await;
    assert_eq!(refusal(&server, &token, "host").await.1, "E4004");
    let none = server.control.registry.make_token("nowhere", Duration::from_secs(60), None).await;
    assert!(matches!(none, Err(server::registry::enrol::TokenError::NoCluster(_))));
}

#[tokio::test]
async fn a_refused_request_leaves_the_token_unspent() {
    let server = Running::start().await.clusters().await;
    let token = server.token("eu-1").await;
    assert_eq!(refusal(&server, &token, "no_name!").await, (Code::InvalidArgument, "E4007".into()));
    let mut client = wire::enrolment_client::EnrolmentClient::new(server.channel(None).await);
    let bad_csr = wire::EnrolRequest {
        token_secret: token.clone(),
        csr_der: vec![1, 2, 3],
        hostname: "host".into(),
        handshake_key: Some(wire::NodePublicKey::default()),
    };
    assert!(client.enrol(bad_csr.clone()).await.unwrap_err().message().starts_with("E4005"));
    let request = identity::authority::NodeRequest::generate().unwrap();
    let unsigned = wire::EnrolRequest { csr_der: request.request_der, ..bad_csr };
    assert!(client.enrol(unsigned).await.unwrap_err().message().starts_with("E4006"));
    assert_eq!(EnrolledNode::enrol(&server, &token, "host").await.unwrap().id.get(), 1);
}

#[tokio::test]
async fn equal_host_names_get_different_node_names() {
    let server = Running::start().await.clusters().await;
    let mut names = Vec::new();
    for _ in 0..3 {
        let token = server.token("eu-1").await;
        names.push(EnrolledNode::enrol(&server, &token, "host").await.unwrap().name);
    }
    assert_eq!(names, ["host", "host-eu-1", "host-eu-1-2"]);
    let (named, _) = server.control.registry.make_token("eu-1", Duration::from_secs(60), Some("edge-7")).await.unwrap();
    assert_eq!(EnrolledNode::enrol(&server, &named, "host").await.unwrap().name, "edge-7");
}

#[tokio::test]
async fn sync_needs_the_certificate_of_an_enrolled_node() {
    let server = Running::start().await.clusters().await;
    let node = EnrolledNode::enrol(&server, &server.token("eu-1").await, "n1").await.unwrap();
    let mut anonymous = wire::sync_client::SyncClient::new(server.channel(None).await);
    let refused = anonymous.sync(tokio_stream::empty()).await.unwrap_err();
    assert_eq!((refused.code(), &refused.message()[..5]), (Code::Unauthenticated, "E4010"));
    server.delete("Node", "/", "n1").await;
    let mut agent = None;
    for _ in 0..100 {
        match Agent::connect_with(&server, node.clone(), Default::default(), 0).await {
            // The deletion has not reached the registry yet.
            Ok(connected) => agent = Some(connected),
            Err(status) => {
                assert_eq!((status.code(), &status.message()[..5]), (Code::PermissionDenied, "E4011"));
                return;
            }
        }
    }
    panic!("a deleted node still connects: {:?}", agent.map(|a| a.welcome));
}

#[tokio::test]
async fn the_certificate_of_an_earlier_node_of_the_same_number_proves_nothing() {
    let server = Running::start().await.clusters().await;
    let node = EnrolledNode::enrol(&server, &server.token("eu-1").await, "n1").await.unwrap();
    // Another key, certified for the same number by the same authority.
    let forged = identity::authority::NodeRequest::generate().unwrap();
    let issued = server.control.authority.issue_node(&forged.request_der, node.id, jiff::Timestamp::now()).unwrap();
    let pem = identity::authority::certificate_pem(&issued.certificate);
    let identity = api::tls::ClientIdentity::from_pem(&pem, &forged.key_pem).unwrap();
    let mut client = wire::sync_client::SyncClient::new(server.channel(Some(identity)).await);
    let refused = client.sync(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(&refused.message()[..5], "E4011");
}

#[tokio::test]
async fn a_revoked_clusters_tokens_and_reports_are_refused() {
    let server = Running::start().await.clusters().await;
    let token = server.token("eu-1").await;
    let mut agent = server.agent("eu-1", "n1").await;
    agent.until("a snapshot", |a| a.snapshots == 1).await;
    server.put("Revocation", "/", "r", json!({"target": {"cluster": "eu-1"}})).await;
    server.status("Revocation", "/", "r", |s| s["confirmed"].is_array()).await;
    assert_eq!(refusal(&server, &token, "late").await.1, "E4004");
    agent.report(true, &[workload(1, "web", &[])], &[]).await;
    agent.until("a refusal", |a| !a.refused.is_empty()).await;
    assert_eq!((agent.refused[0].code.as_str(), &agent.refused[0].uid), ("E4014", &uid(1)));
}
