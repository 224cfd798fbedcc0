//! The fleet of the demo, brought up with the real binary: server, two clusters of two nodes, agents, workloads.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::Options;
use super::lab::Lab;
use crate::cgroup::Cgroup;
use crate::ip::Addresses;
use crate::node::Node;
use crate::peer::Peer;
use crate::process::{Place, Process, Program};
use crate::run::{self, Run};
use crate::wait;
use crate::world::{Outsider, World};

/// For a command of the CLI.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// For anything of the fleet to settle on a loaded machine.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// A roll-out that is complete for so long is complete.
const ROLLED_OUT_FOR: Duration = Duration::from_millis(300);
/// The port of the server.
pub const SERVER_PORT: u16 = 7443;
/// What eu-1 dials for db, at the gateway of us-1.
pub const DB_DIALLED: u16 = 16_379;
/// What db listens on.
pub const DB_PORT: u16 = 6379;
/// What web listens on.
pub const WEB_PORT: u16 = 8080;
/// Host number of the server on the network between the clusters.
const SERVER_HOST: u8 = 2;
/// Tenancy, clusters, the Service and the policies.
const FLEET: &str = include_str!("manifests/fleet.yaml");
/// `mode: enforce` for the whole tenant.
const ENFORCE: &str = include_str!("manifests/enforce.yaml");

/// The running fleet.
pub struct Site {
    /// Namespaces, nodes, gateways.
    pub world: World,
    /// Where the server runs; the operator's commands run beside it.
    pub server: Outsider,
    stolos: PathBuf,
    server_process: Option<Process>,
    agents: BTreeMap<String, Process>,
    workloads: BTreeMap<String, Running>,
    lab: Option<Result<Lab, String>>,
    enforced: bool,
    run: run::Handle,
}

/// A workload started by `stolos run`.
#[derive(Clone)]
pub struct Running {
    /// The node it runs on.
    pub node: String,
    /// Its main process.
    pub process: Process,
    /// Inside of it: what is started here belongs to the workload.
    pub place: Place,
    /// Where it is reached inside its cluster.
    pub addresses: Addresses,
}

impl Running {
    /// A scripted peer inside the workload: the same identity as its program.
    pub fn peer(&self) -> Result<Peer> {
        Peer::start(&self.place)
    }
}

impl Site {
    /// Builds the networks; nothing runs yet.
    pub fn build(run: &Run, options: &Options) -> Result<Self> {
        Self::over(World::two_clusters(run)?, run, options.stolos.clone())
    }

    /// As [`Site::build`], over other networks: cluster `NAME` has the nodes `NAME-n1`, `NAME-n2`, …
    pub fn over(world: World, run: &Run, stolos: PathBuf) -> Result<Self> {
        let server = world.outsider("server", SERVER_HOST)?;
        Ok(Self {
            world,
            server,
            stolos,
            server_process: None,
            agents: BTreeMap::new(),
            workloads: BTreeMap::new(),
            lab: None,
            enforced: false,
            run: run.handle(),
        })
    }

    /// Starts server, agents and workloads, and applies the fleet's documents.
    pub fn bring_up(&mut self) -> Result<()> {
        let (us, db) = (&self.world.clusters[1], self.node("us-1-n1")?.addresses());
        us.gateway.forward("tcp", DB_DIALLED, db, DB_PORT)?;
        say("two clusters, eu-1 and us-1, both 10.0.0.0/24 and fd00:a::/64, each behind a NAT gateway");
        self.start(FLEET)?;
        super::workloads::start(self)?;
        self.wait_until_rolled_out()
    }

    /// Starts the server, applies `documents` (the clusters among them), and starts an agent on every node.
    pub fn start(&mut self, documents: &str) -> Result<()> {
        self.init_server()?;
        self.start_server()?;
        self.apply(documents)?;
        for node in self.node_names() {
            self.join(&node)?;
            self.start_agent(&node)?;
        }
        self.wait_until_rolled_out()
    }

