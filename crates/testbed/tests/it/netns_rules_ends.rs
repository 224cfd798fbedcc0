//! PROTOCOL's rules by name, about other ends: external ones, datagrams and pings, what is revoked, and what is counted
//! (rules 9, 14, 16 and 17).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use datapath::capacity::Capacity;
use datapath::count::Stage;
use datapath::event::{Kind, Peer as End, Proof};
use datapath::{Datapath, Options};
use policy::reason::Reason;
use testbed::attack::tap::Tap;
use testbed::fleet::{Fleet, TCP, UDP};
use testbed::node::Workload;
use testbed::peer::Peer;
use testbed::process::Program;
use testbed::run::Run;
use testbed::wait;
use testbed::world::World;

use crate::guarded::{Guarded, LIMIT, SILENCE};

const PORT: u16 = 5432;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

fn everywhere() -> [ipnet::IpNet; 2] {
    ["0.0.0.0/0", "::/0"].map(|prefix| prefix.parse().expect("a prefix"))
}

#[test]
fn rule_09_a_fleet_address_without_identity_is_never_external() -> Result<()> {
    let run = Run::start("ends-fleet")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (web, db, pod) = (a.workload("web")?, b.workload("db")?, a.pod("pod", 101)?);
    let outside = world.outsider("caller", 201)?;
    let mut fleet = Fleet::of(&world)?;
    fleet.add(a, &web, "web")?;
    fleet.add(a, &pod, "web")?;
    fleet.add(b, &db, "db")?;
    fleet.external("everywhere", &everywhere());
    fleet.allow("web", "db", TCP, 1..=u16::MAX);
    fleet.allow("everywhere", "db", TCP, 1..=u16::MAX);
    // Nothing runs on the first node: its workloads call without identity, as one that strips its own would.
    let mut guarded = Guarded::attach([b], &fleet)?;
    let serving = db.peer()?;
    let callers = [web.peer()?, pod.peer()?];
    for address in b.addresses().both() {
        let listener = serving.listen(address, PORT)?;
        let to = SocketAddr::new(address, PORT);
        for caller in &callers {
            let before = guarded.refused(b, Reason::FleetAddressPlain)?;
            assert!(caller.connect(to, SILENCE)?.is_err());
            assert!(guarded.refused(b, Reason::FleetAddressPlain)? > before);
        }
        assert_eq!(listener.accepted()?, []);
    }
    // Control and rule 16: who is outside is external, and only that.
    world.clusters[0].gateway.forward("tcp", 15_000, b.addresses(), PORT)?;
    guarded.events(b)?;
    let caller = Peer::start(&outside.place)?;
    for address in world.clusters[0].gateway.outside().both() {
        caller.request(SocketAddr::new(address, 15_000), LIMIT)??;
    }
    let told = guarded.events(b)?;
    let opened: Vec<_> = told.iter().filter(|event| event.kind == Kind::Open).collect();
    assert_eq!(opened.len(), 2, "{told:?}");
    for event in opened {
        assert!(matches!(event.peer, End::External(_)) && event.proof == Proof::External, "{event:?}");
    }
    run.finish()
}

#[test]
fn rule_09_a_services_address_is_never_external_whatever_answers_there() -> Result<()> {
    let run = Run::start("ends-service")?;
    let world = World::two_clusters(&run)?;
    let [eu, us] = &world.clusters[..] else { panic!("two clusters were asked for") };
    let (web, db) = (eu.nodes[0].workload("web")?, us.nodes[0].workload("db")?);
    let outside = world.outsider("vip", 201)?;
    let mut fleet = Fleet::of(&world)?;
    fleet.add(&eu.nodes[0], &web, "web")?;
    let db_at = fleet.add(&us.nodes[0], &db, "db")?;
    fleet.external("everywhere", &everywhere());
    fleet.allow("web", "everywhere", TCP, 1..=u16::MAX);
    fleet.allow("web", "db", TCP, 1..=u16::MAX);
    // An address outside every prefix of the fleet, declared with a port only.
    fleet.service(&outside.addresses.both(), (TCP, PORT), PORT, &[db_at]);
    let mut guarded = Guarded::attach([&eu.nodes[0]], &fleet)?;
    let (asking, answering) = (web.peer()?, Peer::start(&outside.place)?);
    for address in outside.addresses.both() {
        let (declared, other) = (answering.listen(address, PORT)?, answering.listen(address, PORT + 1)?);
        let before = guarded.refused(&eu.nodes[0], Reason::OptionMissing)?;
        assert!(
            asking.connect(SocketAddr::new(address, PORT), SILENCE)?.is_err(),
            "a plain end at a Service's address"
        );
        assert!(guarded.refused(&eu.nodes[0], Reason::OptionMissing)? > before);
        asking.request(SocketAddr::new(address, PORT + 1), LIMIT)?.context("another port is external")?;
        assert_eq!((declared.accepted()?.len(), other.accepted()?.len()), (0, 1));
    }
    run.finish()
}

