//! Worlds: clusters of nodes behind NAT gateways, joined by a third private network.

use anyhow::Result;

use crate::cgroup::Cgroup;
use crate::gateway::Gateway;
use crate::ip::{self, Addresses, Network};
use crate::netns::Netns;
use crate::node::Node;
use crate::process::Place;
use crate::run::{self, Run};

/// Clusters with equal addresses (each its own network realm), their gateways, and the network between them.
#[derive(Clone, Debug)]
pub struct World {
    /// In the order they were asked for.
    pub clusters: Vec<Cluster>,
    between: Netns,
    run: run::Handle,
}

/// Nodes on one switch behind one NAT gateway.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The cluster's name.
    pub name: String,
    /// Its nodes: host 11, 12, … of [`Network::CLUSTER`]; named `<cluster>-n1`, `<cluster>-n2`, …
    pub nodes: Vec<Node>,
    /// Its gateway to the network between.
    pub gateway: Gateway,
    lan: Netns,
    run: run::Handle,
}

/// A machine that is no node: on the network between the clusters, or inside one.
#[derive(Clone, Debug)]
pub struct Outsider {
    /// Where its programs run.
    pub place: Place,
    /// Its addresses.
    pub addresses: Addresses,
}

/// Host numbers of the gateways on the network between begin here.
const GATEWAYS_FROM: u8 = 21;
/// Host number of the node before the first one.
const NODES_AFTER: u8 = 10;

impl World {
    /// `eu-1` and `us-1`, two nodes each, both with the same addresses.
    pub fn two_clusters(run: &Run) -> Result<Self> {
        Self::build(run, &[("eu-1", 2), ("us-1", 2)])
    }

    /// One cluster `eu-1` of `nodes` nodes.
    pub fn one_cluster(run: &Run, nodes: u8) -> Result<Self> {
        Self::build(run, &[("eu-1", nodes)])
    }

    /// Clusters by name and number of nodes (at most 80 each).
    pub fn build(run: &Run, clusters: &[(&str, u8)]) -> Result<Self> {
        Self::build_in(&run.handle(), clusters)
    }

    pub(crate) fn build_in(run: &run::Handle, clusters: &[(&str, u8)]) -> Result<Self> {
        let between = switch(run, &format!("{}-outside", clusters.first().map_or("nothing", |(name, _)| name)))?;
        let mut built = Vec::new();
        for (index, (name, nodes)) in (0u8..).zip(clusters) {
            let lan = switch(run, &format!("{name}-lan"))?;
            let netns = Netns::create(&run.dir().join("netns"), &format!("{name}-gateway"))?;
            let gateway = Gateway::build(netns, &lan, &between, GATEWAYS_FROM + index, &format!("gw{index}"))?;
            let node = |number: u8| Node::build(run, &format!("{name}-n{number}"), &lan, NODES_AFTER + number);
            let nodes = (1..=*nodes).map(node).collect::<Result<_>>()?;
            built.push(Cluster { name: (*name).to_owned(), nodes, gateway, lan, run: run.clone() });
        }
        Ok(Self { clusters: built, between, run: run.clone() })
    }

    /// A machine on the network between the clusters: a server, or a client that no cluster knows.
    pub fn outsider(&self, name: &str, number: u8) -> Result<Outsider> {
        machine(&self.run, name, &self.between, Network::BETWEEN.host(number), &format!("out{number}"))
    }

    /// All nodes of all clusters.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.clusters.iter().flat_map(|cluster| &cluster.nodes)
    }
}

impl Cluster {
    /// A machine in the cluster's own network that is no node, as host `number`: where an intruder stands.
    pub fn stranger(&self, name: &str, number: u8) -> Result<Outsider> {
        machine(&self.run, name, &self.lan, Network::CLUSTER.host(number), &format!("str{number}"))
    }
}

/// A namespace on a switch with one interface, and a cgroup of its own.
fn machine(run: &run::Handle, name: &str, switch: &Netns, addresses: Addresses, port: &str) -> Result<Outsider> {
    let netns = Netns::create(&run.dir().join("netns"), name)?;
    ip::plug(&netns, "eth0", switch, "br0", port)?;
    ip::configure(&netns, "eth0", addresses, None)?;
    let cgroup: Cgroup = run.cgroup().child(name)?;
    let place = Place { run: run.clone(), netns, cgroup, dir: run.dir().join(name) };
    std::fs::create_dir_all(&place.dir)?;
    Ok(Outsider { place, addresses })
}

fn switch(run: &run::Handle, name: &str) -> Result<Netns> {
    let netns = Netns::create(&run.dir().join("netns"), name)?;
    ip::bridge(&netns, "br0")?;
    Ok(netns)
}
