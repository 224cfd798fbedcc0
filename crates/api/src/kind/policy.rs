//! Policy: who may reach what.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Spec;
pub use super::namespace::{Action, Mode};

/// Who may reach what. It speaks for the ends in the subtree of its namespace, and for no other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicySpec {
    /// Clients: selectors, of which any may match. `any` means every identity in scope.
    pub from: Vec<String>,
    /// Servers: selectors, of which any may match. `@external=NAME` reaches an ExternalNetwork.
    pub to: Vec<String>,
    /// Ports that the server's socket is bound to: `tcp/5432`, `tcp/8000-8100`, `udp/53`, `icmp`. Absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<String>>,
    /// Allow or deny. On each side any matching deny wins.
    pub action: Action,
    /// `observe` only records what the policy would decide. Absent means enforce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Why it exists, in the author's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Not honoured by this version, and therefore refused: `required` demands mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// Not honoured by this version, and therefore refused: rules on HTTP requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Vec<BTreeMap<String, Value>>>,
    /// Not honoured by this version, and therefore refused: when the policy holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Not honoured by this version, and therefore refused: until when the policy holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// Nothing is reported of a policy yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {}

impl Spec for PolicySpec {
    const KIND: &'static str = "Policy";
    type Status = PolicyStatus;
}
