//! Which workloads belong at which address, for each network realm (PROTOCOL rules 1 and 9).
//!
//! Pure: from Services, Clusters and the addresses that agents declare to the places of a realm. It does not know
//! nodes' views or documents' storage. Start reading at [`places`].

pub mod claims;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::kind::cluster::ClusterSpec;
use api::kind::service::{Protocol, ServiceAddress, ServiceSpec};
use identity::ids::WorkloadRef;
use ipnet::IpNet;
use policy::attribute::Identity;
use policy::code::{Code, enrolment as code};
use policy::namespace::NamespacePath;
use policy::selector::Selector;

use self::claims::{Claims, Owner};

/// Where somebody may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address.
    pub address: IpAddr,
    /// IP protocol and port; `None` = the address alone.
    pub port: Option<(u8, u16)>,
    /// Who.
    pub target: Target,
    /// The port behind a Service's address, where it is another one.
    pub real_port: Option<u16>,
}

/// Who may answer at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any workload of the node, or that workload only.
    Owner(Owner),
    /// Any member of the Service.
    Service(u32),
    /// Nobody: the address of a gateway or NAT of the fleet.
    Declared,
}

/// A Service as places need it.
#[derive(Clone, Debug)]
pub struct ServiceEntry {
    /// Its number: interned, so that the smaller one was there earlier.
    pub id: u32,
    /// Where it lives.
    pub namespace: NamespacePath,
    /// Its name there.
    pub name: String,
    /// What its author wrote.
    pub spec: ServiceSpec,
    /// The member selectors, parsed.
    pub selectors: Vec<Selector>,
}

/// Who stands behind a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Workloads of the fleet.
    pub workloads: BTreeSet<WorkloadRef>,
    /// `address:port` outside the fleet.
    pub external: BTreeSet<String>,
}

/// Something that two parties declare differently, or that one may not declare.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The code's page says what to do.
    pub code: &'static str,
    /// What it is about.
    pub object: String,
    /// One sentence.
    pub message: String,
}

impl Conflict {
    fn new(code: &Code, object: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.id, object: object.into(), message: message.into() }
    }
}

/// What places are computed from.
#[derive(Clone, Copy, Debug)]
pub struct Declared<'a> {
    /// Services, by number.
    pub services: &'a BTreeMap<u32, ServiceEntry>,
    /// Clusters, by name.
    pub clusters: &'a BTreeMap<String, ClusterSpec>,
    /// Addresses that agents have declared and that their Clusters grant.
    pub claims: &'a Claims,
    /// Whose the claims are.
    pub namespace_of: &'a dyn NamespaceOf,
}

/// Says where an owner lives.
pub trait NamespaceOf: std::fmt::Debug {
    /// The workload's namespace, or that of the node's cluster.
    fn namespace_of(&self, owner: Owner) -> Option<NamespacePath>;
}

/// The places of a realm, by the name of their object (`place/ADDRESS`, `place/ADDRESS/PROTOCOL/PORT`), and what could
/// not be one. Order of precedence: Services (the earlier first), declared addresses of nodes and workloads, NAT.
pub fn places(realm: &str, declared: &Declared<'_>) -> (BTreeMap<String, Place>, Vec<Conflict>) {
    let mut places = BTreeMap::new();
    let mut conflicts = Vec::new();
    for service in declared.services.values() {
        for address in service.spec.addresses.iter().filter(|a| is_in_realm(a, realm)) {
            let place = service_place(service.id, address);
            let key = key(&place);
            let object = format!("Service {}:{}", service.namespace, service.name);
            if let Some(owner) = foreign_holder(realm, service, place.address, declared) {
                let message = format!("{} belongs to {owner:?} of another namespace", place.address);
                conflicts.push(Conflict::new(&code::ADDRESS_TAKEN, object, message));
            } else if let Some(Target::Service(other)) = places.get(&key).map(|p: &Place| p.target) {
                if other != service.id {
                    let holder = declared.services.get(&other).map_or("", |s| s.name.as_str());
                    let message = format!("{} belongs to the earlier Service `{holder}`", place.address);
                    conflicts.push(Conflict::new(&code::ADDRESS_TAKEN, object, message));
                }
            } else {
                places.insert(key, place);
            }
        }
    }
    let owned = declared.claims.held(realm).map(|(address, owner)| (address, Target::Owner(owner)));
    let nat = declared.clusters.values().flat_map(|c| c.nat_addresses.iter().map(|a| (*a, Target::Declared)));
    for (address, target) in owned.chain(nat) {
        let place = Place { address: address.to_canonical(), port: None, target, real_port: None };
        places.entry(key(&place)).or_insert(place);
    }
    (places, conflicts)
}

