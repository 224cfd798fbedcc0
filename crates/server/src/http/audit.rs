//! `GET …/audit`: who changed what, as it was hashed.

use api::audit::{AuditList, PAGE_MAX};
use api::route::REVISION_MAX;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::answer::Answer;
use super::body::{Params, within};
use crate::authn::Admin;
use crate::control::Shared;

/// Which entries.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AuditParams {
    after: Option<u64>,
    limit: Option<u32>,
}

pub(super) async fn list(
    _: Admin,
    State(control): State<Shared>,
    Params(params): Params<AuditParams>,
) -> Answer<Json<AuditList>> {
    let after = within("after", params.after, 0..=REVISION_MAX)?.unwrap_or(0);
    let limit = within("limit", params.limit, 1..=PAGE_MAX)?.unwrap_or(PAGE_MAX);
    Ok(Json(AuditList { items: control.store.audit(after, limit).await? }))
}
