//! PROTOCOL's rule 8, second half: sockets without a stamp and sockets that the kernel made are resolved by their cgroup.
//!
//! What of the kernel has TCP sockets of its own here: MPTCP, whose every path is a socket that the kernel makes (no
//! `sock_create`) and connects (no `connect` hook; further paths from a kernel thread). It has the code paths of file systems
//! and block devices over TCP, which a kernel without modules, as in these tests, need not have. For UDP there is VXLAN.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use datapath::Datapath;
use datapath::event::Kind;
use policy::reason::Reason;
use testbed::fleet::{Fleet, TCP};
use testbed::node::{Node, Workload};
use testbed::peer::Peer;
use testbed::process::{Place, Process, Program};
use testbed::run::Run;
use testbed::wait;
use testbed::world::World;

use crate::guarded::{Guarded, LIMIT, SILENCE};

const PORT: u16 = 5432;
/// `socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP)`.
const MPTCP: u32 = 262;

struct Pair {
    run: Run,
    world: World,
    fleet: Fleet,
    web: Workload,
    cron: Workload,
    db: Workload,
}

impl Pair {
    /// `web` on the first node may reach `db` on the second; `cron` beside `web` may not. Nothing is attached yet.
    fn start(name: &str) -> Result<Self> {
        let run = Run::start(name)?;
        let world = World::one_cluster(&run, 2)?;
        let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
        let (web, cron, db) = (a.workload("web")?, a.workload("cron")?, b.workload("db")?);
        let mut fleet = Fleet::of(&world)?;
        for (node, workload, class) in [(a, &web, "web"), (a, &cron, "cron"), (b, &db, "db")] {
            fleet.add(node, workload, class)?;
        }
        fleet.allow("web", "db", TCP, PORT..=PORT);
        Ok(Self { run, world, fleet, web, cron, db })
    }

    fn nodes(&self) -> [Node; 2] {
        let [a, b] = &self.world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
        [a.clone(), b.clone()]
    }

    fn at(&self) -> SocketAddr {
        SocketAddr::new(self.nodes()[1].addresses().v4.into(), PORT)
    }
}

fn script(text: &str) -> Program {
    Program::new("perl").args(["-MSocket=:all", "-e", text].map(str::to_owned))
}

fn v4(to: SocketAddr) -> String {
    format!("pack_sockaddr_in({}, inet_aton('{}'))", to.port(), to.ip())
}

/// An echo server whose listener is TCP (0) or MPTCP.
fn serve(place: &Place, protocol: u32) -> Result<Process> {
    let text = format!(
        "$SIG{{CHLD}} = 'IGNORE'; socket(my $s, AF_INET, SOCK_STREAM, {protocol}) or die $!; \
         bind($s, pack_sockaddr_in({PORT}, INADDR_ANY)) or die $!; listen($s, 16) or die $!; $| = 1; print \"up\\n\"; \
         while (accept(my $c, $s)) {{ print \"in\\n\"; if (!fork) {{ while (sysread($c, my $b, 64)) {{ syswrite($c, $b); }} exit; }} }}"
    );
    let serving = place.start(script(&text).named("serving"))?;
    wait::until("the listener", LIMIT, || serving.log_text().contains("up").then_some(()))?;
    Ok(serving)
}

fn let_in(serving: &Process) -> usize {
    serving.log_text().matches("in\n").count()
}

/// What stood before the attach is marked as older, and its listeners learn to answer with identity.
fn repair(guarded: &mut Guarded, node: &Node) -> Result<()> {
    let datapath: &mut Datapath = guarded.of(node)?;
    datapath.repair_listeners(node.netns().fd())?;
    datapath.listeners(node.netns().fd())?;
    datapath.all_marked();
    Ok(())
}

/// A listener without a stamp: an allowed workload gets in with identity, a denied one does not.
fn resolved_by_cgroup(name: &str, protocol: u32) -> Result<()> {
    let pair = Pair::start(name)?;
    let [a, b] = pair.nodes();
    let serving = serve(pair.db.place(), protocol)?;
    let mut guarded = Guarded::attach([&a, &b], &pair.fleet)?;
    repair(&mut guarded, &b)?;
    pair.web.peer()?.connect(pair.at(), LIMIT)??.exchange(LIMIT)??;
    assert!(pair.cron.peer()?.connect(pair.at(), SILENCE)?.is_err());
    assert_eq!(let_in(&serving), 1);
    assert!(guarded.refused(&a, Reason::DefaultDeny)? + guarded.refused(&b, Reason::DefaultDeny)? >= 1);
    let opened: Vec<_> = guarded.events(&b)?.into_iter().filter(|event| event.kind == Kind::Open).collect();
    assert_eq!(opened.len(), 1, "with both identities: {opened:?}");
    pair.run.finish()
}

