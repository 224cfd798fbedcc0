//! The table of flows: joining reports, keeping bounds, answering queries. Pure; time is an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use api::flow::{FlowEnd, FlowQuery, FlowRow, Proof, SideReport, Verdict};
use api::sync as wire;
use identity::ids::{NodeId, Slot, WorkloadRef};
use jiff::Timestamp;
use policy::policy::Side;
use policy::port::protocol;
use serde::{Deserialize, Serialize};

use crate::fleet::{Fleet, WorkloadEntry};
use crate::registry::report::shown;

/// Most rows. Beyond, the oldest of the node that reported the most are forgotten first, so that no node can push out
/// what the others saw.
pub const ROWS_MAX: usize = 20_000;
/// Rows that were not seen for so long are forgotten.
pub const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Reports of one batch that are looked at; agents send a quarter of it.
const BATCH_MAX: usize = 2048;
/// Reports of the same connection are joined when they are at most so far apart.
const JOIN_GAP: Duration = Duration::from_secs(600);
/// Aggregates of the same refusal go into one row while they are at most so far apart.
const AGGREGATE_GAP: Duration = Duration::from_secs(60);
/// External networks that one report may name.
const NETWORKS_MAX: usize = 64;

/// One flow as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    key: JoinKey,
    shown: FlowRow,
    egress: Option<Part>,
    ingress: Option<Part>,
    /// The number of the node that reported it first; 0 in rows that an earlier version stored.
    #[serde(default)]
    reporter: u32,
    /// The table's version when it last changed.
    #[serde(skip)]
    version: u64,
}

/// By what the reports of one flow are known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct JoinKey {
    client: End,
    server: End,
    protocol: u32,
    /// TCP: the client's initial sequence number; 0 where there is none, then the port stands in its place.
    client_isn: u32,
    port: u32,
}

/// One end, by what both reports call it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum End {
    Workload(WorkloadRef),
    Address(String),
}

/// What one side has reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Part {
    report: SideReport,
    count: u64,
    sent: u64,
    received: u64,
    closed: bool,
    dialled: Option<String>,
    proof: Proof,
}

/// What has to be written.
#[derive(Debug, Default)]
pub struct Due {
    /// New or changed rows.
    pub rows: Vec<Row>,
    /// Numbers of rows that were forgotten.
    pub forgotten: BTreeSet<u64>,
    /// The last batch of nodes: node, process, sequence.
    pub batches: Vec<(NodeId, String, u64)>,
}

/// All flows.
#[derive(Debug, Default)]
pub struct Table {
    rows: BTreeMap<u64, Row>,
    by_key: HashMap<JoinKey, u64>,
    /// Row numbers by the node that reported them first.
    by_reporter: BTreeMap<u32, BTreeSet<u64>>,
    /// Row numbers by the version of their last change.
    by_version: BTreeMap<u64, u64>,
    version: u64,
    last_id: u64,
    batches: HashMap<NodeId, (String, u64)>,
    sampled_out: u64,
    due_rows: BTreeSet<u64>,
    due_forgotten: BTreeSet<u64>,
    due_batches: BTreeSet<NodeId>,
}

impl Row {
    /// Its number; rises with time.
    pub fn id(&self) -> u64 {
        self.shown.id
    }

    /// As queries see it.
    pub fn shown(&self) -> &FlowRow {
        &self.shown
    }

    /// The IP protocol number.
    pub fn protocol(&self) -> u8 {
        u8::try_from(self.key.protocol).unwrap_or_default()
    }
}

impl Table {
    /// Puts back what was stored.
    pub fn restore(&mut self, row: Row) {
        self.last_id = self.last_id.max(row.id());
        self.insert(row);
    }

    /// Puts back which batch of a node was stored last.
    pub fn restore_batch(&mut self, node: NodeId, process: String, sequence: u64) {
        self.batches.insert(node, (process, sequence));
    }

