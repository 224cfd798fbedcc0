//! The store's promises, on a real file.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use api::object::{API_VERSION, Metadata, Object, ObjectKey, Revision};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;
use store::Store;
use store::document::{Filter, LabelTest, Precondition, WriteError, Written};
use store::watch::{Change, WatchError};

fn object(kind: &str, namespace: &str, name: &str, value: u32) -> Object {
    Object {
        api_version: API_VERSION.into(),
        kind: kind.into(),
        metadata: Metadata { namespace: namespace.into(), name: name.into(), ..Metadata::default() },
        spec: json!({ "value": value }),
        status: None,
    }
}

async fn fresh() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("stolos.db")).await.unwrap();
    (dir, store)
}

async fn put(store: &Store, object: &Object) -> Object {
    let mut write = store.begin().await.unwrap();
    let (stored, _) = write.put(object, Precondition::None, Timestamp::UNIX_EPOCH).await.unwrap();
    write.commit().await.unwrap();
    stored
}

#[tokio::test]
async fn a_document_keeps_its_uid_and_gets_a_new_revision() {
    let (_dir, store) = fresh().await;
    let first = put(&store, &object("Policy", "/a", "x", 1)).await;
    let second = put(&store, &object("Policy", "/a", "x", 2)).await;
    assert_eq!(first.metadata.uid, second.metadata.uid);
    assert_eq!((first.metadata.revision, second.metadata.revision), (Some(Revision(1)), Some(Revision(2))));
    assert_eq!(store.get(&first.key()).await.unwrap(), Some(second));
}

#[tokio::test]
async fn writing_the_same_again_uses_no_revision() {
    let (_dir, store) = fresh().await;
    let first = put(&store, &object("Policy", "/a", "x", 1)).await;
    let mut write = store.begin().await.unwrap();
    let (_, written) = write.put(&first, Precondition::None, Timestamp::MAX).await.unwrap();
    assert_eq!(written, Written::Unchanged);
    assert_eq!(write.commit().await.unwrap(), Revision(1));
}

#[tokio::test]
async fn a_stale_writer_is_told() {
    let (_dir, store) = fresh().await;
    let first = put(&store, &object("Policy", "/a", "x", 1)).await;
    put(&store, &object("Policy", "/a", "x", 2)).await;
    let mut write = store.begin().await.unwrap();
    let now = Timestamp::UNIX_EPOCH;
    let stale = write.put(&object("Policy", "/a", "x", 3), Precondition::At(Revision(1)), now).await;
    assert!(matches!(stale, Err(WriteError::Changed { now: Some(Revision(2)), .. })));
    assert!(matches!(write.put(&first, Precondition::Absent, now).await, Err(WriteError::Exists(_))));
    let mut other = object("Policy", "/a", "x", 3);
    other.metadata.uid = Some(uuid::Uuid::nil());
    assert!(matches!(write.put(&other, Precondition::None, now).await, Err(WriteError::OtherUid(_))));
    let gone = write.delete(&ObjectKey::new("Policy", "/a", "y"), Precondition::At(Revision(1))).await;
    assert!(matches!(gone, Err(WriteError::Changed { now: None, .. })));
}

#[tokio::test]
async fn a_report_is_in_the_feed_and_leaves_its_authors_revision_and_time() {
    let (_dir, store) = fresh().await;
    let authored = put(&store, &object("Cluster", "/", "c", 1)).await;
    let report = Object { status: Some(json!({"nodes": 2})), ..authored.clone() };
    let mut write = store.begin().await.unwrap();
    let (reported, written) = write.put(&report, Precondition::None, Timestamp::MAX).await.unwrap();
    assert_eq!((written, write.commit().await.unwrap()), (Written::Updated, Revision(2)));
    assert_eq!(reported.metadata, authored.metadata);
    let mut watch = store.watch(Revision(1));
    let commit = watch.try_next().await.unwrap().expect("the report");
    assert_eq!((commit.revision, commit.changes), (Revision(2), vec![Change::Put(Box::new(reported))]));
    // Whoever read the document before the report writes what he read: he is not told of a conflict, and the report stays.
    let mut write = store.begin().await.unwrap();
    let changed = Object { spec: json!({"value": 2}), ..authored };
    let at = Precondition::At(changed.metadata.revision.unwrap());
    let (stored, _) = write.put(&changed, at, Timestamp::MAX).await.unwrap();
    assert_eq!((stored.status, stored.metadata.revision), (Some(json!({"nodes": 2})), Some(Revision(3))));
    assert_eq!(stored.metadata.updated, Some(Timestamp::MAX));
}

