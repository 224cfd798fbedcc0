//! What only a database that others share, and that can go away, can show.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use api::object::{ObjectKey, Revision};
use jiff::Timestamp;
use pgtest::{Cluster, Sort, Stop};
use store::document::Precondition;
use store::{Store, StoreError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::{Engine, LIMIT, Place, object, put};

async fn open(url: &str) -> Result<Store, StoreError> {
    Store::open(&url.parse().unwrap()).await
}

/// An error with all its causes, as a log shows it.
fn chain(error: &dyn Error) -> String {
    let cause = error.source().map(|cause| format!(": {}", chain(cause))).unwrap_or_default();
    format!("{error} {error:?}{cause}")
}

/// How long a write through one process takes to reach a watcher of another, each of a few times.
async fn delays(writer: &Store, reader: &Store) -> Vec<Duration> {
    let mut watch = reader.watch(reader.revision().await.unwrap());
    let mut delays = Vec::new();
    for value in 0..30 {
        put(writer, &object("Policy", "/a", "x", value)).await;
        let written = Instant::now();
        tokio::time::timeout(LIMIT, watch.next()).await.unwrap().unwrap();
        delays.push(written.elapsed());
    }
    delays.sort();
    delays
}

#[tokio::test]
async fn a_write_through_one_process_reaches_watchers_of_another() {
    let place = Place::new(Engine::Postgres);
    let delays = delays(&place.open().await, &place.open().await).await;
    println!("with notifications: median {:?}, worst {:?}", delays[15], delays[29]);
    assert!(delays[29] < Duration::from_secs(2));
}

/// A database that knows no notifications, as distributed ones do not: `pg_notify` fails, and nothing else does.
#[tokio::test]
async fn polling_alone_is_enough() {
    let place = Place::new(Engine::Postgres);
    let database = place.url.rsplit_once('/').unwrap().1;
    let without = "CREATE SCHEMA without; CREATE FUNCTION without.pg_notify(text, text) RETURNS void LANGUAGE plpgsql \
                   AS $$ BEGIN RAISE feature_not_supported; END $$";
    pgtest::shared().psql(database, without).unwrap();
    let url = format!("{}?options=-c%20search_path%3Dpublic,without,pg_catalog", place.url);
    let (writer, reader) = (open(&url).await.unwrap(), open(&url).await.unwrap());
    let delays = delays(&writer, &reader).await;
    println!("without notifications: median {:?}, worst {:?}", delays[15], delays[29]);
    assert!(delays[29] < Duration::from_secs(2));
    assert!(delays[15] > Duration::from_millis(1), "notifications were not off: {delays:?}");
}

/// The database is killed and restarted under writers: what was acknowledged is there, the watcher goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_loses_nothing_and_everybody_comes_back() {
    let cluster = tokio::task::spawn_blocking(|| Cluster::start().unwrap()).await.unwrap();
    let url = cluster.database(Sort::Bytes).unwrap();
    let (writer, reader) = (open(&url).await.unwrap(), open(&url).await.unwrap());
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let watching = tokio::spawn(collect(reader.clone()));
    let writing = tokio::spawn(write_on(writer.clone(), stop.clone(), acknowledged.clone()));
    for how in [Some(Stop::Immediate), None, Some(Stop::Fast)] {
        wait_for_more(&acknowledged).await;
        let down = async || match how {
            Some(how) => cluster.stop(how).unwrap(),
            None => cluster.kill().unwrap(),
        };
        down().await;
        until(async || writer.check().await.is_err() && reader.check().await.is_err()).await;
        // Its other processes end by themselves after a kill; until then it does not start.
        until(async || cluster.start_again().is_ok()).await;
        until(async || writer.check().await.is_ok() && reader.check().await.is_ok()).await;
    }
    wait_for_more(&acknowledged).await;
    stop.store(true, Ordering::Relaxed);
    let written = writing.await.unwrap();
    for name in &written {
        assert!(reader.get(&ObjectKey::new("Policy", "/a", name)).await.unwrap().is_some(), "{name} is lost");
    }
    put(&writer, &object("End", "/a", "end", 0)).await;
    let seen = watching.await.unwrap();
    let missed: Vec<_> = written.iter().filter(|name| !seen.contains(*name)).collect();
    assert!(missed.is_empty(), "the watcher missed {missed:?}");
    println!("{} writes acknowledged through three restarts", written.len());
}

/// Writes until told to stop; the names of what was acknowledged.
async fn write_on(store: Store, stop: Arc<AtomicBool>, count: Arc<AtomicU32>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for value in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let object = object("Policy", "/a", &format!("p{value}"), value);
        let written = async {
            let mut write = store.begin().await?;
            write.put(&object, Precondition::None, Timestamp::UNIX_EPOCH).await.map_err(|e| match e {
                store::document::WriteError::Store(cause) => cause,
                other => panic!("{other}"),
            })?;
            write.commit().await
        };
        match written.await {
            Ok(_) => {
                acknowledged.push(object.metadata.name.clone());
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => assert!(error.is_temporary() || error.is_unknown(), "{}", chain(&error)),
        }
    }
    acknowledged
}

