//! The fleet in memory: what the documents say, indexed for views, explanations and flows.
//!
//! Pure: documents and key rings go in (see [`document`]), answers come out. It is rebuilt from the store at start and
//! then follows the change feed; nothing is written from here. It must not know streams or the database.

pub(crate) mod compiled;
pub(crate) mod departed;
pub mod document;
pub mod reference;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use api::kind::cluster::ClusterSpec;
use api::kind::revocation::RevocationSpec;
use identity::ids::{Instance, NodeId, Slot, WorkloadRef};
use ipnet::IpNet;
use jiff::Timestamp;
use policy::attribute::Identity;
use policy::namespace::{ExternalId, NamespacePath, PolicyId};
use policy::posture::PostureTree;
use policy::rules::RuleSet;

use self::compiled::Compiled;
use self::departed::Departed;
use crate::generations::Ring;
use crate::place::claims::{Claims, Owner};
use crate::place::{Declared, ServiceEntry};
use crate::view::{Changed, SharedViews};

/// A secret of the fleet: the key that filters SYNs. `Debug` shows no byte of it.
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct FleetKey(pub [u8; 16]);

impl std::fmt::Debug for FleetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FleetKey(…)")
    }
}

/// An enrolled node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// Its name.
    pub name: String,
    /// The cluster it enrolled into.
    pub cluster: String,
    /// Addresses that its workloads share, as granted.
    pub addresses: BTreeSet<IpAddr>,
}

/// A placed workload.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadEntry {
    /// UUID of the instance.
    pub uid: String,
    /// Its name on the node.
    pub name: String,
    /// Node and slot.
    pub at: WorkloadRef,
    /// U.
    pub instance: Instance,
    /// Its class.
    pub class: u32,
    /// Its attributes.
    pub identity: Arc<Identity>,
    /// Addresses of its own, as granted.
    pub addresses: BTreeSet<IpAddr>,
    /// The revision at which its present placement was made.
    pub placed_revision: u64,
}

impl WorkloadEntry {
    /// `/namespace/name`.
    pub fn path(&self) -> String {
        match self.identity.namespace().is_root() {
            true => format!("/{}", self.name),
            false => format!("{}/{}", self.identity.namespace(), self.name),
        }
    }

    fn attribute(&self, key: &str) -> &str {
        self.identity.attributes().get(key).unwrap_or_default()
    }

    /// Its cluster's name.
    pub fn cluster(&self) -> &str {
        self.attribute("@cluster")
    }

    /// Its node's name.
    pub fn node(&self) -> &str {
        self.attribute("@node")
    }
}

/// A revocation in force, or one that has expired and is not yet deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct RevocationEntry {
    /// The object's uid.
    pub uid: String,
    /// The revision since which it says so.
    pub since: u64,
    /// What its author wrote.
    pub spec: RevocationSpec,
}

/// A policy as nodes get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyEntry {
    /// Its namespace and name.
    pub id: PolicyId,
    /// The name of its object in views.
    pub key: Arc<str>,
    /// The object: the API's document without history and status.
    pub object: Arc<[u8]>,
}

/// An ExternalNetwork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkEntry {
    /// Its namespace and name.
    pub id: ExternalId,
    /// Its prefixes.
    pub cidrs: Vec<IpNet>,
}

/// All of it, at one revision.
#[derive(Debug)]
pub struct Fleet {
    pub(crate) trust_domain: String,
    pub(crate) revision: u64,
    pub(crate) now: Timestamp,
    pub(crate) postures: PostureTree,
    pub(crate) compiled: Compiled,
    pub(crate) policies: BTreeMap<PolicyId, PolicyEntry>,
    pub(crate) networks: BTreeMap<ExternalId, NetworkEntry>,
    pub(crate) services: BTreeMap<u32, ServiceEntry>,
    pub(crate) clusters: BTreeMap<String, ClusterSpec>,
    pub(crate) revocations: BTreeMap<String, RevocationEntry>,
    pub(crate) nodes: BTreeMap<NodeId, NodeEntry>,
    pub(crate) workloads: BTreeMap<WorkloadRef, WorkloadEntry>,
    pub(crate) departed: Departed,
    pub(crate) by_uid: HashMap<(NodeId, String), WorkloadRef>,
    pub(crate) claims: Claims,
    pub(crate) node_keys: BTreeMap<NodeId, Ring<[u8; 32]>>,
    pub(crate) fleet_keys: Ring<FleetKey>,
    /// Parts of views that many nodes share, until something changes.
    pub(crate) shared: Mutex<SharedViews>,
}

