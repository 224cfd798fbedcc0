//! The audit trail: every act of somebody, in order, with its hash; no act of nobody.

use api::audit::{Actor, AuditEntry, AuditRecord, BrokenTrail, Verifier};
use api::object::{ObjectKey, Revision};
use jiff::Timestamp;
use serde_json::json;
use store::Store;
use store::document::Precondition;

use crate::{Engine, fresh, object, put};

crate::on_both! {
    every_act_is_in_the_trail_with_before_and_after
    what_nobody_did_or_nothing_changed_is_no_act
    an_act_is_there_if_and_only_if_its_write_is
    acts_of_many_writers_make_one_trail
}

fn ada() -> Actor {
    Actor { name: "ada".into(), credential: "certificate".into(), from: "192.0.2.7".parse().ok() }
}

async fn trail(store: &Store) -> Vec<AuditEntry> {
    let mut verifier = Verifier::default();
    let records = store.audit(0, u32::MAX).await.unwrap();
    records.iter().map(|record| verifier.check(record).expect("the trail holds")).collect()
}

async fn every_act_is_in_the_trail_with_before_and_after(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    let key = ObjectKey::new("Policy", "/a", "x");
    for number in [1, 2] {
        let mut write = store.begin().await.unwrap();
        write.act_as(ada(), Timestamp::UNIX_EPOCH);
        write.put(&object("Policy", "/a", "x", number), Precondition::None, Timestamp::UNIX_EPOCH).await.unwrap();
        write.commit().await.unwrap();
    }
    let mut write = store.begin().await.unwrap();
    write.act_as(ada(), Timestamp::UNIX_EPOCH);
    write.delete(&key, Precondition::None).await.unwrap();
    write.note("token.created", &key, Some(json!({"ttl": 60}))).await.unwrap();
    write.commit().await.unwrap();
    let trail = trail(&store).await;
    let acts: Vec<_> = trail.iter().map(|e| (e.sequence, e.action.as_str(), e.revision)).collect();
    let at = |revision| Some(Revision(revision));
    assert_eq!(acts, [(1, "created", at(1)), (2, "updated", at(2)), (3, "deleted", at(3)), (4, "token.created", None)]);
    assert!(trail.iter().all(|entry| entry.by == ada() && entry.object == key));
    let number = |object: &Option<Box<api::object::Object>>| object.as_ref().map(|object| object.spec.clone());
    assert_eq!(number(&trail[1].before), number(&trail[0].after));
    assert_ne!(number(&trail[1].after), number(&trail[1].before));
    assert_eq!((number(&trail[2].before), &trail[2].after), (number(&trail[1].after), &None));
    assert_eq!(store.audit_end().await.unwrap(), 4);
    assert_eq!(store.audit(1, 2).await.unwrap().len(), 2);
}

async fn what_nobody_did_or_nothing_changed_is_no_act(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    let first = put(&store, &object("Policy", "/a", "x", 1)).await;
    let mut write = store.begin().await.unwrap();
    write.act_as(ada(), Timestamp::UNIX_EPOCH);
    write.put(&first, Precondition::None, Timestamp::UNIX_EPOCH).await.unwrap();
    let mut reported = first.clone();
    reported.status = Some(json!({"state": "live"}));
    write.put(&reported, Precondition::None, Timestamp::UNIX_EPOCH).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(trail(&store).await, []);
}

async fn an_act_is_there_if_and_only_if_its_write_is(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    let mut write = store.begin().await.unwrap();
    write.act_as(ada(), Timestamp::UNIX_EPOCH);
    write.put(&object("Policy", "/a", "x", 1), Precondition::None, Timestamp::UNIX_EPOCH).await.unwrap();
    drop(write);
    assert_eq!(store.audit(0, 10).await.unwrap(), Vec::<AuditRecord>::new());
    assert_eq!(store.revision().await.unwrap(), Revision(0));
}

async fn acts_of_many_writers_make_one_trail(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..5 {
                let mut write = store.begin().await.unwrap();
                write.act_as(ada(), Timestamp::UNIX_EPOCH);
                let object = object("Policy", "/a", &format!("p{writer}"), number);
                write.put(&object, Precondition::None, Timestamp::UNIX_EPOCH).await.unwrap();
                write.commit().await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let trail = trail(&store).await;
    assert_eq!(trail.len(), 40);
    assert!(trail.is_sorted_by_key(|entry| entry.revision));
    let mut records = store.audit(0, 100).await.unwrap();
    records.remove(20);
    let mut verifier = Verifier::default();
    let broken = records.iter().try_for_each(|record| verifier.check(record).map(drop));
    assert_eq!(broken, Err(BrokenTrail::Gap { expected: 21, found: 22 }));
}
