//! A lane: two nodes joined by one veth pair, with one contender on both, set up once.
//!
//! All lanes stand side by side, so that the slices of one metric follow each other within a fraction of a second. What of a
//! contender runs by itself (agents, queue readers) is stopped while it is not its lane's turn.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use datapath::state::{Place, PlaceTarget, State};
use nix::sys::signal::Signal;

use super::{Contender, Family, Metric, Options};
use crate::bench::affinity;
use crate::bench::load::{Measured, Slice};
use crate::bench::nfqueue;
use crate::fleet::{Fleet, TCP};
use crate::node::{Node, Workload};
use crate::process::{self, Process, Program};
use crate::wait;
use crate::world::World;

/// Server ports: everything on one core, and free placement.
const PORTS: [u16; 2] = [9001, 9002];
/// For whatever must happen on a loaded machine.
const LIMIT: Duration = Duration::from_secs(30);
/// The core that everything is pinned to where one core is measured.
const CORE: usize = 0;
/// Longer than an agent waits for records: what it has left to do after a slice is not put on the next one.
const REST: Duration = Duration::from_millis(20);
/// Addresses on the veth pair, by family, then client and server.
const ADDRESSES: [[IpAddr; 2]; 2] = [
    [IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2))],
    [IpAddr::V6(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2))],
];

/// One contender's nodes and programs.
pub(crate) struct Lane {
    pub(crate) contender: Contender,
    caller: Workload,
    /// What runs by itself.
    pub(crate) own: Vec<Process>,
    load: std::path::PathBuf,
}

impl Lane {
    /// Sets a contender up on the two nodes of a cluster of its own.
    pub(crate) fn build(contender: Contender, world: &World, number: usize, options: &Options) -> Result<Self> {
        let [client, server] = &world.clusters[number].nodes[..] else {
            anyhow::bail!("BUG: two nodes were asked for")
        };
        join(client, server)?;
        let (caller, service) = (client.workload("caller")?, server.workload("service")?);
        let lane = Self { contender, caller, own: Vec::new(), load: options.load.clone() };
        let own = match contender {
            Contender::None => Vec::new(),
            // Before the listeners: one that is older than the programs would have to be repaired.
            Contender::Stolos => lane.agents(world, [client, server], &service, &options.stolos)?,
            Contender::Nfqueue => lane.readers([client, server])?,
        };
        for (one_core, port) in [(true, PORTS[0]), (false, PORTS[1])] {
            for [_, address] in ADDRESSES {
                let at = SocketAddr::new(address, port).to_string();
                let mut program = lane.program(&format!("serve-{port}-{}", address.is_ipv6()));
                program = program.args(["serve", &at, if one_core { "1" } else { "2" }]);
                let pinned = one_core.then(|| CORE.to_string());
                started(service.place(), pinned.iter().fold(program, |program, core| program.arg(core)))?;
            }
        }
        let lane = Self { own, ..lane };
        lane.signal(Signal::SIGSTOP)?;
        Ok(lane)
    }

    /// Runs one slice of a metric, everything of the contender placed as the metric asks.
    pub(crate) fn measure(&self, metric: &Metric, duration: Duration) -> Result<Measured> {
        let core = metric.one_core.then_some(CORE);
        let family = usize::from(metric.family == Family::V6);
        let slice = Slice {
            work: metric.work,
            to: SocketAddr::new(ADDRESSES[family][1], PORTS[usize::from(!metric.one_core)]),
            duration,
            threads: metric.threads,
            core,
            every: None,
        };
        self.own.iter().try_for_each(|process| affinity::place(process.pid(), core))?;
        self.signal(Signal::SIGCONT)?;
        let drive = self.program("drive").args(["drive", &serde_json::to_string(&slice)?]);
        let output = self.caller.place().output(drive, LIMIT);
        if !self.own.is_empty() {
            std::thread::sleep(REST);
        }
        self.signal(Signal::SIGSTOP)?;
        let output = output.with_context(|| format!("contender {}, {:?}", self.contender.name(), metric.work))?;
        let measured: Measured = serde_json::from_str(&output).with_context(|| output.clone())?;
        ensure!(measured.count > 0, "{:?} measured nothing", metric.work);
        Ok(measured)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.own.iter().try_for_each(|process| process.signal(signal))
    }

    fn program(&self, name: &str) -> Program {
        Program::new(&self.load).named(name)
    }

