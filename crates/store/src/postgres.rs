//! What is PostgreSQL's own: pools that follow the primary, and the keeper, which watches the head.
//!
//! The keeper has a connection of its own. It reads the head at least every [`POLL`], at once when a notification says
//! that something was committed; it is the one that notices that the database is gone, finds the host that takes writes,
//! and gives everybody fresh pools. A notification is a nudge only: nothing depends on its arrival.

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use api::object::Revision;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions};
use sqlx::{Executor as _, Row as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::url::PostgresUrl;
use crate::{StoreError, migrate};

/// Writers of one process. The database lets one through at a time; the other one waits at the door already.
const WRITERS: u32 = 2;
/// Readers of one process.
const READERS: u32 = 8;
/// Looks at the head at least this often.
const POLL: Duration = Duration::from_millis(50);
/// Waits so long for the head before the database counts as gone.
const POLL_TIMEOUT: Duration = Duration::from_secs(3);
/// Waits so long for one host to let us in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Waits so long for a free connection, or for the database to come back.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A write waits so long to begin: behind other writers, or for the database to come back.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Pauses between two tries to reach the database.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The database drops a writer that neither asks nor ends for so long: a process that froze must not hold all others.
const SESSION: &str = "SET statement_timeout = '30s'; SET lock_timeout = '10s'; \
                       SET idle_in_transaction_session_timeout = '15s'";
/// The channel of notifications.
const CHANNEL: &str = "stolos";

/// Connections to the host that takes writes.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    pub(crate) writer: PgPool,
    pub(crate) readers: PgPool,
}

/// One database, wherever its primary is.
#[derive(Debug)]
pub(crate) struct Database {
    url: PostgresUrl,
    pools: RwLock<Pools>,
    /// Whether the keeper reaches it.
    reachable: watch::Sender<bool>,
    /// Whether it knows notifications.
    pub(crate) notifies: bool,
}

impl Database {
    /// Finds the primary and brings the schema to a version.
    pub(crate) async fn open(url: PostgresUrl, version: i64) -> Result<Self, StoreError> {
        let (options, mut connection) = find_primary(&url).await?;
        sorts_by_bytes(&mut connection).await?;
        let notifies = sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(&mut connection).await.is_ok();
        drop(connection);
        let pools = connect_lazily(options);
        migrate::postgres(&pools.writer, version).await?;
        Ok(Self { url, pools: RwLock::new(pools), reachable: watch::Sender::new(true), notifies })
    }

