//! The Sync stream: kept up, with jittered back-off between attempts.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use api::sync::sync_client::SyncClient;
use api::sync::{AgentMessage, ServerMessage};
use rand::Rng as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::credential::Credential;
use super::tls::{self, ConnectError};
use crate::config::Timers;
use crate::enforce::{Command, Commands};

/// Messages that wait for the network; a node that would exceed it drops the stream and says everything anew.
pub const OUTGOING_MAX: usize = 256;
/// Largest message from the server: snapshots come in chunks below it.
const MESSAGE_MAX: usize = 16 << 20;

/// What happens on the way to the server.
#[derive(Debug)]
pub enum FromServer {
    /// A stream begins.
    Up(Stream),
    /// The server said something.
    Message(Box<ServerMessage>),
    /// There is no stream; why.
    Down(String),
}

/// A stream, from the node's side.
#[derive(Clone, Debug)]
pub struct Stream {
    /// What is put here is sent, Hello first.
    pub outgoing: mpsc::Sender<AgentMessage>,
    /// Ends the stream; another follows.
    pub end: CancellationToken,
}

/// A stream that lived so long was a good one: the pause before the next is short again.
const LIVED: Duration = Duration::from_secs(10);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{}", .0.message())]
    Status(#[from] Status),
    #[error("the server closed the stream")]
    Closed,
    #[error("ended here, to begin anew")]
    ByNode,
    #[error("the node is gone")]
    NodeGone,
}

/// What it takes to reach the server.
#[derive(Clone, Debug)]
pub struct Way {
    /// Who this node is.
    pub credential: Credential,
    /// The datapath's thread: the agent's own sockets are left alone by the programs.
    pub commands: Commands,
    /// Pauses.
    pub timers: Timers,
}

/// How long the datapath may take to leave a socket alone; after that it is judged like any other.
const EXEMPT: Duration = Duration::from_secs(1);

/// Keeps a stream up until cancelled.
pub async fn run(way: Way, node: mpsc::Sender<FromServer>, cancel: CancellationToken) {
    let timers = way.timers;
    let mut pause = timers.reconnect_min;
    loop {
        let begun = Instant::now();
        let ended = tokio::select! {
            () = cancel.cancelled() => return,
            ended = stream(&way, &node) => ended,
        };
        if matches!(ended, Ended::NodeGone) || node.send(FromServer::Down(ended.to_string())).await.is_err() {
            return;
        }
        if begun.elapsed() >= LIVED {
            pause = timers.reconnect_min;
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(jittered(pause)) => {}
        }
        pause = (pause * 2).min(timers.reconnect_max);
    }
}

/// Between half of it and all of it, so that a fleet does not come back as one.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}

async fn stream(way: &Way, node: &mpsc::Sender<FromServer>) -> Ended {
    match try_stream(way, node).await {
        Ok(()) => Ended::Closed,
        Err(ended) => ended,
    }
}

async fn try_stream(way: &Way, node: &mpsc::Sender<FromServer>) -> Result<(), Ended> {
    let credential = &way.credential;
    let channel = tls::connect(&credential.enrolled.server, credential.tls()?, Some(way.commands.clone())).await?;
    let (outgoing, messages) = mpsc::channel(OUTGOING_MAX);
    let end = CancellationToken::new();
    let mut client = SyncClient::new(channel).max_decoding_message_size(MESSAGE_MAX);
    let up = FromServer::Up(Stream { outgoing, end: end.clone() });
    node.send(up).await.map_err(|_| Ended::NodeGone)?;
    let mut incoming = client.sync(ReceiverStream::new(messages)).await?.into_inner();
    loop {
        let message = tokio::select! {
            () = end.cancelled() => return Err(Ended::ByNode),
            message = incoming.message() => message?,
        };
        match message {
            Some(message) => {
                node.send(FromServer::Message(Box::new(message))).await.map_err(|_| Ended::NodeGone)?;
            }
            None => return Ok(()),
        }
    }
}

/// Has the datapath leave a socket alone before it connects.
pub(super) async fn exempt(commands: &Commands, socket: &impl std::os::fd::AsFd) {
    let Ok(socket): Result<OwnedFd, _> = socket.as_fd().try_clone_to_owned() else { return };
    let (done, exempted) = tokio::sync::oneshot::channel();
    if commands.send(Command::Exempt(socket, done)) {
        // An error is the sender dropped, which is how "done" is said.
        let _ = tokio::time::timeout(EXEMPT, exempted).await;
    }
}
