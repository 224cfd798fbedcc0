//! Backup, restore and move, from either engine to either engine.

use api::audit::{Actor, Verifier};
use api::object::{ObjectKey, Revision};
use jiff::Timestamp;
use store::Store;
use store::document::{Filter, Precondition};
use store::dump::{DumpError, LEAP};

use crate::{Engine, Place, fresh, object, put};

/// Something of everything that a database holds.
async fn fill(store: &Store) {
    for number in 0..3000 {
        if number % 500 == 0 {
            put(store, &object("Policy", "/a", "x", number)).await;
        }
    }
    let mut write = store.begin().await.unwrap();
    write.act_as(Actor { name: "ada".into(), credential: "certificate".into(), from: None }, Timestamp::UNIX_EPOCH);
    for number in 0..2500 {
        let document = object("Policy", "/a/b", &format!("p{number}"), number);
        write.put(&document, Precondition::None, Timestamp::UNIX_EPOCH).await.unwrap();
    }
    write.delete(&ObjectKey::new("Policy", "/a/b", "p7"), Precondition::None).await.unwrap();
    write.put_record("secret", "k", &[0, 255, 10, 13]).await.unwrap();
    write.put_record("secret", "empty", &[]).await.unwrap();
    write.intern("class", b"\x00one", u32::MAX).await.unwrap();
    write.intern("class", b"two", u32::MAX).await.unwrap();
    write.commit().await.unwrap();
}

async fn dumped(store: &Store) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.dump(&mut bytes).await.unwrap();
    bytes
}

async fn same(one: &Store, other: &Store) {
    assert_eq!(one.list(&Filter::default()).await.unwrap().0, other.list(&Filter::default()).await.unwrap().0);
    assert_eq!(one.records("secret").await.unwrap(), other.records("secret").await.unwrap());
    assert_eq!(one.audit(0, u32::MAX).await.unwrap(), other.audit(0, u32::MAX).await.unwrap());
}

#[tokio::test]
async fn everything_moves_from_either_engine_to_either_engine() {
    let (_from_place, from) = fresh(Engine::Sqlite).await;
    fill(&from).await;
    let file = dumped(&from).await;
    let (_middle_place, middle) = fresh(Engine::Postgres).await;
    let header = middle.load(&mut file.as_slice(), false).await.unwrap();
    assert_eq!(Revision(header.revision), from.revision().await.unwrap());
    same(&from, &middle).await;
    assert_eq!(dumped(&middle).await, file, "both engines dump the same");
    let (_end_place, end) = fresh(Engine::Sqlite).await;
    end.load(&mut file.as_slice(), false).await.unwrap();
    same(&from, &end).await;
    // Life goes on where it stood: the next revision, the next number, the next link of the trail.
    let next = put(&end, &object("Policy", "/a", "y", 1)).await;
    assert_eq!(next.metadata.revision, Some(Revision(header.revision + 1)));
    let mut watch = end.watch(Revision(header.revision - 1));
    assert_eq!(watch.next().await.unwrap().revision, Revision(header.revision));
    let mut verifier = Verifier::default();
    end.audit(0, u32::MAX).await.unwrap().iter().for_each(|record| drop(verifier.check(record).unwrap()));
}

#[tokio::test]
async fn a_restore_goes_on_beyond_what_anybody_may_have_seen() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let (_place, from) = fresh(engine).await;
        fill(&from).await;
        let file = dumped(&from).await;
        let place = Place::new(engine);
        let restored = place.open().await;
        let header = restored.load(&mut file.as_slice(), true).await.unwrap();
        same(&from, &restored).await;
        assert_eq!(restored.revision().await.unwrap(), Revision(header.revision + LEAP));
        let mut watch = restored.watch(Revision(header.revision));
        assert!(watch.next().await.is_err(), "whoever watched starts over");
        let next = put(&restored, &object("Policy", "/a", "y", 1)).await;
        assert_eq!(next.metadata.revision, Some(Revision(header.revision + LEAP + 1)));
    }
}

#[tokio::test]
async fn what_is_not_whole_or_not_wanted_changes_nothing() {
    let (_place, from) = fresh(Engine::Sqlite).await;
    fill(&from).await;
    let file = dumped(&from).await;
    assert!(matches!(from.load(&mut file.as_slice(), true).await, Err(DumpError::NotEmpty)));
    let (_place, store) = fresh(Engine::Postgres).await;
    let half = &file[..file.len() / 2];
    let mut altered = file.clone();
    let place = altered.windows(3).position(|part| part == b"ada").unwrap();
    altered[place] = b'e';
    let text = b"kind: Policy\n".as_slice();
    for bad in [half, &altered, text, b""] {
        let refused = store.load(&mut &*bad, true).await;
        assert!(matches!(refused, Err(DumpError::Damaged(_))), "{refused:?}");
        assert_eq!(store.revision().await.unwrap(), Revision(0));
        assert_eq!(store.list(&Filter::default()).await.unwrap().0, []);
    }
    let newer = String::from_utf8(file).unwrap().replacen("\"format\":1", "\"format\":2", 1);
    assert!(matches!(store.load(&mut newer.as_bytes(), true).await, Err(DumpError::Newer(2))));
}

#[tokio::test]
async fn a_dump_is_of_one_moment_while_others_write() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let (_place, store) = fresh(engine).await;
        fill(&store).await;
        let writing = store.clone();
        let writer = tokio::spawn(async move {
            for number in 0..50 {
                put(&writing, &object("Policy", "/z", "a", number)).await;
                put(&writing, &object("Policy", "/z", "b", number)).await;
            }
        });
        for _ in 0..3 {
            let file = dumped(&store).await;
            let (_place, copy) = fresh(Engine::Sqlite).await;
            let header = copy.load(&mut file.as_slice(), false).await.unwrap();
            let newest =
                copy.list(&Filter::default()).await.unwrap().0.iter().filter_map(|o| o.metadata.revision).max();
            assert_eq!(newest, Some(Revision(header.revision)));
        }
        writer.await.unwrap();
    }
}
