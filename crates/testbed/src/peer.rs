//! Scripted peers: a small program that runs as a workload and does on demand what a test needs of a client or server.
//!
//! A socket belongs to the cgroup of its process, so a thread of the test cannot play a workload: the peer is a program
//! of its own (`testbed-peer`), told what to do by JSON lines ([`script`]) on its standard input.

pub mod actor;
pub mod script;
mod traffic;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::process::{Place, Process, Program};
use crate::wait;
use script::{Answer, Ask, Failure, Question, Reply, Speak, TrafficReport};

/// File name of the peer's program; it lies beside the test's or the demo's.
pub const PROGRAM: &str = "testbed-peer";
/// On top of an action's own limit, for the way there and back on a loaded machine.
const REPLY_GRACE: Duration = Duration::from_secs(10);

/// A running peer. Actions can be asked for from several threads; each runs on a thread of its own in the peer.
#[derive(Clone)]
pub struct Peer(Arc<Inner>);

struct Inner {
    process: Process,
    stdin: Mutex<ChildStdin>,
    waiting: Waiting,
    next: Mutex<u64>,
}

type Waiting = Arc<Mutex<BTreeMap<u64, SyncSender<Answer>>>>;

/// A listening socket of a peer.
#[derive(Clone)]
pub struct Listener {
    peer: Peer,
    id: u64,
    /// The port, also where 0 was asked for.
    pub port: u16,
}

/// An established connection of a peer (its client end).
#[derive(Clone)]
pub struct Connection {
    peer: Peer,
    id: u64,
    /// How long connect() took.
    pub took: Duration,
    /// The socket's own address.
    pub local: SocketAddr,
}

/// Sequence-checked traffic of a peer, until it is stopped.
pub struct Traffic {
    peer: Peer,
    id: u64,
}

impl Peer {
    /// Starts a peer in `place`: it belongs to whatever its cgroup says.
    pub fn start(place: &Place) -> Result<Self> {
        let unique = format!("peer-{:06x}", rand::random::<u32>() & 0xFF_FFFF);
        let (process, stdin, stdout) = place.start_piped(Program::new(program()?).named(unique))?;
        let waiting = Waiting::default();
        let answers = Arc::clone(&waiting);
        std::thread::spawn(move || deliver(stdout, &answers));
        Ok(Self(Arc::new(Inner { process, stdin: Mutex::new(stdin), waiting, next: Mutex::new(1) })))
    }

    /// The peer's process.
    pub fn process(&self) -> &Process {
        &self.0.process
    }

    /// Listens at `address:port` (0: any port) and answers every connection by echoing.
    pub fn listen(&self, address: IpAddr, port: u16) -> Result<Listener> {
        let reply = self.ask(Ask::Listen { at: SocketAddr::new(address, port) }, Duration::ZERO)??;
        match reply {
            Reply::Listening { id, port } => Ok(Listener { peer: self.clone(), id, port }),
            other => bail!("BUG: {other:?} is no answer to listen"),
        }
    }

    /// connect() alone. The inner error has errno and timing.
    pub fn connect(&self, to: SocketAddr, limit: Duration) -> Result<Result<Connection, Failure>> {
        match self.ask(Ask::Connect { to, limit }, limit)? {
            Ok(Reply::Connected { id, took, local }) => Ok(Ok(Connection { peer: self.clone(), id, took, local })),
            Ok(other) => bail!("BUG: {other:?} is no answer to connect"),
            Err(failure) => Ok(Err(failure)),
        }
    }

    /// connect(), one request, one reply (echoed), close. Gives the time of all of it.
    pub fn request(&self, to: SocketAddr, limit: Duration) -> Result<Result<Duration, Failure>> {
        match self.ask(Ask::Request { to, limit }, limit)? {
            Ok(Reply::Took(took)) => Ok(Ok(took)),
            Ok(other) => bail!("BUG: {other:?} is no answer to request"),
            Err(failure) => Ok(Err(failure)),
        }
    }

    /// Opens `connections` and on each sends a number every `every`, checking the replies' sequence, until stopped.
    pub fn traffic(&self, to: SocketAddr, connections: u16, every: Duration, speak: Speak) -> Result<Traffic> {
        match self.ask(Ask::Traffic { to, connections, every, speak }, Duration::from_secs(20))?? {
            Reply::Began { id } => Ok(Traffic { peer: self.clone(), id }),
            other => bail!("BUG: {other:?} is no answer to traffic"),
        }
    }

    /// Binds a UDP socket that echoes what it gets.
    pub fn udp_echo(&self, address: IpAddr, port: u16) -> Result<u16> {
        match self.ask(Ask::UdpEcho { at: SocketAddr::new(address, port) }, Duration::ZERO)?? {
            Reply::Listening { port, .. } => Ok(port),
            other => bail!("BUG: {other:?} is no answer to udp echo"),
        }
    }

