//! The identity handshake between real sockets: who gets through, on IPv4 and IPv6.

use std::net::SocketAddr;

use anyhow::Result;
use datapath::count::Stage;
use datapath::event::{Kind, Peer, Proof};
use datapath::state::Direction;
use policy::reason::Reason;
use testbed::fleet::{Fleet, TCP};
use testbed::run::Run;
use testbed::world::World;

use crate::guarded::{Guarded, LIMIT, SILENCE};

#[test]
fn an_allowed_workload_connects_and_both_ends_know_each_other() -> Result<()> {
    let run = Run::start("hs-allowed")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (web, db) = (a.workload("web")?, b.workload("db")?);
    let mut fleet = Fleet::of(&world)?;
    let (web_ref, db_ref) = (fleet.add(a, &web, "web")?, fleet.add(b, &db, "db")?);
    fleet.allow("web", "db", TCP, 5432..=5432);
    let mut guarded = Guarded::attach([a, b], &fleet)?;
    let (asking, serving) = (web.peer()?, db.peer()?);
    for address in b.addresses().both() {
        serving.listen(address, 5432)?;
        asking.request(SocketAddr::new(address, 5432), LIMIT)??;
    }
    assert_eq!(guarded.stage(a, Stage::OpenedClient)?, 2, "{:?}", guarded.counters(a)?);
    assert_eq!(guarded.stage(b, Stage::OpenedServer)?, 2, "{:?}", guarded.counters(b)?);
    for (node, own, peer, direction) in
        [(a, web_ref, db_ref, Direction::Egress), (b, db_ref, web_ref, Direction::Ingress)]
    {
        let opened: Vec<_> = guarded.events(node)?.into_iter().filter(|event| event.kind == Kind::Open).collect();
        assert_eq!(opened.len(), 2);
        for event in opened {
            assert_eq!((event.local.slot, event.peer), (Some(own.slot), Peer::Workload(peer)));
            assert_eq!((event.proof, event.direction, event.port), (Proof::Proved, direction, 5432));
        }
    }
    run.finish()
}

#[test]
fn a_workload_without_a_rule_is_refused_until_it_has_one() -> Result<()> {
    let run = Run::start("hs-refused")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (cron, db) = (a.workload("cron")?, b.workload("db")?);
    let mut fleet = Fleet::of(&world)?;
    let cron_ref = fleet.add(a, &cron, "cron")?;
    fleet.add(b, &db, "db")?;
    let mut guarded = Guarded::attach([a, b], &fleet)?;
    let (asking, serving) = (cron.peer()?, db.peer()?);
    for address in b.addresses().both() {
        let listener = serving.listen(address, 5432)?;
        asking.connect(SocketAddr::new(address, 5432), SILENCE)?.err().expect("no rule");
        assert_eq!(listener.accepted()?, vec![]);
    }
    assert!(guarded.refused(b, Reason::DefaultDeny)? >= 2, "{:?}", guarded.counters(b)?);
    let denials = guarded.denials(b)?;
    assert!(denials.iter().all(|denial| denial.peer == Peer::Workload(cron_ref)), "{denials:?}");
    fleet.allow("cron", "db", TCP, 5432..=5432);
    guarded.apply([a, b], &fleet)?;
    for address in b.addresses().both() {
        asking.request(SocketAddr::new(address, 5432), LIMIT)??;
    }
    run.finish()
}

#[test]
fn identity_passes_two_nats_with_a_changed_port_and_equal_addresses() -> Result<()> {
    let run = Run::start("hs-nat")?;
    let world = World::two_clusters(&run)?;
    let [eu, us] = &world.clusters[..] else { panic!("two clusters were asked for") };
    let (web, db) = (eu.nodes[0].workload("web")?, us.nodes[0].workload("db")?);
    assert_eq!(web.addresses(), db.addresses());
    let mut fleet = Fleet::of(&world)?;
    fleet.add(&eu.nodes[0], &web, "web")?;
    let db_ref = fleet.add(&us.nodes[0], &db, "db")?;
    fleet.allow("web", "db", TCP, 5432..=5432);
    fleet.service(&us.gateway.outside().both(), (TCP, 15_432), 5432, &[db_ref]);
    let mut guarded = Guarded::attach(world.nodes(), &fleet)?;
    let (asking, serving) = (web.peer()?, db.peer()?);
    us.gateway.forward("tcp", 15_432, db.addresses(), 5432)?;
    for (address, outside) in db.addresses().both().into_iter().zip(us.gateway.outside().both()) {
        serving.listen(address, 5432)?;
        asking.request(SocketAddr::new(outside, 15_432), LIMIT)??;
    }
    assert_eq!(guarded.stage(&us.nodes[0], Stage::OpenedServer)?, 2);
    run.finish()
}
