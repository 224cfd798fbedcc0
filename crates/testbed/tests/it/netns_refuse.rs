//! The RST responder in real network namespaces: connect() fails with ECONNREFUSED within milliseconds.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use datapath::refuse::budget::Budget;
use datapath::refuse::{Counts, Outcome, Refusal, RefuseError, Refuser, Side};
use handshake::segment::{Segment, TcpFlags};
use testbed::attack::tap::Tap;
use testbed::netns::Netns;
use testbed::run::Run;
use testbed::world::World;

const LIMIT: Duration = Duration::from_secs(5);
const PORT: u16 = 4000;
const COOKIE: u64 = 42;

fn is_syn(segment: &Segment, port: u16) -> bool {
    segment.flags == TcpFlags::SYN && segment.destination.port() == port
}

/// A firewall stands for the kernel programs here: it drops the SYN, which the tap has heard.
fn drop_tcp(netns: &Netns, port: u16) -> Result<()> {
    netns.nft(&format!(
        "table inet firewall {{\n\
         chain in {{\n type filter hook input priority 0\n tcp dport {port} tcp flags & (syn | ack) == syn drop\n }}\n\
         }}\n"
    ))
}

fn refusal_of(syn: &Segment, side: Side) -> Refusal {
    Refusal { netns: COOKIE, client: syn.source, server: syn.destination, isn_client: syn.seq, side }
}

/// Asks for a connection, refuses it as soon as the SYN is heard at `at`, and returns how long the caller waited after that.
fn refuse_one(client: &testbed::node::Workload, at: &Netns, to: SocketAddr, side: Side) -> Result<Duration> {
    let refuser = Refuser::new(Budget::default());
    refuser.register(COOKIE, at.fd())?;
    let tap = Tap::open(at)?;
    let peer = client.peer()?;
    let connecting = std::thread::spawn(move || peer.connect(to, LIMIT));
    let syn = tap.wait("the SYN", LIMIT, |segment| is_syn(segment, to.port()))?;
    assert_eq!(refuser.refuse(&refusal_of(&syn, side))?, Outcome::Sent);
    let sent = Instant::now();
    let failure = connecting.join().expect("no panic")?.err().expect("refused");
    let took = sent.elapsed();
    assert!(failure.is_refused(), "{failure}");
    assert_eq!(refuser.counts(), Counts { sent: 1, ..Counts::default() });
    Ok(took)
}

#[test]
fn a_syn_refused_at_the_server_ends_connect_at_once() -> Result<()> {
    let run = Run::start("refuse-server")?;
    let world = World::one_cluster(&run, 2)?;
    let [client, server] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    drop_tcp(server.netns(), PORT)?;
    let workload = client.workload("caller")?;
    for address in server.addresses().both() {
        let took = refuse_one(&workload, server.netns(), SocketAddr::new(address, PORT), Side::Server)?;
        assert!(took < Duration::from_millis(500), "{address}: {took:?}, long before the first retransmission");
    }
    run.finish()
}

#[test]
fn a_connection_refused_at_the_client_ends_connect_at_once() -> Result<()> {
    let run = Run::start("refuse-client")?;
    let world = World::one_cluster(&run, 2)?;
    let [client, server] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    drop_tcp(server.netns(), PORT)?;
    let (workload, pod) = (client.workload("caller")?, client.pod("pod", 101)?);
    for address in server.addresses().both() {
        let to = SocketAddr::new(address, PORT);
        for caller in [&workload, &pod] {
            let netns = caller.place().netns();
            let took = refuse_one(caller, netns, to, Side::Client)?;
            assert!(took < Duration::from_millis(500), "{address}: {took:?}, long before the first retransmission");
        }
    }
    run.finish()
}

#[test]
fn a_refusal_travels_back_through_both_nats() -> Result<()> {
    let run = Run::start("refuse-nat")?;
    let world = World::two_clusters(&run)?;
    let [eu, us] = &world.clusters[..] else { panic!("two clusters were asked for") };
    let server = &us.nodes[0];
    drop_tcp(server.netns(), PORT)?;
    us.gateway.forward("tcp", 15_000, server.addresses(), PORT)?;
    let workload = eu.nodes[0].workload("caller")?;
    for address in us.gateway.outside().both() {
        let peer = workload.peer()?;
        let refuser = Refuser::new(Budget::default());
        refuser.register(COOKIE, server.netns().fd())?;
        let tap = Tap::open(server.netns())?;
        let connecting = std::thread::spawn(move || peer.connect(SocketAddr::new(address, 15_000), LIMIT));
        let syn = tap.wait("the SYN", LIMIT, |segment| is_syn(segment, PORT))?;
        refuser.refuse(&refusal_of(&syn, Side::Server))?;
        let failure = connecting.join().expect("no panic")?.err().expect("refused");
        assert!(failure.is_refused(), "{failure}");
    }
    run.finish()
}

#[test]
fn refusals_over_budget_are_silent_and_counted() -> Result<()> {
    let run = Run::start("refuse-budget")?;
    let world = World::one_cluster(&run, 2)?;
    let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
    let refuser = Refuser::new(Budget { burst: 3, per_second: 0, prefixes_max: 16 });
    refuser.register(COOKIE, b.netns().fd())?;
    let tap = Tap::open(b.netns())?;
    for (from, to) in a.addresses().both().into_iter().zip(b.addresses().both()) {
        for port in 1..=10 {
            let (client, server) = (SocketAddr::new(from, port), SocketAddr::new(to, PORT));
            refuser.refuse(&Refusal { netns: COOKIE, client, server, isn_client: 7, side: Side::Server })?;
        }
    }
    assert_eq!(refuser.counts(), Counts { sent: 6, over_budget: 14, failed: 0 });
    let is_rst = |segment: &Segment| segment.flags == TcpFlags::RST_ACK && segment.source.port() == PORT;
    testbed::wait::until("six RSTs", LIMIT, || {
        let mut clients: Vec<_> = tap.heard(is_rst).iter().map(|rst| rst.destination).collect();
        clients.sort();
        clients.dedup();
        (clients.len() == 6).then_some(())
    })?;
    let rst = tap.heard(is_rst).remove(0);
    assert_eq!((rst.seq, rst.ack, rst.options.len(), rst.payload.len()), (0, 8, 0, 0), "smaller than what it answers");
    run.finish()
}

#[test]
fn an_unknown_or_forgotten_namespace_is_an_error() -> Result<()> {
    let run = Run::start("refuse-forget")?;
    let world = World::one_cluster(&run, 1)?;
    let node = &world.clusters[0].nodes[0];
    let refuser = Refuser::new(Budget::default());
    let at = |port| SocketAddr::new(node.addresses().v4.into(), port);
    let refusal = Refusal { netns: COOKIE, client: at(1), server: at(2), isn_client: 7, side: Side::Server };
    assert!(matches!(refuser.refuse(&refusal), Err(RefuseError::NetnsUnknown(COOKIE))));
    refuser.register(COOKIE, node.netns().fd())?;
    refuser.refuse(&refusal)?;
    assert!(refuser.forget(COOKIE) && !refuser.forget(COOKIE));
    assert!(refuser.refuse(&refusal).is_err());
    let mixed = Refusal { server: SocketAddr::new(node.addresses().v6.into(), 2), ..refusal };
    refuser.register(COOKIE, node.netns().fd())?;
    assert!(matches!(refuser.refuse(&mixed), Err(RefuseError::Addresses(_))));
    assert_eq!(refuser.counts(), Counts { sent: 1, over_budget: 0, failed: 3 });
    run.finish()
}
