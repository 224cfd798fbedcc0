//! From a configuration to a running agent: checks, enrolment, attach, the first state.

use std::path::PathBuf;
use std::sync::Arc;

use datapath::capacity::Capacity;
use datapath::{AttachError, Options};
use policy::code::{Code, agent as code};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, Now, boot_id};
use crate::config::{Config, Source};
use crate::disk::{Disk, DiskError};
use crate::enforce::{Attachment, Command, Enforcer, Report};
use crate::flow::Flows;
use crate::local::{self, Door, SocketError};
use crate::node::{BASELINE, Break, CLOCK, DETACHED, Detached, Inner, Node, Sources};
use crate::numbering::{Numbering, NumberingError};
use crate::state::{Held, StateError};
use crate::sync::credential::{Credential, CredentialError, load_ring};
use crate::sync::{chain, enrol, link};
use crate::view::View;
use crate::workload::Registry;
use crate::workload::declared::List;
use crate::workload::namespaces::Namespaces;
use crate::workload::observe::{self, Observer};

/// Messages from the server that wait for the node.
const FROM_SERVER_MAX: usize = 64;
/// File of names and numbers in the data directory.
const NAMES: &str = "names";

/// The node agent.
#[derive(Debug)]
pub struct Agent;

/// An agent that holds its socket and the kernel, and waits for [`Bound::run`].
#[derive(Debug)]
pub struct Bound {
    node: Node,
    sources: Sources,
    door: Door,
    listener: UnixListener,
    link: Option<(Credential, mpsc::Sender<link::FromServer>)>,
    cgroups: mpsc::Sender<()>,
}

