//! Cluster: a group of nodes, how they enrol, and what they may assert.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Spec;

/// A Kubernetes cluster or a group of hosts. Names are unique in the fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterSpec {
    /// The namespace of its workloads; nothing its nodes report lies outside the subtree.
    pub namespace: String,
    /// Where it is: `@region` of its workloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Its network realm: clusters of one realm have addresses unique among each other and routed without NAT.
    /// Absent means a realm of its own, named like the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
    /// Prefixes from which its agents may declare where workloads are. Absent means none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub address_ranges: Vec<IpNet>,
    /// Addresses from which its workloads appear to others (NAT egress). They are never external.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub nat_addresses: Vec<IpAddr>,
    /// Namespaces that its nodes may assert, relative to the cluster's (`shop`, `shop/**`) or `**`.
    /// Absent means the whole subtree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<Vec<String>>,
    /// User label keys that its nodes may assert; `*` ends a key as a prefix match. Absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_keys: Option<Vec<String>>,
}

impl ClusterSpec {
    /// The realm that holds for a cluster of this name.
    pub fn realm_of<'a>(&'a self, name: &'a str) -> &'a str {
        self.realm.as_deref().unwrap_or(name)
    }
}

/// The nodes of a cluster, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Enrolled nodes.
    pub nodes: u32,
    /// Nodes with a live Sync stream.
    pub connected: u32,
    /// Join tokens that are neither spent nor expired.
    pub open_join_tokens: u32,
}

impl Spec for ClusterSpec {
    const KIND: &'static str = "Cluster";
    type Status = ClusterStatus;
}
