//! Why a flow is allowed or refused, and what the smallest rule is that would allow it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::flow::Verdict;
use crate::kind::namespace::Mode;

/// The question. Ends are workload references (`name`, `name@cluster`, `name@node`, `/namespace/name`, uid); the
/// server's end may also be an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExplainRequest {
    /// The client.
    pub from: String,
    /// The server.
    pub to: String,
    /// `tcp/5432`, `udp/53`, `icmp`.
    pub port: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainAnswer {
    /// The client, as it was resolved.
    pub from: ExplainedEnd,
    /// The server, as it was resolved.
    pub to: ExplainedEnd,
    /// `tcp/5432`.
    pub port: String,
    /// What happens now.
    pub verdict: Verdict,
    /// What would happen if both sides enforced.
    pub would: Verdict,
    /// The client's side; absent where the client is external.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<ExplainedSide>,
    /// The server's side; absent where the server is external.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<ExplainedSide>,
    /// Which end checks the port.
    pub port_checked_by: String,
    /// The revision of the answer.
    pub revision: u64,
    /// Nodes of the two ends that enforce an older revision: there the answer does not hold yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<NodeBehind>,
    /// All of it in sentences, one a line.
    pub text: String,
}

/// A node that does not enforce yet what an answer says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeBehind {
    /// Its name.
    pub node: String,
    /// The revision that is live in its kernel; 0 = none that the server knows of.
    pub revision: u64,
    /// Whether its Sync stream is up.
    pub connected: bool,
}

impl std::fmt::Display for NodeBehind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { node, revision, connected } = self;
        let away = if *connected { "" } else { ", and it is not connected" };
        match revision {
            0 => write!(f, "{node} has confirmed no state{away}"),
            _ => write!(f, "{node} enforces revision {revision}{away}"),
        }
    }
}

/// One end, as it was resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedEnd {
    /// `/namespace/name`, or the external networks' names, or an address.
    pub name: String,
    /// The workload's uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// One side's judgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedSide {
    /// The namespace of the end that the side speaks for.
    pub namespace: String,
    /// Whether it observes or enforces.
    pub mode: Mode,
    /// What enforcing says.
    pub would: Verdict,
    /// `/namespace:name` of the deciding policy; absent where the default decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Label of the reason; absent for allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Code of the reason, for `stolos explain code`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What the nearest policy asks for and an end lacks, as in `client lacks app=web`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// The smallest Policy that would allow it, as a YAML document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smallest_rule: Option<String>,
}
