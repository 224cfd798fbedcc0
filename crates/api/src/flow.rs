//! Flows as the server shows them: one row per connection, both ends' reports joined.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One connection, UDP exchange, or aggregate of equal refusals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowRow {
    /// Number of the row; rises with time, for following.
    pub id: u64,
    /// Who opened it.
    pub client: FlowEnd,
    /// Who answered.
    pub server: FlowEnd,
    /// `tcp`, `udp`, `icmp` or a number.
    pub protocol: String,
    /// The real port: what the server's socket is bound to where that is known, else what was dialled. 0 = none.
    pub port: u16,
    /// What the client dialled, where it reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialled: Option<String>,
    /// What happened.
    pub verdict: Verdict,
    /// What enforcing would have said; differs from `verdict` while a side observes.
    pub would: Verdict,
    /// What the client's side reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<SideReport>,
    /// What the server's side reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<SideReport>,
    /// How sure the client's identity is: `proved`, `claimed` or `external`.
    pub proof: Proof,
    /// 1 for a connection, n for an aggregate of refusals.
    pub count: u64,
    /// Bytes from client to server, as far as reported.
    #[serde(default)]
    pub bytes_to_server: u64,
    /// Bytes from server to client, as far as reported.
    #[serde(default)]
    pub bytes_to_client: u64,
    /// When it began.
    #[schemars(with = "crate::object::TimeText")]
    pub first: Timestamp,
    /// When it was last seen.
    #[schemars(with = "crate::object::TimeText")]
    pub last: Timestamp,
    /// Whether it is over.
    pub closed: bool,
}

/// One end of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowEnd {
    /// `/namespace/name` of the workload; absent for external and unknown ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Its uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// `/namespace:name` of the ExternalNetworks that cover it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<String>,
    /// Its attributes when the flow was first reported; empty for external and unknown ends.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Its address as the other end sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// What one side reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SideReport {
    /// What happened there.
    pub verdict: Verdict,
    /// What enforcing would have said.
    pub would: Verdict,
    /// `/namespace:name` of the deciding policy; absent where the default decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Label of the reason (`policy::reason`); absent for allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The port that this side judged.
    pub port: u16,
    /// The node that reported.
    pub node: String,
}

/// Allow or deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It passed, or would.
    Allow,
    /// It was refused, or would be.
    Deny,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// How sure the client's identity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// Nobody could say.
    Unknown,
    /// By the handshake.
    Proved,
    /// By place or by word only.
    Claimed,
    /// An end without identity.
    External,
}

/// Which flows: `GET …/flows?…`. Everything given must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FlowQuery {
    /// Only rows after this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Workload reference of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Workload reference of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Either end in this namespace or below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What enforcing would have said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would: Option<Verdict>,
    /// Seen since (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::object::TimeText>")]
    pub since: Option<Timestamp>,
    /// At most this many, the newest; at most 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Answer one row a line and keep going; a row is sent again when it changes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
    /// With `follow`: ends the answer after this time; 0 as soon as everything until now has been sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
}

/// Answer to a flow query that does not follow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowList {
    /// Oldest first.
    pub items: Vec<FlowRow>,
    /// Allowed flows that agents did not record under pressure.
    #[serde(default)]
    pub sampled_out: u64,
}
