//! Fast failure (PROTOCOL rule 13): a refused connection is answered with a RST, so that the caller sees ECONNREFUSED at once.
//!
//! Owns the raw sockets and the budget. *Whether* a refusal may be answered is not decided here: call it only for SYNs whose
//! MAC was valid, for plain ones that a posture answers, and for SYN-ACKs that the client's own side refused.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use handshake::segment::{BuildError, Segment, TcpFlags};
use nix::libc::{IP_HDRINCL, IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_IPV6, IPV6_HDRINCL, setsockopt};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::refuse::budget::{Buckets, Budget};

pub mod budget;

/// Level and names of linux/icmp.h and linux/icmpv6.h.
const SOL_RAW: i32 = 255;
const ICMP_FILTER: i32 = 1;
const ICMP6_FILTER: i32 = 1;

/// At which end a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This node refused a SYN: the RST travels back to the client.
    Server,
    /// This node's own workload is the client: the RST is delivered locally, as if from the address it dialled.
    Client,
}

/// One connection to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Cookie of the network namespace of the socket on this node.
    pub netns: u64,
    /// The client's address and port, as seen in that namespace.
    pub client: SocketAddr,
    /// The dialled address and port, as seen in that namespace.
    pub server: SocketAddr,
    /// The client's initial sequence number.
    pub isn_client: u32,
    /// Which end this node is.
    pub side: Side,
}

/// What became of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// One RST|ACK left.
    Sent,
    /// The far end's prefix has used its budget up: silence.
    OverBudget,
}

