//! What can go wrong with the database, told apart by what the caller may conclude from it.

use std::time::Duration;

/// What can go wrong with the database itself.
///
/// Unless it is [`StoreError::OutcomeUnknown`], a failing write has left nothing behind.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database says no: disk full, file damaged, no right to do it.
    #[error("the database cannot be used")]
    Database(#[source] sqlx::Error),
    /// The database cannot be reached now, is starting or stopping, or has no connection free. Nothing was written.
    #[error("the database cannot be reached")]
    Unavailable(#[source] sqlx::Error),
    /// The database did not answer in time. Nothing was written, or it was not asked to commit.
    #[error("the database did not answer within {0:?}")]
    Silent(Duration),
    /// Another writer was in the way. Nothing was written; the same write may succeed now.
    #[error("another writer was in the way")]
    Conflict(#[source] sqlx::Error),
    /// Another process has moved the revision although this one held it. Nothing was written.
    #[error("the revision was changed by a writer that does not respect its lock")]
    Overtaken,
    /// The lease that this handle writes under is another process's now, or nobody's. Nothing was written.
    #[error("the lease `{0}` is another process's now")]
    LeaseLost(String),
    /// The connection was lost between asking for the commit and its answer: the write is there whole, or not at all.
    #[error("the connection to the database was lost during a commit: it is not known whether the write took place")]
    OutcomeUnknown(#[source] Option<sqlx::Error>),
    /// The schema could not be brought up to date.
    #[error("the database's schema cannot be brought up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The database compares texts by a language's rules; ranges of names would be wrong.
    #[error(
        "the database sorts by a language's rules or is not UTF-8: create it with \
         `CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'`"
    )]
    Collation,
    /// A stored document is not what was written.
    #[error("the stored {0} cannot be read")]
    Damaged(String, #[source] serde_json::Error),
    /// A number space is used up.
    #[error("no numbers are left in {0}")]
    Exhausted(String),
}

impl StoreError {
    /// Whether nothing was written and the same may succeed a moment later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Silent(_) | Self::Conflict(_))
    }

    /// Whether the write may have taken place, or not.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_))
    }

    /// What a failing COMMIT means. Only an answer of the database that refuses it proves that nothing was written.
    pub(crate) fn of_commit(error: sqlx::Error) -> Self {
        match Self::from(error) {
            Self::Unavailable(cause) => Self::OutcomeUnknown(Some(cause)),
            Self::Silent(_) => Self::OutcomeUnknown(None),
            refused => refused,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::Io(_) | E::Tls(_) | E::Protocol(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => {
                Self::Unavailable(error)
            }
            E::BeginFailed => Self::Unavailable(error),
            E::Database(_) => match class(&error) {
                Class::Unavailable => Self::Unavailable(error),
                Class::Conflict => Self::Conflict(error),
                Class::Refused => Self::Database(error),
            },
            _ => Self::Database(error),
        }
    }
}

enum Class {
    Unavailable,
    Conflict,
    Refused,
}

/// By SQLSTATE (PostgreSQL, five characters) or extended result code (SQLite, a number whose lowest byte is the kind).
fn class(error: &sqlx::Error) -> Class {
    let code = error.as_database_error().and_then(|e| e.code()).unwrap_or_default();
    if code.len() < 5 {
        const BUSY: u32 = 5;
        return match code.parse::<u32>().is_ok_and(|code| code & 0xFF == BUSY) {
            true => Class::Conflict,
            false => Class::Refused,
        };
    }
    match code.as_ref() {
        // Connection exceptions; shut down, crashed, starting, or dropped for idling in a transaction.
        code if code.starts_with("08") || code.starts_with("57P") => Class::Unavailable,
        // Statement completion unknown: what a distributed database says when it lost its own part of the commit.
        "40003" | "25P03" => Class::Unavailable,
        // Too many connections; read-only, as a former primary is.
        "53300" | "25006" => Class::Unavailable,
        // Serialization failure, deadlock, lock not available, cancelled by a time limit.
        "40001" | "40P01" | "55P03" | "57014" => Class::Conflict,
        _ => Class::Refused,
    }
}

/// Whether a step of the schema failed because another process has just done it.
pub(crate) fn is_lost_race(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|e| e.code()).unwrap_or_default();
    // Unique violation, duplicate table, column or object; serialization failure, deadlock.
    ["23505", "42P07", "42701", "42710", "40001", "40P01"].contains(&code.as_ref())
}
