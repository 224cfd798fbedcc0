//! Listening in: every TCP segment that passes any interface of a namespace.
//!
//! A segment is in the socket's queue before its receiver has seen it, so whoever asks reads that queue first: what has
//! passed when [`Tap::heard`] is called is heard, however late the tap's own thread is.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use handshake::segment::Segment;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, eth};

use crate::netns::Netns;
use crate::wait;

/// Segments kept; older ones are let go of, so that a long load beside a tap costs no memory without end.
const KEPT_MAX: usize = 65_536;
const BUFFER: usize = 64 << 20;
/// How long the thread waits for a packet before it looks whether the tap has ended.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// A running capture. It ends when dropped.
#[derive(Debug)]
pub struct Tap {
    heard: Arc<Heard>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Heard {
    socket: OwnedFd,
    segments: Mutex<Vec<Segment>>,
    more: Condvar,
    total: AtomicU64,
    stop: AtomicBool,
}

impl Tap {
    /// Starts to listen on all interfaces of `netns`. What passes after this returns is heard.
    pub fn open(netns: &Netns) -> Result<Self> {
        let socket = netns.enter(|| {
            let all = Some(eth::ALL);
            let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, SocketFlags::CLOEXEC, all)
                .context("no packet socket (CAP_NET_RAW)")?;
            set_socket_recv_buffer_size_force(&socket, BUFFER).context("no room for captured packets")?;
            Ok(socket)
        })?;
        let heard = Arc::new(Heard {
            socket,
            segments: Mutex::default(),
            more: Condvar::new(),
            total: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let hearing = Arc::clone(&heard);
        let thread = std::thread::Builder::new().name("tap".into()).spawn(move || hearing.listen())?;
        Ok(Self { heard, thread: Some(thread) })
    }

    /// Segments heard so far that `wanted` picks, oldest first. A packet that crosses several interfaces of the
    /// namespace is heard at each.
    pub fn heard(&self, wanted: impl Fn(&Segment) -> bool) -> Vec<Segment> {
        self.heard.drained().iter().filter(|segment| wanted(segment)).cloned().collect()
    }

    /// Waits for a segment that `wanted` picks, and returns the first.
    pub fn wait(&self, what: &str, limit: Duration, wanted: impl Fn(&Segment) -> bool) -> Result<Segment> {
        wait::until(what, limit, || self.heard.drained().iter().find(|segment| wanted(segment)).cloned())
    }

    /// Takes away everything heard so far; waits up to `limit` for the first.
    pub fn take(&self, limit: Duration) -> Vec<Segment> {
        let segments = self.heard.drained();
        let waited = self.heard.more.wait_timeout_while(segments, limit, |segments| segments.is_empty());
        std::mem::take(&mut *waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Forgets what was heard.
    pub fn clear(&self) {
        self.heard.drained().clear();
    }

    /// How many segments passed since the tap was opened.
    pub fn total(&self) -> u64 {
        drop(self.heard.drained());
        self.heard.total.load(Ordering::Relaxed)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.heard.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Heard {
    fn listen(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let mut socket = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut socket, Some(&PATIENCE)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => drop(self.drained()),
                Err(_) => return,
            }
            self.more.notify_one();
        }
    }

    /// All that is kept, after reading what the kernel has queued; read under the lock, so that the order is the kernel's.
    fn drained(&self) -> MutexGuard<'_, Vec<Segment>> {
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = vec![0; 65_536];
        // Bounded, because under a steady load the queue may never be empty.
        for _ in 0..KEPT_MAX {
            let length = match rustix::net::recv(self.socket.as_fd(), &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(Errno::INTR | Errno::NETDOWN | Errno::NOBUFS) => continue,
                Err(_) => break,
            };
            let Ok(segment) = Segment::read(&buffer[..length]) else { continue };
            self.total.fetch_add(1, Ordering::Relaxed);
            if segments.len() >= KEPT_MAX {
                segments.drain(..KEPT_MAX / 2);
            }
            segments.push(segment);
        }
        segments
    }
}
