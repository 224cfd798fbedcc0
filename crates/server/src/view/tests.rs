use policy::attribute::Peer;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fleet::fixture::{at, fleet};

fn view_of(fleet: &Fleet, node: u32) -> View {
    fleet.view(NodeId::new(node).unwrap()).unwrap()
}

fn keys<'a>(view: &'a View, prefix: &str) -> Vec<&'a str> {
    view.keys().filter(|k| k.starts_with(prefix)).map(|k| &**k).collect()
}

fn get<M: Message + Default>(view: &View, key: &str) -> M {
    M::decode(&**view.get(key).unwrap_or_else(|| panic!("no {key}"))).unwrap()
}

#[test]
fn a_node_knows_all_peers_and_only_its_own_workloads() {
    let view = view_of(&fleet(), 1);
    assert_eq!(keys(&view, "peer/").len(), 8);
    assert_eq!(keys(&view, "workload/").len(), 2);
    let settings: wire::Settings = get(&view, "settings");
    assert_eq!((settings.node_id, settings.realm.as_str()), (1, "eu-1"));
    assert_eq!(keys(&view, "place/"), ["place/10.0.0.1", "place/10.0.0.2"]);
    assert_eq!(keys(&view, "node-key/").len(), 4);
    assert!(get::<wire::FleetKey>(&view, "fleet-key/0").send);
}

#[test]
fn no_policy_reaches_a_node_that_it_does_not_speak_for() {
    let mut fleet = fleet();
    let spec = json!({"from": ["any"], "to": ["any"], "action": "allow"});
    for namespace in ["/", "/acme", "/acme/us-1", "/acme/eu-1/shop", "/globex"] {
        fleet.with("Policy", namespace, "p", spec.clone());
        fleet.with("ExternalNetwork", namespace, "x", json!({"cidrs": ["203.0.113.0/24"]}));
    }
    let view = view_of(&fleet, 1);
    assert_eq!(keys(&view, "policy/"), ["policy//:p", "policy//acme/eu-1/shop:p", "policy//acme:p"]);
    assert_eq!(keys(&view, "network/").len(), 3);
}

#[test]
fn the_peers_side_travels_compiled_and_without_names() {
    let mut fleet = fleet();
    assert!(keys(&view_of(&fleet, 1), "side/").is_empty(), "postures alone decide");
    let spec = json!({
        "from": ["app=web,@namespace=/acme/**"], "to": ["app=db"], "ports": ["tcp/5432"], "action": "allow"
    });
    fleet.with("Policy", "/acme/us-1", "secret-name", spec);
    let view = view_of(&fleet, 1);
    let (db, web) = (fleet.workload(at(3, 2)).unwrap().class, fleet.workload(at(1, 1)).unwrap().class);
    assert_eq!(keys(&view, "side/"), [format!("side/{db}/{web}/ingress")]);
    let side: wire::PeerSide = get(&view, &format!("side/{db}/{web}/ingress"));
    assert!(!side.peer_is_client);
    let [outcome] = &side.outcomes[..] else { panic!("{side:?}") };
    assert_eq!((outcome.protocol, outcome.first, outcome.last, outcome.allow), (6, 5432, 5432, true));
    assert!(!view.values().any(|v| v.windows(6).any(|w| w == b"secret")));
}

#[test]
fn a_relabelling_touches_only_the_workload() {
    let mut fleet = fleet();
    let before = view_of(&fleet, 2);
    let old = fleet.workload(at(1, 1)).unwrap().class;
    fleet.with_workload(1, 1, "web", json!({"tier": "front"}));
    let new = fleet.workload(at(1, 1)).unwrap().class;
    let difference = difference(&before, &view_of(&fleet, 2));
    let upserted: Vec<&str> = difference.upserted.iter().map(|(k, _)| &**k).collect();
    assert_eq!(upserted, [format!("class/{new}"), "peer/1/1".into()]);
    assert_eq!(difference.removed, [format!("class/{old}").into()]);
}

#[test]
fn a_revocation_marks_the_workload_everywhere() {
    let mut fleet = fleet();
    fleet.with("Revocation", "/", "r", json!({"target": {"workload": "db@us-1"}}));
    assert!(get::<wire::Peer>(&view_of(&fleet, 4), "peer/3/2").revoked);
    assert!(!get::<wire::Peer>(&view_of(&fleet, 4), "peer/3/1").revoked);
    let view = view_of(&fleet, 3);
    let placed: wire::PlacedWorkload = get(&view, "workload/00000003-0000-4000-8000-000000000002");
    assert!(placed.revoked && !placed.revocation_uid.is_empty());
}

#[test]
fn a_key_is_sent_with_only_when_its_ring_says_so() {
    let mut fleet = fleet();
    let node = NodeId::new(1).unwrap();
    let mut ring = fleet.node_keys[&node].clone();
    ring.announce(1, [9; 32], 5).unwrap();
    fleet.set_node_keys(node, Some(ring.clone()));
    let view = view_of(&fleet, 2);
    assert!(get::<wire::NodeKey>(&view, "node-key/1/0").send);
    assert!(!get::<wire::NodeKey>(&view, "node-key/1/1").send);
    ring.step(5, 6);
    fleet.set_node_keys(node, Some(ring));
    let view = view_of(&fleet, 1);
    assert!(get::<wire::NodeKey>(&view, "node-key/1/1").send);
    assert_eq!(get::<wire::Settings>(&view, "settings").own_key_generation, 1);
}

