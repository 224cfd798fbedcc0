//! One node's Sync stream, from Hello to its end.
//!
//! At most one state is under way: the next is computed only when the agent has answered, from the fleet as it is then,
//! so that a slow agent gets the latest state and never a backlog.

use std::sync::Arc;
use std::time::Duration;

use api::kind::node::RejectedState;
use api::sync as wire;
use api::sync::agent_message::Message as From;
use api::sync::server_message::Message as To;
use identity::ids::NodeId;
use identity::node_key;
use identity::seal::digest;
use jiff::Timestamp;
use policy::code::enrolment as code;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tracing::{debug, info, warn};

use super::budget::Budget;
use super::{internal, refused_by};
use crate::authn::Node;
use crate::class::Refused;
use crate::control::Shared;
use crate::registry::RegistryError;
use crate::registry::report::shown;
use crate::registry::subscription::Enforced;
use crate::view::layer::{Difference, View, difference};

/// The one version of the protocol.
pub const PROTOCOL: u32 = 1;
/// How long a stream may be silent before Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a message may wait for a slow agent.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of objects in one chunk; a delta that is larger is sent as a snapshot.
const CHUNK_LEN: usize = 256 * 1024;
/// Pulled names that wait for one answer.
const PULLED_MAX: usize = 4096;
/// A clock that is off by more is reported.
const SKEW_MAX_MS: i64 = 30_000;
/// A state is sealed anew after this part of its lifetime.
const RESEAL_PART: u32 = 4;

/// See the module.
pub struct Session {
    control: Shared,
    node: NodeId,
    caller: Node,
    outbound: mpsc::Sender<Result<wire::ServerMessage, Status>>,
    cancel: CancellationToken,
    /// The stream's number among the node's.
    number: u64,
    /// Names the agent's flow batches.
    process: String,
    /// What the agent enforces: its revision label and its objects.
    base: Option<(u64, Arc<View>)>,
    under_way: Option<UnderWay>,
    /// The view that was computed last, and the fleet's revision then.
    seen: Option<(u64, Arc<View>)>,
    /// A state that the agent could not apply; it is not sent again.
    rejected: Option<Arc<View>>,
    /// The fleet's revision that `base` was last found equal to.
    current: u64,
    sealed_at: Instant,
    pulled: wire::Pull,
    /// The generation that the agent was asked for.
    asked: Option<u8>,
    /// What the agent was told that the fleet has.
    told: u64,
    budget: Budget,
}

struct UnderWay {
    revision: u64,
    view: Arc<View>,
    /// When its seal ends.
    expires: Timestamp,
    deadline: Instant,
}

impl Session {
    /// A stream of a node that was authenticated.
    pub fn new(control: Shared, caller: Node, outbound: mpsc::Sender<Result<wire::ServerMessage, Status>>) -> Self {
        let cancel = control.stopping.child_token();
        Self {
            control,
            node: caller.id(),
            caller,
            outbound,
            cancel,
            number: 0,
            process: String::new(),
            base: None,
            under_way: None,
            seen: None,
            rejected: None,
            current: 0,
            sealed_at: Instant::now(),
            pulled: wire::Pull::default(),
            asked: None,
            told: 0,
            budget: Budget::new(Instant::now()),
        }
    }

    /// Runs until the agent or the server ends it, or a newer stream of the node takes over.
    pub async fn run(mut self, mut inbound: Streaming<wire::AgentMessage>) -> Result<(), Status> {
        let hello = match timeout(HELLO_TIMEOUT, inbound.message()).await {
            Ok(Ok(Some(wire::AgentMessage { message: Some(From::Hello(hello)) }))) => hello,
            Ok(Ok(None)) => return Ok(()),
            _ => return Err(refused_by(Code::InvalidArgument, &code::MESSAGE_UNEXPECTED)),
        };
        if hello.protocol != PROTOCOL {
            return Err(refused_by(Code::FailedPrecondition, &code::PROTOCOL_VERSION));
        }
        let now = self.control.registry.now();
        self.number = self.control.registry.connect(self.node, self.cancel.clone(), now);
        let ended = self.serve(hello, &mut inbound).await;
        let replaced = self.control.registry.disconnect(self.node, self.number);
        match ended {
            Ok(()) if replaced && !self.control.stopping.is_cancelled() => {
                Err(refused_by(Code::Aborted, &code::REPLACED))
            }
            ended => ended,
        }
    }

