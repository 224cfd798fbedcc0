//! Live connections under change: revocation, taken-back rules, agents that die and return, and what was there before.

use std::net::SocketAddr;

use anyhow::Result;
use datapath::count::Stage;
use datapath::event::{Kind, Peer};
use datapath::feature::Feature;
use datapath::walk::{Listener, SweepReport, WalkError};
use datapath::{Datapath, Options};
use policy::reason::Reason;
use testbed::fleet::{Fleet, TCP};
use testbed::node::{Node, Workload};
use testbed::run::Run;
use testbed::wait;
use testbed::world::World;

use crate::guarded::{Guarded, LIMIT, SILENCE};

const PORT: u16 = 5432;

/// `web` on the first node, `db` on the second, and a rule from one to the other.
struct Pair {
    run: Run,
    world: World,
    web: Workload,
    db: Workload,
    fleet: Fleet,
}

impl Pair {
    fn start(name: &str) -> Result<Self> {
        let run = Run::start(name)?;
        let world = World::one_cluster(&run, 2)?;
        let (web, db) = (world.clusters[0].nodes[0].workload("web")?, world.clusters[0].nodes[1].workload("db")?);
        let mut fleet = Fleet::of(&world)?;
        fleet.add(&world.clusters[0].nodes[0], &web, "web")?;
        fleet.add(&world.clusters[0].nodes[1], &db, "db")?;
        fleet.allow("web", "db", TCP, PORT..=PORT);
        Ok(Self { run, world, web, db, fleet })
    }

    fn nodes(&self) -> [&Node; 2] {
        let [a, b] = &self.world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
        [a, b]
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        self.nodes()[1].addresses().both().map(|address| SocketAddr::new(address, PORT))
    }
}

fn sweep(guarded: &mut Guarded, node: &Node) -> Result<SweepReport> {
    Ok(guarded.of(node)?.sweep(node.netns().fd())?)
}

#[test]
fn rule_14_a_revoked_workload_loses_its_connections_and_both_ends_see_a_reset() -> Result<()> {
    let mut pair = Pair::start("live-revoke")?;
    let mut guarded = Guarded::attach(pair.nodes(), &pair.fleet)?;
    let (asking, serving) = (pair.web.peer()?, pair.db.peer()?);
    for to in pair.addresses() {
        serving.listen(to.ip(), PORT)?;
    }
    let live: Vec<_> =
        pair.addresses().into_iter().map(|to| asking.connect(to, LIMIT)?.map_err(Into::into)).collect::<Result<_>>()?;
    for connection in &live {
        connection.exchange(LIMIT)??;
    }
    let [a, b] = pair.nodes().map(Node::clone);
    let web = guarded.events(&b)?.iter().find_map(|event| match event.peer {
        Peer::Workload(at) => Some(at),
        _ => None,
    });
    pair.fleet.set_revoked(web.expect("the opening names web"), true);
    guarded.apply([&b], &pair.fleet)?;
    let report = sweep(&mut guarded, &b)?;
    assert_eq!(report.cut.len(), 2, "{report:?}");
    assert!(report.cut.iter().all(|cut| cut.reason == Some(Reason::Revoked)), "{report:?}");
    guarded.of(&b)?.settled()?;
    for connection in live {
        let end = connection.wait_end(LIMIT)?.expect_err("not a clean end");
        assert!(end.is_reset(), "{end}");
    }
    assert_eq!(guarded.stage(&b, Stage::Cut)?, 2);
    assert!(sweep(&mut guarded, &a)?.cut.is_empty(), "the other end is gone already");
    pair.run.finish()
}

#[test]
fn rule_14_a_rule_taken_back_stops_a_connection_at_its_next_packet() -> Result<()> {
    let mut pair = Pair::start("live-rule")?;
    let [a, b] = pair.nodes().map(Node::clone);
    let mut guarded = Guarded::attach(pair.nodes(), &pair.fleet)?;
    let (asking, serving) = (pair.web.peer()?, pair.db.peer()?);
    let to = pair.addresses()[0];
    serving.listen(to.ip(), PORT)?;
    let live = asking.connect(to, LIMIT)??;
    live.exchange(LIMIT)??;
    pair.fleet.forget_rules();
    guarded.apply([&b], &pair.fleet)?;
    assert!(live.exchange(SILENCE)?.is_err());
    assert_eq!(guarded.refused(&b, Reason::DefaultDeny)?, 1, "told once, not for every packet");
    let cut = sweep(&mut guarded, &b)?.cut;
    assert_eq!(cut.len(), 1);
    assert!(live.wait_end(LIMIT)?.expect_err("cut").is_reset());
    assert_eq!(guarded.refused(&b, Reason::DefaultDeny)?, 1);
    assert_eq!(guarded.refused(&a, Reason::DefaultDeny)?, 0);
    pair.run.finish()
}

#[test]
fn a_policy_change_that_still_allows_disturbs_nothing() -> Result<()> {
    let mut pair = Pair::start("live-change")?;
    let mut guarded = Guarded::attach(pair.nodes(), &pair.fleet)?;
    let (asking, serving) = (pair.web.peer()?, pair.db.peer()?);
    let to = pair.addresses()[1];
    serving.listen(to.ip(), PORT)?;
    let live = asking.connect(to, LIMIT)??;
    for port in 1..20 {
        live.exchange(LIMIT)??;
        pair.fleet.allow("web", "db", TCP, port..=port);
        guarded.apply(pair.world.nodes(), &pair.fleet)?;
        for node in pair.world.nodes() {
            assert!(guarded.of(node)?.sweep(node.netns().fd())?.cut.is_empty());
        }
    }
    live.exchange(LIMIT)??;
    pair.run.finish()
}

