//! Inside one node: loopback, the node's own address, pods by theirs, and processes that belong to no workload (rules 9 and 15).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use datapath::count::Stage;
use datapath::event::{Kind, Peer as End, Proof};
use policy::reason::Reason;
use testbed::fleet::{Fleet, TCP, UDP};
use testbed::node::Node;
use testbed::peer::Peer;
use testbed::run::Run;
use testbed::world::World;

use crate::guarded::{Guarded, LIMIT, SILENCE};

const PORT: u16 = 5432;
/// IPv6 sockets bound to it take IPv4, too.
const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Ways from a node to itself, each with the address family that the kernel uses for it.
fn ways_home(node: &Node) -> Vec<SocketAddr> {
    let own = node.addresses().both();
    let own = own.iter().map(ToString::to_string);
    let loopback = ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"].map(str::to_owned);
    loopback.into_iter().chain(own).map(|text| SocketAddr::new(text.parse().expect("an address"), PORT)).collect()
}

fn one_node(run: &Run) -> Result<(World, Node)> {
    let world = World::one_cluster(run, 1)?;
    let node = world.clusters[0].nodes[0].clone();
    Ok((world, node))
}

#[test]
fn rule_15_workloads_of_a_node_reach_each_other_over_loopback_as_policy_says() -> Result<()> {
    let run = Run::start("home-loopback")?;
    let (world, node) = one_node(&run)?;
    let (web, cron, db) = (node.workload("web")?, node.workload("cron")?, node.workload("db")?);
    let mut fleet = Fleet::of(&world)?;
    let web_at = fleet.add(&node, &web, "web")?;
    fleet.add(&node, &cron, "cron")?;
    let db_at = fleet.add(&node, &db, "db")?;
    fleet.allow("web", "db", TCP, PORT..=PORT);
    let mut guarded = Guarded::attach([&node], &fleet)?;
    let (asking, refused, serving) = (web.peer()?, cron.peer()?, db.peer()?);
    let listener = serving.listen(ANY, PORT)?;
    let ways = ways_home(&node);
    for to in &ways {
        asking.request(*to, LIMIT)?.map_err(|failure| anyhow::anyhow!("{to}: {failure}"))?;
    }
    let opened: Vec<_> = guarded.events(&node)?.into_iter().filter(|event| event.kind == Kind::Open).collect();
    assert_eq!(opened.len(), 2 * ways.len(), "{opened:?}");
    for event in opened {
        let known = event.peer == End::Workload(web_at) || event.peer == End::Workload(db_at);
        assert!(known && event.proof == Proof::Proved, "{event:?}");
    }
    let before = guarded.refused(&node, Reason::DefaultDeny)?;
    for to in &ways {
        refused.connect(*to, SILENCE)?.err().expect("no rule");
    }
    assert!(guarded.refused(&node, Reason::DefaultDeny)? >= before + ways.len() as u64);
    assert_eq!(listener.accepted()?.len(), ways.len(), "the refused ones never got in");
    run.finish()
}

#[test]
fn rule_15_pods_of_a_node_are_reached_by_their_own_addresses() -> Result<()> {
    let run = Run::start("home-pods")?;
    let (world, node) = one_node(&run)?;
    let (web, db, near) = (node.pod("web", 101)?, node.pod("db", 102)?, node.workload("near")?);
    let mut fleet = Fleet::of(&world)?;
    for (workload, class) in [(&web, "web"), (&db, "db"), (&near, "near")] {
        fleet.add(&node, workload, class)?;
    }
    fleet.allow("web", "db", TCP, PORT..=PORT);
    fleet.allow("near", "db", TCP, PORT..=PORT);
    fleet.allow("db", "near", TCP, PORT + 1..=PORT + 1);
    let mut guarded = Guarded::attach([&node], &fleet)?;
    let (from_web, at_db, from_near) = (web.peer()?, db.peer()?, near.peer()?);
    for (pod, shared) in db.addresses().both().into_iter().zip(node.addresses().both()) {
        at_db.listen(pod, PORT)?;
        from_near.listen(shared, PORT + 1)?;
        from_web.request(SocketAddr::new(pod, PORT), LIMIT)??;
        from_near.request(SocketAddr::new(pod, PORT), LIMIT)??;
        at_db.request(SocketAddr::new(shared, PORT + 1), LIMIT)??;
        at_db.request(SocketAddr::new(pod, PORT), LIMIT)?.map_err(|f| anyhow::anyhow!("to itself: {f}"))?;
        assert!(from_web.connect(SocketAddr::new(shared, PORT + 1), SILENCE)?.is_err(), "no rule");
    }
    assert!(guarded.refused(&node, Reason::DefaultDeny)? >= 2);
    run.finish()
}

