//! Flow reports: one per connection from the kernel's records, one per cell of the denial counters.
//!
//! Denials are never lost: what is reported is the difference of the kernel's exact counters to what the server has stored,
//! and that baseline is on disk. Allowed connections are left out only when too many wait, and then they are counted.

use std::collections::{BTreeMap, HashMap, VecDeque};

use api::sync::flow::Proof as Client;
use api::sync::{Flow, FlowBatch, PeerRef};
use datapath::count::{Denial, Denials};
use datapath::event::{Event, Kind, Local, Peer, Proof};
use datapath::state::Direction;
use policy::reason::Reason;
use serde::{Deserialize, Serialize};

use crate::compile::external_names;
use crate::numbering::Numbering;

/// Most connections that wait for the next batch.
pub const PENDING_MAX: usize = 8192;
/// Most flows of one batch.
const BATCH_MAX: usize = 512;
/// Most batches that wait for the server's word.
const OUTBOX_MAX: usize = 64;
/// Most examples of denials kept between two batches.
const EXAMPLES_MAX: usize = 4096;

/// Collects flows and hands them out in batches.
#[derive(Debug, Default)]
pub struct Flows {
    pending: Vec<Flow>,
    open: HashMap<Connection, usize>,
    examples: HashMap<Cell, Example>,
    /// Counted by the server, as far as it said so.
    stored: BTreeMap<Cell, u64>,
    /// Counted in batches that wait.
    sent: BTreeMap<Cell, u64>,
    outbox: VecDeque<Waiting>,
    sequence: u64,
    sampled_out: u64,
    dirty: bool,
}

#[derive(Debug)]
struct Waiting {
    batch: FlowBatch,
    counted: Vec<(Cell, u64)>,
}

/// A connection, as records name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Connection {
    stamp: u32,
    direction: Direction,
    isns: (u32, u32),
}

/// A cell of the denial counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Cell {
    stamp: u32,
    ingress: bool,
    peer: u64,
    external: bool,
    protocol: u8,
    port: u16,
    reason: u8,
    rule: u32,
    would: bool,
}

/// The latest record of a cell.
#[derive(Clone, Copy, Debug)]
struct Example {
    remote: std::net::SocketAddr,
    isn_client: u32,
    first_ns: u64,
    last_ns: u64,
}

/// What turns records into reports.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// This node.
    pub node: u32,
    /// What rules and classes mean.
    pub numbering: &'a Numbering,
    /// Unix time minus boot clock, nanoseconds.
    pub boot_to_unix_ns: i64,
}

impl Flows {
    /// Takes up the baseline from disk. After a fresh attach the counters start anew, and so does it.
    pub fn with_baseline(baseline: Option<Vec<u8>>, taken_over: bool) -> Self {
        let cells: Option<Vec<(Cell, u64)>> =
            baseline.filter(|_| taken_over).and_then(|b| serde_json::from_slice(&b).ok());
        let stored: BTreeMap<Cell, u64> = cells.unwrap_or_default().into_iter().collect();
        Self { sent: stored.clone(), stored, dirty: true, ..Self::default() }
    }

    /// Goes on after `before` with counters that start anew: what waits is kept, and the numbers of batches go on.
    pub fn following(self, before: &Self) -> Self {
        let outbox = before.outbox.iter().map(|waiting| Waiting { batch: waiting.batch.clone(), counted: Vec::new() });
        Self { outbox: outbox.collect(), sequence: before.sequence, sampled_out: before.sampled_out, ..self }
    }

    /// The baseline to put on disk, if it changed.
    pub fn baseline(&mut self) -> Option<Vec<u8>> {
        let cells: Vec<(&Cell, &u64)> = self.stored.iter().collect();
        std::mem::take(&mut self.dirty).then(|| serde_json::to_vec(&cells).unwrap_or_default())
    }

    /// Takes one record.
    pub fn record(&mut self, event: &Event, names: &Names<'_>) {
        match event.kind {
            Kind::Open | Kind::Close { .. } => self.connection(event, names),
            Kind::Refused { would, .. } => {
                let cell = Cell::of_event(event, would);
                if self.examples.len() < EXAMPLES_MAX || self.examples.contains_key(&cell) {
                    let first_ns = self.examples.get(&cell).map_or(event.boot_ns, |example| example.first_ns);
                    let (remote, isn_client, last_ns) = (event.remote_address, event.isn_client, event.boot_ns);
                    self.examples.insert(cell, Example { remote, isn_client, first_ns, last_ns });
                }
            }
            Kind::Unknown { .. } => {}
        }
    }

