//! What a server answers while another one serves: that it lives, that it is not ready, and who is.

use std::sync::{Arc, Mutex, PoisonError};

use api::problem;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use policy::code;

use crate::class;
use crate::grpc;
use crate::http::answer::Refused;
use crate::listener::Routers;

/// Who serves, as far as this server knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Serving(Arc<Mutex<Option<String>>>);

impl Serving {
    /// Notes the URL of the one that serves.
    pub(crate) fn note(&self, url: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = url;
    }

    /// One sentence for whoever asks this one.
    fn sentence(&self) -> String {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(url) => format!("standby: {url} serves this control plane; ask that one"),
            None => "standby: no server is known to serve this control plane; try again in a few seconds".to_owned(),
        }
    }
}

/// Routes that refuse everything but questions about health.
pub(crate) fn routers(serving: &Serving) -> Routers {
    let rest = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .fallback(refused_rest)
        .method_not_allowed_fallback(refused_rest)
        .with_state(serving.clone());
    Routers { rest, grpc: Router::new().fallback(refused_grpc).with_state(serving.clone()) }
}

async fn refused_rest(State(serving): State<Serving>) -> Response {
    Refused::new(problem::STANDBY, serving.sentence()).into_response()
}

async fn refused_grpc(State(serving): State<Serving>) -> Response {
    let refused = class::Refused::new(&code::api::STANDBY, serving.sentence());
    grpc::refusal(tonic::Code::Unavailable, &refused).into_http()
}
