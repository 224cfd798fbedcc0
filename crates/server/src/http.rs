//! REST: routing and translation. What is allowed and what is valid is decided elsewhere.
//!
//! The routes are `api::route::operations`, the list that `/openapi.json` is made from; each of its actions has one handler
//! here, and there is no other way in.

pub mod answer;
mod apply;
mod audit;
mod authority;
mod body;
mod describe;
mod explain;
mod flow;
mod health;
mod object;
mod page;
mod patch;
mod precondition;
mod status;
mod token;
mod watch;

use api::kind::KINDS;
use api::route::{self, Action, BASE};
use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};

use self::answer::Refused;
use crate::control::Shared;
use crate::metrics::{Answered, Class};

/// Longest piece of a path that a message quotes, in characters.
const QUOTE_MAX: usize = 200;

/// All REST routes.
pub(crate) fn router(control: Shared) -> Router {
    let counted = control.clone();
    let mut router = Router::new();
    for operation in route::operations() {
        let method = MethodFilter::try_from(operation.method.clone())
            .unwrap_or_else(|_| panic!("BUG: no route can be made for {}", operation.method));
        router = router.route(&operation.path, handler(operation.action, method));
    }
    router
        .fallback(nowhere)
        .method_not_allowed_fallback(not_that_way)
        .layer(middleware::from_fn(move |request: Request, next: Next| count(counted.clone(), request, next)))
        .with_state(control)
}

/// Who carries an operation out.
fn handler(action: Action, method: MethodFilter) -> MethodRouter<Shared> {
    match action {
        Action::List(kind) => on(method, move |a, s, p| object::list(kind, a, s, p)),
        Action::Read(kind) => on(method, move |a, s, n, p| object::read(kind, a, s, n, p)),
        Action::Create(kind) => on(method, move |a, s, p, h, b| object::create(kind, a, s, p, h, b)),
        Action::Replace(kind) => on(method, move |a, s, n, p, h, b| object::replace(kind, a, s, n, p, h, b)),
        Action::Patch(kind) => on(method, move |a, s, n, p, h, b| patch::patch(kind, a, s, n, p, h, b)),
        Action::Delete(kind) => on(method, move |a, s, n, p, h| object::delete(kind, a, s, n, p, h)),
        Action::Apply => on(method, apply::apply),
        Action::Explain => on(method, explain::explain),
        Action::Flows => on(method, flow::flows),
        Action::Audit => on(method, audit::list),
        Action::JoinToken => on(method, token::create),
        Action::RotateNodeKeys => on(method, authority::node_keys),
        Action::RotateFleetKey => on(method, authority::fleet_key),
        Action::Health => on(method, health::alive),
        Action::Ready => on(method, health::ready),
        Action::Metrics => on(method, health::metrics_text),
        Action::OpenApi => on(method, describe::openapi),
        Action::Docs => on(method, describe::docs),
        Action::Schema(kind) => on(method, move || describe::schema(kind)),
    }
}

fn quoted(request: &Request) -> String {
    request.uri().path().chars().take(QUOTE_MAX).collect()
}

async fn nowhere(request: Request) -> Response {
    let plurals: Vec<&str> = KINDS.iter().map(|kind| kind.plural).collect();
    let path = quoted(&request);
    let detail = format!("there is nothing at `{path}`; objects live under {BASE}/{{{}}}", plurals.join(","));
    Refused::new(api::problem::NO_SUCH_ROUTE, detail).into_response()
}

async fn not_that_way(request: Request) -> Response {
    let path = quoted(&request);
    let kind = path.strip_prefix(BASE).and_then(|rest| rest.split('/').nth(1));
    let kind = KINDS.iter().find(|row| Some(row.plural) == kind && !row.writable());
    let detail = match kind {
        Some(kind) => format!("a {} is reported by agents: `{path}` does not take {}", kind.name, request.method()),
        None => format!("`{path}` does not take {}", request.method()),
    };
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
