//! The view that the local socket reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::local::{ClockStatus, Enforcement, NodeStatus, ServerStatus, Workload, WorkloadState};
use handshake::time::TimeSource;
use policy::code::agent as code;

use super::Node;
use crate::clock::Now;
use crate::config::Source;
use crate::view::{View, WorkloadView};
use crate::workload;

/// RFC 3339, whole seconds.
pub(crate) fn time(unix_s: i64) -> String {
    jiff::Timestamp::from_second(unix_s).map(|time| time.to_string()).unwrap_or_default()
}

impl Node {
    pub(crate) fn publish_if_changed(&mut self) {
        if std::mem::take(&mut self.inner.unpublished) {
            self.view.send_replace(Arc::new(self.current_view()));
        }
    }

    pub(crate) fn current_view(&self) -> View {
        let workloads: BTreeMap<String, WorkloadView> =
            self.registry.iter().map(|workload| (workload.uid.clone(), self.workload_view(workload))).collect();
        View {
            node: self.node_status(),
            server: self.server_status(),
            enforcement: Enforcement {
                attached: self.inner.enforcement.attached,
                in_force: self.inner.enforcement.attached && self.inner.in_force,
                until: self.inner.enforcement.until_unix_s.filter(|_| !self.inner.enforcement.attached).map(time),
            },
            revision: self.inner.live.revision,
            holds_until_unix_s: self.held.as_ref().map(|held| held.expires_unix_s()),
            clock: self.clock_status(),
            workloads,
            features: self.inner.features.clone(),
            alarms: self.inner.alarms.values().cloned().collect(),
            not_captured: self.inner.not_captured.clone(),
            counted: self.inner.counted.clone(),
            own: self.inner.own,
        }
    }

    fn node_status(&self) -> Option<NodeStatus> {
        let enrolled = &self.credential.as_ref()?.enrolled;
        Some(NodeStatus {
            id: enrolled.node,
            name: enrolled.name.clone(),
            cluster: enrolled.cluster.clone(),
            trust_domain: enrolled.trust_domain.clone(),
            certificate_expires: time(enrolled.not_after_unix_s),
        })
    }

    fn server_status(&self) -> ServerStatus {
        let source = match (&self.config.source, &self.credential) {
            (Source::File(path), _) => path.display().to_string(),
            (Source::Server { .. }, Some(credential)) => credential.enrolled.server.clone(),
            (Source::Server { .. }, None) => String::new(),
        };
        ServerStatus {
            source,
            connected: self.inner.stream.is_some() && self.inner.last_error.is_none(),
            since: time(self.inner.stream_since.as_second()),
            last_error: self.inner.last_error.clone(),
        }
    }

    fn clock_status(&self) -> ClockStatus {
        let now = Now::read();
        let source = match self.clock.offset(now).1 {
            TimeSource::Server => "server",
            TimeSource::RealTime => "real-time",
            TimeSource::Floor => "floor",
        };
        ClockStatus { source: source.to_owned(), skew_ms: self.clock.skew_ms(now) }
    }

    fn workload_view(&self, workload: &workload::Workload) -> WorkloadView {
        let live = self.inner.live.placed.get(&workload.uid);
        let (state, reason) = match (self.inner.refused.get(&workload.uid), live) {
            (Some((code, message)), _) => (WorkloadState::Refused, Some((code.clone(), message.clone()))),
            (None, Some(live)) if live.revoked => {
                let reason = policy::reason::Reason::Revoked;
                (WorkloadState::Revoked, Some((reason.code().to_owned(), "a Revocation cuts it off".to_owned())))
            }
            (None, Some(_)) => (WorkloadState::Active, None),
            (None, None) => (WorkloadState::Pending, Some((code::WORKLOAD_PENDING.id.to_owned(), self.why_pending()))),
        };
        let (code, reason) = reason.unzip();
        let published = Workload {
            uid: workload.uid.clone(),
            name: workload.name.clone(),
            kind: workload.kind.clone(),
            namespace: live.map_or_else(|| workload.namespace.clone(), |live| live.namespace.clone()),
            labels: workload.labels.clone(),
            observed: workload.observed.attributes.clone(),
            cgroup: workload.cgroup.clone(),
            addresses: workload.observed.addresses.iter().map(ToString::to_string).collect(),
            slot: live.map(|live| live.slot),
            state,
            reason,
            code,
        };
        // Without a server that tells, there is nothing to wait for.
        let told = self.inner.stream.is_some() && self.inner.tells_fleet;
        let everywhere = live.is_some_and(|live| !told || live.since <= self.inner.fleet_has);
        WorkloadView { workload: published, live_labels: live.map(|live| live.labels.clone()), everywhere }
    }

    fn why_pending(&self) -> String {
        match (&self.inner.stream, &self.inner.last_error) {
            (_, Some(error)) => format!("the server cannot be reached, so it is not placed yet: {error}"),
            (None, None) => "the server was not reached yet, so it is not placed yet".to_owned(),
            (Some(_), None) => "the server has not placed it yet".to_owned(),
        }
    }
}
