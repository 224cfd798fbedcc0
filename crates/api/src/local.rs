//! The agent's local API: HTTP and JSON over a root-only Unix socket (default [`SOCKET`]).
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /v1/workloads` | [`Register`] | [`Registered`] |
//! | `DELETE /v1/workloads/{uid}` | | 204 |
//! | `GET /v1/workloads` | | [`Workloads`] |
//! | `PATCH /v1/workloads/{name-or-uid}/labels` | [`LabelChange`] | [`Labelled`] |
//! | `POST /v1/detach` | [`Detach`] | [`Enforcement`] |
//! | `POST /v1/attach` | | [`Enforcement`] |
//! | `GET /v1/status` | | [`Status`] |
//! | `GET /v1/doctor` | | [`Doctor`] |
//! | `GET /metrics` | | OpenMetrics text |
//!
//! Every error is a [`Refusal`]. Fields are only ever added.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the agent listens unless told otherwise.
pub const SOCKET: &str = "/run/stolos/agent.sock";

/// Why the agent did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Stable code (`K5…`), explained by `stolos explain code`.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    pub mend: String,
}

/// A new workload of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// UUID, made by the caller; registering the same again is the same.
    pub uid: String,
    /// Name on this node: 1 to 63 of `a-z 0-9 - .`, a letter or digit at both ends.
    pub name: String,
    /// `process`, `unit` or `container`.
    #[serde(rename = "type", default = "process")]
    pub kind: String,
    /// Relative to the cluster's namespace; empty = the cluster's own.
    #[serde(default)]
    pub namespace: String,
    /// User labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its cgroup v2 directory, below the agent's cgroup root.
    pub cgroup: PathBuf,
    /// It stays while its cgroup exists, populated or not; otherwise it ends with its last process.
    #[serde(default)]
    pub keep: bool,
    /// How long the answer may take while the server has not placed it, in milliseconds; at most 60,000.
    #[serde(default = "ten_seconds")]
    pub wait_ms: u64,
}

fn process() -> String {
    "process".to_owned()
}

fn ten_seconds() -> u64 {
    10_000
}

/// The answer to a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The workload as it stands.
    pub workload: Workload,
    /// Why it was answered before the fleet knew the workload; it may be started, and peers refuse it until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// Workloads of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workloads {
    /// In order of their names; the host workload last.
    pub workloads: Vec<Workload>,
}

/// Whether a workload takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkloadState {
    /// Placed by the server and live in the kernel here.
    Active,
    /// Known to this agent only: peers refuse it.
    Pending,
    /// Refused by the server: its labels, namespace or name are not allowed.
    Refused,
    /// Cut off by a Revocation.
    Revoked,
}

/// A workload of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// UUID.
    pub uid: String,
    /// Name on this node.
    pub name: String,
    /// process, unit, container, pod or host.
    #[serde(rename = "type")]
    pub kind: String,
    /// The namespace the server placed it in, or the relative one while pending.
    pub namespace: String,
    /// User labels.
    pub labels: BTreeMap<String, String>,
    /// What the agent observed: `@linux:exe` and the like.
    pub observed: BTreeMap<String, String>,
    /// Its cgroup directory.
    pub cgroup: PathBuf,
    /// Addresses of its own network namespace; empty = it shares the node's.
    pub addresses: Vec<String>,
    /// Its number on this node; absent while pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u16>,
    /// Whether it takes part.
    pub state: WorkloadState,
    /// Why it is not active: one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Stable code of that reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// Labels to set and to remove, in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelChange {
    /// Keys to set.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Keys to remove; absent ones are no error.
    #[serde(default)]
    pub remove: Vec<String>,
    /// How long the answer may take until the kernel enforces the change, in milliseconds; at most 60,000.
    #[serde(default = "ten_seconds")]
    pub wait_ms: u64,
}

/// The answer to a label change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labelled {
    /// The workload with its new labels.
    pub workload: Workload,
    /// The kernel here enforces them.
    pub live: bool,
    /// Why not yet, where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// Break-glass: take enforcement off this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detach {
    /// Put it back after so many seconds; absent: only `attach` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
}

/// Whether the node enforces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforcement {
    /// The kernel programs are attached.
    pub attached: bool,
    /// This agent's state is in force in the kernel. Until then what a predecessor left there is, and after a fresh attach
    /// nothing.
    #[serde(default)]
    pub in_force: bool,
    /// When enforcement comes back by itself, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// What the agent is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// The cgroup v2 directory below which workloads are enforced; `stolos run` makes its cgroups here.
    pub cgroup_root: PathBuf,
    /// Its node, once enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeStatus>,
    /// Where its state comes from.
    pub server: ServerStatus,
    /// Whether the node enforces.
    pub enforcement: Enforcement,
    /// Revision that is live in the kernel; 0 = none yet.
    pub revision: u64,
    /// Until when what it holds may be used without hearing from the server (the outage budget), RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds_until: Option<String>,
    /// Clock.
    pub clock: ClockStatus,
    /// Workloads.
    pub workloads: Vec<Workload>,
    /// Optional kernel features that this machine has.
    pub features: Vec<String>,
    /// Exact number of refusals since the programs were attached.
    pub denials: u64,
    /// What is wrong now.
    pub alarms: Vec<Alarm>,
    /// What does not pass through the programs: said, never silently trusted.
    pub not_captured: Vec<NotCaptured>,
}

/// A node as the server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Number in the handshake.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Cluster.
    pub cluster: String,
    /// Trust domain.
    pub trust_domain: String,
    /// When the node's certificate ends, RFC 3339.
    pub certificate_expires: String,
}

/// Where an agent's state comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// URL, or the path of the state file.
    pub source: String,
    /// A Sync stream is up.
    pub connected: bool,
    /// Since when it has been as it is, RFC 3339.
    pub since: String,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// The clock under the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// `server`, `real-time` (no server heard since boot), or `floor` (the last value on disk serves).
    pub source: String,
    /// This machine's real-time clock minus the server's, in milliseconds; absent until known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew_ms: Option<i64>,
}

/// Something a person should know about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Alarm {
    /// Stable code.
    pub code: String,
    /// What it is about: a key, a path, an address.
    pub object: String,
    /// One sentence.
    pub message: String,
}

/// Something that the kernel programs do not see.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NotCaptured {
    /// `listener` (older than the attach), `packet-socket`, `raw-socket`, `tun`.
    pub kind: String,
    /// Process, 0 = unknown.
    pub pid: i32,
    /// Its program's name.
    pub command: String,
    /// Port, for listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The workload it belongs to, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// What to do.
    pub mend: String,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckResult {
    /// As it should be.
    Ok,
    /// Works, with a limit worth knowing.
    Warn,
    /// Does not work.
    Fail,
}

/// One check of `stolos doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Kebab-case name, stable.
    pub name: String,
    /// How it went.
    pub result: CheckResult,
    /// What was found: one sentence.
    pub message: String,
    /// Stable code, where it is not ok.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What to do, where it is not ok.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// The checks of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doctor {
    /// In a fixed order.
    pub checks: Vec<Check>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_needs_only_what_has_no_default() {
        let text = r#"{"uid":"u","name":"web","cgroup":"/sys/fs/cgroup/web"}"#;
        let register: Register = serde_json::from_str(text).expect("parses");
        assert_eq!((register.kind.as_str(), register.namespace.as_str(), register.wait_ms), ("process", "", 10_000));
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let text = r#"{"uid":"u","name":"web","cgroup":"/x","nmespace":"shop"}"#;
        let error = serde_json::from_str::<Register>(text).expect_err("a slip must not be swallowed");
        assert!(error.to_string().contains("nmespace"), "{error}");
    }
}
