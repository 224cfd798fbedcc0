use policy::attribute::Peer;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::layer::difference;
use super::*;
use crate::fleet::fixture::{at, fleet};

fn view_of(fleet: &Fleet, node: u32) -> View {
    fleet.view(NodeId::new(node).unwrap()).unwrap()
}

fn keys<'a>(view: &'a View, prefix: &str) -> Vec<&'a str> {
    view.iter().map(|(k, _)| &**k).filter(|k| k.starts_with(prefix)).collect()
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
    assert_eq!(keys(&view, "side/"), [format!("side/{web}/{db}/ingress")]);
    let side: wire::PeerSide = get(&view, &format!("side/{web}/{db}/ingress"));
    assert!(!side.peer_is_client);
    let [outcome] = &side.outcomes[..] else { panic!("{side:?}") };
    assert_eq!((outcome.protocol, outcome.first, outcome.last, outcome.allow), (6, 5432, 5432, true));
    assert!(!view.iter().any(|(_, v)| v.windows(6).any(|w| w == b"secret")));
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
    assert!(!view.iter().any(|(k, _)| k.starts_with("peer/3/") || k.starts_with("node-key/3/")));
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
    let Some(bytes) = view.get(&format!("side/{local}/{}/{side}", peer.class)) else { return default };
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
    fn before_and_delta_make_after(before in layers(), after in layers()) {
        let (before, after) = (view_in(before), view_in(after));
        let delta = difference(&before, &after);
        let mut result = objects(&before);
        for key in &delta.removed {
            prop_assert!(result.remove(key).is_some());
        }
        result.extend(delta.upserted.clone());
        prop_assert_eq!(&result, &objects(&after));
        prop_assert_eq!(delta.is_empty(), objects(&before) == objects(&after));
    }

    /// Whatever happened to a fleet, and whenever somebody looked: a view is what one computed from nothing would be, and
    /// its objects come in the order of their keys, as seals want them.
    #[test]
    fn views_that_were_kept_equal_views_from_nothing(steps in proptest::collection::vec(step(), 1..14)) {
        let mut fleet = fleet();
        let mut before = view_of(&fleet, 1);
        for step in steps {
            step.apply(&mut fleet);
            let after = view_of(&fleet, 1);
            let mut delta = objects(&before);
            let difference = difference(&before, &after);
            difference.removed.iter().for_each(|key| drop(delta.remove(key)));
            delta.extend(difference.upserted);
            prop_assert_eq!(&delta, &objects(&after));
            before = after;
        }
        let kept: Vec<View> = (1..=4).map(|node| view_of(&fleet, node)).collect();
        fleet.forget_shared(Changed::All);
        for (node, kept) in (1..=4).zip(&kept) {
            prop_assert_eq!(objects(kept), objects(&view_of(&fleet, node)));
            let keys: Vec<&Arc<str>> = kept.iter().map(|(key, _)| key).collect();
            prop_assert!(keys.is_sorted() && keys.len() == objects(kept).len());
            let sides: BTreeMap<String, Vec<u8>> = sides_from_nothing(&fleet, node);
            let told: BTreeMap<String, Vec<u8>> =
                keys.iter().filter(|k| k.starts_with("side/")).map(|k| (k.to_string(), kept.get(k).unwrap().to_vec())).collect();
            prop_assert_eq!(told, sides);
        }
    }
}

/// Objects, each in one of the five places of a view.
fn layers() -> impl Strategy<Value = BTreeMap<String, (u32, Vec<u8>)>> {
    proptest::collection::btree_map("[a-d]{1,2}", (0u32..3, proptest::collection::vec(any::<u8>(), 0..3)), 0..10)
}

/// A key lies always in the same layer, as its kind does.
fn view_in(objects: BTreeMap<String, (u32, Vec<u8>)>) -> View {
    let mut view = View::default();
    for (key, (class, value)) in objects {
        let (field, key) = match key.as_bytes()[0] {
            b'a' => (&mut view.fleet, key),
            b'b' => (&mut view.realm, key),
            b'c' => (&mut view.node, key),
            _ => {
                let class = [1, 2, 10][class as usize];
                if view.sides.iter().all(|(c, _)| *c != class) {
                    view.sides.push((class, Arc::default()));
                    view.sides.sort_by(|a, b| layer::by_text(&a.0, &b.0));
                }
                let layer = view.sides.iter_mut().find(|(c, _)| *c == class).map(|(_, layer)| layer).unwrap();
                (layer, format!("d/{class}/{key}"))
            }
        };
        Arc::make_mut(field).insert(key.into(), value.into());
    }
    view
}

