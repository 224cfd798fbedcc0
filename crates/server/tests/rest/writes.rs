//! Writes of one object: preconditions, merge patches, dry runs, and everything that a body can have wrong.

use api::kind::policy::PolicySpec;
use api::problem;
use api::route::{BASE, MERGE_PATCH};
use policy::syntax::DEPTH_MAX;
use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::documents::{namespace, policy, problem as refusal, request};
use crate::support::Running;

/// A server with `/acme` and a policy in it.
async fn acme() -> Running {
    let server = Running::start().await;
    let text = namespace("/acme", "") + &policy("/acme", "p", "app=db");
    server.api().apply(&request(&text), false).await.unwrap();
    server
}

/// A request as it is, and its answer: status, ETag, body.
async fn send(
    server: &Running,
    method: Method,
    path: &str,
    headers: &[(header::HeaderName, &str)],
    body: impl Into<reqwest::Body>,
) -> (u16, String, Value) {
    let mut call = server.admin().request(method, server.url(&format!("{BASE}{path}"))).body(body);
    for (name, value) in headers {
        call = call.header(name, *value);
    }
    let answer = call.send().await.unwrap();
    let tag = answer.headers().get(header::ETAG).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, tag, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
}

const POLICY: &str = "/policies/p?namespace=/acme";

