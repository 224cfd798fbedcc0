//! Statuses: what the system reports in documents, written by one idempotent loop.
//!
//! It is nudged by whatever may change a status and runs on a timer as well; it computes what every status ought to say
//! and writes the difference in one transaction. What it writes is nothing that nodes are told. What follows from other
//! documents alone (a Service's members, a Namespace's posture) is not stored but computed when somebody reads.

use std::collections::BTreeMap;
use std::time::Duration;

use api::kind::Spec;
use api::kind::cluster::ClusterSpec;
use api::kind::node::NodeSpec;
use api::kind::revocation::{CutReport, RevocationSpec, RevocationStatus};
use api::kind::workload::{WorkloadSpec, WorkloadState};
use api::object::ObjectKey;
use api::sync as wire;
use identity::ids::NodeId;
use serde_json::{Map, Value, json};
use store::document::Precondition;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::report::to_json;
use super::subscription::Subscription;
use super::{Registry, RegistryError};
use crate::fleet::Fleet;

/// Looks at all statuses this often even if nothing nudges.
const EVERY: Duration = Duration::from_secs(30);
/// A clock skew is written anew when it moved by so much.
const SKEW_STEP_MS: i64 = 100;
/// Rows of the cut report of one Revocation.
const CUTS_MAX: usize = 10_000;

/// What this loop wants to stand in statuses, by document.
type Desired = BTreeMap<ObjectKey, Wanted>;

/// Fields of a status that this loop owns.
#[derive(Debug, PartialEq)]
struct Wanted {
    fields: Map<String, Value>,
    /// The revision at which somebody else last wrote these fields: a new placement of a workload makes it pending, so
    /// that the same `live` as before is to be written again. 0 where nobody else does.
    since: u64,
}

impl Registry {
    /// Writes statuses until cancelled.
    pub async fn write_statuses(&self, cancel: &CancellationToken) {
        let mut written = Desired::new();
        loop {
            if let Err(cause) = self.write_statuses_once(&mut written).await {
                warn!(error = &cause as &dyn std::error::Error, "cannot write statuses");
                written.clear();
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.status_due.notified() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(self.limits.status_delay) => {}
            }
        }
    }

    async fn write_statuses_once(&self, written: &mut Desired) -> Result<(), RegistryError> {
        let open_tokens = self.open_tokens().await?;
        let desired = self.desired(&open_tokens);
        let due: Vec<_> = desired.iter().filter(|(key, wanted)| written.get(*key) != Some(wanted)).collect();
        if !due.is_empty() {
            let mut transaction = self.store.begin().await?;
            for (key, Wanted { fields, .. }) in due {
                let Some(mut object) = transaction.get(key).await? else { continue };
                let mut status = match object.status.take() {
                    Some(Value::Object(status)) => status,
                    _ => Map::new(),
                };
                status.extend(fields.clone());
                object.status = Some(Value::Object(status));
                transaction.put(&object, Precondition::None, self.now()).await?;
            }
            transaction.commit().await?;
        }
        *written = desired;
        Ok(())
    }

    /// What a node cut off because of a revocation.
    pub async fn cut(&self, node: NodeId, cut: &wire::Cut) -> Result<(), RegistryError> {
        let (key, report) = {
            let fleet = self.fleet();
            let Some(name) = fleet.revocation_by_uid(&cut.revocation_uid) else { return Ok(()) };
            let node_name = fleet.node(node).map(|n| n.name.clone()).unwrap_or_default();
            let workload = fleet.workload_of(node, &cut.workload_uid).map_or_else(|| "?".to_owned(), |w| w.path());
            let report = CutReport { node: node_name, workload, connections: cut.connections };
            (ObjectKey::new(RevocationSpec::KIND, "/", name), report)
        };
        let mut transaction = self.store.begin().await?;
        let Some(mut object) = transaction.get(&key).await? else { return Ok(()) };
        let mut status: RevocationStatus =
            object.status.take().and_then(|status| serde_json::from_value(status).ok()).unwrap_or_default();
        let has_room = status.cut.len() < CUTS_MAX;
        match status.cut.iter_mut().find(|c| c.node == report.node && c.workload == report.workload) {
            Some(known) => known.connections = known.connections.saturating_add(report.connections),
            None if has_room => status.cut.push(report),
            None => {}
        }
        object.status = Some(to_json(&key, &status)?);
        transaction.put(&object, Precondition::None, self.now()).await?;
        transaction.commit().await?;
        Ok(())
    }

    fn desired(&self, open_tokens: &BTreeMap<String, u32>) -> Desired {
        let fleet = self.fleet();
        let mut desired = Desired::new();
        self.put_nodes(&fleet, &mut desired);
        self.put_clusters(&fleet, open_tokens, &mut desired);
        self.put_workloads(&fleet, &mut desired);
        self.put_revocations(&fleet, &mut desired);
        desired
    }

