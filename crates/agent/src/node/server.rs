//! What the server says, and what it is told when a stream begins.

use api::sync::agent_message::Message as FromAgent;
use api::sync::server_message::Message as FromTheServer;
use api::sync::{Applied, Hello, NodePublicKey, Rejected, ServerMessage, WorkloadReport};
use policy::code::agent as code;

use super::Node;
use crate::clock::{Now, boot_id};
use crate::state::{Held, StateError};
use crate::sync::credential::{forget_key, make_key};
use crate::sync::link::{FromServer, Stream};

/// Version of the Sync protocol that this agent speaks.
const PROTOCOL: u32 = 1;
/// Offsets that differ by less are not worth a write to the kernel: T counts 64 s.
const OFFSET_STEP_NS: i64 = 50_000_000;

impl Node {
    pub(super) fn on_server(&mut self, event: FromServer) {
        match event {
            FromServer::Up(stream) => self.begin(stream),
            FromServer::Down(error) => self.stream_ended(error),
            FromServer::Message(message) => self.message(*message),
        }
    }

    fn begin(&mut self, stream: Stream) {
        self.inner.stream = Some(stream);
        self.inner.own.streams += 1;
        self.inner.assembly = Default::default();
        self.inner.pulls.reconnected();
        let hello = self.hello();
        self.say(FromAgent::Hello(hello));
        let report = WorkloadReport { complete: true, upserted: self.registry.report(), removed_uids: Vec::new() };
        self.say(FromAgent::Workloads(report));
        self.acknowledge();
        let batches: Vec<_> = self.flows.batches_after(0).cloned().collect();
        batches.into_iter().for_each(|batch| self.say(FromAgent::Flows(batch)));
        let alarms: Vec<_> = self.inner.alarms.values().cloned().collect();
        // That the server was out of reach is over with this stream.
        for alarm in alarms.into_iter().filter(|alarm| alarm.code != code::SERVER_UNREACHABLE.id) {
            self.say_alarm(alarm, false);
        }
        self.compare_clocks();
    }

    fn hello(&mut self) -> Hello {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let addresses = match &self.config.node_addresses {
            Some(addresses) => addresses.iter().copied().collect(),
            None => self.namespaces.own_addresses(),
        };
        let generation = self.inner.model.settings.as_ref().map_or(0, |settings| settings.own_key_generation);
        let have_revision = match (self.base(), self.inner.resync) {
            (Some(held), false) => held.revision(),
            _ => 0,
        };
        Hello {
            protocol: PROTOCOL,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel_release: kernel,
            features: self.inner.features.clone(),
            boot_id: boot_id(),
            have_revision,
            handshake_key: u8::try_from(generation).ok().and_then(|generation| self.public_key(generation)),
            node_addresses: addresses.iter().map(ToString::to_string).collect(),
            detached: !self.inner.enforcement.attached,
            process: self.inner.process.clone(),
        }
    }

    fn public_key(&self, generation: u8) -> Option<NodePublicKey> {
        self.credential.as_ref()?.sign(generation, self.ring.secrets.get(&generation)?)
    }

    fn stream_ended(&mut self, error: String) {
        let was_up = self.inner.stream.take().is_some();
        if was_up {
            tracing::info!(error, "sync stream ended");
            self.inner.stream_since = jiff::Timestamp::now();
        } else if self.inner.last_error.as_ref() != Some(&error) {
            tracing::warn!(error, "the server cannot be reached");
        }
        self.inner.last_error = Some(error);
        self.inner.unpublished = true;
    }

    /// Ends the stream because of what came over it; the next one begins with a whole state.
    fn distrust(&mut self) {
        self.inner.resync = true;
        if let Some(stream) = self.inner.stream.take() {
            stream.end.cancel();
        }
    }