fn objects(view: &View) -> BTreeMap<Arc<str>, Arc<[u8]>> {
    view.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The definition: every pair of a peer's class and a local one, both sides, by the evaluator without any index.
fn sides_from_nothing(fleet: &Fleet, node: u32) -> BTreeMap<String, Vec<u8>> {
    let mut sides = BTreeMap::new();
    for local in fleet.workloads().filter(|w| w.at.node.get() == node) {
        for peer in fleet.workloads() {
            for side in [Side::Egress, Side::Ingress] {
                let verdict = fleet.rules().side(side, &peer.identity, &Peer::Workload(&local.identity));
                let object = side_object(peer.class, local.class, side, &verdict);
                sides.extend(object.map(|object| (format!("side/{}/{}/{side}", local.class, peer.class), object)));
            }
        }
    }
    sides
}

/// Something that happens to a fleet.
#[derive(Clone, Debug)]
enum Step {
    Policies(Vec<(String, Value)>),
    NoPolicy(usize),
    Posture(&'static str, bool),
    Label(u32, u16, bool),
    Gone(u32, u16),
    Revoke(u32),
    Unrevoke,
}

fn step() -> impl Strategy<Value = Step> {
    let namespace = prop_oneof![Just("/acme"), Just("/acme/us-1"), Just("/globex")];
    prop_oneof![
        3 => policies().prop_map(Step::Policies),
        1 => (0usize..8).prop_map(Step::NoPolicy),
        1 => (namespace, any::<bool>()).prop_map(|(path, deny)| Step::Posture(path, deny)),
        2 => (1u32..5, 1u16..3, any::<bool>()).prop_map(|(node, slot, front)| Step::Label(node, slot, front)),
        1 => (1u32..5, 1u16..3).prop_map(|(node, slot)| Step::Gone(node, slot)),
        1 => (1u32..5).prop_map(Step::Revoke),
        1 => Just(Step::Unrevoke),
    ]
}

impl Step {
    fn apply(self, fleet: &mut Fleet) {
        let key = |kind: &str, namespace: &str, name: &str| api::object::ObjectKey::new(kind, namespace, name);
        let namespaces = [(1, "/acme/eu-1"), (2, "/acme/eu-1"), (3, "/acme/us-1"), (4, "/globex")];
        let name = |slot| if slot == 1 { "web" } else { "db" };
        match self {
            Self::Policies(policies) => {
                for (index, (namespace, spec)) in policies.into_iter().enumerate() {
                    fleet.with("Policy", &namespace, &format!("p{index}"), spec);
                }
            }
            Self::NoPolicy(index) => {
                for namespace in ["/", "/acme", "/acme/us-1", "/acme/eu-1", "/globex"] {
                    fleet.delete(&key("Policy", namespace, &format!("p{index}")), None);
                }
            }
            Self::Posture(path, deny) => {
                let action = if deny { "deny" } else { "allow" };
                let spec = json!({"protection": {"mode": "enforce", "default": {"ingress": action, "egress": action}}});
                let object = api::object::ObjectKey::of_namespace(path);
                fleet.with("Namespace", &object.namespace, &object.name, spec);
            }
            Self::Label(node, slot, front) => {
                let labels = if front { json!({"tier": "front"}) } else { json!({}) };
                fleet.with_workload(node, slot, name(slot), labels);
            }
            Self::Gone(node, slot) => {
                let namespace = namespaces[node as usize - 1].1;
                fleet.delete(&key("Workload", namespace, &format!("{}.n{node}", name(slot))), None);
            }
            Self::Revoke(node) => {
                fleet.with("Revocation", "/", "r", json!({"target": {"node": format!("n{node}")}}));
            }
            Self::Unrevoke => drop(fleet.delete(&key("Revocation", "/", "r"), None)),
        }
    }
}
