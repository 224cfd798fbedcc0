//! Random histories against a naive model of what a store is.

use std::collections::BTreeMap;

use api::object::{Object, ObjectKey, Revision};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;
use store::document::{Filter, Precondition, Written};
use store::watch::{Change, WatchError};
use store::{Store, Transaction};

use crate::{Engine, Place, object};

/// Changes kept for watchers: few, so that histories outgrow them.
const KEPT: usize = 20;

#[derive(Clone, Debug)]
enum Step {
    /// Writes a document's spec, at its right revision or at a stale one.
    Put(u8, u32, bool),
    /// Writes a status alone.
    Report(u8, u32),
    Delete(u8),
    Record(u8, Option<u8>),
    Intern(u8),
    Commit,
    Abandon,
    /// Follows from a revision back from the head.
    Watch(u8),
    /// Closes and opens the database.
    Reopen,
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u8..6, 0u32..4, any::<bool>()).prop_map(|(which, value, stale)| Step::Put(which, value, stale)),
        2 => (0u8..6, 0u32..3).prop_map(|(which, value)| Step::Report(which, value)),
        2 => (0u8..6).prop_map(Step::Delete),
        1 => (0u8..4, prop::option::of(any::<u8>())).prop_map(|(key, value)| Step::Record(key, value)),
        1 => (0u8..6).prop_map(Step::Intern),
        5 => Just(Step::Commit),
        1 => Just(Step::Abandon),
        2 => (0u8..60).prop_map(Step::Watch),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..90)
}

/// What is committed, as simply as it can be said.
#[derive(Clone, Debug, Default)]
struct Model {
    documents: BTreeMap<ObjectKey, Object>,
    records: BTreeMap<String, Vec<u8>>,
    interned: Vec<Vec<u8>>,
    revision: u64,
    commits: BTreeMap<u64, Vec<Change>>,
    /// The transaction's changes, before it is committed.
    changes: Vec<Change>,
}

impl Model {
    fn put(&mut self, object: &Object) {
        self.documents.insert(object.key(), object.clone());
        self.changes.push(Change::Put(Box::new(object.clone())));
    }

    fn delete(&mut self, key: &ObjectKey) {
        if self.documents.remove(key).is_some() {
            self.changes.push(Change::Delete(key.clone()));
        }
    }

    fn commit(&mut self) {
        if !self.changes.is_empty() {
            self.revision += 1;
            self.commits.insert(self.revision, std::mem::take(&mut self.changes));
        }
    }

    /// Revisions whose changes may be forgotten by now: a watch from before them may be told to start over.
    fn may_be_forgotten(&self, from: u64) -> bool {
        self.commits.range(from + 1..).map(|(_, changes)| changes.len()).sum::<usize>() >= KEPT
    }
}

async fn open(place: &Place) -> Store {
    Store::open_keeping(&place.url(), i64::try_from(KEPT).unwrap()).await.unwrap()
}

async fn run(engine: Engine, steps: Vec<Step>) {
    let place = Place::new(engine);
    let mut store = open(&place).await;
    let (mut committed, mut model) = (Model::default(), Model::default());
    let mut write: Option<Transaction> = None;
    for step in steps {
        match step {
            Step::Commit => {
                if let Some(open) = write.take() {
                    let revision = open.commit().await.unwrap();
                    model.commit();
                    committed = model.clone();
                    assert_eq!(revision, Revision(committed.revision));
                }
            }
            Step::Abandon => {
                drop(write.take());
                model = committed.clone();
            }
            Step::Watch(back) => follow(&store, &committed, u64::from(back)).await,
            Step::Reopen => {
                drop(write.take());
                model = committed.clone();
                store.close().await;
                store = open(&place).await;
            }
            step => {
                let open = match write.take() {
                    Some(open) => open,
                    None => store.begin().await.unwrap(),
                };
                write = Some(apply(open, step, &mut model).await);
            }
        }
    }
    drop(write.take());
    let (held, revision) = store.list(&Filter::default()).await.unwrap();
    assert_eq!((held, revision.0), (committed.documents.values().cloned().collect(), committed.revision));
    let records: BTreeMap<_, _> = store.records("r").await.unwrap().into_iter().collect();
    assert_eq!(records, committed.records);
    let interned: Vec<_> = store.all_interned("i").await.unwrap().into_iter().map(|(_, content)| content).collect();
    assert_eq!(interned, committed.interned);
    follow(&store, &committed, committed.revision).await;
}

