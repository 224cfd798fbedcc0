//! The thread that owns the datapath. Everybody else says what is to be done over a bounded channel and hears what happened
//! over another; so all of the agent but this file works without a kernel.
//!
//! Refused connections are answered here, at once, without asking anybody. The thread sleeps until a command or a record
//! that wakes comes; openings and closings, which do not wake, are looked for as often as there were any.

mod command;

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use datapath::capacity::MapUse;
use datapath::event::{Event, Kind};
use datapath::refuse::budget::Budget;
use datapath::refuse::{Refusal, RefuseError, Refuser, Side};
use datapath::state::{Direction, State};
use datapath::walk::{Cut, WalkError};
use datapath::{AttachError, Datapath, Options};
use tokio::sync::{mpsc, oneshot};

pub use self::command::Commands;
use self::command::{Inbox, channel};
use crate::view::Counted;
use crate::workload::namespaces::Namespace;

/// Reports that wait for the node.
pub const REPORTS_MAX: usize = 256;
/// Most records of one report.
const RECORDS_MAX: usize = 1024;
/// Most refusals that wait for their namespace.
const UNANSWERED_MAX: usize = 64;
/// Records are looked for after this time while there are some.
const POLL_BUSY: Duration = Duration::from_millis(10);
/// And after this one at most while there are none: a burst that begins meanwhile must find room in the ring.
const POLL_IDLE: Duration = Duration::from_millis(50);
/// Counting a map's entries walks all of them: once in so many readings.
const CAPACITIES_EVERY: u64 = 15;

/// What the thread is to do.
#[derive(Debug)]
pub enum Command {
    /// Make this state live, then end connections that it refuses.
    Apply {
        /// Comes back with the outcome.
        revision: u64,
        /// What to enforce.
        state: Box<State>,
    },
    /// The server's clock minus the boot clock, nanoseconds.
    ClockOffset(i64),
    /// The namespaces of this node's workloads; others are let go.
    Namespaces(Vec<Namespace>),
    /// What the kernel asked up to then (boot clock, nanoseconds) was answered, and the answer is live.
    Answered(u64),
    /// Read the counters.
    Count,
    /// Look for listeners that identity cannot reach.
    Listeners,
    /// Leave a socket of the agent's own alone; dropping the sender says that it is done.
    Exempt(OwnedFd, oneshot::Sender<()>),
    /// Take enforcement off this node.
    Detach,
    /// Put it back.
    Attach,
    /// End the thread; what is in the kernel stays.
    Stop,
}

/// What happened.
#[derive(Debug)]
pub enum Report {
    /// A state is live.
    Applied {
        /// Of the command.
        revision: u64,
        /// In the kernel.
        took: Duration,
    },
    /// A state is not live; the one before it is.
    NotApplied {
        /// Of the command.
        revision: u64,
        /// Why.
        message: String,
    },
    /// Live connections were judged under the state that is live now; these were refused and ended.
    Swept(Vec<Cut>),
    /// Records of the kernel.
    Records(Vec<Event>),
    /// A refusal could not be answered in a network namespace that is not known yet; it is once it is.
    NamespaceUnknown,
    /// Records that the node was too busy to take.
    RecordsLost(u64),
    /// All listeners that are older than the programs and stay without identity.
    Unrepaired(Vec<Listener>),
    /// A reading.
    Counted(Box<Counted>),
    /// Enforcement is on.
    Attached(Attachment),
    /// Enforcement is off.
    Detached,
    /// Enforcement could not be put on or taken off.
    AttachFailed(String),
}

/// A listener that identity cannot reach.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// Its namespace.
    pub cookie: u64,
    /// Its port.
    pub port: u16,
}

/// What an attach gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Names of optional features.
    pub features: Vec<String>,
    /// A predecessor's programs were replaced in place.
    pub taken_over: bool,
}

/// The thread's two ends.
#[derive(Debug)]
pub struct Enforcer {
    commands: Commands,
    thread: Option<JoinHandle<()>>,
}

