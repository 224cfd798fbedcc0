//! Attackers with raw sockets against the real datapath: nothing is accepted, everything is counted to the unit.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use datapath::state::State;
use datapath::{Datapath, Options};
use handshake::model::Local;
use handshake::option::{Flags, Message};
use handshake::segment::{Segment, TcpFlags};
use identity::ids::{Instance, WorkloadRef};
use policy::reason::Reason;
use testbed::attack::flood::{self, Plan};
use testbed::attack::oracle::{Oracle, option_of, tables_of};
use testbed::attack::relay::Relay;
use testbed::attack::speak::{Speaker, bare_ack};
use testbed::attack::tap::Tap;
use testbed::attack::{Attacker, Fate, Tally};
use testbed::fleet::{Fleet, TCP};
use testbed::node::{Node, Workload};
use testbed::peer::script::Speak;
use testbed::peer::{Listener, Peer};
use testbed::run::Run;
use testbed::wait;
use testbed::world::World;

const LIMIT: Duration = Duration::from_secs(5);
/// Long enough for an attack, short of the test's patience.
const GIVE_UP: Duration = Duration::from_millis(900);
const CLOCK_SHIFT_NS: i64 = 275_000_000_000;

/// Two protected nodes, a workload on each, and a third node, captured, with a pod from which the attacker sends.
struct Arena {
    run: Run,
    client: End,
    server: End,
    captured: State,
    /// A workload of the captured node that may reach the server, too.
    spy: WorkloadRef,
    attacker: Attacker,
    attacker_pod: Workload,
}

/// One protected end.
struct End {
    node: Node,
    workload: Workload,
    peer: Peer,
    at: WorkloadRef,
    state: State,
    datapath: Datapath,
}

impl End {
    fn new(node: &Node, workload: Workload, at: WorkloadRef, state: State) -> Result<Self> {
        let options = Options::new(node.cgroup().path(), node.bpffs()?.join("attacks"));
        let mut datapath = Datapath::attach(options)?;
        datapath.apply(&state)?;
        let peer = workload.peer()?;
        Ok(Self { node: node.clone(), workload, peer, at, state, datapath })
    }

    fn refused(&self) -> BTreeMap<Reason, u64> {
        self.datapath.counters().refused
    }

    fn oracle(&self) -> Result<Oracle> {
        Oracle::of(&self.state, self.at)
    }

    /// Waits until the counters have moved by what was sent, and says how they differ when they never do.
    fn expect(&self, tally: &Tally, before: &BTreeMap<Reason, u64>) -> Result<()> {
        wait::until("the counters", LIMIT, || tally.compare(before, &self.refused()).ok())
            .or_else(|_| tally.compare(before, &self.refused()))
    }
}

impl Arena {
    fn build(name: &str) -> Result<Self> {
        let run = Run::start(name)?;
        let world = World::one_cluster(&run, 3)?;
        let [a, b, c] = &world.clusters[0].nodes[..] else { panic!("three nodes were asked for") };
        let (web, db, spy_workload) = (a.workload("web")?, b.workload("db")?, c.workload("spy")?);
        let attacker_pod = c.pod("attacker", 133)?;
        let mut fleet = Fleet::of(&world)?;
        let (web_at, db_at) = (fleet.add(a, &web, "web")?, fleet.add(b, &db, "db")?);
        let spy = fleet.add(c, &spy_workload, "web")?;
        fleet.allow("web", "db", TCP, 1..=u16::MAX);
        let client = End::new(a, web, web_at, fleet.state(a))?;
        let server = End::new(b, db, db_at, fleet.state(b))?;
        let captured = fleet.state(c);
        let attacker = Attacker::new(attacker_pod.place().netns())?;
        Ok(Self { run, client, server, captured, spy, attacker, attacker_pod })
    }

    fn families(&self) -> Vec<(IpAddr, IpAddr)> {
        let [client, server] = [&self.client, &self.server].map(|end| end.workload.addresses().both());
        client.into_iter().zip(server).collect()
    }

