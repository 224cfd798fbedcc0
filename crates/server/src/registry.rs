//! The server's knowledge of the fleet and the only writer of what agents report.
//!
//! [`Registry::open`] rebuilds the fleet from the store; [`Registry::follow`] keeps it equal to the change feed and tells
//! streams that something changed. What nodes report goes to the store first and comes back through the feed, so that
//! there is one code path. Numbers (slots, node ids, key generations) are bound inside the store's transactions.

pub mod enrol;
pub mod key;
pub mod report;
pub mod status;
pub mod subscription;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use api::kind::KINDS;
use api::kind::Spec;
use api::kind::node::NodeSpec;
use api::kind::service::ServiceSpec;
use api::object::{ObjectKey, Revision};
use identity::ids::NodeId;
use jiff::Timestamp;
use store::document::{Filter, WriteError};
use store::watch::{Change, Commit, WatchError};
use store::{Store, StoreError};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use self::subscription::Subscriptions;
use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::generations::Ring;
use crate::vault::{Vault, VaultError};

/// Numbers of classes: the top bit is the agents' (classes of external networks).
const CLASS_MAX: u32 = 0x7FFF_FFFF;
/// Numbers of Services.
const SERVICE_MAX: u32 = u32::MAX;
/// Looks at the clock this often even if nothing is known to change by itself.
const TICK: Duration = Duration::from_secs(5);
/// Waits at most so long for the fleet to follow a write.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);
/// Waits this long after the database failed before it is read again.
const RETRY: Duration = Duration::from_secs(1);

/// Limits and times that tests shorten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The greatest slot of a node.
    pub slot_max: u16,
    /// Workloads that one node may have.
    pub workloads_max: usize,
    /// How long an agent may take to apply a state.
    pub apply_timeout: Duration,
    /// How long an agent may use a sealed state without a server: the outage budget.
    pub state_lifetime: Duration,
    /// How long statuses are collected before they are written.
    pub status_delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            slot_max: u16::MAX,
            workloads_max: report::WORKLOADS_MAX,
            apply_timeout: Duration::from_secs(60),
            state_lifetime: Duration::from_secs(7 * 24 * 3600),
            status_delay: Duration::from_millis(100),
        }
    }
}

