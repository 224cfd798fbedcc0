//! What a change costs the server until each node's delta is sealed: `cargo run --release -p server --example bench_views`.
//!
//! 1,000 workloads on 4 nodes of two clusters, 100 policies, one thread; every workload is a class of its own, as in life.
//! Prints one JSON object per line in the form that all benches share. ADR-0003 asks for at most 20 ms a view.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use api::object::Object;
use identity::ids::NodeId;
use identity::seal::digest;
use serde_json::{Value, json};
use server::fleet::Fleet;
use server::view::layer::{View, difference};

const NODES: u32 = 4;
const WORKLOADS_PER_NODE: u32 = 250;
const APPS: u32 = 50;
const POLICIES: u32 = 100;
const ROUNDS: usize = 20;

fn main() {
    let mut fleet = Fleet::new("example.org", jiff::Timestamp::now());
    let begun = Instant::now();
    fill(&mut fleet);
    row("fill_fleet", begun.elapsed().as_secs_f64() * 1e3);
    let mut views: Vec<Arc<View>> = Vec::new();
    let begun = Instant::now();
    for node in 1..=NODES {
        views.push(Arc::new(view(&fleet, node)));
    }
    row("first_view", begun.elapsed().as_secs_f64() * 1e3 / f64::from(NODES));
    let size: usize = views[0].iter().map(|(key, value)| key.len() + value.len()).sum();
    eprintln!("{} objects, {} KiB a node", views[0].iter().count(), size / 1024);
    measure("policy_write", &mut fleet, &mut views, |fleet, round| {
        let (from, to) = (round % 2 * 7, round % 2 * 7 + 1);
        put(fleet, &policy(0, &format!("app=a{from}"), &format!("app=a{to}"), 1000 + round as u32));
    });
    measure("wide_policy_write", &mut fleet, &mut views, |fleet, round| {
        put(fleet, &policy(1, "app in (a1,a2,a3,a4,a5)", "app in (a6,a7,a8,a9,a10)", 1000 + round as u32));
    });
    measure("relabelling", &mut fleet, &mut views, |fleet, round| {
        put(fleet, &workload(1, 1, &format!("v{round}"), 1_000_000 + round as u32));
    });
}

/// The change, and for each node what a stream does then: view, difference, digest.
fn measure(name: &str, fleet: &mut Fleet, views: &mut [Arc<View>], change: impl Fn(&mut Fleet, usize)) {
    let (mut applied, mut told) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let begun = Instant::now();
        change(fleet, round);
        applied.push(begun.elapsed().as_secs_f64() * 1e3);
        let begun = Instant::now();
        for (node, before) in (1..).zip(views.iter_mut()) {
            let after = Arc::new(view(fleet, node));
            let delta = difference(before, &after);
            assert!(!delta.is_empty() || node > 2, "{name} changes what its own cluster is told");
            black_box(digest(after.iter().map(|(key, value)| (&**key, &**value))));
            *before = after;
        }
        told.push(begun.elapsed().as_secs_f64() * 1e3 / f64::from(NODES));
    }
    row(&format!("{name}_in_fleet_p50"), median(&mut applied));
    row(&format!("{name}_view_per_node_p50"), median(&mut told));
    row(&format!("{name}_view_per_node_max"), told[told.len() - 1]);
}

fn view(fleet: &Fleet, node: u32) -> View {
    fleet.view(NodeId::new(node).expect("in range")).expect("enrolled")
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn row(metric: &str, value: f64) {
    let row = json!({
        "bench": "control-plane", "metric": metric, "contender": "stolos", "baseline": null, "value": value, "unit": "ms",
        "ratio": null, "ratio_min": null, "ratio_max": null, "rounds": ROUNDS,
    });
    println!("{row}");
}

fn put(fleet: &mut Fleet, object: &Object) {
    fleet.put(object, Some(1)).expect("usable");
}

fn fill(fleet: &mut Fleet) {
    for (name, namespace) in [("eu-1", "/acme/eu-1"), ("us-1", "/acme/us-1")] {
        let spec = json!({"namespace": namespace, "addressRanges": ["10.0.0.0/16"]});
        put(fleet, &object("Cluster", "/", name, spec, Value::Null));
    }
    let strict = json!({"protection": {"mode": "enforce", "default": {"ingress": "deny", "egress": "deny"}}});
    put(fleet, &object("Namespace", "/", "acme", strict, Value::Null));
    for number in 0..POLICIES {
        let (from, to) = (number % APPS, (number * 7 + 3) % APPS);
        put(fleet, &policy(number + 10, &format!("app=a{from}"), &format!("app=a{to}"), 80));
    }
    for node in 1..=NODES {
        let status = json!({
            "id": node, "cluster": cluster(node), "namespace": "", "realm": cluster(node), "connected": true,
            "addresses": [format!("10.0.0.{node}")],
        });
        put(fleet, &object("Node", "/", &format!("n{node}"), json!({}), status));
        for slot in 1..=WORKLOADS_PER_NODE {
            put(fleet, &workload(node, slot, "v0", node * 1000 + slot));
        }
    }
}

fn cluster(node: u32) -> &'static str {
    if node % 2 == 1 { "eu-1" } else { "us-1" }
}

fn policy(number: u32, from: &str, to: &str, port: u32) -> Object {
    let spec = json!({"from": [from], "to": [to], "ports": [format!("tcp/{port}")], "action": "allow"});
    object("Policy", "/acme", &format!("p{number}"), spec, Value::Null)
}

fn workload(node: u32, slot: u32, version: &str, class: u32) -> Object {
    let namespace = format!("/acme/{}", cluster(node));
    let name = format!("w{node}-{slot}");
    let attributes = json!({
        "@namespace": namespace, "@cluster": cluster(node), "@node": format!("n{node}"), "@type": "process",
        "@spiffe": format!("spiffe://example.org{namespace}/{name}"), "@linux:exe": "/usr/sbin/nginx",
        "app": format!("a{}", slot % APPS), "version": version,
    });
    let status = json!({
        "uid": format!("{node:08}-0000-4000-8000-{slot:012}"), "name": name, "node": format!("n{node}"),
        "cluster": cluster(node), "type": "process", "state": "live", "slot": slot,
        "instance": format!("{:016x}", u64::from(node) << 16 | u64::from(slot)), "class": class,
        "attributes": attributes,
    });
    object("Workload", &namespace, &format!("{name}.n{node}"), json!({}), status)
}

fn object(kind: &str, namespace: &str, name: &str, spec: Value, status: Value) -> Object {
    let object = json!({
        "apiVersion": "stolos.dev/v1", "kind": kind, "metadata": {"namespace": namespace, "name": name}, "spec": spec,
        "status": status,
    });
    serde_json::from_value(object).expect("a document")
}
