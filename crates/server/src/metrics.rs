//! What the server counts, for `/metrics`.

use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Media type of [`Metrics::encode`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The server's metrics. Other parts add theirs with [`Metrics::register`].
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Open TLS connections.
    pub(crate) connections: Gauge,
    /// Connections that ended before the TLS handshake did.
    pub(crate) handshake_failures: Counter,
    /// Requests by the class of their answer.
    pub(crate) requests: Family<Answered, Counter>,
    /// The newest revision.
    pub(crate) revision: Gauge,
}

/// Label of a counted request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Answered {
    pub(crate) class: Class,
}

/// The class of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Class {
    Ok,
    ClientError,
    ServerError,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("stolos_server");
        let (connections, revision) = (Gauge::default(), Gauge::default());
        let (handshake_failures, requests) = (Counter::default(), Family::<Answered, Counter>::default());
        // A class that has not been answered yet is 0, not absent.
        for class in [Class::Ok, Class::ClientError, Class::ServerError] {
            requests.get_or_create(&Answered { class }).inc_by(0);
        }
        registry.register("connections", "Open TLS connections", connections.clone());
        registry.register("tls_handshake_failures", "TLS handshakes that failed", handshake_failures.clone());
        registry.register("requests", "Answered REST requests", requests.clone());
        registry.register("revision", "Newest revision of the store", revision.clone());
        Self { registry: Mutex::new(registry), connections, handshake_failures, requests, revision }
    }

    /// Adds metrics of another part.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