    /// Honest connections, listened in on: their SYNs, SYN-ACKs and ACKs, once each.
    fn capture(&self, to: SocketAddr, connections: usize) -> Result<BTreeMap<Message, Vec<Segment>>> {
        let tap = Tap::open(self.server.node.netns())?;
        for _ in 0..connections {
            self.client.peer.request(to, LIMIT)??;
        }
        wait::until("the captured handshakes", LIMIT, || {
            let mut messages: BTreeMap<Message, Vec<Segment>> = BTreeMap::new();
            for segment in tap.heard(|s| s.source == to || s.destination == to) {
                let Ok(option) = option_of(&segment) else { continue };
                let kept = messages.entry(option.fields.message).or_default();
                // Bridge and port are two interfaces; a repeated option is the same proof.
                if !kept.iter().any(|other| option_of(other).is_ok_and(|known| known == option)) {
                    kept.push(segment);
                }
            }
            let complete = |message| messages.get(&message).is_some_and(|kept| kept.len() >= connections);
            [Message::Syn, Message::SynAck, Message::Ack].into_iter().all(complete).then_some(messages)
        })
    }

    /// Other machines: some on the network, some far away.
    fn sources(&self, v6: bool) -> Vec<IpAddr> {
        let (near, far) = if v6 { ("fd00:a::", "2001:db8::") } else { ("10.0.0.", "203.0.113.") };
        let near = (201..=220).map(|host: u8| if v6 { format!("{near}{host:x}") } else { format!("{near}{host}") });
        let far = (1..=20).map(|host: u8| if v6 { format!("{far}{host:x}") } else { format!("{far}{host}") });
        near.chain(far).map(|text| text.parse().expect("address")).collect()
    }

    fn plan(&self, seed: u64, count: usize, v6: bool) -> Plan {
        Plan { seed, count, sources: self.sources(v6) }
    }

    /// A socket in SYN_SENT: a listener's port at which the server's firewall keeps silent. Gives its SYN.
    fn waiting_at(&self, to: SocketAddr) -> Result<(Segment, std::thread::JoinHandle<Result<bool>>)> {
        let tap = Tap::open(self.client.node.netns())?;
        let peer = self.client.peer.clone();
        let connecting = std::thread::spawn(move || Ok(peer.connect(to, GIVE_UP)?.is_ok()));
        let syn = tap.wait("the SYN", LIMIT, |s| s.flags == TcpFlags::SYN && s.destination == to)?;
        Ok((syn, connecting))
    }

    fn speaker(&self, says: WorkloadRef, instance: Instance) -> Result<Speaker> {
        Ok(Speaker { tables: tables_of(&self.captured)?, says: Local { at: says, instance, flags: Flags::NONE } })
    }

    fn instance(&self, of: WorkloadRef) -> Instance {
        let peer = self.captured.peers.iter().find(|peer| peer.at == of);
        peer.expect("every workload is in every state").instance
    }

    /// From the attacker's pod to the server's listener.
    fn pod_address(&self, to: SocketAddr, port: u16) -> SocketAddr {
        let own = self.attacker_pod.addresses().both();
        SocketAddr::new(own[usize::from(to.is_ipv6())], port)
    }
}

fn silence(node: &Node, port: u16) -> Result<()> {
    node.netns().nft(&format!(
        "table inet firewall {{\n chain in {{\n type filter hook input priority 0\n tcp dport {port} drop\n }}\n }}\n"
    ))
}

fn honest_only(listener: &Listener, client: IpAddr, honest: usize) -> Result<()> {
    let accepted = listener.accepted()?;
    assert!(accepted.iter().all(|from| from.ip() == client), "accepted from elsewhere: {accepted:?}");
    assert_eq!(accepted.len(), honest, "every accepted connection was asked for by the client");
    Ok(())
}

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
