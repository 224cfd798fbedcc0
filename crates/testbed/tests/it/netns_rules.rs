//! PROTOCOL's rules by name, as a captured node with raw sockets would test them: rules 1 to 6, 11 and 13.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use datapath::count::Stage;
use datapath::event::{Event, Kind, Proof};
use datapath::refuse::budget::Budget;
use datapath::refuse::{Refusal, Refuser, Side};
use datapath::state::{Place, PlaceTarget};
use handshake::option::{Fields, Flags, IdentityOption, Message};
use handshake::segment::{Segment, TcpFlags};
use policy::reason::Reason;
use rustix::time::{ClockId, clock_gettime};
use testbed::attack::oracle::option_of;
use testbed::attack::relay::Relay;
use testbed::attack::speak::{Speaker, bare_ack};
use testbed::attack::tap::Tap;
use testbed::attack::{Fate, Tally};
use testbed::fleet::{Fleet, TCP};
use testbed::peer::Connection;
use testbed::run::Run;
use testbed::wait;
use testbed::world::World;

use crate::arena::{Arena, End, GIVE_UP, LIMIT, silence};
use crate::guarded::{Guarded, SILENCE};

/// The first retransmission comes after a second.
const RETRANSMITTED: Duration = Duration::from_secs(3);
const RETRANSMITTED_ONCE: Duration = Duration::from_millis(1800);

fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).expect("after the boot")
}

fn events(end: &mut End) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    end.datapath.poll_events(Duration::ZERO, |event| events.push(event))?;
    Ok(events)
}

fn one(fate: Fate) -> Tally {
    let mut tally = Tally::default();
    tally.add(fate);
    tally
}

impl Arena {
    fn honest_spy(&self) -> Result<Speaker> {
        self.speaker(self.spy, self.instance(self.spy))
    }

    /// Sends one segment and waits for the one counter that it must move.
    fn refuses(&self, segment: &Segment, reason: Reason) -> Result<()> {
        let before = self.server.refused();
        self.attacker.injector().send(segment)?;
        self.server.expect(&one(Fate::Refused(reason)), &before).with_context(|| format!("{segment:?}"))
    }
}

/// Answers the client's refusals as its agent would, until the call has ended.
fn refused_by_agent(
    end: &mut End,
    refuser: &Refuser,
    call: std::thread::JoinHandle<Result<Result<Connection, testbed::peer::script::Failure>>>,
) -> Result<(Vec<Event>, Result<Connection, testbed::peer::script::Failure>)> {
    let mut seen = Vec::new();
    wait::until_ok("the end of the call", RETRANSMITTED, || {
        for event in events(end)? {
            if matches!(event.kind, Kind::Refused { reset: true, .. }) {
                refuser.refuse(&Refusal {
                    netns: event.netns,
                    client: event.local_address,
                    server: event.remote_address,
                    isn_client: event.isn_client,
                    side: Side::Client,
                })?;
            }
            seen.push(event);
        }
        Ok(call.is_finished().then_some(()))
    })?;
    Ok((seen, call.join().expect("no panic")?))
}

#[test]
fn rule_11_a_place_that_does_not_fit_is_refused_once_the_question_was_answered_and_not_before() -> Result<()> {
    let mut arena = Arena::build("rules-answered")?;
    let cookie = arena.client.node.enter(|| Ok(linux::netns::Netns::own()?.cookie()?))?;
    let refuser = Refuser::new(Budget::default());
    refuser.register(cookie, arena.client.node.netns().fd())?;
    for (_, server) in arena.families() {
        let listener = arena.server.peer.listen(server, 0)?;
        let listen = arena.pod_address(SocketAddr::new(server, 0), 6000);
        let _relay = Relay::start(arena.attacker_pod.place().netns(), listen, SocketAddr::new(server, listener.port))?;
        let peer = arena.client.peer.clone();
        let call = std::thread::spawn(move || peer.connect(listen, RETRANSMITTED_ONCE));
        let (seen, outcome) = refused_by_agent(&mut arena.client, &refuser, call)?;
        assert!(outcome.err().expect("refused").timed_out, "unknown is not denied: {seen:?}");
        let questions = seen.iter().filter(|event| matches!(event.kind, Kind::Unknown { .. })).count();
        assert!(questions >= 2, "asked with each answer that came: {seen:?}");
        assert!(!seen.iter().any(|event| matches!(event.kind, Kind::Refused { .. })), "{seen:?}");

        let peer = arena.client.peer.clone();
        let started = Instant::now();
        let call = std::thread::spawn(move || peer.connect(listen, LIMIT));
        let question = wait::until_ok("a question", LIMIT, || {
            let asked = events(&mut arena.client)?;
            Ok(asked.into_iter().find(|event| matches!(event.kind, Kind::Unknown { .. })))
        })?;
        assert_eq!(question.proof, Proof::Proved, "who answered has proved itself");
        arena.client.datapath.answered(question.boot_ns);
        let (seen, outcome) = refused_by_agent(&mut arena.client, &refuser, call)?;
        let failure = outcome.err().expect("refused");
        assert!(failure.is_refused(), "{failure}, {seen:?}");
        assert!(started.elapsed() < RETRANSMITTED, "with the first retransmission");
        assert_eq!(listener.accepted()?, []);
    }
    arena.run.finish()
}