#[tokio::test]
async fn an_etag_guards_every_kind_of_write() {
    let server = acme().await;
    let (_, tag, object) = send(&server, Method::GET, POLICY, &[], "").await;
    assert_eq!(tag, format!("\"{}\"", object["metadata"]["revision"]));
    let patch = json!({"metadata": {"labels": {"team": "a"}}}).to_string();
    let merge = (header::CONTENT_TYPE, MERGE_PATCH);
    let fresh = (header::IF_MATCH, tag.as_str());
    let (status, newer, _) = send(&server, Method::PATCH, POLICY, &[merge.clone(), fresh.clone()], patch.clone()).await;
    assert_eq!(status, 200);
    assert_ne!(newer, tag);
    let mut stale = object.clone();
    stale["metadata"].as_object_mut().unwrap().remove("revision");
    for (method, headers, body) in [
        (Method::PATCH, vec![merge.clone(), fresh.clone()], patch.clone()),
        (Method::PUT, vec![fresh.clone()], stale.to_string()),
        (Method::DELETE, vec![fresh.clone()], String::new()),
    ] {
        let (status, _, refused) = send(&server, method.clone(), POLICY, &headers, body).await;
        assert_eq!((status, refused["code"].as_str()), (412, Some(problem::PRECONDITION_FAILED.code)), "{method}");
    }
    // What is not there has no revision; what is malformed is no precondition at all.
    let (status, _, _) = send(&server, Method::PUT, "/policies/q?namespace=/acme", &[fresh], "{}").await;
    assert_eq!(status, 412);
    let (status, _, refused) = send(&server, Method::DELETE, POLICY, &[(header::IF_MATCH, "7")], "").await;
    assert_eq!((status, refused["code"].as_str()), (400, Some(problem::BAD_REQUEST.code)));
    let (status, _, _) = send(&server, Method::DELETE, POLICY, &[(header::IF_MATCH, &newer)], "").await;
    assert_eq!(status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_patch_merges_and_is_checked_like_any_document() {
    let server = acme().await;
    let api = server.api();
    let patch = json!({"spec": {"ports": ["tcp/5432"], "reason": "ticket 7"}, "metadata": {"labels": {"team": "a"}}});
    let patched = api.patch("Policy", "/acme", "p", &patch).await.unwrap();
    assert_eq!(patched.metadata.labels["team"], "a");
    let patched = api.patch("Policy", "/acme", "p", &json!({"spec": {"ports": null}})).await.unwrap();
    assert_eq!((&patched.spec["reason"], patched.spec.get("ports")), (&json!("ticket 7"), None));
    let same = api.patch("Policy", "/acme", "p", &json!({})).await.unwrap();
    assert_eq!(same.metadata.revision, patched.metadata.revision);
    for (patch, status, code) in [
        (json!({"spec": {"form": ["app=web"]}}), 422, problem::INVALID.code),
        (json!({"spec": {"from": "app=web"}}), 422, problem::INVALID.code),
        (json!({"metadata": {"name": "other"}}), 422, problem::INVALID.code),
        (json!({"metadata": {"namespace": "/"}}), 422, problem::INVALID.code),
        (json!({"metadata": {"revision": 1}}), 409, problem::CONFLICT.code),
        (json!({"metadata": {"uid": "018f0000-0000-7000-8000-000000000000"}}), 409, problem::CONFLICT.code),
        (json!({"kind": null}), 422, problem::INVALID.code),
        (json!([1]), 400, problem::BAD_REQUEST.code),
    ] {
        let refused = refusal(api.patch("Policy", "/acme", "p", &patch).await.unwrap_err());
        assert_eq!((refused.status, refused.code.as_str()), (status, code), "{patch}: {}", refused.detail);
    }
    let gone = refusal(api.patch("Policy", "/acme", "q", &json!({})).await.unwrap_err());
    assert_eq!((gone.status, gone.code.as_str()), (404, problem::NOT_FOUND.code));
    // Only what was good has been written.
    assert_eq!(api.get::<PolicySpec>("/acme", "p").await.unwrap().spec.from, ["app=web"]);
    server.stop().await;
}

#[tokio::test]
async fn a_dry_run_of_any_write_answers_like_the_write_and_leaves_nothing() {
    let server = acme().await;
    let revision = server.control.store.revision().await.unwrap();
    let merge = [(header::CONTENT_TYPE, MERGE_PATCH)];
    let other = policy("/acme", "q", "app=db").replace("---\n", "");
    let changed = policy("/acme", "p", "app=cache").replace("---\n", "");
    let patch = json!({"spec": {"action": "deny"}}).to_string();
    for (method, path, headers, body, expected) in [
        (Method::POST, "/policies?dryRun=true", &[][..], other, 200),
        (Method::PUT, "/policies/p?namespace=/acme&dryRun=true", &[], changed, 200),
        (Method::PATCH, "/policies/p?namespace=/acme&dryRun=true", &merge, patch.clone(), 200),
        (Method::DELETE, "/policies/p?namespace=/acme&dryRun=true", &[], String::new(), 200),
        (Method::PATCH, "/policies/q?namespace=/acme&dryRun=true", &merge, patch, 404),
        (Method::DELETE, "/namespaces/acme?dryRun=true", &[], String::new(), 409),
        (Method::POST, "/policies?dryRun=true", &[], policy("/none", "q", "app=db").replace("---\n", ""), 422),
    ] {
        let (status, _, answer) = send(&server, method.clone(), path, headers, body).await;
        assert_eq!(status, expected, "{method} {path}: {answer}");
        assert_eq!(server.control.store.revision().await.unwrap(), revision, "{method} {path}");
    }
    server.stop().await;
}

/// Two writers read the same object and write; one of them is told, whichever way they say what they have read.
#[tokio::test]
async fn of_two_writers_one_is_told() {
    let server = acme().await;
    for _ in 0..20 {
        let (_, tag, object) = send(&server, Method::GET, POLICY, &[], "").await;
        let with = |reason: &str| {
            let mut object = object.clone();
            object["spec"]["reason"] = json!(format!("{reason} {tag}"));
            object.to_string()
        };
        let patch = json!({"spec": {"reason": format!("patched {tag}")}}).to_string();
        let headers = [(header::CONTENT_TYPE, MERGE_PATCH), (header::IF_MATCH, tag.as_str())];
        let (a, b) = tokio::join!(
            send(&server, Method::PUT, POLICY, &[], with("put")),
            send(&server, Method::PATCH, POLICY, &headers, patch)
        );
        let mut statuses = [a.0, b.0];
        statuses.sort_unstable();
        assert!(matches!(statuses, [200, 409] | [200, 412]), "{statuses:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn bodies_that_cannot_be_read_say_why() {
    let server = acme().await;
    let json_type = (header::CONTENT_TYPE, "application/json");
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let nested = |depth: usize| format!("{{\"spec\": {}}}", deep(depth));
    let in_flow = format!("apiVersion: stolos.dev/v1\nkind: Policy\nmetadata: {{name: x}}\nspec: {}", deep(5000));
    let merge = (header::CONTENT_TYPE, MERGE_PATCH);
    for (method, path, header, body, status, code, says) in [
        (
            Method::POST,
            "/policies",
            json_type.clone(),
            b"\xff\xfe".to_vec(),
            400,
            "A3001",
            "not UTF-8 text (at byte 0)",
        ),
        (Method::POST, "/explain", json_type.clone(), b"{\"from\": \"\xc3\x28\"}".to_vec(), 400, "A3001", "not UTF-8"),
        (Method::PATCH, POLICY, merge.clone(), nested(DEPTH_MAX).into(), 400, "A3031", "more than 48 deep"),
        (Method::POST, "/apply", json_type.clone(), b"[[]]".to_vec(), 400, "A3001", "a JSON mapping is expected"),
        (
            Method::POST,
            "/apply",
            json_type.clone(),
            br#"{"sources": [["a", ""]]}"#.to_vec(),
            400,
            "A3001",
            "expected a mapping",
        ),
        (Method::POST, "/apply", json_type.clone(), deep(100_000).into(), 400, "A3031", "more than 48 deep"),
        (Method::POST, "/policies", json_type.clone(), in_flow.into(), 422, "A3010", "nested too deeply"),
        (Method::POST, "/policies", json_type.clone(), vec![b' '; 9 << 20], 413, "A3002", "larger than 8 MiB"),
        (Method::PATCH, POLICY, merge.clone(), vec![b' '; 9 << 20], 413, "A3002", "larger than 8 MiB"),
        (Method::POST, "/policies", (header::CONTENT_TYPE, "image/png"), vec![], 415, "A3030", "`image/png`"),
        (Method::PATCH, POLICY, json_type.clone(), b"{}".to_vec(), 415, "A3030", MERGE_PATCH),
        (Method::POST, "/explain", (header::CONTENT_TYPE, "text/xml"), b"{}".to_vec(), 415, "A3030", "`text/xml`"),
        (Method::POST, "/policies", json_type, vec![], 422, "A3010", "no document"),
    ] {
        let (answered, _, problem) = send(&server, method.clone(), path, &[header], body).await;
        assert_eq!((answered, problem["code"].as_str()), (status, Some(code)), "{method} {path}: {problem}");
        assert!(problem.to_string().contains(says), "{says}: {problem}");
    }
    server.stop().await;
}

#[tokio::test]
async fn names_with_quotes_and_statements_are_names_of_nothing() {
    let server = acme().await;
    let before = server.control.store.revision().await.unwrap();
    let names = ["x'; DROP TABLE documents; --", "\" OR \"\"=\"", "%", "p\0", "../p", "a/b", "\u{202e}p", "p\n"];
    for name in names {
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for method in [Method::GET, Method::DELETE] {
            let path = format!("/policies/{encoded}?namespace=/acme");
            let (status, _, refused) = send(&server, method.clone(), &path, &[], "").await;
            assert_eq!((status, refused["code"].as_str()), (404, Some(problem::NOT_FOUND.code)), "{method} {name:?}");
        }
        let document = json!({"apiVersion": "stolos.dev/v1", "kind": "Policy", "metadata": {"name": name},
            "spec": {"from": ["any"], "to": ["any"], "action": "allow"}});
        let (status, _, refused) = send(&server, Method::POST, "/policies", &[], document.to_string()).await;
        assert_eq!((status, refused["diagnostics"][0]["code"].as_str()), (422, Some("P2010")), "{name:?}: {refused}");
        for query in [format!("/policies?namespace={encoded}"), format!("/flows?namespace={encoded}")] {
            let (status, _, refused) = send(&server, Method::GET, &query, &[], "").await;
            assert_eq!((status, refused["code"].as_str()), (400, Some(problem::BAD_REQUEST.code)), "{query}");
        }
    }
    let (status, _, refused) = send(&server, Method::GET, "/policies/%FF%FE?namespace=/acme", &[], "").await;
    assert_eq!((status, refused["code"].as_str()), (400, Some(problem::BAD_REQUEST.code)));
    assert_eq!(server.control.store.revision().await.unwrap(), before);
    assert!(server.api().get::<PolicySpec>("/acme", "p").await.is_ok());
    server.stop().await;
}

#[tokio::test]
async fn limits_of_names_labels_and_pages_are_said() {
    let server = acme().await;
    let policy = |name: &str, metadata: Value| {
        let mut document = json!({"apiVersion": "stolos.dev/v1", "kind": "Policy", "metadata": {"name": name},
            "spec": {"from": ["any"], "to": ["any"], "action": "allow"}});
        document["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        document.to_string()
    };
    let labels = |count: usize| (0..count).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    let long = "a".repeat(254);
    for (body, code) in [
        (policy(&long, json!({})), "P2010"),
        (policy("x", json!({"labels": labels(65)})), "A3024"),
        (policy("x", json!({"annotations": labels(65)})), "A3024"),
        (policy("x", json!({"labels": {"@node": "n"}})), "A3024"),
        (policy("x", json!({"labels": {"k": "v".repeat(2000)}})), "A3024"),
        (policy("x", json!({"annotations": {"k": "v".repeat(20_000)}})), "A3024"),
    ] {
        let (status, _, refused) = send(&server, Method::POST, "/policies", &[], body).await;
        assert_eq!((status, refused["diagnostics"][0]["code"].as_str()), (422, Some(code)), "{refused}");
    }
    let fits = policy(&"a".repeat(253), json!({"labels": labels(64), "annotations": {"k": "v".repeat(16_384)}}));
    assert_eq!(send(&server, Method::POST, "/policies", &[], fits).await.0, 201);
    for query in
        ["limit=0", "limit=1001", "limit=x", "watch=maybe", "watch=true&timeoutSeconds=86401", "limit=1&limit=2"]
    {
        let (status, _, refused) = send(&server, Method::GET, &format!("/policies?{query}"), &[], "").await;
        assert_eq!((status, refused["code"].as_str()), (400, Some(problem::BAD_REQUEST.code)), "{query}");
    }
    let (status, _, refused) = send(&server, Method::GET, "/clusters?namespace=/acme", &[], "").await;
    assert_eq!((status, refused["code"].as_str()), (400, Some(problem::BAD_REQUEST.code)));
    server.stop().await;
}
