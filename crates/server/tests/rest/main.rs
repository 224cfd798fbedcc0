//! The server's port from outside: TLS, who may do what, documents.

mod described;
mod documents;
mod init;
mod lists;
mod operations;
mod support;
mod writes;

use api::problem;
use support::Running;

#[tokio::test]
async fn health_needs_no_certificate_and_all_else_does() {
    let server = Running::start().await;
    let anonymous = server.anonymous();
    assert_eq!(server.text(&anonymous, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(server.text(&anonymous, "/readyz").await, (200, "ready\n".to_owned()));
    let (status, body) = server.text(&anonymous, "/metrics").await;
    assert_eq!((status, server.problem(&body).code.as_str()), (401, problem::UNAUTHENTICATED.code));
    let (status, body) = server.text(&anonymous, "/nowhere").await;
    assert_eq!((status, server.problem(&body).code.as_str()), (404, problem::NO_SUCH_ROUTE.code));
    let (status, body) = server.text(&server.admin(), "/metrics").await;
    assert_eq!(status, 200);
    assert!(body.contains("stolos_server_connections 1") || body.contains("stolos_server_connections 2"), "{body}");
    server.stop().await;
}

#[tokio::test]
async fn a_nodes_certificate_serves_its_agent_only() {
    let server = Running::start().await;
    let (status, body) = server.text(&server.node(7), "/metrics").await;
    assert_eq!((status, server.problem(&body).code.as_str()), (403, problem::FORBIDDEN.code));
    server.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_does_not_get_in() {
    let (server, stranger) = (Running::start().await, Running::start().await);
    let client = server.client_with(stranger.identity());
    assert!(client.get(server.url("/healthz")).send().await.is_err());
    server.stop().await;
    stranger.stop().await;
}

#[tokio::test]
async fn a_pinned_fingerprint_admits_this_server_and_no_other() {
    let (server, stranger) = (Running::start().await, Running::start().await);
    let pinned = server.pinned(server.report.authority);
    assert_eq!(server.text(&pinned, "/healthz").await.0, 200);
    let wrong = server.pinned(stranger.report.authority);
    assert!(wrong.get(server.url("/healthz")).send().await.is_err());
    server.stop().await;
    stranger.stop().await;
}