impl Enforcer {
    /// Attaches and starts the thread. `attached: false` starts it detached (break-glass is in force).
    pub fn start(
        options: Options,
        attached: bool,
    ) -> Result<(Self, Option<Attachment>, mpsc::Receiver<Report>), AttachError> {
        let datapath = if attached { Some(Datapath::attach(options.clone())?) } else { None };
        let attachment = datapath.as_ref().map(Attachment::of);
        let (commands, inbox) = channel().map_err(AttachError::Page)?;
        let (reports, outbox) = mpsc::channel(REPORTS_MAX);
        let mut owner = Owner {
            unmarked: attachment.as_ref().is_some_and(|attachment| !attachment.taken_over),
            options,
            datapath,
            last: None,
            refuser: Refuser::new(Budget::default()),
            unanswered: Vec::new(),
            namespaces: Vec::new(),
            reports,
            lost: 0,
            readings: 0,
            capacities: Vec::new(),
            pause: POLL_BUSY,
        };
        let thread = std::thread::Builder::new().name("datapath".to_owned()).spawn(move || owner.run(&inbox));
        let thread = thread.map_err(AttachError::Page)?;
        Ok((Self { commands, thread: Some(thread) }, attachment, outbox))
    }

    /// A thread that is none: commands go to the returned receiver. For tests of the rest.
    pub fn unattached() -> (Self, Receiver<Command>) {
        let (commands, inbox) = channel().expect("BUG: a test without descriptors");
        (Self { commands, thread: None }, inbox.queue)
    }

    /// Says what to do. `false`: the thread is busy with as many commands as it takes; say it again later.
    pub fn send(&self, command: Command) -> bool {
        self.commands.send(command)
    }

    /// Another way to give commands: for sockets to be left alone.
    pub fn commands(&self) -> Commands {
        self.commands.clone()
    }

