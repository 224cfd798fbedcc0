//! Walks over the sockets of a network namespace: sweep, repair, and the mark at the attach.
//!
//! The kernel walks the namespace of the thread that opens the walk, so each runs on a short-lived thread of its own that
//! enters the namespace first.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Func;
use libbpf_rs::{Link, Object, libbpf_sys};
use policy::reason::Reason;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::abi::{self, Plain};
use crate::attach::{Datapath, program_of};
use crate::destroy::{self, Destroyer, Target};
use crate::event::{Local, Peer, Proof, direction_of, proof_of, workload_of};
use crate::feature::Feature;
use crate::object::{LoadError, load_optional};
use crate::state::Direction;

/// Why a walk did not happen or not end.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The kernel cannot, or the feature is forced off.
    #[error("this kernel has no {label}", label = .0.label())]
    Absent(Feature),
    /// No thread.
    #[error("no thread for the walk")]
    Thread(#[source] io::Error),
    /// The namespace cannot be entered.
    #[error("the network namespace cannot be entered")]
    Enter(#[source] io::Error),
    /// The kernel did not start or finish the walk.
    #[error("the walk over the sockets failed")]
    Walk(#[source] io::Error),
}

/// A live connection that the sweep destroyed; its ends got a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The local workload.
    pub local: Local,
    /// Its side.
    pub direction: Direction,
    /// The other end.
    pub peer: Peer,
    /// What `peer` rests on.
    pub proof: Proof,
    /// Why.
    pub reason: Option<Reason>,
    /// The deciding rule's number, 0 = none.
    pub rule: u32,
    /// The local address and port.
    pub local_address: SocketAddr,
    /// The remote address and port.
    pub remote_address: SocketAddr,
}

/// What a sweep of one namespace did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Every connection that was destroyed.
    pub cut: Vec<Cut>,
}

/// A listening TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The workload in whose cgroup it was created.
    pub local: Local,
    /// What it is bound to.
    pub address: SocketAddr,
    /// It answers with identity. If not, workloads of enforcing peers cannot connect to it.
    pub labels: bool,
    /// It does since this walk.
    pub repaired: bool,
}

/// What a repair (or a look, where there is no repair) found in one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Every listening TCP socket.
    pub listeners: Vec<Listener>,
}

/// The programs that walk.
pub(crate) struct Walks {
    mark: Link,
    sweep: Option<Walk>,
    repair: Option<Walk>,
}

struct Walk {
    links: Vec<Link>,
    _object: Object,
}

impl Walks {
    /// Loads each walk that is wanted and that the kernel takes.
    pub(crate) fn load(core: &Object, maps: &Path, wanted: impl Fn(&Feature) -> bool) -> Result<Self, LoadError> {
        let mark = program_of(core, "stolos_mark").attach().map_err(LoadError::Kernel)?;
        let load = |feature: Feature, programs: &[&str]| {
            if !wanted(&feature) {
                return None;
            }
            let object = load_optional(feature, maps)
                .inspect_err(|error| tracing::info!(feature = feature.label(), %error, "not in this kernel"))
                .ok()?;
            let links =
                programs.iter().map(|program| program_of(&object, program).attach().ok()).collect::<Option<_>>()?;
            Some(Walk { links, _object: object })
        };
        let sweep = load(Feature::SocketDestroy, &["stolos_sweep", "stolos_sweep_udp"]).filter(|_| destroys());
        let repair = load(Feature::ListenerRepair, &["stolos_repair"]).filter(|walk| repairs(&walk.links[0]));
        Ok(Self { mark, sweep, repair })
    }

    pub(crate) fn features(&self) -> impl Iterator<Item = Feature> {
        let sweep = self.sweep.as_ref().map(|_| Feature::SocketDestroy);
        sweep.into_iter().chain(self.repair.as_ref().map(|_| Feature::ListenerRepair))
    }
}

/// Whether the walk can change a listener: kernels before 6.12 load its program and refuse what it does. Tried on a listener of
/// our own, in a namespace that ends with it, so that nobody else's is touched.
fn repairs(link: &Link) -> bool {
    let listen = || {
        // SAFETY: a new network namespace for this short-lived thread alone; descriptors and memory stay as they are.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        io::Result::Ok((listener, File::open("/proc/thread-self/ns/net")?))
    };
    let tried = std::thread::scope(|scope| scope.spawn(listen).join().expect("BUG: opening a listener does not panic"));
    let able = |(_listener, netns): (TcpListener, File)| run::<abi::Listener>(link, netns.as_fd());
    match tried.map_err(WalkError::Enter).and_then(able) {
        Ok(found) => found.iter().any(|listener| listener.repaired & abi::WALK_REPAIRS != 0),
        Err(error) => {
            tracing::info!(feature = Feature::ListenerRepair.label(), %error, "cannot be tried");
            false
        }
    }
}

/// Runs `work` on a thread of its own inside a namespace.
fn inside<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> Result<T, WalkError> + Send) -> Result<T, WalkError> {
    let work = || {
        move_into_link_name_space(netns, Some(LinkNameSpaceType::Network)).map_err(|e| WalkError::Enter(e.into()))?;
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("walk".into()).spawn_scoped(scope, work);
        thread.map_err(WalkError::Thread)?.join().expect("BUG: the walk does not panic")
    })
}

/// Runs a walk inside a namespace and gives what its program wrote.
fn run<R: Plain + Send>(link: &Link, netns: BorrowedFd<'_>) -> Result<Vec<R>, WalkError> {
    inside(netns, || walk(link))
}

