use super::*;
use crate::fleet::fixture::{fleet, now};

fn node(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

fn peer(node: u32, slot: u32) -> Option<wire::PeerRef> {
    Some(wire::PeerRef { node, slot })
}

/// A report of the connection web@n1 -> db@n3, by one of its ends.
fn report(side: &str, verdict: &str, isn: u32) -> wire::Flow {
    let egress = side == "egress";
    let (web, db) = (peer(1, 1), peer(3, 2));
    wire::Flow {
        direction: side.into(),
        local: if egress { web } else { db },
        peer: if egress { db } else { web },
        peer_address: if egress { "192.0.2.1" } else { "198.51.100.9" }.into(),
        protocol: 6,
        port: if egress { 7000 } else { 6379 },
        dialled_port: if egress { 7000 } else { 0 },
        client_isn: isn,
        verdict: verdict.into(),
        would: verdict.into(),
        reason: if verdict == "deny" { "default-deny" } else { "" }.into(),
        client: wire::flow::Proof::Proved.into(),
        count: 1,
        bytes_sent: if egress { 10 } else { 20 },
        bytes_received: if egress { 20 } else { 10 },
        first_unix_ms: now().as_millisecond() - 2000,
        last_unix_ms: now().as_millisecond() - 1000,
        ..wire::Flow::default()
    }
}

fn batch(sequence: u64, flows: Vec<wire::Flow>) -> wire::FlowBatch {
    wire::FlowBatch { sequence, flows, sampled_out: 0 }
}

fn all(table: &Table) -> Vec<FlowRow> {
    table.newest(&FlowQuery::default(), 1000)
}

#[test]
fn both_ends_reports_of_a_connection_are_one_row() {
    let (fleet, mut table) = (fleet(), Table::default());
    assert!(table.take(&fleet, node(1), "p", &batch(1, vec![report("egress", "allow", 77)]), now()));
    assert!(table.take(&fleet, node(3), "q", &batch(1, vec![report("ingress", "deny", 77)]), now()));
    let rows = all(&table);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(
        (row.client.workload.as_deref(), row.server.workload.as_deref()),
        (Some("/acme/eu-1/web"), Some("/acme/us-1/db"))
    );
    assert_eq!((row.verdict, row.port, row.dialled.as_deref()), (Verdict::Deny, 6379, Some("192.0.2.1:7000")));
    assert_eq!(row.egress.as_ref().unwrap().verdict, Verdict::Allow);
    assert_eq!(row.ingress.as_ref().unwrap().reason.as_deref(), Some("default-deny"));
    assert_eq!((row.bytes_to_server, row.bytes_to_client, row.count), (10, 20, 1));
    assert_eq!(row.client.attributes["app"], "web");
    assert_eq!(row.proof, Proof::Proved);
}

/// A connection inside one cluster from a pod with an address of its own, opened, used once and closed between two
/// reports: each end says all of it at once, and neither knows when the other speaks.
#[test]
fn a_pods_short_connection_inside_its_cluster_is_one_complete_row_whoever_speaks_first() {
    for server_first in [false, true] {
        let (fleet, mut table) = (fleet(), Table::default());
        let flow = |side: &str, local, peer, address: &str| wire::Flow {
            local,
            peer,
            peer_address: address.into(),
            port: 6379,
            would: "deny".into(),
            reason: "default-deny".into(),
            closed: true,
            ..report(side, "allow", 0xfeed_beef)
        };
        let client = (1, flow("egress", peer(1, 1), peer(2, 2), "10.0.0.2"));
        let server = (2, flow("ingress", peer(2, 2), peer(1, 1), "10.0.0.101"));
        let order = if server_first { [server, client] } else { [client, server] };
        for (reporter, said) in order {
            assert!(table.take(&fleet, node(reporter), "p", &batch(1, vec![said]), now()));
        }
        let rows = all(&table);
        let [row] = &rows[..] else { panic!("{rows:#?}") };
        assert!(row.egress.is_some() && row.ingress.is_some() && row.closed, "{row:#?}");
        assert_eq!((row.verdict, row.would, row.proof), (Verdict::Allow, Verdict::Deny, Proof::Proved));
        assert_eq!(row.client.address.as_deref(), Some("10.0.0.101"), "as the server saw the pod");
    }
}

/// What a peer does not know yet it takes for a stranger's while it observes. Such reports are never joined by guess: that
/// is why a workload waits until its peers know it (PROTOCOL rule 11).
#[test]
fn a_stranger_is_never_taken_for_a_workload() {
    let (fleet, mut table) = (fleet(), Table::default());
    let stranger = wire::Flow {
        peer: None,
        peer_address: "10.0.0.101".into(),
        client: wire::flow::Proof::External.into(),
        ..report("ingress", "allow", 77)
    };
    table.take(&fleet, node(3), "q", &batch(1, vec![stranger]), now());
    table.take(&fleet, node(1), "p", &batch(1, vec![report("egress", "allow", 77)]), now());
    assert_eq!(all(&table).len(), 2);
}

#[test]
fn a_batch_counts_once_and_a_new_process_begins_anew() {
    let (fleet, mut table) = (fleet(), Table::default());
    let denied = wire::Flow { count: 5, ..report("egress", "deny", 0) };
    assert!(table.take(&fleet, node(1), "p", &batch(1, vec![denied.clone()]), now()));
    assert!(!table.take(&fleet, node(1), "p", &batch(1, vec![denied.clone()]), now()));
    assert_eq!(table.stored(node(1), "p"), 1);
    assert!(table.take(&fleet, node(1), "p2", &batch(1, vec![denied.clone()]), now()));
    let rows = all(&table);
    assert_eq!((rows.len(), rows[0].count), (1, 10), "aggregates of the same refusal add up");
    let other = wire::Flow { reason: "policy-deny".into(), ..denied };
    table.take(&fleet, node(1), "p2", &batch(2, vec![other]), now());
    assert_eq!(all(&table).len(), 2);
}

#[test]
fn a_later_report_of_one_end_replaces_its_earlier_one() {
    let (fleet, mut table) = (fleet(), Table::default());
    table.take(&fleet, node(1), "p", &batch(1, vec![report("egress", "allow", 5)]), now());
    let closed = wire::Flow { closed: true, bytes_sent: 500, ..report("egress", "allow", 5) };
    table.take(&fleet, node(1), "p", &batch(2, vec![closed]), now());
    let rows = all(&table);
    assert_eq!((rows.len(), rows[0].bytes_to_server, rows[0].closed, rows[0].count), (1, 500, true, 1));
}

#[test]
fn a_node_speaks_only_for_its_own_workloads() {
    let (fleet, mut table) = (fleet(), Table::default());
    assert!(table.take(&fleet, node(2), "p", &batch(1, vec![report("egress", "allow", 5)]), now()));
    assert!(all(&table).is_empty());
    let nonsense = wire::Flow { verdict: "maybe".into(), ..report("egress", "allow", 5) };
    table.take(&fleet, node(1), "p", &batch(1, vec![nonsense]), now());
    assert!(all(&table).is_empty());
}

#[test]
fn the_last_flows_of_a_workload_that_has_ended_are_still_its_own() {
    let (mut fleet, mut table) = (fleet(), Table::default());
    assert!(fleet.delete(&api::object::ObjectKey::new("Workload", "/acme/eu-1", "web.n1"), None));
    assert!(table.take(&fleet, node(1), "p", &batch(1, vec![report("egress", "deny", 77)]), now()));
    assert_eq!(all(&table)[0].client.workload.as_deref(), Some("/acme/eu-1/web"));
    fleet.with_workload(1, 1, "cron", serde_json::json!({}));
    assert!(table.take(&fleet, node(1), "p", &batch(2, vec![report("egress", "deny", 78)]), now()));
    assert_eq!(all(&table)[1].client.workload.as_deref(), Some("/acme/eu-1/cron"), "the living one comes first");
}

#[test]
fn external_ends_are_known_by_address() {
    let (fleet, mut table) = (fleet(), Table::default());
    let flow = wire::Flow { peer: None, external: vec!["/:lan".into()], ..report("ingress", "allow", 9) };
    table.take(&fleet, node(3), "p", &batch(1, vec![flow]), now());
    let rows = all(&table);
    assert_eq!(rows[0].client.external, ["/:lan"]);
    assert_eq!(rows[0].client.address.as_deref(), Some("198.51.100.9"));
    assert!(rows[0].client.workload.is_none());
}

#[test]
fn queries_filter_by_ends_namespace_verdict_and_time() {
    let (fleet, mut table) = (fleet(), Table::default());
    let flows = vec![report("egress", "allow", 5), report("egress", "deny", 6)];
    table.take(&fleet, node(1), "p", &batch(1, flows), now());
    let count = |query: FlowQuery| table.newest(&query, 10).len();
    let text = |t: &str| Some(t.to_owned());
    assert_eq!(count(FlowQuery { verdict: Some(Verdict::Deny), ..FlowQuery::default() }), 1);
    for from in ["web", "web@eu-1", "web@n1", "/acme/eu-1/web"] {
        assert_eq!(count(FlowQuery { from: text(from), ..FlowQuery::default() }), 2, "{from}");
    }
    assert_eq!(count(FlowQuery { to: text("web"), ..FlowQuery::default() }), 0);
    assert_eq!(count(FlowQuery { namespace: text("/acme/us-1"), ..FlowQuery::default() }), 2);
    assert_eq!(count(FlowQuery { namespace: text("/acme/us"), ..FlowQuery::default() }), 0);
    assert_eq!(count(FlowQuery { since: Some(now()), ..FlowQuery::default() }), 0);
    assert_eq!(count(FlowQuery { after: Some(1), ..FlowQuery::default() }), 1);
}

#[test]
fn rows_are_bounded_and_what_is_due_covers_every_change() {
    let (fleet, mut table) = (fleet(), Table::default());
    for round in 0..12u32 {
        let flows = (0..2000).map(|n| report("egress", "allow", 1 + round * 2000 + n)).collect();
        table.take(&fleet, node(1), "p", &batch(u64::from(round) + 1, flows), now());
    }
    assert_eq!(table.rows().count(), ROWS_MAX);
    assert_eq!(table.by_key.len(), ROWS_MAX);
    assert_eq!(table.by_version.len(), ROWS_MAX);
    let due = table.due();
    assert_eq!((due.rows.len(), due.forgotten.len()), (ROWS_MAX, 4000));
    table.still_due(due);
    let due = table.due();
    assert_eq!((due.rows.len(), due.batches.len()), (ROWS_MAX, 1));
    assert!(table.due().rows.is_empty());
    let mut restored = Table::default();
    due.rows.into_iter().for_each(|row| restored.restore(row));
    assert_eq!(all(&restored), all(&table));
    let later = now() + AGE_MAX;
    table.take(&fleet, node(1), "p", &batch(99, Vec::new()), later);
    assert_eq!(table.rows().count(), 0);
}

#[test]
fn no_node_pushes_out_what_the_others_saw() {
    let (fleet, mut table) = (fleet(), Table::default());
    let seen = vec![report("ingress", "deny", 7)];
    assert!(table.take(&fleet, node(3), "q", &batch(1, seen), now()));
    let mut isn = 100;
    for sequence in 1..=(ROWS_MAX / BATCH_MAX + 2) as u64 {
        let flood = (0..BATCH_MAX).map(|_| {
            isn += 1;
            report("egress", "allow", isn)
        });
        let flood = flood.collect();
        assert!(table.take(&fleet, node(1), "p", &batch(sequence, flood), now()));
    }
    assert_eq!(table.rows().count(), ROWS_MAX);
    let of_three = FlowQuery { verdict: Some(Verdict::Deny), ..FlowQuery::default() };
    assert_eq!(table.newest(&of_three, 10).len(), 1, "the oldest row of all, of the node that says little");
    assert_eq!(table.by_reporter.values().map(BTreeSet::len).sum::<usize>(), ROWS_MAX);
}

#[test]
fn followers_get_every_changed_row_once_per_change() {
    let (fleet, mut table) = (fleet(), Table::default());
    let query = FlowQuery::default();
    table.take(
        &fleet,
        node(1),
        "p",
        &batch(1, vec![report("egress", "allow", 5), report("egress", "allow", 6)]),
        now(),
    );
    let (rows, version) = table.changed_since(&query, 0, 1);
    assert_eq!(rows.len(), 1);
    let (rows, version) = table.changed_since(&query, version, 10);
    assert_eq!(rows.len(), 1);
    assert!(table.changed_since(&query, version, 10).0.is_empty());
    table.take(&fleet, node(3), "q", &batch(1, vec![report("ingress", "allow", 5)]), now());
    let (rows, _) = table.changed_since(&query, version, 10);
    assert!(rows[0].ingress.is_some());
}