#[test]
fn rule_11_what_is_learnt_meanwhile_heals_with_the_retransmission() -> Result<()> {
    let mut arena = Arena::build("rules-heal")?;
    for (number, (_, server)) in arena.families().into_iter().enumerate() {
        let listener = arena.server.peer.listen(server, 0)?;
        let to = SocketAddr::new(server, listener.port);
        let whole = arena.client.state.clone();
        let lacks = |change: &dyn Fn(&mut datapath::state::State)| {
            let mut state = whole.clone();
            change(&mut state);
            state
        };
        let server_at = arena.server.at;
        for (what, state, reason) in [
            ("peer", lacks(&|s| s.peers.retain(|peer| peer.at != server_at)), Reason::PeerUnknown),
            ("keys", lacks(&|s| s.pair_keys.retain(|pair| pair.node != server_at.node)), Reason::KeyUnknown),
            (
                "place",
                lacks(&|s| s.places.retain(|place| place.target != PlaceTarget::Node(server_at.node))),
                Reason::UnknownPlace,
            ),
        ] {
            arena.client.datapath.apply(&state)?;
            let before = arena.client.refused().get(&reason).copied().unwrap_or(0);
            let peer = arena.client.peer.clone();
            let call = std::thread::spawn(move || peer.connect(to, LIMIT));
            wait::until(what, LIMIT, || {
                (arena.client.refused().get(&reason).copied().unwrap_or(0) > before).then_some(())
            })?;
            let told = events(&mut arena.client)?;
            let asked = told.iter().any(|e| matches!(e.kind, Kind::Unknown { .. }) && e.reason == Some(reason));
            assert!(asked, "{what}: asked for, never refused: {told:?}");
            arena.client.datapath.apply(&whole)?;
            let live = call.join().expect("no panic")??;
            assert!(live.took > SILENCE && live.took < RETRANSMITTED, "{what} {number}: {:?}", live.took);
            live.exchange(LIMIT)??;
        }
        // The server's table, too: the SYN is dropped in silence, its retransmission is taken.
        let known = arena.server.state.clone();
        let client_at = arena.client.at;
        let mut unknown = known.clone();
        unknown.peers.retain(|peer| peer.at != client_at);
        arena.server.datapath.apply(&unknown)?;
        let before = arena.server.refused().get(&Reason::PeerUnknown).copied().unwrap_or(0);
        let peer = arena.client.peer.clone();
        let call = std::thread::spawn(move || peer.connect(to, LIMIT));
        wait::until("a SYN of somebody unknown", LIMIT, || {
            (arena.server.refused().get(&Reason::PeerUnknown).copied().unwrap_or(0) > before).then_some(())
        })?;
        arena.server.datapath.apply(&known)?;
        call.join().expect("no panic")??.exchange(LIMIT)??;
    }
    arena.run.finish()
}