/// What can go wrong with what agents report.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// A document could not be written.
    #[error("a document could not be written")]
    Write(#[from] WriteError),
    /// A record of ours cannot be read.
    #[error("the stored record {0} cannot be read")]
    Record(String, #[source] serde_json::Error),
    /// The fleet key does not open.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The feed ended where it should not.
    #[error("the change feed cannot be followed")]
    Feed(#[source] WatchError),
    /// The node is not enrolled, or was deleted.
    #[error("node {0} is not enrolled")]
    NodeUnknown(NodeId),
}

/// See the module. Shared by all streams and routes.
pub struct Registry {
    store: Store,
    /// Seals the fleet key.
    vault: Arc<Vault>,
    clock: Clock,
    limits: Limits,
    fleet: RwLock<Fleet>,
    /// Stored keys have changed, which are no documents.
    touched: Mutex<bool>,
    subscriptions: Mutex<Subscriptions>,
    /// The fleet's revision, for streams.
    changed: watch::Sender<u64>,
    /// The newest revision that every connected node enforces.
    everywhere: watch::Sender<u64>,
    /// Look at the feed, whether or not something was committed since.
    nudge: Notify,
    /// A status may have to be written.
    status_due: Notify,
    /// Up to where the feed is in the fleet.
    position: watch::Sender<Revision>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Registry {
    /// Reads everything from the store.
    pub async fn open(
        store: Store,
        vault: Arc<Vault>,
        trust_domain: &str,
        clock: Clock,
        limits: Limits,
    ) -> Result<Self, RegistryError> {
        let (fleet, position) = load(&store, &vault, trust_domain, clock()).await?;
        let mut subscriptions = Subscriptions::default();
        for (node, expires) in subscription::load(&store).await? {
            subscriptions.restore(node, expires);
        }
        let changed = watch::Sender::new(fleet.revision());
        let registry = Self {
            store,
            vault,
            clock,
            limits,
            fleet: RwLock::new(fleet),
            touched: Mutex::new(false),
            subscriptions: Mutex::new(subscriptions),
            changed,
            everywhere: watch::Sender::new(0),
            nudge: Notify::new(),
            status_due: Notify::new(),
            position: watch::Sender::new(position),
        };
        registry.ensure_fleet_key().await?;
        registry.refresh_keys().await?;
        registry.forget_deleted_nodes().await?;
        Ok(registry)
    }

    /// The store that it writes to.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Limits and times.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The fleet as of the last change. Hold it shortly, and never across an await.
    pub fn fleet(&self) -> RwLockReadGuard<'_, Fleet> {
        self.fleet.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change of what nodes may be told: the fleet's revision.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until what was committed at `revision` is in the fleet, so that whoever is told of it finds it there.
    pub async fn caught_up(&self, revision: Revision) {
        let mut position = self.position.subscribe();
        // A server that stops, or a database that fails, is not waited for: the caller's work is stored.
        let _ = tokio::time::timeout(CATCH_UP_MAX, position.wait_for(|at| *at >= revision)).await;
    }

    fn fleet_mut(&self) -> RwLockWriteGuard<'_, Fleet> {
        self.fleet.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscriptions(&self) -> MutexGuard<'_, Subscriptions> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stored keys have changed: the next look at the feed takes them up and gives them a revision.
    fn touch(&self) {
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.nudge.notify_one();
    }

    /// Follows the change feed until cancelled. A failing database is retried; nothing is lost by it.
    pub async fn follow(&self, cancel: &CancellationToken) {
        let mut commits = self.store.commits();
        loop {
            if let Err(cause) = self.catch_up(&mut commits).await {
                error!(error = &cause as &dyn std::error::Error, "cannot follow the change feed");
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => continue,
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = commits.changed() => {}
                () = self.nudge.notified() => {}
                () = tokio::time::sleep(self.until_next_change()) => {}
            }
        }
    }

    /// Applies everything that was committed, then tells streams. What a failure leaves undone is done the next time.
    async fn catch_up(&self, commits: &mut watch::Receiver<Revision>) -> Result<(), RegistryError> {
        let head = *commits.borrow_and_update();
        // Taken before the documents are read: keys that are stored later set it again.
        let touched = std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner));
        let done = self.catch_up_to(head, touched).await;
        if done.is_err() {
            *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = true;
        }
        done
    }

    async fn catch_up_to(&self, head: Revision, touched: bool) -> Result<(), RegistryError> {
        let mut changed = self.apply_all().await?;
        if touched {
            // After the documents: keys are kept only of nodes that are there.
            self.refresh_keys().await?;
            changed = true;
        }
        let now = self.now();
        changed |= self.fleet_mut().set_now(now);
        let mut revision = head.max(*self.position.borrow()).0;
        if changed && revision <= self.fleet().revision() {
            // No write came with it, as when time alone changed what holds: it needs a revision of its own.
            let mut transaction = self.store.begin().await?;
            transaction.revision().await?;
            revision = transaction.commit().await?.0;
        }
        if changed {
            self.fleet_mut().set_revision(revision);
        }
        let revision = self.fleet().revision();
        if self.changed.send_if_modified(|known| std::mem::replace(known, revision) != revision) {
            self.status_due.notify_one();
        }
        Ok(())
    }

    /// Applies every commit after the position. Returns whether nodes may be told something new.
    async fn apply_all(&self) -> Result<bool, RegistryError> {
        let position = *self.position.borrow();
        let mut feed = self.store.watch(position);
        let mut changed = false;
        loop {
            match feed.try_next().await {
                Ok(Some(commit)) => changed |= self.apply(&commit).await?,
                Ok(None) => return Ok(changed),
                Err(WatchError::StartOver) => {
                    self.reload().await?;
                    return Ok(true);
                }
                Err(cause) => return Err(RegistryError::Feed(cause)),
            }
        }
    }

    /// Puts one commit into the fleet. Returns whether nodes may be told something new.
    async fn apply(&self, commit: &Commit) -> Result<bool, RegistryError> {
        let mut changed = false;
        let mut deleted_nodes = false;
        for change in &commit.changes {
            let key = match change {
                Change::Put(object) => object.key(),
                Change::Delete(key) => key.clone(),
            };
            let service = self.service_id(&key).await?;
            let mut fleet = self.fleet_mut();
            match change {
                Change::Put(object) => match fleet.put(object, service) {
                    Ok(new) => changed |= new,
                    Err(cause) => {
                        warn!(object = %key, error = &cause as &dyn std::error::Error, "a stored document is ignored");
                        changed = true;
                    }
                },
                Change::Delete(key) => {
                    changed |= fleet.delete(key, service);
                    deleted_nodes |= key.kind == NodeSpec::KIND;
                }
            }
        }
        self.position.send_replace(commit.revision);
        if deleted_nodes {
            self.forget_deleted_nodes().await?;
        }
        Ok(changed)
    }

    async fn reload(&self) -> Result<(), RegistryError> {
        let trust_domain = self.fleet().trust_domain().to_owned();
        let (fleet, position) = load(&self.store, &self.vault, &trust_domain, self.now()).await?;
        *self.fleet_mut() = fleet;
        self.position.send_replace(position);
        Ok(())
    }

    async fn service_id(&self, key: &ObjectKey) -> Result<Option<u32>, RegistryError> {
        service_id(&self.store, key).await
    }

    fn until_next_change(&self) -> Duration {
        let next = self.fleet().next_change();
        let left = next.and_then(|at| Duration::try_from(at.duration_since(self.now())).ok());
        // A moment later than the change, so that the clock has passed it.
        left.map_or(TICK, |left| (left + Duration::from_millis(1)).min(TICK))
    }
}

async fn service_id(store: &Store, key: &ObjectKey) -> Result<Option<u32>, RegistryError> {
    if key.kind != ServiceSpec::KIND {
        return Ok(None);
    }
    let name = format!("{}:{}", key.namespace, key.name);
    if let Some(id) = store.interned("service", name.as_bytes()).await? {
        return Ok(Some(id));
    }
    let mut transaction = store.begin().await?;
    let id = transaction.intern("service", name.as_bytes(), SERVICE_MAX).await?;
    transaction.commit().await?;
    Ok(Some(id))
}

/// The fleet as the store holds it, and the revision from which to follow.
async fn load(
    store: &Store,
    vault: &Vault,
    trust_domain: &str,
    now: Timestamp,
) -> Result<(Fleet, Revision), RegistryError> {
    let mut fleet = Fleet::new(trust_domain, now);
    let (objects, revision) = store.list(&Filter::default()).await?;
    for kind in KINDS {
        for object in objects.iter().filter(|o| o.kind == kind.name) {
            let service = service_id(store, &object.key()).await?;
            if let Err(cause) = fleet.put(object, service) {
                warn!(object = %object.key(), error = &cause as &dyn std::error::Error, "a stored document is ignored");
            }
        }
    }
    let nodes: BTreeSet<NodeId> = fleet.nodes().map(|(id, _)| id).collect();
    for (node, ring) in key::load_node_rings(store).await? {
        if nodes.contains(&node) {
            fleet.set_node_keys(node, Some(ring));
        }
    }
    fleet.set_fleet_keys(key::load_fleet_ring(store, vault).await?.unwrap_or_else(Ring::default));
    fleet.set_revision(revision.0);
    Ok((fleet, revision))
}
