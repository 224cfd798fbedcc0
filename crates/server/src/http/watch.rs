//! Following changes as lines of JSON.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use api::object::{Object, ObjectKey, Revision};
use api::watch::{MEDIA_TYPE, WatchEvent};
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use store::document::Filter;
use store::watch::{Change, Commit, Watch, WatchError};
use tracing::error;

use crate::control::Shared;

/// A bookmark is sent at least this often, so that both ends notice a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(15);

struct Following {
    control: Shared,
    filter: Filter,
    from: Option<Revision>,
    watch: Option<Watch>,
    ready: VecDeque<WatchEvent>,
    /// When the caller wants it to end.
    until: Option<Instant>,
    ended: bool,
}

/// Changes after a revision; without one, everything there is first, then what comes. Ends after `lasts`, but not before
/// everything that was there by then has been sent.
pub(super) fn answer(control: Shared, filter: Filter, from: Option<Revision>, lasts: Option<Duration>) -> Response {
    let until = lasts.map(|lasts| Instant::now() + lasts);
    let following = Following { control, filter, from, watch: None, ready: VecDeque::new(), until, ended: false };
    let lines = stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        let mut line = serde_json::to_vec(&event).ok()?;
        line.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(line)), following))
    });
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], Body::from_stream(lines)).into_response()
}

impl Following {
    /// The next event; `None` ends the answer.
    async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            let stopping = self.control.stopping.clone();
            tokio::select! {
                () = stopping.cancelled() => return None,
                filled = self.fill() => match filled {
                    Ok(()) => {}
                    Err(WatchError::StartOver) => {
                        self.ended = true;
                        return Some(WatchEvent::StartOver);
                    }
                    Err(WatchError::Store(cause)) => {
                        error!(%cause, "a watch ended: the database failed");
                        return None;
                    }
                },
            }
        }
    }

    async fn fill(&mut self) -> Result<(), WatchError> {
        let Some(watch) = &mut self.watch else {
            let from = match self.from {
                Some(from) => from,
                None => {
                    let (objects, revision) = self.control.store.list(&self.filter).await?;
                    self.ready.extend(objects.into_iter().map(|object| WatchEvent::Put { object: Box::new(object) }));
                    self.ready.push_back(WatchEvent::Bookmark { revision });
                    revision
                }
            };
            self.watch = Some(self.control.store.watch(from));
            return Ok(());
        };
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            match watch.try_next().await? {
                Some(commit) => self.ready.extend(self.filter.events(&commit)),
                None => {
                    self.ready.push_back(WatchEvent::Bookmark { revision: watch.position() });
                    self.ended = true;
                }
            }
            return Ok(());
        }
        match tokio::time::timeout(left.map_or(HEARTBEAT, |left| left.min(HEARTBEAT)), watch.next()).await {
            Ok(commit) => {
                let events = self.filter.events(&*commit?);
                self.ready.extend(events);
            }
            Err(_) => self.ready.push_back(WatchEvent::Bookmark { revision: watch.position() }),
        }
        Ok(())
    }
}

/// What of a commit a filter lets through, closed by a bookmark.
trait Events {
    fn events(&self, commit: &Commit) -> Vec<WatchEvent>;
}

impl Events for Filter {
    fn events(&self, commit: &Commit) -> Vec<WatchEvent> {
        let revision = commit.revision;
        let mut events: Vec<WatchEvent> = Vec::new();
        for change in &commit.changes {
            match change {
                Change::Put(object) => events.extend(put(self, object, revision)),
                Change::Delete(key) if self.covers(key) => {
                    events.push(WatchEvent::Delete { key: key.clone(), revision });
                }
                Change::Delete(_) => {}
            }
        }
        events.push(WatchEvent::Bookmark { revision });
        events
    }
}

/// An object whose labels no longer fit is gone for whoever selects by them.
fn put(filter: &Filter, object: &Object, revision: Revision) -> Option<WatchEvent> {
    let key: ObjectKey = object.key();
    if !filter.covers(&key) {
        return None;
    }
    Some(match filter.labels_fit(object) {
        true => WatchEvent::Put { object: Box::new(object.clone()) },
        false => WatchEvent::Delete { key, revision },
    })
}