/// Why a refusal could not be answered. The connection stays refused either way.
#[derive(Debug, thiserror::Error)]
pub enum RefuseError {
    /// The namespace was never registered, or was forgotten.
    #[error("network namespace {0} is not registered")]
    NetnsUnknown(u64),
    /// One address is IPv4, the other IPv6.
    #[error("no RST fits these addresses")]
    Addresses(#[source] BuildError),
    /// The namespace has no such address family.
    #[error("the namespace has no raw socket for this address family")]
    Family,
    /// The kernel did not take it.
    #[error("the RST could not be sent")]
    Send(#[source] io::Error),
}

/// Why a namespace could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The thread that enters the namespace could not be started.
    #[error("no thread could be started")]
    Thread(#[source] io::Error),
    /// Not a network namespace, or no permission.
    #[error("the network namespace could not be entered")]
    Enter(#[source] io::Error),
    /// No raw socket could be opened there.
    #[error("no raw socket could be opened (CAP_NET_RAW)")]
    Socket(#[source] io::Error),
}

/// How many refusals met which end since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// RSTs that left.
    pub sent: u64,
    /// Refusals met with silence because of the budget.
    pub over_budget: u64,
    /// Refusals that could not be answered: [`RefuseError`].
    pub failed: u64,
}

/// Answers refused connections, in any number of network namespaces.
///
/// A registered namespace lives until it is forgotten: its sockets hold it. Threads may share one refuser.
#[derive(Debug)]
pub struct Refuser {
    namespaces: Mutex<BTreeMap<u64, Sockets>>,
    buckets: Mutex<Buckets>,
    started: Instant,
    sent: AtomicU64,
    over_budget: AtomicU64,
    failed: AtomicU64,
}

/// Raw sockets stay in the namespace in which they were opened, whichever thread uses them.
#[derive(Debug)]
struct Sockets {
    v4: OwnedFd,
    /// `None` where IPv6 is not in the kernel.
    v6: Option<OwnedFd>,
}

impl Refuser {
    /// A refuser with no namespace yet.
    pub fn new(budget: Budget) -> Self {
        Self {
            namespaces: Mutex::default(),
            buckets: Mutex::new(Buckets::new(budget)),
            started: Instant::now(),
            sent: AtomicU64::new(0),
            over_budget: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Opens raw sockets in a network namespace. `cookie` is its SO_NETNS_COOKIE, as events carry it. Registering one
    /// again replaces its sockets.
    ///
    /// A thread of its own enters the network namespace (and no other), opens the sockets and ends.
    pub fn register(&self, cookie: u64, netns: BorrowedFd<'_>) -> Result<(), RegisterError> {
        let sockets = std::thread::scope(|scope| {
            let opener = std::thread::Builder::new().name("refuse-netns".into());
            let thread = opener.spawn_scoped(scope, || open_in(netns)).map_err(RegisterError::Thread)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).insert(cookie, sockets);
        Ok(())
    }

    /// Closes a namespace's sockets, so that it can end. `false`: it was not registered.
    pub fn forget(&self, cookie: u64) -> bool {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).remove(&cookie).is_some()
    }

    /// Answers one refused connection with at most one RST|ACK of 40 or 60 bytes: never more than what it answers.
    ///
    /// Server side: seq 0, ack ISN + 1, from the dialled address back to the client. Client side: the same segment, but
    /// delivered here; a socket in SYN_SENT takes it for its peer's and `connect` fails with ECONNREFUSED.
    pub fn refuse(&self, refusal: &Refusal) -> Result<Outcome, RefuseError> {
        let far_end = match refusal.side {
            Side::Server => refusal.client.ip(),
            Side::Client => refusal.server.ip(),
        };
        if !self.buckets.lock().unwrap_or_else(PoisonError::into_inner).take(far_end, self.started.elapsed()) {
            self.over_budget.fetch_add(1, Ordering::Relaxed);
            return Ok(Outcome::OverBudget);
        }
        let result = self.send(refusal);
        let counter = if result.is_ok() { &self.sent } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        result.map(|()| Outcome::Sent)
    }

    /// What happened since the start.
    pub fn counts(&self) -> Counts {
        Counts {
            sent: self.sent.load(Ordering::Relaxed),
            over_budget: self.over_budget.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    fn send(&self, refusal: &Refusal) -> Result<(), RefuseError> {
        let ack = refusal.isn_client.wrapping_add(1);
        let rst = Segment::bare(refusal.server, refusal.client, 0, ack, TcpFlags::RST_ACK);
        let packet = rst.to_packet().map_err(RefuseError::Addresses)?;
        let namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        let sockets = namespaces.get(&refusal.netns).ok_or(RefuseError::NetnsUnknown(refusal.netns))?;
        let socket = match refusal.client.ip().to_canonical() {
            IpAddr::V4(_) => &sockets.v4,
            IpAddr::V6(_) => sockets.v6.as_ref().ok_or(RefuseError::Family)?,
        };
        let mut to = SocketAddr::new(refusal.client.ip().to_canonical(), 0);
        if let (SocketAddr::V6(to), SocketAddr::V6(client)) = (&mut to, refusal.client) {
            to.set_scope_id(client.scope_id());
        }
        rustix::net::sendto(socket.as_fd(), &packet, SendFlags::DONTWAIT, &to)
            .map_err(|error| RefuseError::Send(error.into()))?;
        Ok(())
    }
}

/// Runs on a thread of its own: entering a namespace is for good.
fn open_in(netns: BorrowedFd<'_>) -> Result<Sockets, RegisterError> {
    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network)).map_err(|e| RegisterError::Enter(e.into()))?;
    let v4 = raw_socket(AddressFamily::INET).map_err(RegisterError::Socket)?;
    let v6 = match raw_socket(AddressFamily::INET6) {
        Ok(socket) => Some(socket),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => None,
        Err(error) => return Err(RegisterError::Socket(error)),
    };
    Ok(Sockets { v4, v6 })
}

/// A socket of ping's kind on which the packet's own IP header is taken as it is, its source address and protocol included.
/// Nothing is ever received. Not IPPROTO_RAW: a protected host may open none of those, and the agent is the host's. A ping's
/// it may open like everybody, so that the agent needs no exemption that another process of the node could borrow.
fn raw_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let (protocol, header, filter) = if family == AddressFamily::INET {
        (ipproto::ICMP, (IPPROTO_IP, IP_HDRINCL), (SOL_RAW, ICMP_FILTER))
    } else {
        (ipproto::ICMPV6, (IPPROTO_IPV6, IPV6_HDRINCL), (IPPROTO_ICMPV6, ICMP6_FILTER))
    };
    let socket = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
    set_option(socket.as_fd(), header, &1_i32.to_ne_bytes())?;
    // A bit per type of message that is not wanted.
    set_option(socket.as_fd(), filter, &[0xff; 32][..if family == AddressFamily::INET { 4 } else { 32 }])?;
    Ok(socket)
}

/// Sets what rustix has no call for: header of one's own, ICMP filters.
fn set_option(socket: BorrowedFd<'_>, (level, name): (i32, i32), value: &[u8]) -> io::Result<()> {
    // SAFETY: `value` is read for its own length, which is given, and the descriptor is borrowed for the call.
    let result = unsafe {
        setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), value.len() as nix::libc::socklen_t)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