#[test]
fn rule_01_a_source_that_is_another_workloads_own_address_is_refused() -> Result<()> {
    let mut arena = Arena::build("rules-source")?;
    let spy = arena.honest_spy()?;
    let oracle = arena.server.oracle()?;
    for (number, (_, server)) in (0u16..).zip(arena.families()) {
        let listener = arena.server.peer.listen(server, 0)?;
        let to = SocketAddr::new(server, listener.port);
        let from = arena.pod_address(to, 7001 + number);
        let own = Place {
            address: from.ip(),
            port: None,
            target: PlaceTarget::Workload(arena.client.at),
            real_port: None,
            claimed_udp: false,
        };
        arena.server.state.places.push(own);
        arena.server.datapath.apply(&arena.server.state)?;
        events(&mut arena.server)?;
        arena.refuses(&spy.syn(from, to, 77, oracle.now())?, Reason::SourceMismatch)?;
        let told = events(&mut arena.server)?;
        assert!(told.iter().any(|e| matches!(e.kind, Kind::Refused { reset: true, .. })), "{told:?}");
        // From an address that is shared or nobody's the same call is answered.
        arena.server.state.places.pop();
        arena.server.datapath.apply(&arena.server.state)?;
        let syn = spy.syn(from, to, 78, oracle.now())?;
        assert!(spy.open(&arena.attacker, &syn, LIMIT)?.is_some());
    }
    arena.run.finish()
}

#[test]
fn rule_01_a_service_admits_its_members_only_and_an_undeclared_nat_nobody() -> Result<()> {
    let run = Run::start("rules-service")?;
    let world = World::two_clusters(&run)?;
    let [eu, us] = &world.clusters[..] else { panic!("two clusters were asked for") };
    let (web, db, other) = (eu.nodes[0].workload("web")?, us.nodes[0].workload("db")?, us.nodes[0].workload("other")?);
    let mut fleet = Fleet::of(&world)?;
    fleet.add(&eu.nodes[0], &web, "web")?;
    let db_at = fleet.add(&us.nodes[0], &db, "db")?;
    fleet.add(&us.nodes[0], &other, "db")?;
    fleet.allow("web", "db", TCP, 1..=u16::MAX);
    fleet.service(&us.gateway.outside().both(), (TCP, 15_432), 5432, &[db_at]);
    let mut guarded = Guarded::attach(world.nodes(), &fleet)?;
    let (asking, member, stranger) = (web.peer()?, db.peer()?, other.peer()?);
    us.gateway.forward("tcp", 15_432, db.addresses(), 5432)?;
    us.gateway.forward("tcp", 15_433, db.addresses(), 5432)?;
    for (address, outside) in db.addresses().both().into_iter().zip(us.gateway.outside().both()) {
        let listener = member.listen(address, 5432)?;
        asking.request(SocketAddr::new(outside, 15_432), LIMIT)??;
        let undeclared = guarded.refused(&eu.nodes[0], Reason::UnknownPlace)?;
        assert!(asking.connect(SocketAddr::new(outside, 15_433), SILENCE)?.is_err(), "a port that no Service declares");
        assert!(guarded.refused(&eu.nodes[0], Reason::UnknownPlace)? > undeclared);
        listener.close()?;
        let impostor = stranger.listen(address, 5432)?;
        let before = guarded.refused(&eu.nodes[0], Reason::PlaceMismatch)?;
        assert!(asking.connect(SocketAddr::new(outside, 15_432), SILENCE)?.is_err(), "of the same class, no member");
        assert!(guarded.refused(&eu.nodes[0], Reason::PlaceMismatch)? > before);
        assert_eq!(impostor.accepted()?, []);
        impostor.close()?;
    }
    run.finish()
}

#[test]
fn rule_02_an_echo_that_differs_is_refused_although_its_mac_is_right() -> Result<()> {
    let arena = Arena::build("rules-flags")?;
    let spy = arena.honest_spy()?;
    let oracle = arena.server.oracle()?;
    for (_, server) in arena.families() {
        let listener = arena.server.peer.listen(server, 0)?;
        let to = SocketAddr::new(server, listener.port);
        let syn = spy.syn(arena.pod_address(to, 7001), to, 77, oracle.now())?;
        let half = spy.open(&arena.attacker, &syn, LIMIT)?.context("a SYN-ACK")?;
        let honest = spy.ack(&half, None, oracle.now())?;
        let lying = reseal(&spy, &half.syn_ack, &honest, Flags::CAN_TLS)?;
        assert_eq!(oracle.fate_of_ack(&lying), Fate::Refused(Reason::FlagsMismatch), "the model agrees");
        arena.refuses(&lying, Reason::FlagsMismatch)?;
        assert_eq!(listener.accepted()?, []);
        // What was refused used nothing up: the honest one still opens the connection.
        arena.attacker.injector().send(&honest)?;
        wait::until("the connection", LIMIT, || listener.accepted().ok().filter(|all| all.len() == 1))?;
    }
    arena.run.finish()
}