    /// One datagram from a connected UDP socket, one reply.
    pub fn udp_request(&self, to: SocketAddr, limit: Duration) -> Result<Result<Duration, Failure>> {
        match self.ask(Ask::UdpRequest { to, limit }, limit)? {
            Ok(Reply::Took(took)) => Ok(Ok(took)),
            Ok(other) => bail!("BUG: {other:?} is no answer to udp request"),
            Err(failure) => Ok(Err(failure)),
        }
    }

    fn ask(&self, ask: Ask, limit: Duration) -> Result<Answer> {
        let number = {
            let mut next = self.0.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        let (sender, receiver): (_, Receiver<Answer>) = sync_channel(1);
        lock(&self.0.waiting).insert(number, sender);
        let line = serde_json::to_string(&Question { number, ask })? + "\n";
        self.0
            .stdin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(line.as_bytes())
            .context("peer has ended")?;
        let answer = receiver.recv_timeout(wait::patient(limit + REPLY_GRACE));
        answer.with_context(|| format!("the peer did not answer {}: {}", line.trim(), self.0.process.log_text()))
    }
}

impl Listener {
    /// Stops listening; connections that were accepted stay.
    pub fn close(self) -> Result<()> {
        self.peer.ask(Ask::CloseListener { listener: self.id }, Duration::ZERO)??;
        Ok(())
    }

    /// Remote addresses of all connections accepted so far.
    pub fn accepted(&self) -> Result<Vec<SocketAddr>> {
        match self.peer.ask(Ask::Accepted { listener: self.id }, Duration::ZERO)?? {
            Reply::Accepted(peers) => Ok(peers),
            other => bail!("BUG: {other:?} is no answer to accepted"),
        }
    }
}

impl Connection {
    /// Sends a number and waits for its echo.
    pub fn exchange(&self, limit: Duration) -> Result<Result<Duration, Failure>> {
        match self.peer.ask(Ask::Exchange { connection: self.id, limit }, limit)? {
            Ok(Reply::Took(took)) => Ok(Ok(took)),
            Ok(other) => bail!("BUG: {other:?} is no answer to exchange"),
            Err(failure) => Ok(Err(failure)),
        }
    }

    /// Sends `text` and waits for a reply that begins with `expect` (which is all that is read of it).
    pub fn say(&self, text: &str, expect: &str, limit: Duration) -> Result<Result<Duration, Failure>> {
        let ask = Ask::Say { connection: self.id, text: text.to_owned(), expect: expect.to_owned(), limit };
        match self.peer.ask(ask, limit)? {
            Ok(Reply::Took(took)) => Ok(Ok(took)),
            Ok(other) => bail!("BUG: {other:?} is no answer to say"),
            Err(failure) => Ok(Err(failure)),
        }
    }

    /// PING to a redis server.
    pub fn redis_ping(&self, limit: Duration) -> Result<Result<Duration, Failure>> {
        self.say("PING\r\n", "+PONG\r\n", limit)
    }

    /// GET / to an HTTP server.
    pub fn http_get(&self, limit: Duration) -> Result<Result<Duration, Failure>> {
        self.say("GET / HTTP/1.0\r\nHost: demo\r\n\r\n", "HTTP/1.1 200", limit)
    }

    /// Waits until the other end closes (`Ok`) or the connection breaks (the failure).
    pub fn wait_end(&self, limit: Duration) -> Result<Result<Duration, Failure>> {
        match self.peer.ask(Ask::WaitEnd { connection: self.id, limit }, limit)? {
            Ok(Reply::Took(took)) => Ok(Ok(took)),
            Ok(other) => bail!("BUG: {other:?} is no answer to wait"),
            Err(failure) => Ok(Err(failure)),
        }
    }

    /// Closes it.
    pub fn close(self) -> Result<()> {
        self.peer.ask(Ask::Close { connection: self.id }, Duration::ZERO)??;
        Ok(())
    }
}

impl Traffic {
    /// What happened so far; the traffic goes on.
    pub fn report(&self) -> Result<TrafficReport> {
        self.ask(false)
    }

    /// Ends the traffic.
    pub fn stop(self) -> Result<TrafficReport> {
        self.ask(true)
    }

    fn ask(&self, stop: bool) -> Result<TrafficReport> {
        match self.peer.ask(Ask::TrafficReport { traffic: self.id, stop }, Duration::from_secs(5))?? {
            Reply::Traffic(report) => Ok(report),
            other => bail!("BUG: {other:?} is no answer to a traffic report"),
        }
    }
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, BTreeMap<u64, SyncSender<Answer>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn deliver(stdout: ChildStdout, waiting: &Waiting) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if let Ok(reply) = serde_json::from_str::<script::Numbered>(&line)
            && let Some(sender) = lock(waiting).remove(&reply.number)
        {
            let _ = sender.send(reply.answer);
        }
    }
    lock(waiting).clear();
}

/// The peer's program: beside this one, or one directory up (test binaries lie in `deps`).
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join(PROGRAM)).find(|path| path.is_file());
    found.with_context(|| format!("{PROGRAM} is not beside {}; build it: cargo build -p testbed --bins", own.display()))
}
