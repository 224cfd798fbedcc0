//! Join tokens, rotations, flows, explanations and computed statuses.

use api::apply::{ApplyRequest, Source};
use api::client::{ClientError, ListQuery};
use api::explain::ExplainRequest;
use api::flow::FlowQuery;
use api::kind::external_network::ExternalNetworkSpec;
use api::kind::namespace::{Action, Mode, NamespaceSpec};
use api::problem;
use api::token::{JoinToken, JoinTokenRequest};

use crate::support::Running;

async fn fleet() -> Running {
    let server = Running::start().await;
    let source = Source { name: "fleet.yaml".into(), text: include_str!("fleet.yaml").into() };
    server.api().apply(&ApplyRequest { sources: vec![source], ..ApplyRequest::default() }, false).await.unwrap();
    server
}

fn code(error: ClientError) -> String {
    error.problem().map(|problem| problem.code.clone()).unwrap_or_else(|| panic!("{error}"))
}

#[tokio::test]
async fn a_join_token_names_server_and_authority() {
    let server = fleet().await;
    let api = server.api();
    let made = api.join_token("eu-1", &JoinTokenRequest::default()).await.unwrap();
    let token: JoinToken = made.token.parse().unwrap();
    assert_eq!((token.server, token.ca), (server.url(""), server.report.authority));
    assert!(token.secret.len() >= 43);
    let other = api.join_token("eu-1", &JoinTokenRequest::default()).await.unwrap();
    assert_ne!(other.token, made.token);
    assert_eq!(
        code(api.join_token("nowhere", &JoinTokenRequest::default()).await.unwrap_err()),
        problem::NOT_FOUND.code
    );
    for bad in
        [JoinTokenRequest { ttl_s: Some(1), node: None }, JoinTokenRequest { ttl_s: None, node: Some("A!".into()) }]
    {
        assert_eq!(code(api.join_token("eu-1", &bad).await.unwrap_err()), problem::RANGE.code);
    }
    server.stop().await;
}

#[tokio::test]
async fn keys_rotate_by_command_and_not_twice_at_once() {
    let server = fleet().await;
    let api = server.api();
    assert_eq!(api.rotate_node_keys().await.unwrap().nodes, 0);
    let first = api.rotate_fleet_key().await.unwrap().generation;
    assert!(first <= 3);
    server.stop().await;
}

#[tokio::test]
async fn flows_are_empty_before_anything_was_seen_and_following_ends_with_the_server() {
    let server = fleet().await;
    let api = server.api();
    assert_eq!(api.flows(&FlowQuery::default()).await.unwrap().items, []);
    let mut following = api.follow_flows(&FlowQuery::default()).await.unwrap();
    let (status, body) = server.text(&server.admin(), "/apis/stolos.dev/v1/flows?verdict=maybe").await;
    assert_eq!((status, server.problem(&body).code.as_str()), (400, problem::BAD_REQUEST.code));
    server.stop().await;
    assert!(matches!(following.next().await, Ok(None) | Err(_)));
}

#[tokio::test]
async fn a_question_about_nobody_says_so() {
    let server = fleet().await;
    let request = ExplainRequest { from: "web@eu-1".into(), to: "db@us-1".into(), port: "tcp/6379".into() };
    let error = server.api().explain(&request).await.unwrap_err();
    assert!(error.to_string().contains("no workload is called `web@eu-1`"), "{error}");
    assert_eq!(code(error), problem::NOT_FOUND.code);
    server.stop().await;
}

#[tokio::test]
async fn statuses_say_what_follows_from_other_documents() {
    let server = fleet().await;
    let api = server.api();
    let below = api.get::<NamespaceSpec>("/acme", "eu-1").await.unwrap().status.expect("computed");
    assert_eq!((below.mode, below.ingress, below.egress), (Mode::Observe, Action::Deny, Action::Deny));
    let text = "apiVersion: stolos.dev/v1\nkind: ExternalNetwork\nmetadata: {namespace: /acme, name: wide}\nspec: {cidrs: [192.168.0.0/16]}\n";
    let source = Source { name: "n.yaml".into(), text: text.into() };
    api.apply(&ApplyRequest { sources: vec![source], ..ApplyRequest::default() }, false).await.unwrap();
    let networks = api.list::<ExternalNetworkSpec>(&ListQuery::default()).await.unwrap();
    let covered = networks[0].status.clone().expect("computed").covers_fleet;
    assert_eq!(covered, ["192.168.77.21", "192.168.77.22"]);
    server.stop().await;
}
