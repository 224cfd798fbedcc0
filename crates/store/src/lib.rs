//! Documents with revisions and a change feed that can be resumed, on SQLite or PostgreSQL.
//!
//! Every acknowledged write survives `kill -9` of this process and of the database. What documents mean is not known
//! here. Start at [`Store`]; writes go through [`Transaction`], changes come out of [`watch::Watch`]. Both engines run
//! the same statements ([`sql`]) and the same tests; ADR 0007 and `docs/book/database.md` say why and within what.

#![forbid(unsafe_code)]

pub mod audit;
pub mod document;
pub mod dump;
pub mod error;
mod feed;
pub mod intern;
pub mod lease;
pub mod migrate;
pub mod page;
mod postgres;
pub mod record;
mod sql;
mod sqlite;
pub mod url;
pub mod watch;

use std::sync::Arc;

use api::object::Revision;
use tokio::task::JoinSet;

pub use crate::error::StoreError;
use crate::feed::Tail;
use crate::lease::{HoldError, Lease};
use crate::postgres::publish;
use crate::sql::{Link, Reader, Value, answered};
use crate::url::StoreUrl;

/// How many changes are kept for watchers to resume.
pub const CHANGES_KEPT: i64 = 100_000;

/// One database.
///
/// One writer at a time, in order, among all processes that share it; readers see the last committed state and never
/// wait. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
    /// Every write of this handle holds it.
    fence: Option<Arc<Lease>>,
}

#[derive(Debug)]
struct Inner {
    engine: Engine,
    head: tokio::sync::watch::Sender<Revision>,
    tail: Arc<Tail>,
    kept: i64,
    /// Ends with the store.
    _keeper: JoinSet<()>,
}

#[derive(Debug)]
enum Engine {
    Sqlite(sqlite::Pools),
    Postgres(Arc<postgres::Database>),
}

/// The one row of `head`, as a writing transaction found it.
#[derive(Clone, Copy, Debug)]
struct Head {
    revision: i64,
    floor: i64,
    sequence: i64,
    forgotten: i64,
}

impl Store {
    /// Opens the database and brings its schema up to date. A SQLite file is made if it is missing.
    ///
    /// Errors: [`StoreError::Unavailable`] if a PostgreSQL database does not answer; [`StoreError::Collation`] if it
    /// does not sort by bytes.
    pub async fn open(url: &StoreUrl) -> Result<Self, StoreError> {
        Self::open_keeping(url, CHANGES_KEPT).await
    }

    /// The same, with another number of changes kept for watchers.
    pub async fn open_keeping(url: &StoreUrl, kept: i64) -> Result<Self, StoreError> {
        let engine = open_engine(url, migrate::LATEST).await?;
        let start = head(engine.reader().await?.link()).await?;
        let sender = tokio::sync::watch::Sender::new(start);
        let tail = Arc::new(Tail::new(start));
        let mut keeper = JoinSet::new();
        if let Engine::Postgres(database) = &engine {
            let forgotten = Arc::clone(&tail);
            keeper.spawn(postgres::keep(Arc::clone(database), sender.clone(), move || forgotten.forget()));
        }
        Ok(Self { inner: Arc::new(Inner { engine, head: sender, tail, kept, _keeper: keeper }), fence: None })
    }

    /// The revision of the last committed write; 0 before the first.
    pub async fn revision(&self) -> Result<Revision, StoreError> {
        head(self.reader().await?.link()).await
    }

    /// Tells of every commit, by whichever process. A nudge: what was committed is read from the store.
    pub fn commits(&self) -> tokio::sync::watch::Receiver<Revision> {
        self.inner.head.subscribe()
    }

    /// Whether the database answers. At once: what is known of a PostgreSQL database is a few seconds old at most.
    pub async fn check(&self) -> Result<(), StoreError> {
        match &self.inner.engine {
            Engine::Sqlite(_) => self.revision().await.map(drop),
            Engine::Postgres(database) if database.is_reachable() => Ok(()),
            Engine::Postgres(_) => {
                let gone = std::io::Error::new(std::io::ErrorKind::NotConnected, "trying to reach it again");
                Err(StoreError::Unavailable(gone.into()))
            }
        }
    }

    /// The same database for writing under a lease: every transaction holds it until it ends, so that who has lost the
    /// lease, even without knowing, writes nothing more.
    pub fn under(&self, lease: Lease) -> Self {
        Self { inner: Arc::clone(&self.inner), fence: Some(Arc::new(lease)) }
    }

    /// Begins a write. Waits until the write before it has ended; dropped without commit, it leaves nothing behind.
    ///
    /// Errors: [`StoreError::LeaseLost`] if this handle is [under](Store::under) a lease that has ended.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        let (inner, head) = match &self.inner.engine {
            Engine::Sqlite(pools) => {
                let mut begun = Writing::Sqlite(pools.writer.begin_with("BEGIN IMMEDIATE").await?);
                let head = read_head(begun.link(), HEAD).await?;
                (begun, head)
            }
            Engine::Postgres(database) => {
                // Held until the end: all writers of all processes queue here, and see what those before them wrote.
                let lock = |transaction| async move {
                    let mut begun = Writing::Postgres(transaction);
                    let head = read_head(begun.link(), LOCKED_HEAD).await?;
                    Ok((begun, head))
                };
                database.begin(lock).await?
            }
        };
        let store = self.clone();
        let mut begun = Transaction { inner, sequence: head.sequence, head, revision: None, acting: None, store };
        if let Some(lease) = &self.fence {
            begun.hold(lease).await.map_err(|error| match error {
                HoldError::Lost(name) => StoreError::LeaseLost(name),
                HoldError::Store(cause) => cause,
            })?;
        }
        Ok(begun)
    }

    /// Ends all connections; SQLite writes its log back into the file.
    pub async fn close(&self) {
        match &self.inner.engine {
            Engine::Sqlite(pools) => pools.close().await,
            Engine::Postgres(database) => database.close().await,
        }
    }

    async fn reader(&self) -> Result<Reader, StoreError> {
        self.inner.engine.reader().await
    }
}

