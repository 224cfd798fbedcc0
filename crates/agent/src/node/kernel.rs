//! What goes to the kernel, and what it reports.

use std::collections::BTreeMap;
use std::time::Instant;

use api::sync::Cut;
use api::sync::agent_message::Message as FromAgent;
use datapath::event::{Event, Kind, Local, Peer};
use datapath::feature::Feature;
use datapath::state::ClassId;
use datapath::walk;
use policy::code::agent as code;
use policy::reason::Reason;

use super::Node;
use crate::clock::Now;
use crate::compile::{CompileError, Inputs};
use crate::config::Source;
use crate::enforce::{Attachment, Command, Report};
use crate::flow::{Flows, Names};
use crate::state::Held;
use crate::sync::pull::Unknown;

/// A workload as the kernel enforces it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placement {
    pub slot: u16,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub revoked: bool,
    /// The revision since which it is placed so: who enforces that one knows it so.
    pub since: u64,
}

/// What is live.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    pub revision: u64,
    pub took_ms: u32,
    /// By uid.
    pub placed: BTreeMap<String, Placement>,
    /// The sealed state it was made from; `None` before the first.
    pub held: Option<Held>,
    /// Revocations in force, and the workload of this node that each is about (empty: another node's).
    pub revocations: BTreeMap<String, String>,
}

/// A state on its way to the kernel.
#[derive(Debug)]
pub(crate) struct Applying {
    started: Instant,
    live: Live,
}

impl Node {
    /// Compiles and applies what changed, one state at a time. What changes meanwhile goes with the next.
    pub(crate) fn advance(&mut self) {
        if !self.inner.stale || self.inner.applying.is_some() {
            return;
        }
        let Some(revision) = self.held.as_ref().map(|held| held.revision()) else {
            self.inner.stale = false;
            return;
        };
        let started = Instant::now();
        let locals = self.registry.locals();
        let inputs = Inputs {
            locals: &locals,
            ring: &self.ring,
            clock_offset_ns: self.inner.clock_offset_ns,
            host_protected: self.config.protect_host,
        };
        let inner = &mut self.inner;
        let compiled =
            tokio::task::block_in_place(|| inner.compiler.compile(&mut inner.model, &inputs, &mut self.numbering));
        self.inner.stale = false;
        let compiled = match compiled {
            Ok(compiled) => compiled,
            Err(error) => return self.not_compiled(revision, &error),
        };
        self.calm_objects();
        let low = compiled.bad_keys.iter().map(|node| (format!("node {node}"), String::new())).collect();
        self.alarms_are(&code::KEY_LOW_ORDER, low);
        let covering = compiled.covering_fleet.iter().map(|id| (id.to_string(), String::new())).collect();
        self.alarms_are(&code::COVERS_FLEET, covering);
        if let Err(error) = self.numbering.save() {
            // Without the names on disk, records of this state could later say another policy's name.
            self.inner.stale = true;
            return self.alarm(&code::DATA_UNUSABLE, "names", &error.to_string());
        }
        let live = self.placements(revision);
        let command = Command::Apply { revision, state: Box::new(compiled.state) };
        if self.enforcer.send(command) {
            self.inner.applying = Some(Applying { started, live });
        } else {
            self.inner.stale = true;
        }
    }

    fn calm_objects(&mut self) {
        self.alarms_are(&code::OBJECT_UNUSABLE, BTreeMap::new());
    }

    fn not_compiled(&mut self, revision: u64, error: &CompileError) {
        let message = crate::sync::chain(error);
        let object = error.object().to_owned();
        self.inner.own.not_applied += 1;
        self.inner.behind = true;
        self.reject(revision, &object, code::OBJECT_UNUSABLE.id, &message);
        self.alarms_are(&code::OBJECT_UNUSABLE, BTreeMap::from([(object, message)]));
    }

