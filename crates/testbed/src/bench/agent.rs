//! `bench agent`: what a node agent costs, and how fast a policy write is live. Server, two nodes, agents and workloads are the
//! real ones; a write is live when a real connection's answer has changed.

mod fleet;
mod write;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use self::fleet::{CLIENT, SERVER};
use super::load::Measured;
use super::profile::cpu_ns;
use super::report::{Row, machine, percentile};
use crate::demo::site::Site;
use crate::run::Run;

const BENCH: &str = "agent";
/// Short connections per second for the agents' processor time.
const RATE: u32 = 1000;
/// The load has begun after so long, and goes on so much longer than it is looked at; never longer than it is looked at.
const MARGIN_MAX: Duration = Duration::from_secs(3);
/// For the load to end on a loaded machine.
const LOAD_LIMIT: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Policy writes.
    pub writes: u32,
    /// Workloads on the node whose agent is weighed, besides those of the load and the probes.
    pub workloads: u32,
    /// How long processor time is counted.
    pub window: Duration,
    /// The `stolos` binary.
    pub stolos: PathBuf,
    /// The `bench-load` binary.
    pub load: PathBuf,
}

impl Options {
    /// 100 writes and 100 workloads: some two minutes.
    pub fn new(stolos: PathBuf, load: PathBuf) -> Self {
        Self { writes: 100, workloads: 100, window: Duration::from_secs(10), stolos, load }
    }
}

/// Brings the fleet up, measures, takes it down.
pub fn run(options: &Options, mut progress: impl FnMut(&str)) -> Result<Vec<Row>> {
    let run = Run::start("bench-agent")?;
    let mut rows = machine(BENCH);
    progress("server, two nodes, agents");
    let mut site = fleet::bring_up(&run, options)?;
    progress(&format!("{} workloads", options.workloads));
    fleet::crowd(&mut site, options.workloads)?;
    rows.extend(memory(&site, "agent_rss_100_workloads", "agent_rss_anonymous_100_workloads")?);
    progress("an idle agent's processor time");
    let [idle, _] = processor_time(&site, options.window)?;
    rows.push(Row::absolute(BENCH, "agent_cpu_idle", "% of a core", vec![idle]));
    progress(&format!("{RATE} connections per second"));
    rows.extend(loaded(&mut site, options)?);
    rows.extend(memory(&site, "agent_rss_after_load", "agent_rss_anonymous_after_load")?);
    progress(&format!("{} policy writes", options.writes));
    rows.extend(written(&write::measure(&mut site, options)?));
    drop(site);
    run.finish()?;
    Ok(rows)
}

fn written(writes: &[write::Write]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |p50, p99, of: fn(&write::Write) -> f64| {
        let values: Vec<f64> = writes.iter().map(of).collect();
        for (metric, p) in [(p50, 50), (p99, 99)] {
            let value = percentile(values.clone(), p).unwrap_or(f64::NAN);
            rows.push(Row { rounds: values.len(), ..Row::absolute(BENCH, metric, "ms", vec![value]) });
        }
    };
    add("policy_write_to_live_p50", "policy_write_to_live_p99", |write| write.live_ms);
    add("policy_acknowledged_to_live_p50", "policy_acknowledged_to_live_p99", |w| w.live_ms - w.acknowledged_ms);
    add("policy_write_to_acknowledged_p50", "policy_write_to_acknowledged_p99", |write| write.acknowledged_ms);
    add("policy_write_to_confirmed_p50", "policy_write_to_confirmed_p99", |write| write.confirmed_ms);
    rows
}

/// Resident memory of the agent with many workloads, and the part of it that no file backs.
fn memory(site: &Site, resident: &'static str, anonymous: &'static str) -> Result<[Row; 2]> {
    let pid = site.agent_process(CLIENT)?.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let megabytes = |field: &str| -> Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such line in status")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0 / 1e6)
    };
    let row = |metric, value| Row::absolute(BENCH, metric, "MB", vec![value]);
    Ok([row(resident, megabytes("VmRSS:")?), row(anonymous, megabytes("RssAnon:")?)])
}

/// Processor time of both agents over a while, in per cent of one core.
fn processor_time(site: &Site, window: Duration) -> Result<[f64; 2]> {
    let pids = [site.agent_process(CLIENT)?.pid(), site.agent_process(SERVER)?.pid()];
    let before = [cpu_ns(pids[0])?, cpu_ns(pids[1])?];
    let start = std::time::Instant::now();
    std::thread::sleep(window);
    let elapsed = start.elapsed().as_nanos() as f64;
    let ran = |agent: usize| cpu_ns(pids[agent]).map(|now| now.saturating_sub(before[agent]) as f64 / elapsed * 100.0);
    Ok([ran(0)?, ran(1)?])
}

/// The agents' processor time while short connections come at a steady rate.
fn loaded(site: &mut Site, options: &Options) -> Result<[Row; 3]> {
    let margin = options.window.min(MARGIN_MAX);
    let load = fleet::start_load(site, options, RATE, options.window + margin * 2)?;
    std::thread::sleep(margin);
    let [client, server] = processor_time(site, options.window)?;
    ensure!(load.wait(LOAD_LIMIT)?.success(), "the load failed:\n{}", load.log_text());
    let said = load.log_text();
    let line = said.lines().last().context("the load said nothing")?;
    let measured: Measured = serde_json::from_str(line).with_context(|| said.clone())?;
    let row = |metric, unit, value| Row::absolute(BENCH, metric, unit, vec![value]);
    Ok([
        row("agent_cpu_client_node", "% of a core", client),
        row("agent_cpu_server_node", "% of a core", server),
        row("agent_cpu_connections_per_s", "1/s", measured.per_second),
    ])
}

/// One line for each figure that has a floor: reached or missed, and the aim beside it.
pub fn against_the_floors(rows: &[Row]) -> String {
    let value = |metric: &str| rows.iter().find(|row| row.metric == metric).map(|row| row.value);
    let figures = [
        ("agent's memory with 100 workloads, MB", "agent_rss_100_workloads", 30.0, 30.0),
        ("policy write begun to live, p50, ms", "policy_write_to_live_p50", 200.0, 50.0),
        ("policy write begun to live, p99, ms", "policy_write_to_live_p99", 200.0, 50.0),
    ];
    let mut text = String::new();
    for (name, metric, floor, aim) in figures {
        let Some(value) = value(metric) else { continue };
        let said = match value {
            value if value <= aim => "aim reached",
            value if value <= floor => "floor reached",
            _ => "MISSED",
        };
        text += &format!("{name:46} {value:.1}  floor {floor:.0}  aim {aim:.0}  {said}\n");
    }
    text
}