    fn connection(&mut self, event: &Event, names: &Names<'_>) {
        let isns = (event.isn_client, event.isn_server);
        let connection = Connection { stamp: event.local.stamp, direction: event.direction, isns };
        let now = names.unix_ms(event.boot_ns);
        if let Kind::Close { bytes_in, bytes_out } = event.kind
            && let Some(flow) = self.open.remove(&connection).and_then(|at| self.pending.get_mut(at))
        {
            (flow.bytes_received, flow.bytes_sent) = (bytes_in, bytes_out);
            (flow.last_unix_ms, flow.closed) = (now, true);
            return;
        }
        if self.pending.len() >= PENDING_MAX {
            self.sampled_out += u64::from(event.kind == Kind::Open);
            return;
        }
        let mut flow = names.flow(event.local, event.direction, event.peer, event.proof);
        if let Kind::Close { bytes_in, bytes_out } = event.kind {
            (flow.bytes_received, flow.bytes_sent, flow.closed) = (bytes_in, bytes_out, true);
        } else {
            self.open.insert(connection, self.pending.len());
        }
        flow.peer_address = event.remote_address.ip().to_canonical().to_string();
        flow.protocol = event.protocol.into();
        flow.port = event.port.into();
        flow.dialled_port = if event.direction == Direction::Egress { event.remote_address.port().into() } else { 0 };
        flow.client_isn = event.isn_client;
        flow.verdict = word(true);
        flow.would = word(event.verdict.would_allow);
        flow.reason = event.reason.filter(|_| !event.verdict.would_allow).map_or("", Reason::label).to_owned();
        flow.policy = names.numbering.name(event.verdict.rule).unwrap_or_default().to_owned();
        flow.count = 1;
        (flow.first_unix_ms, flow.last_unix_ms) = (now, now);
        self.pending.push(flow);
    }

    /// Takes the kernel's counters and closes the batches that are due. Counters wait while too many batches do.
    pub fn flush(&mut self, denials: &Denials, names: &Names<'_>) {
        self.open.clear();
        let mut flows: Vec<(Flow, Option<(Cell, u64)>)> =
            std::mem::take(&mut self.pending).into_iter().map(|flow| (flow, None)).collect();
        if self.outbox.len() >= OUTBOX_MAX {
            self.sampled_out += flows.len() as u64;
            return;
        }
        for denial in &denials.cells {
            let cell = Cell::of_denial(denial);
            let known = self.sent.get(&cell).copied().unwrap_or_default();
            let new = denial.count.saturating_sub(known);
            // What observing lets pass over TCP is on the connection's own record.
            if new == 0 || denial.would && denial.protocol == policy::port::protocol::TCP {
                continue;
            }
            self.sent.insert(cell, denial.count);
            flows.push((self.denial(denial, &cell, new, names), Some((cell, new))));
        }
        self.examples.clear();
        let mut flows = flows.into_iter().peekable();
        while flows.peek().is_some() {
            let (flows, counted): (Vec<Flow>, Vec<_>) = flows.by_ref().take(BATCH_MAX).unzip();
            self.sequence += 1;
            let sampled_out = std::mem::take(&mut self.sampled_out);
            let batch = FlowBatch { sequence: self.sequence, flows, sampled_out };
            self.outbox.push_back(Waiting { batch, counted: counted.into_iter().flatten().collect() });
        }
    }

