//! Documents, records and interned numbers.

use std::collections::BTreeMap;

use api::object::{Object, ObjectKey, Revision};
use jiff::Timestamp;
use serde_json::json;
use store::document::{Filter, LabelTest, Precondition, WriteError, Written};
use store::watch::Change;

use crate::{Engine, fresh, object, put};

crate::on_both! {
    a_document_keeps_its_uid_and_gets_a_new_revision
    writing_the_same_again_uses_no_revision
    a_stale_writer_is_told
    a_report_is_in_the_feed_and_leaves_its_authors_revision_and_time
    a_transaction_without_commit_leaves_nothing
    lists_are_by_namespace_subtree_and_label
    interned_numbers_stay_and_are_never_reused
    texts_and_bytes_come_back_as_they_were
    a_failed_statement_lets_nothing_be_committed
}

async fn a_document_keeps_its_uid_and_gets_a_new_revision(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    let first = put(&store, &object("Policy", "/a", "x", 1)).await;
    let second = put(&store, &object("Policy", "/a", "x", 2)).await;
    assert_eq!(first.metadata.uid, second.metadata.uid);
    assert_eq!((first.metadata.revision, second.metadata.revision), (Some(Revision(1)), Some(Revision(2))));
    assert_eq!(store.get(&first.key()).await.unwrap(), Some(second));
}

async fn writing_the_same_again_uses_no_revision(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    let first = put(&store, &object("Policy", "/a", "x", 1)).await;
    let mut write = store.begin().await.unwrap();
    let (_, written) = write.put(&first, Precondition::None, Timestamp::MAX).await.unwrap();
    assert_eq!(written, Written::Unchanged);
    assert_eq!(write.commit().await.unwrap(), Revision(1));
}

async fn a_stale_writer_is_told(engine: Engine) {
    let (_place, store) = fresh(engine).await;
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

async fn a_report_is_in_the_feed_and_leaves_its_authors_revision_and_time(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    let authored = put(&store, &object("Cluster", "/", "c", 1)).await;
    let report = Object { status: Some(json!({"nodes": 2})), ..authored.clone() };
    let mut write = store.begin().await.unwrap();
    let (reported, written) = write.put(&report, Precondition::None, Timestamp::MAX).await.unwrap();
    assert_eq!((written, write.commit().await.unwrap()), (Written::Updated, Revision(2)));
    assert_eq!(reported.metadata, authored.metadata);
    let mut watch = store.watch(Revision(1));
    let commit = watch.try_next().await.unwrap().expect("the report");
    assert_eq!((commit.revision, &commit.changes), (Revision(2), &vec![Change::Put(Box::new(reported))]));
    // Whoever read the document before the report writes what he read: he is not told of a conflict, and the report stays.
    let mut write = store.begin().await.unwrap();
    let changed = Object { spec: json!({"value": 2}), ..authored };
    let at = Precondition::At(changed.metadata.revision.unwrap());
    let (stored, _) = write.put(&changed, at, Timestamp::MAX).await.unwrap();
    assert_eq!((stored.status, stored.metadata.revision), (Some(json!({"nodes": 2})), Some(Revision(3))));
    assert_eq!(stored.metadata.updated, Some(Timestamp::MAX));
}

async fn a_transaction_without_commit_leaves_nothing(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    let mut write = store.begin().await.unwrap();
    write.put(&object("Policy", "/a", "x", 1), Precondition::None, Timestamp::UNIX_EPOCH).await.unwrap();
    write.put_record("keys", "a", b"1").await.unwrap();
    drop(write);
    assert_eq!(store.revision().await.unwrap(), Revision(0));
    assert_eq!(store.list(&Filter::default()).await.unwrap().0, []);
    assert_eq!(store.record("keys", "a").await.unwrap(), None);
}

async fn lists_are_by_namespace_subtree_and_label(engine: Engine) {
    let (_place, store) = fresh(engine).await;
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

async fn interned_numbers_stay_and_are_never_reused(engine: Engine) {
    let (place, store) = fresh(engine).await;
    let mut write = store.begin().await.unwrap();
    assert_eq!(write.intern("class", b"a", 2).await.unwrap(), 1);
    assert_eq!(write.intern("class", b"b", 2).await.unwrap(), 2);
    assert_eq!(write.intern("class", b"a", 2).await.unwrap(), 1);
    assert_eq!(write.intern("service", b"a", 2).await.unwrap(), 1);
    assert!(matches!(write.intern("class", b"c", 2).await, Err(store::StoreError::Exhausted(_))));
    write.commit().await.unwrap();
    store.close().await;
    let store = place.open().await;
    assert_eq!(store.interned("class", b"b").await.unwrap(), Some(2));
    assert_eq!(store.all_interned("class").await.unwrap(), [(1, b"a".to_vec()), (2, b"b".to_vec())]);
}

async fn texts_and_bytes_come_back_as_they_were(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    let mut odd = object("Policy", "/a", "x", 1);
    odd.spec = json!({"text": "\u{0} \u{7f} ü 日本 🦀 \\ ' \" $1 %"});
    let odd = put(&store, &odd).await;
    assert_eq!(store.get(&odd.key()).await.unwrap(), Some(odd));
    let bytes: Vec<u8> = (0..=255).collect();
    let mut write = store.begin().await.unwrap();
    write.put_record("keys", "'; DROP TABLE records; --", &bytes).await.unwrap();
    write.put_record("keys", "empty", b"").await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(store.record("keys", "'; DROP TABLE records; --").await.unwrap(), Some(bytes));
    assert_eq!(store.record("keys", "empty").await.unwrap(), Some(Vec::new()));
}

/// PostgreSQL answers the COMMIT of a transaction in which something failed by rolling it back, without an error.
async fn a_failed_statement_lets_nothing_be_committed(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    let first = put(&store, &object("Policy", "/a", "x", 1)).await;
    let mut write = store.begin().await.unwrap();
    write.put_record("keys", "a", b"1").await.unwrap();
    let twin = Object { metadata: api::object::Metadata { name: "y".into(), ..first.metadata.clone() }, ..first };
    assert!(write.put(&twin, Precondition::None, Timestamp::UNIX_EPOCH).await.is_err(), "the uid is taken");
    let committed = write.commit().await.is_ok();
    assert_eq!(store.record("keys", "a").await.unwrap().is_some(), committed, "what commit says is so");
    assert_eq!(store.list(&Filter::default()).await.unwrap().0.len(), 1);
}
