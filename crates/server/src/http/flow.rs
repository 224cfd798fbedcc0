//! `GET /apis/stolos.dev/v1/flows`: what was seen, or what comes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use api::flow::{FlowQuery, FlowRow};
use api::watch::MEDIA_TYPE;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream;
use tokio::sync::watch;

use super::answer::Answer;
use super::body::Params;
use crate::authn::Admin;
use crate::control::Shared;

/// Rows that a follower is given at once.
const BATCH: usize = 500;
/// An empty line is sent at least this often, so that both ends notice a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/apis/stolos.dev/v1/flows", get(flows))
}

async fn flows(_: Admin, State(control): State<Shared>, Params(query): Params<FlowQuery>) -> Answer<Response> {
    if !query.follow {
        return Ok(Json(control.flows.list(&query)).into_response());
    }
    // Taken first: what changes while the list is made is sent again rather than missed.
    let (changes, version) = (control.flows.changes(), control.flows.version());
    let ready = control.flows.list(&query).items.into();
    let following = Following { control, query, changes, version, ready };
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
}

impl Following {
    /// The next line; `None` when the server stops.
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
            tokio::select! {
                () = self.control.stopping.cancelled() => return None,
                changed = tokio::time::timeout(HEARTBEAT, self.changes.changed()) => match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return None,
                    Err(_) => return Some(b"\n".to_vec()),
                },
            }
        }
    }
}
