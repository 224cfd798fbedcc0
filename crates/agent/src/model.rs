//! What the server has told this node, typed: the objects of a snapshot, decoded one by one.
//!
//! Raw objects come in by key ([`Model::put`], [`Model::remove`]); what they change is remembered in [`Touched`] until the
//! compiler takes it. An object that cannot be read is kept aside: as long as there is one, nothing is compiled, and the
//! kernel keeps what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::sync;
use datapath::state::{ClassId, Direction};
use identity::ids::{NodeId, Slot, WorkloadRef};
use ipnet::IpNet;
use policy::attribute::{Attributes, Identity};
use policy::decide::{Outcome, PortOutcome};
use policy::namespace::{ExternalId, NamespacePath, PolicyId};
use policy::policy::{Action, Mode, Policy};
use policy::posture::{Encryption, OnAgentLoss, Posture};

use crate::document;

/// Everything the server has told this node.
#[derive(Debug, Default)]
pub struct Model {
    /// `settings`
    pub settings: Option<sync::Settings>,
    /// `workload/UID`
    pub placed: BTreeMap<String, sync::PlacedWorkload>,
    /// `peer/NODE/SLOT`
    pub peers: BTreeMap<WorkloadRef, sync::Peer>,
    /// `class/ID`
    pub classes: BTreeMap<ClassId, Identity>,
    /// `namespace/PATH`
    pub postures: BTreeMap<NamespacePath, Posture>,
    /// `place/…`
    pub places: BTreeMap<String, Place>,
    /// `service/ID`
    pub services: BTreeMap<u32, sync::Service>,
    /// `network/NAMESPACE:NAME`
    pub networks: BTreeMap<ExternalId, Vec<IpNet>>,
    /// `fleet/CIDR`
    pub fleet: BTreeMap<String, IpNet>,
    /// `policy/NAMESPACE:NAME`
    pub policies: BTreeMap<PolicyId, Policy>,
    /// `side/…`: the peer's side of pairs
    pub sides: BTreeMap<SideKey, Vec<PortOutcome>>,
    /// `node-key/NODE/GENERATION`
    pub node_keys: BTreeMap<(NodeId, u8), NodeKey>,
    /// `fleet-key/GENERATION`
    pub fleet_keys: BTreeMap<u8, FleetKey>,
    /// Objects that cannot be read, and why.
    pub unreadable: BTreeMap<String, ObjectError>,
    /// What changed since the compiler last looked.
    pub touched: Touched,
    /// What each key stood for, to take it out again.
    meaning: BTreeMap<String, Meaning>,
}

/// A place with its address read.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The address.
    pub address: IpAddr,
    /// The rest, as it came.
    pub place: sync::Place,
}

/// The key of a peer's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SideKey {
    /// This node's class.
    pub local: ClassId,
    /// The peer's.
    pub peer: ClassId,
    /// From this node's view: with ingress the peer is the client.
    pub direction: Direction,
}

/// A node's public key of one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeKey {
    /// X25519.
    pub public: [u8; 32],
    /// It may be used for sending.
    pub send: bool,
}

/// The fleet key of one generation. Debug shows no key bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FleetKey {
    /// For SipHash.
    pub key: [u8; 16],
    /// It may be used for sending.
    pub send: bool,
}

impl std::fmt::Debug for FleetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetKey").field("send", &self.send).finish_non_exhaustive()
    }
}

/// What changed, for a compiler that recomputes only that.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Everything.
    pub all: bool,
    /// External networks or fleet addresses.
    pub networks: bool,
    /// Postures.
    pub postures: bool,
    /// Policies, by id.
    pub policies: BTreeSet<PolicyId>,
    /// Classes whose attributes came or went.
    pub classes: BTreeSet<ClassId>,
    /// Peers' sides.
    pub sides: BTreeSet<SideKey>,
}

/// Why an object cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The key is not of the form its kind has.
    #[error("its key is malformed")]
    Key,
    /// The bytes are no such message.
    #[error("it cannot be decoded")]
    Decode,
    /// A field has a value that cannot be.
    #[error("its field {0} has no valid value")]
    Field(&'static str),
    /// The policy's document has problems.
    #[error("the policy cannot be used: {0}")]
    Policy(String),
}

#[derive(Clone, Debug)]
enum Meaning {
    Settings,
    Placed(String),
    Peer(WorkloadRef),
    Class(ClassId),
    Posture(NamespacePath),
    Place,
    Service(u32),
    Network(ExternalId),
    Fleet,
    Policy(PolicyId),
    Side(SideKey),
    NodeKey(NodeId, u8),
    FleetKey(u8),
    Unreadable,
}

