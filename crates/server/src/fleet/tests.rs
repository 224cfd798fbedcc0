use serde_json::json;

use super::fixture::{at, fleet, now};
use super::reference::ReferenceError;

#[test]
fn a_reference_means_one_workload_or_says_which() {
    let fleet = fleet();
    for (text, expect) in [("web@us-1", at(3, 1)), ("db@n2", at(2, 2)), ("web.n1", at(1, 1)), ("/globex/db", at(4, 2))]
    {
        assert_eq!(fleet.resolve(text).unwrap().at, expect, "{text}");
    }
    let uid = fleet.workload(at(1, 1)).unwrap().uid.clone();
    assert_eq!(fleet.resolve(&uid).unwrap().at, at(1, 1));
    assert!(matches!(fleet.resolve("nginx"), Err(ReferenceError::Unknown(_))));
    let Err(ReferenceError::Ambiguous { candidates, .. }) = fleet.resolve("web") else { panic!("not ambiguous") };
    assert_eq!(candidates, ["web@n1", "web@n2", "web@us-1", "web@gx"]);
    for candidate in candidates {
        assert!(fleet.resolve(&candidate).is_ok());
    }
}

#[test]
fn revocations_take_out_workloads_nodes_clusters_and_spiffe_ids() {
    for (target, expect) in [
        (json!({"workload": "/acme/us-1/db"}), vec![at(3, 2)]),
        (json!({"node": "n1"}), vec![at(1, 1), at(1, 2)]),
        (json!({"cluster": "eu-1"}), vec![at(1, 1), at(1, 2), at(2, 1), at(2, 2)]),
        (json!({"spiffe": "spiffe://example.org/globex/db"}), vec![at(4, 2)]),
    ] {
        let mut fleet = fleet();
        fleet.with("Revocation", "/", "r", json!({"target": target}));
        let hit: Vec<_> = fleet.workloads().filter(|w| fleet.revocation_of(w).is_some()).map(|w| w.at).collect();
        assert_eq!(hit, expect, "{target}");
    }
}

#[test]
fn an_expired_revocation_ends_by_itself() {
    let mut fleet = fleet();
    fleet.with("Revocation", "/", "r", json!({"target": {"node": "n1"}, "expires": "2030-01-01T01:00:00Z"}));
    assert_eq!(fleet.next_change(), Some("2030-01-01T01:00:00Z".parse().unwrap()));
    assert!(!fleet.set_now("2030-01-01T00:59:59Z".parse().unwrap()));
    assert!(fleet.revocation_of(fleet.workload(at(1, 1)).unwrap()).is_some());
    assert!(fleet.set_now("2030-01-01T01:00:00Z".parse().unwrap()));
    assert!(fleet.revocation_of(fleet.workload(at(1, 1)).unwrap()).is_none());
    assert_eq!(fleet.next_change(), None);
    assert!(fleet.now > now());
}

#[test]
fn documents_that_say_nothing_new_change_nothing() {
    let mut fleet = fleet();
    assert!(!fleet.with_workload(1, 1, "web", json!({})));
    assert!(fleet.with_workload(1, 1, "web", json!({"tier": "front"})));
    let policy = json!({"from": ["app=web"], "to": ["app=db"], "action": "allow"});
    assert!(fleet.with("Policy", "/acme", "p", policy.clone()));
    assert!(!fleet.with("Policy", "/acme", "p", policy));
}

#[test]
fn another_realm_moves_the_addresses_of_a_cluster() {
    let mut fleet = fleet();
    let address = "10.0.0.1".parse().unwrap();
    assert!(fleet.claims.holder("eu-1", address).is_some());
    fleet.with("Cluster", "/", "eu-1", json!({"namespace": "/acme/eu-1", "realm": "flat"}));
    assert!(fleet.claims.holder("eu-1", address).is_none());
    assert!(fleet.claims.holder("flat", address).is_some());
}
