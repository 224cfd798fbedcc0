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
pub mod vault;
pub mod view;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use identity::spiffe_id::{SpiffeIdError, TrustDomain};
use rustls::ServerConfig;
use store::url::StoreUrl;
use store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::config::{Config, ConfigError, Paths, ServerFile};
use crate::control::{Control, Shared};
use crate::flows::Flows;
use crate::listener::Routers;
use crate::metrics::Metrics;
use crate::registry::{Registry, RegistryError};
use crate::secret::SecretError;

/// The control plane.
#[derive(Debug)]
pub struct Server;

/// A server that listens and does not serve yet.
pub struct Bound {
    listener: TcpListener,
    tls: ServerConfig,
    routers: Routers,
    control: Shared,
    address: SocketAddr,
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
        let store = Store::open(&StoreUrl::sqlite(Paths::of(&config.data).database)).await?;
        // Before anything else is read or written: who has not the key file has no business with the database.
        let vault = Arc::new(secret::unlock(&store, &Paths::of(&config.data).seal_key).await?);
        let secrets = secret::load(&store, &vault, domain.clone()).await?;
        let registry =
            Registry::open(store.clone(), vault, domain.as_str(), config.clock.clone(), config.limits).await?;
        let flows = Flows::open(store.clone()).await?;
        let tls = listener::tls(&secrets, config.clock.clone()).map_err(BindError::Tls)?;
        let wanted = config.listen.unwrap_or(file.listen);
        let listen_failed = |e| BindError::Listen(wanted, e);
        let listener = TcpListener::bind(wanted).await.map_err(listen_failed)?;
        let address = listener.local_addr().map_err(listen_failed)?;
        let control = Arc::new(Control {
            store,
            authority: secrets.authority,
            seal_key: secrets.seal_key,
            url: file.url(address.port()),
            clock: config.clock,
            metrics: Metrics::new(),
            registry,
            flows,
            streams: TaskTracker::new(),
            stopping: CancellationToken::new(),
        });
        let grpc = grpc::routes(&control).into_axum_router();
        let routers = Routers { rest: http::router(control.clone()), grpc };
        Ok(Bound { listener, tls, routers, control, address })
    }
}

impl Bound {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What all parts share, for tests.
    pub fn control(&self) -> &Shared {
        &self.control
    }

    /// Serves until cancelled, then lets running requests end.
    pub async fn run(self, cancel: CancellationToken) {
        info!(address = %self.address, url = %self.control.url, "serving");
        let stopping = self.control.stopping.clone();
        let served = listener::serve(self.listener, self.tls, self.routers, self.control.clone());
        let stopped = async {
            cancel.cancelled().await;
            info!("stopping");
            stopping.cancel();
        };
        let registry = &self.control.registry;
        tokio::join!(served, stopped, registry.follow(&stopping), registry.write_statuses(&stopping));
        self.control.streams.close();
        self.control.streams.wait().await;
        self.control.store.close().await;
    }
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("address", &self.address).finish_non_exhaustive()
    }
}