/// Why an agent does not start. Whatever the kernel enforced before, it still enforces.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Not root.
    #[error("the agent must run as root, because only root may load kernel programs")]
    NotRoot,
    /// Linux before 5.15.
    #[error("Linux {0} is too old; the agent needs 5.15 or later")]
    OldKernel(String),
    /// The cgroup root is none.
    #[error("{} is no cgroup v2 directory", .0.display())]
    Cgroup(PathBuf),
    /// The pin path is on no BPF file system, and none could be mounted.
    #[error("{} is on no BPF file system", .0.display())]
    Bpffs(PathBuf, #[source] AttachError),
    /// The kernel refused the programs.
    #[error("the kernel programs could not be attached: {}", chain(.0))]
    Attach(#[source] AttachError),
    /// The data directory.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Names and numbers of records.
    #[error(transparent)]
    Names(#[from] NumberingError),
    /// Keys.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Network namespaces cannot be read.
    #[error("the network namespace of the agent cannot be read")]
    Namespace(#[source] std::io::Error),
    /// No certificate and no token.
    #[error("this node is not enrolled, and no join token was given")]
    NotEnrolled,
    /// Enrolment failed.
    #[error("this node could not be enrolled: {}", chain(.0))]
    Enrol(#[source] enrol::EnrolError),
    /// The state file.
    #[error("the state in {} cannot be used: {}", .0.display(), .1)]
    StateFile(PathBuf, String),
}

impl BindError {
    /// Its stable code, which knows what to do about it.
    pub const fn code(&self) -> Code {
        match self {
            BindError::NotRoot => code::ROOT_NEEDED,
            BindError::OldKernel(_) => code::KERNEL_TOO_OLD,
            BindError::Cgroup(_) => code::CGROUP_UNUSABLE,
            BindError::Bpffs(..) => code::BPFFS_UNUSABLE,
            BindError::Attach(_) | BindError::Namespace(_) => code::PROGRAMS_REFUSED,
            BindError::Disk(_) | BindError::Names(_) | BindError::Credential(_) => code::DATA_UNUSABLE,
            BindError::Socket(_) => code::SOCKET_UNUSABLE,
            BindError::NotEnrolled => code::NOT_ENROLLED,
            BindError::Enrol(cause) if cause.is_of_clocks() => code::CLOCK_SKEW,
            BindError::Enrol(_) => code::ENROLMENT_FAILED,
            BindError::StateFile(..) => code::STATE_FILE_BAD,
        }
    }
}

impl Agent {
    /// Checks the machine, enrols the node if it is new, attaches the programs (or takes over those of a predecessor) and
    /// hands the last state to the kernel. Must run on a multi-threaded runtime.
    pub async fn bind(config: Config) -> Result<Bound, BindError> {
        check_machine(&config)?;
        let disk = Disk::open(&config.data)?;
        let listener = local::listen(&config.socket)?;
        let credential = credential(&config, &disk).await?;
        let enforcement = enforcement(&disk)?;
        let (enforcer, attachment, kernel) = attach(&config, enforcement.attached)?;
        let mut namespaces = Namespaces::new().map_err(BindError::Namespace)?;
        namespaces.add(&observe::namespaces_below(&config.cgroup_root));
        let taken_over = attachment.as_ref().is_some_and(|attachment| attachment.taken_over);
        let trust = credential.as_ref().and_then(Credential::trust);
        let registry = Registry::open(&disk, &config.cgroup_root)?;
        let clock = Clock::new(boot_id(), disk.read_json(CLOCK)?);
        let mut inner = Inner::new();
        inner.enforcement = enforcement;
        inner.features = attachment.map(|attachment: Attachment| attachment.features).unwrap_or_default();
        inner.clock_offset_ns = clock.offset(Now::read()).0;
        let (view, _) = watch::channel(Arc::new(View::default()));
        let mut node = Node {
            registry,
            list: config.declared.clone().map(List::new),
            observer: Some(Observer::new(namespaces.own())),
            namespaces,
            watch: linux::cgroup::Watch::new().ok().map(Arc::new),
            trust,
            ring: load_ring(&disk)?,
            clock,
            numbering: Numbering::open(&disk.path(NAMES))?,
            flows: Flows::with_baseline(disk.read(BASELINE)?, taken_over),
            enforcer,
            held: None,
            floor: 0,
            view,
            credential,
            config,
            disk,
            inner,
        };
        node.begin_with_what_is_held()?;
        Ok(Bound::new(node, kernel, listener))
    }
}

impl Node {
    /// The kernel gets the last state before anything else happens.
    pub(crate) fn begin_with_what_is_held(&mut self) -> Result<(), BindError> {
        self.tell_namespaces();
        if let Source::File(path) = &self.config.source {
            let bad = |why: String| BindError::StateFile(path.clone(), why);
            let text = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
            let state = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
            self.enforcer.send(Command::Apply { revision: 0, state });
        }
        if let Some(trust) = self.trust {
            match Held::load(&self.disk, &trust) {
                Ok(Some(held)) => {
                    self.inner.live.held = Some(held.clone());
                    self.accept(held);
                }
                Ok(None) => {}
                Err(error @ StateError::Older { .. }) => self.alarm(&code::STATE_OLDER, "state", &chain(&error)),
                Err(error) => self.alarm(&code::STATE_UNTRUSTED, "state", &chain(&error)),
            }
            self.floor = self.floor.max(Held::floor(&self.disk).unwrap_or_default());
        }
        self.advance();
        self.publish_if_changed();
        Ok(())
    }
}

impl Bound {
    fn new(node: Node, kernel: mpsc::Receiver<Report>, listener: UnixListener) -> Self {
        let (requests, for_requests) = mpsc::channel(local::REQUESTS_MAX);
        let (to_node, server) = mpsc::channel(FROM_SERVER_MAX);
        let (cgroups, changed) = mpsc::channel(1);
        let door = Door { requests, view: node.view.subscribe(), config: Arc::new(node.config.clone()) };
        let link = node.credential.clone().map(|credential| (credential, to_node));
        let sources = Sources { requests: for_requests, server, kernel, cgroups: changed };
        Self { node, sources, door, listener, link, cgroups }
    }

    /// Where the agent listens.
    pub fn socket(&self) -> &std::path::Path {
        &self.node.config.socket
    }

    /// What the agent publishes about itself, as it changes.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.door.view.clone()
    }

    /// Runs until cancelled. The programs and the last policy stay in the kernel; the next start takes over in place.
    pub async fn run(self, cancel: CancellationToken) {
        let tasks = TaskTracker::new();
        let socket = self.node.config.socket.clone();
        if let Some((credential, to_node)) = self.link {
            let way =
                link::Way { credential, commands: self.node.enforcer.commands(), timers: self.node.config.timers };
            tasks.spawn(link::run(way, to_node, cancel.clone()));
        }
        tasks.spawn(local::serve(self.listener, self.door, cancel.clone()));
        let watching = self.node.watch.clone().map(|watch| watch_cgroups(watch, self.cgroups, cancel.clone()));
        self.node.run(self.sources, cancel).await;
        tasks.close();
        tasks.wait().await;
        drop(watching);
        if let Err(error) = std::fs::remove_file(&socket) {
            tracing::debug!(%error, "socket file left behind");
        }
    }
}

/// A thread that nudges the node when a cgroup becomes empty.
fn watch_cgroups(
    watch: Arc<linux::cgroup::Watch>,
    nudge: mpsc::Sender<()>,
    cancel: CancellationToken,
) -> Option<std::thread::JoinHandle<()>> {
    let look = move || {
        while !cancel.is_cancelled() {
            match watch.wait(std::time::Duration::from_millis(500)) {
                Ok(false) => {}
                // One that waits already says the same.
                Ok(true) => drop(nudge.try_send(())),
                Err(error) => return tracing::warn!(%error, "cgroups are looked at by timer only"),
            }
        }
    };
    std::thread::Builder::new().name("cgroups".to_owned()).spawn(look).ok()
}

fn check_machine(config: &Config) -> Result<(), BindError> {
    if !rustix::process::geteuid().is_root() {
        return Err(BindError::NotRoot);
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if crate::doctor::version(&release) < (5, 15) {
        return Err(BindError::OldKernel(release));
    }
    if !config.cgroup_root.join("cgroup.procs").exists() {
        return Err(BindError::Cgroup(config.cgroup_root.clone()));
    }
    Ok(())
}

async fn credential(config: &Config, disk: &Disk) -> Result<Option<Credential>, BindError> {
    let Source::Server { join_token } = &config.source else { return Ok(None) };
    if let Some(credential) = Credential::load(disk)? {
        return Ok(Some(credential));
    }
    let token = join_token.as_ref().ok_or(BindError::NotEnrolled)?;
    let own = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let hostname = config.hostname.clone().unwrap_or_else(own);
    enrol::enrol(disk, token, &hostname).await.map(Some).map_err(BindError::Enrol)
}

fn enforcement(disk: &Disk) -> Result<Break, BindError> {
    let now = jiff::Timestamp::now().as_second();
    let detached: Option<Detached> = disk.read_json(DETACHED)?;
    match detached.filter(|detached| detached.holds(now)) {
        Some(detached) => Ok(Break { attached: false, until_unix_s: detached.until_unix_s }),
        None => {
            disk.remove(DETACHED)?;
            Ok(Break { attached: true, until_unix_s: None })
        }
    }
}

fn attach(
    config: &Config,
    attached: bool,
) -> Result<(Enforcer, Option<Attachment>, mpsc::Receiver<Report>), BindError> {
    let options = Options {
        cgroup: config.cgroup_root.clone(),
        pin: config.bpf_pin.clone(),
        force_off: config.force_off.clone(),
        capacity: Capacity::default(),
    };
    let started = tokio::task::block_in_place(|| Enforcer::start(options, attached));
    started.map_err(|error| match error {
        error @ AttachError::Bpffs(_) => BindError::Bpffs(config.bpf_pin.clone(), error),
        error => BindError::Attach(error),
    })
}