#[test]
fn rule_15_inside_one_workload_loopback_always_passes_pending_or_not() -> Result<()> {
    let run = Run::start("home-inside")?;
    let (world, node) = one_node(&run)?;
    let (app, other) = (node.workload("app")?, node.workload("other")?);
    let mut fleet = Fleet::of(&world)?;
    let app_at = fleet.add(&node, &app, "app")?;
    fleet.add(&node, &other, "other")?;
    for (round, pending) in [(0, true), (100, false)] {
        fleet.set_pending(app_at, pending);
        let mut guarded = Guarded::attach([&node], &fleet)?;
        let (inside, outside) = (app.peer()?, other.peer()?);
        let port = PORT + round;
        let listener = inside.listen(ANY, port)?;
        let ways: Vec<_> = ways_home(&node).into_iter().map(|to| SocketAddr::new(to.ip(), port)).collect();
        for to in &ways {
            // Own addresses are places: a pending workload is told so before it calls there.
            if pending && node.addresses().both().contains(&to.ip()) {
                continue;
            }
            let live = inside.connect(*to, LIMIT)?.map_err(|failure| anyhow::anyhow!("{to}: {failure}"))?;
            live.exchange(LIMIT)??;
            fleet.allow("app", "other", TCP, round + 1..=round + 1);
            guarded.apply([&node], &fleet)?;
            live.exchange(LIMIT)?.map_err(|failure| anyhow::anyhow!("{to} under a new epoch: {failure}"))?;
            assert_eq!(guarded.of(&node)?.sweep(node.netns().fd())?.cut, []);
            assert!(outside.connect(*to, SILENCE)?.is_err(), "{to}: another workload is not let in");
        }
        assert_eq!(listener.accepted()?.len(), if pending { ways.len() - 2 } else { ways.len() });
    }
    run.finish()
}

#[test]
fn rule_09_loopback_is_never_external_and_processes_in_no_workload_are_refused_with_a_code() -> Result<()> {
    let run = Run::start("home-unmanaged")?;
    let (world, node) = one_node(&run)?;
    let app = node.workload("app")?;
    let mut fleet = Fleet::of(&world)?;
    fleet.host = false;
    fleet.add(&node, &app, "app")?;
    let everywhere = ["127.0.0.0/8", "::1/128", "0.0.0.0/0", "::/0"].map(|prefix| prefix.parse().expect("a prefix"));
    fleet.external("everywhere", &everywhere);
    for protocol in [TCP, UDP] {
        fleet.allow("app", "everywhere", protocol, 1..=u16::MAX);
        fleet.allow("everywhere", "app", protocol, 1..=u16::MAX);
    }
    let mut guarded = Guarded::attach([&node], &fleet)?;
    let (inside, outside) = (app.peer()?, Peer::start(node.host())?);
    let daemon = outside.listen(ANY, PORT)?;
    let protected = inside.listen(ANY, PORT + 1)?;
    inside.udp_echo(ANY, PORT + 1)?;
    for to in ways_home(&node) {
        let before = guarded.refused(&node, Reason::FleetAddressPlain)?;
        assert!(inside.connect(to, SILENCE)?.is_err(), "{to}: a daemon that is nobody's");
        let told: Vec<_> =
            guarded.events(&node)?.into_iter().filter(|e| matches!(e.kind, Kind::Refused { .. })).collect();
        assert!(!told.is_empty(), "{to}");
        for event in &told {
            assert_eq!(event.reason, Some(Reason::FleetAddressPlain), "{event:?}");
            assert!(matches!(event.kind, Kind::Refused { reset: true, .. }), "at once: {event:?}");
        }
        let after = guarded.refused(&node, Reason::FleetAddressPlain)?;
        assert!(after > before, "{to}: counted");
        assert!(
            outside.connect(SocketAddr::new(to.ip(), PORT + 1), SILENCE)?.is_err(),
            "{to}: a caller that is nobody's"
        );
        assert!(guarded.refused(&node, Reason::FleetAddressPlain)? > after, "{to}: counted");
    }
    assert!(outside.udp_request(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT + 1), SILENCE)?.is_err());
    assert_eq!(guarded.refused(&node, Reason::UdpUnannounced)?, 1);
    assert_eq!((daemon.accepted()?.len(), protected.accepted()?.len()), (0, 0));
    assert_eq!(guarded.stage(&node, Stage::ExternalOk)?, 0);
    // Between processes that are nobody's nothing is judged.
    outside.request(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT), LIMIT)??;
    run.finish()
}

