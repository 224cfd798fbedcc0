//! A fleet without a server: hands each node's datapath the [`State`] that the control plane would have led to.
//!
//! Describes workloads, rules and places by what tests talk about and derives slots, classes, keys and verdicts. Each
//! cluster of the world is a network realm of its own. Start at [`Fleet::of`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use datapath::state::{
    ClassId, Direction, Key128, LocalWorkload, Network, PairKey, PairVerdicts, Peer, Place, PlaceTarget, RangeVerdict,
    State, Verdict,
};
use identity::ids::{Instance, NodeId, Slot, WorkloadRef};
use ipnet::IpNet;
use policy::reason::Reason;

use crate::ip;
use crate::node::{Node, Workload};
use crate::world::World;

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// The slot of every node's host workload.
pub const HOST_SLOT: Slot = Slot(1);

/// All nodes, workloads, rules and places of a world.
#[derive(Clone, Debug)]
pub struct Fleet {
    nodes: BTreeMap<String, FleetNode>,
    workloads: Vec<Member>,
    classes: BTreeMap<String, ClassId>,
    externals: BTreeMap<String, (ClassId, Vec<IpNet>)>,
    rules: Vec<Rule>,
    services: Vec<Service>,
    declared: Vec<IpAddr>,
    pair_keys: BTreeMap<(NodeId, NodeId), Key128>,
    fleet_key: Key128,
    /// Refusals are carried out (the default) or only recorded.
    pub enforce: bool,
    /// The host workloads are enforced like any other; not so by default.
    pub protect_host: bool,
    /// Processes in no workload belong to their node's host workload (the default), or to nobody.
    pub host: bool,
}

#[derive(Clone, Debug)]
struct FleetNode {
    id: NodeId,
    realm: usize,
    addresses: ip::Addresses,
    host_cgroups: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Member {
    at: WorkloadRef,
    instance: Instance,
    class: ClassId,
    cgroup_ids: Vec<u64>,
    own_addresses: Option<ip::Addresses>,
    revoked: bool,
    pending: bool,
}

#[derive(Clone, Debug)]
struct Rule {
    from: ClassId,
    to: ClassId,
    protocol: u8,
    ports: (u16, u16),
}

#[derive(Clone, Debug)]
struct Service {
    addresses: Vec<IpAddr>,
    port: (u8, u16),
    real_port: u16,
    members: Vec<WorkloadRef>,
}

impl Fleet {
    /// All nodes of `world`, each with its host workload; nothing is allowed yet.
    pub fn of(world: &World) -> Result<Self> {
        let mut fleet = Self {
            nodes: BTreeMap::new(),
            workloads: Vec::new(),
            classes: BTreeMap::new(),
            externals: BTreeMap::new(),
            rules: Vec::new(),
            services: Vec::new(),
            declared: world.clusters.iter().flat_map(|cluster| cluster.gateway.outside().both()).collect(),
            pair_keys: BTreeMap::new(),
            fleet_key: Key128(rand::random()),
            enforce: true,
            protect_host: false,
            host: true,
        };
        for (realm, cluster) in world.clusters.iter().enumerate() {
            for node in &cluster.nodes {
                let number = u32::try_from(fleet.nodes.len())? + 1;
                let id = NodeId::new(number).context("BUG: too many nodes")?;
                let host_cgroups = vec![node.cgroup().id()?, node.host().cgroup().id()?];
                let known = FleetNode { id, realm, addresses: node.addresses(), host_cgroups: host_cgroups.clone() };
                fleet.nodes.insert(node.name().to_owned(), known);
                let class = fleet.class("host");
                fleet.push(id, class, host_cgroups, None);
            }
        }
        let ids: Vec<_> = fleet.nodes.values().map(|node| node.id).collect();
        for sender in &ids {
            fleet.pair_keys.extend(ids.iter().map(|receiver| ((*sender, *receiver), Key128(rand::random()))));
        }
        Ok(fleet)
    }

    /// The fleet's number of a node.
    pub fn node(&self, node: &Node) -> NodeId {
        self.known(node).id
    }

    /// Places a workload on its node. Workloads of equal `class` are equal to all rules.
    pub fn add(&mut self, node: &Node, workload: &Workload, class: &str) -> Result<WorkloadRef> {
        let known = self.known(node).clone();
        let own = workload.addresses();
        let class = self.class(class);
        let own = (own != known.addresses).then_some(own);
        Ok(self.push(known.id, class, vec![workload.cgroup_id()?], own))
    }

    /// Allows `from` to reach `to` (classes, or names of external networks) on a range of ports, for both ends.
    pub fn allow(&mut self, from: &str, to: &str, protocol: u8, ports: std::ops::RangeInclusive<u16>) {
        let (from, to) = (self.end(from), self.end(to));
        self.rules.push(Rule { from, to, protocol, ports: (*ports.start(), *ports.end()) });
    }

