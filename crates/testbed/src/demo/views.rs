//! What the tour reads out of the CLI's JSON, as the API's own types.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use api::flow::{FlowList, FlowRow};
use api::local::{Doctor, Status, Workload};
use api::report::FleetStatus;
use policy::reason::Reason;

use super::COMMAND;
use super::site::{Site, socket};
use crate::node::Node;
use crate::process::Program;

/// Rows from one workload to another (`/namespace/name`), of the last ten minutes.
pub(super) fn flows(site: &Site, client: &str, server: &str) -> Result<Vec<FlowRow>> {
    let list: FlowList = site.json(&["flows", "--since", "10m"])?;
    let between = |row: &FlowRow| {
        let ends = (row.client.workload.as_deref(), row.server.workload.as_deref());
        ends == (Some(client), Some(server))
    };
    Ok(list.items.into_iter().filter(between).collect())
}

/// What the agent of a node says of itself.
pub(super) fn agent(site: &Site, node: &str) -> Result<Status> {
    parse(&site.agent(node, &["agent", "status", "-o", "json"])?)
}

/// A workload as the agent of its node knows it.
pub(super) fn local_workload(site: &Site, node: &str, name: &str) -> Result<Workload> {
    let known = agent(site, node)?.workloads.into_iter().find(|workload| workload.name == name);
    known.with_context(|| format!("the agent of {node} knows no workload {name}"))
}

/// The checks of `stolos doctor`, which ends with status 1 where one failed.
pub(super) fn doctor(site: &Site, node: &str) -> Result<Doctor> {
    parse(&site.agent_whatever(node, &["doctor", "-o", "json"])?)
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).with_context(|| format!("unexpected JSON:\n{text}"))
}

/// The number of nodes that `stolos status` knows, and the names of those where the newest state is not live.
pub(super) fn rollout(site: &Site) -> Result<(usize, Vec<String>)> {
    let status: FleetStatus = site.json(&["status"])?;
    Ok((usize::try_from(status.rollout.nodes)?, status.rollout.behind))
}

/// How often a node has refused for a reason.
pub(super) fn refused(site: &Site, node: &str, reason: Reason) -> Result<u64> {
    Ok(denials(&metrics(site.node(node)?)?).get(&reason).copied().unwrap_or(0))
}

/// The metrics of a node's agent.
pub(super) fn metrics(node: &Node) -> Result<String> {
    let curl = Program::new("curl").args(["-sS", "--fail", "--unix-socket"]).arg(socket(node));
    node.host().output(curl.arg("http://agent/metrics"), COMMAND)
}

/// Refusals by reason out of an agent's metrics; counters that are 0 may be missing.
pub(super) fn denials(metrics: &str) -> BTreeMap<Reason, u64> {
    let mut found = BTreeMap::new();
    for line in metrics.lines().filter(|line| line.starts_with("stolos_agent_refused_total{")) {
        let label = line.split_once("reason=\"").and_then(|(_, rest)| rest.split_once('"'));
        let reason = label.and_then(|(label, _)| Reason::ALL.iter().find(|reason| reason.label() == label));
        let count = line.rsplit_once(' ').and_then(|(_, number)| number.parse::<f64>().ok());
        if let (Some(reason), Some(count)) = (reason, count) {
            *found.entry(*reason).or_default() += count as u64;
        }
    }
    found
}