    async fn serve(&mut self, hello: wire::Hello, inbound: &mut Streaming<wire::AgentMessage>) -> Result<(), Status> {
        let mut changes = self.control.registry.changes();
        let mut everywhere = self.control.registry.everywhere();
        self.greet(hello).await?;
        loop {
            changes.mark_unchanged();
            let has = *everywhere.borrow_and_update();
            self.tell_fleet_has(has).await?;
            self.advance().await?;
            let reseal = self.sealed_at + self.control.registry.limits().state_lifetime / RESEAL_PART;
            let deadline = self.under_way.as_ref().map_or(reseal, |sent| sent.deadline);
            let overdrawn = self.overdrawn();
            // Cancel safe: the stream keeps what it has read, the watch its mark, and sleeps hold nothing.
            tokio::select! {
                () = self.cancel.cancelled() => return Ok(()),
                () = sleep_until(overdrawn.unwrap_or(deadline)), if overdrawn.is_some() => {}
                message = inbound.message(), if overdrawn.is_none() => match message {
                    Ok(Some(wire::AgentMessage { message: Some(message) })) => {
                        self.budget.spend(&message, Instant::now());
                        self.hear(message).await?;
                    }
                    // A message of a newer protocol that this version does not know.
                    Ok(Some(wire::AgentMessage { message: None })) => debug!(node = %self.node, "unknown message"),
                    Ok(None) => return Ok(()),
                    Err(status) => return Err(status),
                },
                _ = changes.changed() => {}
                _ = everywhere.changed() => {}
                () = sleep_until(deadline) => {
                    if self.under_way.is_some() {
                        return Err(Status::deadline_exceeded("the agent did not answer a state in time"));
                    }
                }
            }
        }
    }

    /// Until when the agent is not listened to because it has said too much; people are told.
    fn overdrawn(&self) -> Option<Instant> {
        let until = self.budget.overdrawn().filter(|until| *until > Instant::now());
        let refused = until.map(|_| Refused::new(&code::TOO_MUCH, "its agent says more than a node has to say"));
        self.control.registry.set_alarms(self.node, "budget", refused.into_iter().collect());
        until
    }

    async fn greet(&mut self, hello: wire::Hello) -> Result<(), Status> {
        info!(node = %self.node, version = hello.agent_version, have = hello.have_revision, "sync stream begins");
        let control = Arc::clone(&self.control);
        let registry = &control.registry;
        registry.hello(self.node, &hello).await.map_err(|e| self.failure(e))?;
        let welcome = {
            let fleet = registry.fleet();
            let unknown = || refused_by(Code::PermissionDenied, &code::NODE_UNKNOWN);
            let (node, cluster) = fleet.node_with_cluster(self.node).ok_or_else(unknown)?;
            wire::Welcome {
                node_id: self.node.get(),
                node_name: node.name.clone(),
                cluster: node.cluster.clone(),
                cluster_namespace: cluster.namespace.clone(),
                region: cluster.region.clone().unwrap_or_default(),
                realm: cluster.realm_of(&node.cluster).to_owned(),
                trust_domain: fleet.trust_domain().to_owned(),
                server_unix_ns: unix_ns(registry.now()),
                tells_fleet: true,
            }
        };
        self.send(To::Welcome(welcome)).await?;
        self.base = registry.known(self.node).filter(|(revision, _)| *revision == hello.have_revision);
        self.process = shown(if hello.process.is_empty() { &hello.boot_id } else { &hello.process });
        match hello.handshake_key {
            Some(key) => self.hear_key(key).await,
            None => Ok(()),
        }
    }