#[tokio::test]
async fn a_transaction_without_commit_leaves_nothing() {
    let (_dir, store) = fresh().await;
    let mut write = store.begin().await.unwrap();
    write.put(&object("Policy", "/a", "x", 1), Precondition::None, Timestamp::UNIX_EPOCH).await.unwrap();
    write.put_record("keys", "a", b"1").await.unwrap();
    drop(write);
    assert_eq!(store.revision().await.unwrap(), Revision(0));
    assert_eq!(store.list(&Filter::default()).await.unwrap().0, []);
    assert_eq!(store.record("keys", "a").await.unwrap(), None);
}

#[tokio::test]
async fn lists_are_by_namespace_subtree_and_label() {
    let (_dir, store) = fresh().await;
    for (namespace, name) in [("/", "r"), ("/a", "x"), ("/a/b", "y"), ("/ab", "z"), ("/a-b", "w")] {
        let mut one = object("Policy", namespace, name, 1);
        one.metadata.labels = BTreeMap::from([("team".into(), name.into())]);
        put(&store, &one).await;
    }
    put(&store, &object("Service", "/a", "s", 1)).await;
    let names = async |filter: Filter| {
        let found = store.list(&filter).await.unwrap().0;
        found.iter().map(|o| o.metadata.name.clone()).collect::<Vec<_>>().join(" ")
    };
    let policies = |namespace: &str, subtree| Filter {
        kind: Some("Policy".into()),
        namespace: Some(namespace.into()),
        subtree,
        labels: vec![],
    };
    assert_eq!(names(policies("/a", false)).await, "x");
    assert_eq!(names(policies("/a", true)).await, "x y");
    assert_eq!(names(policies("/", true)).await, "r x w y z");
    assert_eq!(names(Filter { namespace: Some("/a".into()), ..Filter::default() }).await, "x s");
    let labels = |test| Filter { labels: vec![test], ..policies("/", true) };
    assert_eq!(names(labels(LabelTest::In("team".into(), vec!["x".into(), "z".into()]))).await, "x z");
    assert_eq!(names(labels(LabelTest::NotIn("team".into(), vec!["x".into()]))).await, "r w y z");
    assert_eq!(names(labels(LabelTest::Absent("team".into()))).await, "");
    assert_eq!(names(labels(LabelTest::Present("team".into()))).await, "r x w y z");
}

#[tokio::test]
async fn interned_numbers_stay_and_are_never_reused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stolos.db");
    let store = Store::open(&path).await.unwrap();
    let mut write = store.begin().await.unwrap();
    assert_eq!(write.intern("class", b"a", 2).await.unwrap(), 1);
    assert_eq!(write.intern("class", b"b", 2).await.unwrap(), 2);
    assert_eq!(write.intern("class", b"a", 2).await.unwrap(), 1);
    assert_eq!(write.intern("service", b"a", 2).await.unwrap(), 1);
    assert!(matches!(write.intern("class", b"c", 2).await, Err(store::StoreError::Exhausted(_))));
    write.commit().await.unwrap();
    store.close().await;
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.interned("class", b"b").await.unwrap(), Some(2));
    assert_eq!(store.all_interned("class").await.unwrap(), [(1, b"a".to_vec()), (2, b"b".to_vec())]);
}