    fn message(&mut self, message: ServerMessage) {
        let now = Now::read();
        match message.message {
            Some(FromTheServer::Welcome(welcome)) => {
                tracing::info!(node = welcome.node_name, cluster = welcome.cluster, "sync stream begun");
                self.inner.last_error = None;
                self.inner.tells_fleet = welcome.tells_fleet;
                self.inner.stream_since = jiff::Timestamp::now();
                self.inner.unpublished = true;
                self.calm(&code::SERVER_UNREACHABLE, "server");
                if self.clock.greeting(welcome.server_unix_ns, now) {
                    self.offset_changed();
                }
            }
            Some(FromTheServer::Snapshot(chunk)) => {
                let Some(trust) = self.trust else { return };
                let revision = chunk.revision;
                match self.inner.assembly.take(chunk, &trust, self.floor) {
                    Ok(None) => {}
                    Ok(Some(held)) => {
                        self.inner.resync = false;
                        self.accept(held);
                    }
                    Err(error) => self.refuse(revision, &error),
                }
            }
            Some(FromTheServer::Delta(delta)) => {
                let (Some(trust), revision) = (self.trust, delta.to_revision) else { return };
                let base = self.base().ok_or(StateError::Sequence("a delta before a snapshot"));
                match base.and_then(|base| base.after(delta, &trust)) {
                    Ok(held) => self.accept(held),
                    Err(error) => self.refuse(revision, &error),
                }
            }
            Some(FromTheServer::Refused(refused)) => {
                if self.registry.find(&refused.uid).is_err() {
                    return tracing::debug!("a refusal of a workload that is not here");
                }
                tracing::warn!(uid = refused.uid, code = refused.code, message = refused.message, "workload refused");
                self.inner.refused.insert(refused.uid, (refused.code, refused.message));
                self.inner.unpublished = true;
            }
            Some(FromTheServer::Clock(clock)) => {
                if self.clock.answer(clock.echo, clock.server_unix_ns, now) {
                    self.offset_changed();
                }
            }
            Some(FromTheServer::RotateKey(rotate)) => self.rotate(rotate.generation),
            Some(FromTheServer::PullAnswer(answer)) => {
                self.inner.pulls.answered(&answer, self.inner.started.elapsed());
                self.say_answered();
            }
            Some(FromTheServer::FlowsStored(stored)) => self.flows.stored(stored.sequence),
            Some(FromTheServer::FleetHas(has)) => {
                let before = self.inner.fleet_has;
                self.inner.fleet_has = before.max(has.revision);
                let news = |since: u64| before < since && since <= has.revision;
                self.inner.unpublished |= self.inner.live.placed.values().any(|placement| news(placement.since));
            }
            None => tracing::debug!("message of an unknown kind; the server is newer than this agent"),
        }
    }

    /// What the server's next delta starts from: the last state that is live, or on disk. One that was rejected is not.
    fn base(&self) -> Option<&Held> {
        if self.inner.behind { self.inner.live.held.as_ref() } else { self.held.as_ref() }
    }

    /// A believed state: it goes to the model now, to the kernel when it compiles, and to disk when it is live.
    pub(crate) fn accept(&mut self, held: Held) {
        let changes = held.changes_since(self.held.as_ref());
        tracing::debug!(revision = held.revision(), put = changes.put.len(), removed = changes.removed.len(), "state");
        let on_its_way = self.inner.stale || self.inner.behind || self.inner.applying.is_some();
        let is_live = changes.put.is_empty() && changes.removed.is_empty() && !on_its_way;
        changes.removed.iter().for_each(|key| self.inner.model.remove(key));
        changes.put.iter().for_each(|(key, value)| self.inner.model.put(key, value));
        for (key, _) in &changes.put {
            if let Some(uid) = key.strip_prefix("workload/") {
                self.inner.refused.remove(uid);
            }
        }
        let revision = held.revision();
        self.floor = self.floor.max(revision);
        self.inner.unpublished = true;
        self.calm(&code::STATE_UNTRUSTED, "state");
        self.calm(&code::STATE_OLDER, "state");
        if is_live {
            self.inner.live.revision = revision;
            self.inner.live.held = Some(held.clone());
            self.inner.unsaved = true;
            self.acknowledge();
        } else {
            self.inner.stale = true;
        }
        self.held = Some(held);
        self.forget_keys();
    }

