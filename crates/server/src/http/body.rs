//! Reading requests: bodies within a limit, queries without unknown parameters.

use api::problem;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::BODY_LEN_MAX;
use super::answer::{Answer, Refused};

/// The whole body as text.
pub(super) async fn text(body: Body) -> Answer<String> {
    let bytes = to_bytes(body, BODY_LEN_MAX).await.map_err(|_| {
        let detail = format!("the body is larger than {} MiB, or broke off; split it", BODY_LEN_MAX / (1024 * 1024));
        Refused::new(problem::BODY_TOO_LARGE, detail)
    })?;
    let unreadable = || Refused::new(problem::BAD_REQUEST, "the body is not UTF-8 text");
    String::from_utf8(bytes.into()).map_err(|_| unreadable())
}

/// The body as JSON of one shape; an empty body is an empty mapping.
pub(super) async fn json<T: DeserializeOwned>(body: Body) -> Answer<T> {
    let text = text(body).await?;
    let text = if text.trim().is_empty() { "{}" } else { &text };
    serde_json::from_str(text).map_err(|e| Refused::new(problem::BAD_REQUEST, format!("the body cannot be read: {e}")))
}

/// A query string of one shape; unknown parameters are refused.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let bad = |e: String| Refused::new(problem::BAD_REQUEST, format!("the query cannot be read: {e}"));
        Query::try_from_uri(&parts.uri).map(|Query(query)| Self(query)).map_err(|e| bad(e.body_text()))
    }
}
