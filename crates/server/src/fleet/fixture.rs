//! Fleets for tests, made of documents as the store holds them.

use api::object::Object;
use identity::ids::{NodeId, Slot, WorkloadRef};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Fleet, FleetKey};
use crate::generations::Ring;

/// The time of fixtures.
pub(crate) fn now() -> Timestamp {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

pub(crate) fn object(kind: &str, namespace: &str, name: &str, spec: Value, status: Value) -> Object {
    serde_json::from_value(json!({
        "apiVersion": "stolos.dev/v1", "kind": kind,
        "metadata": {"namespace": namespace, "name": name, "uid": "0191a2b3-c4d5-7e6f-8091-a2b3c4d5e6f7"},
        "spec": spec, "status": status,
    }))
    .unwrap()
}

pub(crate) fn at(node: u32, slot: u16) -> WorkloadRef {
    WorkloadRef { node: NodeId::new(node).unwrap(), slot: Slot(slot) }
}

impl Fleet {
    pub(crate) fn with(&mut self, kind: &str, namespace: &str, name: &str, spec: Value) -> bool {
        self.put(&object(kind, namespace, name, spec, Value::Null), Some(1)).unwrap()
    }

    pub(crate) fn with_node(&mut self, id: u32, cluster: &str, addresses: &[&str]) {
        let status = json!({
            "id": id, "cluster": cluster, "namespace": "", "realm": cluster, "addresses": addresses, "connected": true,
        });
        self.put(&object("Node", "/", &format!("n{id}"), json!({}), status), None).unwrap();
        self.set_node_keys(NodeId::new(id).unwrap(), Some(Ring::with_first(0, [id as u8; 32], 1)));
    }

    /// A workload `NAME` with label `app=NAME`, class = node * 100 + slot.
    pub(crate) fn with_workload(&mut self, node: u32, slot: u16, name: &str, labels: Value) -> bool {
        let id = NodeId::new(node).unwrap();
        let (entry, cluster) = self.node_with_cluster(id).unwrap();
        let namespace = cluster.namespace.clone();
        let mut attributes = json!({
            "@namespace": namespace, "@cluster": entry.cluster, "@node": entry.name, "app": name,
            "@spiffe": format!("spiffe://example.org{namespace}/{name}"),
        });
        attributes.as_object_mut().unwrap().extend(labels.as_object().unwrap().clone());
        let changed = attributes.as_object().unwrap().len() as u32;
        let status = json!({
            "uid": format!("{node:08}-0000-4000-8000-{slot:012}"), "name": name, "node": entry.name,
            "cluster": entry.cluster, "type": "process", "state": "live", "slot": slot,
            "instance": format!("{:016x}", u64::from(node) << 16 | u64::from(slot)),
            "class": node * 10_000 + u32::from(slot) * 100 + changed, "attributes": attributes,
        });
        let object = object("Workload", &namespace, &format!("{name}.n{node}"), json!({}), status);
        self.put(&object, None).unwrap()
    }
}

/// Two tenants: `/acme` with clusters eu-1 (nodes 1 and 2) and us-1 (node 3), and `/globex` with cluster gx (node 4).
/// Everything enforces and denies by default in `/acme/us-1`, and observes elsewhere.
pub(crate) fn fleet() -> Fleet {
    let mut fleet = Fleet::new("example.org", now());
    fleet.set_fleet_keys(Ring::with_first(0, FleetKey([7; 16]), 1));
    for (name, namespace) in [("eu-1", "/acme/eu-1"), ("us-1", "/acme/us-1"), ("gx", "/globex")] {
        let spec = json!({"namespace": namespace, "region": "r", "addressRanges": ["10.0.0.0/24"]});
        fleet.with("Cluster", "/", name, spec);
    }
    let strict = json!({"protection": {"mode": "enforce", "default": {"ingress": "deny", "egress": "deny"}}});
    fleet.with("Namespace", "/acme", "us-1", strict);
    for (node, cluster) in [(1, "eu-1"), (2, "eu-1"), (3, "us-1"), (4, "gx")] {
        fleet.with_node(node, cluster, &[&format!("10.0.0.{node}")]);
        fleet.with_workload(node, 1, "web", json!({}));
        fleet.with_workload(node, 2, "db", json!({}));
    }
    fleet.set_revision(1);
    fleet
}