#[test]
fn rule_14_what_is_revoked_sends_nothing_more_although_its_peer_still_may() -> Result<()> {
    let run = Run::start("ends-egress")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (web, db) = (a.workload("web")?, b.workload("db")?);
    let mut fleet = Fleet::of(&world)?;
    let web_at = fleet.add(a, &web, "web")?;
    fleet.add(b, &db, "db")?;
    fleet.allow("web", "db", TCP, PORT..=PORT);
    let mut guarded = Guarded::attach([a, b], &fleet)?;
    let (asking, serving) = (web.peer()?, db.peer()?);
    let to = SocketAddr::new(b.addresses().v4.into(), PORT);
    serving.listen(to.ip(), PORT)?;
    let live = asking.connect(to, LIMIT)??;
    live.exchange(LIMIT)??;
    fleet.set_revoked(web_at, true);
    guarded.apply([a], &fleet)?;
    let tap = Tap::open(a.netns())?;
    assert!(live.exchange(SILENCE)?.is_err());
    assert_eq!(tap.heard(|s| s.destination == to && !s.payload.is_empty()), []);
    assert!(asking.connect(to, LIMIT)?.err().context("revoked")?.is_refused(), "a new call is refused at once");
    assert_eq!(guarded.stage(a, Stage::ConnectRefused)?, 1);
    run.finish()
}

/// Sends one datagram from a bound socket and waits for one, or only waits. The exit status is 0 when one came.
fn datagrams(own: u16, to: Option<SocketAddr>) -> Program {
    let send = to.map_or(String::new(), |to| {
        format!("send($s, 'question', 0, pack_sockaddr_in({}, inet_aton('{}'))) or exit 2;", to.port(), to.ip())
    });
    let text = format!(
        "socket(my $s, AF_INET, SOCK_DGRAM, 0); bind($s, pack_sockaddr_in({own}, INADDR_ANY)) or exit 3; {send} \
         my $r = ''; vec($r, fileno($s), 1) = 1; select($r, undef, undef, 0.4) or exit 1; recv($s, my $b, 64, 0); exit 0;"
    );
    Program::new("perl").args(["-MSocket=:all", "-e", &text].map(str::to_owned))
}

#[test]
fn rule_17_an_answer_passes_to_the_socket_that_asked_and_to_no_other() -> Result<()> {
    let run = Run::start("ends-answers")?;
    let world = World::one_cluster(&run, 1)?;
    let node = &world.clusters[0].nodes[0];
    let outside = world.clusters[0].stranger("resolver", 201)?;
    let web = node.workload("web")?;
    let mut fleet = Fleet::of(&world)?;
    fleet.add(node, &web, "web")?;
    fleet.external("resolver", &outside.addresses.both().map(Into::into));
    fleet.allow("web", "resolver", UDP, 53..=53);
    let mut guarded = Guarded::attach([node], &fleet)?;
    let serving = Peer::start(&outside.place)?;
    let resolver = SocketAddr::new(outside.addresses.v4.into(), 53);
    serving.udp_echo(resolver.ip(), 53)?;
    let ended = |program| Ok::<_, anyhow::Error>(web.place().finished(program, LIMIT)?.status.code());
    assert_eq!(ended(datagrams(7000, Some(resolver)))?, Some(0), "asked and answered");
    // The same address and port speaks to the same port of the same workload: another socket, nothing asked.
    let shout = format!(
        "socket(my $s, AF_INET, SOCK_DGRAM, 0); setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1); setsockopt($s, SOL_SOCKET, 15, 1); \
         bind($s, pack_sockaddr_in(54, INADDR_ANY)) or exit 3; \
         for (1..40) {{ send($s, 'unasked', 0, pack_sockaddr_in(7000, inet_aton('{}'))); select(undef, undef, undef, 0.02); }}",
        node.addresses().v4
    );
    let shouting =
        outside.place.start(Program::new("perl").args(["-MSocket=:all", "-e", &shout].map(str::to_owned)))?;
    assert_eq!(ended(datagrams(7000, None))?, Some(1), "nothing comes to a socket that asked nothing");
    assert!(guarded.refused(node, Reason::ExternalDeny)? > 0);
    drop(shouting);
    run.finish()
}

/// One echo request on a raw socket; 0 = a reply came.
fn ping(workload: &Workload, to: IpAddr) -> Result<i32> {
    let (family, protocol, request, reply, skip, at) = match to {
        IpAddr::V4(_) => ("AF_INET", ICMP, 8, 0, 20, "pack_sockaddr_in(0"),
        IpAddr::V6(_) => ("AF_INET6", ICMPV6, 128, 129, 0, "pack_sockaddr_in6(0"),
    };
    let text = format!(
        "socket(my $s, {family}, SOCK_RAW, {protocol}) or exit 3; my $m = pack('CCnnn', {request}, 0, 0, $$ & 0xffff, 1); \
         my $c = 0; $c += $_ for unpack('n*', $m); $c = ($c >> 16) + ($c & 0xffff); \
         substr($m, 2, 2, pack('n', ~$c & 0xffff)) if {protocol} == 1; \
         send($s, $m, 0, {at}, inet_pton({family}, '{to}'))) or exit 2; my $end = time + 1; \
         while (time <= $end) {{ my $r = ''; vec($r, fileno($s), 1) = 1; select($r, undef, undef, 0.4) or exit 1; \
         recv($s, my $b, 1500, 0); my ($t, undef, undef, $i) = unpack('x{skip} CCnn', $b); \
         exit 0 if $t == {reply} && $i == ($$ & 0xffff); }} exit 1;"
    );
    let program = Program::new("perl").args(["-MSocket=:all", "-e", &text].map(str::to_owned));
    let ended = workload.place().finished(program, LIMIT)?;
    ended.status.code().with_context(|| format!("{to}: {ended:?}"))
}