    /// Ends the thread and waits for it; what is in the kernel stays in force.
    pub fn stop(mut self) {
        self.commands.send_last(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Attachment {
    fn of(datapath: &Datapath) -> Self {
        let features = datapath.features().iter().map(|feature| feature.label().to_owned()).collect();
        Self { features, taken_over: datapath.taken_over() }
    }
}

struct Owner {
    options: Options,
    datapath: Option<Datapath>,
    /// What is live or was before the detach.
    last: Option<(u64, Box<State>)>,
    refuser: Refuser,
    /// Refusals in namespaces that are not known yet.
    unanswered: Vec<Refusal>,
    namespaces: Vec<Namespace>,
    reports: mpsc::Sender<Report>,
    lost: u64,
    readings: u64,
    capacities: Vec<MapUse>,
    /// Sockets older than a fresh attach are still to be marked.
    unmarked: bool,
    /// How long to wait for what does not wake.
    pause: Duration,
}

impl Owner {
    fn run(&mut self, inbox: &Inbox) {
        loop {
            match inbox.take() {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return,
                Ok(command) => self.perform(command),
                Err(TryRecvError::Empty) => {
                    self.poll();
                    self.wait(inbox);
                }
            }
        }
    }

    /// Without programs there is nothing to look for, only commands to wait for.
    fn wait(&mut self, inbox: &Inbox) {
        let events = self.datapath.as_ref().map(Datapath::events_fd);
        let limit = events.as_ref().map(|_| self.pause);
        if let Err(error) = inbox.wait(events, limit) {
            tracing::error!(%error, "the kernel's records are looked for by time only");
            std::thread::sleep(POLL_BUSY);
        }
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Apply { revision, state } => self.apply(revision, state),
            Command::ClockOffset(offset) => {
                if let Some((_, state)) = &mut self.last {
                    state.clock_offset_ns = offset;
                }
                if let Some(datapath) = &mut self.datapath {
                    datapath.set_clock_offset(offset);
                }
            }
            Command::Namespaces(namespaces) => self.take_namespaces(namespaces),
            Command::Answered(boot_ns) => {
                if let Some(datapath) = &mut self.datapath {
                    datapath.answered(boot_ns);
                }
            }
            Command::Count => self.count(),
            Command::Listeners => self.listeners(),
            Command::Exempt(socket, _done) => {
                if let Some(Err(error)) = self.datapath.as_ref().map(|datapath| datapath.exempt(socket.as_fd())) {
                    tracing::warn!(%error, "the way to the server is judged like any other");
                }
            }
            Command::Detach => self.detach(),
            Command::Attach => self.attach(),
            Command::Stop => {}
        }
    }

    fn apply(&mut self, revision: u64, state: Box<State>) {
        let started = Instant::now();
        let Some(datapath) = &mut self.datapath else {
            self.last = Some((revision, state));
            self.report(Report::Applied { revision, took: Duration::ZERO });
            return self.report(Report::Swept(Vec::new()));
        };
        match datapath.apply(&state) {
            Ok(applied) => {
                self.last = Some((revision, state));
                self.report(Report::Applied { revision, took: started.elapsed() });
                let cut = if applied.unchanged { Vec::new() } else { self.sweep() };
                self.report(Report::Swept(cut));
            }
            Err(error) => self.report(Report::NotApplied { revision, message: crate::sync::chain(&error) }),
        }
    }

    /// Ends what the live state refuses, in every namespace. Where the kernel cannot, it ends with its next packet.
    fn sweep(&mut self) -> Vec<Cut> {
        let Some(datapath) = &mut self.datapath else { return Vec::new() };
        let mut cut = Vec::new();
        for namespace in &self.namespaces {
            match datapath.sweep(namespace.netns.as_fd()) {
                Ok(report) => cut.extend(report.cut),
                Err(WalkError::Absent(_)) => return cut,
                Err(error) => tracing::warn!(cookie = namespace.cookie, %error, "live connections were not swept"),
            }
        }
        if let Err(error) = datapath.settled() {
            tracing::warn!(%error, "outgoing segments stay checked");
        }
        cut
    }

    fn take_namespaces(&mut self, namespaces: Vec<Namespace>) {
        let known = |list: &[Namespace], cookie: u64| list.iter().any(|namespace| namespace.cookie == cookie);
        for gone in self.namespaces.iter().filter(|old| !known(&namespaces, old.cookie)) {
            self.refuser.forget(gone.cookie);
        }
        let fresh: Vec<Namespace> =
            namespaces.iter().filter(|new| !known(&self.namespaces, new.cookie)).cloned().collect();
        for namespace in &fresh {
            if let Err(error) = self.refuser.register(namespace.cookie, namespace.netns.as_fd()) {
                tracing::warn!(cookie = namespace.cookie, %error, "refusals in this network namespace stay silent");
            }
        }
        self.namespaces = namespaces;
        for refusal in std::mem::take(&mut self.unanswered) {
            if let Err(error) = self.refuser.refuse(&refusal) {
                tracing::debug!(%error, "refusal stays silent");
            }
        }
        if !fresh.is_empty() {
            self.listeners();
        }
    }

    /// Gives listeners older than the programs their identity, where the kernel can, and tells of the others. After a fresh
    /// attach this is also what tells older sockets from later ones.
    fn listeners(&mut self) {
        let Some(datapath) = &mut self.datapath else { return self.report(Report::Unrepaired(Vec::new())) };
        let mut older = Vec::new();
        for namespace in &self.namespaces {
            let fd = namespace.netns.as_fd();
            let found = datapath.listeners(fd).and_then(|found| match datapath.repair_listeners(fd) {
                Err(WalkError::Absent(_)) => Ok(found),
                repaired => repaired,
            });
            match found {
                Ok(report) => {
                    let silent = report.listeners.iter().filter(|listener| !listener.labels);
                    let port = |listener: &datapath::walk::Listener| listener.address.port();
                    older.extend(silent.map(port).map(|port| Listener { cookie: namespace.cookie, port }));
                }
                Err(error) => tracing::warn!(cookie = namespace.cookie, %error, "listeners were not looked at"),
            }
        }
        if std::mem::take(&mut self.unmarked) {
            datapath.all_marked();
        }
        self.report(Report::Unrepaired(older));
    }

    fn count(&mut self) {
        let Some(datapath) = &self.datapath else { return };
        if self.readings.is_multiple_of(CAPACITIES_EVERY) {
            self.capacities = datapath.capacities();
        }
        self.readings += 1;
        let counted = Counted {
            denials: datapath.denials(),
            counters: datapath.counters(),
            capacities: self.capacities.clone(),
            resets: self.refuser.counts().sent,
        };
        self.report(Report::Counted(Box::new(counted)));
    }

    fn detach(&mut self) {
        let Some(datapath) = self.datapath.take() else { return self.report(Report::Detached) };
        match datapath.detach() {
            Ok(()) => self.report(Report::Detached),
            Err(error) => self.report(Report::AttachFailed(crate::sync::chain(&error))),
        }
    }

    fn attach(&mut self) {
        if self.datapath.is_none() {
            match Datapath::attach(self.options.clone()) {
                Ok(datapath) => {
                    self.unmarked = !datapath.taken_over();
                    self.datapath = Some(datapath);
                }
                Err(error) => return self.report(Report::AttachFailed(crate::sync::chain(&error))),
            }
            self.listeners();
            if let Some((revision, state)) = self.last.take() {
                self.apply(revision, state);
            }
        }
        let attachment = self.datapath.as_ref().map(Attachment::of);
        attachment.into_iter().for_each(|attachment| self.report(Report::Attached(attachment)));
    }

    fn poll(&mut self) {
        let Some(datapath) = &mut self.datapath else { return };
        let mut records = Vec::new();
        let (refuser, unanswered) = (&self.refuser, &mut self.unanswered);
        let before = unanswered.len();
        let polled = datapath.poll_events(Duration::ZERO, |event| {
            answer(refuser, &event, unanswered);
            if records.len() < RECORDS_MAX {
                records.push(event);
            } else {
                self.lost += 1;
            }
        });
        if let Err(error) = polled {
            tracing::error!(%error, "records of the kernel cannot be read");
            std::thread::sleep(POLL_BUSY);
        }
        if self.unanswered.len() > before {
            self.report(Report::NamespaceUnknown);
        }
        self.pause = if records.is_empty() { (self.pause * 2).min(POLL_IDLE) } else { POLL_BUSY };
        if !records.is_empty() {
            self.report(Report::Records(records));
        }
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            self.report(Report::RecordsLost(lost));
        }
    }

    /// Outcomes wait for the node; records do not: it may be busy, and the kernel's counters are exact without them.
    fn report(&mut self, report: Report) {
        match report {
            Report::Records(records) => {
                if let Err(error) = self.reports.try_send(Report::Records(records))
                    && let mpsc::error::TrySendError::Full(Report::Records(records)) = error
                {
                    self.lost += records.len() as u64;
                }
            }
            report => drop(self.reports.blocking_send(report)),
        }
    }
}

/// Answers one refusal with a reset, where the kernel says that it may be answered (PROTOCOL rule 13).
fn answer(refuser: &Refuser, event: &Event, unanswered: &mut Vec<Refusal>) {
    let Kind::Refused { would: false, reset: true, .. } = event.kind else { return };
    let (client, server, side) = match event.direction {
        Direction::Ingress => (event.remote_address, event.local_address, Side::Server),
        Direction::Egress => (event.local_address, event.remote_address, Side::Client),
    };
    let refusal = Refusal { netns: event.netns, client, server, isn_client: event.isn_client, side };
    match refuser.refuse(&refusal) {
        Ok(_) => {}
        Err(RefuseError::NetnsUnknown(_)) if unanswered.len() < UNANSWERED_MAX => unanswered.push(refusal),
        Err(error) => tracing::debug!(%error, "refusal stays silent"),
    }
}
