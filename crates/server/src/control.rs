//! What all parts of a running server share.

use std::sync::Arc;

use api::object::ObjectKey;
use identity::authority::Authority;
use identity::fingerprint::Fingerprint;
use identity::seal::SealKey;
use identity::spiffe_id::TrustDomain;
use jiff::Timestamp;
use store::{Store, StoreError, Transaction};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authn::Admin;
use crate::clock::Clock;
use crate::flows::Flows;
use crate::metrics::Metrics;
use crate::registry::Registry;

/// The parts of a running server. One, behind an `Arc`.
pub struct Control {
    /// All documents.
    pub store: Store,
    /// Who signs certificates.
    pub authority: Arc<Authority>,
    /// Who seals states.
    pub seal_key: Arc<SealKey>,
    /// What operators and nodes dial.
    pub url: String,
    /// How it tells the time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The fleet, and what agents report of it.
    pub registry: Registry,
    /// What agents report of connections.
    pub flows: Flows,
    /// Sync streams in progress.
    pub streams: TaskTracker,
    /// Cancelled when the server begins to stop: every stream ends on it.
    pub stopping: CancellationToken,
}

/// [`Control`], shared.
pub type Shared = Arc<Control>;

impl Control {
    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Begins an operator's write: what it changes is entered in the audit trail. Handlers of the API have no other way to write.
    pub async fn begin_as(&self, admin: &Admin) -> Result<Transaction, StoreError> {
        let mut write = self.store.begin().await?;
        write.act_as(admin.actor(), self.now());
        Ok(write)
    }

    /// Enters in the audit trail that an operator asks for something that changes no document, before it is done: what fails
    /// afterwards was asked for all the same.
    pub async fn note(
        &self,
        admin: &Admin,
        action: &str,
        object: &ObjectKey,
        detail: Option<serde_json::Value>,
    ) -> Result<(), StoreError> {
        let mut write = self.begin_as(admin).await?;
        write.note(action, object, detail).await?;
        write.commit().await.map(drop)
    }

    /// The root of all identities.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.authority.trust_domain()
    }

    /// What join tokens name.
    pub fn authority_fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.authority.root())
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("url", &self.url).finish_non_exhaustive()
    }
}
