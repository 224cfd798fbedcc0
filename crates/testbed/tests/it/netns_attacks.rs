//! Attackers with raw sockets against the real datapath: nothing is accepted, everything is counted to the unit.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use handshake::option::Message;
use identity::ids::Instance;
use policy::reason::Reason;
use testbed::attack::flood::{self, Plan};
use testbed::attack::relay::Relay;
use testbed::attack::speak::bare_ack;
use testbed::attack::{Fate, Tally};
use testbed::peer::script::Speak;
use testbed::run::Run;
use testbed::wait;
use testbed::world::World;

use crate::arena::{Arena, GIVE_UP, LIMIT, honest_only, silence};

const CLOCK_SHIFT_NS: i64 = 275_000_000_000;

#[test]
fn ten_thousand_replays_and_forgeries_none_accepted_counted_to_the_unit() -> Result<()> {
    let mut arena = Arena::build("attack-flood")?;
    let mut sent = 0;
    for (seed, (client, server)) in (0..).zip(arena.families()) {
        let v6 = server.is_ipv6();
        let listener = arena.server.peer.listen(server, 0)?;
        let to = SocketAddr::new(server, listener.port);
        let captured = arena.capture(to, 10)?;
        let mut honest = 10;

        let load = arena.client.peer.traffic(to, 8, Duration::from_millis(2), Speak::Echo)?;
        wait::until("the load", LIMIT, || load.report().ok().filter(|report| report.right > 50))?;
        honest += 8;
        let mut oracle = arena.server.oracle()?;
        captured[&Message::Ack].iter().try_for_each(|ack| oracle.burn(ack))?;
        let before = arena.server.refused();
        let plan = arena.plan(seed, 2000, v6);
        let injector = arena.attacker.injector();
        let mut tally = flood::syns(injector, &oracle, &captured[&Message::Syn], &plan)?;
        tally.merge(&flood::acks(injector, &oracle, &captured[&Message::Ack], &plan)?);
        arena.server.expect(&tally, &before)?;
        sent += tally.total();

        // A connection that is asked for while forged SYNs fill the listener's queue.
        arena.client.peer.request(to, LIMIT)??;
        honest += 1;

        // 275 s later even the genuine ones are too old.
        let shifted = arena.server.state.clock_offset_ns + CLOCK_SHIFT_NS;
        arena.server.datapath.set_clock_offset(shifted);
        oracle.set_clock_offset(shifted);
        let before = arena.server.refused();
        let plan = arena.plan(seed + 100, 250, v6);
        let mut tally = flood::syns(injector, &oracle, &captured[&Message::Syn], &plan)?;
        tally.merge(&flood::acks(injector, &oracle, &captured[&Message::Ack], &plan)?);
        arena.server.expect(&tally, &before)?;
        assert_eq!(tally.of(Fate::Answered), 0);
        sent += tally.total();
        arena.server.datapath.set_clock_offset(arena.server.state.clock_offset_ns);

        let report = load.stop()?;
        assert_eq!((report.opened, report.wrong, report.broken), (8, 0, 0), "{report:?}");
        honest_only(&listener, client, honest)?;

        // The client's side: a socket that waits for an answer.
        let silent = arena.server.peer.listen(server, 0)?;
        silence(&arena.server.node, silent.port)?;
        let (waiting, connecting) = arena.waiting_at(SocketAddr::new(server, silent.port))?;
        let before = arena.client.refused();
        let plan = arena.plan(seed + 200, 500, v6);
        let oracle = arena.client.oracle()?;
        let injector = arena.attacker.injector();
        let tally = flood::syn_acks(injector, &oracle, &waiting, &captured[&Message::SynAck], &plan)?;
        arena.client.expect(&tally, &before)?;
        sent += tally.total();
        assert!(!connecting.join().expect("no panic")?, "no forged answer opened the connection");
    }
    assert_eq!(sent, 10_000);
    let Arena { run, client, server, .. } = arena;
    client.datapath.detach()?;
    server.datapath.detach()?;
    run.finish()
}

#[test]
fn rule_06_a_simultaneous_open_is_refused_and_counted() -> Result<()> {
    let arena = Arena::build("attack-crossing")?;
    for (_, server) in arena.families() {
        let listener = arena.server.peer.listen(server, 0)?;
        silence(&arena.server.node, listener.port)?;
        let (waiting, connecting) = arena.waiting_at(SocketAddr::new(server, listener.port))?;
        let before = arena.client.refused();
        let plan = arena.plan(1, 50, server.is_ipv6());
        let tally = flood::crossing_syns(arena.attacker.injector(), &waiting, &plan)?;
        arena.client.expect(&tally, &before)?;
        assert!(!connecting.join().expect("no panic")?);
    }
    arena.run.finish()
}