    /// The number of the last batch of a node's process that was taken.
    pub fn stored(&self, node: NodeId, process: &str) -> u64 {
        self.batches.get(&node).filter(|(p, _)| p == process).map_or(0, |(_, sequence)| *sequence)
    }

    /// Takes a batch. Returns false if it was taken before.
    pub fn take(
        &mut self,
        fleet: &Fleet,
        node: NodeId,
        process: &str,
        batch: &wire::FlowBatch,
        now: Timestamp,
    ) -> bool {
        if batch.sequence <= self.stored(node, process) {
            return false;
        }
        self.batches.insert(node, (process.to_owned(), batch.sequence));
        self.due_batches.insert(node);
        self.sampled_out = self.sampled_out.saturating_add(batch.sampled_out);
        for flow in batch.flows.iter().take(BATCH_MAX) {
            self.take_flow(fleet, node, flow, now);
        }
        self.forget(now);
        true
    }

    fn take_flow(&mut self, fleet: &Fleet, node: NodeId, flow: &wire::Flow, now: Timestamp) {
        let Some(report) = Report::read(fleet, node, flow, now) else { return };
        let gap = if flow.client_isn == 0 { AGGREGATE_GAP } else { JOIN_GAP };
        let known = self.by_key.get(&report.key).copied().filter(|id| {
            self.rows.get(id).is_some_and(|row| {
                let apart = report.first.duration_since(row.shown.last).unsigned_abs();
                apart <= gap && row.accepts(&report)
            })
        });
        let mut row = match known.and_then(|id| self.rows.remove(&id)) {
            Some(row) => {
                self.by_version.remove(&row.version);
                row
            }
            None => {
                self.last_id += 1;
                report.new_row(self.last_id, node)
            }
        };
        row.add(report);
        self.due_rows.insert(row.id());
        self.insert(row);
    }

    fn insert(&mut self, mut row: Row) {
        self.version += 1;
        row.version = self.version;
        self.by_version.insert(self.version, row.id());
        self.by_key.insert(row.key.clone(), row.id());
        self.by_reporter.entry(row.reporter).or_default().insert(row.id());
        self.rows.insert(row.id(), row);
    }

    /// Keeps the bounds: rows are numbered by time, so the first ones are the oldest.
    fn forget(&mut self, now: Timestamp) {
        while let Some((id, _)) = self.rows.first_key_value().filter(|(_, row)| row.shown.last + AGE_MAX < now) {
            self.forget_row(*id);
        }
        while self.rows.len() > ROWS_MAX {
            let most = self.by_reporter.values().max_by_key(|rows| rows.len());
            let Some(id) = most.and_then(|rows| rows.first().copied()) else { return };
            self.forget_row(id);
        }
    }

    fn forget_row(&mut self, id: u64) {
        let Some(row) = self.rows.remove(&id) else { return };
        self.by_version.remove(&row.version);
        if self.by_key.get(&row.key) == Some(&id) {
            self.by_key.remove(&row.key);
        }
        if let Some(of_reporter) = self.by_reporter.get_mut(&row.reporter) {
            of_reporter.remove(&id);
            if of_reporter.is_empty() {
                self.by_reporter.remove(&row.reporter);
            }
        }
        self.due_rows.remove(&id);
        self.due_forgotten.insert(id);
    }

    /// Takes what has to be written.
    pub fn due(&mut self) -> Due {
        let rows = std::mem::take(&mut self.due_rows).into_iter().filter_map(|id| self.rows.get(&id).cloned());
        let batches = std::mem::take(&mut self.due_batches).into_iter();
        let batches =
            batches.filter_map(|n| self.batches.get(&n).map(|(process, sequence)| (n, process.clone(), *sequence)));
        Due { rows: rows.collect(), batches: batches.collect(), forgotten: std::mem::take(&mut self.due_forgotten) }
    }

