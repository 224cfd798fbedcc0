//! Whose turn it is to serve: of all servers on one database a single one does, and the others stand by.
//!
//! On PostgreSQL the turn is a lease, and every write of a turn is fenced by it: a server that lost it, even one that
//! slept meanwhile, writes nothing more. On SQLite a lock on the file's side keeps a second process out altogether. ADR
//! 0009 says why there is one at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use identity::authority::Authority;
use identity::seal::SealKey;
use identity::spiffe_id::TrustDomain;
use store::Store;
use store::lease::Lease;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::BindError;
use crate::clock::Clock;
use crate::control::{Control, Shared};
use crate::flows::Flows;
use crate::listener::{Role, Routers};
use crate::metrics::Metrics;
use crate::registry::{Limits, Registry, RegistryError};
use crate::standby::{self, Serving};
use crate::vault::Vault;
use crate::{grpc, http};

/// The lease's name.
const LEASE: &str = "serving";
/// A server that died is followed by another one so long after its last sign of life, and a moment.
pub const LEASE_TIME: Duration = Duration::from_secs(8);
/// Who stands by looks so often whether it is its turn.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a server has in all its turns.
pub(crate) struct Server {
    pub(crate) store: Store,
    pub(crate) vault: Arc<Vault>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) seal_key: Arc<SealKey>,
    pub(crate) domain: TrustDomain,
    pub(crate) url: String,
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
}

impl Server {
    /// Reads everything afresh, to write through `store`.
    pub(crate) async fn control(&self, store: Store) -> Result<Shared, RegistryError> {
        let (vault, clock) = (self.vault.clone(), self.clock.clone());
        let registry = Registry::open(store.clone(), vault, self.domain.as_str(), clock.clone(), self.limits).await?;
        let flows = Flows::open(store.clone()).await?;
        Ok(Arc::new(Control {
            store,
            authority: self.authority.clone(),
            seal_key: self.seal_key.clone(),
            url: self.url.clone(),
            clock,
            metrics: self.metrics.clone(),
            registry,
            flows,
            streams: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }))
    }

    /// Serves whenever it is this server's turn, until cancelled.
    pub(crate) async fn take_turns(&self, role: &ArcSwap<Role>, serving: &Serving, stop: &CancellationToken) {
        loop {
            match self.store.holder(LEASE).await {
                Ok(None) => self.turn(role, serving, stop).await,
                Ok(Some(holder)) => serving.note(holder.split(' ').next().map(str::to_owned)),
                Err(cause) => {
                    serving.note(None);
                    warn!(error = &cause as &dyn std::error::Error, "cannot see whose turn it is");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// One turn, if this server gets it.
    async fn turn(&self, role: &ArcSwap<Role>, serving: &Serving, stop: &CancellationToken) {
        // Another name each time, so that what is left of an earlier turn cannot write in this one.
        let holder = format!("{} {}", self.url, uuid::Uuid::now_v7());
        let lease = match self.store.lease(LEASE, &holder, LEASE_TIME).await {
            Ok(Some(lease)) => lease,
            Ok(None) => return,
            Err(cause) => return warn!(error = &cause as &dyn std::error::Error, "cannot take the turn"),
        };
        let held = self.store.tenure(lease.clone(), LEASE_TIME, self.serve_under(lease, role, stop));
        held.await;
        serving.note(None);
        if !stop.is_cancelled() {
            warn!("this server does not serve any more; it stands by");
            role.swap(Arc::new(stand_by(serving))).over.cancel();
        }
    }

    async fn serve_under(&self, lease: Lease, role: &ArcSwap<Role>, stop: &CancellationToken) {
        let fence = lease.fence();
        let control = tokio::select! {
            control = self.control(self.store.under(lease)) => control,
            () = stop.cancelled() => return,
        };
        let control = match control {
            Ok(control) => control,
            Err(cause) => return error!(error = &cause as &dyn std::error::Error, "the fleet cannot be read"),
        };
        // However the turn ends, by being dropped above all: its connections and streams end with it.
        let _over = control.stopping.clone().drop_guard();
        info!(fence, url = %self.url, "serving: it is this server's turn");
        let mine = Arc::new(serving(&control));
        role.swap(mine.clone()).over.cancel();
        serve(&control, &mine, stop).await;
    }
}

/// The role of a server that serves.
pub(crate) fn serving(control: &Shared) -> Role {
    let grpc = grpc::routes(control).into_axum_router();
    Role::new(Routers { rest: http::router(control.clone()), grpc }, control.stopping.clone())
}

/// The role of a server that does not.
pub(crate) fn stand_by(serving: &Serving) -> Role {
    Role::new(standby::routers(serving), CancellationToken::new())
}

/// Serves until cancelled, then lets running requests and streams end.
pub(crate) async fn serve(control: &Shared, role: &Role, stop: &CancellationToken) {
    let stopping = control.stopping.clone();
    let stopped = async {
        stop.cancelled().await;
        info!("stopping");
        stopping.cancel();
    };
    // The fleet is followed until the last request has ended: whoever wrote waits to find his work in it.
    let drained = CancellationToken::new();
    let draining = async {
        role.drained().await;
        drained.cancel();
    };
    let registry = &control.registry;
    tokio::join!(draining, stopped, registry.follow(&drained), registry.write_statuses(&drained));
    control.streams.close();
    control.streams.wait().await;
}

/// Keeps a second server off a SQLite file for as long as the result lives. The kernel ends it with the process.
pub(crate) fn lock(database: &Path) -> Result<File, BindError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let failed = |e| BindError::Lock(path.clone(), e);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BindError::Busy(database.to_owned())),
        Err(TryLockError::Error(e)) => Err(failed(e)),
    }
}