    fn refuse(&mut self, revision: u64, error: &StateError) {
        let code = match error {
            StateError::Older { .. } => code::STATE_OLDER,
            _ => code::STATE_UNTRUSTED,
        };
        let message = crate::sync::chain(error);
        self.reject(revision, "", code.id, &message);
        self.alarm(&code, "state", &message);
        self.distrust();
    }

    /// Tells the server that a revision is not live, and why.
    pub(super) fn reject(&mut self, revision: u64, object: &str, code: &str, message: &str) {
        let (object, code, message) = (object.to_owned(), code.to_owned(), message.to_owned());
        self.say(FromAgent::Rejected(Rejected { revision, object, code, message }));
    }

    /// Tells the server what is live in the kernel.
    pub(super) fn acknowledge(&mut self) {
        let (revision, took_ms) = (self.inner.live.revision, self.inner.live.took_ms);
        if revision > 0 {
            self.say(FromAgent::Applied(Applied { revision, took_ms }));
        }
    }

    /// Tells the server about workloads, all or those named.
    pub(super) fn report(&mut self, uids: &[String]) {
        let upserted: Vec<_> = uids.iter().filter_map(|uid| self.registry.find(uid).ok()).map(|w| w.report()).collect();
        if !upserted.is_empty() {
            uids.iter().for_each(|uid| drop(self.inner.refused.remove(uid)));
            self.say(FromAgent::Workloads(WorkloadReport { complete: false, upserted, removed_uids: Vec::new() }));
        }
    }

    pub(super) fn offset_changed(&mut self) {
        let offset = self.clock.offset(Now::read()).0;
        if (offset - self.inner.clock_offset_ns).abs() >= OFFSET_STEP_NS {
            self.inner.clock_offset_ns = offset;
            self.inner.stale |= !self.enforcer.send(crate::enforce::Command::ClockOffset(offset));
        }
        self.calm(&code::CLOCK_UNCONFIRMED, "clock");
        self.inner.unpublished = true;
    }

    /// A new handshake key. Asked again before the server lists it, the same key is the answer.
    fn rotate(&mut self, generation: u32) {
        let Some(generation) = u8::try_from(generation).ok().filter(|generation| *generation < 4) else { return };
        if !self.inner.fresh_keys.contains(&generation) {
            if let Err(error) = make_key(&self.disk, &mut self.ring, generation) {
                return self.alarm(&code::DATA_UNUSABLE, "handshake key", &crate::sync::chain(&error));
            }
            tracing::info!(generation, "new handshake key");
            self.inner.fresh_keys.insert(generation);
            self.inner.stale = true;
        }
        if let Some(key) = self.public_key(generation) {
            self.say(FromAgent::HandshakeKey(key));
        }
    }

    /// Keys of generations that the server has removed are deleted here, too.
    fn forget_keys(&mut self) {
        let Some(settings) = &self.inner.model.settings else { return };
        let Some(node) = identity::ids::NodeId::new(settings.node_id) else { return };
        let sending = settings.own_key_generation;
        let listed = |generation: u8| self.inner.model.node_keys.contains_key(&(node, generation));
        self.inner.fresh_keys.retain(|generation| !listed(*generation));
        let gone: Vec<u8> = self
            .ring
            .secrets
            .keys()
            .filter(|g| !listed(**g) && u32::from(**g) != sending && !self.inner.fresh_keys.contains(*g))
            .copied()
            .collect();
        for generation in gone {
            tracing::info!(generation, "handshake key retired");
            if let Err(error) = forget_key(&self.disk, &mut self.ring, generation) {
                self.alarm(&code::DATA_UNUSABLE, "handshake key", &crate::sync::chain(&error));
            }
        }
    }
}