    /// Gives back what could not be written.
    pub fn still_due(&mut self, due: Due) {
        self.due_rows.extend(due.rows.iter().map(Row::id).filter(|id| self.rows.contains_key(id)));
        self.due_forgotten.extend(due.forgotten);
        self.due_batches.extend(due.batches.into_iter().map(|(node, _, _)| node));
    }

    /// The newest rows that a query means, oldest first.
    pub fn newest(&self, query: &FlowQuery, limit: usize) -> Vec<FlowRow> {
        let rows = self.rows.values().rev().take_while(|row| query.after.is_none_or(|after| row.id() > after));
        let mut found: Vec<FlowRow> = rows.map(|r| &r.shown).filter(|r| means(query, r)).take(limit).cloned().collect();
        found.reverse();
        found
    }

    /// Rows that changed after a version, and the version up to which the answer is complete.
    pub fn changed_since(&self, query: &FlowQuery, version: u64, limit: usize) -> (Vec<FlowRow>, u64) {
        let mut found = Vec::new();
        for (changed, id) in self.by_version.range(version + 1..) {
            let row = self.rows.get(id).map(|row| &row.shown);
            found.extend(row.filter(|row| means(query, row)).cloned());
            if found.len() >= limit {
                return (found, *changed);
            }
        }
        (found, self.version)
    }

    /// Rises with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Allowed flows that agents did not record.
    pub fn sampled_out(&self) -> u64 {
        self.sampled_out
    }

    /// Every row, oldest first.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = &Row> {
        self.rows.values()
    }
}

/// One report, as far as it makes sense.
struct Report {
    key: JoinKey,
    side: Side,
    part: Part,
    client: FlowEnd,
    server: FlowEnd,
    first: Timestamp,
    last: Timestamp,
}

impl Report {
    /// Reads a report; `None` for one that makes no sense. A node speaks only for its own workloads.
    fn read(fleet: &Fleet, node: NodeId, flow: &wire::Flow, now: Timestamp) -> Option<Self> {
        let side: Side = flow.direction.parse().ok()?;
        let local = reference(flow.local.as_ref()?).filter(|at| at.node == node)?;
        let address = shown(&flow.peer_address);
        let (local_key, local_end) = (End::Workload(local), end_of(fleet, local));
        let (peer_key, peer_end) = match flow.peer.as_ref().and_then(reference) {
            Some(at) => (End::Workload(at), FlowEnd { address: Some(address.clone()), ..end_of(fleet, at) }),
            None => {
                let external = flow.external.iter().take(NETWORKS_MAX).map(|n| shown(n)).collect();
                let end = FlowEnd { address: Some(address.clone()), external, ..FlowEnd::default() };
                (End::Address(address.clone()), end)
            }
        };
        let ((client_key, client), (server_key, server)) = match side {
            Side::Egress => ((local_key, local_end), (peer_key, peer_end)),
            Side::Ingress => ((peer_key, peer_end), (local_key, local_end)),
        };
        let port = u16::try_from(flow.port).ok()?;
        let dialled = (side == Side::Egress).then(|| dialled(&address, flow.dialled_port));
        let report = SideReport {
            verdict: verdict(&flow.verdict)?,
            would: verdict(&flow.would)?,
            policy: Some(shown(&flow.policy)).filter(|p| !p.is_empty()),
            reason: Some(shown(&flow.reason)).filter(|r| !r.is_empty()),
            port,
            node: fleet.node(node).map(|n| n.name.clone()).unwrap_or_default(),
        };
        let part = Part {
            report,
            count: flow.count.max(1),
            sent: flow.bytes_sent,
            received: flow.bytes_received,
            closed: flow.closed,
            dialled,
            proof: proof(flow.client()),
        };
        let port = if flow.client_isn == 0 { flow.port } else { 0 };
        let key = JoinKey {
            client: client_key,
            server: server_key,
            protocol: flow.protocol,
            client_isn: flow.client_isn,
            port,
        };
        // A node's clock may be off; the future is not.
        let time = |ms| Timestamp::from_millisecond(ms).map_or(now, |at| at.min(now));
        let (first, last) = (time(flow.first_unix_ms), time(flow.last_unix_ms));
        Some(Self { key, side, part, client, server, first, last: last.max(first) })
    }

