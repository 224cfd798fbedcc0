//! Is it alive, is it ready, what does it count.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::answer::{Answer, Refused};
use crate::authn::Admin;
use crate::control::Shared;
use crate::metrics;

/// Alive: it answers.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// Ready: the database answers and the server is not stopping.
pub(super) async fn ready(State(control): State<Shared>) -> Answer<&'static str> {
    if control.stopping.is_cancelled() {
        return Err(Refused::new(api::problem::UNAVAILABLE, "the server is stopping; try another or wait"));
    }
    control.store.check().await?;
    Ok("ready\n")
}

pub(super) async fn metrics_text(_: Admin, State(control): State<Shared>) -> Answer<impl IntoResponse> {
    let revision = control.store.revision().await?;
    control.metrics.revision.set(i64::try_from(revision.0).unwrap_or(i64::MAX));
    Ok(([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], control.metrics.encode()))
}
