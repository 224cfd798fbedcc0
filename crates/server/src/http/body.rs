//! Reading requests: bodies within limits and of the media types that an operation takes, names, and queries without
//! unknown parameters.

use api::problem;
use api::route::{self, BODY_LEN_MAX};
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use policy::syntax::DEPTH_MAX;
use serde::de::DeserializeOwned;

use super::answer::{Answer, Refused};

/// Media types of documents beside `route::DOCUMENT`: other names of YAML, and what clients send that say nothing.
const DOCUMENT_ALSO: &[&str] = &["application/x-yaml", "text/yaml", "text/x-yaml", "text/plain"];
/// Media type of questions.
const JSON: &[&str] = &["application/json"];

/// Refuses a body of another media type than one of these. One that names none is taken.
fn check_media(headers: &HeaderMap, taken: &[&str]) -> Answer<()> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = value.to_str().ok().and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    if taken.iter().any(|known| known.eq_ignore_ascii_case(essence)) {
        return Ok(());
    }
    let shown: String = essence.chars().take(100).collect();
    let detail = format!("`{shown}` is not taken here; send {}", taken[..taken.len().min(2)].join(" or "));
    Err(Refused::new(problem::UNSUPPORTED_MEDIA, detail))
}

/// The body as the text of one document.
pub(super) async fn document(headers: &HeaderMap, body: Body) -> Answer<String> {
    check_media(headers, &[route::DOCUMENT, DOCUMENT_ALSO].concat())?;
    text(body).await
}

/// The body as a merge patch.
pub(super) async fn patch(headers: &HeaderMap, body: Body) -> Answer<serde_json::Map<String, serde_json::Value>> {
    check_media(headers, &[route::MERGE_PATCH])?;
    parsed(&text(body).await?)
}

/// The body as JSON of one shape; an empty body is an empty mapping.
pub(super) async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Answer<T> {
    check_media(headers, JSON)?;
    let text = text(body).await?;
    parsed(if text.trim().is_empty() { "{}" } else { &text })
}

async fn text(body: Body) -> Answer<String> {
    let bytes = to_bytes(body, BODY_LEN_MAX).await.map_err(|_| {
        let detail = format!("the body is larger than {} MiB, or broke off; split it", BODY_LEN_MAX / (1024 * 1024));
        Refused::new(problem::BODY_TOO_LARGE, detail)
    })?;
    String::from_utf8(bytes.into()).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Refused::new(problem::BAD_REQUEST, format!("the body is not UTF-8 text (at byte {at})"))
    })
}

fn parsed<T: DeserializeOwned>(text: &str) -> Answer<T> {
    if depth(text) > DEPTH_MAX {
        let detail = format!("lists and mappings are nested more than {DEPTH_MAX} deep; flatten the body");
        return Err(Refused::new(problem::TOO_DEEP, detail));
    }
    // Types are read from lists, too, by the order of their fields; nobody is to rely on that.
    if !text.trim_start().starts_with('{') {
        return Err(Refused::new(problem::BAD_REQUEST, "the body cannot be read: a JSON mapping is expected"));
    }
    serde_json::from_str(text).map_err(|e| Refused::new(problem::BAD_REQUEST, format!("the body cannot be read: {e}")))
}

/// How deep a JSON text goes, without reading it into memory.
fn depth(text: &str) -> usize {
    let (mut now, mut most, mut in_text, mut escaped) = (0usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                now += 1;
                most = most.max(now);
            }
            b']' | b'}' if !in_text => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
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

/// The `{name}` of an address.
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(_) => Err(Refused::new(problem::BAD_REQUEST, "the name in the address is not UTF-8 text")),
        }
    }
}

/// A number of the query within its limits.
pub(super) fn within<T: PartialOrd + std::fmt::Display + Copy>(
    name: &str,
    value: Option<T>,
    range: std::ops::RangeInclusive<T>,
) -> Answer<Option<T>> {
    match value {
        Some(value) if !range.contains(&value) => {
            let detail = format!("`{name}` is {value}, and {} to {} is taken", range.start(), range.end());
            Err(Refused::new(problem::BAD_REQUEST, detail))
        }
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_texts_are_no_depth() {
        assert_eq!(depth(r#"{"a": "[[[\"[", "b": [1, {"c": []}]}"#), 4);
        assert_eq!(depth("]]]]["), 1);
    }

    #[test]
    fn a_media_type_may_have_parameters() {
        let of = |media: &str| HeaderMap::from_iter([(header::CONTENT_TYPE, media.parse().unwrap())]);
        assert!(check_media(&of("Application/JSON; charset=utf-8"), JSON).is_ok());
        assert!(check_media(&HeaderMap::new(), JSON).is_ok());
        assert_eq!(check_media(&of("image/png"), JSON).unwrap_err().0.status, 415);
    }
}
