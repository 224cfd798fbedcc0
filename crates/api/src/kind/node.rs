//! Node: one kernel that runs an agent. Status only.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Spec;

/// Nodes have no spec: they enrol with a join token and report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSpec {}

/// What is known of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its fleet-wide number, 1..=16777215.
    pub id: u32,
    /// The cluster it enrolled into.
    pub cluster: String,
    /// The cluster's namespace.
    pub namespace: String,
    /// The cluster's region; empty where it names none.
    #[serde(default)]
    pub region: String,
    /// Its network realm.
    pub realm: String,
    /// Addresses its workloads share.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Whether its Sync stream is up.
    pub connected: bool,
    /// When anything was last heard of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::object::TimeText>")]
    pub last_seen: Option<Timestamp>,
    /// Version of its agent.
    #[serde(default)]
    pub agent_version: String,
    /// Its kernel's release.
    #[serde(default)]
    pub kernel_release: String,
    /// Optional kernel features that were found by trial.
    #[serde(default)]
    pub features: Vec<String>,
    /// The newest revision at which anything that nodes are told has changed, when this was read. A node enforces what is
    /// stored once `appliedRevision` has reached it.
    #[serde(default)]
    pub due_revision: u64,
    /// The newest revision whose view the server has sent.
    #[serde(default)]
    pub sent_revision: u64,
    /// The newest revision that is live in its kernel.
    #[serde(default)]
    pub applied_revision: u64,
    /// When that was confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::object::TimeText>")]
    pub applied_at: Option<Timestamp>,
    /// Until when it may go on with what it holds without hearing from the server: its outage budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::object::TimeText>")]
    pub holds_until: Option<Timestamp>,
    /// The last state that it refused; absent once a later one is live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<RejectedState>,
    /// Whether enforcement has been taken off by `stolos agent detach`.
    #[serde(default)]
    pub detached: bool,
    /// Its clock minus the server's, in milliseconds.
    #[serde(default)]
    pub clock_skew_ms: i64,
    /// When its certificate ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::object::TimeText>")]
    pub certificate_not_after: Option<Timestamp>,
    /// Generation of its handshake key, 0..=3.
    #[serde(default)]
    pub key_generation: u32,
    /// How many workloads it hosts.
    #[serde(default)]
    pub workloads: u32,
    /// Alarms that it has raised and that still stand.
    #[serde(default)]
    pub alarms: Vec<NodeAlarm>,
}

/// A state that an agent could not apply. The last good one stays in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RejectedState {
    /// Its revision.
    pub revision: u64,
    /// Key of the failing object.
    pub object: String,
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub message: String,
}

/// Something that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAlarm {
    /// Stable code.
    pub code: String,
    /// What it is about.
    pub object: String,
    /// One sentence.
    pub message: String,
    /// When it was raised.
    #[schemars(with = "crate::object::TimeText")]
    pub since: Timestamp,
}

impl Spec for NodeSpec {
    const KIND: &'static str = "Node";
    type Status = NodeStatus;
}