    fn denial(&self, denial: &Denial, cell: &Cell, new: u64, names: &Names<'_>) -> Flow {
        let example = self.examples.get(cell);
        let at = |ns: Option<u64>| ns.map_or_else(|| names.now_ms(), |ns| names.unix_ms(ns));
        Flow {
            peer_address: example.map(|e| e.remote.ip().to_canonical().to_string()).unwrap_or_default(),
            protocol: denial.protocol.into(),
            port: denial.port.into(),
            dialled_port: match (denial.direction, example) {
                (Direction::Egress, Some(example)) => example.remote.port().into(),
                _ => 0,
            },
            // An aggregate has no number of its own; one refusal has, and joins the other end's report.
            client_isn: example.filter(|_| new == 1).map_or(0, |example| example.isn_client),
            verdict: word(denial.would),
            would: word(false),
            reason: denial.reason.map_or("", Reason::label).to_owned(),
            policy: names.numbering.name(denial.rule).unwrap_or_default().to_owned(),
            count: new,
            first_unix_ms: at(example.map(|example| example.first_ns)),
            last_unix_ms: at(example.map(|example| example.last_ns)),
            closed: true,
            ..names.flow(denial.local, denial.direction, denial.peer, denial.proof)
        }
    }

    /// Batches after `sequence`: all that the server has not stored yet, after a new stream begins.
    pub fn batches_after(&self, sequence: u64) -> impl Iterator<Item = &FlowBatch> {
        self.outbox.iter().map(|waiting| &waiting.batch).filter(move |batch| batch.sequence > sequence)
    }

    /// The server has stored the batches up to `sequence`.
    pub fn stored(&mut self, sequence: u64) {
        while let Some(waiting) = self.outbox.pop_front_if(|waiting| waiting.batch.sequence <= sequence) {
            for (cell, count) in waiting.counted {
                *self.stored.entry(cell).or_default() += count;
                self.dirty = true;
            }
        }
    }

    /// Number of the last batch.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl Names<'_> {
    fn unix_ms(&self, boot_ns: u64) -> i64 {
        i64::try_from(boot_ns).unwrap_or(i64::MAX).saturating_add(self.boot_to_unix_ns) / 1_000_000
    }

    fn now_ms(&self) -> i64 {
        crate::clock::Now::read().unix_ns / 1_000_000
    }

    /// Both ends.
    fn flow(&self, local: Local, direction: Direction, peer: Peer, proof: Proof) -> Flow {
        let client = match (direction, proof) {
            // The reporter is the client: its kernel knows its own workload.
            (Direction::Egress, _) | (Direction::Ingress, Proof::Proved) => Client::Proved,
            (Direction::Ingress, Proof::Claimed | Proof::Older) => Client::Claimed,
            (Direction::Ingress, Proof::External) => Client::External,
            (Direction::Ingress, Proof::None) => Client::Unknown,
        };
        Flow {
            direction: if direction == Direction::Egress { "egress" } else { "ingress" }.to_owned(),
            local: local.slot.map(|slot| PeerRef { node: self.node, slot: slot.0.into() }),
            peer: match peer {
                Peer::Workload(at) => Some(PeerRef { node: at.node.get(), slot: at.slot.0.into() }),
                Peer::External(_) | Peer::Unknown => None,
            },
            external: match peer {
                Peer::External(class) => external_names(class, self.numbering),
                Peer::Workload(_) | Peer::Unknown => Vec::new(),
            },
            client: client.into(),
            ..Flow::default()
        }
    }
}

fn word(allow: bool) -> String {
    if allow { "allow" } else { "deny" }.to_owned()
}

impl Cell {
    fn new(local: Local, direction: Direction, peer: Peer) -> Self {
        let (peer, external) = match peer {
            Peer::Workload(at) => (u64::from(at.node.get()) << 16 | u64::from(at.slot.0), false),
            Peer::External(class) => (class.0.into(), true),
            Peer::Unknown => (0, false),
        };
        let ingress = direction == Direction::Ingress;
        Self { stamp: local.stamp, ingress, peer, external, protocol: 0, port: 0, reason: 0, rule: 0, would: false }
    }

    fn of_event(event: &Event, would: bool) -> Self {
        let reason = event.reason.map_or(0, |reason| reason as u8);
        let (protocol, port, rule) = (event.protocol, event.port, event.verdict.rule);
        Self { protocol, port, reason, rule, would, ..Self::new(event.local, event.direction, event.peer) }
    }

    fn of_denial(denial: &Denial) -> Self {
        let reason = denial.reason.map_or(0, |reason| reason as u8);
        let Denial { protocol, port, rule, would, .. } = *denial;
        Self { protocol, port, reason, rule, would, ..Self::new(denial.local, denial.direction, denial.peer) }
    }
}

#[cfg(test)]
mod tests;
