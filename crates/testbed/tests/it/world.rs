//! The testbed itself: its networks carry what they say, and it leaves nothing behind.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use testbed::peer::script::Speak;
use testbed::process::Program;
use testbed::run::{self, Run};
use testbed::snapshot::Snapshot;
use testbed::world::World;
use testbed::{programs, wait};

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn two_clusters_with_equal_addresses_reach_each_other_through_both_nats() -> Result<()> {
    let run = Run::start("nat")?;
    let world = World::two_clusters(&run)?;
    let [eu, us] = &world.clusters[..] else { panic!("two clusters were asked for") };
    let server = us.nodes[0].workload("db")?;
    let client = eu.nodes[0].workload("web")?;
    assert_eq!(server.addresses(), client.addresses());
    let (serving, asking) = (server.peer()?, client.peer()?);
    for (address, outside) in server.addresses().both().into_iter().zip(us.gateway.outside().both()) {
        let listener = serving.listen(address, 0)?;
        us.gateway.forward("tcp", 15_000 + u16::from(address.is_ipv6()), server.addresses(), listener.port)?;
        let dialled = SocketAddr::new(outside, 15_000 + u16::from(address.is_ipv6()));
        asking.request(dialled, LIMIT)??;
        let seen: Vec<IpAddr> = listener.accepted()?.iter().map(SocketAddr::ip).collect();
        let masqueraded = eu.gateway.outside().both()[usize::from(address.is_ipv6())];
        assert_eq!(seen, vec![masqueraded], "the server sees the client's gateway");
    }
    run.finish()
}

#[test]
fn a_pod_has_an_address_of_its_own_and_reaches_other_nodes() -> Result<()> {
    let run = Run::start("pod")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (pod, other) = (a.pod("api", 101)?, b.pod("api", 102)?);
    let (serving, asking) = (pod.peer()?, other.peer()?);
    for address in pod.addresses().both() {
        let listener = serving.listen(address, 0)?;
        asking.request(SocketAddr::new(address, listener.port), LIMIT)??;
        let traffic = asking.traffic(SocketAddr::new(address, listener.port), 3, Duration::ZERO, Speak::Echo)?;
        wait::until("some traffic", LIMIT, || traffic.report().ok().filter(|r| r.right > 30))?;
        let report = traffic.stop()?;
        assert_eq!((report.opened, report.broken, report.wrong), (3, 0, 0), "{report:?}");
        let refused = asking.connect(SocketAddr::new(address, 1), LIMIT)?.err().expect("nobody listens at port 1");
        assert!(refused.is_refused(), "{refused}");
    }
    run.finish()
}

#[test]
fn a_finished_run_leaves_the_machine_as_it_was() -> Result<()> {
    let alone = run::alone()?;
    let before = Snapshot::settled()?;
    let run = alone.start("clean")?;
    let world = World::two_clusters(&run)?;
    for node in world.nodes() {
        node.bpffs()?;
        node.workload("w")?.peer()?;
    }
    let dir = run.dir().to_owned();
    run.finish()?;
    assert!(!dir.exists());
    before.assert_equal_now()
}

/// Set in the second process of the next test.
const VICTIM: &str = "STOLOS_TESTBED_VICTIM";

#[test]
fn a_killed_run_is_taken_down_by_the_next_start() -> Result<()> {
    if std::env::var_os(VICTIM).is_some() {
        return be_killed();
    }
    let alone = run::alone()?;
    let before = Snapshot::settled()?;
    let mut again = Command::new(std::env::current_exe()?);
    again.args(["--exact", "world::a_killed_run_is_taken_down_by_the_next_start", "--nocapture"]);
    let mut victim = again.env(VICTIM, "1").stdout(Stdio::piped()).spawn()?;
    let output = BufReader::new(victim.stdout.take().expect("it was asked to be piped"));
    let mut lines = output.lines().map_while(Result::ok);
    let id =
        lines.find_map(|line| line.split_once("run ").map(|(_, id)| id.to_owned())).expect("the victim names its run");
    victim.kill()?;
    victim.wait()?;
    assert!(!run::live_runs().contains(&id));
    assert_ne!(run::remains(&id)?, Vec::<String>::new(), "the killed run left something to take down");
    alone.start("next")?.finish()?;
    assert_eq!(run::remains(&id)?, Vec::<String>::new());
    before.assert_equal_now()
}

fn be_killed() -> Result<()> {
    let run = Run::start("victim")?;
    let world = World::one_cluster(&run, 1)?;
    let node = &world.clusters[0].nodes[0];
    node.bpffs()?;
    node.workload("w")?.peer()?;
    println!("\nrun {}", run.id());
    std::thread::park();
    Ok(())
}

#[test]
fn real_programs_serve_inside_their_namespaces() -> Result<()> {
    let run = Run::start("real")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let (web, db, resolver, client) =
        (a.workload("web")?, a.workload("db")?, a.pod("resolver", 53)?, b.workload("client")?);
    web.start(Program::of(programs::nginx(web.place().dir(), 8080)?))?;
    db.start(Program::of(programs::redis(6379)))?;
    resolver.start(Program::of(programs::dnsmasq("shop.test", "10.0.0.11".parse()?)))?;
    let peer = client.peer()?;
    for address in web.addresses().both() {
        let connected = |port| {
            wait::until_ok("a connection", LIMIT, || Ok(peer.connect(SocketAddr::new(address, port), LIMIT)?.ok()))
        };
        connected(8080)?.http_get(LIMIT)??;
        connected(6379)?.redis_ping(LIMIT)??;
    }
    let traffic = peer.traffic(SocketAddr::new(db.addresses().v4.into(), 6379), 10, Duration::ZERO, Speak::Redis)?;
    wait::until("some traffic", LIMIT, || traffic.report().ok().filter(|r| r.right > 100))?;
    let report = traffic.stop()?;
    assert_eq!((report.opened, report.broken, report.wrong, report.sent), (10, 0, 0, report.right), "{report:?}");
    for address in resolver.addresses().both() {
        let answer = wait::until_ok("the resolver", LIMIT, || {
            let asked = client.place().finished(Program::of(programs::dig(address, "shop.test")), LIMIT)?;
            Ok(asked.status.success().then_some(asked.stdout))
        })?;
        assert_eq!(answer.trim(), "10.0.0.11");
    }
    run.finish()
}
