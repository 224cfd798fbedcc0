//! A third party that answers a client's SYN by relaying its handshake to the real server (rule 1).
//!
//! Packets pass unchanged but for their addresses, so that every MAC verifies: only the place gives the relay away.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::Result;
use handshake::segment::Segment;

use crate::attack::Attacker;
use crate::netns::Netns;

/// How many of each message went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Segments from the client on to the server.
    pub forth: u64,
    /// Segments from the server back to the client.
    pub back: u64,
}

/// A running relay. It ends when dropped.
pub struct Relay {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    attacker: Attacker,
    stop: AtomicBool,
    forth: AtomicU64,
    back: AtomicU64,
}

impl Relay {
    /// Relays what clients send to `listen` (an address of `netns`) to `server`, from the same address of its own.
    ///
    /// `netns` has one interface, so that every packet is heard once; client ports are kept.
    pub fn start(netns: &Netns, listen: SocketAddr, server: SocketAddr) -> Result<Self> {
        let attacker = Attacker::new(netns)?;
        let shared = Arc::new(Shared {
            attacker,
            stop: AtomicBool::new(false),
            forth: AtomicU64::new(0),
            back: AtomicU64::new(0),
        });
        let relaying = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || relaying.run(listen, server))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What went through so far.
    pub fn relayed(&self) -> Relayed {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Relayed { forth: read(&self.shared.forth), back: read(&self.shared.back) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, listen: SocketAddr, server: SocketAddr) {
        let mut client: Option<IpAddr> = None;
        while !self.stop.load(Ordering::Relaxed) {
            for heard in self.attacker.tap().take(std::time::Duration::from_millis(50)) {
                let (onward, counter) = if heard.destination == listen {
                    client = Some(heard.source.ip());
                    let own = SocketAddr::new(listen.ip(), heard.source.port());
                    (Segment { source: own, destination: server, ..heard }, &self.forth)
                } else if heard.source == server
                    && heard.destination.ip() == listen.ip()
                    && let Some(client) = client
                {
                    let back = SocketAddr::new(client, heard.destination.port());
                    (Segment { source: listen, destination: back, ..heard }, &self.back)
                } else {
                    continue;
                };
                if self.attacker.injector().send(&onward).is_ok() {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}