    /// The proving ground, built on the first call.
    pub(super) fn lab(&mut self) -> Result<&mut Lab> {
        let build = || Lab::build(&self.run, self.stolos.clone()).map_err(|error| format!("{error:#}"));
        let lab = self.lab.get_or_insert_with(build);
        lab.as_mut().map_err(|error| anyhow!("the proving ground could not be built: {error}"))
    }

    fn init_server(&self) -> Result<()> {
        let data = self.data();
        let listen = format!("[::]:{SERVER_PORT}");
        let [v4, v6] = self.server.addresses.both().map(|address| address.to_string());
        let arguments = ["server", "init", "--data", &data, "--listen", &listen, "--name", &v4, "--name", &v6];
        self.finished(&self.server.place, &[&arguments[..], &["--trust-domain", "demo.local"]].concat()).map(drop)
    }

    fn data(&self) -> String {
        self.server.place.dir().join("data").display().to_string()
    }

    /// The operator's credentials.
    pub fn admin_config(&self) -> PathBuf {
        Path::new(&self.data()).join("admin.yaml")
    }

    /// Starts the server and waits until it answers.
    pub fn start_server(&mut self) -> Result<()> {
        let program = Program::new(&self.stolos).named("stolos-server").args(["server", "run", "--data", &self.data()]);
        let process = self.server.place.start(program)?;
        self.server_process = Some(process.clone());
        process.wait_until_answers(SETTLE_LIMIT, || self.cli(&["status", "-o", "json"]).map(drop))
    }

    /// Kills the server (SIGKILL).
    pub fn kill_server(&mut self) {
        if let Some(process) = self.server_process.take() {
            process.kill();
        }
    }

    /// Names of all nodes.
    pub fn node_names(&self) -> Vec<String> {
        self.world.nodes().map(|node| node.name().to_owned()).collect()
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.world.nodes().find(|node| node.name() == name).with_context(|| format!("BUG: no node {name}"))
    }

    fn join(&self, node: &str) -> Result<()> {
        let cluster = node.rsplit_once('-').context("BUG: a node's name begins with its cluster's")?.0;
        let file = self.node(node)?.dir().join("join-token").display().to_string();
        self.cli(&["cluster", "join-token", cluster, "--out", &file]).map(drop)
    }

    /// Starts the agent of a node and waits until it answers at its socket.
    pub fn start_agent(&mut self, name: &str) -> Result<()> {
        self.start_agent_with(name, &[])
    }

    /// As [`Site::start_agent`], with more flags.
    pub fn start_agent_with(&mut self, name: &str, flags: &[&str]) -> Result<()> {
        let node = self.node(name)?;
        let dir = node.dir();
        // A host name of its own, as a machine would have: the node is called so.
        let mut program = Program::new("unshare").named("stolos-agent");
        program = program.args(["--uts", "sh", "-c", "echo \"$0\" >/proc/sys/kernel/hostname && exec \"$@\"", name]);
        program = program.arg(&self.stolos).args(["agent", "run", "--join-token-file"]).arg(dir.join("join-token"));
        program = program.arg("--data").arg(dir.join("agent")).arg("--cgroup-root").arg(node.cgroup().path());
        program = program.arg("--bpf-pin").arg(node.bpffs()?.join("stolos")).arg("--socket").arg(socket(node));
        let process = node.start(program.args(flags.iter().copied()))?;
        process.wait_until_answers(SETTLE_LIMIT, || self.agent(name, &["agent", "status", "-o", "json"]).map(drop))?;
        self.agents.insert(name.to_owned(), process);
        Ok(())
    }

    /// The agent's process.
    pub fn agent_process(&self, node: &str) -> Result<&Process> {
        self.agents.get(node).with_context(|| format!("BUG: no agent on {node}"))
    }

