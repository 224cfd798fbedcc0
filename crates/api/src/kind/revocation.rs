//! Revocation: takes something out of the fleet until it is deleted.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Spec;

/// Every verdict to and from the target is deny, and its live connections are cut. Undone by deleting the object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevocationSpec {
    /// What is revoked: exactly one of the fields.
    pub target: RevocationTarget,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it ends by itself (RFC 3339); absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::object::TimeText>")]
    pub expires: Option<Timestamp>,
}

/// What is revoked: exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevocationTarget {
    /// One workload: `name`, `name@cluster`, `name@node`, `/namespace/name` or its uid. The server stores the uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// All workloads of a node, and the node's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// All workloads and nodes of a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// All workloads with this SPIFFE ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe: Option<String>,
}

/// What a revocation did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevocationStatus {
    /// Workloads that it takes out now, `/namespace/name`.
    #[serde(default)]
    pub matched: Vec<String>,
    /// Nodes that confirmed that it is live in their kernel.
    #[serde(default)]
    pub confirmed: Vec<String>,
    /// Connected nodes that have not confirmed yet.
    #[serde(default)]
    pub pending: Vec<String>,
    /// What was cut, by node.
    #[serde(default)]
    pub cut: Vec<CutReport>,
}

/// Connections that one node ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CutReport {
    /// The node that reports.
    pub node: String,
    /// The workload whose connections were cut, `/namespace/name`.
    pub workload: String,
    /// How many.
    pub connections: u32,
}

impl Spec for RevocationSpec {
    const KIND: &'static str = "Revocation";
    type Status = RevocationStatus;
}
