//! What one node must know: `view(node)`, a flat map of objects (`proto/stolos/sync/v1/sync.proto`).
//!
//! Pure: from the fleet to bytes. A delta is the difference of two views; there is no second way to compute one.

pub mod layer;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use api::sync as wire;
use identity::ids::{NodeId, WorkloadRef};
use policy::attribute::Identity;
use policy::decide::SideVerdict;
use policy::namespace::NamespacePath;
use policy::policy::{Action, Mode, Side};
use policy::posture::OnAgentLoss;
use prost::Message;

use crate::fleet::{Fleet, WorkloadEntry};
use crate::place::claims::Owner;
use crate::place::{self, Target};
use crate::view::layer::{Layer, View};

/// Layers of views that several nodes share, until something in them changes.
#[derive(Debug, Default)]
pub(crate) struct SharedViews {
    fleet: Option<Arc<Layer>>,
    realms: BTreeMap<String, Arc<Layer>>,
    /// By the clusters' namespace.
    clusters: BTreeMap<NamespacePath, Arc<Layer>>,
}

impl SharedViews {
    /// A document of this kind has changed, or its keys and postures have.
    pub(crate) fn forget(&mut self, kind: Changed) {
        match kind {
            Changed::Policies => self.clusters.clear(),
            Changed::Fleet => self.fleet = None,
            Changed::Places => (self.fleet, self.realms) = (None, BTreeMap::new()),
            Changed::All => *self = Self::default(),
        }
    }
}

/// What of the views has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Policies or ExternalNetworks.
    Policies,
    /// What every node is told alike.
    Fleet,
    /// That, and who is at which address.
    Places,
    /// Anything.
    All,
}

impl Fleet {
    /// Everything that a node must know at the present revision; `None` for a node that is not enrolled or whose cluster
    /// is gone.
    pub fn view(&self, node: NodeId) -> Option<View> {
        let mut own = Layer::new();
        let namespace = self.put_settings(&mut own, node)?;
        let locals: Vec<&WorkloadEntry> = self.workloads_of(node).collect();
        self.put_locals(&mut own, &locals);
        let mut classes: Vec<u32> = locals.iter().map(|local| local.class).collect();
        classes.sort_by(layer::by_text);
        classes.dedup();
        let told = |class: u32| Some((class, Arc::clone(self.compiled.told(class)?)));
        let sides = classes.into_iter().filter_map(told).collect();
        let (fleet, realm, cluster) = self.shared(self.realm_of(node)?, &namespace);
        Some(View { fleet, realm, cluster, node: Arc::new(own), sides })
    }