/// `ack` with another echo, sealed with the keys that the speaker has.
fn reseal(spy: &Speaker, syn_ack: &Segment, ack: &Segment, echo: Flags) -> Result<Segment> {
    use handshake::mac::{Ends, Isns, pair_input};
    let (server, own) = (option_of(syn_ack)?.fields, option_of(ack)?.fields);
    let fields = Fields { echo, ..own };
    let keys = &spy.tables.pairs[&(server.from.node, own.own_generation, own.peer_generation)];
    let isns = Isns { client: ack.seq.wrapping_sub(1), server: ack.ack.wrapping_sub(1) };
    let ends =
        Ends { to: server.from, from_instance: spy.says.instance, to_instance: spy.tables.instances[&server.from] };
    let t = handshake::time::T::at_unix_s(now_unix_s());
    let option: IdentityOption = fields.sealed(keys.send.tag(&pair_input(&fields, isns, t, &ends)));
    let mut changed = ack.clone();
    testbed::attack::forge::replace(&mut changed, option.to_bytes());
    Ok(changed)
}

fn now_unix_s() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    now.as_secs()
}

#[test]
fn rule_03_a_first_segment_with_another_number_is_dropped_and_heals() -> Result<()> {
    let arena = Arena::build("rules-sequence")?;
    let spy = arena.honest_spy()?;
    let oracle = arena.server.oracle()?;
    for (_, server) in arena.families() {
        let listener = arena.server.peer.listen(server, 0)?;
        let to = SocketAddr::new(server, listener.port);
        let syn = spy.syn(arena.pod_address(to, 7001), to, 77, oracle.now())?;
        let half = spy.open(&arena.attacker, &syn, LIMIT)?.context("a SYN-ACK")?;
        let ack = spy.ack(&half, None, oracle.now())?;
        let mut second = ack.clone();
        second.seq = second.seq.wrapping_add(100);
        second.payload = b"the first hundred bytes were lost".to_vec();
        arena.refuses(&second, Reason::SequenceUnexpected)?;
        assert_eq!(listener.accepted()?, []);
        arena.attacker.injector().send(&ack)?;
        wait::until("the connection", LIMIT, || listener.accepted().ok().filter(|all| all.len() == 1))?;
    }
    arena.run.finish()
}

#[test]
fn a_flood_without_proof_leaves_room_in_the_ring_for_openings() -> Result<()> {
    // More than the ring holds, and nobody reads it meanwhile.
    const FLOOD: u32 = 20_000;
    let mut arena = Arena::build("rules-ring")?;
    let spy = arena.honest_spy()?;
    let oracle = arena.server.oracle()?;
    let (client, server) = arena.families()[0];
    let listener = arena.server.peer.listen(server, 0)?;
    let to = SocketAddr::new(server, listener.port);
    let mut forged = spy.syn(arena.pod_address(to, 7001), to, 0, oracle.now())?;
    let before = arena.server.refused();
    for number in 1..=FLOOD {
        forged.seq = number;
        arena.attacker.injector().send(&forged)?;
    }
    arena.client.peer.request(to, LIMIT)??;
    let mut tally = Tally::default();
    (0..FLOOD).for_each(|_| tally.add(Fate::Refused(Reason::FleetMacBad)));
    arena.server.expect(&tally, &before)?;
    let told = events(&mut arena.server)?;
    let opened = told.iter().find(|event| event.kind == Kind::Open).context("the opening is told of")?;
    assert_eq!(opened.remote_address.ip(), client);
    let counters = arena.server.datapath.counters();
    assert_eq!(counters.stage(Stage::EventLost), 0);
    let refusals = told.iter().filter(|event| matches!(event.kind, Kind::Refused { .. })).count() as u64;
    assert_eq!(refusals + counters.stage(Stage::NoticeLost), u64::from(FLOOD), "told, or counted as not told");
    arena.run.finish()
}