/// One write, in the store and in the model.
async fn apply(mut write: Transaction, step: Step, model: &mut Model) -> Transaction {
    let now = Timestamp::UNIX_EPOCH;
    match step {
        Step::Put(which, value, stale) => {
            let object = object("Policy", "/a", &format!("p{which}"), value);
            let at = model.documents.get(&object.key()).and_then(|old| old.metadata.revision);
            let precondition = match (at, stale) {
                (_, true) => Precondition::At(Revision(1_000_000)),
                (Some(at), false) => Precondition::At(at),
                (None, false) => Precondition::Absent,
            };
            match write.put(&object, precondition, now).await {
                Ok((_, Written::Unchanged)) => {}
                Ok((stored, _)) => model.put(&stored),
                Err(error) => assert!(stale, "{error}"),
            }
        }
        Step::Report(which, value) => {
            let key = object("Policy", "/a", &format!("p{which}"), 0).key();
            if let Some(mut reported) = model.documents.get(&key).cloned() {
                reported.status = Some(json!({ "seen": value }));
                let (stored, written) = write.put(&reported, Precondition::None, now).await.unwrap();
                if written != Written::Unchanged {
                    assert_eq!(stored.metadata, reported.metadata, "a report leaves its author's part");
                    model.put(&stored);
                }
            }
        }
        Step::Delete(which) => {
            let key = object("Policy", "/a", &format!("p{which}"), 0).key();
            let deleted = write.delete(&key, Precondition::None).await.unwrap();
            assert_eq!(deleted.as_ref(), model.documents.get(&key));
            model.delete(&key);
        }
        Step::Record(key, Some(value)) => {
            write.put_record("r", &key.to_string(), &[value]).await.unwrap();
            model.records.insert(key.to_string(), vec![value]);
        }
        Step::Record(key, None) => {
            let there = write.delete_record("r", &key.to_string()).await.unwrap();
            assert_eq!(there, model.records.remove(&key.to_string()).is_some());
        }
        Step::Intern(content) => {
            let id = write.intern("i", &[content], 100).await.unwrap();
            let known = model.interned.iter().position(|held| held == &[content]);
            let at = known.unwrap_or_else(|| {
                model.interned.push(vec![content]);
                model.interned.len() - 1
            });
            assert_eq!(usize::try_from(id).unwrap(), at + 1);
        }
        Step::Commit | Step::Abandon | Step::Watch(_) | Step::Reopen => {}
    }
    write
}

/// A watch from `back` revisions ago has every commit since, once and in order, or is told to start over if it may.
async fn follow(store: &Store, model: &Model, back: u64) {
    let from = model.revision.saturating_sub(back);
    let mut watch = store.watch(Revision(from));
    for (revision, changes) in model.commits.range(from + 1..) {
        match watch.try_next().await {
            Ok(Some(commit)) => assert_eq!((commit.revision.0, &commit.changes), (*revision, changes)),
            Err(WatchError::StartOver) => {
                assert!(model.may_be_forgotten(from), "from {from} of {}", model.revision);
                return;
            }
            other => panic!("from {from} at {revision}: {other:?}"),
        }
    }
    assert!(watch.try_next().await.unwrap().is_none());
    assert!(matches!(store.watch(Revision(model.revision + 1)).try_next().await, Err(WatchError::StartOver)));
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn sqlite_is_what_the_model_is(steps in history()) {
        block_on(run(Engine::Sqlite, steps));
    }

    #[test]
    fn postgres_is_what_the_model_is(steps in history()) {
        block_on(run(Engine::Postgres, steps));
    }
}
