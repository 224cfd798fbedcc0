//! `POST /apis/stolos.dev/v1/apply`: many documents in one transaction; with `dryRun`, none.

use api::apply::{ApplyRequest, ApplyResponse, ApplyResult, OWNER, Prune};
use api::object::{Object, ObjectKey, Revision};
use api::problem;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use policy::namespace::{NamespacePath, check_name};
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

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ApplyParams {
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn apply(
    admin: Admin,
    State(control): State<Shared>,
    Params(params): Params<ApplyParams>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Json<ApplyResponse>> {
    let request: ApplyRequest = body::json(&headers, body).await?;
    let namespace = NamespacePath::new(request.namespace.as_deref().unwrap_or("/"))
        .map_err(|e| Refused::new(problem::RANGE, format!("`namespace`: {e}")))?;
    let prune = request.prune.as_ref().map(scope).transpose()?;
    let (mut manifests, mut diagnostics) = manifest::read(&request.sources, &namespace);
    refuse_errors(&diagnostics)?;
    if let Some(owner) = &request.owner {
        check_name(owner).map_err(|e| Refused::new(problem::RANGE, format!("`owner`: {e}")))?;
        for manifest in &mut manifests {
            manifest.object.metadata.labels.insert(OWNER.to_owned(), owner.clone());
        }
    }
    let mut write = control.begin_as(&admin).await?;
    let admitted = admission::admit(&mut write, &manifests, false, control.now()).await?;
    diagnostics.extend(admitted.warnings);
    let mut results = admitted.results;
    let written = results.len();
    if let Some(prune) = prune {
        let kept = results.iter().map(|result| result.object.key()).collect();
        results.extend(admission::prune(&mut write, prune, &kept).await?);
    }
    let mut response = ApplyResponse { results, dry_run: params.dry_run, diagnostics, ..ApplyResponse::default() };
    if params.dry_run {
        // Dropped, the transaction leaves nothing behind.
        drop(write);
        response.revision = control.store.revision().await?;
        control.registry.caught_up(response.revision).await;
        let (put, gone) = response.results.split_at(written);
        let proposed: Vec<Object> = put.iter().map(|result| result.object.clone()).collect();
        let gone: Vec<ObjectKey> = gone.iter().map(|result| result.object.key()).collect();
        let fleet = control.registry.fleet();
        response.would_break = would_break(&control.flows, &fleet, &Proposal::new(&fleet, &proposed, &gone));
    } else {
        let head = write.commit().await?;
        control.registry.caught_up(head).await;
        response.revision =
            if response.results.len() > written { head } else { since(&response.results).unwrap_or(head) };
        info!(by = admin.name(), documents = response.results.len(), revision = %response.revision, "documents applied");
    }
    Ok(Json(response))
}

/// What may be deleted: somebody's objects, or those of a subtree; never everything because nothing was said.
fn scope(prune: &Prune) -> Answer<&Prune> {
    if let Some(namespace) = &prune.namespace {
        NamespacePath::new(namespace).map_err(|e| Refused::new(problem::RANGE, format!("`prune.namespace`: {e}")))?;
    }
    match prune.owner.is_some() || prune.namespace.is_some() {
        true => Ok(prune),
        false => Err(Refused::new(problem::RANGE, "`prune` names neither an owner nor a namespace")),
    }
}

/// The revision since which all these documents are as they are. A report of the system's in between is no part of it.
fn since(results: &[ApplyResult]) -> Option<Revision> {
    results.iter().filter_map(|result| result.object.metadata.revision).max()
}
