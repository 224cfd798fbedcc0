//! Lists in pages, and watches that end.

use api::client::ListQuery;
use api::problem;
use api::watch::{ObjectList, WatchEvent};

use crate::documents::{namespace, problem as refusal, request};
use crate::support::Running;

/// Namespaces `/n000` and so on; every third of team `x`.
async fn many(server: &Running, count: usize) {
    let one = |number: usize| {
        let team = if number.is_multiple_of(3) { "x" } else { "y" };
        format!(
            "apiVersion: stolos.dev/v1\nkind: Namespace\nmetadata: {{name: n{number:03}, labels: {{team: {team}}}}}\nspec: {{}}\n---\n"
        )
    };
    let text: String = (0..count).map(one).collect();
    server.api().apply(&request(&text), false).await.unwrap();
}

fn names(page: &ObjectList) -> Vec<&str> {
    page.items.iter().map(|object| object.metadata.name.as_str()).collect()
}

#[tokio::test]
async fn pages_give_everything_once_and_in_order() {
    let server = Running::start().await;
    let api = server.api();
    many(&server, 10).await;
    let query = ListQuery { label_selector: Some("team in (x,y)".into()), ..ListQuery::default() };
    let (mut all, mut next, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = api.page("Namespace", &query, Some(3), next.as_deref()).await.unwrap();
        assert!(page.items.len() <= 3);
        all.extend(names(&page).into_iter().map(str::to_owned));
        pages += 1;
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (0..10).map(|number| format!("n{number:03}")).collect();
    assert_eq!((all, pages), (expected, 4));
    // A limit that fits exactly has nothing behind it, and no limit at all is one page here.
    assert_eq!(api.page("Namespace", &query, Some(10), None).await.unwrap().next, None);
    let selected = ListQuery { label_selector: Some("team=x".into()), ..ListQuery::default() };
    let few = api.page("Namespace", &selected, Some(3), None).await.unwrap();
    assert_eq!(names(&few), ["n000", "n003", "n006"]);
    let rest = api.page("Namespace", &selected, None, few.next.as_deref()).await.unwrap();
    assert_eq!((names(&rest), rest.next.is_none()), (vec!["n009"], true));
    server.stop().await;
}

/// A list in pages, then a watch from its revision: nothing is missed, whatever is written between the pages.
#[tokio::test]
async fn a_watch_from_a_paged_lists_revision_tells_what_changed_between_the_pages() {
    let server = Running::start().await;
    let api = server.api();
    many(&server, 6).await;
    let query = ListQuery::default();
    let first = api.page("Namespace", &query, Some(4), None).await.unwrap();
    assert_eq!(names(&first), ["/", "n000", "n001", "n002"]);
    api.delete("Namespace", "/", "n001").await.unwrap();
    api.apply(&request(&namespace("/a", "")), false).await.unwrap();
    api.delete("Namespace", "/", "n004").await.unwrap();
    let second = api.page("Namespace", &query, Some(4), first.next.as_deref()).await.unwrap();
    assert_eq!((names(&second), second.revision), (vec!["n003", "n005"], first.revision));
    let mut watch = api.watch("Namespace", &query, second.revision).await.unwrap();
    let mut changes = Vec::new();
    while changes.len() < 3 {
        match crate::documents::next(&mut watch).await {
            WatchEvent::Put { object } => changes.push(format!("+{}", object.metadata.name)),
            WatchEvent::Delete { key, .. } => changes.push(format!("-{}", key.name)),
            WatchEvent::Bookmark { .. } => {}
            WatchEvent::StartOver => panic!("the feed reaches back"),
        }
    }
    assert_eq!(changes, ["-n001", "+a", "-n004"]);
    server.stop().await;
}

#[tokio::test]
async fn tokens_of_another_list_and_damaged_ones_are_unknown() {
    let server = Running::start().await;
    let api = server.api();
    many(&server, 4).await;
    let everywhere = ListQuery::default();
    let token = api.page("Namespace", &everywhere, Some(2), None).await.unwrap().next.unwrap();
    let of_x = ListQuery { label_selector: Some("team=x".into()), ..ListQuery::default() };
    for (kind, query, token) in [
        ("Namespace", &of_x, token.as_str()),
        ("Policy", &everywhere, &token),
        ("Namespace", &everywhere, &token[..token.len() - 2]),
        ("Namespace", &everywhere, "x"),
        ("Namespace", &everywhere, "' OR 1=1 --"),
    ] {
        let refused = refusal(api.page(kind, query, None, Some(token)).await.unwrap_err());
        assert_eq!((refused.status, refused.code.as_str()), (422, problem::CONTINUE_UNKNOWN.code), "{kind} {token}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_watch_that_is_to_end_sends_everything_first() {
    let server = Running::start().await;
    many(&server, 5).await;
    let lines = async |query: &str| {
        let (status, text) = server.text(&server.admin(), &format!("/apis/stolos.dev/v1/namespaces?{query}")).await;
        assert_eq!(status, 200, "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<WatchEvent>>()
    };
    let all = lines("watch=true&timeoutSeconds=0").await;
    assert_eq!(all.iter().filter(|event| matches!(event, WatchEvent::Put { .. })).count(), 6);
    let Some(WatchEvent::Bookmark { revision }) = all.last() else { panic!("{all:?}") };
    server.api().delete("Namespace", "/", "n001").await.unwrap();
    let resumed = lines(&format!("watch=true&timeoutSeconds=0&revision={revision}")).await;
    assert!(matches!(&resumed[0], WatchEvent::Delete { key, .. } if key.name == "n001"), "{resumed:?}");
    assert!(matches!(resumed.last(), Some(WatchEvent::Bookmark { revision: end }) if end > revision));
    let (status, body) = server.text(&server.admin(), "/apis/stolos.dev/v1/namespaces?watch=true&limit=3").await;
    assert_eq!((status, server.problem(&body).code.as_str()), (422, problem::RANGE.code));
    server.stop().await;
}