#[test]
fn invented_names_share_one_cell_of_the_counters() -> Result<()> {
    let arena = Arena::build("rules-hearsay")?;
    let spy = arena.honest_spy()?;
    let oracle = arena.server.oracle()?;
    let (_, server) = arena.families()[0];
    let listener = arena.server.peer.listen(server, 0)?;
    let to = SocketAddr::new(server, listener.port);
    let before = arena.server.refused();
    for number in 0..500u32 {
        let mut forged = spy.syn(arena.pod_address(to, 7001), to, number, oracle.now())?;
        let mut option = option_of(&forged)?.to_bytes();
        option[7..12].copy_from_slice(&[1, 0, 0, (number >> 8) as u8, number as u8]);
        testbed::attack::forge::replace(&mut forged, option);
        arena.attacker.injector().send(&forged)?;
    }
    let mut tally = Tally::default();
    (0..500).for_each(|_| tally.add(Fate::Refused(Reason::FleetMacBad)));
    arena.server.expect(&tally, &before)?;
    let denials = arena.server.datapath.denials();
    let cells: Vec<_> = denials.cells.iter().filter(|cell| cell.reason == Some(Reason::FleetMacBad)).collect();
    assert!(
        matches!(cells[..], [cell] if cell.count == 500 && cell.peer == datapath::event::Peer::Unknown),
        "{cells:?}"
    );
    arena.run.finish()
}

