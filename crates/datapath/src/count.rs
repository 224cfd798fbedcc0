//! Counters of the programs: how far handshakes got, and every denial, exactly.

use std::collections::BTreeMap;

use libbpf_rs::{MapCore, MapFlags};
use policy::reason::Reason;

use crate::abi::{self, Plain, REASONS, STAGES};
use crate::attach::Datapath;
use crate::capacity::MapUse;
use crate::event::{Local, Peer, Proof, direction_of, proof_of, workload_of};
use crate::state::{ClassId, Direction};
use crate::write::read_all;

macro_rules! stages {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $label:literal;)*) => {
        /// A step of the handshake, or something that happened to the datapath itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Stage { $($(#[$doc])* $name = $value,)* }

        impl Stage {
            /// All of them, in the order of their number.
            pub const ALL: &'static [Stage] = &[$(Stage::$name,)*];

            /// The label in metrics.
            pub const fn label(self) -> &'static str {
                match self { $(Stage::$name => $label,)* }
            }
        }
    };
}

stages! {
    /// Client: a labelled SYN left (retransmissions too).
    SynSent = 0, "syn-sent";
    /// Server: a SYN reached a listener of a workload.
    SynSeen = 1, "syn-seen";
    /// Server: it was believed and allowed.
    SynOk = 2, "syn-ok";
    /// Server: a labelled SYN-ACK left.
    SynAckSent = 3, "synack-sent";
    /// Client: a labelled SYN-ACK arrived.
    SynAckSeen = 4, "synack-seen";
    /// Client: it was believed and allowed.
    SynAckOk = 5, "synack-ok";
    /// Client: a segment with the ACK option left.
    AckSent = 6, "ack-sent";
    /// Server: a labelled ACK reached a listener.
    AckSeen = 7, "ack-seen";
    /// Server: it was believed and allowed.
    AckOk = 8, "ack-ok";
    /// Server: a connection opened.
    OpenedServer = 9, "opened-server";
    /// Client: a connection opened.
    OpenedClient = 10, "opened-client";
    /// Client: a plain SYN-ACK from an external end was allowed.
    ExternalOk = 11, "external-ok";
    /// connect() was refused before the first packet.
    ConnectRefused = 12, "connect-refused";
    /// An opening or closing found no room in the ring.
    EventLost = 13, "event-lost";
    /// A refusal's record or a question found no room in the ring.
    NoticeLost = 14, "notice-lost";
    /// A denial found no cell of its own; it is in [`Denials::overflow`].
    DenialOverflow = 15, "denial-overflow";
    /// The burn table had no room in a bucket.
    BurnFull = 16, "burn-full";
    /// The kernel had no memory for a socket's state: refused.
    NoMemory = 17, "no-memory";
    /// A live connection was destroyed by a sweep.
    Cut = 18, "cut";
}

/// Counts since the attach; a takeover goes on with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By stage.
    pub stages: BTreeMap<Stage, u64>,
    /// Refusals carried out, by reason.
    pub refused: BTreeMap<Reason, u64>,
    /// Refusals recorded only (observing), by reason.
    pub would_refuse: BTreeMap<Reason, u64>,
}

impl Counters {
    /// A stage's count.
    pub fn stage(&self, stage: Stage) -> u64 {
        self.stages.get(&stage).copied().unwrap_or(0)
    }

    /// A reason's carried-out refusals.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused.get(&reason).copied().unwrap_or(0)
    }
}

/// What was refused how often. Cumulative and exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The local workload.
    pub local: Local,
    /// Its side.
    pub direction: Direction,
    /// The other end.
    pub peer: Peer,
    /// What `peer` rests on.
    pub proof: Proof,
    /// IP protocol.
    pub protocol: u8,
    /// The port that was judged.
    pub port: u16,
    /// Why; `None` for a byte of a newer version.
    pub reason: Option<Reason>,
    /// The deciding rule's number, 0 = none.
    pub rule: u32,
    /// Recorded only.
    pub would: bool,
    /// How often.
    pub count: u64,
}

/// All denials: cells, and by reason those that found none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denials {
    /// One per (workload, side, peer, port, reason, rule).
    pub cells: Vec<Denial>,
    /// Denials without a cell of their own.
    pub overflow: BTreeMap<Reason, u64>,
}

impl Denials {
    /// Everything refused, overflow included.
    pub fn total(&self) -> u64 {
        self.cells.iter().map(|denial| denial.count).sum::<u64>() + self.overflow.values().sum::<u64>()
    }
}

impl Datapath {
    /// How often what happened, summed over the processors.
    pub fn counters(&self) -> Counters {
        let at = |index: usize| self.stage_cell(index);
        let reasons = |from: usize| -> BTreeMap<Reason, u64> {
            let counts = Reason::ALL.iter().map(|&reason| (reason, at(from + reason as usize)));
            counts.filter(|(_, count)| *count > 0).collect()
        };
        Counters {
            stages: Stage::ALL.iter().map(|&stage| (stage, at(stage as usize))).collect(),
            refused: reasons(STAGES),
            would_refuse: reasons(STAGES + REASONS),
        }
    }

    /// Every denial since the attach.
    pub fn denials(&self) -> Denials {
        let cells = read_all::<abi::DenialKey, u64>(&self.maps.denials);
        let overflow = Reason::ALL.iter().map(|&r| (r, self.stage_cell(STAGES + 2 * REASONS + r as usize)));
        Denials {
            cells: cells.iter().map(|(key, &count)| self.denial(key, count)).collect(),
            overflow: overflow.filter(|(_, count)| *count > 0).collect(),
        }
    }

    /// Every map: how large, how full.
    pub fn capacities(&self) -> Vec<MapUse> {
        let maps = &self.maps;
        let hashes = [
            ("workloads", &maps.workloads),
            ("peers", &maps.peers),
            ("nodes", &maps.nodes),
            ("places", &maps.places),
            ("members", &maps.members),
            ("denials", &maps.denials),
        ];
        let used = |map: &libbpf_rs::MapHandle| map.keys().count() as u32;
        let valid = self.live.locals.entries.values().filter(|entry| entry.flags & abi::LOCAL_VALID != 0).count();
        let entry = |map: &libbpf_rs::MapHandle| map.key_size() + map.value_size();
        hashes
            .into_iter()
            .map(|(name, map)| MapUse {
                name,
                capacity: map.max_entries(),
                used: Some(used(map)),
                entry_bytes: entry(map),
            })
            .chain([MapUse {
                name: "locals",
                capacity: maps.locals.max_entries() - 1,
                used: Some(valid as u32),
                entry_bytes: entry(&maps.locals),
            }])
            .collect()
    }

    fn stage_cell(&self, index: usize) -> u64 {
        let cells = self.maps.stages.lookup_percpu((index as u32).bytes(), MapFlags::ANY).ok().flatten();
        cells.into_iter().flatten().filter_map(|cell| u64::read(&cell)).sum()
    }

    fn denial(&self, key: &abi::DenialKey, count: u64) -> Denial {
        let proof = proof_of(key.proof);
        let peer = match proof {
            Proof::External => Peer::External(ClassId(key.peer as u32)),
            _ => workload_of(key.peer).map_or(Peer::Unknown, Peer::Workload),
        };
        Denial {
            local: self.live.locals.named(key.stamp),
            direction: direction_of(key.direction),
            peer,
            proof,
            protocol: key.proto,
            port: key.port,
            reason: Reason::from_byte(key.reason),
            rule: key.rule,
            would: key.would != 0,
            count,
        }
    }
}
