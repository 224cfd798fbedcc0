//! What happens by itself: looking, reaping, comparing clocks, counting, saving.

use std::collections::BTreeMap;

use api::local::NotCaptured;
use api::sync::agent_message::Message as FromAgent;
use handshake::time::{Skew, TimeSource};
use policy::code::agent as code;

use super::Node;
use crate::clock::Now;
use crate::config::Source;
use crate::coverage;
use crate::enforce::Command;
use crate::workload::observe::{Look, Observer, namespaces_below};
use crate::workload::{Workload, WorkloadError};

/// File of the clock in the data directory.
pub(crate) const CLOCK: &str = "clock.json";
/// File of the denial baseline in the data directory.
pub(crate) const BASELINE: &str = "denials.json";
/// How long without a stream before somebody is told.
const ALONE_S: i64 = 30;

impl Node {
    /// Takes out workloads that have ended.
    pub(super) fn reap(&mut self) {
        let ended = self.registry.reap();
        if !ended.is_empty() {
            self.ended(ended);
        }
    }

    /// Looks at every workload, in the background.
    pub(super) fn look(&mut self) {
        self.reap();
        self.follow_list();
        if let (Some(mut observer), None) = (self.observer.take(), &self.inner.looking) {
            let workloads: Vec<Workload> = self.registry.iter().cloned().collect();
            // A state file names workloads by their cgroups alone.
            let whole = matches!(self.config.source, Source::File(_)).then(|| self.config.cgroup_root.clone());
            self.inner.looking = Some(tokio::task::spawn_blocking(move || {
                let mut look = observer.look(&workloads);
                look.namespaces.extend(whole.iter().flat_map(|root| namespaces_below(root)));
                (observer, look)
            }));
        }
    }

    pub(super) fn looked(&mut self, observer: Observer, look: Look) {
        self.observer = Some(observer);
        if self.namespaces.update(&look.namespaces) {
            self.tell_namespaces();
        }
        let changed = self.registry.observed(look.observed);
        if !changed.is_empty() {
            self.inner.unpublished = true;
            self.report(&changed);
        }
    }

    fn follow_list(&mut self) {
        let Some(list) = &mut self.list else { return };
        let mut problems: Vec<WorkloadError> = Vec::new();
        let before: Vec<String> = self.registry.iter().map(|workload| workload.uid.clone()).collect();
        let changed = match list.entries() {
            Ok(entries) => self.registry.declare(entries, &mut problems),
            Err(error) => return self.alarm(&code::DECLARED_LIST_BAD, "list", &crate::sync::chain(&error)),
        };
        match problems.first() {
            Some(problem) => self.alarm(&code::DECLARED_LIST_BAD, "list", &problem.to_string()),
            None => self.calm(&code::DECLARED_LIST_BAD, "list"),
        }
        if changed {
            let now: Vec<String> = self.registry.iter().map(|workload| workload.uid.clone()).collect();
            self.ended(before.into_iter().filter(|uid| !now.contains(uid)).collect());
            self.report(&now);
        }
    }

    pub(super) fn compare_clocks(&mut self) {
        let now = Now::read();
        let question = self.clock.ask(now);
        let (agent_unix_ns, echo) = (question.agent_unix_ns, question.echo);
        self.say(FromAgent::Clock(api::sync::Clock { agent_unix_ns, echo }));
        match self.clock.skew(now) {
            Skew::Fine => self.calm(&code::CLOCK_SKEW, "clock"),
            Skew::Reported | Skew::Outside => {
                // Whole seconds, so that a drift of milliseconds is no new alarm.
                let seconds = self.clock.skew_ms(now).unwrap_or_default() / 1000;
                self.alarm(&code::CLOCK_SKEW, "clock", &format!("this machine's clock is off by {seconds} s"));
            }
        }
        match self.clock.offset(now).1 {
            TimeSource::Server => self.calm(&code::CLOCK_UNCONFIRMED, "clock"),
            // Right after the start the server's answer is on its way.
            TimeSource::RealTime | TimeSource::Floor if self.credential.is_some() && self.is_settled() => {
                self.alarm(&code::CLOCK_UNCONFIRMED, "clock", "");
            }
            TimeSource::RealTime | TimeSource::Floor => {}
        }
        let saved = self.clock.save(now);
        if let Err(error) = self.disk.write_json(CLOCK, &saved) {
            self.alarm(&code::DATA_UNUSABLE, CLOCK, &crate::sync::chain(&error));
        }
        self.inner.unpublished = true;
    }

