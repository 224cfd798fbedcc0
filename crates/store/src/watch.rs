//! The change feed: every committed transaction once, in order, resumable by revision.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::object::{Object, ObjectKey, Revision};
use tokio::time::Instant;

use crate::sql::Value;
use crate::{Store, StoreError, Transaction};

/// A database that is away for longer ends a watch.
const OUTAGE_MAX: Duration = Duration::from_secs(30);
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
    pending: VecDeque<Arc<Commit>>,
    /// Since when the database has been away.
    away: Option<Instant>,
}

impl Store {
    /// Everything after revision `from`, then what comes.
    pub fn watch(&self, from: Revision) -> Watch {
        Watch { store: self.clone(), at: from, nudge: self.commits(), pending: VecDeque::new(), away: None }
    }
}

impl Watch {
    /// The next commit; waits for it, also for a database that is away shortly. Cancel safe: a commit is taken only
    /// when it is returned.
    pub async fn next(&mut self) -> Result<Arc<Commit>, WatchError> {
        loop {
            match self.try_next().await {
                Ok(Some(commit)) => return Ok(commit),
                Ok(None) => self.away = None,
                Err(WatchError::Store(cause)) if cause.is_temporary() => {
                    if self.away.get_or_insert_with(Instant::now).elapsed() > OUTAGE_MAX {
                        return Err(cause.into());
                    }
                }
                Err(cause) => return Err(cause),
            }
            // A closed channel is impossible while `store` holds its sender; the timer alone would do.
            let _ = tokio::time::timeout(POLL, self.nudge.changed()).await;
        }
    }

    /// The next commit, if there is one already.
    pub async fn try_next(&mut self) -> Result<Option<Arc<Commit>>, WatchError> {
        if self.pending.is_empty() {
            self.nudge.mark_unchanged();
            self.pending = self.store.commits_after(self.at).await?.into();
        }
        let commit = self.pending.pop_front();
        if let Some(commit) = &commit {
            (self.at, self.away) = (commit.revision, None);
        }
        Ok(commit)
    }

    /// The last revision that was given out: resume from here.
    pub fn position(&self) -> Revision {
        self.at
    }
}

/// Forgets old changes, whole revisions at a time, once there are a tenth more than are kept.
pub(crate) async fn forget(transaction: &mut Transaction, kept: i64) -> Result<(), StoreError> {
    let last = transaction.sequence;
    if last - transaction.head.forgotten < kept + kept / 10 {
        return Ok(());
    }
    let found = "SELECT revision FROM changes WHERE sequence <= $1 ORDER BY sequence DESC LIMIT 1";
    let Some(row) = transaction.link().optional(found, &[Value::Int(last - kept)]).await? else { return Ok(()) };
    let floor = row.int(0);
    let whole = "SELECT coalesce(max(sequence), 0) FROM changes WHERE revision <= $1";
    let forgotten = transaction.link().one(whole, &[Value::Int(floor)]).await?.int(0);
    transaction.link().execute("DELETE FROM changes WHERE revision <= $1", &[Value::Int(floor)]).await?;
    (transaction.head.floor, transaction.head.forgotten) = (floor, forgotten);
    Ok(())
}
