//! The fleet that is measured: one cluster of two nodes with a real server, and the workloads of load and probes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Options;
use crate::bench::load::{Slice, Work};
use crate::demo::site::{Running, SETTLE_LIMIT, Site, WorkloadSpec};
use crate::process::{Process, Program};
use crate::programs;
use crate::run::Run;
use crate::wait;
use crate::world::World;

/// The node with many workloads, which is also the load's client.
pub(super) const CLIENT: &str = "eu-1-n1";
/// The other one.
pub(super) const SERVER: &str = "eu-1-n2";
const DOCUMENTS: &str = include_str!("fleet.yaml");
/// Where the load is answered.
const LOAD_PORT: u16 = 9001;
/// Where the probes are answered.
pub(super) const PROBE_PORT: u16 = 9000;

/// Server, nodes, agents, what answers the load, and on each node what answers its probe.
pub(super) fn bring_up(run: &Run, options: &Options) -> Result<Site> {
    let mut site = Site::over(World::one_cluster(run, 2)?, run, options.stolos.clone())?;
    site.start(DOCUMENTS)?;
    let at = SocketAddr::new(site.node(SERVER)?.addresses().v4.into(), LOAD_PORT);
    let mut answering = vec![start(&mut site, "service", SERVER, None, &["app=service"], serve(options, at))?];
    for (number, node) in (101..).zip([CLIENT, SERVER]) {
        let at = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), PROBE_PORT);
        answering.push(start(&mut site, target_of(node), node, Some(number), &["app=target"], serve(options, at))?);
    }
    answering.iter().try_for_each(|running| running.process.wait_for_log("ready", SETTLE_LIMIT))?;
    Ok(site)
}

/// Name of the workload that answers a node's probe: a pod, whose refusals by a node are made in connect() itself.
pub(super) fn target_of(node: &str) -> &'static str {
    if node == CLIENT { "target-one" } else { "target-two" }
}

/// Workloads that only are there, all placed and live when this returns.
pub(super) fn crowd(site: &mut Site, workloads: u32) -> Result<()> {
    for number in 0..workloads {
        let spec = WorkloadSpec {
            name: &format!("w{number}"),
            node: CLIENT,
            pod_host: None,
            labels: &[&format!("app=app-{}", number % 20), "tier=back"],
            command: programs::idle(),
            wait: Some(Duration::from_millis(1)),
        };
        site.start_workload(&spec)?;
    }
    wait::until_succeeds("all workloads to be live", SETTLE_LIMIT * 2, || {
        let status: api::local::Status =
            serde_json::from_str(&site.agent(CLIENT, &["agent", "status", "-o", "json"])?)?;
        let active = status.workloads.iter().filter(|w| w.state == api::local::WorkloadState::Active);
        let active = active.filter(|workload| workload.labels.contains_key("tier")).count();
        ensure!(active == workloads as usize, "{active} of {workloads} are live");
        Ok(())
    })?;
    site.wait_until_rolled_out()
}

/// Starts short connections at a steady rate, from a workload that every node knows: the first one must succeed.
pub(super) fn start_load(site: &mut Site, options: &Options, rate: u32, duration: Duration) -> Result<Process> {
    let slice = Slice {
        work: Work::Connect,
        to: SocketAddr::new(site.node(SERVER)?.addresses().v4.into(), LOAD_PORT),
        duration,
        threads: 1,
        core: None,
        every: Some(Duration::from_secs(1) / rate),
    };
    let inside = start(site, "load", CLIENT, None, &["app=load"], programs::idle())?;
    site.wait_until_rolled_out()?;
    inside.place.start(Program::new(&options.load).named("drive").args(["drive", &serde_json::to_string(&slice)?]))
}

/// A probe of one node: a workload there that asks a pod there, so that this node alone decides.
pub(super) fn probe_of(site: &mut Site, options: &Options, node: &'static str) -> Result<(Running, Program)> {
    let target = site.workload(target_of(node))?.addresses;
    let at = SocketAddr::new(target.v4.into(), PROBE_PORT);
    let name = if node == CLIENT { "probe-one" } else { "probe-two" };
    let inside = start(site, name, node, None, &["app=probe"], programs::idle())?;
    Ok((inside, Program::new(&options.load).named(name).args(["probe", &at.to_string()])))
}

fn start(
    site: &mut Site,
    name: &str,
    node: &str,
    pod_host: Option<u8>,
    labels: &[&str],
    command: Vec<String>,
) -> Result<Running> {
    let spec = WorkloadSpec { name, node, pod_host, labels, command, wait: None };
    site.start_workload(&spec).with_context(|| format!("workload {name} on {node}"))
}

fn serve(options: &Options, at: SocketAddr) -> Vec<String> {
    vec![options.load.display().to_string(), "serve".to_owned(), at.to_string(), "2".to_owned()]
}