/// Every document that a watch shows until the kind `End` comes. Revisions come once and in order.
async fn collect(store: Store) -> BTreeSet<String> {
    let (mut watch, mut last, mut names) = (store.watch(Revision(0)), Revision(0), BTreeSet::new());
    loop {
        let commit = tokio::time::timeout(LIMIT * 2, watch.next()).await.unwrap().unwrap();
        assert_eq!(commit.revision, Revision(last.0 + 1), "a gap or a duplicate");
        last = commit.revision;
        for change in &commit.changes {
            if let store::watch::Change::Put(object) = change {
                if object.kind == "End" {
                    return names;
                }
                names.insert(object.metadata.name.clone());
            }
        }
    }
}

async fn wait_for_more(count: &AtomicU32) {
    let before = count.load(Ordering::Relaxed);
    until(async || count.load(Ordering::Relaxed) > before + 20).await;
}

async fn until(holds: impl AsyncFn() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, waited).await.expect("it happens in time");
}

/// When the proxy cuts the connection that commits.
#[derive(Clone, Copy)]
enum Cut {
    /// The database never hears of it.
    Before,
    /// The database has committed, and its answer is lost.
    After,
}

/// A proxy that cuts the connection on which `COMMIT` is said, once it is armed.
async fn cutting_proxy(port: u16, cut: Cut, armed: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(relay(client, port, cut, armed.clone()));
        }
    });
    own
}

async fn relay(mut client: TcpStream, port: u16, cut: Cut, armed: Arc<AtomicBool>) {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut from_client, mut from_server) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(length @ 1..) = read else { return };
                let said = &from_client[..length];
                let commits = said.windows(6).any(|word| word == b"COMMIT") && armed.swap(false, Ordering::SeqCst);
                match (commits, cut) {
                    (true, Cut::Before) => return,
                    (true, Cut::After) => {
                        server.write_all(said).await.unwrap();
                        // Its answer is heard here, and nowhere else.
                        let _ = server.read(&mut from_server).await;
                        return;
                    }
                    (false, _) => server.write_all(said).await.unwrap(),
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(length @ 1..) = read else { return };
                client.write_all(&from_server[..length]).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_connection_lost_during_the_commit_is_told_as_unknown() {
    for (cut, there) in [(Cut::Before, false), (Cut::After, true)] {
        let cluster = pgtest::shared();
        let url = cluster.database(Sort::Bytes).unwrap();
        let armed = Arc::new(AtomicBool::new(false));
        let port = cutting_proxy(cluster.port(), cut, armed.clone()).await;
        let store = open(&url.replace(&format!(":{}/", cluster.port()), &format!(":{port}/"))).await.unwrap();
        let one = put(&store, &object("Policy", "/a", "before", 1)).await;
        let mut write = store.begin().await.unwrap();
        write.put(&object("Policy", "/a", "x", 1), Precondition::None, Timestamp::UNIX_EPOCH).await.unwrap();
        armed.store(true, Ordering::SeqCst);
        let error = write.commit().await.unwrap_err();
        assert!(error.is_unknown() && !error.is_temporary(), "{}", chain(&error));
        // Nothing else is harmed: the lock is free, and the truth is in the database.
        let found = store.get(&ObjectKey::new("Policy", "/a", "x")).await.unwrap();
        assert_eq!(found.is_some(), there);
        let after = put(&store, &object("Policy", "/a", "after", 1)).await;
        let expected = one.metadata.revision.unwrap().0 + if there { 2 } else { 1 };
        assert_eq!(after.metadata.revision, Some(Revision(expected)));
    }
}

#[tokio::test]
async fn a_database_that_sorts_by_a_language_is_refused() {
    let url = pgtest::shared().database(Sort::Language).unwrap();
    assert!(matches!(open(&url).await, Err(StoreError::Collation)));
}

#[tokio::test]
async fn a_host_that_takes_no_writes_is_passed_over() {
    let cluster = pgtest::shared();
    let url = cluster.database(Sort::Bytes).unwrap();
    let several = url.replace("@127.0.0.1:", "@127.0.0.1:1,127.0.0.1:");
    put(&open(&several).await.unwrap(), &object("Policy", "/a", "x", 1)).await;
    let database = url.rsplit_once('/').unwrap().1;
    let read_only = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    cluster.psql("postgres", &read_only).unwrap();
    assert!(matches!(open(&url).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_never_shown() {
    let cluster = pgtest::shared();
    let url = cluster.database(Sort::Bytes).unwrap();
    let store = open(&url).await.unwrap();
    assert!(!format!("{store:?}").contains(cluster.password()));
    let (before, after) = url.split_once("%2F").unwrap();
    let error = open(&format!("{before}wrong-secret{after}")).await.unwrap_err();
    assert!(chain(&error).contains("password authentication failed"), "{}", chain(&error));
    assert!(!chain(&error).contains("wrong-secret"), "{}", chain(&error));
}