    /// What every node, every node of a realm and every node of a cluster is told: computed when it has changed.
    fn shared(&self, realm: &str, cluster: &NamespacePath) -> (Arc<Layer>, Arc<Layer>, Arc<Layer>) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let made = |put: &dyn Fn(&mut Layer)| {
            let mut layer = Layer::new();
            put(&mut layer);
            Arc::new(layer)
        };
        let fleet = shared.fleet.get_or_insert_with(|| made(&|layer| self.put_fleet(layer)));
        let fleet = Arc::clone(fleet);
        let of_realm = shared.realms.entry(realm.to_owned());
        let of_realm = Arc::clone(of_realm.or_insert_with(|| made(&|layer| self.put_places(layer, realm))));
        let of_cluster = shared.clusters.entry(cluster.clone());
        let of_cluster = of_cluster.or_insert_with(|| made(&|layer| self.put_policies(layer, cluster)));
        (fleet, of_realm, Arc::clone(of_cluster))
    }

    fn put_fleet(&self, view: &mut Layer) {
        let classes = self.put_peers(view);
        put_classes(view, &classes);
        self.put_namespaces(view, &classes);
        self.put_services(view);
        self.put_keys(view);
    }

    fn put_locals(&self, view: &mut Layer, locals: &[&WorkloadEntry]) {
        for local in locals {
            let revocation = self.revocation_of(local);
            let placed = wire::PlacedWorkload {
                uid: local.uid.clone(),
                slot: u32::from(local.at.slot.0),
                instance: local.instance.0,
                class: local.class,
                namespace: local.identity.namespace().to_string(),
                name: local.name.clone(),
                revoked: revocation.is_some(),
                revocation_uid: revocation.map(|(_, r)| r.uid.clone()).unwrap_or_default(),
            };
            insert(view, format!("workload/{}", local.uid), &placed);
        }
    }

    fn put_settings(&self, view: &mut Layer, id: NodeId) -> Option<NamespacePath> {
        let (node, cluster) = self.node_with_cluster(id)?;
        let namespace = NamespacePath::new(&cluster.namespace).ok()?;
        let generation = self.node_keys.get(&id).and_then(|ring| ring.sending()).map_or(0, |(g, _)| g);
        let settings = wire::Settings {
            node_id: id.get(),
            trust_domain: self.trust_domain.clone(),
            cluster: node.cluster.clone(),
            cluster_namespace: namespace.to_string(),
            region: cluster.region.clone().unwrap_or_default(),
            realm: cluster.realm_of(&node.cluster).to_owned(),
            identity_scope: Vec::new(),
            own_key_generation: u32::from(generation),
        };
        insert(view, "settings".to_owned(), &settings);
        Some(namespace)
    }

    /// All workloads of the trust domain; returns their classes.
    fn put_peers(&self, view: &mut Layer) -> BTreeMap<u32, &Identity> {
        let mut classes = BTreeMap::new();
        for workload in self.workloads() {
            classes.insert(workload.class, &*workload.identity);
            let revocation = self.revocation_of(workload);
            let peer = wire::Peer {
                node: workload.at.node.get(),
                slot: u32::from(workload.at.slot.0),
                instance: workload.instance.0,
                class: workload.class,
                name: workload.name.clone(),
                namespace: workload.identity.namespace().to_string(),
                node_name: workload.node().to_owned(),
                revoked: revocation.is_some(),
                revocation_uid: revocation.map(|(_, r)| r.uid.clone()).unwrap_or_default(),
            };
            insert(view, format!("peer/{}", workload.at), &peer);
        }
        classes
    }

    /// The effective posture of every namespace that says something or in which a workload lives.
    fn put_namespaces(&self, view: &mut Layer, classes: &BTreeMap<u32, &Identity>) {
        let declared = self.postures.declared().map(|(path, _)| path);
        let paths: BTreeSet<&NamespacePath> = declared.chain(classes.values().map(|i| i.namespace())).collect();
        for path in paths {
            let posture = self.rules().posture(path);
            let object = wire::NamespacePosture {
                path: path.to_string(),
                enforce: posture.mode == Mode::Enforce,
                ingress_allow: posture.ingress == Action::Allow,
                egress_allow: posture.egress == Action::Allow,
                encryption: posture.encryption.word().to_owned(),
                hold_on_agent_loss: posture.on_agent_loss == OnAgentLoss::Hold,
            };
            insert(view, format!("namespace/{path}"), &object);
        }
    }

    /// Policies that can speak for a workload of the cluster, and the networks that they can name.
    fn put_policies(&self, view: &mut Layer, cluster: &NamespacePath) {
        let related = |namespace: &NamespacePath| namespace.contains(cluster) || cluster.contains(namespace);
        for policy in self.policies.values().filter(|p| related(p.id.namespace())) {
            view.insert(Arc::clone(&policy.key), Arc::clone(&policy.object));
        }
        for network in self.networks.values().filter(|n| related(n.id.namespace())) {
            let object = wire::Network {
                namespace: network.id.namespace().to_string(),
                name: network.id.name().to_owned(),
                cidrs: network.cidrs.iter().map(ToString::to_string).collect(),
            };
            insert(view, format!("network/{}", network.id), &object);
        }
    }

    fn put_places(&self, view: &mut Layer, realm: &str) {
        let declared = self.declared();
        let (places, _) = place::places(realm, &declared);
        for (key, place) in places {
            insert(view, key, &wire_place(&place));
        }
        for prefix in place::fleet_addresses(realm, &declared) {
            insert(view, format!("fleet/{prefix}"), &wire::FleetAddress { cidr: prefix.to_string() });
        }
    }

    fn put_services(&self, view: &mut Layer) {
        let declared = self.declared();
        let workloads = self.workloads().map(|w| (w.at, &*w.identity));
        for service in self.services.values() {
            let (members, _) = place::members(service, workloads.clone(), &declared);
            let object = wire::Service {
                id: service.id,
                namespace: service.namespace.to_string(),
                name: service.name.clone(),
                members: members.workloads.into_iter().map(peer_ref).collect(),
                external_endpoints: members.external.into_iter().collect(),
                claimed_udp_ports: place::claimed_udp_ports(&service.spec).into_iter().map(u32::from).collect(),
            };
            insert(view, format!("service/{}", service.id), &object);
        }
    }

    fn put_keys(&self, view: &mut Layer) {
        for (node, ring) in &self.node_keys {
            for (generation, key, send) in ring.told() {
                let (node, generation) = (node.get(), u32::from(generation));
                let object = wire::NodeKey { node, generation, public: key.to_vec(), send };
                insert(view, format!("node-key/{node}/{generation}"), &object);
            }
        }
        for (generation, key, send) in self.fleet_keys.told() {
            let object = wire::FleetKey { generation: u32::from(generation), key: key.0.to_vec(), send };
            insert(view, format!("fleet-key/{generation}"), &object);
        }
    }
}