    /// Whether what every start needs (a stream, the server's time) has had its time.
    fn is_settled(&self) -> bool {
        self.inner.started.elapsed() >= self.config.timers.reconnect_max
    }

    /// Asks the kernel for its counters; flows are reported when they come.
    pub(super) fn count(&mut self) {
        self.enforcer.send(Command::Count);
    }

    /// Asks the kernel for listeners that identity cannot reach; [`Node::cover`] follows.
    pub(super) fn look_for_listeners(&mut self) {
        if !self.enforcer.send(Command::Listeners) {
            self.cover();
        }
    }

    /// Looks for what the programs do not see, in the background: that reads every process's descriptors.
    pub(super) fn cover(&mut self) {
        if self.inner.covering.is_some() {
            return;
        }
        let workloads: Vec<(String, std::path::PathBuf)> =
            self.registry.iter().map(|workload| (workload.name.clone(), workload.cgroup.clone())).collect();
        let namespaces = self.namespaces.all();
        let listeners: Vec<_> = self.inner.older_listeners.iter().cloned().collect();
        let work = move || coverage::look(&workloads, &namespaces, &listeners);
        self.inner.covering = Some(tokio::task::spawn_blocking(work));
    }

    pub(super) fn covered(&mut self, found: Vec<NotCaptured>) {
        let about = |kind: &str| -> BTreeMap<String, String> {
            let listener = kind == "listener";
            let objects = found.iter().filter(|one| (one.kind == "listener") == listener).map(coverage::describe);
            objects.collect()
        };
        let (listeners, others) = (about("listener"), about("other"));
        self.alarms_are(&code::LISTENER_OLDER, listeners);
        self.alarms_are(&code::NOT_CAPTURED, others);
        self.inner.unpublished |= self.inner.not_captured != found;
        self.inner.not_captured = found;
    }

    /// Once a second: the disk, the outage budget, the end of a break.
    pub(super) fn housekeep(&mut self) {
        self.save();
        let now = jiff::Timestamp::now();
        let until = self.inner.enforcement.until_unix_s;
        if !self.inner.enforcement.attached && until.is_some_and(|until| now.as_second() >= until) {
            tracing::info!("the time of the break is over");
            if let Err(refusal) = self.attach() {
                self.alarm(&code::PROGRAMS_REFUSED, "programs", &refusal.message);
            }
        }
        let alone = self.inner.stream.is_none() && now.as_second() - self.inner.stream_since.as_second() >= ALONE_S;
        if alone && self.credential.is_some() {
            let why = self.inner.last_error.clone().unwrap_or_default();
            self.alarm(&code::SERVER_UNREACHABLE, "server", &why);
        }
        let server_s = self.clock.server_unix_ns(Now::read()) / 1_000_000_000;
        match self.held.as_ref().map(|held| held.expires_unix_s()) {
            Some(expires) if server_s >= expires => self.alarm(&code::STATE_EXPIRED, "state", ""),
            _ => self.calm(&code::STATE_EXPIRED, "state"),
        }
    }

    /// Puts on disk what is not there yet.
    pub(super) fn save(&mut self) {
        self.save_state();
        if let Some(baseline) = self.flows.baseline()
            && let Err(error) = self.disk.write(BASELINE, &baseline)
        {
            self.alarm(&code::DATA_UNUSABLE, BASELINE, &crate::sync::chain(&error));
        }
        self.save_registry();
    }

    /// Puts the live state on disk, if it is not there yet.
    pub(super) fn save_state(&mut self) {
        if std::mem::take(&mut self.inner.unsaved)
            && let Some(held) = &self.inner.live.held
            && let Err(error) = tokio::task::block_in_place(|| held.save(&self.disk))
        {
            self.inner.unsaved = true;
            self.alarm(&code::DATA_UNUSABLE, "state", &crate::sync::chain(&error));
        }
    }
}
