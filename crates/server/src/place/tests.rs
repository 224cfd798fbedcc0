use identity::ids::{NodeId, Slot};
use serde_json::json;

use super::*;

/// Node 1 is in eu-1, any other in us-1.
#[derive(Debug)]
struct Whereabouts;

impl NamespaceOf for Whereabouts {
    fn namespace_of(&self, owner: Owner) -> Option<NamespacePath> {
        let (Owner::Node(node) | Owner::Workload(WorkloadRef { node, .. })) = owner;
        NamespacePath::new(if node.get() == 1 { "/acme/eu-1" } else { "/acme/us-1" }).ok()
    }
}

struct World {
    services: BTreeMap<u32, ServiceEntry>,
    clusters: BTreeMap<String, ClusterSpec>,
    claims: Claims,
    workloads: BTreeMap<WorkloadRef, Identity>,
}

fn at(node: u32, slot: u16) -> WorkloadRef {
    WorkloadRef { node: NodeId::new(node).unwrap(), slot: Slot(slot) }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two clusters with equal addresses, one node and one workload with an address of its own in each.
fn world() -> World {
    let cluster = |name: &str| json!({"namespace": format!("/acme/{name}"), "addressRanges": ["10.0.0.0/24"], "natAddresses": ["192.0.2.1"]});
    let clusters = ["eu-1", "us-1"].map(|n| (n.to_owned(), serde_json::from_value(cluster(n)).unwrap()));
    let mut claims = Claims::default();
    let mut workloads = BTreeMap::new();
    for (node, realm) in [(1, "eu-1"), (2, "us-1")] {
        claims.claim(Owner::Node(at(node, 0).node), realm, &[ip("10.0.0.5")].into());
        claims.claim(Owner::Workload(at(node, 2)), realm, &[ip("10.0.0.9")].into());
        let namespace = format!("/acme/{realm}");
        for (slot, app) in [(1, "web"), (2, "db")] {
            let pairs = [("@namespace", namespace.as_str()), ("app", app)];
            workloads.insert(at(node, slot), Identity::from_pairs(pairs).unwrap());
        }
    }
    World { services: BTreeMap::new(), clusters: clusters.into(), claims, workloads }
}

impl World {
    fn service(&mut self, id: u32, namespace: &str, spec: serde_json::Value) {
        let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        let selectors = spec.members.selectors.iter().map(|s| s.parse().unwrap()).collect();
        let namespace = NamespacePath::new(namespace).unwrap();
        self.services.insert(id, ServiceEntry { id, namespace, name: format!("s{id}"), spec, selectors });
    }

    fn with<R>(&self, f: impl FnOnce(&Declared<'_>) -> R) -> R {
        let Self { services, clusters, claims, .. } = self;
        f(&Declared { services, clusters, claims, namespace_of: &Whereabouts })
    }

    fn places(&self, realm: &str) -> (BTreeMap<String, Place>, Vec<Conflict>) {
        self.with(|declared| places(realm, declared))
    }

    fn members(&self, id: u32) -> (Members, Vec<Conflict>) {
        let workloads = self.workloads.iter().map(|(at, identity)| (*at, identity));
        self.with(|declared| members(&self.services[&id], workloads, declared))
    }
}

#[test]
fn rule_1_equal_addresses_of_two_realms_are_two_places() {
    let world = world();
    let (eu, _) = world.places("eu-1");
    let (us, _) = world.places("us-1");
    assert_eq!(eu["place/10.0.0.5"].target, Target::Owner(Owner::Node(at(1, 0).node)));
    assert_eq!(us["place/10.0.0.5"].target, Target::Owner(Owner::Node(at(2, 0).node)));
    assert_eq!(eu["place/10.0.0.9"].target, Target::Owner(Owner::Workload(at(1, 2))));
    assert_eq!(eu["place/192.0.2.1"].target, Target::Declared);
}

#[test]
fn rule_1_a_service_address_comes_first_and_only_in_its_realms() {
    let mut world = world();
    let addresses = json!([{"address": "192.0.2.1", "port": 7000, "targetPort": 6379, "realms": ["eu-1"]}]);
    world.service(1, "/acme/us-1", json!({"addresses": addresses, "members": {"selectors": ["app=db"]}}));
    let (eu, conflicts) = world.places("eu-1");
    assert!(conflicts.is_empty());
    let place = &eu["place/192.0.2.1/6/7000"];
    assert_eq!((place.target, place.real_port), (Target::Service(1), Some(6379)));
    assert_eq!(eu["place/192.0.2.1"].target, Target::Declared, "other ports of the gateway are no place");
    assert!(!world.places("us-1").0.contains_key("place/192.0.2.1/6/7000"));
    assert_eq!(world.members(1).0.workloads, [at(2, 2)].into());
}

#[test]
fn nobody_takes_a_neighbours_address_by_declaring_a_service() {
    let mut world = world();
    let spec = json!({"addresses": [{"address": "10.0.0.5", "port": 80}], "members": {"selectors": ["any"]}});
    world.service(1, "/evil", spec.clone());
    let (eu, conflicts) = world.places("eu-1");
    assert!(!eu.contains_key("place/10.0.0.5/6/80"));
    assert_eq!(conflicts[0].code, "E4029");
    world.service(2, "/acme", spec.clone());
    world.service(3, "/acme", spec);
    let (eu, conflicts) = world.places("eu-1");
    assert_eq!(eu["place/10.0.0.5/6/80"].target, Target::Service(2), "the earlier Service holds");
    assert_eq!(conflicts.len(), 2);
}

#[test]
fn endpoints_are_looked_up_in_the_services_own_realms() {
    let mut world = world();
    let endpoints = json!([{"address": "10.0.0.9", "port": 6379}, {"address": "198.51.100.7", "port": 443}]);
    let members = json!({"endpoints": endpoints});
    world.service(1, "/acme/us-1", json!({"addresses": [{"address": "192.0.2.9"}], "members": members.clone()}));
    let (found, conflicts) = world.members(1);
    assert_eq!(found.workloads, [at(2, 2)].into());
    assert_eq!(found.external, ["198.51.100.7:443".to_owned()].into());
    assert!(conflicts.is_empty());
    world.service(2, "/acme", json!({"addresses": [{"address": "192.0.2.9"}], "members": members}));
    let (found, conflicts) = world.members(2);
    assert!(found.workloads.is_empty(), "an address in two realms names nobody");
    assert_eq!(conflicts[0].code, "E4031");
}

#[test]
fn an_endpoint_at_a_shared_address_admits_the_nodes_workloads() {
    let mut world = world();
    let members = json!({"endpoints": [{"address": "10.0.0.5", "port": 80}]});
    world.service(1, "/acme/eu-1", json!({"addresses": [{"address": "192.0.2.9"}], "members": members}));
    assert_eq!(world.members(1).0.workloads, [at(1, 1), at(1, 2)].into());
}

#[test]
fn agents_declare_addresses_only_within_the_granted_ranges() {
    let cluster: ClusterSpec = serde_json::from_value(json!({
        "namespace": "/a", "addressRanges": ["10.0.0.0/24", "0.0.0.0/0", "::/0"]
    }))
    .unwrap();
    let wanted = ["10.0.0.5", "127.0.0.1", "::ffff:10.0.0.6", "224.0.0.1", "::1"].map(ip);
    let (granted_, refused) = granted(&cluster, wanted);
    assert_eq!(granted_, ["10.0.0.5", "10.0.0.6"].map(ip).into());
    assert_eq!(refused.len(), 3);
    let none: ClusterSpec = serde_json::from_value(json!({"namespace": "/a"})).unwrap();
    assert!(granted(&none, [ip("10.0.0.5")]).0.is_empty());
}

#[test]
fn rule_9_fleet_addresses_are_those_of_the_realm_and_every_nat() {
    let found = world().with(|declared| fleet_addresses("eu-1", declared));
    assert_eq!(found, ["10.0.0.5/32", "10.0.0.9/32", "192.0.2.1/32"].map(|c| c.parse().unwrap()).into());
}