    /// What will be live when the model is.
    fn placements(&self, revision: u64) -> Live {
        let model = &self.inner.model;
        let mut live = Live { revision, held: self.held.clone(), ..Live::default() };
        for workload in self.registry.iter() {
            let Some(placed) = model.placed.get(&workload.uid) else { continue };
            let identity = model.classes.get(&ClassId(placed.class));
            let labels = identity.into_iter().flat_map(|identity| identity.attributes().user());
            let mut placement = Placement {
                slot: placed.slot as u16,
                namespace: placed.namespace.clone(),
                labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
                revoked: placed.revoked,
                since: revision,
            };
            if let Some(before) = self.inner.live.placed.get(&workload.uid)
                && *before == (Placement { since: before.since, ..placement.clone() })
            {
                placement.since = before.since;
            }
            live.placed.insert(workload.uid.clone(), placement);
            if placed.revoked {
                live.revocations.insert(placed.revocation_uid.clone(), workload.uid.clone());
            }
        }
        for peer in model.peers.values().filter(|peer| peer.revoked) {
            live.revocations.entry(peer.revocation_uid.clone()).or_default();
        }
        live
    }

    pub(super) fn on_kernel(&mut self, report: Report) {
        match report {
            Report::Applied { took, .. } => self.applied(took),
            Report::NotApplied { revision, message } => {
                self.inner.applying = None;
                self.inner.behind = true;
                self.inner.own.not_applied += 1;
                self.reject(revision, "", code::NOT_APPLIED.id, &message);
                self.alarm(&code::NOT_APPLIED, "state", &message);
            }
            Report::Records(records) => self.records(&records),
            Report::NamespaceUnknown => self.look(),
            Report::RecordsLost(lost) => self.inner.own.flows_sampled_out += lost,
            Report::Swept(cut) => self.swept(&cut),
            Report::Unrepaired(listeners) => {
                self.inner.older_listeners = listeners.into_iter().collect();
                self.cover();
            }
            Report::Counted(counted) => {
                self.inner.counted = *counted;
                self.flush_flows();
                self.inner.unpublished = true;
            }
            Report::Attached(attachment) => self.attached(attachment),
            Report::Detached => {
                self.inner.enforcement.attached = false;
                self.inner.unpublished = true;
            }
            Report::AttachFailed(message) => self.alarm(&code::PROGRAMS_REFUSED, "programs", &message),
        }
    }

    fn attached(&mut self, attachment: Attachment) {
        self.inner.enforcement.attached = true;
        self.inner.features = attachment.features;
        if !attachment.taken_over {
            self.flows = Flows::with_baseline(None, false).following(&self.flows);
        }
        self.calm(&code::PROGRAMS_REFUSED, "programs");
        self.calm(&code::DETACHED, "node");
        self.inner.unpublished = true;
    }

    fn applied(&mut self, took: std::time::Duration) {
        self.inner.in_force = true;
        self.inner.unpublished = true;
        let Some(Applying { started, mut live }) = self.inner.applying.take() else { return };
        live.took_ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        let before = std::mem::replace(&mut self.inner.live, live);
        self.inner.own.applied += 1;
        self.inner.behind = false;
        self.inner.own.last_apply_us = started.elapsed().as_micros() as u64;
        self.inner.unpublished = true;
        self.inner.unsaved = true;
        self.calm(&code::NOT_APPLIED, "state");
        // Before anybody relies on it: an agent that is killed and comes back must not enforce an older state than it confirmed.
        self.save_state();
        self.acknowledge();
        self.say_answered();
        let new = self.inner.live.revocations.iter().filter(|(uid, _)| !before.revocations.contains_key(*uid));
        self.inner.confirming = new.map(|(uid, workload)| (uid.clone(), workload.clone())).collect();
    }

    /// The sweep after a state: every new revocation is confirmed, whether or not anything was open.
    fn swept(&mut self, cut: &[walk::Cut]) {
        let mut cuts: BTreeMap<(String, String), u32> =
            std::mem::take(&mut self.inner.confirming).into_iter().map(|cause| (cause, 0)).collect();
        for connection in cut {
            *cuts.entry(self.cause(connection.local, connection.peer)).or_default() += 1;
        }
        self.say_cuts(cuts);
    }

