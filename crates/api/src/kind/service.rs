//! Service: the addresses by which clients reach a set of workloads, and who stands behind them.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Spec;
use super::namespace::words;

/// Most addresses of one Service.
pub const ADDRESSES_MAX: usize = 256;
/// Most member selectors plus endpoints of one Service.
pub const MEMBERS_MAX: usize = 1024;

/// The addresses of a Service and its members. A client that dials one of the addresses accepts an answer only from a
/// member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Virtual addresses, load balancers, gateways that forward to the members.
    pub addresses: Vec<ServiceAddress>,
    /// Who may answer.
    pub members: Members,
    /// UDP ports that are authorized by place, without announcement, as in `udp/53`; such flows are marked claimed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claimed: Vec<String>,
}

/// One address by which clients reach the Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAddress {
    /// What clients dial.
    #[schemars(with = "String")]
    pub address: IpAddr,
    /// The port that clients dial; absent means every port of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Transport of the port.
    #[serde(default)]
    pub protocol: Protocol,
    /// The port that the members' sockets are bound to; absent means the dialled one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub target_port: Option<u16>,
    /// Network realms in which the address means this Service; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realms: Option<Vec<String>>,
}

words! {
    /// A transport that has ports.
    #[derive(Default)]
    Protocol {
        /// TCP.
        #[default]
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
    }
}

/// Who stands behind the addresses. At least one selector or endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Members {
    /// Workloads, by selector; without `@namespace` only those in the Service's own subtree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selectors: Vec<String>,
    /// Members by address, for what runs no agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
}

/// One member by address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// Where it is.
    #[schemars(with = "String")]
    pub address: IpAddr,
    /// Its port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// Who the members are now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Member workloads, `/namespace/name`, and members outside the fleet, `address:port`; in order.
    #[serde(default)]
    pub members: Vec<String>,
}

impl Spec for ServiceSpec {
    const KIND: &'static str = "Service";
    type Status = ServiceStatus;
}
