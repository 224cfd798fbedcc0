//! `POST /apis/stolos.dev/v1/authority/…`: rotation of the handshake's keys.

use api::authority::{FleetKeyRotated, NodeKeysRotated};
use api::object::ObjectKey;
use api::problem;
use axum::Json;
use axum::extract::State;
use tracing::info;

use super::answer::{Answer, Refused};
use crate::authn::Admin;
use crate::control::Shared;
use crate::registry::RegistryError;
use crate::registry::key::RotateError;

pub(super) async fn node_keys(admin: Admin, State(control): State<Shared>) -> Answer<Json<NodeKeysRotated>> {
    control.note(&admin, "node-keys.rotate", &ObjectKey::of_namespace("/"), None).await?;
    let nodes: Vec<_> = control.registry.fleet().nodes().map(|(id, _)| id).collect();
    let asked = control.registry.rotate_node_keys(nodes).await?;
    info!(by = admin.name(), nodes = asked, "rotation of the node keys begun");
    Ok(Json(NodeKeysRotated { nodes: u32::try_from(asked).unwrap_or(u32::MAX) }))
}

pub(super) async fn fleet_key(admin: Admin, State(control): State<Shared>) -> Answer<Json<FleetKeyRotated>> {
    control.note(&admin, "fleet-key.rotate", &ObjectKey::of_namespace("/"), None).await?;
    let generation = control.registry.rotate_fleet_key().await?;
    info!(by = admin.name(), generation, "rotation of the fleet key begun");
    Ok(Json(FleetKeyRotated { generation }))
}

impl From<RegistryError> for Refused {
    fn from(error: RegistryError) -> Self {
        Self::internal(&error)
    }
}

impl From<RotateError> for Refused {
    fn from(error: RotateError) -> Self {
        match &error {
            RotateError::Busy(_) => {
                let detail = "the last rotation is not finished: wait until `stolos status` shows every node up to date, \
                              or delete the Nodes that are gone for good";
                Self::new(problem::ROTATION_BUSY, detail)
            }
            RotateError::Registry(_) | RotateError::Random => Self::internal(&error),
        }
    }
}
