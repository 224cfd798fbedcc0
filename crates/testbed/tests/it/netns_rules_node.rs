//! PROTOCOL's rules by name, as a workload might try to get around them with its own sockets: rules 5, 7, 8, 14 and 15.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use datapath::count::Stage;
use datapath::event::{Event, Kind};
use datapath::{Datapath, Options};
use handshake::segment::TcpFlags;
use policy::reason::Reason;
use testbed::attack::tap::Tap;
use testbed::fleet::{Fleet, TCP, UDP};
use testbed::node::{Node, Workload};
use testbed::peer::Peer;
use testbed::process::{Process, Program};
use testbed::run::Run;
use testbed::wait;
use testbed::world::World;

use crate::guarded::{Guarded, LIMIT, SILENCE};

const PORT: u16 = 5432;
const EPERM: i32 = 1;
const ECONNREFUSED: i32 = 111;

/// `web` on the first node may reach `db` on the second; `cron` beside `web` may not.
struct Pair {
    run: Run,
    world: World,
    fleet: Fleet,
    guarded: Guarded,
    web: Workload,
    cron: Workload,
    db: Workload,
}

impl Pair {
    fn start(name: &str) -> Result<Self> {
        let run = Run::start(name)?;
        let world = World::one_cluster(&run, 2)?;
        let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
        let (web, cron, db) = (a.workload("web")?, a.workload("cron")?, b.workload("db")?);
        let mut fleet = Fleet::of(&world)?;
        fleet.add(a, &web, "web")?;
        fleet.add(a, &cron, "cron")?;
        fleet.add(b, &db, "db")?;
        fleet.allow("web", "db", TCP, PORT..=PORT);
        let guarded = Guarded::attach([a, b], &fleet)?;
        Ok(Self { run, world, fleet, guarded, web, cron, db })
    }

    fn nodes(&self) -> [Node; 2] {
        let [a, b] = &self.world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
        [a.clone(), b.clone()]
    }

    /// Where `db` serves.
    fn at(&self) -> [SocketAddr; 2] {
        self.nodes()[1].addresses().both().map(|address| SocketAddr::new(address, PORT))
    }

    fn refused(&mut self, reason: Reason) -> Result<u64> {
        let [a, b] = self.nodes();
        Ok(self.guarded.refused(&a, reason)? + self.guarded.refused(&b, reason)?)
    }
}

fn script(text: &str) -> Program {
    Program::new("perl").args(["-MSocket=:all", "-e", text].map(str::to_owned))
}

/// Runs perl as a workload. The script's exit status is an errno; 0 = it went through.
fn perl(workload: &Workload, text: &str) -> Result<i32> {
    let finished = workload.place().finished(script(text), LIMIT)?;
    finished.status.code().with_context(|| format!("{text}: {:?} {}", finished.status, finished.stderr))
}

/// `sockaddr_in` of an address, for perl.
fn v4(to: SocketAddr) -> String {
    format!("pack_sockaddr_in({}, inet_aton('{}'))", to.port(), to.ip())
}

#[test]
fn rule_05_a_call_with_fast_open_is_refused_before_it_sends_anything() -> Result<()> {
    let mut pair = Pair::start("node-tfo")?;
    let _serving = pair.db.peer()?.listen(pair.at()[0].ip(), PORT)?;
    let to = v4(pair.at()[0]);
    let tap = Tap::open(pair.nodes()[0].netns())?;
    for (number, call) in (1..).zip([
        format!("defined send($s, 'x', 0x20000000, {to}) or exit $!+0;"),
        format!("setsockopt($s, 6, 30, 1) or exit 99; connect($s, {to}) or exit $!+0;"),
    ]) {
        let errno = perl(&pair.web, &format!("socket(my $s, AF_INET, SOCK_STREAM, 0); {call}"))?;
        assert_eq!(errno, ECONNREFUSED, "{call}");
        assert_eq!(pair.refused(Reason::DataBeforeProof)?, number);
    }
    assert_eq!(tap.heard(|s| s.destination.port() == PORT), []);
    pair.run.finish()
}