    /// Handles one message. An agent's mistakes end the stream only where nothing sensible can follow.
    async fn hear(&mut self, message: From) -> Result<(), Status> {
        let control = Arc::clone(&self.control);
        let registry = &control.registry;
        match message {
            From::Hello(_) => Err(refused_by(Code::InvalidArgument, &code::MESSAGE_UNEXPECTED)),
            From::Workloads(report) => self.hear_workloads(report).await,
            From::Applied(applied) => match self.under_way.take_if(|sent| sent.revision == applied.revision) {
                Some(sent) => self.settle(sent).await,
                None => Ok(()),
            },
            From::Rejected(rejected) => {
                warn!(node = %self.node, object = rejected.object, code = rejected.code, "state rejected");
                if let Some(sent) = self.under_way.take_if(|sent| sent.revision == rejected.revision) {
                    self.rejected = Some(sent.view);
                }
                let wire::Rejected { revision, object, code, message } = rejected;
                registry.rejected(self.node, self.number, RejectedState { revision, object, code, message });
                Ok(())
            }
            From::Pull(pull) => {
                self.pulled.peers.extend(pull.peers);
                self.pulled.node_keys.extend(pull.node_keys);
                self.pulled.peers.truncate(PULLED_MAX);
                self.pulled.node_keys.truncate(PULLED_MAX);
                Ok(())
            }
            From::Flows(batch) => {
                let stored = self.control.flows.report(registry, self.node, &self.process, batch).await;
                let sequence = stored.map_err(|e| internal(&e))?;
                self.send(To::FlowsStored(wire::FlowsStored { sequence })).await
            }
            From::Cut(cut) => registry.cut(self.node, &cut).await.map_err(|e| self.failure(e)),
            From::Clock(clock) => self.hear_clock(clock).await,
            From::HandshakeKey(key) => self.hear_key(key).await,
            From::Alarm(alarm) => {
                registry.raise_alarm(self.node, &alarm);
                Ok(())
            }
        }
    }

    async fn hear_workloads(&mut self, report: wire::WorkloadReport) -> Result<(), Status> {
        let control = Arc::clone(&self.control);
        let registry = &control.registry;
        let revoked = {
            let fleet = registry.fleet();
            fleet.node(self.node).and_then(|node| fleet.revocation_of_node(node)).map(str::to_owned)
        };
        let refused = match revoked {
            Some(revocation) => {
                let refused =
                    Refused::new(&code::NODE_REVOKED, format!("Revocation `{revocation}` takes this node out"));
                report.upserted.into_iter().map(|w| (w.uid, refused.clone())).collect()
            }
            None => registry.report(self.node, report).await.map_err(|e| self.failure(e))?,
        };
        for (uid, refused) in refused {
            let code = refused.code.id.to_owned();
            self.send(To::Refused(wire::WorkloadRefused { uid, code, message: refused.message })).await?;
        }
        Ok(())
    }

    async fn hear_clock(&mut self, clock: wire::Clock) -> Result<(), Status> {
        let now = unix_ns(self.control.registry.now());
        let skew_ms = clock.agent_unix_ns.saturating_sub(now) / 1_000_000;
        let far = (skew_ms.abs() > SKEW_MAX_MS)
            .then(|| Refused::new(&code::CLOCK_FAR, format!("its clock differs by {} s", skew_ms / 1000)));
        self.control.registry.set_skew(self.node, skew_ms);
        self.control.registry.set_alarms(self.node, "clock", far.into_iter().collect());
        self.send(To::Clock(wire::ServerClock { server_unix_ns: now, echo: clock.echo })).await
    }

    /// A key that the agent uses or has made. One that its ring does not know is announced if it is the next; any other
    /// is replaced by a new one.
    async fn hear_key(&mut self, key: wire::NodePublicKey) -> Result<(), Status> {
        let control = Arc::clone(&self.control);
        let registry = &control.registry;
        let public = match node_key::verify(self.caller.certificate(), key.generation, &key.public, &key.signature) {
            Ok(public) => public,
            Err(cause) => {
                let refused = Refused::new(&code::NODE_KEY_BAD, cause.to_string());
                return Err(super::refusal(Code::InvalidArgument, &refused));
            }
        };
        // `verify` has checked that the generation is at most 3.
        let generation = key.generation as u8;
        let (known, next) = {
            let fleet = registry.fleet();
            let ring = fleet.node_keys.get(&self.node);
            (ring.is_some_and(|r| r.get(generation) == Some(&public)), ring.and_then(|r| r.next().ok()))
        };
        if known {
            return Ok(());
        }
        if next == Some(generation) {
            return match registry.announce_node_key(self.node, generation, public).await {
                Ok(()) => Ok(()),
                Err(cause) => Err(internal(&cause)),
            };
        }
        warn!(node = %self.node, generation, "the agent has a handshake key that was never announced: asking for another");
        registry.rotate_node_keys([self.node]).await.map(|_| ()).map_err(|e| self.failure(e))
    }

