//! Rotation of the handshake's keys: `POST …/authority/rotate-node-keys` and `POST …/authority/rotate-fleet-key`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Every node was asked for a new handshake key; each is used once every peer has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeKeysRotated {
    /// How many nodes were asked. Nodes that are away are asked when they are back.
    pub nodes: u32,
}

/// There is a new fleet key; it is used once every node has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetKeyRotated {
    /// Its generation, 0..=3.
    pub generation: u8,
}
