//! The change feed: every committed transaction once, in order, resumable by revision.

use std::time::Duration;

use api::object::{Object, ObjectKey, Revision};
use sqlx::{Row, Sqlite};

use crate::document::{as_i64, parse};
use crate::{Store, StoreError};

/// Most changes read at once; a transaction is never split.
const BATCH: i64 = 1000;
/// Looks at the store this often even if nothing nudges.
const POLL: Duration = Duration::from_secs(1);

/// One change of one document.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Created or changed: the document as it was written.
    Put(Box<Object>),
    /// Removed.
    Delete(ObjectKey),
}

/// All changes of one transaction, in the order in which they were made.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// Its revision.
    pub revision: Revision,
    /// At least one.
    pub changes: Vec<Change>,
}

/// Why a watch cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Changes after the revision asked for have been forgotten, or it lies in the future (a restored backup).
    #[error("the change feed does not reach back to that revision")]
    StartOver,
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
}

/// A position in the feed. It holds no connection while it waits.
#[derive(Debug)]
pub struct Watch {
    store: Store,
    at: Revision,
    nudge: tokio::sync::watch::Receiver<Revision>,
    pending: std::collections::VecDeque<Commit>,
}

impl Store {
    /// Everything after revision `from`, then what comes.
    pub fn watch(&self, from: Revision) -> Watch {
        Watch { store: self.clone(), at: from, nudge: self.head.subscribe(), pending: Default::default() }
    }
}

impl Watch {
    /// The next commit; waits for it. Cancel safe: a commit is taken only when it is returned.
    pub async fn next(&mut self) -> Result<Commit, WatchError> {
        loop {
            if let Some(commit) = self.try_next().await? {
                return Ok(commit);
            }
            // A closed channel is impossible while `store` holds its sender; the timer alone would do.
            let _ = tokio::time::timeout(POLL, self.nudge.changed()).await;
        }
    }

    /// The next commit, if there is one already.
    pub async fn try_next(&mut self) -> Result<Option<Commit>, WatchError> {
        if self.pending.is_empty() {
            self.nudge.mark_unchanged();
            self.pending = self.read().await?.into();
        }
        let commit = self.pending.pop_front();
        if let Some(commit) = &commit {
            self.at = commit.revision;
        }
        Ok(commit)
    }

    /// The last revision that was given out: resume from here.
    pub fn position(&self) -> Revision {
        self.at
    }

    async fn read(&self) -> Result<Vec<Commit>, WatchError> {
        let mut snapshot = self.store.readers.begin().await.map_err(StoreError::from)?;
        let head = sqlx::query("SELECT revision, floor FROM head WHERE id = 1")
            .fetch_one(&mut *snapshot)
            .await
            .map_err(StoreError::from)?;
        let from = as_i64(self.at);
        if from < head.get::<i64, _>(1) || from > head.get::<i64, _>(0) {
            return Err(WatchError::StartOver);
        }
        // Up to the revision in which the batch ends, whole.
        let rows = sqlx::query(
            "SELECT revision, kind, namespace, name, body FROM changes
             WHERE revision > ?1 AND revision <= coalesce(
                 (SELECT revision FROM changes WHERE revision > ?1 ORDER BY sequence LIMIT 1 OFFSET ?2),
                 9223372036854775807)
             ORDER BY sequence",
        )
        .bind(from)
        .bind(BATCH)
        .fetch_all(&mut *snapshot)
        .await
        .map_err(StoreError::from)?;
        let mut commits: Vec<Commit> = Vec::new();
        for row in rows {
            let revision = Revision(row.get::<i64, _>(0).unsigned_abs());
            let key = ObjectKey::new(row.get(1), row.get(2), row.get(3));
            let change = match row.get::<Option<&str>, _>(4) {
                Some(body) => Change::Put(Box::new(parse(&key, body)?)),
                None => Change::Delete(key),
            };
            match commits.last_mut() {
                Some(last) if last.revision == revision => last.changes.push(change),
                _ => commits.push(Commit { revision, changes: vec![change] }),
            }
        }
        Ok(commits)
    }
}

/// Forgets old changes, whole revisions at a time, once there are a tenth more than are kept.
pub(crate) async fn forget(transaction: &mut sqlx::Transaction<'_, Sqlite>, kept: i64) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT coalesce(max(sequence), 0) - coalesce(min(sequence), 0) FROM changes")
        .fetch_one(&mut **transaction)
        .await?;
    if row.get::<i64, _>(0) < kept + kept / 10 {
        return Ok(());
    }
    sqlx::query(
        "UPDATE head SET floor = (SELECT revision FROM changes WHERE sequence <= (SELECT max(sequence) FROM changes) - ?
         ORDER BY sequence DESC LIMIT 1) WHERE id = 1",
    )
    .bind(kept)
    .execute(&mut **transaction)
    .await?;
    sqlx::query("DELETE FROM changes WHERE revision <= (SELECT floor FROM head WHERE id = 1)")
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