    fn put_nodes(&self, fleet: &Fleet, desired: &mut Desired) {
        let mut hosted: BTreeMap<NodeId, u32> = BTreeMap::new();
        for workload in fleet.workloads() {
            *hosted.entry(workload.at.node).or_default() += 1;
        }
        let subscriptions = self.subscriptions();
        for (id, node) in fleet.nodes() {
            let generation = fleet.node_keys.get(&id).and_then(|ring| ring.sending()).map_or(0, |(g, _)| g);
            let mut fields = json!({
                "connected": false,
                "keyGeneration": generation,
                "workloads": hosted.get(&id).copied().unwrap_or(0),
            });
            if let Some(s) = subscriptions.get(id) {
                merge(&mut fields, subscribed(s));
            }
            insert(desired, NodeSpec::KIND, "/", &node.name, fields);
        }
    }

    fn put_clusters(&self, fleet: &Fleet, open_tokens: &BTreeMap<String, u32>, desired: &mut Desired) {
        let connected: Vec<NodeId> = self.subscriptions().connected().map(|(id, _)| id).collect();
        for name in fleet.clusters.keys() {
            let of_cluster = || fleet.nodes().filter(|(_, n)| n.cluster == *name);
            let fields = json!({
                "nodes": of_cluster().count(),
                "connected": of_cluster().filter(|(id, _)| connected.contains(id)).count(),
                "openJoinTokens": open_tokens.get(name).copied().unwrap_or(0),
            });
            insert(desired, ClusterSpec::KIND, "/", name, fields);
        }
    }

    fn put_workloads(&self, fleet: &Fleet, desired: &mut Desired) {
        // While no node is connected, as right after a start, nothing new is known and what is written stays.
        let applied = self.subscriptions().connected().map(|(_, applied)| applied).min();
        for workload in fleet.workloads() {
            let revocation = fleet.revocation_of(workload).map(|(name, _)| name);
            let state = match (revocation, applied) {
                (Some(_), _) => Some(WorkloadState::Revoked),
                (None, Some(applied)) if applied >= workload.placed_revision => Some(WorkloadState::Live),
                (None, Some(_)) => Some(WorkloadState::Pending),
                (None, None) => None,
            };
            let mut fields = json!({"revocation": revocation});
            if let Some(state) = state {
                merge(&mut fields, json!({"state": state}));
            }
            let name = format!("{}.{}", workload.name, workload.node());
            let namespace = workload.identity.namespace().as_str();
            insert_since(desired, WorkloadSpec::KIND, namespace, &name, fields, workload.placed_revision);
        }
    }

    fn put_revocations(&self, fleet: &Fleet, desired: &mut Desired) {
        let subscriptions = self.subscriptions();
        for (name, revocation) in &fleet.revocations {
            let hit = |w: &&crate::fleet::WorkloadEntry| fleet.revocation_of(w).is_some_and(|(n, _)| n == name);
            let matched: Vec<String> = fleet.workloads().filter(hit).map(|w| w.path()).collect();
            let (mut confirmed, mut pending) = (Vec::new(), Vec::new());
            for (id, node) in fleet.nodes() {
                match subscriptions.get(id) {
                    Some(s) if s.applied >= revocation.since => confirmed.push(node.name.as_str()),
                    Some(s) if s.stream.is_some() => pending.push(node.name.as_str()),
                    _ => {}
                }
            }
            let fields = json!({"matched": matched, "confirmed": confirmed, "pending": pending});
            insert(desired, RevocationSpec::KIND, "/", name, fields);
        }
    }
}

/// What is known of a node by its streams. What an earlier process of the server knew and this one does not yet stays in
/// the document.
fn subscribed(s: &Subscription) -> Value {
    let mut fields = json!({
        "connected": s.stream.is_some(),
        "rejected": s.rejected,
        "alarms": s.alarms().collect::<Vec<_>>(),
    });
    let seen = s.last_seen.filter(|_| s.stream.is_none()).or(s.connected_at);
    if let Some(seen) = seen {
        let skew = s.clock_skew_ms / SKEW_STEP_MS * SKEW_STEP_MS;
        merge(&mut fields, json!({"lastSeen": seen, "clockSkewMs": skew}));
    }
    if s.sent > 0 {
        let known = json!({"sentRevision": s.sent, "appliedRevision": s.applied, "appliedAt": s.applied_at});
        merge(&mut fields, known);
    }
    if let Some(until) = s.holds_until {
        merge(&mut fields, json!({"holdsUntil": until}));
    }
    fields
}

fn insert(desired: &mut Desired, kind: &str, namespace: &str, name: &str, fields: Value) {
    insert_since(desired, kind, namespace, name, fields, 0);
}

fn insert_since(desired: &mut Desired, kind: &str, namespace: &str, name: &str, fields: Value, since: u64) {
    if let Value::Object(fields) = fields {
        desired.insert(ObjectKey::new(kind, namespace, name), Wanted { fields, since });
    }
}

fn merge(into: &mut Value, fields: Value) {
    if let (Value::Object(into), Value::Object(fields)) = (into, fields) {
        into.extend(fields);
    }
}
