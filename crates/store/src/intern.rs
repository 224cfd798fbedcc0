//! Small numbers for byte strings, persistent and never reused for another string.

use sqlx::{Row, Sqlite};

use crate::{Store, StoreError, Transaction};

impl Transaction {
    /// The number of `content` in `space`: the one it has, or the next free one from 1 to `last`.
    ///
    /// Errors: [`StoreError::Exhausted`] once `last` is taken; nothing is ever reused.
    pub async fn intern(&mut self, space: &str, content: &[u8], last: u32) -> Result<u32, StoreError> {
        if let Some(id) = lookup(&mut *self.inner, space, content).await? {
            return Ok(id);
        }
        let row = sqlx::query("SELECT coalesce(max(id), 0) + 1 FROM interned WHERE space = ?")
            .bind(space)
            .fetch_one(&mut *self.inner)
            .await?;
        let id = u32::try_from(row.get::<i64, _>(0)).ok().filter(|id| *id <= last);
        let id = id.ok_or_else(|| StoreError::Exhausted(space.to_owned()))?;
        sqlx::query("INSERT INTO interned (space, id, content) VALUES (?, ?, ?)")
            .bind(space)
            .bind(i64::from(id))
            .bind(content)
            .execute(&mut *self.inner)
            .await?;
        Ok(id)
    }
}

impl Store {
    /// The number that `content` has in `space`, if it has one.
    pub async fn interned(&self, space: &str, content: &[u8]) -> Result<Option<u32>, StoreError> {
        lookup(&self.readers, space, content).await
    }

    /// Everything interned in a space, by number.
    pub async fn all_interned(&self, space: &str) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
        let rows = sqlx::query("SELECT id, content FROM interned WHERE space = ? ORDER BY id")
            .bind(space)
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(|row| (row.get::<u32, _>(0), row.get(1))).collect())
    }
}

async fn lookup<'c>(
    executor: impl sqlx::Executor<'c, Database = Sqlite>,
    space: &str,
    content: &[u8],
) -> Result<Option<u32>, StoreError> {
    let row = sqlx::query("SELECT id FROM interned WHERE space = ? AND content = ?")
        .bind(space)
        .bind(content)
        .fetch_optional(executor)
        .await?;
    Ok(row.map(|row| row.get::<u32, _>(0)))
}
