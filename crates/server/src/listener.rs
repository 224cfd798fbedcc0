//! The one TLS port: accepting, the handshake, and serving HTTP/1 and HTTP/2 on each connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use identity::authority::Authority;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::authn::{self, Caller, PeerAddress};
use crate::clock::{Clock, TlsTime};
use crate::metrics::Metrics;
use crate::secret::Secrets;

/// Most connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 8192;
/// Of those, most without a client certificate: nodes that enrol, and probes of health.
const ANONYMOUS_MAX: usize = 1024;
/// How long a connection without a client certificate may last. Enrolment takes a second.
const ANONYMOUS_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// HTTP/2 connections are asked this often whether they live.
const PING_EVERY: Duration = Duration::from_secs(15);
/// And have this long to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Most concurrent requests of one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// How long running requests may take when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// TLS of the server: its certificate with the authority's (join tokens name that one's fingerprint), client
/// certificates asked for but not demanded, no resumption.
pub(crate) fn tls(secrets: &Secrets, clock: Clock) -> Result<ServerConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(secrets.authority.root().clone())?;
    let provider = api::tls::provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| rustls::Error::General(e.to_string()))?;
    let chain = vec![secrets.certificate.clone(), secrets.authority.root().clone()];
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(TlsTime(clock)))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, secrets.key.clone_key())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// What is served on the port.
#[derive(Clone)]
pub(crate) struct Routers {
    /// For operators.
    pub(crate) rest: Router,
    /// For agents: requests of media type `application/grpc`.
    pub(crate) grpc: Router,
}

impl Routers {
    fn of(&self, request: &http::Request<Body>) -> Router {
        let media_type = request.headers().get(http::header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        if media_type.starts_with(b"application/grpc") { self.grpc.clone() } else { self.rest.clone() }
    }
}

/// What the server is at the moment, to whoever connects: it serves, or it stands by.
pub(crate) struct Role {
    pub(crate) routers: Routers,
    /// Cancelled when it is over: every connection ends.
    pub(crate) over: CancellationToken,
    /// Connections that were accepted meanwhile.
    pub(crate) connections: TaskTracker,
}

impl Role {
    /// A role that lasts until `over`.
    pub(crate) fn new(routers: Routers, over: CancellationToken) -> Self {
        Self { routers, over, connections: TaskTracker::new() }
    }

    /// Waits until it is over, then lets running requests end within [`DRAIN_TIMEOUT`].
    pub(crate) async fn drained(&self) {
        self.over.cancelled().await;
        self.connections.close();
        if tokio::time::timeout(DRAIN_TIMEOUT + HANDSHAKE_TIMEOUT, self.connections.wait()).await.is_err() {
            warn!("connections were still open when the server stopped");
        }
    }
}

/// Whom the port lets in.
pub(crate) struct Gate {
    pub(crate) tls: ServerConfig,
    pub(crate) authority: Arc<Authority>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
}

/// Accepts until cancelled. Each connection is served by the role of its beginning.
pub(crate) async fn serve(listener: TcpListener, gate: Gate, role: &ArcSwap<Role>, stop: &CancellationToken) {
    let acceptor = TlsAcceptor::from(Arc::new(gate.tls.clone()));
    let gate = Arc::new(gate);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let anonymous = Arc::new(Semaphore::new(ANONYMOUS_MAX));
    loop {
        let slot = tokio::select! {
            () = stop.cancelled() => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, gate, role) = (acceptor.clone(), gate.clone(), role.load_full());
        let anonymous = anonymous.clone();
        role.clone().connections.spawn(async move {
            let _slot = slot;
            connection(stream, peer, acceptor, &gate, &role, &anonymous).await;
        });
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    gate: &Gate,
    role: &Role,
    anonymous: &Semaphore,
) {
    // Deltas and answers are small and awaited.
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    let stream = match handshake.map_err(|_| io::Error::from(io::ErrorKind::TimedOut)).flatten() {
        Ok(stream) => stream,
        Err(error) => {
            gate.metrics.handshake_failures.inc();
            debug!(%peer, %error, "TLS handshake failed");
            return;
        }
    };
    let caller = match authn::caller(&gate.authority, stream.get_ref().1.peer_certificates(), (gate.clock)()) {
        Ok(caller) => caller,
        Err(error) => {
            gate.metrics.handshake_failures.inc();
            debug!(%peer, %error, "client certificate refused");
            return;
        }
    };
    // Whoever shows no certificate cannot hold the places of those who have one.
    let (_place, limit) = match (&caller, anonymous.try_acquire()) {
        (Caller::Anonymous, Ok(place)) => (Some(place), Some(ANONYMOUS_TIMEOUT)),
        (Caller::Anonymous, Err(_)) => return debug!(%peer, "too many connections without a certificate"),
        (Caller::Admin(_) | Caller::Node(_), _) => (None, None),
    };
    gate.metrics.connections.inc();
    let routers = role.routers.clone();
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert::<Caller>(caller.clone());
        request.extensions_mut().insert(PeerAddress(peer));
        routers.of(&request).oneshot(request)
    });
    let builder = http_builder();
    let served = until_drained(builder.serve_connection(TokioIo::new(stream), service), &role.over);
    let served = tokio::time::timeout(limit.unwrap_or(Duration::MAX), served).await;
    if let Ok(Err(error)) = served {
        debug!(%peer, %error, "connection ended");
    }
    gate.metrics.connections.dec();
}

fn http_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn until_drained<I, S>(
    served: auto::Connection<'_, I, S, TokioExecutor>,
    stopping: &CancellationToken,
) -> Result<(), Failure>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    S: hyper::service::Service<http::Request<Incoming>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Into<Failure>,
{
    let mut served = std::pin::pin!(served);
    tokio::select! {
        ended = served.as_mut() => return ended,
        () = stopping.cancelled() => served.as_mut().graceful_shutdown(),
    }
    tokio::time::timeout(DRAIN_TIMEOUT, served).await.unwrap_or(Ok(()))
}
