//! What the local socket asks for.

use api::local::{Detach, LabelChange, Refusal, Register};
use api::sync::WorkloadReport;
use api::sync::agent_message::Message as FromAgent;
use policy::code::{Code, agent as code};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Node;
use crate::enforce::Command;
use crate::workload::WorkloadError;

/// A request; the answer says that it was taken. What follows is seen in the view.
#[derive(Debug)]
pub(crate) enum Request {
    /// Answers with the uid.
    Register(Register, oneshot::Sender<Result<String, Refusal>>),
    Remove(String, oneshot::Sender<Result<String, Refusal>>),
    Label(String, LabelChange, oneshot::Sender<Result<String, Refusal>>),
    Detach(Detach, oneshot::Sender<Result<(), Refusal>>),
    Attach(oneshot::Sender<Result<(), Refusal>>),
}

/// Whether somebody has taken enforcement off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Break {
    pub attached: bool,
    pub until_unix_s: Option<i64>,
}

/// The same on disk: a restart of the agent, or of the machine, does not end it before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Detached {
    pub until_unix_s: Option<i64>,
}

/// File of [`Detached`] in the data directory.
pub(crate) const DETACHED: &str = "detached.json";

impl Detached {
    /// Whether its time has not come yet.
    pub(crate) fn holds(&self, now_unix_s: i64) -> bool {
        self.until_unix_s.is_none_or(|until| now_unix_s < until)
    }
}

/// A refusal with its code's mend.
pub(crate) fn refusal(code: &Code, message: String) -> Refusal {
    Refusal { code: code.id.to_owned(), message, mend: code.mend.to_owned() }
}

impl From<WorkloadError> for Refusal {
    fn from(error: WorkloadError) -> Self {
        refusal(&error.code(), error.to_string())
    }
}

impl Node {
    pub(super) fn request(&mut self, request: Request) {
        // Whoever asked may have gone; what was asked for is done all the same.
        match request {
            Request::Register(register, answer) => drop(answer.send(self.register(&register))),
            Request::Remove(uid, answer) => drop(answer.send(self.remove(&uid))),
            Request::Label(workload, change, answer) => drop(answer.send(self.label(&workload, &change))),
            Request::Detach(detach, answer) => drop(answer.send(self.detach(detach))),
            Request::Attach(answer) => drop(answer.send(self.attach())),
        }
        self.inner.unpublished = true;
    }

    fn served(&self) -> Result<(), Refusal> {
        match self.credential {
            Some(_) => Ok(()),
            None => Err(refusal(&code::NOT_SERVED, "this agent enforces a state from a file".to_owned())),
        }
    }

    fn register(&mut self, register: &Register) -> Result<String, Refusal> {
        self.served()?;
        let uid = self.registry.register(register)?;
        if let Some(watch) = &self.watch
            && let Err(error) = watch.add(&register.cgroup)
        {
            tracing::debug!(%error, "cgroup is looked at by timer only");
        }
        self.look_at(&uid);
        self.inner.stale = true;
        self.save_registry();
        self.report(std::slice::from_ref(&uid));
        Ok(uid)
    }

    /// Looks at one workload now, so that the server hears of it once and completely.
    fn look_at(&mut self, uid: &str) {
        let (Some(observer), Ok(workload)) = (&mut self.observer, self.registry.find(uid)) else { return };
        let workload = workload.clone();
        let look = tokio::task::block_in_place(|| observer.look(&[workload]));
        self.registry.observed(look.observed);
        if self.namespaces.add(&look.namespaces) {
            self.tell_namespaces();
        }
    }

    pub(crate) fn tell_namespaces(&mut self) {
        if !self.enforcer.send(Command::Namespaces(self.namespaces.all())) {
            tracing::warn!("datapath is busy; its network namespaces are told with the next change");
        }
    }

    fn remove(&mut self, uid: &str) -> Result<String, Refusal> {
        self.served()?;
        let uid = self.registry.find(uid)?.uid.clone();
        self.registry.remove(&uid)?;
        self.ended(vec![uid.clone()]);
        Ok(uid)
    }

    /// Workloads have ended: the kernel forgets them, the server hears of it.
    pub(super) fn ended(&mut self, removed_uids: Vec<String>) {
        for uid in &removed_uids {
            self.inner.refused.remove(uid);
            tracing::info!(uid, "workload ended");
        }
        self.inner.stale = true;
        self.inner.unpublished = true;
        self.save_registry();
        self.say(FromAgent::Workloads(WorkloadReport { complete: false, upserted: Vec::new(), removed_uids }));
    }

    fn label(&mut self, workload: &str, change: &LabelChange) -> Result<String, Refusal> {
        self.served()?;
        let uid = self.registry.label(workload, change)?;
        self.save_registry();
        self.report(std::slice::from_ref(&uid));
        Ok(uid)
    }

    pub(super) fn save_registry(&mut self) {
        match self.registry.save(&self.disk) {
            Ok(()) => self.calm(&code::DATA_UNUSABLE, "registry"),
            Err(error) => self.alarm(&code::DATA_UNUSABLE, "registry", &crate::sync::chain(&error)),
        }
    }

    fn detach(&mut self, detach: Detach) -> Result<(), Refusal> {
        let until_unix_s = detach.for_s.map(|seconds| {
            jiff::Timestamp::now().as_second().saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX))
        });
        let failed = |error| refusal(&code::DATA_UNUSABLE, crate::sync::chain(&error));
        self.disk.write_json(DETACHED, &Detached { until_unix_s }).map_err(failed)?;
        if !self.enforcer.send(Command::Detach) {
            return Err(refusal(&code::PROGRAMS_REFUSED, "the datapath is busy; ask again".to_owned()));
        }
        self.inner.enforcement.until_unix_s = until_unix_s;
        let until = until_unix_s.and_then(|until| jiff::Timestamp::from_second(until).ok());
        let until = until.map_or("until somebody attaches it".to_owned(), |until| format!("until {until}"));
        self.alarm(&code::DETACHED, "node", &format!("enforcement was taken off this node {until}"));
        Ok(())
    }

    pub(super) fn attach(&mut self) -> Result<(), Refusal> {
        let failed = |error| refusal(&code::DATA_UNUSABLE, crate::sync::chain(&error));
        self.disk.remove(DETACHED).map_err(failed)?;
        if !self.enforcer.send(Command::Attach) {
            return Err(refusal(&code::PROGRAMS_REFUSED, "the datapath is busy; ask again".to_owned()));
        }
        self.inner.enforcement.until_unix_s = None;
        Ok(())
    }
}
