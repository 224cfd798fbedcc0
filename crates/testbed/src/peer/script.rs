//! What a test can ask a peer to do, and what it answers: JSON lines.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One question.
#[derive(Debug, Serialize, Deserialize)]
pub struct Question {
    /// Returned with the answer.
    pub number: u64,
    /// What to do.
    pub ask: Ask,
}

/// What to do. Fields say all; limits are for the whole action.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the callers in peer.rs document each action")]
pub enum Ask {
    Listen { at: SocketAddr },
    Accepted { listener: u64 },
    CloseListener { listener: u64 },
    Connect { to: SocketAddr, limit: Duration },
    Request { to: SocketAddr, limit: Duration },
    Exchange { connection: u64, limit: Duration },
    Say { connection: u64, text: String, expect: String, limit: Duration },
    WaitEnd { connection: u64, limit: Duration },
    Close { connection: u64 },
    Traffic { to: SocketAddr, connections: u16, every: Duration, speak: Speak },
    TrafficReport { traffic: u64, stop: bool },
    UdpEcho { at: SocketAddr },
    UdpRequest { to: SocketAddr, limit: Duration },
}

/// What sequence-checked traffic says.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Speak {
    /// Eight bytes that an echo server sends back.
    Echo,
    /// `INCR` of a key of the connection's own: the reply must be one more each time.
    Redis,
}

/// An answer: a reply, or why not.
pub type Answer = Result<Reply, Failure>;

/// An answer with its question's number.
#[derive(Debug, Serialize, Deserialize)]
pub struct Numbered {
    /// Of the question.
    pub number: u64,
    /// The answer.
    pub answer: Answer,
}

/// What came out of an action.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the callers in peer.rs document each action")]
pub enum Reply {
    Listening { id: u64, port: u16 },
    Accepted(Vec<SocketAddr>),
    Connected { id: u64, took: Duration, local: SocketAddr },
    Took(Duration),
    Began { id: u64 },
    Traffic(TrafficReport),
    Done,
}

/// Why an action failed, as the application saw it.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{text} after {took:?} (errno {errno:?})")]
pub struct Failure {
    /// The system's error number; `None` where the limit passed or the other end closed too early.
    pub errno: Option<i32>,
    /// The limit passed.
    pub timed_out: bool,
    /// In words.
    pub text: String,
    /// From the action's start.
    pub took: Duration,
}

impl Failure {
    /// ECONNREFUSED.
    pub fn is_refused(&self) -> bool {
        self.errno == Some(rustix::io::Errno::CONNREFUSED.raw_os_error())
    }

    /// The connection was cut: ECONNRESET where the other end's node was first, ECONNABORTED where this one's destroyed
    /// its own socket.
    pub fn is_reset(&self) -> bool {
        let cut = [rustix::io::Errno::CONNRESET, rustix::io::Errno::CONNABORTED];
        cut.iter().any(|errno| self.errno == Some(errno.raw_os_error()))
    }
}

/// What sequence-checked traffic saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficReport {
    /// Connections that could be opened.
    pub opened: u64,
    /// Messages sent.
    pub sent: u64,
    /// Replies in the right sequence.
    pub right: u64,
    /// Replies out of sequence or of the wrong shape.
    pub wrong: u64,
    /// Connections that broke, with the reason of the first.
    pub broken: u64,
    /// Why the first one broke.
    pub first_break: Option<String>,
    /// The longest wait for a reply.
    pub slowest: Duration,
}