#[test]
fn rule_05_a_fast_open_listener_never_gets_data_before_the_proof() -> Result<()> {
    let run = Run::start("node-tfo-listen")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (db, outsider) = (b.workload("db")?, world.clusters[0].stranger("caller", 200)?);
    let mut fleet = Fleet::of(&world)?;
    fleet.add(b, &db, "db")?;
    // Even where the plain caller itself is allowed in, and asks for no cookie.
    fleet.external("callers", &outsider.addresses.both().map(Into::into));
    fleet.allow("callers", "db", TCP, PORT..=PORT);
    for netns in [b.netns(), outsider.place.netns()] {
        netns.enter(|| Ok(std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1543")?))?;
    }
    let listen = "socket(my $s, AF_INET, SOCK_STREAM, 0); setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1); \
                  setsockopt($s, 6, 23, 16) or die $!; bind($s, pack_sockaddr_in(5432, INADDR_ANY)) or die $!; \
                  listen($s, 16) or die $!; while (accept(my $c, $s)) { sysread($c, my $b, 4); syswrite($c, $b); }";
    let send = format!(
        "socket(my $s, AF_INET, SOCK_STREAM, 0); setsockopt($s, SOL_SOCKET, 20, pack('qq', 3, 0)); \
         defined send($s, 'data', 0x20000000, {}) or exit $!+0; sysread($s, my $b, 4); exit($b eq 'data' ? 0 : 1);",
        v4(SocketAddr::new(b.addresses().v4.into(), PORT))
    );
    let _listening: Process = db.start(script(listen))?;
    let ask = || -> Result<bool> {
        let tap = Tap::open(b.netns())?;
        let asked = outsider.place.finished(script(&send), LIMIT)?;
        anyhow::ensure!(asked.status.success(), "the answer came: {}", asked.stderr);
        let data = tap.wait("data sent with the SYN", LIMIT, |s| {
            s.flags.contains(TcpFlags::SYN) && s.destination.port() == PORT && !s.payload.is_empty()
        })?;
        // The server's SYN-ACK acknowledged the data, or only the SYN.
        let first = tap.wait("a SYN-ACK", LIMIT, |s| s.flags == TcpFlags::SYN_ACK && s.source.port() == PORT)?;
        Ok(first.ack == data.seq.wrapping_add(1 + 4))
    };
    wait::until_ok("Fast Open without enforcement", LIMIT, || Ok(ask().ok())).and_then(|open| {
        if open { Ok(()) } else { bail!("control: data is taken with the SYN where nothing is enforced") }
    })?;
    let mut guarded = Guarded::attach([a, b], &fleet)?;
    assert!(!ask()?, "the data waited for the handshake");
    assert!(guarded.refused(b, Reason::DataBeforeProof)? > 0);
    run.finish()
}

#[test]
fn rule_07_md5_leaves_no_room_and_is_refused_with_a_code() -> Result<()> {
    let mut pair = Pair::start("node-md5")?;
    let [a, b] = pair.nodes();
    let listener = pair.db.peer()?.listen(pair.at()[0].ip(), PORT)?;
    // TCP_MD5SIG for the server: struct tcp_md5sig with a key of four bytes.
    let to = v4(pair.at()[0]);
    let call = format!(
        "socket(my $s, AF_INET, SOCK_STREAM, 0); \
         setsockopt($s, 6, 14, pack('a128 CCSla80', {to}, 0, 0, 4, 0, 'abcd')) or exit 99; \
         setsockopt($s, 6, 18, 300); alarm 1; connect($s, {to}) or exit $!+0;"
    );
    let ended = pair.web.place().finished(script(&call), LIMIT)?;
    assert!(!ended.status.success() && ended.status.code() != Some(99), "{ended:?}");
    let told = pair.guarded.events(&a)?;
    let [event] = &told[..] else { panic!("one record: {told:?}") };
    assert_eq!((event.reason, event.remote_address), (Some(Reason::NoOptionSpace), pair.at()[0]));
    assert!(matches!(event.kind, Kind::Refused { reset: true, .. }), "the caller is told at once: {event:?}");
    assert_eq!(pair.guarded.refused(&a, Reason::NoOptionSpace)?, 1);
    assert!(pair.guarded.refused(&b, Reason::NoOptionSpace)? == 0 && listener.accepted()?.is_empty());
    pair.run.finish()
}

#[test]
fn rule_07_v4_mapped_sockets_are_judged_by_the_address_in_the_packet() -> Result<()> {
    let mut pair = Pair::start("node-mapped")?;
    let (asking, refused, serving) = (pair.web.peer()?, pair.cron.peer()?, pair.db.peer()?);
    let listener = serving.listen("::".parse()?, PORT)?;
    let to: SocketAddr = format!("[::ffff:{}]:{PORT}", pair.at()[0].ip()).parse()?;
    asking.request(to, LIMIT)??;
    assert!(refused.connect(to, SILENCE)?.is_err());
    assert_eq!(listener.accepted()?.len(), 1);
    assert!(pair.refused(Reason::DefaultDeny)? >= 1);
    pair.run.finish()
}

#[test]
fn rule_07_a_socket_that_turns_from_caller_to_listener_is_judged_as_one() -> Result<()> {
    let mut pair = Pair::start("node-turned")?;
    let [a, _] = pair.nodes();
    let _serving = pair.db.peer()?.listen(pair.at()[0].ip(), PORT)?;
    // An allowed call, disconnected; then the same socket listens. Its state must not let anybody in.
    let turn = format!(
        "socket(my $s, AF_INET, SOCK_STREAM, 0); connect($s, {}) or die $!; connect($s, pack('S x14', 0)) or die $!; \
         bind($s, pack_sockaddr_in(7000, INADDR_ANY)); listen($s, 16) or die $!; $| = 1; print \"up\\n\"; \
         while (accept(my $c, $s)) {{ print \"in\\n\"; sysread($c, my $b, 8); syswrite($c, $b); }}",
        v4(pair.at()[0])
    );
    let turned = pair.web.start(script(&turn).named("turned"))?;
    wait::until("the listener", LIMIT, || turned.log_text().contains("up").then_some(()))?;
    let caller = pair.db.peer()?;
    let to = SocketAddr::new(a.addresses().v4.into(), 7000);
    assert!(caller.request(to, SILENCE)?.is_err(), "no rule lets db reach web");
    assert!(!turned.log_text().contains("in\n"), "{}", turned.log_text());
    assert!(pair.refused(Reason::DefaultDeny)? >= 1);
    assert!(!events(&mut pair.guarded, &a)?.iter().any(|e| e.kind == Kind::Open && e.local_address.port() == 7000));
    pair.run.finish()
}

fn events(guarded: &mut Guarded, node: &Node) -> Result<Vec<Event>> {
    guarded.events(node)
}

#[test]
fn rule_08_mptcp_is_refused_in_a_protected_workload() -> Result<()> {
    let mut pair = Pair::start("node-mptcp")?;
    for family in ["AF_INET", "AF_INET6"] {
        let open = format!("socket(my $s, {family}, SOCK_STREAM, 262) or exit $!+0;");
        assert_eq!(perl(&pair.web, &open)?, EPERM);
    }
    assert_eq!(pair.refused(Reason::Mptcp)?, 2);
    pair.run.finish()
}

#[test]
fn rule_15_what_carries_data_around_the_handshake_is_not_opened_but_pings_are() -> Result<()> {
    let mut pair = Pair::start("node-raw")?;
    let [a, _] = pair.nodes();
    let open =
        |family: &str, kind: &str, protocol: u32| format!("socket(my $s, {family}, {kind}, {protocol}) or exit $!+0;");
    let mut refused = 0;
    // TCP, UDP, everything, a number that nobody has; UDP-Lite; SCTP both ways; SMC.
    for (kind, protocol) in [
        ("SOCK_RAW", 6),
        ("SOCK_RAW", 17),
        ("SOCK_RAW", 255),
        ("SOCK_RAW", 200),
        ("SOCK_DGRAM", 136),
        ("SOCK_STREAM", 132),
        ("5", 132),
        ("SOCK_STREAM", 256),
    ] {
        for family in ["AF_INET", "AF_INET6"] {
            let errno = perl(&pair.web, &open(family, kind, protocol))?;
            // 93, 94: this kernel has no such protocol, so that nothing was there to refuse.
            assert!([EPERM, 93, 94].contains(&errno), "{family} {kind} {protocol}: {errno}");
            refused += u64::from(errno == EPERM);
        }
    }
    assert!(refused >= 10, "raw sockets at least");
    assert_eq!(pair.guarded.refused(&a, Reason::RawSocket)?, refused);
    for (family, protocol) in [("AF_INET", 1), ("AF_INET6", 58)] {
        assert_eq!(perl(&pair.web, &open(family, "SOCK_RAW", protocol))?, 0, "ping");
    }
    // The host is not protected: it may, and nothing is told of it.
    let host = a.host().finished(script(&open("AF_INET", "SOCK_RAW", 255)), LIMIT)?;
    assert!(host.status.success(), "{}", host.stderr);
    assert_eq!(pair.guarded.refused(&a, Reason::RawSocket)?, refused);
    pair.run.finish()
}

#[test]
fn rule_15_a_sub_cgroup_belongs_to_the_nearest_workload_and_a_call_to_what_its_process_is_now() -> Result<()> {
    let mut pair = Pair::start("node-cgroups")?;
    let [a, b] = pair.nodes();
    let listener = pair.db.peer()?.listen(pair.at()[0].ip(), PORT)?;
    let (web, cron) = (pair.web.place().cgroup().path().to_owned(), pair.cron.place().cgroup().path().to_owned());
    let below = web.join("worker/deep");
    std::fs::create_dir_all(&below)?;
    let call = format!(
        "sub here {{ open(my $f, '>', \"$_[0]/cgroup.procs\") or die $!; print $f \"$$\\n\"; close $f or die $!; }} \
         socket(my $s, AF_INET, SOCK_STREAM, 0); here('FIRST'); here('THEN'); \
         setsockopt($s, 6, 18, 300); connect($s, {}) or exit $!+0; syswrite($s, 'question'); sysread($s, my $b, 8);",
        v4(pair.at()[0])
    );
    let as_one = |first: &std::path::Path, then: &std::path::Path| {
        call.replace("FIRST", &first.display().to_string()).replace("THEN", &then.display().to_string())
    };
    assert_eq!(perl(&pair.cron, &as_one(&cron, &below))?, 0, "created by cron, called from below web");
    assert_eq!(listener.accepted()?.len(), 1);
    let before = pair.guarded.refused(&b, Reason::DefaultDeny)?;
    assert_ne!(perl(&pair.web, &as_one(&web, &cron))?, 0, "created by web, called as cron");
    assert!(pair.guarded.refused(&b, Reason::DefaultDeny)? > before);
    assert_eq!(listener.accepted()?.len(), 1);
    assert!(pair.guarded.stage(&a, Stage::OpenedClient)? >= 1);
    std::fs::remove_dir(&below)?;
    std::fs::remove_dir(web.join("worker"))?;
    pair.run.finish()
}

#[test]
fn rule_07_what_was_open_before_its_process_became_a_workloads_is_older_not_refused() -> Result<()> {
    let run = Run::start("node-later")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (app, db) = (a.workload("app")?, b.workload("db")?);
    let mut fleet = Fleet::of(&world)?;
    fleet.host = false;
    let mut guarded = Guarded::attach([a, b], &fleet)?;
    for node in [a, b] {
        guarded.of(node)?.listeners(node.netns().fd())?;
        guarded.of(node)?.all_marked();
    }
    let (asking, serving): (Peer, Peer) = (app.peer()?, db.peer()?);
    let to = SocketAddr::new(b.addresses().v4.into(), PORT);
    serving.listen(to.ip(), PORT)?;
    let live = asking.connect(to, LIMIT)??;
    live.exchange(LIMIT)??;
    fleet.add(a, &app, "app")?;
    fleet.add(b, &db, "db")?;
    guarded.apply([a, b], &fleet)?;
    live.exchange(LIMIT)?.map_err(|failure| anyhow::anyhow!("older than its workload: {failure}"))?;
    assert_eq!(guarded.refused(a, Reason::NoVerdict)? + guarded.refused(b, Reason::NoVerdict)?, 0);
    for node in [a, b] {
        guarded.of(node)?.end_older(true);
    }
    assert_eq!(guarded.of(a)?.sweep(a.netns().fd())?.cut.len(), 1, "until its declared end");
    assert!(live.wait_end(LIMIT)?.is_err());
    run.finish()
}

#[test]
fn rule_07_what_opened_between_the_attach_and_the_first_state_is_older_not_refused() -> Result<()> {
    let run = Run::start("node-between")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (web, db) = (a.workload("web")?, b.workload("db")?);
    let mut fleet = Fleet::of(&world)?;
    fleet.add(a, &web, "web")?;
    fleet.add(b, &db, "db")?;
    fleet.allow("web", "db", TCP, PORT + 1..=PORT + 1);
    let mut datapaths = Vec::new();
    for node in [a, b] {
        let mut datapath = Datapath::attach(Options::new(node.cgroup().path(), node.bpffs()?))?;
        datapath.listeners(node.netns().fd())?;
        datapath.all_marked();
        datapaths.push((node, datapath));
    }
    let (asking, serving) = (web.peer()?, db.peer()?);
    let to = SocketAddr::new(b.addresses().v4.into(), PORT);
    let listeners = [serving.listen(to.ip(), PORT)?, serving.listen(to.ip(), PORT + 1)?];
    let live = asking.connect(to, LIMIT)??;
    for (node, datapath) in &mut datapaths {
        datapath.apply(&fleet.state(node))?;
    }
    live.exchange(LIMIT)?.map_err(|failure| anyhow::anyhow!("older than what is enforced: {failure}"))?;
    for (_, datapath) in &datapaths {
        assert_eq!(datapath.counters().refused(Reason::NoVerdict), 0);
    }
    // A listener of that time has learnt to answer with identity.
    asking.request(SocketAddr::new(to.ip(), PORT + 1), LIMIT)??;
    assert!(asking.connect(to, SILENCE)?.is_err(), "a new connection is judged");
    assert_eq!(listeners[0].accepted()?.len(), 1);
    run.finish()
}

#[test]
fn rule_01_a_datagram_does_not_leave_from_another_workloads_own_address() -> Result<()> {
    let run = Run::start("node-claim")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (web, pod, db) = (a.workload("web")?, a.pod("pod", 101)?, b.pod("db", 102)?);
    let mut fleet = Fleet::of(&world)?;
    for (node, workload, class) in [(a, &web, "web"), (a, &pod, "pod"), (b, &db, "db")] {
        fleet.add(node, workload, class)?;
    }
    for from in ["web", "pod"] {
        fleet.allow(from, "db", UDP, PORT..=PORT);
    }
    let mut guarded = Guarded::attach([a, b], &fleet)?;
    // IPV6_FREEBIND (78) lets anybody bind an address that is not there.
    let claim = |own: std::net::Ipv6Addr| {
        let to = format!("pack_sockaddr_in6({PORT}, inet_pton(AF_INET6, '{}'))", db.addresses().v6);
        format!(
            "socket(my $s, AF_INET6, SOCK_DGRAM, 0); setsockopt($s, 41, 78, 1) or exit 99; \
             bind($s, pack_sockaddr_in6(0, inet_pton(AF_INET6, '{own}'))) or exit 98; \
             defined send($s, 'claim', 0, {to}) or exit $!+0; connect($s, {to}) or exit $!+0;"
        )
    };
    assert_eq!(perl(&web, &claim(pod.addresses().v6))?, ECONNREFUSED);
    assert_eq!(guarded.refused(a, Reason::SourceMismatch)?, 1);
    assert_eq!(perl(&pod, &claim(pod.addresses().v6))?, 0, "its own it may");
    assert_eq!(perl(&web, &claim(a.addresses().v6))?, 0, "the shared one, too");
    run.finish()
}

#[test]
fn rule_14_a_revoked_workload_sends_no_more_datagrams() -> Result<()> {
    let mut pair = Pair::start("node-udp")?;
    let [a, b] = pair.nodes();
    let outside = pair.world.clusters[0].stranger("resolver", 201)?;
    pair.fleet.external("resolver", &outside.addresses.both().map(Into::into));
    pair.fleet.allow("web", "resolver", UDP, 53..=53);
    let nodes = [a.clone(), b.clone()];
    pair.guarded.apply(&nodes, &pair.fleet)?;
    let to = SocketAddr::new(outside.addresses.v4.into(), 53);
    let sink = "socket(my $s, AF_INET, SOCK_DGRAM, 0); bind($s, pack_sockaddr_in(53, INADDR_ANY)) or die; $| = 1; \
                print \"up\\n\"; while (defined recv($s, my $b, 64, 0)) { print $b; }";
    let sink = outside.place.start(script(sink).named("sink"))?;
    wait::until("the sink", LIMIT, || sink.log_text().contains("up").then_some(()))?;
    let send = format!(
        "socket(my $s, AF_INET, SOCK_DGRAM, 0); connect($s, {}) or die; $| = 1; \
         for (my $i = 0; $i < 2000; $i++) {{ send($s, \"$i\\n\", 0); select(undef, undef, undef, 0.005); print $i, \"\\n\"; }}",
        v4(to)
    );
    let sending = pair.web.start(script(&send).named("sender"))?;
    wait::until("some datagrams", LIMIT, || sink.log_text().contains("\n5\n").then_some(()))?;
    let web_at = pair.fleet.of_class("web").context("web is placed")?;
    pair.fleet.set_revoked(web_at, true);
    pair.guarded.apply(&nodes, &pair.fleet)?;
    // Stopped at once by the check of outgoing packets; for good by the sweep, after which that check is taken off.
    let last =
        |process: &Process| process.log_text().lines().filter_map(|line| line.parse::<u32>().ok()).max().unwrap_or(0);
    let at_revocation = last(&sending);
    wait::until("the sender to go on", LIMIT, || (last(&sending) > at_revocation + 40).then_some(()))?;
    assert!(last(&sink) <= at_revocation + 2, "{} of {}", last(&sink), at_revocation);
    let cut = pair.guarded.of(&a)?.sweep(a.netns().fd())?.cut;
    assert!(cut.iter().any(|cut| cut.reason == Some(Reason::Revoked)), "{cut:?}");
    pair.guarded.of(&a)?.settled()?;
    let swept = last(&sending);
    wait::until("the sender to go on", LIMIT, || (last(&sending) > swept + 40).then_some(()))?;
    assert!(last(&sink) <= at_revocation + 2, "{} of {}", last(&sink), at_revocation);
    pair.run.finish()
}
