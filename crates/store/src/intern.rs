//! Small numbers for byte strings, persistent and never reused for another string.

use crate::sql::{Link, Value};
use crate::{Store, StoreError, Transaction};

impl Transaction {
    /// The number of `content` in `space`: the one it has, or the next free one from 1 to `last`.
    ///
    /// Errors: [`StoreError::Exhausted`] once `last` is taken; nothing is ever reused.
    pub async fn intern(&mut self, space: &str, content: &[u8], last: u32) -> Result<u32, StoreError> {
        if let Some(id) = lookup(self.link(), space, content).await? {
            return Ok(id);
        }
        let next = "SELECT coalesce(max(id), 0) + 1 FROM interned WHERE space = $1";
        let row = self.link().one(next, &[Value::Text(space)]).await?;
        let id = u32::try_from(row.int(0)).ok().filter(|id| *id <= last);
        let id = id.ok_or_else(|| StoreError::Exhausted(space.to_owned()))?;
        let values = [Value::Text(space), Value::Int(i64::from(id)), Value::Bytes(content)];
        self.link().execute("INSERT INTO interned (space, id, content) VALUES ($1, $2, $3)", &values).await?;
        Ok(id)
    }
}

impl Store {
    /// The number that `content` has in `space`, if it has one.
    pub async fn interned(&self, space: &str, content: &[u8]) -> Result<Option<u32>, StoreError> {
        lookup(self.reader().await?.link(), space, content).await
    }

    /// Everything interned in a space, by number.
    pub async fn all_interned(&self, space: &str) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
        let sql = "SELECT id, content FROM interned WHERE space = $1 ORDER BY id";
        let rows = self.reader().await?.link().all(sql, &[Value::Text(space)]).await?;
        Ok(rows.iter().filter_map(|row| Some((u32::try_from(row.int(0)).ok()?, row.bytes(1)))).collect())
    }
}

async fn lookup(mut link: Link<'_>, space: &str, content: &[u8]) -> Result<Option<u32>, StoreError> {
    let sql = "SELECT id FROM interned WHERE space = $1 AND content = $2";
    let row = link.optional(sql, &[Value::Text(space), Value::Bytes(content)]).await?;
    Ok(row.and_then(|row| u32::try_from(row.int(0)).ok()))
}
