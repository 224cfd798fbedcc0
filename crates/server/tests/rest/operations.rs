//! Join tokens, rotations, flows, explanations and computed statuses.

use api::apply::{ApplyRequest, Source};
use api::audit::{AuditEntry, Verifier};
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

#[tokio::test]
async fn whatever_an_operator_does_is_in_a_trail_that_holds() {
    let server = Running::start().await;
    let api = server.api();
    let text = "apiVersion: stolos.dev/v1\nkind: Cluster\nmetadata: {name: eu-1}\nspec: {namespace: /}\n";
    let source = Source { name: "f.yaml".into(), text: text.into() };
    let request = ApplyRequest { sources: vec![source], ..ApplyRequest::default() };
    api.apply(&request, true).await.unwrap();
    api.apply(&request, false).await.unwrap();
    api.apply(&request, false).await.unwrap();
    let token = api.join_token("eu-1", &JoinTokenRequest::default()).await.unwrap().token;
    api.rotate_fleet_key().await.unwrap();
    api.delete("Cluster", "/", "eu-1").await.unwrap();
    let records = api.audit(0, 1000).await.unwrap().items;
    let mut verifier = Verifier::default();
    let entries: Vec<AuditEntry> = records.iter().map(|record| verifier.check(record).unwrap()).collect();
    let acts: Vec<_> = entries.iter().map(|e| (e.action.as_str(), e.object.to_string())).collect();
    let cluster = "Cluster /:eu-1".to_owned();
    let expected = [
        ("created", cluster.clone()),
        ("join-token.create", cluster.clone()),
        ("fleet-key.rotate", "Namespace /".to_owned()),
        ("deleted", cluster),
    ];
    assert_eq!(acts, expected, "dry runs and what changed nothing are no acts");
    assert!(entries.iter().all(|e| e.by.from.is_some_and(|from| from.is_loopback()) && !e.by.name.is_empty()));
    let whole: String = records.iter().map(|record| record.entry.as_str()).collect();
    assert!(token.split('.').all(|part| part.len() < 8 || !whole.contains(part)), "no secret is in it");
    assert_eq!(api.audit(3, 1).await.unwrap().items, records[3..4]);
    server.stop().await;
}
