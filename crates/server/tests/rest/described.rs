//! The OpenAPI document and the server are the same list, seen from outside.

use std::collections::BTreeSet;

use api::kind::KINDS;
use api::problem;
use reqwest::Method;
use serde_json::Value;

use crate::support::Running;

const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE"];

async fn document(server: &Running) -> Value {
    let (status, text) = server.text(&server.anonymous(), "/openapi.json").await;
    assert_eq!(status, 200);
    serde_json::from_str(&text).unwrap()
}

/// Every operation of the document is served, and on its addresses nothing else is.
#[tokio::test]
async fn what_is_served_is_described_and_the_other_way_round() {
    let server = Running::start().await;
    let document = document(&server).await;
    let admin = server.admin();
    let mut seen = 0;
    for (path, described) in document["paths"].as_object().unwrap() {
        let address = server.url(&path.replace("{name}", "none"));
        for name in METHODS {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            // A body that no operation takes: nothing is changed, and every handler is reached.
            let answer = admin.request(method, &address).header("content-type", "image/none").send().await.unwrap();
            let (status, allow) = (answer.status().as_u16(), answer.headers().get("allow").cloned());
            let code = serde_json::from_str::<Value>(&answer.text().await.unwrap()).ok();
            let code = code.and_then(|body| Some(body.get("code")?.as_str()?.to_owned()));
            let served = status != 405 && code.as_deref() != Some(problem::NO_SUCH_ROUTE.code);
            let is_described = described.get(name.to_ascii_lowercase()).is_some();
            assert_eq!(served, is_described, "{name} {path}: {status} {code:?}");
            if !served {
                let allowed: BTreeSet<String> =
                    allow.unwrap().to_str().unwrap().split(',').map(str::to_owned).collect();
                let expected = described.as_object().unwrap().keys().map(|method| method.to_ascii_uppercase());
                let missing: Vec<String> = expected.filter(|method| !allowed.contains(method)).collect();
                assert!(missing.is_empty(), "{name} {path} allows {allowed:?}, not {missing:?}");
            }
            seen += usize::from(served);
        }
    }
    assert_eq!(seen, api::route::operations().len());
    server.stop().await;
}

/// Handlers write in somebody's name: `store.begin` stands in none of them.
#[test]
fn no_handler_writes_unaudited() {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http");
    for entry in std::fs::read_dir(sources).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            assert!(!std::fs::read_to_string(&path).unwrap().contains("store.begin"), "{}", path.display());
        }
    }
}

/// The router has no other way in than the list: `.route(` stands once in the server's sources, and once where a server that
/// stands by says that it lives.
#[test]
fn routes_are_registered_in_one_place() {
    let mut places = Vec::new();
    let mut directories = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let ways = [".route(", ".nest(", ".route_service(", ".nest_service("];
            let found = ways.iter().map(|way| text.matches(way).count()).sum::<usize>();
            places.extend(std::iter::repeat_n(path.display().to_string(), found));
        }
    }
    places.sort();
    let expected = ["src/http.rs", "src/standby.rs"];
    let found = places.iter().zip(expected).all(|(place, file)| place.ends_with(file));
    assert!(found && places.len() == expected.len(), "{places:?}");
}

#[tokio::test]
async fn the_description_is_for_anybody_and_complete_in_itself() {
    let server = Running::start().await;
    let anonymous = server.anonymous();
    let (status, page) = server.text(&anonymous, "/docs").await;
    assert_eq!(status, 200);
    assert!(page.contains("listPolicies") && !page.contains("<script"));
    for kind in KINDS {
        let (status, text) = server.text(&anonymous, &format!("/schemas/{}.json", kind.name)).await;
        let schema: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, schema["properties"]["kind"]["const"].as_str()), (200, Some(kind.name)));
    }
    let (status, body) = server.text(&anonymous, "/schemas/Gadget.json").await;
    assert_eq!((status, server.problem(&body).code.as_str()), (404, problem::NO_SUCH_ROUTE.code));
    server.stop().await;
}

/// Without a certificate everything but what says so is refused, before anything else about the request is looked at.
#[tokio::test]
async fn nobody_without_a_certificate_gets_further_than_the_document_says() {
    let server = Running::start().await;
    let (anonymous, node) = (server.anonymous(), server.node(7));
    for operation in api::route::operations() {
        let address = server.url(&operation.path.replace("{name}", "none"));
        let method = operation.method.clone();
        let asked = |client: &reqwest::Client| client.request(method.clone(), format!("{address}?unknown=1")).send();
        let (nobody, agent) = (asked(&anonymous).await.unwrap().status(), asked(&node).await.unwrap().status());
        let expected = if operation.access == api::route::Access::Anyone { (200, 200) } else { (401, 403) };
        assert_eq!((nobody.as_u16(), agent.as_u16()), expected, "{}", operation.id);
    }
    server.stop().await;
}