    pub(crate) fn pools(&self) -> Pools {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As far as the keeper knows, which is not older than [`POLL_TIMEOUT`].
    pub(crate) fn is_reachable(&self) -> bool {
        *self.reachable.borrow()
    }

    pub(crate) async fn close(&self) {
        let Pools { writer, readers } = self.pools();
        readers.close().await;
        writer.close().await;
    }

    /// Begins a transaction. Nothing was asked of it yet, so that a lost connection is simply tried again.
    pub(crate) async fn begin<T, F>(
        &self,
        prepare: impl Fn(sqlx::Transaction<'static, sqlx::Postgres>) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let deadline = Instant::now() + BEGIN_TIMEOUT;
        let mut pause = BACKOFF.0;
        loop {
            let begun = async {
                let statement = "BEGIN ISOLATION LEVEL READ COMMITTED";
                let transaction = crate::sql::answered(self.pools().writer.begin_with(statement)).await?;
                prepare(transaction).await
            };
            match begun.await {
                Err(error) if error.is_temporary() && Instant::now() + pause < deadline => sleep(pause).await,
                begun => return begun,
            }
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    fn replace_pools(&self, pools: Pools) {
        let old = std::mem::replace(&mut *self.pools.write().unwrap_or_else(PoisonError::into_inner), pools);
        // Whoever works with an old connection ends by himself; nobody gets one any more.
        drop((old.writer.close(), old.readers.close()));
    }
}

/// Watches the head and the database until it is aborted.
pub(crate) async fn keep(database: Arc<Database>, head: watch::Sender<Revision>, forget: impl Fn() + Send) {
    let mut pause = BACKOFF.0;
    loop {
        let cause = match listen(&database).await {
            Ok(mut listener) => {
                pause = BACKOFF.0;
                follow(&mut listener, &database, &head, &forget).await
            }
            Err(cause) => cause,
        };
        if database.reachable.send_replace(false) {
            warn!(error = &cause as &dyn std::error::Error, "the database is gone; trying to reach it");
        }
        sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// A connection to the primary that hears notifications, and pools to it for everybody if it had been lost.
async fn listen(database: &Database) -> Result<PgListener, StoreError> {
    let (options, connection) = find_primary(&database.url).await?;
    drop(connection);
    let own = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT_TIMEOUT).idle_timeout(None);
    let own = own.max_lifetime(None).connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&own).await?;
    listener.eager_reconnect(false);
    if database.notifies {
        listener.listen(CHANNEL).await?;
    }
    if !database.is_reachable() {
        database.replace_pools(connect_lazily(options));
        info!("the database is back");
    }
    Ok(listener)
}

/// Reads the head again and again, until that fails.
async fn follow(
    listener: &mut PgListener,
    database: &Database,
    head: &watch::Sender<Revision>,
    forget: &(impl Fn() + Send),
) -> StoreError {
    loop {
        let known = *head.borrow();
        let asked = sqlx::query("SELECT revision FROM head WHERE id = 1").fetch_one(&mut *listener);
        let found = match timeout(POLL_TIMEOUT, asked).await {
            Ok(Ok(row)) => Revision(row.get::<i64, _>(0).unsigned_abs()),
            Ok(Err(cause)) => return cause.into(),
            Err(_) => return StoreError::Silent(POLL_TIMEOUT),
        };
        database.reachable.send_if_modified(|known| !std::mem::replace(known, true));
        if found < known {
            // Committed before we asked, and not there: this is another history, such as a restored backup.
            error!(%known, %found, "the database went back to an earlier revision; watchers start over");
            forget();
            head.send_replace(found);
        }
        publish(head, found);
        match timeout(POLL, listener.try_recv()).await {
            Ok(Ok(None)) => {
                return StoreError::Unavailable(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()));
            }
            Ok(Err(cause)) => return cause.into(),
            // Several at once are one nudge.
            Ok(Ok(Some(_))) => while listener.next_buffered().is_some() {},
            Err(_) => {}
        }
    }
}

/// The head is at least there.
pub(crate) fn publish(head: &watch::Sender<Revision>, revision: Revision) {
    head.send_if_modified(|head| {
        let newer = revision > *head;
        *head = revision.max(*head);
        newer
    });
}

fn connect_lazily(options: PgConnectOptions) -> Pools {
    let pool = |size| {
        let pool = PgPoolOptions::new().max_connections(size).acquire_timeout(ACQUIRE_TIMEOUT);
        let pool = pool.after_connect(|connection, _| Box::pin(prepare(connection)));
        pool.connect_lazy_with(options.clone())
    };
    Pools { writer: pool(WRITERS), readers: pool(READERS) }
}

/// The first host that takes writes; else what the last one said.
async fn find_primary(url: &PostgresUrl) -> Result<(PgConnectOptions, PgConnection), StoreError> {
    let mut last = StoreError::Unavailable(sqlx::Error::PoolTimedOut);
    for options in url.hosts() {
        let connected = async {
            let mut connection = <PgConnection as sqlx::Connection>::connect_with(options).await?;
            prepare(&mut connection).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        match timeout(CONNECT_TIMEOUT, connected).await {
            Ok(Ok(connection)) => return Ok((options.clone(), connection)),
            Ok(Err(cause)) => last = cause.into(),
            Err(_) => last = StoreError::Silent(CONNECT_TIMEOUT),
        }
    }
    Err(last)
}

/// Sets the limits of a session; refuses a host that takes no writes.
async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    connection.execute(SESSION).await?;
    // What was acknowledged is on disk, even where the database's own default is laxer.
    let durable = "SELECT set_config('synchronous_commit', 'on', false) \
                   WHERE current_setting('synchronous_commit', true) = 'off'";
    connection.execute(durable).await?;
    let row = connection.fetch_one("SELECT current_setting('transaction_read_only')").await?;
    match row.get::<&str, _>(0) {
        "on" => Err(sqlx::Error::Io(std::io::Error::other("the host is a standby, which takes no writes"))),
        _ => Ok(()),
    }
}

async fn sorts_by_bytes(connection: &mut PgConnection) -> Result<(), StoreError> {
    let asked = "SELECT CAST(('B' < 'a') AND ('a-z' < 'ab') AND ('a/' < 'a0') \
                 AND current_setting('server_encoding') IN ('UTF8', 'UTF-8') AS INT)";
    let row = connection.fetch_one(asked).await?;
    match row.get::<i32, _>(0) {
        1 => Ok(()),
        _ => Err(StoreError::Collation),
    }
}
