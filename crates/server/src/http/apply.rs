//! `POST /apis/stolos.dev/v1/apply`: many documents in one transaction; with `dryRun`, none.

use api::apply::{ApplyRequest, ApplyResponse, ApplyResult};
use api::object::{Object, Revision};
use api::problem;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use policy::namespace::NamespacePath;
use serde::Deserialize;
use tracing::info;

use super::answer::{Answer, Refused};
use super::body::{self, Params};
use super::object::refuse_errors;
use crate::admission;
use crate::authn::Admin;
use crate::control::Shared;
use crate::flows::proposal::{Proposal, would_break};
use crate::manifest;

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/apis/stolos.dev/v1/apply", post(apply))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ApplyParams {
    #[serde(default)]
    dry_run: bool,
}

async fn apply(
    admin: Admin,
    State(control): State<Shared>,
    Params(params): Params<ApplyParams>,
    body: Body,
) -> Answer<Json<ApplyResponse>> {
    let request: ApplyRequest = body::json(body).await?;
    let namespace = NamespacePath::new(request.namespace.as_deref().unwrap_or("/"))
        .map_err(|e| Refused::new(problem::BAD_REQUEST, format!("`namespace`: {e}")))?;
    let (manifests, mut diagnostics) = manifest::read(&request.sources, &namespace);
    refuse_errors(&diagnostics)?;
    let mut write = control.store.begin().await?;
    let admitted = admission::admit(&mut write, &manifests, false, control.now()).await?;
    diagnostics.extend(admitted.warnings);
    let mut response =
        ApplyResponse { results: admitted.results, dry_run: params.dry_run, diagnostics, ..ApplyResponse::default() };
    if params.dry_run {
        // Dropped, the transaction leaves nothing behind.
        drop(write);
        response.revision = control.store.revision().await?;
        control.registry.caught_up(response.revision).await;
        let proposed: Vec<Object> = response.results.iter().map(|result| result.object.clone()).collect();
        let fleet = control.registry.fleet();
        response.would_break = would_break(&control.flows, &fleet, &Proposal::new(&fleet, &proposed, &[]));
    } else {
        let head = write.commit().await?;
        control.registry.caught_up(head).await;
        response.revision = since(&response.results).unwrap_or(head);
        info!(by = admin.name(), documents = response.results.len(), revision = %response.revision, "documents applied");
    }
    Ok(Json(response))
}

/// The revision since which all these documents are as they are. A report of the system's in between is no part of it.
fn since(results: &[ApplyResult]) -> Option<Revision> {
    results.iter().filter_map(|result| result.object.metadata.revision).max()
}