    /// Starts a workload by `stolos run` on a node, in the node's namespace or (as a pod) in one of its own.
    pub fn start_workload(&mut self, spec: &WorkloadSpec<'_>) -> Result<Running> {
        let node = self.node(spec.node)?;
        let (netns, addresses) = match spec.pod_host {
            Some(number) => node.pod_network(spec.name, number)?,
            None => (node.netns().clone(), node.addresses()),
        };
        let dir = node.dir().join(spec.name);
        let place = node.host().elsewhere(netns, node.host().cgroup().clone(), dir);
        let mut program = Program::new(&self.stolos).named(spec.name).args(["run", "--name", spec.name]);
        for label in spec.labels {
            program = program.args(["--label", label]);
        }
        if let Some(wait) = spec.wait {
            program = program.args(["--wait".to_owned(), format!("{}ms", wait.as_millis())]);
        }
        program = program.arg("--socket").arg(socket(node)).arg("--").args(spec.command.iter().map(String::as_str));
        let process = place.start(program)?;
        let subtree = node.cgroup().clone();
        let cgroup = wait::until_ok(&format!("{} to be in a cgroup of its own", spec.name), SETTLE_LIMIT, || {
            if let Some(status) = process.status() {
                bail!("{} ended ({status}):\n{}", spec.name, process.log_text());
            }
            Ok(own_cgroup(process.pid(), &subtree, node.host().cgroup()))
        })?;
        let place = place.elsewhere(place.netns().clone(), cgroup, place.dir().to_owned());
        let running = Running { node: spec.node.to_owned(), process, place, addresses };
        if spec.wait.is_none() {
            self.wait_until_started(spec.name, &running)?;
        }
        self.workloads.insert(spec.name.to_owned(), running.clone());
        Ok(running)
    }

    /// Waits until `stolos run` has become the program: its placement is live in the kernels that it can reach.
    fn wait_until_started(&self, name: &str, running: &Running) -> Result<()> {
        let exe = format!("/proc/{}/exe", running.process.pid());
        wait::until_ok(&format!("{name} to be started"), SETTLE_LIMIT, || {
            Ok((fs::read_link(&exe)? != self.stolos.canonicalize()?).then_some(()))
        })
        .with_context(|| running.process.log_text())
    }

    /// A workload by name.
    pub fn workload(&self, name: &str) -> Result<&Running> {
        self.workloads.get(name).with_context(|| format!("BUG: no workload {name}"))
    }

    /// What clients of other clusters dial for db: the gateway of us-1, IPv4 and IPv6.
    pub fn db_dialled(&self) -> [SocketAddr; 2] {
        self.world.clusters[1].gateway.outside().both().map(|address| SocketAddr::new(address, DB_DIALLED))
    }

