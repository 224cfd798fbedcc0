//! Nodes and workloads: a node is a namespace with its own cgroup subtree; its workloads share its address and differ
//! by cgroup, or have a namespace and an address of their own (as a pod).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cgroup::Cgroup;
use crate::ip::{self, Addresses, Network};
use crate::netns::Netns;
use crate::peer::Peer;
use crate::process::{Place, Process, Program};
use crate::run;
use crate::{gateway, process};

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    name: String,
    host: Place,
    subtree: Cgroup,
    addresses: Addresses,
}

/// Something that runs on a node in its own cgroup.
#[derive(Clone, Debug)]
pub struct Workload {
    name: String,
    place: Place,
    addresses: Addresses,
}

impl Node {
    /// A node `name` plugged into the switch `lan`, as host `number` of the cluster's network.
    pub(crate) fn build(run: &run::Handle, name: &str, lan: &Netns, number: u8) -> Result<Self> {
        let netns = Netns::create(&run.dir().join("netns"), name)?;
        ip::bridge(&netns, "br0")?;
        ip::plug(&netns, "eth0", lan, "br0", &format!("node{number}"))?;
        netns.ip("link set eth0 master br0\n")?;
        let addresses = Network::CLUSTER.host(number);
        ip::configure(&netns, "br0", addresses, Some(Network::CLUSTER.host(gateway::INSIDE_HOST)))?;
        let subtree = run.cgroup().child(name)?;
        let cgroup = subtree.child("system")?;
        let host = Place { run: run.clone(), netns, cgroup, dir: run.dir().join(name) };
        std::fs::create_dir_all(&host.dir)?;
        Ok(Self { name: name.to_owned(), host, subtree, addresses })
    }

    /// The node's name, unique in the run.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its addresses in the cluster's network.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Where the node's own processes run (agent, daemons): cgroup `system` of its subtree.
    pub fn host(&self) -> &Place {
        &self.host
    }

    /// The namespace.
    pub fn netns(&self) -> &Netns {
        &self.host.netns
    }

    /// The top of its cgroup subtree: what a datapath attaches to.
    pub fn cgroup(&self) -> &Cgroup {
        &self.subtree
    }

    /// Directory for the node's files.
    pub fn dir(&self) -> &Path {
        &self.host.dir
    }

    /// A bpffs of the node's own, mounted on the first call; unmounting it at the run's end drops every pin.
    pub fn bpffs(&self) -> Result<PathBuf> {
        let path = self.dir().join("bpf");
        if !path.exists() {
            std::fs::create_dir(&path)?;
            rustix::mount::mount("bpf", &path, "bpf", rustix::mount::MountFlags::empty(), None)
                .with_context(|| format!("cannot mount bpffs at {}", path.display()))?;
        }
        Ok(path)
    }

    /// A workload that shares the node's namespace and address.
    pub fn workload(&self, name: &str) -> Result<Workload> {
        self.workload_at(name, self.host.netns.clone(), self.addresses)
    }

    /// A workload with a namespace of its own, bridged through the node, as host `number` of the cluster's network.
    pub fn pod(&self, name: &str, number: u8) -> Result<Workload> {
        let (netns, addresses) = self.pod_network(name, number)?;
        self.workload_at(name, netns, addresses)
    }

    /// A namespace bridged through the node, as host `number` of the cluster's network.
    pub fn pod_network(&self, name: &str, number: u8) -> Result<(Netns, Addresses)> {
        let netns = Netns::create(&self.run().dir().join("netns"), &format!("{}.{name}", self.name))?;
        ip::plug(&netns, "eth0", self.netns(), "br0", &format!("pod{number}"))?;
        let addresses = Network::CLUSTER.host(number);
        ip::configure(&netns, "eth0", addresses, Some(Network::CLUSTER.host(gateway::INSIDE_HOST)))?;
        Ok((netns, addresses))
    }

    fn workload_at(&self, name: &str, netns: Netns, addresses: Addresses) -> Result<Workload> {
        let cgroup = self.subtree.child(name)?;
        let place = Place { run: self.run().clone(), netns, cgroup, dir: self.dir().join(name) };
        std::fs::create_dir_all(&place.dir)?;
        Ok(Workload { name: name.to_owned(), place, addresses })
    }

    fn run(&self) -> &run::Handle {
        &self.host.run
    }

    /// Runs `work` on a thread inside the node's namespace (in the caller's cgroup: not as a workload).
    pub fn enter<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        self.netns().enter(work)
    }

    /// Starts a process of the node itself, outside of all workloads.
    pub fn start(&self, program: Program) -> Result<Process> {
        self.host.start(program)
    }
}

impl Workload {
    /// Its name on its node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it runs.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The node's addresses, or its own as a pod.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The id of its cgroup, as the kernel's programs see it.
    pub fn cgroup_id(&self) -> Result<u64> {
        self.place.cgroup.id()
    }

    /// Starts a real program in it.
    pub fn start(&self, program: process::Program) -> Result<Process> {
        self.place.start(program)
    }

    /// Starts a scripted peer in it.
    pub fn peer(&self) -> Result<Peer> {
        Peer::start(&self.place)
    }
}
