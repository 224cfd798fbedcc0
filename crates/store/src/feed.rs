//! The end of the change feed, read once for all watchers of a process.
//!
//! A thousand watchers that wait for the next commit would each read it from the database; instead whoever comes first
//! reads it for all. Who resumes from further back than the tail reaches reads for himself until he has caught up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::object::{ObjectKey, Revision};

use crate::document::{as_i64, parse};
use crate::sql::{Row, Value};
use crate::watch::{Change, Commit, WatchError};
use crate::{Store, StoreError};

/// Most changes read at once; a transaction is never split.
const BATCH: i64 = 1000;
/// The tail holds at most so many bytes of documents; the last commit in any case.
const TAIL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The tail holds at most so many commits.
const TAIL_COMMITS_MAX: usize = 8192;
/// A tail that nobody has read on for so many revisions begins anew where a watcher is.
const FALLEN_BEHIND: u64 = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct Tail {
    held: Mutex<Held>,
    /// Whoever reads on holds it; the others wait and find what he read.
    reading: tokio::sync::Mutex<()>,
}

/// All commits after `from` up to `to`, the oldest first, each with the bytes that it holds.
#[derive(Debug)]
struct Held {
    from: Revision,
    to: Revision,
    commits: VecDeque<(Arc<Commit>, usize)>,
    bytes: usize,
    /// Counts how often it was emptied: what was read before belongs to another history.
    history: u64,
}

/// What was read of the feed: commits with their sizes, up to where there are no others, and where the head was.
struct Batch {
    commits: Vec<(Arc<Commit>, usize)>,
    to: Revision,
    head: Revision,
}

impl Tail {
    pub(crate) fn new(at: Revision) -> Self {
        let held = Held { from: at, to: at, commits: VecDeque::new(), bytes: 0, history: 0 };
        Self { held: Mutex::new(held), reading: tokio::sync::Mutex::new(()) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database has another history now.
    pub(crate) fn forget(&self) {
        let mut held = self.held();
        let history = held.history + 1;
        *held = Held { from: Revision(0), to: Revision(0), commits: VecDeque::new(), bytes: 0, history };
    }
}

impl Held {
    /// The commits after a position; `None` if it does not reach back or on that far.
    fn after(&self, at: Revision, known: Revision) -> Option<Vec<Arc<Commit>>> {
        if at < self.from || at > self.to {
            return None;
        }
        let first = self.commits.partition_point(|(commit, _)| commit.revision <= at);
        let found: Vec<_> = self.commits.range(first..).map(|(commit, _)| Arc::clone(commit)).collect();
        (!found.is_empty() || self.to >= known).then_some(found)
    }

    fn append(&mut self, batch: Batch) {
        for (commit, size) in batch.commits {
            self.bytes += size;
            self.commits.push_back((commit, size));
        }
        self.to = batch.to;
        while self.commits.len() > TAIL_COMMITS_MAX || (self.bytes > TAIL_BYTES_MAX && self.commits.len() > 1) {
            let Some((commit, size)) = self.commits.pop_front() else { break };
            self.bytes -= size;
            self.from = commit.revision;
        }
    }
}

impl Store {
    /// Commits after a position, as far as they are read at once; none if there is none yet.
    pub(crate) async fn commits_after(&self, at: Revision) -> Result<Vec<Arc<Commit>>, WatchError> {
        let tail = &self.inner.tail;
        let known = *self.inner.head.borrow();
        if let Some(found) = tail.held().after(at, known) {
            return Ok(found);
        }
        let reading = tail.reading.lock().await;
        // What was just read is an answer, even if there is more by now.
        let mut enough = known;
        loop {
            let (from, to, history) = {
                let held = tail.held();
                if let Some(found) = held.after(at, enough) {
                    return Ok(found);
                }
                (held.from, held.to, held.history)
            };
            if at < from {
                drop(reading);
                return Ok(self.read_feed(at).await?.commits.into_iter().map(|(commit, _)| commit).collect());
            }
            let mut start = if at.0 > to.0 + FALLEN_BEHIND { at } else { to };
            let batch = match self.read_feed(start).await {
                Err(WatchError::StartOver) if start != at => {
                    start = at;
                    self.read_feed(at).await?
                }
                batch => batch?,
            };
            if at > batch.head {
                return Err(WatchError::StartOver);
            }
            let mut held = tail.held();
            if held.history != history {
                return Err(WatchError::StartOver);
            }
            if start != to {
                (held.from, held.bytes) = (start, 0);
                held.commits.clear();
            }
            held.append(batch);
            enough = Revision(0);
        }
    }

    async fn read_feed(&self, after: Revision) -> Result<Batch, WatchError> {
        let from = as_i64(after);
        let mut reader = self.reader().await?;
        // One statement, so one snapshot: up to the revision in which the batch ends, whole.
        let sql = "SELECT h.revision, h.floor, c.revision, c.kind, c.namespace, c.name, c.body
             FROM head h LEFT JOIN changes c ON c.revision > $1 AND c.revision <= coalesce(
                 (SELECT revision FROM changes WHERE revision > $1 ORDER BY revision LIMIT 1 OFFSET $2),
                 9223372036854775807)
             WHERE h.id = 1
             ORDER BY c.revision, c.sequence";
        let rows = reader.link().all(sql, &[Value::Int(from), Value::Int(BATCH)]).await?;
        let first = rows.first().ok_or(StoreError::Database(sqlx::Error::RowNotFound))?;
        let (head, floor) = (first.int(0), first.int(1));
        if from < floor || from > head {
            return Err(WatchError::StartOver);
        }
        let head = Revision(head.unsigned_abs());
        let whole = i64::try_from(rows.len()).is_ok_and(|read| read <= BATCH);
        let commits = group(&rows)?;
        let to = match commits.last() {
            Some((last, _)) if !whole => last.revision,
            _ => head,
        };
        Ok(Batch { commits, to, head })
    }
}

/// Rows to transactions.
fn group(rows: &[Row]) -> Result<Vec<(Arc<Commit>, usize)>, StoreError> {
    let mut commits: Vec<(Commit, usize)> = Vec::new();
    for row in rows {
        let Some(revision) = row.maybe_int(2) else { continue };
        let revision = Revision(revision.unsigned_abs());
        let key = ObjectKey::new(row.text(3), row.text(4), row.text(5));
        let body = row.maybe_text(6);
        let change = match body {
            Some(body) => Change::Put(Box::new(parse(&key, body)?)),
            None => Change::Delete(key),
        };
        let size = body.map_or(0, str::len);
        match commits.last_mut() {
            Some((last, bytes)) if last.revision == revision => {
                last.changes.push(change);
                *bytes += size;
            }
            _ => commits.push((Commit { revision, changes: vec![change] }, size)),
        }
    }
    Ok(commits.into_iter().map(|(commit, size)| (Arc::new(commit), size)).collect())
}
