//! One statement, two engines: the same text with `$1` placeholders, values bound and columns read alike.
//!
//! Columns are of three types only: whole numbers of 64 bits, texts and bytes. What differs between the engines beside
//! that is in [`crate::sqlite`] and [`crate::postgres`].

use std::future::Future;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Postgres, Row as _, Sqlite};

use crate::StoreError;

/// Waits so long for the answer to one statement. Longer than the database itself takes before it gives up.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);

/// A value for a placeholder.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Int(i64),
    Text(&'a str),
    Optional(Option<&'a str>),
    Bytes(&'a [u8]),
}

/// A row of an answer.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

macro_rules! column {
    ($row:expr, $at:expr, $type:ty) => {
        match $row {
            Row::Sqlite(row) => row.get::<$type, _>($at),
            Row::Postgres(row) => row.get::<$type, _>($at),
        }
    };
}

impl Row {
    pub(crate) fn int(&self, at: usize) -> i64 {
        column!(self, at, i64)
    }

    pub(crate) fn maybe_int(&self, at: usize) -> Option<i64> {
        column!(self, at, Option<i64>)
    }

    pub(crate) fn text(&self, at: usize) -> &str {
        column!(self, at, &str)
    }

    pub(crate) fn maybe_text(&self, at: usize) -> Option<&str> {
        column!(self, at, Option<&str>)
    }

    pub(crate) fn bytes(&self, at: usize) -> Vec<u8> {
        column!(self, at, Vec<u8>)
    }
}

/// A connection in use.
pub(crate) enum Link<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

/// A connection of a pool, for reading.
pub(crate) enum Reader {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

impl Reader {
    pub(crate) fn link(&mut self) -> Link<'_> {
        match self {
            Self::Sqlite(connection) => Link::Sqlite(connection),
            Self::Postgres(connection) => Link::Postgres(connection),
        }
    }
}

/// The statement with its values.
macro_rules! bound {
    ($sql:expr, $values:expr) => {{
        let mut query = sqlx::query($sql);
        for value in $values {
            query = match *value {
                Value::Int(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::Optional(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
            };
        }
        query
    }};
}

impl Link<'_> {
    /// All rows.
    pub(crate) async fn all(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(link) => {
                let rows = bound!(sql, values).fetch_all(&mut **link).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgres(link) => {
                let rows = answered(bound!(sql, values).fetch_all(&mut **link)).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// The first row, if there is one.
    pub(crate) async fn optional(
        &mut self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, StoreError> {
        match self {
            Self::Sqlite(link) => Ok(bound!(sql, values).fetch_optional(&mut **link).await?.map(Row::Sqlite)),
            Self::Postgres(link) => {
                Ok(answered(bound!(sql, values).fetch_optional(&mut **link)).await?.map(Row::Postgres))
            }
        }
    }

    /// The one row that there is.
    pub(crate) async fn one(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<Row, StoreError> {
        self.optional(sql, values).await?.ok_or(StoreError::Database(sqlx::Error::RowNotFound))
    }

    /// How many rows it changed.
    pub(crate) async fn execute(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(link) => Ok(bound!(sql, values).execute(&mut **link).await?.rows_affected()),
            Self::Postgres(link) => Ok(answered(bound!(sql, values).execute(&mut **link)).await?.rows_affected()),
        }
    }
}

/// A dead network must not hold anybody for as long as TCP hopes.
pub(crate) async fn answered<T>(asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(StoreError::Silent(ANSWER_TIMEOUT)),
    }
}
