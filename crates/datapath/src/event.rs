//! Records from the programs: openings, closings, refusals, and what the agent is asked to find out.
//!
//! Refusals and questions wake the reader at once; openings and closings wait for the next poll. When the ring is full,
//! openings are lost first from the reader's view and counted (`Stage::EventLost`); denial *counters* never lose anything.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use identity::ids::{NodeId, Slot, WorkloadRef};
use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};
use policy::reason::Reason;

use crate::abi::{self, Plain};
use crate::assign::{Locals, Stamp};
use crate::attach::Datapath;
use crate::state::{ClassId, Direction, Verdict};

/// What a record's peer rests on (PROTOCOL rule 16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proof {
    /// Nothing is known of the peer.
    None,
    /// The handshake proved the peer.
    Proved,
    /// The peer said so, or its address did.
    Claimed,
    /// A plain end, known by its address only.
    External,
    /// The connection is older than the attach and was judged by address.
    Older,
}

/// The other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// A workload of the fleet; how far to believe it: [`Proof`].
    Workload(WorkloadRef),
    /// An end outside the fleet, by class.
    External(ClassId),
    /// Not known.
    Unknown,
}

/// The workload of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Local {
    /// Its slot; `None` while it is pending, or when it is gone already.
    pub slot: Option<Slot>,
    /// Its number in this kernel: tells pending workloads apart. See [`Datapath::cgroups_of`].
    pub stamp: u32,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection was accepted by the kernel.
    Open,
    /// A connection ended.
    Close {
        /// Bytes received.
        bytes_in: u64,
        /// Bytes sent and acknowledged.
        bytes_out: u64,
    },
    /// A refusal.
    Refused {
        /// Recorded only: an observing side let it pass.
        would: bool,
        /// The responder may answer it with a reset (PROTOCOL rule 13).
        reset: bool,
        /// connect() failed; no packet was sent.
        early: bool,
        /// A live connection was cut.
        cut: bool,
    },
    /// Something is missing here that the server may know (PROTOCOL rule 11): the reason says what.
    Unknown {
        /// Key generations named by the packet: the sender's own, and the receiver's (or the fleet key's).
        generations: (u8, u8),
    },
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// When, in nanoseconds of the boot clock.
    pub boot_ns: u64,
    /// The local workload.
    pub local: Local,
    /// The local workload's view: server or client.
    pub direction: Direction,
    /// The other end.
    pub peer: Peer,
    /// What `peer` rests on.
    pub proof: Proof,
    /// The other end's class as judged.
    pub class: ClassId,
    /// The local address and port as this node sees them; unspecified before the first packet.
    pub local_address: SocketAddr,
    /// The remote address and port as this node sees them.
    pub remote_address: SocketAddr,
    /// The port that was judged.
    pub port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// The client's initial sequence number; 0 unless TCP got that far.
    pub isn_client: u32,
    /// The server's initial sequence number; 0 unless TCP got that far.
    pub isn_server: u32,
    /// The verdict, with the deciding rule.
    pub verdict: Verdict,
    /// Why it was or would have been refused.
    pub reason: Option<Reason>,
    /// Cookie of the network namespace of the local socket; 0 = not known.
    pub netns: u64,
}

