//! The kernel's programs against the byte vectors of docs/wire.md: real packets, one counter each.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use datapath::count::{Counters, Stage};
use datapath::state::{Key128, PairKey, Peer, State};
use datapath::{Datapath, Options};
use handshake::segment::{Segment, TcpFlags};
use identity::ids::{Instance, NodeId, Slot, WorkloadRef};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use testbed::attack::Attacker;
use testbed::fleet::{Fleet, TCP};
use testbed::run::Run;
use testbed::wait;
use testbed::world::World;

/// Cases that no packet brings to the listener as they are: unlabelled ones are judged by address; a header holds whole words,
/// so that padding would complete a cut option; newer kernels drop a list with a length of 0 themselves (TCP-AO's parser).
const OUT_OF_REACH: [&str; 4] = ["unlabelled", "option-missing", "cut short", "an option of length 0 before it"];
const LIMIT: Duration = Duration::from_secs(5);

fn vectors() -> Result<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../handshake/vectors.json");
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("hex");
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex")).collect()
}

fn key(value: &Value) -> Key128 {
    Key128(bytes(value).try_into().expect("16 bytes"))
}

fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|number| u32::try_from(number).ok()).expect("a number")
}

fn end(value: &Value) -> (WorkloadRef, Instance) {
    let node = NodeId::new(number(&value["node"])).expect("a node");
    let slot = Slot(u16::try_from(number(&value["slot"])).expect("a slot"));
    let instance = u64::from_str_radix(value["instance"].as_str().expect("hex"), 16).expect("hex");
    (WorkloadRef { node, slot }, Instance(instance))
}

/// Turns the node of `state`, which has the workload `db` and lets `web` reach it, into the server of the vectors.
fn as_the_server_of(vectors: &Value, state: &mut State, web: WorkloadRef, db: WorkloadRef) {
    let (client, server) = (end(&vectors["client"]), end(&vectors["server"]));
    let class_of = |at: WorkloadRef| state.peers.iter().find(|peer| peer.at == at).expect("placed").class;
    let peer = |(at, instance), class| Peer { at, instance, class, revoked: false };
    state.peers = vec![peer(client, class_of(web)), peer(server, class_of(db))];
    state.node = server.0.node;
    for workload in &mut state.workloads {
        if workload.slot == Some(db.slot) {
            (workload.slot, workload.instance) = (Some(server.0.slot), server.1);
        }
    }
    state.places.clear();
    state.fleet_keys = [None, None, None, Some(key(&vectors["fleet"]["key"]))];
    state.fleet_generation = 3;
    state.own_generation = 2;
    state.pair_keys = vec![PairKey {
        node: client.0.node,
        own_generation: 2,
        peer_generation: 1,
        tx: key(&vectors["pair"]["server_to_client"]),
        rx: key(&vectors["pair"]["client_to_server"]),
        send: true,
    }];
}

/// The offset that puts the node's clock at a unix time.
fn offset_for(unix_s: i64) -> i64 {
    let boot = clock_gettime(ClockId::Boottime);
    // In the middle of that second's step of T, as the vectors' times are at the beginning of one.
    (unix_s + 20) * 1_000_000_000 - (boot.tv_sec * 1_000_000_000 + boot.tv_nsec)
}

fn said(expect: &str, message: &str, before: &Counters, after: &Counters) -> bool {
    let refused = |counters: &Counters| counters.refused.values().sum::<u64>();
    if expect == "accept" && message == "syn" {
        return after.stage(Stage::SynOk) == before.stage(Stage::SynOk) + 1 && refused(after) == refused(before);
    }
    // The vectors' server had sent flags, which the ACK echoes; ours sends none. That is looked at only after the MAC.
    let expect = if expect == "accept" { "flags-mismatch" } else { expect };
    let of = |counters: &Counters| {
        counters.refused.iter().find(|(reason, _)| reason.label() == expect).map_or(0, |(_, count)| *count)
    };
    of(after) == of(before) + 1 && refused(after) == refused(before) + 1
}

#[test]
fn the_kernel_says_to_every_vector_what_the_page_says() -> Result<()> {
    let vectors = vectors()?;
    let run = Run::start("vectors")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (web, db, pod) = (a.workload("web")?, b.workload("db")?, a.pod("attacker", 133)?);
    let mut fleet = Fleet::of(&world)?;
    let (web_at, db_at) = (fleet.add(a, &web, "web")?, fleet.add(b, &db, "db")?);
    fleet.allow("web", "db", TCP, 1..=u16::MAX);
    let mut state = fleet.state(b);
    as_the_server_of(&vectors, &mut state, web_at, db_at);
    let mut datapath = Datapath::attach(Options::new(b.cgroup().path(), b.bpffs()?.join("vectors")))?;
    datapath.apply(&state)?;
    let peer = db.peer()?;
    let attacker = Attacker::new(pod.place().netns())?;

    let mut tried = 0;
    let ends = pod.addresses().both().into_iter().zip(db.addresses().both());
    for (port, (from, address)) in (1u16..).zip(ends) {
        let listener = peer.listen(address, 0)?;
        let cases = vectors["cases"].as_array().context("cases")?;
        for (number, case) in (0u16..).zip(cases) {
            let (message, options) = (case["message"].as_str().context("message")?, bytes(&case["options"]));
            let expect = case["expect"].as_str().context("expect")?;
            if message == "syn_ack" || OUT_OF_REACH.contains(&expect) || OUT_OF_REACH.iter().any(|n| case["name"] == *n)
            {
                continue;
            }
            let from = SocketAddr::new(from, port * 10_000 + number);
            let segment = segment(case, from, SocketAddr::new(address, listener.port), options);
            datapath.set_clock_offset(offset_for(case["unix_s"].as_i64().context("unix_s")?));
            let before = datapath.counters();
            attacker.injector().send(&segment)?;
            let moved =
                wait::until("a counter", LIMIT, || said(expect, message, &before, &datapath.counters()).then_some(()));
            moved.with_context(|| {
                format!("{message} {:?} must be {expect}: {before:?} {:?}", case["name"], datapath.counters())
            })?;
            tried += 1;
        }
        assert_eq!(listener.accepted()?, [], "an ACK without a SYN before it opens nothing");
    }
    assert!(tried >= 2 * 40, "{tried}");
    datapath.detach()?;
    run.finish()
}

fn segment(case: &Value, from: SocketAddr, to: SocketAddr, options: Vec<u8>) -> Segment {
    let (client, server) = (number(&case["isn_client"]), number(&case["isn_server"]));
    let mut segment = if case["message"] == "syn" {
        Segment::bare(from, to, client, 0, TcpFlags::SYN)
    } else {
        Segment::bare(from, to, client.wrapping_add(1), server.wrapping_add(1), TcpFlags::ACK)
    };
    segment.window = 64_240;
    segment.options = options;
    segment
}