    /// Takes all rules back.
    pub fn forget_rules(&mut self) {
        self.rules.clear();
    }

    /// Names prefixes outside the fleet.
    pub fn external(&mut self, name: &str, prefixes: &[IpNet]) {
        let number = u32::try_from(self.externals.len() + 1).expect("BUG: a handful of networks");
        let class = ClassId(ClassId::EXTERNAL_OTHER.0 | number);
        self.externals.insert(name.to_owned(), (class, prefixes.to_vec()));
    }

    /// Declares that `members` answer at `addresses` on (protocol, port), where their sockets are bound to `real_port`.
    pub fn service(&mut self, addresses: &[IpAddr], port: (u8, u16), real_port: u16, members: &[WorkloadRef]) {
        let service = Service { addresses: addresses.to_vec(), port, real_port, members: members.to_vec() };
        self.services.push(service);
    }

    /// Revokes a workload, or undoes it.
    pub fn set_revoked(&mut self, at: WorkloadRef, revoked: bool) {
        self.workloads.iter_mut().filter(|member| member.at == at).for_each(|member| member.revoked = revoked);
    }

    /// Takes a workload's place away, as before the server has given it one, or gives it back.
    pub fn set_pending(&mut self, at: WorkloadRef, pending: bool) {
        self.workloads.iter_mut().filter(|member| member.at == at).for_each(|member| member.pending = pending);
    }

    /// A workload of a class.
    pub fn of_class(&self, name: &str) -> Option<WorkloadRef> {
        let class = self.classes.get(name)?;
        self.workloads.iter().find(|member| member.class == *class).map(|member| member.at)
    }

    /// U of a workload.
    pub fn instance(&self, at: WorkloadRef) -> Option<Instance> {
        self.workloads.iter().find(|member| member.at == at).map(|member| member.instance)
    }

    /// What the node's datapath is to enforce.
    pub fn state(&self, node: &Node) -> State {
        let node = self.known(node);
        State {
            node: node.id,
            trust_domain: "testbed.local".to_owned(),
            clock_offset_ns: clock_offset_ns(),
            fleet_keys: [Some(self.fleet_key), None, None, None],
            fleet_generation: 0,
            own_generation: 0,
            pair_keys: self.pair_keys(node.id),
            workloads: self.local_workloads(node),
            peers: self.workloads.iter().filter(|member| !member.pending).map(Member::peer).collect(),
            places: self.places(node),
            members: self.members(),
            networks: self.networks(),
            verdicts: self.verdicts(node.id),
            identity_scope: Vec::new(),
        }
    }

    fn known(&self, node: &Node) -> &FleetNode {
        self.nodes.get(node.name()).expect("BUG: a node of another world")
    }

    fn class(&mut self, name: &str) -> ClassId {
        let next = ClassId(u32::try_from(self.classes.len() + 1).expect("BUG: a handful of classes"));
        *self.classes.entry(name.to_owned()).or_insert(next)
    }

    fn end(&mut self, name: &str) -> ClassId {
        match self.externals.get(name) {
            Some((class, _)) => *class,
            None => self.class(name),
        }
    }

    fn push(&mut self, node: NodeId, class: ClassId, cgroup_ids: Vec<u64>, own: Option<ip::Addresses>) -> WorkloadRef {
        let used = self.workloads.iter().filter(|member| member.at.node == node).count();
        let slot = Slot(HOST_SLOT.0 + u16::try_from(used).expect("BUG: a handful of workloads"));
        let at = WorkloadRef { node, slot };
        let instance = Instance(rand::random());
        self.workloads.push(Member {
            at,
            instance,
            class,
            cgroup_ids,
            own_addresses: own,
            revoked: false,
            pending: false,
        });
        at
    }

    fn pair_keys(&self, own: NodeId) -> Vec<PairKey> {
        let key = |sender, receiver| self.pair_keys[&(sender, receiver)];
        let pair = |peer: NodeId| PairKey {
            node: peer,
            own_generation: 0,
            peer_generation: 0,
            tx: key(own, peer),
            rx: key(peer, own),
            send: true,
        };
        self.nodes.values().map(|node| pair(node.id)).collect()
    }

