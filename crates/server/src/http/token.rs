//! `POST /apis/stolos.dev/v1/clusters/{name}/join-tokens`.

use std::time::Duration;

use api::kind::Spec;
use api::kind::cluster::ClusterSpec;
use api::object::ObjectKey;
use api::problem;
use api::token::{JoinToken, JoinTokenRequest, JoinTokenResponse};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::json;
use tracing::info;

use super::answer::{Answer, Refused};
use super::body::{self, Name};
use crate::authn::Admin;
use crate::control::Shared;
use crate::registry::enrol::TokenError;

/// How long a token lasts unless its maker says.
const TTL_DEFAULT_S: u64 = 3600;
/// Shortest and longest life of a token, in seconds.
const TTL_RANGE_S: std::ops::RangeInclusive<u64> = 60..=7 * 24 * 3600;

pub(super) async fn create(
    admin: Admin,
    State(control): State<Shared>,
    Name(cluster): Name,
    headers: HeaderMap,
    body: Body,
) -> Answer<(StatusCode, Json<JoinTokenResponse>)> {
    let request: JoinTokenRequest = body::json(&headers, body).await?;
    let ttl = request.ttl_s.unwrap_or(TTL_DEFAULT_S);
    if !TTL_RANGE_S.contains(&ttl) {
        let detail = format!("a join token lasts {} s to {} s, not {ttl} s", TTL_RANGE_S.start(), TTL_RANGE_S.end());
        return Err(Refused::new(problem::RANGE, detail));
    }
    let ttl = Duration::from_secs(ttl);
    let asked = ObjectKey::new(ClusterSpec::KIND, "/", &cluster);
    let detail = json!({"ttlS": ttl.as_secs(), "node": request.node});
    control.note(&admin, "join-token.create", &asked, Some(detail)).await?;
    let (secret, expires) = control.registry.make_token(&cluster, ttl, request.node.as_deref()).await?;
    let token = JoinToken { server: control.url.clone(), ca: control.authority_fingerprint(), secret };
    info!(by = admin.name(), cluster, %expires, "join token made");
    Ok((StatusCode::CREATED, Json(JoinTokenResponse { token: token.to_string(), cluster, expires })))
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        let kind = match &error {
            TokenError::NoCluster(_) => problem::NOT_FOUND,
            TokenError::TooMany(_) => problem::TOKEN_LIMIT,
            TokenError::BadName(_) => problem::RANGE,
            TokenError::Registry(_) | TokenError::Random => return Self::internal(&error),
        };
        Self::new(kind, error.to_string())
    }
}
