//! What all parts of a running server share.

use std::sync::Arc;

use identity::authority::Authority;
use identity::fingerprint::Fingerprint;
use identity::seal::SealKey;
use identity::spiffe_id::TrustDomain;
use jiff::Timestamp;
use store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