    /// The product: an agent on each node, whose whole state comes from a file and allows the caller to reach the service.
    fn agents(&self, world: &World, nodes: [&Node; 2], service: &Workload, stolos: &Path) -> Result<Vec<Process>> {
        let mut fleet = Fleet::of(world)?;
        fleet.add(nodes[0], &self.caller, "caller")?;
        fleet.add(nodes[1], service, "service")?;
        fleet.allow("caller", "service", TCP, 1..=u16::MAX);
        let stranger = nodes[0].workload("stranger")?;
        fleet.add(nodes[0], &stranger, "stranger")?;
        let agents = nodes.map(|node| start_agent(node, &state(&fleet, nodes, node), stolos));
        let agents = agents.into_iter().collect::<Result<Vec<_>>>()?;
        self.closed_for(&stranger, service)?;
        Ok(agents)
    }

    /// Waits until somebody without a policy is refused: from then on what is measured is enforced.
    fn closed_for(&self, stranger: &Workload, service: &Workload) -> Result<()> {
        let at = SocketAddr::new(ADDRESSES[0][1], PORTS[0]);
        let server = started(service.place(), self.program("trial").args(["serve", &at.to_string(), "1"]))?;
        let slice = Slice {
            work: crate::bench::load::Work::Connect,
            to: at,
            duration: Duration::ZERO,
            threads: 1,
            core: None,
            every: None,
        };
        let slice = serde_json::to_string(&slice)?;
        wait::until_succeeds("the datapath to refuse a workload without a policy", LIMIT, || {
            let tried = stranger.place().finished(self.program("stranger").args(["drive", &slice]), LIMIT)?;
            ensure!(!tried.status.success(), "it was let in");
            ensure!(tried.stderr.contains("refused"), "{}", tried.stderr);
            Ok(())
        })?;
        server.kill();
        Ok(())
    }

    /// The userspace handshake: rules on each node, and a reader of its queue.
    fn readers(&self, nodes: [&Node; 2]) -> Result<Vec<Process>> {
        let start = |node: &Node| {
            nfqueue::install(node.netns(), PORTS)?;
            started(node.host(), self.program("nfqueue-reader").arg("nfqueue"))
        };
        nodes.into_iter().map(start).collect()
    }
}

fn join(client: &Node, server: &Node) -> Result<()> {
    let far = server.netns().path().display();
    client.netns().ip(&format!("link add direct type veth peer name direct netns {far}\nlink set direct up\n"))?;
    server.netns().ip("link set direct up\n")?;
    for [own, peer] in ADDRESSES {
        let (length, flag) = if own.is_ipv6() { (64, " nodad") } else { (24, "") };
        client.netns().ip(&format!("addr add {own}/{length} dev direct{flag}\n"))?;
        server.netns().ip(&format!("addr add {peer}/{length} dev direct{flag}\n"))?;
    }
    Ok(())
}

/// What a node enforces: the fleet's state, where both nodes also answer at the addresses of their veth pair.
fn state(fleet: &Fleet, nodes: [&Node; 2], node: &Node) -> State {
    let mut state = fleet.state(node);
    let direct = ADDRESSES.iter().flat_map(|addresses| nodes.into_iter().zip(addresses));
    state.places.extend(direct.map(|(node, address)| Place {
        address: *address,
        port: None,
        target: PlaceTarget::Node(fleet.node(node)),
        real_port: None,
        claimed_udp: false,
    }));
    state
}

fn start_agent(node: &Node, state: &State, stolos: &Path) -> Result<Process> {
    let (file, socket) = (node.dir().join("state.json"), node.dir().join("agent.sock"));
    std::fs::write(&file, serde_json::to_vec(state)?)?;
    let program = Program::new(stolos).named("stolos-agent").args(["agent", "run", "--state"]).arg(file);
    let program = program.arg("--data").arg(node.dir().join("agent")).arg("--socket").arg(&socket);
    let program = program.arg("--cgroup-root").arg(node.cgroup().path());
    let process = node.start(program.arg("--bpf-pin").arg(node.bpffs()?.join("stolos")))?;
    let ask = || Program::new(stolos).args(["agent", "status", "-o", "json", "--socket"]).arg(&socket);
    process.wait_until_answers(LIMIT, || {
        let status: api::local::Status = serde_json::from_str(&node.host().output(ask(), LIMIT)?)?;
        ensure!(status.enforcement.attached, "nothing is attached");
        Ok(())
    })?;
    Ok(process)
}

/// Starts a program that says `ready` when it is.
fn started(place: &process::Place, program: Program) -> Result<Process> {
    let process = place.start(program)?;
    process.wait_for_log("ready", LIMIT)?;
    Ok(process)
}