#[test]
fn rule_08_a_listener_without_a_stamp_is_resolved_by_its_cgroup() -> Result<()> {
    resolved_by_cgroup("kernel-unstamped", 0)
}

#[test]
fn rule_08_a_listener_that_the_kernel_made_is_resolved_by_its_cgroup() -> Result<()> {
    resolved_by_cgroup("kernel-listener", MPTCP)
}

#[test]
fn rule_08_a_listener_of_no_workload_never_speaks_for_one_and_is_denied_where_the_host_is_protected() -> Result<()> {
    let mut pair = Pair::start("kernel-nobody")?;
    let [a, b] = pair.nodes();
    let serving = serve(b.host(), 0)?;
    let stranger = Peer::start(&pair.world.clusters[0].stranger("stranger", 200)?.place)?;
    pair.fleet.host = false;
    let mut guarded = Guarded::attach([&a, &b], &pair.fleet)?;
    repair(&mut guarded, &b)?;
    // A process in no workload is not judged, but it has no identity either: no workload takes it for one.
    stranger.connect(pair.at(), LIMIT)??.exchange(LIMIT)??;
    let before = let_in(&serving);
    assert!(pair.web.peer()?.connect(pair.at(), SILENCE)?.is_err());
    assert!(guarded.refused(&a, Reason::OptionMissing)? >= 1);
    assert_eq!(let_in(&serving), before);
    assert!(guarded.events(&b)?.iter().all(|event| event.kind != Kind::Open));
    // Protected by name, it is the host's.
    (pair.fleet.host, pair.fleet.protect_host) = (true, true);
    guarded.apply([&a, &b], &pair.fleet)?;
    assert!(stranger.connect(pair.at(), SILENCE)?.is_err());
    assert!(guarded.refused(&b, Reason::ExternalDeny)? + guarded.refused(&b, Reason::FleetAddressPlain)? >= 1);
    assert_eq!(let_in(&serving), before);
    pair.run.finish()
}

/// Opens an MPTCP socket, says so, and calls when it is told to (a line on a file that appears).
fn call_later(from: &Workload, to: SocketAddr, go: &std::path::Path) -> Result<Process> {
    let text = format!(
        "socket(my $s, AF_INET, SOCK_STREAM, {MPTCP}) or die $!; $| = 1; print \"open\\n\"; \
         select(undef, undef, undef, 0.02) until -e '{}'; setsockopt($s, SOL_SOCKET, 20, pack('qq', 1, 0)); \
         setsockopt($s, SOL_SOCKET, 21, pack('qq', 1, 0)); alarm 2; $SIG{{ALRM}} = sub {{ print \"silence\\n\"; exit 1 }}; \
         connect($s, {}) or do {{ print \"errno \", $!+0, \"\\n\"; exit 1 }}; syswrite($s, 'q'); sysread($s, my $b, 1); \
         print $b eq 'q' ? \"through\\n\" : \"cut\\n\";",
        go.display(),
        v4(to)
    );
    let calling = from.place().start(script(&text).named("calling"))?;
    wait::until("the socket", LIMIT, || calling.log_text().contains("open").then_some(()))?;
    Ok(calling)
}

#[test]
fn rule_08_a_call_that_the_kernel_makes_is_judged_as_its_cgroups() -> Result<()> {
    let mut pair = Pair::start("kernel-call")?;
    let [a, b] = pair.nodes();
    let outside = pair.world.clusters[0].stranger("outside", 201)?;
    let to = SocketAddr::new(outside.addresses.v4.into(), PORT);
    let serving = serve(&outside.place, 0)?;
    pair.fleet.external("outside", &outside.addresses.both().map(Into::into));
    // Who may come in from there is another question than who may call there.
    pair.fleet.allow("outside", "cron", TCP, 1..=u16::MAX);
    pair.fleet.allow("web", "outside", TCP, PORT..=PORT);
    let go = a.dir().join("go");
    let calls = [call_later(&pair.cron, to, &go)?, call_later(&pair.web, to, &go)?];
    let mut guarded = Guarded::attach([&a, &b], &pair.fleet)?;
    for node in [&a, &b] {
        repair(&mut guarded, node)?;
    }
    std::fs::write(&go, "").context("the signal to call")?;
    for call in &calls {
        call.wait(LIMIT)?;
    }
    let [cron, web] = calls.map(|call| call.log_text());
    assert!(web.contains("through"), "it may: {web}");
    assert!(!cron.contains("through"), "it may not: {cron}");
    assert_eq!(let_in(&serving), 1);
    assert!(guarded.refused(&a, Reason::ExternalDeny)? >= 1);
    pair.run.finish()
}

