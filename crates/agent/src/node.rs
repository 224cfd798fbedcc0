//! The node: one task that holds everything and reacts to requests, the server, the kernel and time.
//!
//! Nothing else changes its state, so nothing is locked. [`Node::run`] is the loop; what each kind of event does is in the
//! files below: `node/server.rs`, `node/kernel.rs`, `node/request.rs`, `node/time.rs`, and `node/publish.rs` for the view.

mod kernel;
mod publish;
mod request;
mod server;
mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::local::{Alarm, NotCaptured};
use api::sync::AgentMessage;
use api::sync::agent_message::Message as FromAgent;
use policy::code::Code;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use self::publish::time;
pub(crate) use self::request::{Break, DETACHED, Detached, Request, refusal};
pub(crate) use self::time::{BASELINE, CLOCK};
use crate::clock::Clock;
use crate::compile::{Compiler, KeyRing};
use crate::config::Config;
use crate::disk::Disk;
use crate::enforce::{Enforcer, Report};
use crate::flow::Flows;
use crate::model::Model;
use crate::numbering::Numbering;
use crate::state::{Assembly, Held, Trust};
use crate::sync::credential::Credential;
use crate::sync::link::{FromServer, Stream};
use crate::sync::pull::Pulls;
use crate::view::{Counted, OwnCounters, View, alarm};
use crate::workload::Registry;
use crate::workload::declared::List;
use crate::workload::namespaces::Namespaces;
use crate::workload::observe::{Look, Observer};

/// Everything a node knows.
#[derive(Debug)]
pub(crate) struct Node {
    pub config: Config,
    pub disk: Disk,
    pub registry: Registry,
    pub list: Option<List>,
    pub namespaces: Namespaces,
    pub observer: Option<Observer>,
    pub watch: Option<Arc<linux::cgroup::Watch>>,
    pub credential: Option<Credential>,
    pub trust: Option<Trust>,
    pub ring: KeyRing,
    pub clock: Clock,
    pub numbering: Numbering,
    pub flows: Flows,
    pub enforcer: Enforcer,
    pub held: Option<Held>,
    pub floor: u64,
    pub view: watch::Sender<Arc<View>>,
    pub inner: Inner,
}

/// What a node begins without.
#[derive(Debug)]
pub(crate) struct Inner {
    pub started: Instant,
    /// Names this process's flow batches.
    pub process: String,
    pub model: Model,
    pub compiler: Compiler,
    pub assembly: Assembly,
    pub pulls: Pulls,
    /// Boot time of the last question of the kernel, and up to which the kernel was told that they were answered.
    pub asked_ns: u64,
    pub answered_ns: u64,
    pub stream: Option<Stream>,
    /// Why there is no stream, and since when it is as it is.
    pub last_error: Option<String>,
    pub stream_since: jiff::Timestamp,
    /// The server tells what the fleet has; one that does not is not waited for.
    pub tells_fleet: bool,
    /// The newest revision that every connected node enforces, as the server says.
    pub fleet_has: u64,
    /// The server is to send everything anew.
    pub resync: bool,
    /// Something changed that the kernel must know.
    pub stale: bool,
    /// The last state that was tried is not live.
    pub behind: bool,
    /// On its way to the kernel.
    pub applying: Option<kernel::Applying>,
    pub live: kernel::Live,
    /// Revocations that are live and whose sweep is under way.
    pub confirming: Vec<(String, String)>,
    pub refused: BTreeMap<String, (String, String)>,
    /// Own key generations that the server does not list yet.
    pub fresh_keys: BTreeSet<u8>,
    pub clock_offset_ns: i64,
    pub alarms: BTreeMap<(&'static str, String), Alarm>,
    pub not_captured: Vec<NotCaptured>,
    pub older_listeners: BTreeSet<crate::enforce::Listener>,
    pub features: Vec<String>,
    pub enforcement: Break,
    /// The kernel has a state from this process.
    pub in_force: bool,
    pub counted: Counted,
    pub own: OwnCounters,
    pub unsaved: bool,
    pub unpublished: bool,
    pub looking: Option<JoinHandle<(Observer, Look)>>,
    pub covering: Option<JoinHandle<Vec<NotCaptured>>>,
}

/// Where events come from.
#[derive(Debug)]
pub(crate) struct Sources {
    pub requests: mpsc::Receiver<Request>,
    pub server: mpsc::Receiver<FromServer>,
    pub kernel: mpsc::Receiver<Report>,
    /// Some cgroup became populated or empty.
    pub cgroups: mpsc::Receiver<()>,
}

impl Inner {
    pub(crate) fn new() -> Self {
        let mut model = Model::default();
        model.clear();
        Self {
            started: Instant::now(),
            process: uuid::Uuid::now_v7().to_string(),
            model,
            compiler: Compiler::default(),
            assembly: Assembly::default(),
            pulls: Pulls::default(),
            asked_ns: 0,
            answered_ns: 0,
            stream: None,
            last_error: None,
            stream_since: jiff::Timestamp::now(),
            tells_fleet: false,
            fleet_has: 0,
            resync: false,
            stale: false,
            behind: false,
            applying: None,
            live: kernel::Live::default(),
            confirming: Vec::new(),
            refused: BTreeMap::new(),
            fresh_keys: BTreeSet::new(),
            clock_offset_ns: 0,
            alarms: BTreeMap::new(),
            not_captured: Vec::new(),
            older_listeners: BTreeSet::new(),
            features: Vec::new(),
            enforcement: Break::default(),
            in_force: false,
            counted: Counted::default(),
            own: OwnCounters::default(),
            unsaved: false,
            unpublished: true,
            looking: None,
            covering: None,
        }
    }
}

/// Waits for a task that may not run.
async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    match task {
        Some(running) => {
            let result = running.await.ok();
            *task = None;
            result
        }
        None => std::future::pending().await,
    }
}

