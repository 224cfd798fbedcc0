//! Workload: what runs and is protected. Status only.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Spec;
use super::namespace::words;

/// Workloads have no spec: agents report them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSpec {}

words! {
    /// Where a workload stands.
    WorkloadState {
        /// Placed, but not every connected node has confirmed that it knows it.
        Pending = "pending",
        /// Every connected node knows it.
        Live = "live",
        /// The server does not accept what the node asserts; see `refused`.
        Refused = "refused",
        /// A Revocation takes it out.
        Revoked = "revoked",
    }
}

/// What is known of a workload. The object's name is `NAME.NODE`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Stable for the life of the workload instance.
    pub uid: String,
    /// Its own name, without the node.
    pub name: String,
    /// The node that hosts it.
    pub node: String,
    /// The node's cluster.
    pub cluster: String,
    /// `process`, `unit`, `container`, `pod` or `host`.
    #[serde(rename = "type")]
    pub workload_type: String,
    /// Where it stands.
    pub state: WorkloadState,
    /// Its number on its node; absent until it is placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u16>,
    /// Hash of the instance as the handshake uses it, 16 hex digits; absent until it is placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Its class; absent until it is placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u32>,
    /// All attributes, system keys included.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Addresses that are its own; empty where it shares its node's.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Why the server does not accept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    /// Name of the Revocation that takes it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<String>,
    /// The revision at which its present placement was made.
    #[serde(default)]
    pub placed_revision: u64,
    /// When it was first reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::object::TimeText>")]
    pub since: Option<Timestamp>,
}

/// Why the server does not accept what a node asserts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub message: String,
}

impl Spec for WorkloadSpec {
    const KIND: &'static str = "Workload";
    type Status = WorkloadStatus;
}