impl Model {
    /// Takes one object in; one of the same key is replaced. Objects of kinds that this version does not know are left out.
    pub fn put(&mut self, key: &str, value: &[u8]) {
        self.remove(key);
        let meaning = match self.decode(key, value) {
            Ok(Some(meaning)) => meaning,
            Ok(None) => {
                tracing::warn!(key, "object of an unknown kind left out; the server is newer than this agent");
                return;
            }
            Err(error) => {
                self.unreadable.insert(key.to_owned(), error);
                Meaning::Unreadable
            }
        };
        self.meaning.insert(key.to_owned(), meaning);
    }

    /// Takes one object out; keys that are not there are no error.
    pub fn remove(&mut self, key: &str) {
        match self.meaning.remove(key) {
            None => {}
            Some(Meaning::Settings) => self.settings = None,
            Some(Meaning::Placed(uid)) => drop(self.placed.remove(&uid)),
            Some(Meaning::Peer(at)) => drop(self.peers.remove(&at)),
            Some(Meaning::Class(id)) => {
                self.classes.remove(&id);
                self.touched.classes.insert(id);
            }
            Some(Meaning::Posture(path)) => {
                self.postures.remove(&path);
                self.touched.postures = true;
            }
            Some(Meaning::Place) => drop(self.places.remove(key)),
            Some(Meaning::Service(id)) => drop(self.services.remove(&id)),
            Some(Meaning::Network(id)) => {
                self.networks.remove(&id);
                self.touched.networks = true;
            }
            Some(Meaning::Fleet) => {
                self.fleet.remove(key);
                self.touched.networks = true;
            }
            Some(Meaning::Policy(id)) => {
                self.policies.remove(&id);
                self.touched.policies.insert(id);
            }
            Some(Meaning::Side(side)) => {
                self.sides.remove(&side);
                self.touched.sides.insert(side);
            }
            Some(Meaning::NodeKey(node, generation)) => drop(self.node_keys.remove(&(node, generation))),
            Some(Meaning::FleetKey(generation)) => drop(self.fleet_keys.remove(&generation)),
            Some(Meaning::Unreadable) => drop(self.unreadable.remove(key)),
        }
    }

    /// Forgets everything; the compiler starts anew.
    pub fn clear(&mut self) {
        *self = Self { touched: Touched { all: true, ..Touched::default() }, ..Self::default() };
    }

    fn decode(&mut self, key: &str, value: &[u8]) -> Result<Option<Meaning>, ObjectError> {
        let (kind, rest) = key.split_once('/').unwrap_or((key, ""));
        Ok(Some(match kind {
            "settings" => {
                self.settings = Some(message(value)?);
                Meaning::Settings
            }
            "workload" => {
                let placed: sync::PlacedWorkload = message(value)?;
                slot(placed.slot)?;
                let uid = placed.uid.clone();
                self.placed.insert(uid.clone(), placed);
                Meaning::Placed(uid)
            }
            "peer" => {
                let peer: sync::Peer = message(value)?;
                let at = workload_ref(peer.node, peer.slot)?;
                self.peers.insert(at, peer);
                Meaning::Peer(at)
            }
            "class" => self.class(message(value)?)?,
            "namespace" => self.posture(message(value)?)?,
            "place" => {
                let place: sync::Place = message(value)?;
                let address = address(&place.address)?;
                self.places.insert(key.to_owned(), Place { address, place });
                Meaning::Place
            }
            "service" => {
                let service: sync::Service = message(value)?;
                let id = service.id;
                self.services.insert(id, service);
                Meaning::Service(id)
            }
            "network" => self.network(message(value)?)?,
            "fleet" => {
                let fleet: sync::FleetAddress = message(value)?;
                self.fleet.insert(key.to_owned(), cidr(&fleet.cidr)?);
                self.touched.networks = true;
                Meaning::Fleet
            }
            "policy" => {
                let object: sync::PolicyObject = message(value)?;
                let policy = document::policy(&object.json).map_err(ObjectError::Policy)?;
                let id = policy.id.clone();
                self.touched.policies.insert(id.clone());
                self.policies.insert(id.clone(), policy);
                Meaning::Policy(id)
            }
            "side" => self.side(message(value)?)?,
            "node-key" => self.node_key(message(value)?)?,
            "fleet-key" => {
                let fleet: sync::FleetKey = message(value)?;
                let generation = generation(fleet.generation)?;
                let key = fleet.key.try_into().map_err(|_| ObjectError::Field("key"))?;
                self.fleet_keys.insert(generation, FleetKey { key, send: fleet.send });
                Meaning::FleetKey(generation)
            }
            _ => {
                let _ = rest;
                return Ok(None);
            }
        }))
    }

