//! What the kernel is to enforce, as data: the whole desired state of one node's datapath.
//!
//! The agent compiles it from the server's snapshot; tests and `stolos agent --state FILE` write it by hand.
//! `Datapath::apply` makes the kernel equal to it, all-or-nothing.

use std::net::IpAddr;

use identity::ids::{Instance, NodeId, Slot, WorkloadRef};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A class of peers: an interned attribute set (server-given), or a set of external networks (agent-given, top bit set).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClassId(pub u32);

impl ClassId {
    /// External ends that no network covers.
    pub const EXTERNAL_OTHER: ClassId = ClassId(0x8000_0000);
    /// Fallback peer class of a local class: peers without an entry of their own.
    pub const ANY: ClassId = ClassId(0);
}

/// Everything the datapath of one node enforces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// This node.
    pub node: NodeId,
    /// Salt of the pair keys; also told in reports.
    pub trust_domain: String,
    /// Server clock minus this machine's boot clock, in nanoseconds. T = (boot + offset) / 64 s.
    pub clock_offset_ns: i64,
    /// Fleet keys by generation (0..=3).
    pub fleet_keys: [Option<Key128>; 4],
    /// Generation SYNs are sent with.
    pub fleet_generation: u8,
    /// Own key generation for sending.
    pub own_generation: u8,
    /// Pair keys with every known peer node, this node included (local random key).
    pub pair_keys: Vec<PairKey>,
    /// Workloads of this node.
    pub workloads: Vec<LocalWorkload>,
    /// All workloads that may be met, own ones included.
    pub peers: Vec<Peer>,
    /// Which workloads belong at which address (rule 1).
    pub places: Vec<Place>,
    /// Service id -> members.
    pub members: Vec<(u32, WorkloadRef)>,
    /// External networks and fleet addresses, by prefix.
    pub networks: Vec<Network>,
    /// Compiled verdicts.
    pub verdicts: Vec<PairVerdicts>,
    /// CIDRs to which the option is sent besides private, unique-local and loopback ranges and places.
    pub identity_scope: Vec<IpNet>,
}

/// 128-bit SipHash key. Debug shows no key bytes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key128(pub [u8; 16]);

impl std::fmt::Debug for Key128 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key128(…)")
    }
}

/// Both directions' keys between this node and a peer node, for one pair of generations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairKey {
    /// The other node.
    pub node: NodeId,
    /// This node's key generation, 0..=3.
    pub own_generation: u8,
    /// The other node's key generation, 0..=3.
    pub peer_generation: u8,
    /// Key for what this node sends.
    pub tx: Key128,
    /// Key for what the other node sends.
    pub rx: Key128,
    /// This pair of generations is the one to send with.
    pub send: bool,
}

/// A workload of this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalWorkload {
    /// cgroup v2 directory inodes that belong to it (its own and known sub-cgroups).
    pub cgroup_ids: Vec<u64>,
    /// Its slot; `None` while pending: its sockets are stamped pending and peers refuse it.
    pub slot: Option<Slot>,
    /// U; 0 while pending.
    pub instance: Instance,
    /// Its class; `ClassId::ANY` while pending.
    pub class: ClassId,
    /// Whether a refusal on the ingress and egress side is carried out or only recorded, is part of the verdicts;
    /// this flag is for refusals that have no verdict (no option, bad MAC, place …).
    pub enforce: bool,
    /// Everything is denied, live connections are cut.
    pub revoked: bool,
    /// The node's host workload: processes in no other workload.
    pub host: bool,
}

/// A workload that may be met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name on the wire.
    pub at: WorkloadRef,
    /// U.
    pub instance: Instance,
    /// Its class.
    pub class: ClassId,
    /// Deny everything.
    pub revoked: bool,
}

/// Who belongs at an address of this node's realm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The address; v4-mapped is written as v4.
    pub address: IpAddr,
    /// `Some((IP protocol, port))`, or the address alone.
    pub port: Option<(u8, u16)>,
    /// Who may answer there.
    pub target: PlaceTarget,
    /// The port behind a Service's address; `None` = the dialled one.
    pub real_port: Option<u16>,
    /// UDP to this place is authorized by place alone (rule 17, `claimed`).
    pub claimed_udp: bool,
}

/// Who may answer at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaceTarget {
    /// Any workload of that node (its workloads share the address).
    Node(NodeId),
    /// That workload only; as a source address it speaks for that workload only.
    Workload(WorkloadRef),
    /// Any member of that Service.
    Service(u32),
    /// A gateway or NAT address of the fleet: never external, never a place to answer from, never refuses as a source.
    Declared,
}

/// A prefix outside the fleet (with its class), or inside it (rule 9: never external).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// The prefix.
    pub prefix: IpNet,
    /// `None`: addresses of the fleet.
    pub class: Option<ClassId>,
}

/// Which way a connection goes, from the local workload's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The local workload is the server: both sides' verdicts are in the ranges.
    Ingress,
    /// The local workload is the client: its own side only.
    Egress,
}

/// Verdicts between a local class and a peer class, by port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairVerdicts {
    /// The local workload's class.
    pub local: ClassId,
    /// The peer's class; `ClassId::ANY` is the fallback.
    pub peer: ClassId,
    /// Direction.
    pub direction: Direction,
    /// Disjoint, sorted by (protocol, first port). Protocol 0 = any.
    pub ranges: Vec<RangeVerdict>,
    /// For ports no range names.
    pub otherwise: Verdict,
}

/// A verdict for a port range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RangeVerdict {
    /// IP protocol, 0 = any.
    pub protocol: u8,
    /// First port.
    pub first: u16,
    /// Last port, inclusive.
    pub last: u16,
    /// What to do.
    pub verdict: Verdict,
}

/// What to do, and what to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Verdict {
    /// Carried out: true = pass.
    pub allow: bool,
    /// What full enforcement of both sides would say (differs from `allow` while a side observes).
    pub would_allow: bool,
    /// `policy::reason::Reason` byte when refused (or would be); 0 for a clean allow.
    pub reason: u8,
    /// The agent's number of the deciding rule; kept in records, never interpreted by the kernel.
    pub rule: u32,
}