#[tokio::test]
async fn a_watch_waits_for_the_next_commit() {
    let (_dir, store) = fresh().await;
    let mut watch = store.watch(Revision(0));
    assert_eq!(watch.try_next().await.unwrap(), None);
    let writer = store.clone();
    let task = tokio::spawn(async move { put(&writer, &object("Policy", "/a", "x", 1)).await });
    let commit = tokio::time::timeout(std::time::Duration::from_secs(20), watch.next()).await.unwrap().unwrap();
    assert_eq!(commit.changes, [Change::Put(Box::new(task.await.unwrap()))]);
    assert_eq!(watch.position(), Revision(1));
}

#[tokio::test]
async fn a_watch_from_forgotten_or_future_changes_starts_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_keeping(&dir.path().join("stolos.db"), 10).await.unwrap();
    for value in 0..40 {
        put(&store, &object("Policy", "/a", "x", value)).await;
    }
    assert!(matches!(store.watch(Revision(0)).try_next().await, Err(WatchError::StartOver)));
    assert!(matches!(store.watch(Revision(41)).try_next().await, Err(WatchError::StartOver)));
    let mut watch = store.watch(Revision(35));
    for expected in 36..=40 {
        assert_eq!(watch.try_next().await.unwrap().unwrap().revision, Revision(expected));
    }
    assert_eq!(watch.try_next().await.unwrap(), None);
}

/// One step of a history: (which of five documents, Some(value) = put, None = delete, same transaction as before).
type Step = (u8, Option<u32>, bool);

fn history() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0u8..5, prop::option::weighted(0.8, 0u32..4), any::<bool>()), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whoever watches, from wherever and interrupted anywhere, ends with what the store holds, and sees no revision twice.
    #[test]
    fn watching_has_no_gap_and_no_duplicate(steps in history(), resume_every in 1usize..5) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_dir, store) = fresh().await;
            let mut write = store.begin().await.unwrap();
            for (which, value, joined) in steps {
                if !joined {
                    write.commit().await.unwrap();
                    write = store.begin().await.unwrap();
                }
                let one = object("Policy", "/a", &format!("p{which}"), value.unwrap_or(0));
                match value {
                    Some(_) => drop(write.put(&one, Precondition::None, Timestamp::UNIX_EPOCH).await.unwrap()),
                    None => drop(write.delete(&one.key(), Precondition::None).await.unwrap()),
                }
            }
            write.commit().await.unwrap();
            let (mut seen, mut last) = (BTreeMap::new(), Revision(0));
            'resumed: loop {
                let mut watch = store.watch(last);
                for _ in 0..resume_every {
                    let Some(commit) = watch.try_next().await.unwrap() else { break 'resumed };
                    assert!(commit.revision > last);
                    last = commit.revision;
                    for change in commit.changes {
                        match change {
                            Change::Put(object) => drop(seen.insert(object.key(), *object)),
                            Change::Delete(key) => drop(seen.remove(&key)),
                        }
                    }
                }
            }
            let (held, revision) = store.list(&Filter::default()).await.unwrap();
            assert_eq!(seen.into_values().collect::<Vec<_>>(), held);
            assert_eq!(last, revision);
        });
    }
}

const WRITER: &str = "STOLOS_TEST_WRITER";

/// Not a test of its own: the process that `acknowledged_writes_survive_kill` kills.
#[test]
fn writer_process() {
    let Ok(path) = std::env::var(WRITER) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(path.as_ref()).await.unwrap();
        for value in 0..1_000_000 {
            let stored = put(&store, &object("Policy", "/a", &format!("p{value}"), value)).await;
            println!("acknowledged {}", stored.metadata.name);
        }
    });
}

#[tokio::test]
async fn acknowledged_writes_survive_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stolos.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer_process", "--nocapture"])
        .env(WRITER, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut acknowledged = Vec::new();
    for line in lines {
        if let Some((_, name)) = line.split_once("acknowledged ") {
            acknowledged.push(name.to_owned());
            if acknowledged.len() == 50 {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    assert!(acknowledged.len() >= 50);
    let store = Store::open(&path).await.unwrap();
    for name in &acknowledged {
        assert!(store.get(&ObjectKey::new("Policy", "/a", name)).await.unwrap().is_some(), "{name} is lost");
    }
    put(&store, &object("Policy", "/a", "after", 0)).await;
}