    fn new_row(&self, id: u64, reporter: NodeId) -> Row {
        let shown = FlowRow {
            id,
            client: self.client.clone(),
            server: self.server.clone(),
            protocol: protocol_name(self.key.protocol),
            port: self.part.report.port,
            dialled: None,
            verdict: self.part.report.verdict,
            would: self.part.report.would,
            egress: None,
            ingress: None,
            proof: self.part.proof,
            count: 0,
            bytes_to_server: 0,
            bytes_to_client: 0,
            first: self.first,
            last: self.last,
            closed: false,
        };
        let reporter = reporter.get();
        Row { key: self.key.clone(), shown, egress: None, ingress: None, reporter, version: 0 }
    }
}

impl Row {
    fn part(&mut self, side: Side) -> &mut Option<Part> {
        match side {
            Side::Egress => &mut self.egress,
            Side::Ingress => &mut self.ingress,
        }
    }

    /// Whether a report goes into this row: an aggregate only where it says the same as what is there of its side.
    fn accepts(&self, report: &Report) -> bool {
        let same_side = match report.side {
            Side::Egress => &self.egress,
            Side::Ingress => &self.ingress,
        };
        report.key.client_isn != 0 || same_side.as_ref().is_none_or(|part| part.report == report.part.report)
    }

    /// Adds a report: of a connection it replaces what its side said before, of an aggregate it adds to it.
    fn add(&mut self, report: Report) {
        let aggregate = report.key.client_isn == 0;
        let slot = self.part(report.side);
        let before = slot.take();
        let mut part = report.part;
        if let (Some(before), true) = (&before, aggregate) {
            part.count = part.count.saturating_add(before.count);
            part.sent = part.sent.saturating_add(before.sent);
            part.received = part.received.saturating_add(before.received);
        }
        *slot = Some(part);
        for (end, said) in [(&mut self.shown.client, report.client), (&mut self.shown.server, report.server)] {
            let said_more = end.workload.is_none() && said.workload.is_some();
            let address = end.address.take().or(said.address.clone());
            if said_more {
                *end = said;
            }
            end.address = address;
        }
        self.shown.first = self.shown.first.min(report.first);
        self.shown.last = self.shown.last.max(report.last);
        self.join();
    }

    /// What both sides' words make together.
    fn join(&mut self) {
        let parts = || self.egress.iter().chain(&self.ingress);
        let any = |of: fn(&SideReport) -> Verdict| match parts().any(|p| of(&p.report) == Verdict::Deny) {
            true => Verdict::Deny,
            false => Verdict::Allow,
        };
        let (verdict, would) = (any(|r| r.verdict), any(|r| r.would));
        let max = |of: fn(&Part) -> u64| parts().map(of).max().unwrap_or(0);
        let count = max(|p| p.count);
        let to_server = self.egress.as_ref().map(|p| p.sent).max(self.ingress.as_ref().map(|p| p.received));
        let to_client = self.egress.as_ref().map(|p| p.received).max(self.ingress.as_ref().map(|p| p.sent));
        let closed = parts().any(|p| p.closed);
        // The server's end verified the client; the client's end can only say who it is itself.
        let proof = self.ingress.as_ref().or(self.egress.as_ref()).map_or(Proof::Unknown, |p| p.proof);
        let real = self.ingress.as_ref().or(self.egress.as_ref()).map_or(0, |p| p.report.port);
        let row = &mut self.shown;
        (row.verdict, row.would, row.count, row.closed, row.proof, row.port) =
            (verdict, would, count, closed, proof, real);
        row.bytes_to_server = to_server.unwrap_or(0);
        row.bytes_to_client = to_client.unwrap_or(0);
        row.dialled = self.egress.as_ref().and_then(|p| p.dialled.clone());
        row.egress = self.egress.as_ref().map(|p| p.report.clone());
        row.ingress = self.ingress.as_ref().map(|p| p.report.clone());
    }
}