    fn say_cuts(&mut self, cuts: BTreeMap<(String, String), u32>) {
        let at_revision = self.inner.live.revision;
        for ((revocation_uid, workload_uid), connections) in cuts {
            self.inner.own.cut += u64::from(connections);
            self.say(FromAgent::Cut(Cut { revocation_uid, workload_uid, connections, at_revision }));
        }
    }

    fn records(&mut self, records: &[Event]) {
        let names = names(&self.numbering, &self.inner.model);
        let now = self.inner.started.elapsed();
        // Where the kernel can destroy sockets, the sweep counts; else a connection is cut by its next packet.
        let by_packet = !self.inner.features.iter().any(|feature| feature == Feature::SocketDestroy.label());
        let mut cuts: BTreeMap<(String, String), u32> = BTreeMap::new();
        for event in records {
            self.flows.record(event, &names);
            match (event.kind, event.peer) {
                (Kind::Unknown { .. }, Peer::Workload(at)) => {
                    let unknown = match event.reason {
                        Some(Reason::KeyUnknown | Reason::PairMacBad) => Unknown::Keys(at.node),
                        _ => Unknown::Peer(at),
                    };
                    self.inner.pulls.want(unknown, now);
                    self.inner.asked_ns = self.inner.asked_ns.max(event.boot_ns);
                }
                (Kind::Refused { cut: true, would: false, .. }, _) if by_packet => {
                    *cuts.entry(self.cause(event.local, event.peer)).or_default() += 1;
                }
                _ => {}
            }
        }
        if let Some(pull) = self.inner.pulls.take(now) {
            self.say(FromAgent::Pull(pull));
        }
        self.say_answered();
        self.say_cuts(cuts);
    }

    /// Tells the kernel that its questions were answered, once the answer is live: what does not fit then is refused for good
    /// (PROTOCOL rule 11). Where there is no server, nobody knows more than the state file.
    pub(super) fn say_answered(&mut self) {
        let inner = &mut self.inner;
        let is_live = !inner.stale && !inner.behind && inner.applying.is_none();
        let settled = matches!(self.config.source, Source::File(_)) || is_live && inner.pulls.settled();
        if settled && inner.asked_ns > inner.answered_ns && self.enforcer.send(Command::Answered(inner.asked_ns)) {
            inner.answered_ns = inner.asked_ns;
        }
    }

    /// The revocation that ended a connection (empty: a change of policy or labels), and the workload of this node.
    fn cause(&self, local: Local, peer: Peer) -> (String, String) {
        let slot = local.slot.map(|slot| u32::from(slot.0));
        let local = self.inner.model.placed.values().find(|placed| Some(placed.slot) == slot);
        let peer = match peer {
            Peer::Workload(at) => self.inner.model.peers.get(&at),
            Peer::External(_) | Peer::Unknown => None,
        };
        let own = local.filter(|placed| placed.revoked).map(|placed| placed.revocation_uid.clone());
        let other = || peer.filter(|peer| peer.revoked).map(|peer| peer.revocation_uid.clone());
        (own.or_else(other).unwrap_or_default(), local.map(|placed| placed.uid.clone()).unwrap_or_default())
    }

    fn flush_flows(&mut self) {
        let before = self.flows.sequence();
        self.flows.flush(&self.inner.counted.denials, &names(&self.numbering, &self.inner.model));
        let fresh: Vec<_> = self.flows.batches_after(before).cloned().collect();
        fresh.into_iter().for_each(|batch| self.say(FromAgent::Flows(batch)));
        self.inner.own.pulls_dropped = self.inner.pulls.dropped();
    }
}

fn names<'a>(numbering: &'a crate::numbering::Numbering, model: &crate::model::Model) -> Names<'a> {
    let now = Now::read();
    let node = model.settings.as_ref().map_or(0, |settings| settings.node_id);
    Names { node, numbering, boot_to_unix_ns: now.unix_ns - now.boot_ns }
}