    fn class(&mut self, class: sync::Class) -> Result<Meaning, ObjectError> {
        let id = ClassId(class.id);
        if id == ClassId::ANY || class.id & ClassId::EXTERNAL_OTHER.0 != 0 {
            return Err(ObjectError::Field("id"));
        }
        let attributes: BTreeMap<String, String> = class.attributes.into_iter().collect();
        let attributes = Attributes::try_from(attributes).map_err(|_| ObjectError::Field("attributes"))?;
        let identity = Identity::new(attributes).map_err(|_| ObjectError::Field("attributes"))?;
        self.classes.insert(id, identity);
        self.touched.classes.insert(id);
        Ok(Meaning::Class(id))
    }

    fn posture(&mut self, namespace: sync::NamespacePosture) -> Result<Meaning, ObjectError> {
        let path = NamespacePath::new(&namespace.path).map_err(|_| ObjectError::Field("path"))?;
        let action = |allow| if allow { Action::Allow } else { Action::Deny };
        let encryption = match namespace.encryption.as_str() {
            "" => Encryption::Off,
            word => word.parse().map_err(|_| ObjectError::Field("encryption"))?,
        };
        let posture = Posture {
            mode: if namespace.enforce { Mode::Enforce } else { Mode::Observe },
            ingress: action(namespace.ingress_allow),
            egress: action(namespace.egress_allow),
            encryption,
            on_agent_loss: if namespace.hold_on_agent_loss { OnAgentLoss::Hold } else { OnAgentLoss::Open },
        };
        self.postures.insert(path.clone(), posture);
        self.touched.postures = true;
        Ok(Meaning::Posture(path))
    }

    fn network(&mut self, network: sync::Network) -> Result<Meaning, ObjectError> {
        let namespace = NamespacePath::new(&network.namespace).map_err(|_| ObjectError::Field("namespace"))?;
        let id = ExternalId::new(namespace, &network.name).map_err(|_| ObjectError::Field("name"))?;
        let prefixes = network.cidrs.iter().map(|text| cidr(text)).collect::<Result<_, _>>()?;
        self.networks.insert(id.clone(), prefixes);
        self.touched.networks = true;
        Ok(Meaning::Network(id))
    }

    fn side(&mut self, side: sync::PeerSide) -> Result<Meaning, ObjectError> {
        let direction = if side.peer_is_client { Direction::Ingress } else { Direction::Egress };
        let key = SideKey { local: ClassId(side.local_class), peer: ClassId(side.peer_class), direction };
        let mut outcomes = side.outcomes.iter().map(port_outcome).collect::<Result<Vec<_>, _>>()?;
        outcomes.sort_by_key(|outcome| (outcome.protocol, outcome.first));
        let overlap = |pair: &[PortOutcome]| pair[0].protocol == pair[1].protocol && pair[0].last >= pair[1].first;
        if outcomes.windows(2).any(overlap) {
            return Err(ObjectError::Field("outcomes"));
        }
        self.sides.insert(key, outcomes);
        self.touched.sides.insert(key);
        Ok(Meaning::Side(key))
    }

    fn node_key(&mut self, key: sync::NodeKey) -> Result<Meaning, ObjectError> {
        let node = NodeId::new(key.node).ok_or(ObjectError::Field("node"))?;
        let generation = generation(key.generation)?;
        let public = key.public.try_into().map_err(|_| ObjectError::Field("public"))?;
        self.node_keys.insert((node, generation), NodeKey { public, send: key.send });
        Ok(Meaning::NodeKey(node, generation))
    }
}

fn message<M: prost::Message + Default>(value: &[u8]) -> Result<M, ObjectError> {
    M::decode(value).map_err(|_| ObjectError::Decode)
}

fn slot(value: u32) -> Result<Slot, ObjectError> {
    u16::try_from(value).map(Slot).map_err(|_| ObjectError::Field("slot"))
}

