//! The control plane process: REST, gRPC, the per-node view.
//!
//! [`Server::bind`] opens everything and says where it listens; [`Bound::run`] serves until cancelled.

#![forbid(unsafe_code)]

pub mod admission;
pub mod authn;
pub mod class;
pub mod clock;
pub mod config;
pub mod control;
pub mod explain;
pub mod fleet;
pub mod flows;
pub mod generations;
pub mod grpc;
pub mod http;
pub mod init;
mod listener;
pub mod manifest;
pub mod metrics;
pub mod place;
pub mod registry;
pub mod secret;
pub mod slots;
mod standby;
mod turn;
pub mod vault;
pub mod view;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use identity::spiffe_id::{SpiffeIdError, TrustDomain};
use store::Store;
pub use store::StoreError;
pub use store::url::{StoreUrl, StoreUrlError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::{Config, ConfigError, Paths, ServerFile};
use crate::control::Shared;
use crate::listener::Gate;
use crate::metrics::Metrics;
use crate::registry::RegistryError;
use crate::secret::SecretError;
use crate::standby::Serving;
pub use crate::turn::LEASE_TIME;

/// The control plane.
#[derive(Debug)]
pub struct Server;

/// A server that listens and does not serve yet.
pub struct Bound {
    listener: TcpListener,
    gate: Gate,
    server: turn::Server,
    turn: Turn,
    address: SocketAddr,
}

/// When a server serves.
enum Turn {
    /// Always: nobody else reaches the database.
    Always { control: Shared, _lock: File },
    /// While it holds the lease.
    Leased,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The data directory.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The trust domain in `server.yaml`.
    #[error("`{0}` in server.yaml is no trust domain")]
    TrustDomain(String, #[source] SpiffeIdError),
    /// The database's URL.
    #[error(transparent)]
    StoreUrl(#[from] StoreUrlError),
    /// A SQLite file that another process serves.
    #[error("another server runs on {}", .0.display())]
    Busy(PathBuf),
    /// The lock beside a SQLite file.
    #[error("{} cannot be locked", .0.display())]
    Lock(PathBuf, #[source] io::Error),
    /// The database.
    #[error("the database cannot be opened")]
    Store(#[from] StoreError),
    /// The server's own keys.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// TLS.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// What the store holds of the fleet.
    #[error("the fleet cannot be read from the database")]
    Registry(#[from] RegistryError),
    /// The port.
    #[error("the server cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
}

impl Server {
    /// Opens the database, loads the keys and binds the port.
    pub async fn bind(config: Config) -> Result<Bound, BindError> {
        let file = ServerFile::load(&config.data)?;
        let domain =
            TrustDomain::new(&file.trust_domain).map_err(|e| BindError::TrustDomain(file.trust_domain.clone(), e))?;
        let url = config.store.map_or_else(|| file.store_url(&config.data), Ok)?;
        let lock = match &url {
            StoreUrl::Sqlite(path) => Some(turn::lock(path)?),
            StoreUrl::Postgres(_) => None,
        };
        let store = Store::open(&url).await?;
        // Before anything else is read or written: who has not the key file has no business with the database.
        let vault = Arc::new(secret::unlock(&store, &Paths::of(&config.data).seal_key).await?);
        let secrets = secret::load(&store, &vault, domain.clone(), &file.names).await?;
        let tls = listener::tls(&secrets, config.clock.clone()).map_err(BindError::Tls)?;
        let wanted = config.listen.unwrap_or(file.listen);
        let listen_failed = |e| BindError::Listen(wanted, e);
        let listener = TcpListener::bind(wanted).await.map_err(listen_failed)?;
        let address = listener.local_addr().map_err(listen_failed)?;
        let server = turn::Server {
            store: store.clone(),
            vault,
            authority: Arc::new(secrets.authority),
            seal_key: Arc::new(secrets.seal_key),
            domain,
            url: file.url(address.port()),
            clock: config.clock.clone(),
            limits: config.limits,
            metrics: Arc::new(Metrics::new()),
        };
        let (authority, metrics) = (server.authority.clone(), server.metrics.clone());
        let gate = Gate { tls, authority, clock: config.clock, metrics };
        let turn = match lock {
            Some(lock) => Turn::Always { control: server.control(store).await?, _lock: lock },
            None => Turn::Leased,
        };
        Ok(Bound { listener, gate, server, turn, address })
    }
}

impl Bound {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What all parts share, for tests. `None` where it has to wait for its turn.
    pub fn control(&self) -> Option<&Shared> {
        match &self.turn {
            Turn::Always { control, .. } => Some(control),
            Turn::Leased => None,
        }
    }

    /// Serves, or stands by while another server on the same database does, until cancelled; then lets running requests
    /// end.
    pub async fn run(self, cancel: CancellationToken) {
        let Self { listener, gate, server, turn, address } = self;
        info!(%address, url = %server.url, "listening");
        match turn {
            Turn::Always { control, _lock } => {
                let role = ArcSwap::from_pointee(turn::serving(&control));
                let mine = role.load_full();
                info!(url = %server.url, "serving");
                tokio::join!(listener::serve(listener, gate, &role, &cancel), turn::serve(&control, &mine, &cancel));
                server.store.close().await;
            }
            Turn::Leased => {
                let serving = Serving::default();
                let role = ArcSwap::from_pointee(turn::stand_by(&serving));
                let turns = server.take_turns(&role, &serving, &cancel);
                tokio::join!(listener::serve(listener, gate, &role, &cancel), turns);
                let last = role.load_full();
                last.over.cancel();
                last.drained().await;
                server.store.close().await;
            }
        }
    }
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("address", &self.address).finish_non_exhaustive()
    }
}