/// Addresses of the fleet as one realm sees them: never external (rule 9).
pub fn fleet_addresses(realm: &str, declared: &Declared<'_>) -> BTreeSet<IpNet> {
    let owned = declared.claims.held(realm).map(|(address, _)| address);
    let nat = declared.clusters.values().flat_map(|c| c.nat_addresses.iter().copied());
    owned.chain(nat).map(|address| IpNet::from(address.to_canonical())).collect()
}

/// The members of a Service: workloads that a selector means, and what stands at its endpoints.
pub fn members<'a>(
    service: &ServiceEntry,
    workloads: impl Iterator<Item = (WorkloadRef, &'a Identity)> + Clone,
    declared: &Declared<'_>,
) -> (Members, Vec<Conflict>) {
    let mut members = Members::default();
    let mut conflicts = Vec::new();
    for (at, identity) in workloads.clone() {
        if service.selectors.iter().any(|s| s.matches_workload(&service.namespace, identity)) {
            members.workloads.insert(at);
        }
    }
    let realms = endpoint_realms(service, declared.clusters);
    for endpoint in &service.spec.members.endpoints {
        let address = endpoint.address.to_canonical();
        let holders: Vec<Owner> =
            declared.claims.realms_of(address).filter(|(r, _)| realms.contains(r)).map(|(_, owner)| owner).collect();
        match holders[..] {
            [] => {
                members.external.insert(std::net::SocketAddr::new(address, endpoint.port).to_string());
            }
            [Owner::Workload(at)] => {
                members.workloads.insert(at);
            }
            [Owner::Node(node)] => {
                members.workloads.extend(workloads.clone().map(|(at, _)| at).filter(|at| at.node == node));
            }
            [..] => {
                let object = format!("Service {}:{}", service.namespace, service.name);
                let message = format!("the endpoint {address} exists in {} network realms", holders.len());
                conflicts.push(Conflict::new(&code::SERVICE_AMBIGUOUS, object, message));
            }
        }
    }
    (members, conflicts)
}

/// Splits what an agent declares into what its Cluster grants and what it refuses.
pub fn granted(
    cluster: &ClusterSpec,
    wanted: impl IntoIterator<Item = IpAddr>,
) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
    let can_be_held = |a: &IpAddr| !(a.is_loopback() || a.is_unspecified() || a.is_multicast());
    let covered = |a: &IpAddr| cluster.address_ranges.iter().any(|range| range.contains(a));
    wanted.into_iter().map(|a| a.to_canonical()).partition(|a| can_be_held(a) && covered(a))
}

/// UDP ports that a Service lets be authorized by place alone (rule 17); `udp` without a port means none.
pub fn claimed_udp_ports(service: &ServiceSpec) -> BTreeSet<u16> {
    service.claimed.iter().filter_map(|text| text.strip_prefix("udp/")?.parse().ok()).collect()
}

/// The name of a place's object.
pub fn key(place: &Place) -> String {
    match place.port {
        Some((protocol, port)) => format!("place/{}/{protocol}/{port}", place.address),
        None => format!("place/{}", place.address),
    }
}

fn service_place(id: u32, address: &ServiceAddress) -> Place {
    let protocol = match address.protocol {
        Protocol::Tcp => policy::port::protocol::TCP,
        Protocol::Udp => policy::port::protocol::UDP,
    };
    Place {
        address: address.address.to_canonical(),
        port: address.port.map(|port| (protocol, port)),
        target: Target::Service(id),
        real_port: address.target_port,
    }
}

fn is_in_realm(address: &ServiceAddress, realm: &str) -> bool {
    address.realms.as_ref().is_none_or(|realms| realms.iter().any(|r| r == realm))
}

/// The agent-declared holder of a Service's address, if it belongs to somebody else: nobody takes over the address of a
/// neighbour by declaring a Service there.
fn foreign_holder(realm: &str, service: &ServiceEntry, address: IpAddr, declared: &Declared<'_>) -> Option<Owner> {
    let owner = declared.claims.holder(realm, address)?;
    let theirs = declared.namespace_of.namespace_of(owner)?;
    let related = theirs.contains(&service.namespace) || service.namespace.contains(&theirs);
    (!related).then_some(owner)
}

/// The realms in which a Service's endpoint addresses are looked up: those that its addresses name, else those of the
/// clusters that its namespace belongs to or contains. An address elsewhere is somebody else's.
fn endpoint_realms<'a>(service: &'a ServiceEntry, clusters: &'a BTreeMap<String, ClusterSpec>) -> BTreeSet<&'a str> {
    let named: BTreeSet<&str> =
        service.spec.addresses.iter().flat_map(|a| &a.realms).flatten().map(String::as_str).collect();
    if !named.is_empty() {
        return named;
    }
    let related = clusters.iter().filter(|(_, cluster)| {
        NamespacePath::new(&cluster.namespace)
            .is_ok_and(|ns| ns.contains(&service.namespace) || service.namespace.contains(&ns))
    });
    related.map(|(name, cluster)| cluster.realm_of(name)).collect()
}

#[cfg(test)]
mod tests;
