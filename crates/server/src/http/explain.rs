//! `POST /apis/stolos.dev/v1/explain`.

use api::explain::{ExplainAnswer, ExplainRequest};
use api::problem;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};

use super::answer::{Answer, Refused};
use super::body;
use crate::authn::Admin;
use crate::control::Shared;
use crate::explain::ExplainError;
use crate::fleet::reference::ReferenceError;

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/apis/stolos.dev/v1/explain", post(explain))
}

async fn explain(_: Admin, State(control): State<Shared>, body: Body) -> Answer<Json<ExplainAnswer>> {
    let request: ExplainRequest = body::json(body).await?;
    let fleet = control.registry.fleet();
    Ok(Json(crate::explain::explain(&fleet, &request)?))
}

impl From<ExplainError> for Refused {
    fn from(error: ExplainError) -> Self {
        let kind = match &error {
            ExplainError::Reference(ReferenceError::Unknown(_)) | ExplainError::Nobody { .. } => problem::NOT_FOUND,
            ExplainError::Reference(ReferenceError::Ambiguous { .. }) | ExplainError::Shared { .. } => {
                problem::AMBIGUOUS
            }
            ExplainError::Port(_) | ExplainError::NoWorkload => problem::RANGE,
        };
        Self::new(kind, error.to_string())
    }
}
