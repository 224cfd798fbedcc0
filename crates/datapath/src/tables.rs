//! Compiles a [`State`] into the exact contents of the kernel's maps. Pure: no kernel, no clock.
//!
//! Start at [`Tables::compile`]. What the kernel assigns itself (stamps of local workloads) is `assign.rs`'s business.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::abi;
use crate::state::{ClassId, Direction, Key128, PairVerdicts, PlaceTarget, State, Verdict};

/// Why a state cannot be given to the kernel at all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A pair of classes has more disjoint port ranges than a kernel entry holds.
    #[error("classes {local} and {peer} have {count} port ranges between them; {max} is the most: merge rules", max = abi::RANGES_MAX)]
    TooManyRanges {
        /// Local class.
        local: u32,
        /// Peer class.
        peer: u32,
        /// How many there are.
        count: usize,
    },
    /// A key generation outside 0..=3.
    #[error("key generation {0} does not exist (0 to 3)")]
    Generation(u8),
    /// A Service id with the top bit set.
    #[error("service {0:#x} has the top bit set, which is the kernel's own")]
    Service(u32),
    /// Two entries for the same thing that say different things.
    #[error("two different {what} for {key}")]
    Conflict {
        /// What stands twice.
        what: &'static str,
        /// Where.
        key: String,
    },
}

/// The contents of the maps that a state asks for.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Tables {
    pub(crate) peers: BTreeMap<u64, abi::Peer>,
    pub(crate) nodes: BTreeMap<u32, abi::NodeKeys>,
    pub(crate) places: BTreeMap<abi::PlaceKey, abi::Place>,
    pub(crate) members: BTreeMap<abi::MemberKey, u32>,
    pub(crate) policy: Policy,
}

/// What lives in a bank and is flipped at once.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Policy {
    pub(crate) verdicts: BTreeMap<abi::VerdictKey, abi::VerdictSet>,
    /// Index 0 is never referred to.
    pub(crate) ports: Vec<abi::PortSet>,
    pub(crate) networks: BTreeMap<abi::NetworkKey, abi::Network>,
}

impl Tables {
    /// What the kernel has to hold so that it enforces `state`.
    pub(crate) fn compile(state: &State) -> Result<Self, StateError> {
        Ok(Self {
            peers: peers(state)?,
            nodes: nodes(state)?,
            places: places(state)?,
            members: members(state)?,
            policy: Policy::compile(state)?,
        })
    }
}

/// node << 16 | slot
pub(crate) fn ref_of(at: identity::ids::WorkloadRef) -> u64 {
    u64::from(at.node.get()) << 16 | u64::from(at.slot.0)
}

pub(crate) fn key(key: &Key128) -> abi::Key {
    let (k0, k1) = key.0.split_at(8);
    abi::Key { k0: k0.try_into().expect("BUG: 8 of 16"), k1: k1.try_into().expect("BUG: 8 of 16") }
}