#[test]
fn pings_are_answered_as_policy_says_and_errors_always_pass() -> Result<()> {
    let run = Run::start("ends-icmp")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (web, cron, pod) = (a.workload("web")?, a.workload("cron")?, b.pod("pod", 101)?);
    let outside = world.clusters[0].stranger("router", 201)?;
    let mut fleet = Fleet::of(&world)?;
    for (node, workload, class) in [(a, &web, "web"), (a, &cron, "cron"), (b, &pod, "pod")] {
        fleet.add(node, workload, class)?;
    }
    fleet.external("router", &outside.addresses.both().map(Into::into));
    for protocol in [ICMP, ICMPV6] {
        fleet.allow("web", "pod", protocol, 0..=0);
        fleet.allow("web", "router", protocol, 0..=0);
    }
    fleet.allow("cron", "router", UDP, 9..=9);
    let mut guarded = Guarded::attach([a, b], &fleet)?;
    for to in pod.addresses().both().into_iter().chain(outside.addresses.both()) {
        assert_eq!(ping(&web, to)?, 0, "{to} is allowed");
        let refused = |guarded: &mut Guarded| -> Result<u64> {
            Ok(guarded.refused(a, Reason::DefaultDeny)? + guarded.refused(a, Reason::ExternalDeny)?)
        };
        let before = refused(&mut guarded)?;
        assert_eq!(ping(&cron, to)?, 1, "{to} has no rule");
        assert_eq!(refused(&mut guarded)?, before + 1, "{to}");
    }
    // Which of a node's workloads a ping would reach nobody can say.
    for to in b.addresses().both() {
        let before = guarded.refused(a, Reason::IcmpDeny)?;
        assert_eq!(ping(&web, to)?, 1);
        assert_eq!(guarded.refused(a, Reason::IcmpDeny)?, before + 1);
    }
    // Nobody listens at the allowed port: the error is the application's.
    let before = guarded.counters(a)?.refused;
    let asking = cron.peer()?;
    for to in outside.addresses.both() {
        let failure = asking.udp_request(SocketAddr::new(to, 9), LIMIT)?.err().context("nobody is there")?;
        assert!(failure.is_refused(), "port unreachable: {failure}");
    }
    assert_eq!(guarded.counters(a)?.refused, before);
    run.finish()
}

#[test]
fn every_denial_is_counted_also_where_there_is_no_cell_left() -> Result<()> {
    const CELLS: u32 = 8;
    let run = Run::start("ends-denials")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (web, db) = (a.workload("web")?, b.pod("db", 101)?);
    let mut fleet = Fleet::of(&world)?;
    fleet.add(a, &web, "web")?;
    fleet.add(b, &db, "db")?;
    let mut options = Options::new(a.cgroup().path(), a.bpffs()?);
    options.capacity = Capacity { denials: CELLS, ..Capacity::default() };
    let mut datapath = Datapath::attach(options)?;
    datapath.apply(&fleet.state(a))?;
    let asking = web.peer()?;
    let address = db.addresses().v4;
    // Each port is a cell of its own; each is asked for twice, the second time with all cells taken.
    for round in 1..=2u64 {
        for port in 1..=40 {
            assert!(
                asking.connect(SocketAddr::new(address.into(), port), LIMIT)?.err().context("no rule")?.is_refused()
            );
        }
        let denials = datapath.denials();
        assert_eq!(denials.total(), 40 * round, "{denials:?}");
        assert_eq!(denials.cells.len(), CELLS as usize);
        assert!(denials.cells.iter().all(|cell| cell.count == round), "{denials:?}");
        assert_eq!(denials.overflow[&Reason::DefaultDeny], (40 - u64::from(CELLS)) * round);
        let counters = datapath.counters();
        assert_eq!(counters.refused(Reason::DefaultDeny), 40 * round);
        assert_eq!(counters.stage(Stage::DenialOverflow), (40 - u64::from(CELLS)) * round);
    }
    // Nobody is counted twice when cells are asked for on several processors at once.
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let asking = asking.clone();
            std::thread::spawn(move || -> Result<()> {
                for port in 41..=60 {
                    assert!(asking.connect(SocketAddr::new(address.into(), port), Duration::from_secs(2))?.is_err());
                }
                Ok(())
            })
        })
        .collect();
    calls.into_iter().try_for_each(|call| call.join().expect("no panic"))?;
    wait::until("the last of them", LIMIT, || (datapath.denials().total() == 80 + 80).then_some(()))?;
    run.finish()
}
