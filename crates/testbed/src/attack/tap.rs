//! Listening in: every TCP segment that passes any interface of a namespace.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use handshake::segment::Segment;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, eth};

use crate::netns::Netns;
use crate::wait;

/// Segments kept; older ones are let go of, so that a long load beside a tap costs no memory without end.
const KEPT_MAX: usize = 65_536;
const BUFFER: usize = 64 << 20;

/// A running capture. It ends when dropped.
#[derive(Debug)]
pub struct Tap {
    heard: Arc<Heard>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Heard {
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
            // So that the thread sees its end; nothing waits on this.
            set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_millis(50)))?;
            Ok(socket)
        })?;
        let heard = Arc::new(Heard::default());
        let hearing = Arc::clone(&heard);
        let thread = std::thread::Builder::new().name("tap".into()).spawn(move || listen(&socket, &hearing))?;
        Ok(Self { heard, thread: Some(thread) })
    }

    /// Segments heard so far that `wanted` picks, oldest first. A packet that crosses several interfaces of the
    /// namespace is heard at each.
    pub fn heard(&self, wanted: impl Fn(&Segment) -> bool) -> Vec<Segment> {
        let segments = self.heard.segments.lock().unwrap_or_else(PoisonError::into_inner);
        segments.iter().filter(|segment| wanted(segment)).cloned().collect()
    }

    /// Waits for a segment that `wanted` picks, and returns the first.
    pub fn wait(&self, what: &str, limit: Duration, wanted: impl Fn(&Segment) -> bool) -> Result<Segment> {
        wait::until(what, limit, || {
            let segments = self.heard.segments.lock().unwrap_or_else(PoisonError::into_inner);
            segments.iter().find(|segment| wanted(segment)).cloned()
        })
    }

    /// Takes away everything heard so far; waits up to `limit` for the first.
    pub fn take(&self, limit: Duration) -> Vec<Segment> {
        let segments = self.heard.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.heard.more.wait_timeout_while(segments, limit, |segments| segments.is_empty());
        std::mem::take(&mut *waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Forgets what was heard.
    pub fn clear(&self) {
        self.heard.segments.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How many segments passed since the tap was opened.
    pub fn total(&self) -> u64 {
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

fn listen(socket: &OwnedFd, heard: &Heard) {
    let mut buffer = vec![0; 65_536];
    while !heard.stop.load(Ordering::Relaxed) {
        let length = match rustix::net::recv(socket.as_fd(), &mut buffer[..], RecvFlags::empty()) {
            Ok((length, _)) => length,
            Err(Errno::AGAIN | Errno::INTR | Errno::NETDOWN | Errno::NOBUFS) => continue,
            Err(_) => return,
        };
        let Ok(segment) = Segment::read(&buffer[..length]) else { continue };
        heard.total.fetch_add(1, Ordering::Relaxed);
        let mut segments = heard.segments.lock().unwrap_or_else(PoisonError::into_inner);
        if segments.len() >= KEPT_MAX {
            segments.drain(..KEPT_MAX / 2);
        }
        segments.push(segment);
        drop(segments);
        heard.more.notify_one();
    }
}