    /// An operator's command; its standard output. Errors: a status other than 0, with the output.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        self.finished(&self.server.place, arguments)
    }

    /// An operator's command that is to fail; its output.
    pub fn cli_fails(&self, arguments: &[&str]) -> Result<String> {
        let finished = self.server.place.finished(self.program(arguments), COMMAND_LIMIT)?;
        if finished.status.success() {
            bail!("`stolos {}` succeeded:\n{}", arguments.join(" "), finished.stdout);
        }
        Ok(finished.stdout + &finished.stderr)
    }

    /// An operator's command with `-o json`.
    pub fn json<T: serde::de::DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let text = self.cli(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("`stolos {}` wrote:\n{text}", arguments.join(" ")))
    }

    /// Applies documents.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.with_file(manifest, |file| self.cli(&["apply", "-f", file]))
    }

    /// Deletes what documents name.
    pub fn delete(&self, manifest: &str) -> Result<String> {
        self.with_file(manifest, |file| self.cli(&["delete", "-f", file]))
    }

    fn with_file(&self, manifest: &str, act: impl FnOnce(&str) -> Result<String>) -> Result<String> {
        let file = self.server.place.dir().join(format!("manifest-{:06x}.yaml", rand::random::<u32>() & 0xFF_FFFF));
        fs::write(&file, manifest)?;
        act(&file.display().to_string()).with_context(|| manifest.to_owned())
    }

    /// A command on a node that asks its agent. Errors: a status other than 0, with the output.
    pub fn agent(&self, node: &str, arguments: &[&str]) -> Result<String> {
        let node = self.node(node)?;
        let socket = socket(node).display().to_string();
        self.finished(node.host(), &[arguments, &["--socket", &socket]].concat())
    }

    /// As [`Site::agent`], whatever the status; standard output.
    pub fn agent_whatever(&self, node: &str, arguments: &[&str]) -> Result<String> {
        let node = self.node(node)?;
        let socket = socket(node).display().to_string();
        let program = self.program(&[arguments, &["--socket", &socket]].concat());
        Ok(node.host().finished(program, COMMAND_LIMIT)?.stdout)
    }

    /// Every step that shows a refusal begins so: the whole tenant enforces. Does nothing the second time.
    pub(super) fn enforce(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.enforced, true) {
            self.apply(ENFORCE)?;
        }
        self.wait_until_rolled_out()
    }

    /// Waits until what the server has is live in every node's kernel, and has been for a moment: right after a write
    /// the server may not have sent it yet.
    pub fn wait_until_rolled_out(&self) -> Result<()> {
        let mut since = None;
        wait::until_succeeds("the roll-out on all nodes", SETTLE_LIMIT, || {
            let (nodes, behind) = super::views::rollout(self)?;
            if nodes != self.agents.len() || !behind.is_empty() {
                since = None;
                bail!("{nodes} of {} nodes are known, and it is not live on {behind:?}", self.agents.len());
            }
            let since = *since.get_or_insert_with(Instant::now);
            ensure!(since.elapsed() >= ROLLED_OUT_FOR, "it is complete since a moment only");
            Ok(())
        })
    }

    fn finished(&self, place: &Place, arguments: &[&str]) -> Result<String> {
        place
            .output(self.program(arguments), COMMAND_LIMIT)
            .with_context(|| format!("`stolos {}`", arguments.join(" ")))
    }

    fn program(&self, arguments: &[&str]) -> Program {
        let program = Program::new(&self.stolos).args(arguments.iter().copied());
        program.env("STOLOS_CONFIG", self.admin_config()).env("NO_COLOR", "1")
    }

    /// Tells which commands to try while everything stays up.
    pub fn invite(&self) {
        let enter = format!("nsenter --net={}", self.server.place.netns().path().display());
        println!("\nTry (the server is on a network of its own, hence nsenter):");
        println!("  export STOLOS_CONFIG={}", self.admin_config().display());
        for verb in ["status", "flows --since 1m", "get workloads", "explain flow cron@eu-1 db@us-1:6379"] {
            println!("  {enter} {} {verb}", self.stolos.display());
        }
    }
}

/// What to start as a workload.
pub struct WorkloadSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// The node to run on.
    pub node: &'a str,
    /// As a pod: the host number of an address of its own.
    pub pod_host: Option<u8>,
    /// `key=value`.
    pub labels: &'a [&'a str],
    /// Program and arguments.
    pub command: Vec<String>,
    /// How long `stolos run` waits for the fleet to know it; the CLI's default where it is left out.
    pub wait: Option<Duration>,
}

/// Where the agent of a node listens.
pub fn socket(node: &Node) -> PathBuf {
    node.dir().join("agent.sock")
}

/// Shows one line of the tour.
pub fn say(text: &str) {
    println!("   {text}");
}

/// The cgroup of a process below `subtree`, once it is not the node's own one any more.
fn own_cgroup(pid: i32, subtree: &Cgroup, host: &Cgroup) -> Option<Cgroup> {
    let membership = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let inside = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mount = crate::cgroup::mount_point().ok()?;
    let path = mount.join(inside);
    let moved = path.starts_with(subtree.path()) && path != host.path() && path != subtree.path();
    moved.then(|| Cgroup::create(path).ok())?
}
