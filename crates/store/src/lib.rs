//! Documents with revisions and a change feed that can be resumed, on SQLite.
//!
//! Every acknowledged write survives `kill -9` (WAL, `synchronous = FULL`). What documents mean is not known here.
//! Start at [`Store`]; writes go through [`Transaction`], changes come out of [`watch::Watch`].

#![forbid(unsafe_code)]

pub mod document;
pub mod intern;
pub mod record;
pub mod watch;

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use api::object::Revision;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, Sqlite};

/// How long a connection waits for another process's write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Readers beside the one writer.
const READERS: u32 = 4;
/// How many changes are kept for watchers to resume.
pub const CHANGES_KEPT: i64 = 100_000;

/// One database.
///
/// One writer at a time, in order; readers see the last committed state and never wait. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
    head: tokio::sync::watch::Sender<Revision>,
    kept: i64,
}

/// What can go wrong with the database itself.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite says no: disk full, file damaged, locked by another process.
    #[error("the database cannot be used")]
    Database(#[source] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the database's schema cannot be brought up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A stored document is not what was written.
    #[error("the stored {0} cannot be read")]
    Damaged(String, #[source] serde_json::Error),
    /// A number space is used up.
    #[error("no numbers are left in {0}")]
    Exhausted(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl Store {
    /// Opens the database file, makes it if it is missing, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_keeping(path, CHANGES_KEPT).await
    }

    /// The same, with another number of changes kept for watchers.
    pub async fn open_keeping(path: &Path, kept: i64) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::from_str("sqlite:")?
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let writer = writer.connect_with(options.clone()).await?;
        sqlx::migrate!("./migrations").run(&writer).await.map_err(StoreError::Migrate)?;
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
        let head = tokio::sync::watch::Sender::new(head(&readers).await?);
        Ok(Self { writer, readers, head, kept })
    }

    /// The revision of the last committed write; 0 before the first.
    pub async fn revision(&self) -> Result<Revision, StoreError> {
        head(&self.readers).await
    }

    /// Tells of every commit. A nudge: what was committed is read from the store.
    pub fn commits(&self) -> tokio::sync::watch::Receiver<Revision> {
        self.head.subscribe()
    }

    /// Begins a write. Waits until the write before it has ended; dropped without commit, it leaves nothing behind.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        let inner = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Transaction { inner, revision: None, store: self.clone() })
    }

    /// Ends all connections; writes the log back into the database file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A write in progress: any number of documents, records and interned strings, committed together or not at all.
#[derive(Debug)]
pub struct Transaction {
    inner: sqlx::Transaction<'static, Sqlite>,
    /// Taken from the head at the first change of a document.
    revision: Option<Revision>,
    store: Store,
}

impl Transaction {
    /// The revision of this write's changes. Taken at the first call; one for the whole transaction.
    pub async fn revision(&mut self) -> Result<Revision, StoreError> {
        if let Some(revision) = self.revision {
            return Ok(revision);
        }
        let row = sqlx::query("UPDATE head SET revision = revision + 1 WHERE id = 1 RETURNING revision")
            .fetch_one(&mut *self.inner)
            .await?;
        let revision = Revision(row.get::<i64, _>(0).unsigned_abs());
        self.revision = Some(revision);
        Ok(revision)
    }

    /// Makes it durable and tells watchers. The revision of its changes; the head's if it changed no document.
    pub async fn commit(mut self) -> Result<Revision, StoreError> {
        let Some(revision) = self.revision else {
            let row = sqlx::query("SELECT revision FROM head WHERE id = 1").fetch_one(&mut *self.inner).await?;
            self.inner.commit().await?;
            return Ok(Revision(row.get::<i64, _>(0).unsigned_abs()));
        };
        watch::forget(&mut self.inner, self.store.kept).await?;
        self.inner.commit().await?;
        self.store.head.send_if_modified(|head| {
            let newer = revision > *head;
            *head = revision.max(*head);
            newer
        });
        Ok(revision)
    }
}

async fn head(pool: &SqlitePool) -> Result<Revision, StoreError> {
    let row = sqlx::query("SELECT revision FROM head WHERE id = 1").fetch_one(pool).await?;
    Ok(Revision(row.get::<i64, _>(0).unsigned_abs()))
}
