//! The proving ground of steps 11 to 13: one more cluster, whose agents enforce a state from a file, without a server.
//!
//! Here the attackers may know everything, keys included: the tour's own fleet keeps its keys to itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use identity::ids::WorkloadRef;
use policy::reason::Reason;

use super::site::{COMMAND_LIMIT, SETTLE_LIMIT, socket};
use crate::attack::Attacker;
use crate::attack::oracle::Oracle;
use crate::fleet::{Fleet, TCP};
use crate::node::{Node, Workload};
use crate::process::{Process, Program};
use crate::run;
use crate::world::{Outsider, World};

/// The port that target listens on.
pub(super) const PORT: u16 = 5000;
/// Dialled at the intruder's address, which is declared as a Service whose member is decoy.
pub(super) const LURE: u16 = 5001;

/// One cluster of two nodes with three workloads, an intruder in its network, and agents that enforce a state file.
///
/// `caller`, a pod on the second node, may reach `target`, on the first node; `decoy` is another pod beside the caller, and
/// the intruder has taken over a balancer that stands for it.
pub(super) struct Lab {
    pub(super) world: World,
    pub(super) fleet: Fleet,
    pub(super) target: Workload,
    pub(super) caller: Workload,
    pub(super) decoy: Workload,
    pub(super) target_at: WorkloadRef,
    pub(super) caller_at: WorkloadRef,
    pub(super) intruder: Outsider,
    stolos: PathBuf,
    agents: BTreeMap<String, Process>,
    clock_shift: Duration,
}

impl Lab {
    /// Builds the networks and starts the agents.
    pub(super) fn build(run: &run::Handle, stolos: PathBuf) -> Result<Self> {
        let world = World::build_in(run, &[("lab", 2)])?;
        let cluster = &world.clusters[0];
        let (first, second) = (&cluster.nodes[0], &cluster.nodes[1]);
        let (target, caller, decoy) =
            (first.workload("target")?, second.pod("caller", 111)?, second.pod("decoy", 112)?);
        let mut fleet = Fleet::of(&world)?;
        let target_at = fleet.add(first, &target, "target")?;
        let caller_at = fleet.add(second, &caller, "caller")?;
        let decoy_at = fleet.add(second, &decoy, "decoy")?;
        fleet.allow("caller", "target", TCP, PORT..=PORT);
        fleet.allow("caller", "decoy", TCP, PORT..=PORT);
        let intruder = cluster.stranger("lab-intruder", 200)?;
        // A balancer that somebody has taken over: it stands for decoy, as far as the fleet knows.
        fleet.service(&intruder.addresses.both(), (TCP, LURE), PORT, &[decoy_at]);
        let agents = BTreeMap::new();
        let clock_shift = Duration::ZERO;
        let mut lab =
            Self { world, fleet, target, caller, decoy, target_at, caller_at, intruder, stolos, agents, clock_shift };
        lab.start_agents()?;
        Ok(lab)
    }

    /// The node of target.
    pub(super) fn first(&self) -> &Node {
        &self.world.clusters[0].nodes[0]
    }

    /// The node of caller and decoy: the one that is captured.
    pub(super) fn second(&self) -> &Node {
        &self.world.clusters[0].nodes[1]
    }

    /// Moves the clocks of both nodes, as a server would that says another time.
    pub(super) fn shift_clocks(&mut self, by: Duration) -> Result<()> {
        self.clock_shift = by;
        self.restart_agents()
    }

    /// Kills the agents and starts them with what the fleet's description leads to now; they take over in place.
    pub(super) fn restart_agents(&mut self) -> Result<()> {
        for (_, agent) in std::mem::take(&mut self.agents) {
            agent.kill();
        }
        self.start_agents()
    }

    fn start_agents(&mut self) -> Result<()> {
        let nodes: Vec<Node> = self.world.nodes().cloned().collect();
        nodes.iter().try_for_each(|node| self.start_agent(node))
    }

    fn start_agent(&mut self, node: &Node) -> Result<()> {
        let file = node.dir().join("state.json");
        std::fs::write(&file, serde_json::to_vec_pretty(&self.state(node)?)?)?;
        let program = Program::new(&self.stolos).args(["agent", "run", "--state"]).arg(file);
        let program = program.arg("--data").arg(node.dir().join("agent")).arg("--socket").arg(socket(node));
        let program = program.arg("--cgroup-root").arg(node.cgroup().path());
        let program = program.arg("--bpf-pin").arg(node.bpffs()?.join("stolos"));
        let process = node.start(program.named("stolos-agent"))?;
        process.wait_until_answers(SETTLE_LIMIT, || {
            ensure!(self.status(node)?.enforcement.in_force, "no state is in force");
            Ok(())
        })?;
        self.agents.insert(node.name().to_owned(), process);
        Ok(())
    }

    /// What a node enforces.
    pub(super) fn state(&self, node: &Node) -> Result<datapath::state::State> {
        let mut state = self.fleet.state(node);
        state.clock_offset_ns += i64::try_from(self.clock_shift.as_nanos())?;
        Ok(state)
    }

    /// A workload as the model sees it.
    pub(super) fn oracle(&self, node: &Node, at: WorkloadRef) -> Result<Oracle> {
        Oracle::of(&self.state(node)?, at)
    }

    /// The intruder's raw sockets.
    pub(super) fn attacker(&self) -> Result<Attacker> {
        Attacker::new(self.intruder.place.netns())
    }

    fn status(&self, node: &Node) -> Result<api::local::Status> {
        let program = Program::new(&self.stolos).args(["agent", "status", "-o", "json", "--socket"]).arg(socket(node));
        let text = node.host().output(program, COMMAND_LIMIT)?;
        serde_json::from_str(&text).with_context(|| format!("unexpected JSON:\n{text}"))
    }

    /// Refusals of a node by reason, exactly, from the agent's metrics.
    pub(super) fn denials(&self, node: &Node) -> Result<BTreeMap<Reason, u64>> {
        let text = super::views::metrics(node)?;
        let denials = super::views::denials(&text);
        ensure!(!denials.is_empty(), "no counter of refusals in:\n{text}");
        Ok(denials)
    }

    /// Where target listens, IPv4 and IPv6.
    pub(super) fn target_addresses(&self) -> [SocketAddr; 2] {
        self.target.addresses().both().map(|address| SocketAddr::new(address, PORT))
    }

    /// Addresses that an attacker may claim: the intruder's and unused ones beside it.
    pub(super) fn sources(&self, family: IpAddr) -> Vec<IpAddr> {
        let hosts = (200..=215).map(|number| crate::ip::Network::CLUSTER.host(number).both());
        hosts.map(|both| both[usize::from(family.is_ipv6())]).collect()
    }
}
