//! Documents over REST: writing, reading, applying, watching, deleting.

use api::apply::{ApplyOutcome, ApplyRequest, Prune, Source};
use api::client::{ClientError, ListQuery};
use api::kind::namespace::NamespaceSpec;
use api::kind::policy::PolicySpec;
use api::object::{Object, ObjectKey, Revision};
use api::problem::{self, Problem, Severity};
use api::watch::WatchEvent;

use crate::support::Running;

const FLEET: &str = include_str!("fleet.yaml");

pub(crate) fn request(text: &str) -> ApplyRequest {
    ApplyRequest { sources: vec![Source { name: "f.yaml".into(), text: text.into() }], ..ApplyRequest::default() }
}

pub(crate) fn problem(error: ClientError) -> Problem {
    match error {
        ClientError::Refused(problem) => *problem,
        other => panic!("{other}"),
    }
}

fn codes(problem: &Problem) -> Vec<&str> {
    problem.diagnostics.iter().map(|d| d.code.as_str()).collect()
}

pub(crate) fn namespace(path: &str, protection: &str) -> String {
    let key = ObjectKey::of_namespace(path);
    format!(
        "apiVersion: stolos.dev/v1\nkind: Namespace\nmetadata: {{namespace: {}, name: {}}}\nspec: {{{protection}}}\n---\n",
        key.namespace, key.name
    )
}

pub(crate) fn policy(namespace: &str, name: &str, to: &str) -> String {
    format!(
        "apiVersion: stolos.dev/v1\nkind: Policy\nmetadata: {{namespace: {namespace}, name: {name}}}\nspec: {{from: [app=web], to: ['{to}'], action: allow}}\n---\n"
    )
}

#[tokio::test]
async fn a_fleet_is_applied_once_and_unchanged_the_second_time() {
    let server = Running::start().await;
    let api = server.api();
    let first = api.apply(&request(FLEET), false).await.unwrap();
    assert!(first.results.iter().all(|r| r.outcome == ApplyOutcome::Created), "{:?}", first.results);
    assert!(first.results.iter().all(|r| r.object.metadata.revision == Some(first.revision)));
    let second = api.apply(&request(FLEET), false).await.unwrap();
    assert!(second.results.iter().all(|r| r.outcome == ApplyOutcome::Unchanged));
    assert_eq!(second.revision, first.revision);
    let policies = api.list::<PolicySpec>(&ListQuery::default()).await.unwrap();
    assert_eq!(policies.len(), 4);
    let one = api.get::<PolicySpec>("/acme", "web-to-db").await.unwrap();
    assert_eq!(one.spec.ports, Some(vec!["tcp/6379".to_owned()]));
    server.stop().await;
}