    /// Tells the agent what the fleet has, as far as that is news. It may go back when a node connects; what was known
    /// stays known.
    async fn tell_fleet_has(&mut self, revision: u64) -> Result<(), Status> {
        if revision <= self.told {
            return Ok(());
        }
        self.told = revision;
        self.send(To::FleetHas(wire::FleetHas { revision })).await
    }

    /// Sends what is due and possible: a state, answers to pulls, a key rotation.
    async fn advance(&mut self) -> Result<(), Status> {
        if self.under_way.is_some() {
            return Ok(());
        }
        let control = Arc::clone(&self.control);
        let registry = &control.registry;
        let (revision, view) = self.look()?;
        if self.rejected.as_ref() != Some(&view) {
            self.send_state(revision, &view).await?;
        }
        self.answer_pulls(revision, &view).await?;
        let due = registry.rotation_due(self.node).await.map_err(|e| self.failure(e))?;
        if let Some(generation) = due.filter(|g| self.asked != Some(*g)) {
            self.asked = Some(generation);
            self.send(To::RotateKey(wire::RotateKey { generation: u32::from(generation) })).await?;
        }
        Ok(())
    }

    /// What the node must know now. Most of what wakes a stream changes nothing of it.
    fn look(&mut self) -> Result<(u64, Arc<View>), Status> {
        let fleet = self.control.registry.fleet();
        let revision = fleet.revision();
        if let Some((seen, view)) = &self.seen
            && *seen == revision
        {
            return Ok((revision, Arc::clone(view)));
        }
        let view = fleet.view(self.node).map(Arc::new);
        drop(fleet);
        let view = view.ok_or_else(|| refused_by(Code::PermissionDenied, &code::NODE_UNKNOWN))?;
        self.seen = Some((revision, Arc::clone(&view)));
        Ok((revision, view))
    }

    /// Sends the difference to what the agent has, or everything. Nothing, if there is none and the seal is fresh.
    async fn send_state(&mut self, revision: u64, view: &Arc<View>) -> Result<(), Status> {
        let lifetime = self.control.registry.limits().state_lifetime;
        let delta = self.base.as_ref().map(|(from, base)| (*from, difference(base, view)));
        let fresh = self.current > 0 && self.sealed_at.elapsed() < lifetime / RESEAL_PART;
        if let Some((from, delta)) = &delta
            && delta.is_empty()
            && fresh
        {
            let from = *from;
            return if self.current < revision {
                self.settle_at(from, revision, Arc::clone(view), None).await
            } else {
                Ok(())
            };
        }
        let control = Arc::clone(&self.control);
        let registry = &control.registry;
        let expires = registry.now() + lifetime;
        // Before the agent can have it, it counts as a holder of it.
        registry.subscribe(self.node, expires).await.map_err(|e| self.failure(e))?;
        let objects = digest(view.iter().map(|(key, value)| (&**key, &**value)));
        let seal = self.control.seal_key.seal(self.node, revision, expires, objects);
        let seal =
            wire::Seal { expires_unix_s: seal.expires_unix_s, digest: seal.digest.to_vec(), signature: seal.signature };
        match delta {
            Some((from, delta)) if len(&delta) <= CHUNK_LEN => {
                let upserted = delta.upserted.into_iter().map(|(key, value)| object(&key, &value));
                let removed = delta.removed.iter().map(|key| key.to_string()).collect();
                let upserted = upserted.collect();
                let delta =
                    wire::Delta { from_revision: from, to_revision: revision, upserted, removed, seal: Some(seal) };
                self.send(To::Delta(delta)).await?;
            }
            _ => self.send_snapshot(revision, view, seal).await?,
        }
        registry.sent(self.node, self.number, revision);
        self.sealed_at = Instant::now();
        let deadline = Instant::now() + registry.limits().apply_timeout;
        self.under_way = Some(UnderWay { revision, view: Arc::clone(view), expires, deadline });
        Ok(())
    }

