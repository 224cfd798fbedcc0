//! Attackers with raw sockets against the real datapath: nothing is accepted, everything is counted to the unit.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use testbed::attack::relay::Relay;
use testbed::run::Run;
use testbed::world::World;

const LIMIT: Duration = Duration::from_secs(5);

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
        assert!(relay.relayed().forth >= 4 && relay.relayed().back >= 2, "{:?}", relay.relayed());
        assert_eq!(listener.accepted()?.len(), 1);
    }
    run.finish()
}