    fn local_workloads(&self, node: &FleetNode) -> Vec<LocalWorkload> {
        let local = |member: &Member| LocalWorkload {
            cgroup_ids: member.cgroup_ids.clone(),
            slot: (!member.pending).then_some(member.at.slot),
            instance: if member.pending { Instance(0) } else { member.instance },
            class: if member.pending { ClassId::ANY } else { member.class },
            enforce: self.enforce && (self.protect_host || member.cgroup_ids != node.host_cgroups),
            revoked: member.revoked,
            host: member.cgroup_ids == node.host_cgroups,
        };
        let here = self.workloads.iter().filter(|member| member.at.node == node.id);
        here.filter(|member| self.host || member.cgroup_ids != node.host_cgroups).map(local).collect()
    }

    fn places(&self, node: &FleetNode) -> Vec<Place> {
        let alone = |address, target| Place { address, port: None, target, real_port: None, claimed_udp: false };
        let mut places = Vec::new();
        for other in self.nodes.values().filter(|other| other.realm == node.realm) {
            places.extend(other.addresses.both().map(|address| alone(address, PlaceTarget::Node(other.id))));
            let here = self.workloads.iter().filter(|member| member.at.node == other.id);
            for (member, own) in here.filter_map(|member| Some((member, member.own_addresses?))) {
                places.extend(own.both().map(|address| alone(address, PlaceTarget::Workload(member.at))));
            }
        }
        places.extend(self.declared.iter().map(|address| alone(*address, PlaceTarget::Declared)));
        for (id, service) in (1..).zip(&self.services) {
            places.extend(service.addresses.iter().map(|address| Place {
                address: *address,
                port: Some(service.port),
                target: PlaceTarget::Service(id),
                real_port: Some(service.real_port),
                claimed_udp: service.port.0 == UDP,
            }));
        }
        places
    }

    fn members(&self) -> Vec<(u32, WorkloadRef)> {
        let services = (1..).zip(&self.services);
        services.flat_map(|(id, service)| service.members.iter().map(move |member| (id, *member))).collect()
    }

    fn networks(&self) -> Vec<Network> {
        let inside = ip::Network::CLUSTER.prefixes();
        let inside =
            inside.iter().map(|prefix| Network { prefix: prefix.parse().expect("BUG: a prefix"), class: None });
        let named = self.externals.values();
        let outside = named.flat_map(|(class, prefixes)| {
            prefixes.iter().map(|prefix| Network { prefix: *prefix, class: Some(*class) })
        });
        inside.chain(outside).collect()
    }

    /// One table entry for each local class, peer class and direction, and the fallbacks.
    fn verdicts(&self, node: NodeId) -> Vec<PairVerdicts> {
        let mut local: Vec<_> = self.workloads.iter().filter(|m| m.at.node == node).map(|m| m.class).collect();
        local.sort();
        local.dedup();
        let external = self.externals.values().map(|(class, _)| *class);
        let peers: Vec<_> = self.classes.values().copied().chain(external).collect();
        let peers = [peers, vec![ClassId::ANY, ClassId::EXTERNAL_OTHER]].concat();
        let mut table = Vec::new();
        for own in local {
            for peer in &peers {
                table.push(self.pair(own, *peer, Direction::Ingress));
                table.push(self.pair(own, *peer, Direction::Egress));
            }
        }
        table
    }

    fn pair(&self, local: ClassId, peer: ClassId, direction: Direction) -> PairVerdicts {
        let (client, server) = match direction {
            Direction::Ingress => (peer, local),
            Direction::Egress => (local, peer),
        };
        let host = !self.protect_host && Some(&local) == self.classes.get("host");
        let matching = (1..).zip(&self.rules).filter(|(_, rule)| (rule.from, rule.to) == (client, server));
        let mut ranges: Vec<_> = matching
            .map(|(number, rule)| RangeVerdict {
                protocol: rule.protocol,
                first: rule.ports.0,
                last: rule.ports.1,
                verdict: Verdict { allow: true, would_allow: true, reason: 0, rule: number },
            })
            .collect();
        ranges.sort_by_key(|range| (range.protocol, range.first));
        let reason = if peer.0 & ClassId::EXTERNAL_OTHER.0 == 0 { Reason::DefaultDeny } else { Reason::ExternalDeny };
        let otherwise = Verdict {
            allow: !self.enforce || host,
            would_allow: host,
            reason: if host { 0 } else { reason as u8 },
            rule: 0,
        };
        PairVerdicts { local, peer, direction, ranges, otherwise }
    }
}

impl Member {
    fn peer(&self) -> Peer {
        Peer { at: self.at, instance: self.instance, class: self.class, revoked: self.revoked }
    }
}

/// This machine's real-time clock minus its boot clock.
pub fn clock_offset_ns() -> i64 {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let real = SystemTime::now().duration_since(UNIX_EPOCH).expect("BUG: the clock is before 1970");
    real.as_nanos() as i64 - (boot.tv_sec * 1_000_000_000 + boot.tv_nsec)
}