impl Fleet {
    /// An empty fleet.
    pub fn new(trust_domain: &str, now: Timestamp) -> Self {
        Self {
            trust_domain: trust_domain.to_owned(),
            revision: 0,
            now,
            postures: PostureTree::new(),
            compiled: Compiled::default(),
            policies: BTreeMap::new(),
            networks: BTreeMap::new(),
            services: BTreeMap::new(),
            clusters: BTreeMap::new(),
            revocations: BTreeMap::new(),
            nodes: BTreeMap::new(),
            workloads: BTreeMap::new(),
            departed: Departed::default(),
            by_uid: HashMap::new(),
            claims: Claims::default(),
            node_keys: BTreeMap::new(),
            fleet_keys: Ring::default(),
            shared: Mutex::default(),
        }
    }

    /// The last revision at which anything that nodes are told has changed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Everything up to `revision` has been put in.
    pub fn set_revision(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// The clock moved. Returns whether that changes what holds: a revocation expired, a posture's time came.
    pub fn set_now(&mut self, now: Timestamp) -> bool {
        let before = std::mem::replace(&mut self.now, now);
        let expired = self.revocations.values().filter_map(|r| r.spec.expires).any(|at| before < at && at <= now);
        let posture = self.postures.next_change(before).is_some_and(|at| at <= now);
        if posture {
            self.refresh_postures();
        }
        if expired || posture {
            self.forget_shared(Changed::Fleet);
        }
        expired || posture
    }

    /// The next time at which [`Fleet::set_now`] would change something.
    pub fn next_change(&self) -> Option<Timestamp> {
        let expiries = self.revocations.values().filter_map(|r| r.spec.expires).filter(|at| *at > self.now);
        expiries.chain(self.postures.next_change(self.now)).min()
    }

    /// Replaces a node's keys; `None` forgets them.
    pub fn set_node_keys(&mut self, node: NodeId, ring: Option<Ring<[u8; 32]>>) {
        let before = match ring.clone() {
            Some(ring) => self.node_keys.insert(node, ring),
            None => self.node_keys.remove(&node),
        };
        if before != ring {
            self.forget_shared(Changed::Fleet);
        }
    }

    /// Replaces the fleet keys.
    pub fn set_fleet_keys(&mut self, ring: Ring<FleetKey>) {
        if self.fleet_keys != ring {
            self.forget_shared(Changed::Fleet);
        }
        self.fleet_keys = ring;
    }

    /// Nodes by number.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeEntry)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// One node.
    pub fn node(&self, id: NodeId) -> Option<&NodeEntry> {
        self.nodes.get(&id)
    }

    /// The number of a node by its name.
    pub fn node_id(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().find(|(_, node)| node.name == name).map(|(id, _)| *id)
    }

    /// One cluster.
    pub fn cluster(&self, name: &str) -> Option<&ClusterSpec> {
        self.clusters.get(name)
    }

    /// A node with its cluster.
    pub fn node_with_cluster(&self, id: NodeId) -> Option<(&NodeEntry, &ClusterSpec)> {
        let node = self.nodes.get(&id)?;
        Some((node, self.clusters.get(&node.cluster)?))
    }

    /// The network realm of a node.
    pub fn realm_of(&self, id: NodeId) -> Option<&str> {
        let (node, cluster) = self.node_with_cluster(id)?;
        Some(cluster.realm_of(&node.cluster))
    }

    /// All placed workloads.
    pub fn workloads(&self) -> impl Iterator<Item = &WorkloadEntry> + Clone {
        self.workloads.values()
    }

    /// The placed workloads of one node.
    pub fn workloads_of(&self, node: NodeId) -> impl Iterator<Item = &WorkloadEntry> {
        let at = |slot| WorkloadRef { node, slot: Slot(slot) };
        self.workloads.range(at(0)..=at(u16::MAX)).map(|(_, workload)| workload)
    }

    /// One workload by its name on the wire.
    pub fn workload(&self, at: WorkloadRef) -> Option<&WorkloadEntry> {
        self.workloads.get(&at)
    }

    /// One workload, or the last that had its number: whose a report of a flow is.
    pub fn workload_or_departed(&self, at: WorkloadRef) -> Option<&WorkloadEntry> {
        self.workloads.get(&at).or_else(|| self.departed.get(at))
    }

    /// One workload by its node and uid.
    pub fn workload_of(&self, node: NodeId, uid: &str) -> Option<&WorkloadEntry> {
        self.workloads.get(self.by_uid.get(&(node, uid.to_owned()))?)
    }

    /// The rules in force.
    pub fn rules(&self) -> &RuleSet {
        self.compiled.rules()
    }

    /// Who holds an address in a realm.
    pub fn holder(&self, realm: &str, address: IpAddr) -> Option<Owner> {
        self.claims.holder(realm, address)
    }

    /// How messages call the holder of an address.
    pub fn owner_name(&self, owner: Owner) -> String {
        match owner {
            Owner::Node(id) => {
                self.nodes.get(&id).map_or_else(|| format!("node {id}"), |n| format!("node `{}`", n.name))
            }
            Owner::Workload(at) => {
                self.workloads.get(&at).map_or_else(|| format!("workload {at}"), |w| format!("workload {}", w.path()))
            }
        }
    }

    /// The external networks that cover an address which a policy of some namespace can name. Fleet addresses of the
    /// realm are in none (rule 9).
    pub fn networks_of(&self, realm: &str, address: IpAddr) -> BTreeSet<ExternalId> {
        let address = address.to_canonical();
        let declared = self.declared();
        if crate::place::fleet_addresses(realm, &declared).iter().any(|prefix| prefix.contains(&address)) {
            return BTreeSet::new();
        }
        let covering = self.networks.values().filter(|n| n.cidrs.iter().any(|c| c.contains(&address)));
        covering.map(|n| n.id.clone()).collect()
    }

    /// The revocation that takes a workload out now, if any: its name and entry.
    pub fn revocation_of(&self, workload: &WorkloadEntry) -> Option<(&str, &RevocationEntry)> {
        self.in_force().find(|(_, revocation)| {
            let target = &revocation.spec.target;
            let node = self.nodes.get(&workload.at.node);
            target.workload.as_ref().is_some_and(|text| reference::fits(text, workload))
                || target.spiffe.as_deref().is_some_and(|id| workload.identity.spiffe() == Some(id))
                || target.node.as_ref().is_some_and(|name| node.is_some_and(|n| n.name == *name))
                || target.cluster.as_ref().is_some_and(|name| node.is_some_and(|n| n.cluster == *name))
        })
    }

    /// The revocation that takes a whole node out now, if any.
    pub fn revocation_of_node(&self, node: &NodeEntry) -> Option<&str> {
        let hit = self.in_force().find(|(_, revocation)| {
            let target = &revocation.spec.target;
            target.node.as_deref() == Some(&node.name) || target.cluster.as_deref() == Some(&node.cluster)
        });
        hit.map(|(name, _)| name)
    }

    /// The name of the Revocation that has this uid.
    pub fn revocation_by_uid(&self, uid: &str) -> Option<&str> {
        self.revocations.iter().find(|(_, r)| r.uid == uid).map(|(name, _)| name.as_str())
    }

    /// Whether a cluster is revoked now.
    pub fn is_cluster_revoked(&self, cluster: &str) -> bool {
        self.in_force().any(|(_, r)| r.spec.target.cluster.as_deref() == Some(cluster))
    }

    fn in_force(&self) -> impl Iterator<Item = (&str, &RevocationEntry)> {
        let live = self.revocations.iter().filter(|(_, r)| r.spec.expires.is_none_or(|at| at > self.now));
        live.map(|(name, revocation)| (name.as_str(), revocation))
    }

    /// What places are computed from.
    pub(crate) fn declared(&self) -> Declared<'_> {
        Declared { services: &self.services, clusters: &self.clusters, claims: &self.claims, namespace_of: self }
    }

    /// Tells the rules what holds in each namespace that says something.
    pub(crate) fn refresh_postures(&mut self) {
        let declared: Vec<NamespacePath> = self.postures.declared().map(|(path, _)| path.clone()).collect();
        for path in declared {
            let posture = self.postures.effective(&path, self.now);
            if self.rules().stated_posture(&path) != Some(posture) {
                self.compiled.set_posture(path, Some(posture));
            }
        }
    }

    /// Something changed that several nodes are told.
    pub(crate) fn forget_shared(&mut self, changed: Changed) {
        self.shared.get_mut().unwrap_or_else(PoisonError::into_inner).forget(changed);
    }
}

impl crate::place::NamespaceOf for Fleet {
    fn namespace_of(&self, owner: Owner) -> Option<NamespacePath> {
        match owner {
            Owner::Workload(at) => self.workloads.get(&at).map(|w| w.identity.namespace().clone()),
            Owner::Node(id) => {
                let (_, cluster) = self.node_with_cluster(id)?;
                NamespacePath::new(&cluster.namespace).ok()
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
