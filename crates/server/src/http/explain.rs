//! `POST /apis/stolos.dev/v1/explain`.

use std::collections::BTreeSet;

use api::explain::{ExplainAnswer, ExplainRequest, NodeBehind};
use api::kind::Spec;
use api::kind::node::{NodeSpec, NodeStatus};
use api::object::ObjectKey;
use api::problem;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;

use super::answer::{Answer, Refused};
use super::body;
use crate::authn::Admin;
use crate::control::Shared;
use crate::explain::ExplainError;
use crate::fleet::reference::ReferenceError;

pub(super) async fn explain(
    _: Admin,
    State(control): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Json<ExplainAnswer>> {
    let request: ExplainRequest = body::json(&headers, body).await?;
    let mut answer = crate::explain::explain(&control.registry.fleet(), &request)?;
    answer.behind = behind(&control, &answer).await?;
    for node in &answer.behind {
        answer.text.push_str(&format!("\nnot yet everywhere: this is revision {}, and {node}", answer.revision));
    }
    Ok(Json(answer))
}

/// The nodes of the two ends whose kernels do not have the answer's revision.
async fn behind(control: &Shared, answer: &ExplainAnswer) -> Answer<Vec<NodeBehind>> {
    let nodes: BTreeSet<&String> = [&answer.from.node, &answer.to.node].into_iter().flatten().collect();
    let mut behind = Vec::new();
    for node in nodes {
        let id = control.registry.fleet().node_id(node);
        let (revision, connected) = match id.and_then(|id| control.registry.standing(id)) {
            Some(standing) => standing,
            // What it confirmed to an earlier process of the server.
            None => {
                let document = control.store.get(&ObjectKey::new(NodeSpec::KIND, "/", node)).await?;
                let status = document.and_then(|object| serde_json::from_value::<NodeStatus>(object.status?).ok());
                (status.map_or(0, |status| status.applied_revision), false)
            }
        };
        if revision < answer.revision {
            behind.push(NodeBehind { node: node.clone(), revision, connected });
        }
    }
    Ok(behind)
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