#[test]
fn a_deleted_node_leaves_nothing_behind() {
    let mut fleet = fleet();
    for name in ["web", "db"] {
        let key = api::object::ObjectKey::new("Workload", "/acme/us-1", &format!("{name}.n3"));
        assert!(fleet.delete(&key, None));
    }
    assert!(fleet.delete(&api::object::ObjectKey::new("Node", "/", "n3"), None));
    let view = view_of(&fleet, 1);
    assert!(!view.keys().any(|k| k.starts_with("peer/3/") || k.starts_with("node-key/3/")));
    assert!(fleet.view(NodeId::new(3).unwrap()).is_none());
}

/// Policies over the fixture's workloads, in namespaces that do and do not speak for them.
fn policies() -> impl Strategy<Value = Vec<(String, Value)>> {
    let namespace = prop_oneof![Just("/"), Just("/acme"), Just("/acme/us-1"), Just("/acme/eu-1"), Just("/globex")];
    let selector = prop_oneof![
        Just("any"),
        Just("app=web"),
        Just("app=db,@namespace=/acme/**"),
        Just("@cluster=us-1,@namespace=/**"),
        Just("@node=n1,@namespace=/**"),
    ];
    let ports = prop_oneof![Just(json!(["tcp/80"])), Just(json!(["tcp/1-100", "udp/53"])), Just(json!(["any"]))];
    let action = prop_oneof![Just("allow"), Just("deny")];
    let mode = prop_oneof![3 => Just("enforce"), 1 => Just("observe")];
    let policy = (namespace, selector.clone(), selector, ports, action, mode);
    let document = policy.prop_map(|(namespace, from, to, ports, action, mode)| {
        let spec = json!({"from": [from], "to": [to], "ports": ports, "action": action, "mode": mode});
        (namespace.to_owned(), spec)
    });
    proptest::collection::vec(document, 0..8)
}

/// The peer's action as a node can tell it from its view alone.
fn peer_allows(view: &View, peer: &wire::Peer, local: u32, side: Side, protocol: u32, port: u32) -> bool {
    let posture: wire::NamespacePosture = get(view, &format!("namespace/{}", peer.namespace));
    let default = if side == Side::Egress { posture.egress_allow } else { posture.ingress_allow };
    let Some(bytes) = view.get(&*format!("side/{}/{local}/{side}", peer.class)) else { return default };
    let outcomes = wire::PeerSide::decode(&**bytes).unwrap().outcomes;
    let find = |protocol: u32| outcomes.iter().find(|o| o.protocol == protocol && (o.first..=o.last).contains(&port));
    find(protocol).or_else(|| find(0)).map_or(default, |o| o.allow)
}

proptest! {
    /// What a node can tell of its peers' sides from its view is what the one evaluator says.
    #[test]
    fn sides_in_a_view_equal_the_evaluator(policies in policies(), probes in proptest::collection::vec((any::<bool>(), 0u32..120), 1..8)) {
        let mut fleet = fleet();
        for (index, (namespace, spec)) in policies.into_iter().enumerate() {
            fleet.with("Policy", &namespace, &format!("p{index}"), spec);
        }
        let view = view_of(&fleet, 1);
        for local in fleet.workloads().filter(|w| w.at.node.get() == 1) {
            for other in fleet.workloads() {
                let peer: wire::Peer = get(&view, &format!("peer/{}", other.at));
                for (tcp, port) in &probes {
                    let protocol: u8 = if *tcp { 6 } else { 17 };
                    for side in [Side::Egress, Side::Ingress] {
                        let verdict = fleet.rules().side(side, &other.identity, &Peer::Workload(&local.identity));
                        let expect = verdict.at(protocol, *port as u16).action == Action::Allow;
                        let told = peer_allows(&view, &peer, local.class, side, u32::from(protocol), *port);
                        prop_assert_eq!(told, expect, "{} {} {}", other.path(), side, port);
                    }
                }
            }
        }
    }

    /// A delta turns the old view into the new one.
    #[test]
    fn before_and_delta_make_after(
        before in proptest::collection::btree_map("[a-d]{1,2}", proptest::collection::vec(any::<u8>(), 0..3), 0..8),
        after in proptest::collection::btree_map("[a-d]{1,2}", proptest::collection::vec(any::<u8>(), 0..3), 0..8),
    ) {
        let share = |map: BTreeMap<String, Vec<u8>>| map.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        let (before, after): (View, View) = (share(before), share(after));
        let delta = difference(&before, &after);
        let mut result = before.clone();
        for key in &delta.removed {
            prop_assert!(result.remove(key).is_some());
        }
        result.extend(delta.upserted.clone());
        prop_assert_eq!(&result, &after);
        prop_assert_eq!(delta.is_empty(), before == after);
    }
}
