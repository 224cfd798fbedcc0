use api::sync as wire;
use serde_json::{Value, json};

use super::*;
use crate::fleet::fixture::{fleet, now, object};
use crate::flows::table::Table;

/// web@n1 -> db@n3 tcp/6379, and an external client of db@n3.
fn seen(fleet: &Fleet) -> Table {
    let flow = |peer, address: &str, isn| wire::Flow {
        direction: "ingress".into(),
        local: Some(wire::PeerRef { node: 3, slot: 2 }),
        peer,
        peer_address: address.into(),
        protocol: 6,
        port: 6379,
        client_isn: isn,
        verdict: "allow".into(),
        would: "allow".into(),
        count: 1,
        first_unix_ms: now().as_millisecond() - 1000,
        last_unix_ms: now().as_millisecond() - 1000,
        ..wire::Flow::default()
    };
    let web = Some(wire::PeerRef { node: 1, slot: 1 });
    let flows = vec![flow(web, "192.0.2.1", 1), flow(web, "192.0.2.1", 2), flow(None, "203.0.113.7", 3)];
    let batch = wire::FlowBatch { sequence: 1, flows, sampled_out: 0 };
    let mut table = Table::default();
    table.take(fleet, identity::ids::NodeId::new(3).unwrap(), "p", &batch, now());
    table
}

fn broken(fleet: &Fleet, put: &[Object], delete: &[ObjectKey]) -> Vec<Option<String>> {
    let table = seen(fleet);
    let rows: Vec<&Row> = table.rows().rev().collect();
    would_break_of(rows.into_iter(), fleet, &Proposal::new(fleet, put, delete))
        .into_iter()
        .map(|r| r.client.workload)
        .collect()
}

fn policy(name: &str, from: &str, action: &str) -> Object {
    let spec = json!({"from": [from], "to": ["app=db"], "ports": ["tcp/6379"], "action": action});
    object("Policy", "/acme", name, spec, Value::Null)
}

/// Everything that is seen is allowed by policies or by an observing, allowing root.
fn open_fleet() -> Fleet {
    let mut fleet = fleet();
    fleet.with("ExternalNetwork", "/acme/us-1", "partner", json!({"cidrs": ["203.0.113.0/24"]}));
    fleet.with("Policy", "/acme", "web-to-db", policy("web-to-db", "app=web", "allow").spec);
    let spec = json!({"from": ["@external=partner"], "to": ["app=db"], "action": "allow"});
    fleet.with("Policy", "/acme/us-1", "partner-to-db", spec);
    fleet
}

#[test]
fn a_deny_breaks_what_it_means_once_for_each_pair() {
    let fleet = open_fleet();
    assert_eq!(broken(&fleet, &[policy("no-web", "app=web", "deny")], &[]), [Some("/acme/eu-1/web".to_owned())]);
    assert!(broken(&fleet, &[policy("no-cron", "app=cron", "deny")], &[]).is_empty());
}

#[test]
fn a_deleted_allow_breaks_what_it_allowed() {
    let fleet = open_fleet();
    let web = ObjectKey::new("Policy", "/acme", "web-to-db");
    assert_eq!(broken(&fleet, &[], &[web]), [Some("/acme/eu-1/web".to_owned())]);
    let partner = ObjectKey::new("ExternalNetwork", "/acme/us-1", "partner");
    assert_eq!(broken(&fleet, &[], &[partner]), [None]);
}

#[test]
fn a_tighter_posture_breaks_what_no_policy_allows() {
    let mut fleet = open_fleet();
    let observing = json!({"protection": {"mode": "observe", "default": {"ingress": "allow", "egress": "allow"}}});
    fleet.with("Namespace", "/acme", "us-1", observing);
    fleet.delete(&ObjectKey::new("Policy", "/acme", "web-to-db"), None);
    let strict = json!({"protection": {"mode": "enforce", "default": {"ingress": "deny"}}});
    let strict = object("Namespace", "/acme", "us-1", strict, Value::Null);
    assert_eq!(broken(&fleet, &[strict], &[]), [Some("/acme/eu-1/web".to_owned())]);
}

#[test]
fn a_workload_that_is_gone_is_judged_as_it_was() {
    let mut fleet = open_fleet();
    let table = seen(&fleet);
    fleet.delete(&ObjectKey::new("Workload", "/acme/eu-1", "web.n1"), None);
    let proposal = Proposal::new(&fleet, &[policy("no-web", "app=web", "deny")], &[]);
    assert_eq!(would_break_of(table.rows(), &fleet, &proposal).len(), 1);
}