#[tokio::test]
async fn one_bad_document_and_nothing_is_written() {
    let server = Running::start().await;
    let api = server.api();
    let text = format!("{FLEET}\n---\n{}", policy("/acme", "bad", "@external=nowhere"));
    let refused = problem(api.apply(&request(&text), false).await.unwrap_err());
    assert_eq!((refused.status, codes(&refused)), (422, vec!["P2105"]));
    assert_eq!(refused.diagnostics[0].field.as_deref(), Some("spec.to[0]"));
    assert!(refused.diagnostics[0].line.is_some_and(|line| line > 60));
    assert_eq!(api.list_any("Policy", &ListQuery::default()).await.unwrap().items, []);
    let text = "apiVersion: stolos.dev/v1\nkind: Polcy\n---\nx: [";
    let refused = problem(api.apply(&request(text), false).await.unwrap_err());
    assert_eq!(refused.code, problem::INVALID.code);
    assert!(codes(&refused).contains(&"P2003") && codes(&refused).contains(&"P2001"), "{refused:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_dry_run_checks_everything_and_writes_nothing() {
    let server = Running::start().await;
    let api = server.api();
    let before = api.list_any("Namespace", &ListQuery::default()).await.unwrap();
    let dry = api.apply(&request(FLEET), true).await.unwrap();
    assert!(dry.dry_run && dry.results.iter().all(|r| r.outcome == ApplyOutcome::Created));
    assert_eq!(api.list_any("Namespace", &ListQuery::default()).await.unwrap().items, before.items);
    assert!(api.apply(&request(&policy("/none", "x", "app=db")), true).await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn objects_live_in_namespaces_that_exist() {
    let server = Running::start().await;
    let api = server.api();
    let refused = problem(api.apply(&request(&policy("/acme", "x", "app=db")), false).await.unwrap_err());
    assert_eq!((refused.status, refused.code.as_str()), (422, problem::NAMESPACE_MISSING.code));
    // In one apply the order does not matter.
    let both = policy("/acme", "x", "app=db") + &namespace("/acme", "");
    api.apply(&request(&both), false).await.unwrap();
    let busy = problem(api.delete("Namespace", "/", "acme").await.unwrap_err());
    assert_eq!((busy.status, busy.code.as_str()), (409, problem::NAMESPACE_IN_USE.code));
    api.delete("Policy", "/acme", "x").await.unwrap();
    api.delete("Namespace", "/", "acme").await.unwrap();
    let root = problem(api.delete("Namespace", "/", "/").await.unwrap_err());
    assert_eq!(root.code, problem::ROOT_FIXED.code);
    server.stop().await;
}

#[tokio::test]
async fn children_tighten_and_never_loosen() {
    let server = Running::start().await;
    let api = server.api();
    let enforce = "protection: {mode: enforce, default: {ingress: deny}}";
    let observe = "protection: {mode: observe}";
    let both = namespace("/a", enforce) + &namespace("/a/b", observe);
    let refused = problem(api.apply(&request(&both), false).await.unwrap_err());
    assert_eq!(codes(&refused), ["P2301"]);
    api.apply(&request(&(namespace("/a", observe) + &namespace("/a/b", observe))), false).await.unwrap();
    // Tightened from above: taken, with a word about who does not get what it says any more.
    let taken = api.apply(&request(&namespace("/a", enforce)), false).await.unwrap();
    let warned: Vec<_> = taken.diagnostics.iter().map(|d| (d.severity, d.code.as_str())).collect();
    assert_eq!(warned, [(Severity::Warning, "P2301")]);
    let root = api.get::<NamespaceSpec>("/", "/").await.unwrap();
    assert_eq!(root.spec, NamespaceSpec::default());
    server.stop().await;
}

#[tokio::test]
async fn a_stale_writer_is_told() {
    let server = Running::start().await;
    let api = server.api();
    api.apply(&request(&namespace("/a", "")), false).await.unwrap();
    let mine = api.get_any("Namespace", "/", "a").await.unwrap();
    api.apply(&request(&namespace("/a", "protection: {mode: enforce}")), false).await.unwrap();
    let stale = problem(api.replace(&mine).await.unwrap_err());
    assert_eq!((stale.status, stale.code.as_str()), (409, problem::CONFLICT.code));
    let again = problem(api.create(&Object { metadata: no_history(&mine), ..mine.clone() }).await.unwrap_err());
    assert_eq!((again.status, again.code.as_str()), (409, problem::ALREADY_EXISTS.code));
    let fresh = api.get_any("Namespace", "/", "a").await.unwrap();
    assert_eq!(api.replace(&fresh).await.unwrap(), fresh);
    server.stop().await;
}

/// What the system reports in `status` is not a change that an operator could have missed.
#[tokio::test]
async fn reports_of_the_system_never_conflict_with_an_operators_write() {
    const WRITES: usize = 40;
    let server = Running::start().await;
    let api = server.api();
    api.apply(&request(FLEET), false).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let (store, stopped) = (server.control.store.clone(), stop.clone());
    let key = ObjectKey::new("Cluster", "/", "eu-1");
    let reporter = tokio::spawn(async move {
        let mut reports = 0u32;
        while !stopped.is_cancelled() {
            let mut write = store.begin().await.unwrap();
            let mut object = write.get(&key).await.unwrap().unwrap();
            reports += 1;
            object.status = Some(serde_json::json!({"nodes": reports, "connected": 0, "openJoinTokens": 0}));
            write.put(&object, store::document::Precondition::None, jiff::Timestamp::now()).await.unwrap();
            write.commit().await.unwrap();
            tokio::task::yield_now().await;
        }
        reports
    });
    for round in 0..WRITES {
        let mut mine = api.get_any("Cluster", "/", "eu-1").await.unwrap();
        mine.metadata.annotations.insert("round".into(), round.to_string());
        let before = mine.metadata.revision;
        let written = api.replace(&mine).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(written.metadata.revision > before);
    }
    stop.cancel();
    let reports = reporter.await.unwrap();
    assert!(reports > 1, "nothing was reported between the writes");
    let end = api.get_any("Cluster", "/", "eu-1").await.unwrap();
    assert_eq!(end.metadata.annotations["round"], (WRITES - 1).to_string());
    assert!(end.status.is_some());
    // Two operators still do conflict, whatever was reported meanwhile.
    let mut other = api.get_any("Cluster", "/", "eu-1").await.unwrap();
    other.metadata.annotations.insert("round".into(), "other".into());
    api.replace(&other).await.unwrap();
    let stale = problem(api.replace(&end).await.unwrap_err());
    assert_eq!((stale.status, stale.code.as_str()), (409, problem::CONFLICT.code));
    server.stop().await;
}

fn no_history(object: &Object) -> api::object::Metadata {
    api::object::Metadata { uid: None, revision: None, created: None, updated: None, ..object.metadata.clone() }
}

#[tokio::test]
async fn an_address_has_one_service_in_a_realm() {
    let server = Running::start().await;
    let api = server.api();
    api.apply(&request(FLEET), false).await.unwrap();
    let other = |port: u16, realms: &str| {
        format!(
            "apiVersion: stolos.dev/v1\nkind: Service\nmetadata: {{namespace: /acme/eu-1, name: other}}\nspec: {{addresses: [{{address: 192.168.77.22, port: {port}{realms}}}], members: {{selectors: [app=x]}}}}\n"
        )
    };
    let refused = problem(api.apply(&request(&other(16379, "")), false).await.unwrap_err());
    assert_eq!((refused.status, refused.code.as_str()), (409, problem::REALM_CONFLICT.code));
    assert!(refused.detail.contains("Service /acme/us-1:db"), "{}", refused.detail);
    api.apply(&request(&other(16380, "")), false).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_network_that_covers_the_fleet_is_reported() {
    let server = Running::start().await;
    let api = server.api();
    api.apply(&request(FLEET), false).await.unwrap();
    let network = "apiVersion: stolos.dev/v1\nkind: ExternalNetwork\nmetadata: {namespace: /acme, name: wide}\nspec: {cidrs: [192.168.0.0/16, 203.0.113.0/24]}\n";
    let taken = api.apply(&request(network), false).await.unwrap();
    assert_eq!(taken.diagnostics.len(), 1);
    assert_eq!(taken.diagnostics[0].code, problem::COVERS_FLEET.code);
    assert!(taken.diagnostics[0].message.contains("192.168.77.21, 192.168.77.22"), "{:?}", taken.diagnostics);
    api.apply(&request(&policy("/acme/eu-1", "out", "@external=wide")), false).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn reported_kinds_are_read_only_and_unknown_ones_unknown() {
    let server = Running::start().await;
    let api = server.api();
    let node = "apiVersion: stolos.dev/v1\nkind: Node\nmetadata: {name: n}\nspec: {}\n";
    let refused = problem(api.apply(&request(node), false).await.unwrap_err());
    assert_eq!(refused.code, problem::UNSUPPORTED_VERB.code);
    assert_eq!(problem(api.delete("Workload", "/", "w").await.unwrap_err()).code, problem::UNSUPPORTED_VERB.code);
    let unknown = problem(api.list_any("Gadget", &ListQuery::default()).await.unwrap_err());
    assert_eq!((unknown.status, unknown.code.as_str()), (404, problem::NO_SUCH_ROUTE.code));
    let absent = problem(api.get_any("Policy", "/", "x").await.unwrap_err());
    assert_eq!((absent.status, absent.code.as_str()), (404, problem::NOT_FOUND.code));
    let (status, body) = server.text(&server.admin(), "/apis/stolos.dev/v1/policies?namespcae=/a").await;
    assert_eq!((status, server.problem(&body).code.as_str()), (400, problem::BAD_REQUEST.code));
    server.stop().await;
}

#[tokio::test]
async fn too_large_a_body_is_refused_with_a_sentence() {
    let server = Running::start().await;
    let text = "#".repeat(9 * 1024 * 1024);
    let refused = problem(server.api().apply(&request(&text), false).await.unwrap_err());
    assert_eq!((refused.status, refused.code.as_str()), (413, problem::BODY_TOO_LARGE.code));
    server.stop().await;
}

#[tokio::test]
async fn a_watch_sees_every_change_and_resumes() {
    let server = Running::start().await;
    let api = server.api();
    let query = ListQuery { namespace: Some("/acme".into()), subtree: true, label_selector: None };
    let start = api.list_any("Policy", &query).await.unwrap().revision;
    let mut watch = api.watch("Policy", &query, start).await.unwrap();
    api.apply(&request(FLEET), false).await.unwrap();
    let mut names = Vec::new();
    let mut seen = Revision(0);
    while names.len() < 3 {
        match next(&mut watch).await {
            WatchEvent::Put { object } => names.push(object.metadata.name),
            WatchEvent::Bookmark { revision } => seen = revision,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(names, ["web-to-db", "load-to-web", "api-to-web"]);
    drop(watch);
    api.delete("Policy", "/acme", "web-to-db").await.unwrap();
    let mut resumed = api.watch("Policy", &query, seen.max(start)).await.unwrap();
    let gone = loop {
        match next(&mut resumed).await {
            WatchEvent::Delete { key, .. } => break key,
            WatchEvent::Put { .. } | WatchEvent::Bookmark { .. } => {}
            WatchEvent::StartOver => panic!("the feed reaches back"),
        }
    };
    assert_eq!(gone, ObjectKey::new("Policy", "/acme", "web-to-db"));
    let mut future = api.watch("Policy", &query, Revision(1_000_000)).await.unwrap();
    assert_eq!(next(&mut future).await, WatchEvent::StartOver);
    // The server stops although a watch is open.
    server.stop().await;
    assert!(!matches!(resumed.next().await, Ok(Some(WatchEvent::Put { .. }))));
}

pub(crate) async fn next(watch: &mut api::client::Lines<WatchEvent>) -> WatchEvent {
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, watch.next()).await.unwrap().unwrap().expect("the stream goes on")
}

#[tokio::test]
async fn lists_select_by_labels() {
    let server = Running::start().await;
    let api = server.api();
    let labelled = |name: &str, team: &str| {
        format!(
            "apiVersion: stolos.dev/v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{team: {team}}}}}\nspec: {{}}\n---\n"
        )
    };
    api.apply(&request(&(labelled("a", "x") + &labelled("b", "y"))), false).await.unwrap();
    let names = async |labels: &str| {
        let query = ListQuery { label_selector: Some(labels.into()), ..ListQuery::default() };
        let items = api.list_any("Namespace", &query).await.unwrap().items;
        items.into_iter().map(|o| o.metadata.name).collect::<Vec<_>>()
    };
    assert_eq!(names("team=x").await, ["a"]);
    assert_eq!(names("team notin (x)").await, ["/", "b"]);
    assert_eq!(names("!team").await, ["/"]);
    let bad = ListQuery { label_selector: Some("team=*".into()), ..ListQuery::default() };
    assert_eq!(problem(api.list_any("Namespace", &bad).await.unwrap_err()).code, problem::BAD_LABEL_SELECTOR.code);
    server.stop().await;
}

fn owned(text: &str, prune: Option<Prune>) -> ApplyRequest {
    ApplyRequest { owner: Some("ci".into()), prune, ..request(text) }
}

#[tokio::test]
async fn what_its_owner_applies_no_more_is_pruned_in_the_same_transaction() {
    let server = Running::start().await;
    let api = server.api();
    let acme = namespace("/acme", "");
    let both = format!("{acme}{}{}", policy("/acme", "a", "app=a"), policy("/acme", "b", "app=b"));
    api.apply(&owned(&both, None), false).await.unwrap();
    api.apply(&request(&policy("/acme", "by-hand", "app=c")), false).await.unwrap();
    let prune = Some(Prune { owner: Some("ci".into()), namespace: None });
    let fewer = owned(&format!("{acme}{}", policy("/acme", "a", "app=a")), prune);
    let would = api.apply(&fewer, true).await.unwrap();
    assert_eq!(
        would.results.last().map(|r| (r.object.key().to_string(), r.outcome)),
        Some(("Policy /acme:b".into(), ApplyOutcome::Deleted))
    );
    assert_eq!(api.list::<PolicySpec>(&ListQuery::default()).await.unwrap().len(), 3, "a dry run deletes nothing");
    let done = api.apply(&fewer, false).await.unwrap();
    assert!(done.revision > would.revision);
    let left = api.list::<PolicySpec>(&ListQuery::default()).await.unwrap();
    let names: Vec<_> = left.iter().map(|policy| policy.metadata.name.as_str()).collect();
    assert_eq!(names, ["a", "by-hand"], "what others applied stays");
    assert_eq!(left[0].metadata.labels["stolos.dev/owner"], "ci");
    server.stop().await;
}

#[tokio::test]
async fn a_subtree_is_made_equal_to_what_is_applied_but_nobody_is_let_in_again() {
    let server = Running::start().await;
    let api = server.api();
    let revoked = "apiVersion: stolos.dev/v1\nkind: Revocation\nmetadata: {name: r}\nspec: {target: {node: n1}}\n---\n";
    let inner =
        format!("{}{}{}", namespace("/acme", ""), namespace("/acme/shop", ""), policy("/acme/shop", "x", "app=x"));
    api.apply(&request(&format!("{revoked}{inner}{}", namespace("/other", ""))), false).await.unwrap();
    let exact = |namespace: &str| Some(Prune { namespace: Some(namespace.into()), owner: None });
    let kept = ApplyRequest { prune: exact("/acme"), ..request(&namespace("/acme", "")) };
    let done = api.apply(&kept, false).await.unwrap();
    let gone: Vec<_> = done
        .results
        .iter()
        .filter(|r| r.outcome == ApplyOutcome::Deleted)
        .map(|r| r.object.key().to_string())
        .collect();
    assert_eq!(gone, ["Policy /acme/shop:x", "Namespace /acme/shop"]);
    let root = ApplyRequest { prune: exact("/"), ..request(&namespace("/acme", "")) };
    let done = api.apply(&root, false).await.unwrap();
    let gone: Vec<_> = done
        .results
        .iter()
        .filter(|r| r.outcome == ApplyOutcome::Deleted)
        .map(|r| r.object.key().to_string())
        .collect();
    assert_eq!(gone, ["Namespace /other"], "neither the root nor a Revocation");
    let nothing = ApplyRequest { prune: Some(Prune::default()), ..request(&namespace("/acme", "")) };
    assert_eq!(problem(api.apply(&nothing, false).await.unwrap_err()).code, problem::RANGE.code);
    server.stop().await;
}
