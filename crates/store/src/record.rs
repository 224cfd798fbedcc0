//! Records: what the server keeps beside documents. In the same transactions, not in the change feed.

use sqlx::Row;

use crate::{Store, StoreError, Transaction};

impl Transaction {
    /// The value under a key, as this transaction sees it.
    pub async fn record(&mut self, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT value FROM records WHERE space = ? AND key = ?")
            .bind(space)
            .bind(key)
            .fetch_optional(&mut *self.inner)
            .await?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Everything in a space, by key, as this transaction sees it.
    pub async fn records(&mut self, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let rows = sqlx::query("SELECT key, value FROM records WHERE space = ? ORDER BY key")
            .bind(space)
            .fetch_all(&mut *self.inner)
            .await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Sets the value under a key.
    pub async fn put_record(&mut self, space: &str, key: &str, value: &[u8]) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO records (space, key, value) VALUES (?, ?, ?)
             ON CONFLICT (space, key) DO UPDATE SET value = excluded.value",
        )
        .bind(space)
        .bind(key)
        .bind(value)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Removes a key; whether it was there.
    pub async fn delete_record(&mut self, space: &str, key: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM records WHERE space = ? AND key = ?")
            .bind(space)
            .bind(key)
            .execute(&mut *self.inner)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}

impl Store {
    /// The value under a key, as last committed.
    pub async fn record(&self, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT value FROM records WHERE space = ? AND key = ?")
            .bind(space)
            .bind(key)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Everything in a space, by key, as last committed.
    pub async fn records(&self, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let rows = sqlx::query("SELECT key, value FROM records WHERE space = ? ORDER BY key")
            .bind(space)
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}
