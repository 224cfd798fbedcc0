//! Records: what the server keeps beside documents. In the same transactions, not in the change feed.

use crate::sql::{Link, Value};
use crate::{Store, StoreError, Transaction};

impl Transaction {
    /// The value under a key, as this transaction sees it.
    pub async fn record(&mut self, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        one(self.link(), space, key).await
    }

    /// Everything in a space, by key, as this transaction sees it.
    pub async fn records(&mut self, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        all(self.link(), space).await
    }

    /// Sets the value under a key.
    pub async fn put_record(&mut self, space: &str, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let sql = "INSERT INTO records (space, key, value) VALUES ($1, $2, $3)
             ON CONFLICT (space, key) DO UPDATE SET value = excluded.value";
        self.link().execute(sql, &[Value::Text(space), Value::Text(key), Value::Bytes(value)]).await?;
        Ok(())
    }

    /// Removes a key; whether it was there.
    pub async fn delete_record(&mut self, space: &str, key: &str) -> Result<bool, StoreError> {
        let sql = "DELETE FROM records WHERE space = $1 AND key = $2";
        Ok(self.link().execute(sql, &[Value::Text(space), Value::Text(key)]).await? > 0)
    }
}

impl Store {
    /// The value under a key, as last committed.
    pub async fn record(&self, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        one(self.reader().await?.link(), space, key).await
    }

    /// Everything in a space, by key, as last committed.
    pub async fn records(&self, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        all(self.reader().await?.link(), space).await
    }
}

async fn one(mut link: Link<'_>, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let sql = "SELECT value FROM records WHERE space = $1 AND key = $2";
    let row = link.optional(sql, &[Value::Text(space), Value::Text(key)]).await?;
    Ok(row.map(|row| row.bytes(0)))
}

async fn all(mut link: Link<'_>, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let sql = "SELECT key, value FROM records WHERE space = $1 ORDER BY key";
    let rows = link.all(sql, &[Value::Text(space)]).await?;
    Ok(rows.iter().map(|row| (row.text(0).to_owned(), row.bytes(1))).collect())
}
