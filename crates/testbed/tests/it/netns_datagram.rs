//! UDP and ICMP: authorized by place and by recorded questions (PROTOCOL rule 17).

use std::net::SocketAddr;

use anyhow::Result;
use datapath::event::{Kind, Proof};
use policy::reason::Reason;
use testbed::fleet::{Fleet, UDP};
use testbed::run::Run;
use testbed::world::World;

use crate::guarded::{Guarded, LIMIT, SILENCE};

const PORT: u16 = 5300;

#[test]
fn rule_17_a_declared_port_is_reached_by_place_and_marked_claimed() -> Result<()> {
    let run = Run::start("udp-claimed")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (web, cron, dns) = (a.workload("web")?, a.workload("cron")?, b.workload("dns")?);
    let mut fleet = Fleet::of(&world)?;
    fleet.add(a, &web, "web")?;
    fleet.add(a, &cron, "cron")?;
    let dns_ref = fleet.add(b, &dns, "dns")?;
    fleet.allow("web", "dns", UDP, PORT..=PORT);
    fleet.service(&b.addresses().both(), (UDP, PORT), PORT, &[dns_ref]);
    let mut guarded = Guarded::attach([a, b], &fleet)?;
    let (asking, refused, serving) = (web.peer()?, cron.peer()?, dns.peer()?);
    for address in b.addresses().both() {
        serving.udp_echo(address, PORT)?;
        let to = SocketAddr::new(address, PORT);
        asking.udp_request(to, SILENCE)??;
        let failure = refused.udp_request(to, LIMIT)?.expect_err("no rule");
        assert!(failure.is_refused(), "at once, by errno: {failure}");
    }
    assert_eq!(guarded.refused(a, Reason::DefaultDeny)?, 2);
    let opened = guarded.events(b)?;
    assert!(opened.iter().any(|event| event.kind == Kind::Open && event.protocol == UDP), "{opened:?}");
    assert!(opened.iter().all(|event| event.proof == Proof::Claimed), "{opened:?}");
    run.finish()
}

#[test]
fn rule_17_other_udp_between_workloads_is_refused_with_its_own_code() -> Result<()> {
    let run = Run::start("udp-unannounced")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (web, db) = (a.workload("web")?, b.workload("db")?);
    let mut fleet = Fleet::of(&world)?;
    fleet.add(a, &web, "web")?;
    fleet.add(b, &db, "db")?;
    fleet.allow("web", "db", UDP, 1..=65_535);
    let mut guarded = Guarded::attach([a, b], &fleet)?;
    let (asking, serving) = (web.peer()?, db.peer()?);
    let to = SocketAddr::new(b.addresses().both()[0], PORT);
    serving.udp_echo(to.ip(), PORT)?;
    assert!(asking.udp_request(to, LIMIT)?.expect_err("refused").is_refused());
    assert_eq!(guarded.refused(a, Reason::UdpUnannounced)?, 1);
    run.finish()
}

#[test]
fn a_pod_is_known_by_its_own_address_and_workloads_of_one_node_by_their_sockets() -> Result<()> {
    let run = Run::start("udp-exact")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (pod, other, near) = (a.pod("pod", 101)?, b.pod("other", 102)?, b.workload("near")?);
    let db = b.workload("db")?;
    let mut fleet = Fleet::of(&world)?;
    for (node, workload, class) in [(a, &pod, "pod"), (b, &other, "other"), (b, &near, "near"), (b, &db, "db")] {
        fleet.add(node, workload, class)?;
    }
    fleet.allow("pod", "other", UDP, PORT..=PORT);
    fleet.allow("near", "db", UDP, PORT..=PORT);
    let mut guarded = Guarded::attach([a, b], &fleet)?;
    let (from_pod, at_other, from_near, at_db) = (pod.peer()?, other.peer()?, near.peer()?, db.peer()?);
    for (at, address) in other.addresses().both().into_iter().zip(b.addresses().both()) {
        at_other.udp_echo(at, PORT)?;
        from_pod.udp_request(SocketAddr::new(at, PORT), LIMIT)??;
        at_db.udp_echo(address, PORT)?;
        from_near.udp_request(SocketAddr::new(address, PORT), LIMIT)??;
        assert!(from_near.udp_request(SocketAddr::new(at, PORT), SILENCE)?.is_err());
    }
    assert!(guarded.refused(b, Reason::DefaultDeny)? >= 2);
    run.finish()
}

#[test]
fn a_policy_change_does_not_lose_an_answer_on_its_way() -> Result<()> {
    let run = Run::start("udp-change")?;
    let world = World::one_cluster(&run, 1)?;
    let node = &world.clusters[0].nodes[0];
    let outside = world.outsider("resolver", 201)?;
    let web = node.workload("web")?;
    let mut fleet = Fleet::of(&world)?;
    fleet.add(node, &web, "web")?;
    fleet.external("resolver", &outside.addresses.both().map(Into::into));
    fleet.allow("web", "resolver", UDP, PORT..=PORT);
    let mut guarded = Guarded::attach([node], &fleet)?;
    let (asking, serving) = (web.peer()?, testbed::peer::Peer::start(&outside.place)?);
    let to = SocketAddr::new(outside.addresses.both()[0], PORT);
    serving.udp_echo(to.ip(), PORT)?;
    asking.udp_request(to, LIMIT)??;
    fleet.allow("web", "resolver", UDP, 1..=2);
    guarded.apply([node], &fleet)?;
    asking.udp_request(to, LIMIT)??;
    let denied = SocketAddr::new(to.ip(), PORT + 1);
    assert!(asking.udp_request(denied, LIMIT)?.expect_err("no rule").is_refused());
    assert_eq!(guarded.refused(node, Reason::ExternalDeny)?, 1);
    run.finish()
}