/// The server's host as under a flood: every SYN is answered with a cookie.
fn cookies_always(arena: &Arena) -> Result<()> {
    arena.server.node.enter(|| Ok(std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2")?))
}

#[test]
fn rule_04_an_ack_opens_one_connection_with_and_without_syn_cookies() -> Result<()> {
    let arena = Arena::build("rules-replay")?;
    let spy = arena.honest_spy()?;
    let oracle = arena.server.oracle()?;
    for cookies in [false, true] {
        if cookies {
            cookies_always(&arena)?;
        }
        for (_, server) in arena.families() {
            let listener = arena.server.peer.listen(server, 0)?;
            let to = SocketAddr::new(server, listener.port);
            arena.client.peer.request(to, LIMIT)??;
            let syn = spy.syn(arena.pod_address(to, 7001), to, 77, oracle.now())?;
            let half = spy.open(&arena.attacker, &syn, LIMIT)?.context("a SYN-ACK")?;
            let ack = spy.ack(&half, None, oracle.now())?;
            arena.attacker.injector().send(&ack)?;
            wait::until("the connection", LIMIT, || listener.accepted().ok().filter(|all| all.len() == 2))?;
            // Ends it, so that the next ACK meets the listener again; its SYN cookie is still good.
            let mut reset = bare_ack(&half, None);
            reset.flags = TcpFlags::RST;
            arena.attacker.injector().send(&reset)?;
            arena.refuses(&ack, Reason::Replay)?;
            let elsewhere = Segment { source: arena.pod_address(to, 7002), ..ack.clone() };
            arena.refuses(&elsewhere, Reason::Replay)?;
            assert_eq!(listener.accepted()?.len(), 2);
        }
    }
    arena.run.finish()
}

#[test]
fn rule_04_a_full_burn_table_refuses_what_nothing_else_proves_fresh() -> Result<()> {
    let arena = Arena::build("rules-full")?;
    let spy = arena.honest_spy()?;
    let oracle = arena.server.oracle()?;
    let (_, server) = arena.families()[0];
    let listener = arena.server.peer.listen(server, 0)?;
    let to = SocketAddr::new(server, listener.port);
    let syn = spy.syn(arena.pod_address(to, 7001), to, 77, oracle.now())?;
    let half = spy.open(&arena.attacker, &syn, LIMIT)?.context("a SYN-ACK")?;
    fill_burnt(&arena.server)?;
    // With a pending entry of a SYN without a cookie the ACK is fresh by that.
    arena.client.peer.request(to, LIMIT)??;
    assert!(arena.server.datapath.counters().stage(Stage::BurnFull) > 0, "and it could not be burnt");
    // A proof without a SYN before it is not.
    let mut ack = spy.ack(&half, None, oracle.now())?;
    ack.source.set_port(7002);
    arena.refuses(&ack, Reason::BurnFull)?;
    cookies_always(&arena)?;
    assert!(arena.client.peer.request(to, GIVE_UP)?.is_err(), "under a SYN cookie no entry proves it");
    assert!(arena.server.refused()[&Reason::BurnFull] > 1);
    assert_eq!(listener.accepted()?.len(), 1);
    arena.run.finish()
}

/// Puts eight young entries into every bucket.
fn fill_burnt(end: &End) -> Result<()> {
    use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
    let path = end.node.bpffs()?.join("attacks/v1/maps/burnt");
    let burnt = MapHandle::from_pinned_path(path)?;
    let young = (boot_ns() / 1_000_000_000) & 0xFFFF;
    for bucket in 0..burnt.max_entries() {
        let slots: Vec<u8> = (1..=8u64).flat_map(|slot| (slot << 16 | young).to_ne_bytes()).collect();
        burnt.update(&bucket.to_ne_bytes(), &slots, MapFlags::ANY)?;
    }
    Ok(())
}

#[test]
fn rule_06_a_calling_socket_takes_a_reset_and_no_plain_answer() -> Result<()> {
    let arena = Arena::build("rules-calling")?;
    for (_, server) in arena.families() {
        let listener = arena.server.peer.listen(server, 0)?;
        silence(&arena.server.node, listener.port)?;
        let to = SocketAddr::new(server, listener.port);
        let tap = Tap::open(arena.client.node.netns())?;
        let peer = arena.client.peer.clone();
        let connecting = std::thread::spawn(move || peer.connect(to, LIMIT));
        let syn = tap.wait("the SYN", LIMIT, |s| s.flags == TcpFlags::SYN && s.destination == to)?;
        let before = arena.client.refused();
        let mut plain = Segment::bare(to, syn.source, 1, syn.seq.wrapping_add(1), TcpFlags::SYN_ACK);
        plain.window = 1000;
        arena.attacker.injector().send(&plain)?;
        arena.client.expect(&one(Fate::Refused(Reason::OptionMissing)), &before)?;
        assert!(!connecting.is_finished(), "in silence");
        let reset = Segment::bare(to, syn.source, 0, syn.seq.wrapping_add(1), TcpFlags::RST_ACK);
        arena.attacker.injector().send(&reset)?;
        let failure = connecting.join().expect("no panic")?.err().context("nobody answers")?;
        assert!(failure.is_refused(), "{failure}");
    }
    arena.run.finish()
}

#[test]
fn rule_10_every_retransmission_of_a_call_into_the_fleet_carries_identity() -> Result<()> {
    let arena = Arena::build("rules-bare")?;
    let (_, server) = arena.families()[1];
    silence(&arena.server.node, 6000)?;
    let tap = Tap::open(arena.client.node.netns())?;
    let to = SocketAddr::new(server, 6000);
    assert!(arena.client.peer.connect(to, Duration::from_millis(3500))?.is_err());
    let mut syns = tap.heard(|s| s.flags == TcpFlags::SYN && s.destination == to);
    syns.dedup();
    assert!(syns.len() >= 2, "{syns:?}");
    for syn in &syns {
        assert_eq!(option_of(syn)?.fields.message, Message::Syn);
    }
    arena.run.finish()
}

#[test]
fn rule_13_only_a_valid_mac_is_worth_a_reset_and_claims_are_called_claims() -> Result<()> {
    let mut arena = Arena::build("rules-reset")?;
    let spy = arena.honest_spy()?;
    let oracle = arena.server.oracle()?;
    // Nobody may reach this port, so every valid SYN is refused.
    arena.server.state.verdicts.iter_mut().for_each(|pair| pair.ranges.clear());
    arena.server.datapath.apply(&arena.server.state)?;
    for (_, server) in arena.families() {
        let listener = arena.server.peer.listen(server, 0)?;
        let to = SocketAddr::new(server, listener.port);
        let from = arena.pod_address(to, 7001);
        events(&mut arena.server)?;
        let valid = spy.syn(from, to, 77, oracle.now())?;
        let mut forged = valid.clone();
        forged.seq = 78;
        for (segment, reason, reset, proof) in
            [(&valid, Reason::DefaultDeny, true, Proof::Claimed), (&forged, Reason::FleetMacBad, false, Proof::Claimed)]
        {
            arena.refuses(segment, reason)?;
            let told = events(&mut arena.server)?;
            let [event] = &told[..] else { panic!("one record: {told:?}") };
            assert_eq!((event.reason, event.proof), (Some(reason), proof));
            assert!(matches!(event.kind, Kind::Refused { reset: r, .. } if r == reset), "{event:?}");
        }
        assert_eq!(listener.accepted()?, []);
    }
    arena.run.finish()
}
