//! ExternalNetwork: addresses outside the fleet, under a name.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Spec;

/// Most prefixes of one network.
pub const CIDRS_MAX: usize = 1024;

/// Addresses outside the fleet. Addresses of the fleet itself are never external, whatever a prefix covers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalNetworkSpec {
    /// Prefixes, as in `203.0.113.0/24` or `2001:db8::/32`.
    #[schemars(with = "Vec<String>")]
    pub cidrs: Vec<IpNet>,
    /// Not honoured by this version, and therefore refused: names whose addresses belong to the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_names: Option<Vec<String>>,
}

/// What the system found out about a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalNetworkStatus {
    /// Addresses of the fleet that the prefixes cover: those stay identities and never match this network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub covers_fleet: Vec<String>,
}

impl Spec for ExternalNetworkSpec {
    const KIND: &'static str = "ExternalNetwork";
    type Status = ExternalNetworkStatus;
}
