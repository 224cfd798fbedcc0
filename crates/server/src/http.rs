//! REST: routing and translation. What is allowed and what is valid is decided elsewhere.

pub mod answer;
mod apply;
mod authority;
mod body;
mod explain;
mod flow;
mod health;
mod object;
mod status;
mod token;
mod watch;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use self::answer::Refused;
use crate::control::Shared;
use crate::metrics::{Answered, Class};

/// Where objects live.
pub const BASE: &str = "/apis/stolos.dev/v1";
/// Longest request body in bytes.
pub const BODY_LEN_MAX: usize = 8 * 1024 * 1024;

/// All REST routes.
pub(crate) fn router(control: Shared) -> Router {
    let counted = control.clone();
    Router::new()
        .merge(health::routes())
        .merge(apply::routes())
        .merge(authority::routes())
        .merge(explain::routes())
        .merge(flow::routes())
        .merge(object::routes())
        .merge(token::routes())
        .fallback(nowhere)
        .method_not_allowed_fallback(not_that_way)
        .layer(middleware::from_fn(move |request: Request, next: Next| count(counted.clone(), request, next)))
        .with_state(control)
}

async fn nowhere(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(200).collect();
    let detail = format!("there is nothing at `{path}`; objects live under {BASE}/PLURAL");
    Refused::new(api::problem::NO_SUCH_ROUTE, detail).into_response()
}

async fn not_that_way(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(200).collect();
    let detail = format!("`{path}` does not take {}", request.method());
    Refused::new(api::problem::UNSUPPORTED_VERB, detail).into_response()
}

async fn count(control: Shared, request: Request, next: Next) -> Response {
    let answer = next.run(request).await;
    let class = match answer.status().as_u16() {
        500.. => Class::ServerError,
        400.. => Class::ClientError,
        _ => Class::Ok,
    };
    control.metrics.requests.get_or_create(&Answered { class }).inc();
    answer
}