/// Names a workload of the fleet as the messages do.
pub(crate) fn workload_ref(node: u32, slot_value: u32) -> Result<WorkloadRef, ObjectError> {
    let node = NodeId::new(node).ok_or(ObjectError::Field("node"))?;
    Ok(WorkloadRef { node, slot: slot(slot_value)? })
}

fn generation(value: u32) -> Result<u8, ObjectError> {
    u8::try_from(value).ok().filter(|generation| *generation < 4).ok_or(ObjectError::Field("generation"))
}

/// v4-mapped addresses are written as v4.
fn address(bytes: &[u8]) -> Result<IpAddr, ObjectError> {
    let address = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    };
    address.map(|address| address.to_canonical()).ok_or(ObjectError::Field("address"))
}

fn cidr(text: &str) -> Result<IpNet, ObjectError> {
    let net: Option<IpNet> = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    net.map(|net| net.trunc()).ok_or(ObjectError::Field("cidr"))
}

fn port_outcome(outcome: &sync::peer_side::PortOutcome) -> Result<PortOutcome, ObjectError> {
    let port = |value: u32| u16::try_from(value).map_err(|_| ObjectError::Field("outcomes"));
    let protocol = u8::try_from(outcome.protocol).map_err(|_| ObjectError::Field("outcomes"))?;
    let (first, last) = (port(outcome.first)?, port(outcome.last)?);
    if first > last || protocol == 0 && (first, last) != (0, u16::MAX) {
        return Err(ObjectError::Field("outcomes"));
    }
    let action = if outcome.allow { Action::Allow } else { Action::Deny };
    Ok(PortOutcome { protocol, first, last, outcome: Outcome { action, by: None, observed: None } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(model: &mut Model, key: &str, message: impl prost::Message) {
        model.put(key, &prost::Message::encode_to_vec(&message));
    }

    #[test]
    fn an_object_that_cannot_be_read_is_named_and_healed_by_its_successor() {
        let mut model = Model::default();
        model.put("peer/1/2", b"\xff\xff\xff");
        assert_eq!(model.unreadable.get("peer/1/2"), Some(&ObjectError::Decode));
        put(&mut model, "peer/1/2", sync::Peer { node: 1, slot: 2, ..Default::default() });
        assert!(model.unreadable.is_empty());
        assert_eq!(model.peers.len(), 1);
        model.remove("peer/1/2");
        assert!(model.peers.is_empty());
    }

    #[test]
    fn impossible_numbers_are_refused() {
        let mut model = Model::default();
        put(&mut model, "peer/0/2", sync::Peer { node: 0, slot: 2, ..Default::default() });
        put(&mut model, "peer/1/9", sync::Peer { node: 1, slot: 1 << 16, ..Default::default() });
        put(&mut model, "class/1", sync::Class { id: 0x8000_0001, ..Default::default() });
        put(&mut model, "node-key/1/4", sync::NodeKey { node: 1, generation: 4, public: vec![9; 32], send: true });
        put(&mut model, "fleet-key/0", sync::FleetKey { generation: 0, key: vec![1; 15], send: true });
        put(
            &mut model,
            "network//a:x",
            sync::Network { namespace: "/a".into(), name: "x".into(), cidrs: vec!["10.0.0.0/33".into()] },
        );
        assert_eq!(model.unreadable.len(), 6, "{:?}", model.unreadable);
    }

    #[test]
    fn overlapping_outcomes_are_refused() {
        let outcome = |first, last| sync::peer_side::PortOutcome { protocol: 6, first, last, allow: true };
        let side = |outcomes| sync::PeerSide { peer_class: 1, local_class: 2, peer_is_client: true, outcomes };
        let mut model = Model::default();
        put(&mut model, "side/1/2/in", side(vec![outcome(80, 90), outcome(90, 95)]));
        assert_eq!(model.unreadable.len(), 1);
        put(&mut model, "side/1/2/in", side(vec![outcome(91, 95), outcome(80, 90)]));
        assert!(model.unreadable.is_empty());
    }

    #[test]
    fn mapped_addresses_are_v4_and_host_bits_are_cut() {
        let mapped = "::ffff:10.0.0.1".parse::<std::net::Ipv6Addr>().expect("an address").octets();
        assert_eq!(address(&mapped), Ok("10.0.0.1".parse().expect("an address")));
        assert_eq!(cidr("10.0.0.7/24").map(|net| net.to_string()), Ok("10.0.0.0/24".into()));
        assert_eq!(cidr("2001:db8::1").map(|net| net.to_string()), Ok("2001:db8::1/128".into()));
    }
}