/// Control: the hand-made handshake is right, so that its refusals mean something.
#[test]
fn a_captured_node_speaks_for_its_own_workloads_and_no_other() -> Result<()> {
    let arena = Arena::build("attack-captured")?;
    let spy = arena.speaker(arena.spy, arena.instance(arena.spy))?;
    let thief = arena.speaker(arena.client.at, arena.instance(arena.client.at))?;
    let stale = arena.speaker(arena.spy, Instance(arena.instance(arena.spy).0 ^ 1))?;
    let oracle = arena.server.oracle()?;
    for (_, server) in arena.families() {
        let listener = arena.server.peer.listen(server, 0)?;
        let to = SocketAddr::new(server, listener.port);
        for (port, speaker, expect) in [
            (7001, &spy, Fate::Accepted),
            (7002, &thief, Fate::Refused(Reason::PairMacBad)),
            // A reused slot: the server's table has another instance there (rule 12).
            (7003, &stale, Fate::Refused(Reason::PairMacBad)),
        ] {
            let before = arena.server.refused();
            let syn = speaker.syn(arena.pod_address(to, port), to, u32::from(port) << 8, oracle.now())?;
            let half = speaker.open(&arena.attacker, &syn, LIMIT)?.context("the fleet key answers everybody's SYN")?;
            let ack = speaker.ack(&half, None, oracle.now())?;
            assert_eq!(oracle.fate_of_ack(&ack), expect, "the model agrees");
            arena.attacker.injector().send(&ack)?;
            let mut tally = Tally::default();
            tally.add(expect);
            arena.server.expect(&tally, &before)?;
            if expect == Fate::Accepted {
                wait::until("the spy's connection", LIMIT, || listener.accepted().ok().filter(|all| all.len() == 1))?;
            }
        }
        assert_eq!(listener.accepted()?, [arena.pod_address(to, 7001)]);
    }
    arena.run.finish()
}

#[test]
fn rule_03_an_ack_whose_pending_entry_was_displaced_is_still_verified() -> Result<()> {
    let arena = Arena::build("attack-evict")?;
    let spy = arena.speaker(arena.spy, arena.instance(arena.spy))?;
    let oracle = arena.server.oracle()?;
    let (_, server) = arena.families()[0];
    let listener = arena.server.peer.listen(server, 0)?;
    let to = SocketAddr::new(server, listener.port);
    let syn = spy.syn(arena.pod_address(to, 7001), to, 77, oracle.now())?;
    let half = spy.open(&arena.attacker, &syn, LIMIT)?.context("a SYN-ACK")?;
    // Several times as many believed SYNs as the table has entries.
    let plan = Plan { count: 40_000, ..arena.plan(9, 0, false) };
    let mut random_isn = 0u32;
    for number in 0..plan.count {
        random_isn = random_isn.wrapping_add(0x9E37_79B9);
        let source = plan.sources[number % plan.sources.len()];
        let from = SocketAddr::new(source, 1024 + u16::try_from(number % 60_000)?);
        arena.attacker.injector().send(&spy.syn(from, to, random_isn, oracle.now())?)?;
    }
    arena.attacker.injector().send(&spy.ack(&half, None, oracle.now())?)?;
    wait::until("the connection", LIMIT, || listener.accepted().ok().filter(|all| all.contains(&syn.source)))?;
    arena.run.finish()
}

#[test]
fn rule_07_an_ack_without_the_option_opens_nothing() -> Result<()> {
    let arena = Arena::build("attack-bare-ack")?;
    let spy = arena.speaker(arena.spy, arena.instance(arena.spy))?;
    let oracle = arena.server.oracle()?;
    for (_, server) in arena.families() {
        let listener = arena.server.peer.listen(server, 0)?;
        let to = SocketAddr::new(server, listener.port);
        let syn = spy.syn(arena.pod_address(to, 7001), to, 77, oracle.now())?;
        let half = spy.open(&arena.attacker, &syn, LIMIT)?.context("a SYN-ACK")?;
        let before: u64 = arena.server.refused().values().sum();
        let mut data = bare_ack(&half, None);
        data.payload = b"no proof".to_vec();
        arena.attacker.injector().send(&data)?;
        wait::until("the refusal", LIMIT, || {
            (arena.server.refused().values().sum::<u64>() == before + 1).then_some(())
        })?;
        assert_eq!(listener.accepted()?, []);
    }
    arena.run.finish()
}

#[test]
fn rule_01_a_third_party_that_relays_the_handshake_is_refused() -> Result<()> {
    let arena = Arena::build("attack-relay")?;
    for (_, server) in arena.families() {
        let listener = arena.server.peer.listen(server, 0)?;
        let listen = arena.pod_address(SocketAddr::new(server, 0), 6000);
        let relay = Relay::start(arena.attacker_pod.place().netns(), listen, SocketAddr::new(server, listener.port))?;
        let before = arena.client.refused();
        assert!(
            arena.client.peer.connect(listen, GIVE_UP)?.is_err(),
            "the client does not take the relay for the server"
        );
        let place = |counts: &BTreeMap<Reason, u64>| {
            [Reason::UnknownPlace, Reason::PlaceMismatch].iter().filter_map(|r| counts.get(r)).sum::<u64>()
        };
        assert!(place(&arena.client.refused()) > place(&before), "{:?}", arena.client.refused());
        assert!(relay.relayed().back > 0, "the real server did answer: {:?}", relay.relayed());
        assert_eq!(listener.accepted()?, [], "and its application saw nothing");
    }
    arena.run.finish()
}

/// Control: where nothing checks the place, a relay does get into the stream.
#[test]
fn a_relay_works_where_nobody_checks_the_place() -> Result<()> {
    let run = Run::start("relay-control")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (client, server, relay) = (a.workload("client")?, b.workload("server")?, b.pod("relay", 103)?);
    let (asking, serving) = (client.peer()?, server.peer()?);
    for (inside, outside) in server.addresses().both().into_iter().zip(relay.addresses().both()) {
        let listener = serving.listen(inside, 0)?;
        let listen = SocketAddr::new(outside, 6000);
        let relay = Relay::start(relay.place().netns(), listen, SocketAddr::new(inside, listener.port))?;
        asking.request(listen, LIMIT)??;
        assert!(relay.relayed().forth >= 3 && relay.relayed().back >= 2, "{:?}", relay.relayed());
        assert_eq!(listener.accepted()?.len(), 1);
    }
    run.finish()
}
