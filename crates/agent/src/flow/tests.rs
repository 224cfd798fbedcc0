use datapath::state::{ClassId, Verdict};
use identity::ids::{NodeId, Slot, WorkloadRef};

use super::*;

fn names(numbering: &Numbering) -> Names<'_> {
    Names { node: 1, numbering, boot_to_unix_ns: 0 }
}

fn local() -> Local {
    Local { slot: Some(Slot(3)), stamp: 0x1_0003 }
}

fn peer() -> Peer {
    Peer::Workload(WorkloadRef { node: NodeId::new(2).expect("in range"), slot: Slot(4) })
}

fn event(kind: Kind, isn_client: u32) -> Event {
    Event {
        kind,
        boot_ns: 5_000_000,
        local: local(),
        direction: Direction::Ingress,
        peer: peer(),
        proof: Proof::Proved,
        class: ClassId(1),
        local_address: "10.0.0.1:80".parse().expect("an address"),
        remote_address: "10.0.0.2:4000".parse().expect("an address"),
        port: 80,
        protocol: 6,
        isn_client,
        isn_server: 9,
        verdict: Verdict { allow: true, would_allow: true, reason: 0, rule: 0 },
        reason: None,
        netns: 1,
    }
}

fn denied(count: u64) -> Denials {
    let denial = Denial {
        local: local(),
        direction: Direction::Ingress,
        peer: peer(),
        proof: Proof::Proved,
        protocol: 6,
        port: 22,
        reason: Some(Reason::DefaultDeny),
        rule: 0,
        would: false,
        count,
    };
    Denials { cells: vec![denial], overflow: BTreeMap::new() }
}

fn last(flows: &Flows) -> Vec<Flow> {
    flows.batches_after(flows.sequence().saturating_sub(1)).flat_map(|batch| batch.flows.clone()).collect()
}

#[test]
fn opening_and_closing_within_one_batch_are_one_flow() {
    let numbering = Numbering::in_memory();
    let mut flows = Flows::default();
    flows.record(&event(Kind::Open, 7), &names(&numbering));
    flows.record(&event(Kind::Close { bytes_in: 10, bytes_out: 20 }, 7), &names(&numbering));
    flows.record(&event(Kind::Open, 8), &names(&numbering));
    flows.flush(&Denials::default(), &names(&numbering));
    let reported = last(&flows);
    assert_eq!(reported.len(), 2);
    assert_eq!((reported[0].closed, reported[0].bytes_sent, reported[0].client_isn), (true, 20, 7));
    assert!(!reported[1].closed);
    flows.record(&event(Kind::Close { bytes_in: 1, bytes_out: 2 }, 8), &names(&numbering));
    flows.flush(&Denials::default(), &names(&numbering));
    assert!(last(&flows)[0].closed, "the close of an earlier batch's connection has a report of its own");
}

#[test]
fn denials_are_differences_of_exact_counters_and_survive_a_restart() {
    let numbering = Numbering::in_memory();
    let mut flows = Flows::default();
    flows.flush(&denied(5), &names(&numbering));
    assert_eq!(last(&flows)[0].count, 5);
    flows.flush(&denied(5), &names(&numbering));
    assert_eq!(flows.sequence(), 1, "nothing new, no batch");
    flows.flush(&denied(7), &names(&numbering));
    assert_eq!(last(&flows)[0].count, 2);
    flows.stored(1);
    let baseline = flows.baseline().expect("changed");
    let mut after = Flows::with_baseline(Some(baseline.clone()), true);
    after.flush(&denied(8), &names(&numbering));
    assert_eq!(last(&after)[0].count, 3, "what the server had not stored is reported again");
    let mut fresh = Flows::with_baseline(Some(baseline), false);
    fresh.flush(&denied(2), &names(&numbering));
    assert_eq!(last(&fresh)[0].count, 2, "the counters started anew");
}

#[test]
fn one_refusal_carries_its_numbers_and_an_aggregate_does_not() {
    let numbering = Numbering::in_memory();
    let refused = Kind::Refused { would: false, reset: true, early: false, cut: false };
    let record = |isn| Event { port: 22, reason: Some(Reason::DefaultDeny), ..event(refused, isn) };
    let mut flows = Flows::default();
    flows.record(&record(77), &names(&numbering));
    flows.flush(&denied(1), &names(&numbering));
    let flow = &last(&flows)[0];
    assert_eq!((flow.client_isn, flow.peer_address.as_str(), flow.reason.as_str()), (77, "10.0.0.2", "default-deny"));
    flows.record(&record(78), &names(&numbering));
    flows.flush(&denied(3), &names(&numbering));
    assert_eq!(last(&flows)[0].client_isn, 0);
}

#[test]
fn without_a_server_denials_wait_and_what_is_left_out_is_counted() {
    let numbering = Numbering::in_memory();
    let mut flows = Flows::default();
    for isn in 0..=OUTBOX_MAX as u32 {
        flows.record(&event(Kind::Open, isn), &names(&numbering));
        flows.flush(&denied(u64::from(isn) + 1), &names(&numbering));
    }
    let waiting = flows.sequence();
    assert_eq!(waiting, OUTBOX_MAX as u64);
    flows.stored(waiting);
    flows.flush(&denied(100), &names(&numbering));
    let batch = flows.batches_after(waiting).next().expect("goes on");
    assert_eq!((batch.sampled_out, batch.flows[0].count), (1, 100 - OUTBOX_MAX as u64));
}