#[test]
fn enforcement_stays_when_its_process_is_gone_and_is_taken_over_in_place() -> Result<()> {
    let mut pair = Pair::start("live-takeover")?;
    let [a, b] = pair.nodes().map(Node::clone);
    let cron = a.workload("cron")?;
    pair.fleet.add(&a, &cron, "cron")?;
    let guarded = Guarded::attach([&a, &b], &pair.fleet)?;
    let (asking, serving, refused) = (pair.web.peer()?, pair.db.peer()?, cron.peer()?);
    let to = pair.addresses()[0];
    let listener = serving.listen(to.ip(), PORT)?;
    let live = asking.connect(to, LIMIT)??;
    live.exchange(LIMIT)??;
    drop(guarded);
    live.exchange(LIMIT)??;
    asking.request(to, LIMIT)??;
    assert!(refused.connect(to, SILENCE)?.is_err());
    let mut again = Guarded::attach([&a, &b], &pair.fleet)?;
    for node in [&a, &b] {
        assert!(again.of(node)?.taken_over());
    }
    live.exchange(LIMIT)??;
    asking.request(to, LIMIT)??;
    assert!(refused.connect(to, SILENCE)?.is_err());
    assert_eq!(listener.accepted()?.len(), 3, "the refused one never got in");
    assert_eq!(again.stage(&b, Stage::OpenedServer)?, 3, "counters go on");
    pair.run.finish()
}

#[test]
fn a_listener_older_than_the_attach_is_repaired_in_place() -> Result<()> {
    let pair = Pair::start("live-repair")?;
    let b = pair.nodes()[1];
    let (asking, serving) = (pair.web.peer()?, pair.db.peer()?);
    let to = pair.addresses()[0];
    serving.listen(to.ip(), PORT)?;
    let mut guarded = Guarded::attach(pair.nodes(), &pair.fleet)?;
    assert!(asking.connect(to, SILENCE)?.is_err(), "its SYN-ACK carries no identity");
    let of_port = |listeners: Vec<Listener>| listeners.into_iter().find(|listener| listener.address.port() == PORT);
    let before = of_port(guarded.of(b)?.listeners(b.netns().fd())?.listeners).expect("it listens");
    assert!(!before.labels && before.local.slot.is_some(), "{before:?}");
    if !guarded.of(b)?.features().contains(&Feature::ListenerRepair) {
        let absent = guarded.of(b)?.repair_listeners(b.netns().fd());
        assert!(matches!(absent, Err(WalkError::Absent(Feature::ListenerRepair))), "{absent:?}");
        assert!(asking.connect(to, SILENCE)?.is_err(), "it stays as it was, and was reported");
        return pair.run.finish();
    }
    let repaired = of_port(guarded.of(b)?.repair_listeners(b.netns().fd())?.listeners).expect("it listens");
    assert!(repaired.labels && repaired.repaired, "{repaired:?}");
    asking.request(to, LIMIT)??;
    pair.run.finish()
}

#[test]
fn rule_07_a_connection_older_than_the_attach_lives_until_its_declared_end() -> Result<()> {
    let pair = Pair::start("live-older")?;
    let [a, b] = pair.nodes();
    let (asking, serving) = (pair.web.peer()?, pair.db.peer()?);
    let to = pair.addresses()[0];
    serving.listen(to.ip(), PORT)?;
    let live = asking.connect(to, LIMIT)??;
    let mut guarded = Guarded::attach([a, b], &pair.fleet)?;
    for node in [a, b] {
        guarded.of(node)?.listeners(node.netns().fd())?;
        guarded.of(node)?.all_marked();
    }
    live.exchange(LIMIT)??;
    let told = guarded.events(b)?;
    assert!(told.iter().any(|event| matches!(event.kind, Kind::Refused { would: true, .. })), "{told:?}");
    guarded.of(b)?.end_older(true);
    assert_eq!(sweep(&mut guarded, b)?.cut.len(), 1);
    assert!(live.wait_end(LIMIT)?.expect_err("cut").is_reset());
    pair.run.finish()
}

#[test]
fn detaching_leaves_nothing_and_everything_passes() -> Result<()> {
    let pair = Pair::start("live-detach")?;
    let [a, b] = pair.nodes();
    let cron = a.workload("cron")?;
    let (asking, serving) = (cron.peer()?, pair.db.peer()?);
    let to = pair.addresses()[0];
    serving.listen(to.ip(), PORT)?;
    let pin = b.bpffs()?;
    let mut datapath = Datapath::attach(Options::new(b.cgroup().path(), &pin))?;
    datapath.apply(&pair.fleet.state(b))?;
    assert!(asking.connect(to, SILENCE)?.is_err(), "a plain client from a fleet address");
    datapath.detach()?;
    assert!(!pin.join("v1").exists());
    wait::until_ok("a connection", LIMIT, || Ok(asking.request(to, LIMIT)?.ok()))?;
    pair.run.finish()
}
