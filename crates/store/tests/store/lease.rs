//! Leases: one holder at a time, and none that writes after it lost its lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use store::StoreError;
use store::lease::HoldError;

use crate::{Engine, LIMIT, fresh};

crate::on_both! {
    one_holder_at_a_time
    a_lapsed_lease_is_fenced_off
    a_handle_under_a_lost_lease_writes_nothing
    a_job_runs_with_one_process_and_moves_when_that_one_ends
}

const LONG: Duration = Duration::from_secs(60);
/// Over by the database's clock when it is asked the next time.
const LAPSED: Duration = Duration::ZERO;

async fn one_holder_at_a_time(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    let first = store.lease("sweep", "a", LONG).await.unwrap().expect("nobody has it");
    assert_eq!(store.lease("sweep", "b", LONG).await.unwrap(), None);
    let renewed = store.lease("sweep", "a", LONG).await.unwrap().expect("renewed");
    assert_eq!((renewed.fence(), first.fence()), (1, 1));
    assert!(renewed.until() >= first.until());
    assert!(store.lease("other", "b", LONG).await.unwrap().is_some(), "another name is another lease");
    store.release(renewed).await.unwrap();
    let next = store.lease("sweep", "b", LONG).await.unwrap().expect("it was given back");
    assert_eq!(next.fence(), 2);
}

async fn a_lapsed_lease_is_fenced_off(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    let old = store.lease("sweep", "a", LAPSED).await.unwrap().expect("nobody has it");
    let new = store.lease("sweep", "b", LONG).await.unwrap().expect("it has lapsed");
    assert!(new.fence() > old.fence());
    let mut write = store.begin().await.unwrap();
    assert!(matches!(write.hold(&old).await, Err(HoldError::Lost(_))));
    drop(write);
    let mut write = store.begin().await.unwrap();
    write.hold(&new).await.unwrap();
    write.put_record("job", "done", b"b").await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(store.lease("sweep", "a", LONG).await.unwrap(), None);
}

async fn a_handle_under_a_lost_lease_writes_nothing(engine: Engine) {
    let (_place, store) = fresh(engine).await;
    assert_eq!(store.holder("serving").await.unwrap(), None);
    let lease = store.lease("serving", "a", LONG).await.unwrap().expect("nobody has it");
    assert_eq!(store.holder("serving").await.unwrap().as_deref(), Some("a"));
    let fenced = store.under(lease.clone());
    let mut write = fenced.begin().await.unwrap();
    write.put_record("job", "done", b"a").await.unwrap();
    write.commit().await.unwrap();
    store.release(lease).await.unwrap();
    assert_eq!(store.holder("serving").await.unwrap(), None);
    assert!(matches!(fenced.begin().await, Err(StoreError::LeaseLost(_))));
    store.lease("serving", "b", LONG).await.unwrap().expect("it was given back");
    assert!(matches!(fenced.begin().await, Err(StoreError::LeaseLost(_))));
    assert_eq!(fenced.record("job", "done").await.unwrap().as_deref(), Some(&b"a"[..]), "it reads on");
}

async fn a_job_runs_with_one_process_and_moves_when_that_one_ends(engine: Engine) {
    const TIME: Duration = Duration::from_millis(600);
    let (_place, store) = fresh(engine).await;
    let (running, tenures) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (tell, mut told) = tokio::sync::mpsc::channel(16);
    let mut processes = std::collections::BTreeMap::new();
    for holder in ["a", "b", "c"] {
        let (store, running, tenures, tell) = (store.clone(), running.clone(), tenures.clone(), tell.clone());
        let job = move |_| {
            let (running, tenures, tell) = (running.clone(), tenures.clone(), tell.clone());
            async move {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                let _left = Left(running);
                tenures.fetch_add(1, Ordering::SeqCst);
                tell.send(holder).await.unwrap();
                std::future::pending::<()>().await;
            }
        };
        let process = async move { store.while_leased("job", holder, TIME, job).await };
        processes.insert(holder, tokio::spawn(process));
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let holder = tokio::time::timeout(LIMIT, told.recv()).await.unwrap().unwrap();
        seen.push(holder);
        // It dies without giving the lease back; the next one waits for its end.
        processes.remove(holder).expect("a process that was alive").abort();
    }
    seen.sort_unstable();
    assert_eq!((seen, tenures.load(Ordering::SeqCst)), (vec!["a", "b", "c"], 3));
}

/// Counts a job out, however it ends.
struct Left(Arc<AtomicU32>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
