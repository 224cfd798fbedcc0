//! `GET …/flows`: what was seen, or what comes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use api::flow::{FlowQuery, FlowRow};
use api::problem;
use api::route::{REVISION_MAX, TIMEOUT_MAX_S};
use api::watch::MEDIA_TYPE;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use policy::namespace::NamespacePath;
use tokio::sync::watch;

use super::answer::{Answer, Refused};
use super::body::{Params, within};
use crate::authn::Admin;
use crate::control::Shared;
use crate::flows::LIMIT_MAX;

/// Rows that a follower is given at once.
const BATCH: usize = 500;
/// An empty line is sent at least this often, so that both ends notice a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) async fn flows(
    _: Admin,
    State(control): State<Shared>,
    Params(query): Params<FlowQuery>,
) -> Answer<Response> {
    within("after", query.after, 0..=REVISION_MAX)?;
    within("limit", query.limit, 1..=LIMIT_MAX)?;
    let timeout = within("timeoutSeconds", query.timeout_seconds, 0..=TIMEOUT_MAX_S)?;
    for (name, end) in [("from", &query.from), ("to", &query.to)] {
        if end.as_deref() == Some("") {
            return Err(Refused::new(problem::BAD_REQUEST, format!("`{name}` is empty; name an end, or leave it out")));
        }
    }
    if let Some(namespace) = &query.namespace {
        NamespacePath::new(namespace).map_err(|e| Refused::new(problem::BAD_REQUEST, format!("`namespace`: {e}")))?;
    }
    if !query.follow {
        return Ok(Json(control.flows.list(&query)).into_response());
    }
    // Taken first: what changes while the list is made is sent again rather than missed.
    let (changes, version) = (control.flows.changes(), control.flows.version());
    let ready = control.flows.list(&query).items.into();
    let until = timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
    let following = Following { control, query, changes, version, ready, until };
    let lines = stream::unfold(following, |mut following| async move {
        let line = following.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(line)), following))
    });
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], Body::from_stream(lines)).into_response())
}

struct Following {
    control: Shared,
    query: FlowQuery,
    changes: watch::Receiver<u64>,
    version: u64,
    ready: VecDeque<FlowRow>,
    /// When the caller wants it to end.
    until: Option<Instant>,
}

impl Following {
    /// The next line; `None` when the server stops, or the caller's time is over and everything is sent.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(row) = self.ready.pop_front() {
                let mut line = serde_json::to_vec(&row).ok()?;
                line.push(b'\n');
                return Some(line);
            }
            self.changes.mark_unchanged();
            let (rows, version) = self.control.flows.changed_since(&self.query, self.version, BATCH);
            self.version = version;
            self.ready = rows.into();
            if !self.ready.is_empty() || self.control.flows.version() > version {
                continue;
            }
            let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            let wait = left.map_or(HEARTBEAT, |left| left.min(HEARTBEAT));
            tokio::select! {
                () = self.control.stopping.cancelled() => return None,
                changed = tokio::time::timeout(wait, self.changes.changed()) => match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return None,
                    Err(_) => return Some(b"\n".to_vec()),
                },
            }
        }
    }
}