/// Ticks; a late one does not make the next ones hurry.
fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

impl Node {
    /// Reacts to everything until cancelled. Enforcement stays in the kernel.
    ///
    /// Cancel safety: every branch is a channel's `recv`, a timer's `tick` or a join handle polled by reference.
    pub(crate) async fn run(mut self, mut sources: Sources, cancel: CancellationToken) {
        let timers = self.config.timers;
        let (mut flows, mut observe) = (every(timers.flows), every(timers.observe));
        let (mut clock, mut coverage) = (every(timers.clock), every(timers.coverage));
        let mut second = every(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(request) = sources.requests.recv() => self.request(request),
                Some(event) = sources.server.recv() => self.on_server(event),
                Some(report) = sources.kernel.recv() => self.on_kernel(report),
                Some(()) = sources.cgroups.recv() => self.reap(),
                _ = flows.tick() => self.count(),
                _ = observe.tick() => self.look(),
                _ = clock.tick() => self.compare_clocks(),
                _ = coverage.tick() => self.look_for_listeners(),
                _ = second.tick() => self.housekeep(),
                Some((observer, look)) = finished(&mut self.inner.looking) => self.looked(observer, look),
                Some(found) = finished(&mut self.inner.covering) => self.covered(found),
            }
            self.advance();
            self.publish_if_changed();
        }
        self.save();
        self.enforcer.stop();
    }

    /// Sends to the server, if there is a stream. One that cannot take more is ended: the next begins with everything.
    pub(crate) fn say(&mut self, message: FromAgent) {
        let Some(stream) = &self.inner.stream else { return };
        if stream.outgoing.try_send(AgentMessage { message: Some(message) }).is_err() {
            tracing::warn!("sync stream is stuck; starting anew");
            stream.end.cancel();
            self.inner.stream = None;
        }
    }

    /// Something is wrong, until [`Node::calm`]. The server hears of it once.
    pub(crate) fn alarm(&mut self, code: &Code, object: &str, message: &str) {
        let raised = alarm(code, object, message);
        let before = self.inner.alarms.insert((code.id, object.to_owned()), raised.clone());
        if before.as_ref() == Some(&raised) {
            return;
        }
        tracing::warn!(code = code.id, object, message = raised.message, "alarm");
        self.inner.unpublished = true;
        self.say_alarm(raised, false);
    }

    /// It is not wrong any more.
    pub(crate) fn calm(&mut self, code: &Code, object: &str) {
        if let Some(alarm) = self.inner.alarms.remove(&(code.id, object.to_owned())) {
            self.inner.unpublished = true;
            self.say_alarm(alarm, true);
        }
    }

    fn say_alarm(&mut self, alarm: Alarm, over: bool) {
        let Alarm { code, object, message } = alarm;
        self.say(FromAgent::Alarm(api::sync::AlarmRaised { code, object, message, over }));
    }

    /// Alarms of a code are exactly about these objects.
    pub(crate) fn alarms_are(&mut self, code: &Code, objects: BTreeMap<String, String>) {
        let gone: Vec<String> = self
            .inner
            .alarms
            .keys()
            .filter(|(id, object)| *id == code.id && !objects.contains_key(object))
            .map(|(_, object)| object.clone())
            .collect();
        gone.iter().for_each(|object| self.calm(code, object));
        objects.iter().for_each(|(object, message)| self.alarm(code, object, message));
    }
}

#[cfg(test)]
mod tests;
