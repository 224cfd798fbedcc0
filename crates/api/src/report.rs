//! Answers that the command line puts together out of several objects: `stolos status` and `stolos revoke`. Machines
//! read them with `-o json`; fields are only ever added.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::kind::node::{NodeAlarm, RejectedState};
use crate::kind::revocation::CutReport;
use crate::kind::workload::WorkloadState;
use crate::object::Revision;

/// `stolos status`: is the fleet as it should be?
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetStatus {
    /// The server's URL.
    pub server: String,
    /// The newest revision in its store.
    pub revision: Revision,
    /// How far the newest state has come.
    pub rollout: Rollout,
    /// Every node, by name.
    pub nodes: Vec<NodeLine>,
    /// Workloads by state.
    pub workloads: WorkloadCounts,
    /// Workloads that are pending or refused, with the reason.
    pub waiting: Vec<WaitingWorkload>,
    /// Revocations that some node has not confirmed.
    pub unconfirmed: Vec<UnconfirmedRevocation>,
}

/// On how many nodes the newest state is live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Nodes whose kernel has the newest state that concerns them.
    pub live: u32,
    /// All nodes.
    pub nodes: u32,
    /// Names of those where it is not live.
    #[serde(default)]
    pub behind: Vec<String>,
}

/// One node in a status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeLine {
    /// Its name.
    pub name: String,
    /// Its cluster.
    pub cluster: String,
    /// Whether its Sync stream is up.
    pub connected: bool,
    /// Whether enforcement has been taken off.
    pub detached: bool,
    /// Whether the newest state that concerns it is live in its kernel.
    pub live: bool,
    /// The newest revision that is live in its kernel.
    pub applied_revision: u64,
    /// When anything was last heard of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// Its outage budget: until when it may go on without the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds_until: Option<Timestamp>,
    /// Its clock minus the server's, in milliseconds.
    pub clock_skew_ms: i64,
    /// When its certificate ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_not_after: Option<Timestamp>,
    /// How many workloads it hosts.
    pub workloads: u32,
    /// The last state that it refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<RejectedState>,
    /// Alarms that stand.
    #[serde(default)]
    pub alarms: Vec<NodeAlarm>,
}

/// Workloads by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadCounts {
    /// Known to every connected node.
    pub live: u32,
    /// Not yet.
    pub pending: u32,
    /// Not accepted by the server.
    pub refused: u32,
    /// Cut off.
    pub revoked: u32,
}

/// A workload that does not take part yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingWorkload {
    /// `/namespace/name`.
    pub workload: String,
    /// Its node.
    pub node: String,
    /// `pending` or `refused`.
    pub state: WorkloadState,
    /// Stable code of the reason.
    pub code: String,
    /// One sentence.
    pub reason: String,
}

/// A revocation that is not in force everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnconfirmedRevocation {
    /// The Revocation's name.
    pub name: String,
    /// Connected nodes that have not confirmed it.
    pub nodes: Vec<String>,
}

/// `stolos revoke`: what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revoked {
    /// Name of the Revocation that was stored.
    pub name: String,
    /// Workloads that it takes out now, `/namespace/name`.
    pub matched: Vec<String>,
    /// Live connections that were ended, all nodes together.
    pub connections_cut: u64,
    /// What was cut, by node.
    pub cut: Vec<CutReport>,
    /// Nodes that confirmed that it is live in their kernel.
    pub confirmed: Vec<String>,
    /// Connected nodes that did not confirm in the time given.
    pub unconfirmed: Vec<String>,
    /// How long it took until the answer, in milliseconds.
    pub took_ms: u64,
    /// What to type to undo it.
    pub undo: String,
}
