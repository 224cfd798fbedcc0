//! `bench profile`: where the time goes. What each kernel program and the agents take per connection and per round trip,
//! as the kernel itself counts it: processor time, so that it holds on a loaded machine, too.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use libbpf_rs::query::ProgInfoIter;

use super::handshake::lane::Lane;
use super::handshake::{Contender, Family, Metric, Options, lanes};
use super::load::Work;
use super::report::{Row, machine, median};
use crate::run::Run;

const BENCH: &str = "profile";
/// The datapath's programs, as the kernel names them (it cuts names at 15 bytes).
const PROGRAMS: [&str; 6] =
    ["stolos_connect4", "stolos_connect6", "stolos_create", "stolos_egress", "stolos_ingress", "stolos_socket"];
/// Makes the kernel count the programs' runs and time, at some 20 ns for each run.
const COUNTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// What is profiled: time and runs per operation.
const WORK: [(Metric, &str, &str); 5] = [
    (Metric::one_core(Work::Connect, Family::V4, &[]), "connection_ns", "connection_runs"),
    (Metric::one_core(Work::Connect, Family::V6, &[]), "connection_ns_ipv6", "connection_runs_ipv6"),
    // At the highest rate the agents have the most records to read.
    (Metric::free(Work::Connect, Family::V4, 2, &[]), "connection_ns_two_threads", "connection_runs_two_threads"),
    (Metric::one_core(Work::KeepAlive, Family::V4, &[]), "keepalive_rtt_ns", "keepalive_rtt_runs"),
    (Metric::one_core(Work::KeepAlive, Family::V6, &[]), "keepalive_rtt_ns_ipv6", "keepalive_rtt_runs_ipv6"),
];

/// Nanoseconds and runs so far, by program.
type Reading = BTreeMap<&'static str, (u64, u64)>;

/// Profiles one lane, both ends together: `rounds` slices for each kind of work, medians over the slices.
pub fn run(options: &Options) -> Result<Vec<Row>> {
    let run = Run::start("bench-profile")?;
    let mut rows = machine(BENCH);
    let lanes = lanes(&run, options, &[Contender::Stolos])?;
    let lane = lanes.first().context("BUG: one lane was asked for")?;
    let counting = Counting::on()?;
    for (metric, time, runs) in &WORK {
        rows.extend(profile(lane, metric, options, (time, runs))?);
    }
    drop(counting);
    run.finish()?;
    Ok(rows)
}

fn profile(lane: &Lane, metric: &Metric, options: &Options, names: (&'static str, &'static str)) -> Result<Vec<Row>> {
    let mut ns: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let mut runs: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for _ in 0..options.rounds {
        let before = read(lane)?;
        let count = lane.measure(metric, options.slice)?.count as f64;
        for (program, (time, number)) in read(lane)? {
            let (time_before, number_before) = before.get(program).copied().unwrap_or_default();
            ns.entry(program).or_default().push(time.saturating_sub(time_before) as f64 / count);
            runs.entry(program).or_default().push(number.saturating_sub(number_before) as f64 / count);
        }
    }
    let mut rows = Vec::new();
    for (program, ns) in ns {
        let runs = runs.remove(program).unwrap_or_default();
        if median(ns.clone()).unwrap_or_default() > 0.0 {
            let of = |metric, unit, values| Row { contender: program, ..Row::absolute(BENCH, metric, unit, values) };
            rows.push(of(names.0, "ns", ns));
            rows.extend((program != AGENTS).then(|| of(names.1, "runs", runs)));
        }
    }
    Ok(rows)
}

/// The agents' processes, beside the programs.
const AGENTS: &str = "agents";

fn read(lane: &Lane) -> Result<Reading> {
    let mut reading = Reading::new();
    for info in ProgInfoIter::default() {
        let name = info.name.to_string_lossy();
        if let Some(program) = PROGRAMS.iter().find(|program| **program == name) {
            let (time, number) = reading.entry(program).or_default();
            *time += info.run_time_ns;
            *number += info.run_cnt;
        }
    }
    let agents: Result<u64> = lane.own.iter().map(|process| cpu_ns(process.pid())).sum();
    reading.insert(AGENTS, (agents?, 0));
    Ok(reading)
}

/// Processor time of a process so far, nanoseconds; threads that ended are left out.
pub(crate) fn cpu_ns(pid: i32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        let ran: u64 = text.split(' ').next().and_then(|word| word.parse().ok()).context("no time in schedstat")?;
        sum += ran;
    }
    Ok(sum)
}

/// The kernel counts while this lives.
struct Counting(String);

impl Counting {
    fn on() -> Result<Self> {
        let before = fs::read_to_string(COUNTING).with_context(|| COUNTING.to_owned())?;
        fs::write(COUNTING, "1")?;
        Ok(Self(before))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = fs::write(COUNTING, self.0.trim());
    }
}
