//! What the API is, for machines, editors and people: the OpenAPI document, schemas, and a page. All of it is the same for
//! every server of this version, and says nothing of any fleet.

mod page;

use std::sync::LazyLock;

use api::kind::Kind;
use api::openapi;
use axum::body::Bytes;
use axum::http::header;
use axum::response::{IntoResponse, Response};

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(openapi::document().to_string()));
static PAGE: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(page::page(&openapi::document())));

/// Nothing is loaded, run or framed: the page is text.
const PAGE_MAY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// `GET /openapi.json`.
pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}

/// `GET /docs`.
pub(super) async fn docs() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, PAGE_MAY)];
    (headers, PAGE.clone()).into_response()
}

/// `GET /schemas/KIND.json`.
pub(super) async fn schema(kind: &'static Kind) -> Response {
    axum::Json(openapi::editor_schema(kind)).into_response()
}