fn member_key(service: u32, at: identity::ids::WorkloadRef) -> abi::MemberKey {
    abi::MemberKey { r#ref: ref_of(at), service, pad: 0 }
}

/// Inserts, and refuses a second entry that differs.
fn insert<K: Ord, V: PartialEq>(
    map: &mut BTreeMap<K, V>,
    key: K,
    value: V,
    what: &'static str,
    shown: impl FnOnce() -> String,
) -> Result<(), StateError> {
    match map.get(&key) {
        Some(old) if *old != value => Err(StateError::Conflict { what, key: shown() }),
        _ => {
            map.insert(key, value);
            Ok(())
        }
    }
}

fn peers(state: &State) -> Result<BTreeMap<u64, abi::Peer>, StateError> {
    let mut map = BTreeMap::new();
    for peer in &state.peers {
        let flags = if peer.revoked { abi::PEER_REVOKED } else { 0 };
        let value = abi::Peer { instance: peer.instance.0, class: [peer.class.0; 2], flags, pad: 0 };
        insert(&mut map, ref_of(peer.at), value, "peers", || peer.at.to_string())?;
    }
    Ok(map)
}

fn nodes(state: &State) -> Result<BTreeMap<u32, abi::NodeKeys>, StateError> {
    let mut map: BTreeMap<u32, abi::NodeKeys> = BTreeMap::new();
    for pair in &state.pair_keys {
        for generation in [pair.own_generation, pair.peer_generation] {
            if generation > 3 {
                return Err(StateError::Generation(generation));
            }
        }
        let node = map.entry(pair.node.get()).or_default();
        let index = usize::from(pair.own_generation << 2 | pair.peer_generation);
        node.pairs[index] = abi::Pair { tx: key(&pair.tx), rx: key(&pair.rx) };
        node.valid |= 1 << index;
        if pair.send {
            node.own_generation = pair.own_generation;
            node.peer_generation = pair.peer_generation;
        }
    }
    Ok(map)
}

/// Members of Services, and the UDP ports of this node's workloads that a Service declares.
fn members(state: &State) -> Result<BTreeMap<abi::MemberKey, u32>, StateError> {
    let mut map = BTreeMap::new();
    for &(service, at) in &state.members {
        if service >= abi::CLAIMED_UDP {
            return Err(StateError::Service(service));
        }
        map.insert(member_key(service, at), 1);
    }
    for place in state.places.iter().filter(|place| place.claimed_udp) {
        let (PlaceTarget::Service(id), Some((_, dialled))) = (place.target, place.port) else { continue };
        let port = u32::from(place.real_port.unwrap_or(dialled));
        let here = state.members.iter().filter(|(service, at)| *service == id && at.node == state.node);
        map.extend(here.map(|&(_, at)| (member_key(abi::CLAIMED_UDP | port, at), 1)));
    }
    Ok(map)
}

/// The class that all members of a Service have, 0 when they differ or are not known.
fn classes_of_services(state: &State) -> BTreeMap<u32, u32> {
    let class_of: BTreeMap<_, _> = state.peers.iter().map(|peer| (peer.at, peer.class.0)).collect();
    let mut classes: BTreeMap<u32, u32> = BTreeMap::new();
    for (service, at) in &state.members {
        let class = class_of.get(at).copied().unwrap_or(0);
        classes.entry(*service).and_modify(|common| *common *= u32::from(*common == class)).or_insert(class);
    }
    classes
}

fn places(state: &State) -> Result<BTreeMap<abi::PlaceKey, abi::Place>, StateError> {
    let classes = classes_of_services(state);
    let mut map = BTreeMap::new();
    for place in &state.places {
        let (proto, port) = place.port.unwrap_or((0, 0));
        let (kind, at) = match place.target {
            PlaceTarget::Node(node) => (abi::PLACE_NODE, u64::from(node.get())),
            PlaceTarget::Workload(at) => (abi::PLACE_WORKLOAD, ref_of(at)),
            PlaceTarget::Service(id) => (abi::PLACE_SERVICE, u64::from(id)),
            PlaceTarget::Declared => (abi::PLACE_DECLARED, 0),
        };
        let class = match place.target {
            PlaceTarget::Service(id) => classes.get(&id).copied().unwrap_or(0),
            _ => 0,
        };
        let key = abi::PlaceKey { addr: place.address.into(), port, proto, pad: 0, pad2: 0 };
        let value = abi::Place {
            r#ref: at,
            real_port: place.real_port.unwrap_or(0),
            kind,
            claimed_udp: place.claimed_udp.into(),
            class: [class; 2],
            pad: 0,
        };
        insert(&mut map, key, value, "places", || format!("{} port {port}", place.address))?;
    }
    Ok(map)
}

impl Policy {
    fn compile(state: &State) -> Result<Self, StateError> {
        let mut policy =
            Self { verdicts: BTreeMap::new(), ports: vec![abi::PortSet::default()], networks: networks(state) };
        let mut interned = BTreeMap::new();
        for pair in &state.verdicts {
            let ports = match port_set(pair)? {
                None => 0,
                Some(set) => *interned.entry(set).or_insert_with(|| {
                    policy.ports.push(set);
                    policy.ports.len() as u32 - 1
                }),
            };
            let direction = match pair.direction {
                Direction::Ingress => 0,
                Direction::Egress => 1,
            };
            let key = abi::VerdictKey { local: pair.local.0, peer: pair.peer.0, direction };
            let value = abi::VerdictSet { otherwise: verdict(&pair.otherwise), ports, pad: 0 };
            insert(&mut policy.verdicts, key, value, "verdicts", || format!("{} and {}", pair.local.0, pair.peer.0))?;
        }
        Ok(policy)
    }
}

fn verdict(verdict: &Verdict) -> abi::Verdict {
    let allow = if verdict.allow { abi::VERDICT_ALLOW } else { 0 };
    let would = if verdict.would_allow { abi::VERDICT_WOULD_ALLOW } else { 0 };
    abi::Verdict { rule: verdict.rule, flags: allow | would, reason: verdict.reason, pad: 0 }
}

fn port_set(pair: &PairVerdicts) -> Result<Option<abi::PortSet>, StateError> {
    let count = pair.ranges.len();
    if count == 0 {
        return Ok(None);
    }
    if count > abi::RANGES_MAX {
        return Err(StateError::TooManyRanges { local: pair.local.0, peer: pair.peer.0, count });
    }
    let mut set = abi::PortSet { count: count as u32, ..Default::default() };
    for (slot, range) in set.ranges.iter_mut().zip(&pair.ranges) {
        *slot = abi::PortRange {
            first: range.first,
            last: range.last,
            proto: range.protocol,
            pad: [0; 3],
            verdict: verdict(&range.verdict),
        };
    }
    Ok(Some(set))
}

/// IPv4 prefixes lie inside ::ffff:0:0/96.
fn network_key(prefix: &IpNet) -> abi::NetworkKey {
    let offset = match prefix {
        IpNet::V4(_) => 96,
        IpNet::V6(_) => 0,
    };
    abi::NetworkKey { prefix_len: offset + u32::from(prefix.prefix_len()), addr: abi::Addr::from(prefix.network()).0 }
}

/// One table answers three questions by longest match: is it of the fleet, which class, does the option go there?
/// So every prefix repeats what the prefixes around it say and it does not.
fn networks(state: &State) -> BTreeMap<abi::NetworkKey, abi::Network> {
    let class_of = |class: Option<ClassId>| match class {
        Some(class) => abi::Network { class: class.0, flags: abi::NETWORK_CLASS },
        None => abi::Network { class: 0, flags: abi::NETWORK_FLEET },
    };
    let prefixes = state.networks.iter().map(|network| network.prefix).chain(state.identity_scope.iter().copied());
    let classes: BTreeMap<IpNet, abi::Network> =
        state.networks.iter().map(|network| (network.prefix.trunc(), class_of(network.class))).collect();
    let around = |prefix: IpNet| std::iter::successors(Some(prefix.trunc()), |prefix| prefix.supernet());
    prefixes
        .map(|prefix| {
            let mut value = around(prefix).find_map(|wider| classes.get(&wider).copied()).unwrap_or_default();
            if state.identity_scope.iter().any(|scope| scope.contains(&prefix)) {
                value.flags |= abi::NETWORK_SCOPE;
            }
            (network_key(&prefix), value)
        })
        .collect()
}