/// Why the ring cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the ring of records cannot be read")]
pub struct EventsError(#[from] libbpf_rs::Error);

type Queue = Arc<Mutex<VecDeque<abi::Event>>>;

/// The reading end of the ring.
pub(crate) struct Events {
    ring: RingBuffer<'static>,
    queue: Queue,
}

impl Events {
    pub(crate) fn open(map: &MapHandle) -> Result<Self, EventsError> {
        let queue = Queue::default();
        let mut builder = RingBufferBuilder::new();
        let tail = queue.clone();
        builder.add(map, move |bytes| {
            if let Some(event) = abi::Event::read(bytes) {
                tail.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
            }
            0
        })?;
        Ok(Self { ring: builder.build()?, queue })
    }

    /// Waits for a record that wakes, then takes all there are. The queue lives only within a call: the ring bounds it.
    fn take(&self, timeout: Duration) -> Result<VecDeque<abi::Event>, EventsError> {
        self.ring.consume()?;
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.is_empty() {
            drop(queue);
            let waited = self.ring.poll_raw(timeout);
            if waited < 0 && waited != -rustix::io::Errno::INTR.raw_os_error() {
                return Err(EventsError(libbpf_rs::Error::from_raw_os_error(-waited)));
            }
            self.ring.consume()?;
            queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        }
        Ok(std::mem::take(&mut *queue))
    }
}

impl Datapath {
    /// Hands over every record there is; when there is none, waits up to `timeout` for one that wakes (refusals to be
    /// answered, and questions) and then looks once more. Returns how many were handed over.
    pub fn poll_events(&mut self, timeout: Duration, mut each: impl FnMut(Event)) -> Result<usize, EventsError> {
        let records = self.events.take(timeout)?;
        let count = records.len();
        for record in &records {
            if let Some(event) = Event::of(record, &self.live.locals) {
                each(event);
            }
        }
        Ok(count)
    }

    /// Readable when a record that wakes has come: for a reader that waits for other things, too.
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        let fd = self.events.ring.epoll_fd();
        // SAFETY: the descriptor is the ring's own, open and the same until the ring is dropped, which `self` outlives. The
        // library gives it as a number only.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// cgroup ids of the local workload with this stamp.
    pub fn cgroups_of(&self, stamp: u32) -> Vec<u64> {
        let locals = &self.live.locals.workloads;
        locals.iter().filter(|(_, of)| **of == stamp).map(|(&id, _)| id).collect()
    }
}

pub(crate) fn proof_of(byte: u8) -> Proof {
    match byte {
        abi::PROOF_PROVED | abi::PROOF_HOME => Proof::Proved,
        abi::PROOF_CLAIMED => Proof::Claimed,
        abi::PROOF_EXTERNAL => Proof::External,
        abi::PROOF_OLDER => Proof::Older,
        _ => Proof::None,
    }
}

pub(crate) fn direction_of(byte: u8) -> Direction {
    if byte == 0 { Direction::Ingress } else { Direction::Egress }
}

/// The workload of a reference, `None` for 0.
pub(crate) fn workload_of(reference: u64) -> Option<WorkloadRef> {
    Some(WorkloadRef { node: NodeId::new((reference >> 16) as u32)?, slot: Slot(reference as u16) })
}

impl Locals {
    /// The local workload of a stamp, as it is named now.
    pub(crate) fn named(&self, stamp: u32) -> Local {
        let entry = self.entries.get(&Stamp(stamp).index());
        let current =
            entry.filter(|entry| u32::from(entry.generation) == stamp >> 16 && entry.flags & abi::LOCAL_PLACED != 0);
        Local { slot: current.map(|entry| Slot(entry.slot)), stamp }
    }
}

impl Event {
    /// `None` for kinds that no version of ours writes.
    fn of(raw: &abi::Event, locals: &Locals) -> Option<Self> {
        let flag = |flag: u8| raw.flags & flag != 0;
        let kind = match raw.kind {
            abi::EVENT_OPEN => Kind::Open,
            abi::EVENT_CLOSE => Kind::Close { bytes_in: raw.bytes_in, bytes_out: raw.bytes_out },
            abi::EVENT_REFUSED => Kind::Refused {
                would: flag(abi::EVENT_WOULD),
                reset: flag(abi::EVENT_RESET),
                early: flag(abi::EVENT_EARLY),
                cut: flag(abi::EVENT_CUT),
            },
            abi::EVENT_UNKNOWN => Kind::Unknown { generations: (raw.generations >> 2 & 3, raw.generations & 3) },
            _ => return None,
        };
        let proof = proof_of(raw.proof);
        let peer = match proof {
            Proof::External => Peer::External(ClassId(raw.class)),
            _ => workload_of(raw.peer).map_or(Peer::Unknown, Peer::Workload),
        };
        Some(Self {
            kind,
            boot_ns: raw.boot_ns,
            local: locals.named(raw.stamp),
            direction: direction_of(raw.direction),
            peer,
            proof,
            class: ClassId(raw.class),
            local_address: SocketAddr::new(IpAddr::from(raw.local), raw.local_port),
            remote_address: SocketAddr::new(IpAddr::from(raw.remote), raw.remote_port),
            port: raw.port,
            protocol: raw.proto,
            isn_client: raw.client_isn,
            isn_server: raw.server_isn,
            verdict: Verdict {
                allow: raw.verdict & abi::VERDICT_ALLOW != 0,
                would_allow: raw.verdict & abi::VERDICT_WOULD_ALLOW != 0,
                reason: raw.reason,
                rule: raw.rule,
            },
            reason: Reason::from_byte(raw.reason),
            netns: raw.netns,
        })
    }
}