/// Runs a walk in the calling thread's namespace.
fn walk<R: Plain>(link: &Link) -> Result<Vec<R>, WalkError> {
    // SAFETY: a plain system call on a descriptor that `link` keeps open; the result is checked below.
    let fd = unsafe { libbpf_sys::bpf_iter_create(link.as_fd().as_raw_fd()) };
    if fd < 0 {
        return Err(WalkError::Walk(io::Error::from_raw_os_error(-fd)));
    }
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(WalkError::Walk)?;
    Ok(bytes.chunks_exact(size_of::<R>()).filter_map(R::read).collect())
}

/// Walks, and ends what the walk refused and could not end itself.
fn sweep(link: &Link, protocol: u8) -> Result<Vec<abi::Swept>, WalkError> {
    let refused: Vec<abi::Swept> = walk(link)?;
    let mut left = refused.iter().filter(|raw| raw.destroyed == 0).peekable();
    if left.peek().is_some() {
        let destroyer = Destroyer::open().map_err(WalkError::Walk)?;
        for raw in left {
            let local = (IpAddr::from(raw.local), raw.local_port);
            let remote = (IpAddr::from(raw.remote), raw.remote_port);
            let target = Target { protocol, local, remote, device: raw.device, cookie: raw.cookie };
            destroyer.destroy(&target).map_err(WalkError::Walk)?;
        }
    }
    Ok(refused)
}

/// Whether what a sweep refuses can be ended: by the walk itself, or by the kernel's socket diagnosis.
fn destroys() -> bool {
    let kernel = Btf::from_vmlinux();
    let by_walk = kernel.is_ok_and(|kernel| kernel.type_by_name::<Func<'_>>("bpf_sock_destroy").is_some());
    let tried = if by_walk { Ok(()) } else { destroy::can() };
    tried
        .inspect_err(|error| tracing::info!(feature = Feature::SocketDestroy.label(), %error, "not in this kernel"))
        .is_ok()
}

impl Datapath {
    /// Judges every TCP connection and every connected UDP socket of a namespace under what is live now, and destroys those
    /// that are refused.
    ///
    /// One namespace per call; call it for each after an [`Datapath::apply`] that may refuse more than before, then
    /// [`Datapath::settled`]. Errors: [`WalkError::Absent`] where the kernel cannot end sockets (before 6.5, without
    /// CONFIG_INET_DIAG_DESTROY): refused connections then only fall silent.
    pub fn sweep(&self, netns: BorrowedFd<'_>) -> Result<SweepReport, WalkError> {
        let walk = self.walks.sweep.as_ref().ok_or(WalkError::Absent(Feature::SocketDestroy))?;
        let mut report = SweepReport::default();
        for (link, protocol) in walk.links.iter().zip([destroy::TCP, destroy::UDP]) {
            let swept = inside(netns, || sweep(link, protocol))?;
            report.cut.extend(swept.iter().map(|raw| self.cut(raw)));
        }
        Ok(report)
    }

    /// Makes listeners that are older than the attach answer with identity (6.12), and tells of every listener.
    ///
    /// Errors: [`WalkError::Absent`] where the kernel cannot: ask [`Datapath::listeners`] which ones must be restarted.
    pub fn repair_listeners(&self, netns: BorrowedFd<'_>) -> Result<RepairReport, WalkError> {
        let walk = self.walks.repair.as_ref().ok_or(WalkError::Absent(Feature::ListenerRepair))?;
        self.report(&walk.links[0], netns)
    }

    /// Every listening TCP socket of a namespace. Also marks its connections as older than the attach, until
    /// [`Datapath::all_marked`].
    pub fn listeners(&self, netns: BorrowedFd<'_>) -> Result<RepairReport, WalkError> {
        self.report(&self.walks.mark, netns)
    }

    /// From now on a socket that the programs never saw is no longer taken for one older than the attach, but refused
    /// (PROTOCOL rule 7). To be called after [`Datapath::listeners`] on every namespace.
    pub fn all_marked(&mut self) {
        let config = abi::Config { marked: 1, ..self.page.read() };
        self.page.write(&config);
    }

    /// Ends the time in which connections older than the attach pass although their address would be refused.
    /// The next packet or sweep cuts those.
    pub fn end_older(&mut self, end: bool) {
        let config = abi::Config { end_older: end.into(), ..self.page.read() };
        self.page.write(&config);
    }

    fn report(&self, link: &Link, netns: BorrowedFd<'_>) -> Result<RepairReport, WalkError> {
        let listeners = run::<abi::Listener>(link, netns)?
            .iter()
            .map(|raw| Listener {
                local: self.live.locals.named(raw.stamp),
                address: SocketAddr::new(IpAddr::from(raw.local), raw.port),
                labels: raw.labels != 0,
                repaired: raw.repaired & abi::WALK_REPAIRED != 0,
            })
            .collect();
        Ok(RepairReport { listeners })
    }

    fn cut(&self, raw: &abi::Swept) -> Cut {
        Cut {
            local: self.live.locals.named(raw.stamp),
            direction: direction_of(raw.direction),
            peer: workload_of(raw.peer).map_or(Peer::Unknown, Peer::Workload),
            proof: proof_of(raw.proof),
            reason: Reason::from_byte(raw.reason),
            rule: raw.rule,
            local_address: SocketAddr::new(IpAddr::from(raw.local), raw.local_port),
            remote_address: SocketAddr::new(IpAddr::from(raw.remote), raw.remote_port),
        }
    }
}