    async fn send_snapshot(&mut self, revision: u64, view: &View, seal: wire::Seal) -> Result<(), Status> {
        let mut chunks: Vec<Vec<wire::Object>> = vec![Vec::new()];
        let mut filled = 0;
        for (key, value) in view.iter() {
            let size = key.len() + value.len();
            if filled > 0 && filled + size > CHUNK_LEN {
                chunks.push(Vec::new());
                filled = 0;
            }
            filled += size;
            if let Some(chunk) = chunks.last_mut() {
                chunk.push(object(key, value));
            }
        }
        let count = chunks.len();
        let mut seal = Some(seal);
        for (index, objects) in chunks.into_iter().enumerate() {
            let last = index + 1 == count;
            let seal = seal.take_if(|_| last);
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            self.send(To::Snapshot(wire::SnapshotChunk { revision, index, last, objects, seal })).await?;
        }
        Ok(())
    }

    /// The agent enforces this state.
    async fn settle(&mut self, sent: UnderWay) -> Result<(), Status> {
        self.rejected = None;
        self.settle_at(sent.revision, sent.revision, sent.view, Some(sent.expires)).await
    }

    /// The agent's state, labelled `label`, is the view of `revision`. `expires`: until when its seal holds, where it is a
    /// new one.
    async fn settle_at(
        &mut self,
        label: u64,
        revision: u64,
        view: Arc<View>,
        expires: Option<Timestamp>,
    ) -> Result<(), Status> {
        self.current = revision;
        self.base = Some((label, Arc::clone(&view)));
        let control = Arc::clone(&self.control);
        let registry = &control.registry;
        registry.sent(self.node, self.number, revision);
        let enforced = Enforced { revision, state: (label, view), expires };
        registry.applied(self.node, self.number, enforced).await.map_err(|e| self.failure(e))
    }

    /// What was pulled and does not exist. What exists has just been sent, or was there already.
    async fn answer_pulls(&mut self, revision: u64, view: &View) -> Result<(), Status> {
        let pulled = std::mem::take(&mut self.pulled);
        if pulled == wire::Pull::default() {
            return Ok(());
        }
        let has_peer = |p: &wire::PeerRef| view.get(&format!("peer/{}/{}", p.node, p.slot)).is_some();
        let has_key = |node: &u32| view.has_below(&format!("node-key/{node}/"));
        let absent_peers = pulled.peers.into_iter().filter(|p| !has_peer(p)).collect();
        let absent_nodes = pulled.node_keys.into_iter().filter(|n| !has_key(n)).collect();
        self.send(To::PullAnswer(wire::PullAnswer { absent_peers, absent_nodes, revision })).await
    }

    async fn send(&self, message: To) -> Result<(), Status> {
        let message = Ok(wire::ServerMessage { message: Some(message) });
        tokio::select! {
            () = self.cancel.cancelled() => Err(Status::cancelled("the stream ends")),
            sent = timeout(SEND_TIMEOUT, self.outbound.send(message)) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(Status::cancelled("the agent is gone")),
                Err(_) => Err(Status::deadline_exceeded("the agent does not read its stream")),
            },
        }
    }

    fn failure(&self, cause: RegistryError) -> Status {
        match cause {
            RegistryError::NodeUnknown(_) => refused_by(Code::PermissionDenied, &code::NODE_UNKNOWN),
            cause => internal(&cause),
        }
    }
}

fn object(key: &str, value: &[u8]) -> wire::Object {
    wire::Object { key: key.to_owned(), value: value.to_vec() }
}

fn len(delta: &Difference) -> usize {
    let upserted: usize = delta.upserted.iter().map(|(key, value)| key.len() + value.len()).sum();
    upserted + delta.removed.iter().map(|key| key.len()).sum::<usize>()
}

/// Nanoseconds since 1970, saturating in the year 2262.
fn unix_ns(at: jiff::Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}