/// Whether a row is what a query asks for.
fn means(query: &FlowQuery, row: &FlowRow) -> bool {
    let end_in = |namespace: &str, end: &FlowEnd| {
        let stem = namespace.trim_end_matches('/');
        let path = end.workload.as_deref().and_then(|path| path.strip_prefix(stem));
        path.is_some_and(|rest| rest.starts_with('/'))
    };
    query.from.as_ref().is_none_or(|text| fits(text, &row.client))
        && query.to.as_ref().is_none_or(|text| fits(text, &row.server))
        && query.namespace.as_ref().is_none_or(|n| end_in(n, &row.client) || end_in(n, &row.server))
        && query.verdict.is_none_or(|verdict| row.verdict == verdict)
        && query.would.is_none_or(|would| row.would == would)
        && query.since.is_none_or(|since| row.last >= since)
}

/// Whether a reference means this end: as of flow time, so that workloads that are gone are found, too.
fn fits(text: &str, end: &FlowEnd) -> bool {
    let is = |field: &Option<String>, text: &str| field.as_deref() == Some(text);
    if is(&end.workload, text) || is(&end.uid, text) || end.external.iter().any(|n| n == text) || is(&end.address, text)
    {
        return true;
    }
    let name = end.workload.as_deref().and_then(|path| path.rsplit('/').next());
    match text.split_once('@') {
        Some((wanted, at)) => name == Some(wanted) && (is(&end.cluster, at) || is(&end.node, at)),
        None => name == Some(text),
    }
}

fn end_of(fleet: &Fleet, at: WorkloadRef) -> FlowEnd {
    match fleet.workload_or_departed(at) {
        Some(workload) => end_of_entry(workload),
        None => FlowEnd { node: fleet.node(at.node).map(|n| n.name.clone()), ..FlowEnd::default() },
    }
}

/// A workload as flows show it.
pub fn end_of_entry(workload: &WorkloadEntry) -> FlowEnd {
    FlowEnd {
        workload: Some(workload.path()),
        uid: Some(workload.uid.clone()),
        node: Some(workload.node().to_owned()),
        cluster: Some(workload.cluster().to_owned()),
        attributes: workload.identity.attributes().iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        ..FlowEnd::default()
    }
}

fn reference(peer: &wire::PeerRef) -> Option<WorkloadRef> {
    Some(WorkloadRef { node: NodeId::new(peer.node)?, slot: Slot(u16::try_from(peer.slot).ok()?) })
}

fn verdict(word: &str) -> Option<Verdict> {
    match word {
        "allow" => Some(Verdict::Allow),
        "deny" => Some(Verdict::Deny),
        _ => None,
    }
}

fn proof(proof: wire::flow::Proof) -> Proof {
    match proof {
        wire::flow::Proof::Unknown => Proof::Unknown,
        wire::flow::Proof::Proved => Proof::Proved,
        wire::flow::Proof::Claimed => Proof::Claimed,
        wire::flow::Proof::External => Proof::External,
    }
}

fn protocol_name(number: u32) -> String {
    match u8::try_from(number) {
        Ok(protocol::TCP) => "tcp".into(),
        Ok(protocol::UDP) => "udp".into(),
        Ok(protocol::ICMP | protocol::ICMPV6) => "icmp".into(),
        _ => number.to_string(),
    }
}

fn dialled(address: &str, port: u32) -> String {
    let address = address.split_once('%').map_or(address, |(a, _)| a);
    match (address.parse::<std::net::IpAddr>(), port) {
        (_, 0) => address.to_owned(),
        (Ok(std::net::IpAddr::V6(v6)), port) => format!("[{v6}]:{port}"),
        (_, port) => format!("{address}:{port}"),
    }
}

#[cfg(test)]
mod tests;