#[test]
fn rule_08_a_path_that_a_kernel_thread_connects_is_judged_as_its_sockets_workloads() -> Result<()> {
    let mut pair = Pair::start("kernel-path")?;
    let [a, b] = pair.nodes();
    let outside = pair.world.clusters[0].stranger("outside", 201)?;
    let to = SocketAddr::new(outside.addresses.v4.into(), PORT);
    let serving = serve(&outside.place, MPTCP)?;
    let ip =
        |place: &Place, words: &str| place.output(Program::new("ip").args(words.split(' ').map(str::to_owned)), LIMIT);
    ip(a.host(), "mptcp limits set subflows 2 add_addr_accepted 2")?;
    ip(&outside.place, "mptcp limits set subflows 2 add_addr_accepted 2")?;
    pair.fleet.external("outside", &outside.addresses.both().map(Into::into));
    let text = format!(
        "socket(my $s, AF_INET, SOCK_STREAM, {MPTCP}) or die $!; connect($s, {}) or die $!; $| = 1; \
         for (1 .. 2000) {{ syswrite($s, 'q') or last; sysread($s, my $b, 1) or last; print \"x\"; \
         select(undef, undef, undef, 0.01); }}",
        v4(to)
    );
    let calling = pair.cron.place().start(script(&text).named("calling"))?;
    wait::until("an exchange", LIMIT, || (calling.log_text().len() > 3).then_some(()))?;
    assert_eq!(let_in(&serving), 1);
    let mut guarded = Guarded::attach([&a, &b], &pair.fleet)?;
    for node in [&a, &b] {
        repair(&mut guarded, node)?;
    }
    // The connection is older and goes on; the path that is added now is new, and its call is a kernel thread's.
    let paths = || -> Result<usize> {
        let text = ip(a.host(), "-4 -o addr show dev br0")?;
        anyhow::ensure!(!text.is_empty(), "an address");
        let ss =
            Program::new("ss").args(["-Htn", "state", "established", "dport", &format!("= {PORT}")].map(str::to_owned));
        Ok(a.host().output(ss, LIMIT)?.lines().count())
    };
    let before = paths()?;
    ip(a.host(), "addr add 10.0.0.77/24 dev br0")?;
    ip(a.host(), "mptcp endpoint add 10.0.0.77 dev br0 subflow")?;
    wait::until_ok(
        "the path's refusal",
        LIMIT,
        || Ok((guarded.refused(&a, Reason::ExternalDeny)? >= 1).then_some(())),
    )?;
    assert_eq!(paths()?, before, "no second path");
    pair.run.finish()
}

#[test]
fn rule_08_what_is_sent_through_a_kernels_tunnel_is_judged_by_its_sockets() -> Result<()> {
    let mut pair = Pair::start("kernel-vxlan")?;
    let [a, b] = pair.nodes();
    let (inside, outside) = (a.pod("inside", 101)?, pair.world.clusters[0].stranger("outside", 201)?);
    pair.fleet.add(&a, &inside, "inside")?;
    let tunnel = |place: &Place, own: &str, other: String| {
        let lines = format!(
            "ip link add vx0 type vxlan id 7 remote {other} dstport 4789 && ip addr add {own}/24 dev vx0 && ip link set vx0 up"
        );
        place.output(Program::new("sh").args(["-c".to_owned(), lines]), LIMIT)
    };
    tunnel(inside.place(), "172.31.7.1", outside.addresses.v4.to_string())?;
    tunnel(&outside.place, "172.31.7.2", inside.addresses().v4.to_string())?;
    let serving = serve(&outside.place, 0)?;
    let through: SocketAddr = format!("172.31.7.2:{PORT}").parse()?;
    let asking = inside.peer()?;
    wait::until_ok("the tunnel", LIMIT, || Ok(asking.request(through, LIMIT)?.ok()))?;
    let before = let_in(&serving);
    let mut guarded = Guarded::attach([&a, &b], &pair.fleet)?;
    let failure = asking.connect(through, LIMIT)?.err().context("no rule allows what is in the tunnel")?;
    assert!(failure.is_refused(), "{failure}");
    assert_eq!(guarded.refused(&a, Reason::ExternalDeny)?, 1);
    assert_eq!(let_in(&serving), before);
    pair.run.finish()
}