#[test]
fn rule_15_the_host_is_a_workload_like_any_other_on_loopback() -> Result<()> {
    let run = Run::start("home-host")?;
    let (world, node) = one_node(&run)?;
    let app = node.workload("app")?;
    let mut fleet = Fleet::of(&world)?;
    fleet.add(&node, &app, "app")?;
    fleet.allow("host", "app", TCP, PORT..=PORT);
    fleet.allow("app", "host", TCP, PORT + 1..=PORT + 1);
    let mut guarded = Guarded::attach([&node], &fleet)?;
    let (inside, host) = (app.peer()?, Peer::start(node.host())?);
    let listeners = [inside.listen(ANY, PORT)?, inside.listen(ANY, PORT + 2)?];
    host.listen(ANY, PORT + 1)?;
    let at = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    host.request(at(PORT), LIMIT)??;
    inside.request(at(PORT + 1), LIMIT)??;
    assert!(host.connect(at(PORT + 2), SILENCE)?.is_err(), "app's side has no rule for it");
    assert_eq!(listeners[1].accepted()?, []);
    assert!(guarded.refused(&node, Reason::DefaultDeny)? >= 1);
    run.finish()
}

#[test]
fn rule_15_datagrams_between_workloads_of_a_node_are_judged_over_loopback() -> Result<()> {
    let run = Run::start("home-udp")?;
    let (world, node) = one_node(&run)?;
    let (web, cron, dns) = (node.workload("web")?, node.workload("cron")?, node.workload("dns")?);
    let mut fleet = Fleet::of(&world)?;
    for (workload, class) in [(&web, "web"), (&cron, "cron"), (&dns, "dns")] {
        fleet.add(&node, workload, class)?;
    }
    fleet.allow("web", "dns", UDP, PORT..=PORT);
    let mut guarded = Guarded::attach([&node], &fleet)?;
    let (asking, refused, serving) = (web.peer()?, cron.peer()?, dns.peer()?);
    let bound: [IpAddr; 3] = ["127.0.0.1", "127.9.9.9", "::1"].map(|text| text.parse().expect("an address"));
    bound.iter().try_for_each(|address| serving.udp_echo(*address, PORT).map(drop))?;
    for to in [bound[0], bound[1], bound[2], Ipv4Addr::UNSPECIFIED.into()].map(|address| SocketAddr::new(address, PORT))
    {
        let before = guarded.refused(&node, Reason::DefaultDeny)?;
        asking.udp_request(to, LIMIT)?.map_err(|failure| anyhow::anyhow!("{to}: {failure}"))?;
        assert_eq!(guarded.refused(&node, Reason::DefaultDeny)?, before, "{to}");
        assert!(refused.udp_request(to, SILENCE)?.is_err(), "{to}");
        assert_eq!(guarded.refused(&node, Reason::DefaultDeny)?, before + 1, "{to}");
    }
    run.finish()
}