fn insert(view: &mut Layer, key: String, object: &impl Message) {
    view.insert(key.into(), object.encode_to_vec().into());
}

fn put_classes(view: &mut Layer, classes: &BTreeMap<u32, &Identity>) {
    for (id, identity) in classes {
        let attributes = identity.attributes().iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        insert(view, format!("class/{id}"), &wire::Class { id: *id, attributes });
    }
}

/// The wire form of a workload's name.
pub fn peer_ref(at: WorkloadRef) -> wire::PeerRef {
    wire::PeerRef { node: at.node.get(), slot: u32::from(at.slot.0) }
}

/// What the side of `peer_class` says of `local_class`, without the names of policies; `None` where it says what its
/// posture says for every port.
pub(crate) fn side_object(peer_class: u32, local_class: u32, side: Side, verdict: &SideVerdict) -> Option<Vec<u8>> {
    if verdict.ranges.iter().all(|range| range.outcome.action == verdict.default) {
        return None;
    }
    let outcomes = verdict.ranges.iter().map(|range| wire::peer_side::PortOutcome {
        protocol: u32::from(range.protocol),
        first: u32::from(range.first),
        last: u32::from(range.last),
        allow: range.outcome.action == Action::Allow,
    });
    let peer_is_client = side == Side::Egress;
    let object = wire::PeerSide { peer_class, local_class, peer_is_client, outcomes: outcomes.collect() };
    Some(object.encode_to_vec())
}

fn wire_place(place: &place::Place) -> wire::Place {
    use wire::place::Target as To;
    let address = match place.address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let target = match place.target {
        Target::Owner(Owner::Node(node)) => Some(To::Node(node.get())),
        Target::Owner(Owner::Workload(at)) => Some(To::Workload(peer_ref(at))),
        Target::Service(id) => Some(To::Service(id)),
        Target::Declared => None,
    };
    let (protocol, port) = place.port.unwrap_or((0, 0));
    wire::Place {
        address,
        protocol: u32::from(protocol),
        port: u32::from(port),
        declared_only: target.is_none(),
        target,
        real_port: u32::from(place.real_port.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests;
