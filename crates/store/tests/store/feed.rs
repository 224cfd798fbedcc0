//! The change feed: nobody misses a commit, and nobody sees one twice.

use std::collections::BTreeMap;

use api::object::Revision;
use store::Store;
use store::document::Filter;
use store::watch::{Change, WatchError};

use crate::{Engine, LIMIT, Place, fresh, object, put};

crate::on_both! {
    a_watch_waits_for_the_next_commit
    a_watch_from_forgotten_or_future_changes_starts_over
    many_watchers_see_the_same_however_far_behind_they_start
    commits_come_in_the_order_of_their_revisions
}

async fn a_watch_waits_for_the_next_commit(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    let mut watch = store.watch(Revision(0));
    assert_eq!(watch.try_next().await.unwrap(), None);
    let writer = store.clone();
    let task = tokio::spawn(async move { put(&writer, &object("Policy", "/a", "x", 1)).await });
    let commit = tokio::time::timeout(LIMIT, watch.next()).await.unwrap().unwrap();
    assert_eq!(commit.changes[..], [Change::Put(Box::new(task.await.unwrap()))]);
    assert_eq!(watch.position(), Revision(1));
}

async fn a_watch_from_forgotten_or_future_changes_starts_over(engine: Engine) {
    let place = Place::new(engine);
    let store = Store::open_keeping(&place.url(), 10).await.unwrap();
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

/// Ones that follow, ones that start late, and one that reaches far back.
async fn many_watchers_see_the_same_however_far_behind_they_start(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    for value in 0..30 {
        put(&store, &object("Policy", "/a", &format!("p{}", value % 7), value)).await;
    }
    let watchers: Vec<_> = (0..30)
        .map(|from| {
            let mut watch = store.watch(Revision(from));
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while watch.position() < Revision(60) {
                    seen.push(tokio::time::timeout(LIMIT, watch.next()).await.unwrap().unwrap().revision.0);
                }
                (from, seen)
            })
        })
        .collect();
    for value in 30..60 {
        put(&store, &object("Policy", "/a", &format!("p{}", value % 7), value)).await;
    }
    for watcher in watchers {
        let (from, seen) = watcher.await.unwrap();
        assert_eq!(seen, (from + 1..=60).collect::<Vec<_>>());
    }
}

/// Writers of several processes at once: whoever watches has every revision once, in order, and in the end what is there.
async fn commits_come_in_the_order_of_their_revisions(engine: Engine) {
    const WRITES: u32 = 25;
    let place = Place::new(engine);
    let first = place.open().await;
    // SQLite belongs to one process: there, both writers share it.
    let second = match engine {
        Engine::Sqlite => first.clone(),
        Engine::Postgres => place.open().await,
    };
    let writer = |store: Store, name: &'static str| {
        tokio::spawn(async move {
            for value in 0..WRITES {
                put(&store, &object("Policy", "/a", name, value)).await;
                put(&store, &object("Policy", "/a", "both", value)).await;
            }
        })
    };
    let (mut watch, mut seen, mut last) = (second.watch(Revision(0)), BTreeMap::new(), Revision(0));
    let writers = [writer(first.clone(), "first"), writer(second.clone(), "second")];
    let end = async {
        for writer in writers {
            writer.await.unwrap();
        }
        first.revision().await.unwrap()
    };
    tokio::pin!(end);
    let mut until = None;
    while until != Some(last) {
        tokio::select! {
            head = &mut end, if until.is_none() => until = Some(head),
            commit = tokio::time::timeout(LIMIT, watch.next()) => {
                let commit = commit.unwrap().unwrap();
                assert_eq!(commit.revision, Revision(last.0 + 1), "each write has changed something");
                last = commit.revision;
                for change in &commit.changes {
                    if let Change::Put(object) = change {
                        seen.insert(object.key(), (**object).clone());
                    }
                }
            }
        }
    }
    let (held, revision) = second.list(&Filter::default()).await.unwrap();
    assert_eq!((seen.into_values().collect::<Vec<_>>(), last), (held, revision));
}