impl Engine {
    async fn reader(&self) -> Result<Reader, StoreError> {
        Ok(match self {
            Self::Sqlite(pools) => Reader::Sqlite(pools.readers.acquire().await?),
            Self::Postgres(database) => Reader::Postgres(answered(database.pools().readers.acquire()).await?),
        })
    }
}

async fn open_engine(url: &StoreUrl, version: i64) -> Result<Engine, StoreError> {
    Ok(match url {
        StoreUrl::Sqlite(path) => Engine::Sqlite(sqlite::Pools::open(path, version).await?),
        StoreUrl::Postgres(url) => Engine::Postgres(Arc::new(postgres::Database::open(url.clone(), version).await?)),
    })
}

const HEAD: &str = "SELECT revision, floor, sequence, forgotten FROM head WHERE id = 1";
const LOCKED_HEAD: &str = "SELECT revision, floor, sequence, forgotten FROM head WHERE id = 1 FOR UPDATE";

async fn read_head(mut link: Link<'_>, sql: &'static str) -> Result<Head, StoreError> {
    let row = link.one(sql, &[]).await?;
    Ok(Head { revision: row.int(0), floor: row.int(1), sequence: row.int(2), forgotten: row.int(3) })
}

async fn head(mut link: Link<'_>) -> Result<Revision, StoreError> {
    let row = link.one("SELECT revision FROM head WHERE id = 1", &[]).await?;
    Ok(Revision(row.int(0).unsigned_abs()))
}

/// A write in progress: any number of documents, records and interned strings, committed together or not at all.
#[derive(Debug)]
pub struct Transaction {
    inner: Writing,
    head: Head,
    /// The number of the last change.
    sequence: i64,
    /// Taken at the first change of a document.
    revision: Option<Revision>,
    /// Whom it acts for, where somebody does.
    acting: Option<audit::Acting>,
    store: Store,
}

#[derive(Debug)]
enum Writing {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl Writing {
    fn link(&mut self) -> Link<'_> {
        match self {
            Self::Sqlite(transaction) => Link::Sqlite(transaction),
            Self::Postgres(transaction) => Link::Postgres(transaction),
        }
    }

    async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(transaction) => Ok(transaction.commit().await?),
            Self::Postgres(transaction) => {
                match tokio::time::timeout(sql::ANSWER_TIMEOUT, transaction.commit()).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(cause)) => Err(StoreError::of_commit(cause)),
                    Err(_) => Err(StoreError::OutcomeUnknown(None)),
                }
            }
        }
    }
}

impl Transaction {
    fn link(&mut self) -> Link<'_> {
        self.inner.link()
    }

    /// The revision of this write's changes. Taken at the first call; one for the whole transaction.
    ///
    /// It is this transaction's alone: the head is locked until the end, and is written with the commit.
    pub async fn revision(&mut self) -> Result<Revision, StoreError> {
        let next = Revision((self.head.revision + 1).unsigned_abs());
        Ok(*self.revision.get_or_insert(next))
    }

    /// Makes it durable and tells watchers. The revision of its changes; the head's if it changed no document.
    ///
    /// Errors: [`StoreError::OutcomeUnknown`] if the connection was lost meanwhile; any other means that nothing was
    /// written.
    pub async fn commit(mut self) -> Result<Revision, StoreError> {
        let before = self.head.revision;
        let Some(revision) = self.revision else {
            // A transaction in which a statement failed is refused here; its COMMIT would roll back without a word.
            let now = head(self.link()).await?;
            self.inner.commit().await?;
            return Ok(now);
        };
        let kept = self.store.inner.kept;
        watch::forget(&mut self, kept).await?;
        let notifies = matches!(&self.store.inner.engine, Engine::Postgres(database) if database.notifies);
        let sql = if notifies { MOVE_HEAD_AND_NOTIFY } else { MOVE_HEAD };
        let values = [document::as_i64(revision), self.head.floor, self.sequence, self.head.forgotten, before];
        if self.link().execute(sql, &values.map(Value::Int)).await? != 1 {
            return Err(StoreError::Overtaken);
        }
        self.inner.commit().await?;
        publish(&self.store.inner.head, revision);
        Ok(revision)
    }
}

/// Only from where this transaction found it, whatever an engine's locks are worth.
const MOVE_HEAD: &str = "UPDATE head SET revision = $1, floor = $2, sequence = $3, forgotten = $4 \
                         WHERE id = 1 AND revision = $5";
const MOVE_HEAD_AND_NOTIFY: &str = "UPDATE head SET revision = $1, floor = $2, sequence = $3, forgotten = $4 \
                                    WHERE id = 1 AND revision = $5 RETURNING pg_notify('stolos', '')";
