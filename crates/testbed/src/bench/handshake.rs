//! `bench handshake`: connections and traffic without enforcement, with ours, and with a userspace NFQUEUE handshake.
//!
//! Each contender has a [`lane`] of its own, set up once. A round runs each metric's slice on every lane, one right after the
//! other, in an order that rotates; a ratio compares slices of the same round only.

pub(crate) mod lane;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use self::lane::Lane;
use crate::bench::load::{Measured, Work};
use crate::bench::report::{Row, Samples, machine};
use crate::require;
use crate::run::Run;
use crate::world::World;

const BENCH: &str = "handshake";
const BASELINE: &str = "none";
/// Compared to the userspace contender, too.
const RATE: [&str; 2] = ["connections_per_s", "connections_per_s_ipv6"];

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// Nothing attached.
    None,
    /// The datapath, with the agents that read its records.
    Stolos,
    /// The userspace handshake.
    Nfqueue,
}

impl Contender {
    const ALL: [Contender; 3] = [Contender::None, Contender::Stolos, Contender::Nfqueue];

    fn name(self) -> &'static str {
        match self {
            Contender::None => BASELINE,
            Contender::Stolos => "stolos",
            Contender::Nfqueue => "nfqueue",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Name, unit, and how to read it off a slice.
type Value = (&'static str, &'static str, fn(&Measured) -> f64);

/// A metric: its slice of load, and how its values are read.
pub(crate) struct Metric {
    values: &'static [Value],
    pub(crate) work: Work,
    pub(crate) family: Family,
    pub(crate) threads: usize,
    pub(crate) one_core: bool,
}

impl Metric {
    pub(crate) const fn one_core(work: Work, family: Family, values: &'static [Value]) -> Self {
        Self { values, work, family, threads: 1, one_core: true }
    }

    pub(crate) const fn free(work: Work, family: Family, threads: usize, values: &'static [Value]) -> Self {
        Self { values, work, family, threads, one_core: false }
    }
}

/// What is gated, with IPv6 as second rows, and one row that is not: with free placement, latency mostly shows what waking
/// the other core costs.
const METRICS: [Metric; 7] = [
    Metric::one_core(
        Work::Connect,
        Family::V4,
        &[("connect_request_p50", "us", |m| m.p50_us), ("connect_request_p99", "us", |m| m.p99_us)],
    ),
    Metric::one_core(
        Work::Connect,
        Family::V6,
        &[("connect_request_p50_ipv6", "us", |m| m.p50_us), ("connect_request_p99_ipv6", "us", |m| m.p99_us)],
    ),
    Metric::one_core(Work::KeepAlive, Family::V4, &[("keepalive_rtt_p50", "us", |m| m.p50_us)]),
    Metric::one_core(Work::KeepAlive, Family::V6, &[("keepalive_rtt_p50_ipv6", "us", |m| m.p50_us)]),
    Metric::free(Work::Connect, Family::V4, 2, &[(RATE[0], "1/s", |m| m.per_second)]),
    Metric::free(Work::Connect, Family::V6, 2, &[(RATE[1], "1/s", |m| m.per_second)]),
    Metric::free(Work::Connect, Family::V4, 1, &[("connect_request_p50_free", "us", |m| m.p50_us)]),
];

/// Throughput has rounds of its own. One core for both ends shows cost, two show what is left of it.
const THROUGHPUT: [Metric; 3] = [
    Metric::free(Work::Bulk, Family::V4, 1, &[("throughput", "MB/s", |m| m.per_second / 1e6)]),
    Metric::free(Work::Bulk, Family::V6, 1, &[("throughput_ipv6", "MB/s", |m| m.per_second / 1e6)]),
    Metric::one_core(Work::Bulk, Family::V4, &[("throughput_one_core", "MB/s", |m| m.per_second / 1e6)]),
];

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rounds of everything but throughput.
    pub rounds: u32,
    /// Rounds of throughput.
    pub throughput_rounds: u32,
    /// Length of one slice.
    pub slice: Duration,
    /// The `stolos` binary.
    pub stolos: PathBuf,
    /// The `bench-load` binary.
    pub load: PathBuf,
}

impl Options {
    /// 60 rounds of slices of a tenth of a second: some four minutes.
    pub fn new(stolos: PathBuf, load: PathBuf) -> Self {
        Self { rounds: 60, throughput_rounds: 60, slice: Duration::from_millis(100), stolos, load }
    }
}

/// Measures all contenders and returns one row for each metric and contender.
pub fn run(options: &Options, mut progress: impl FnMut(&str)) -> Result<Vec<Row>> {
    ensure!(
        require::find_program("iptables-nft").is_some(),
        "the NFQUEUE contender needs iptables: apt-get install iptables"
    );
    let run = Run::start("bench-handshake")?;
    let machine = machine(BENCH);
    let lanes = lanes(&run, options, &Contender::ALL)?;
    let mut samples = Samples::default();
    let phases =
        [("round", options.rounds, &METRICS[..]), ("throughput round", options.throughput_rounds, &THROUGHPUT)];
    for (name, rounds, metrics) in phases {
        for round in 0..rounds {
            for (index, metric) in metrics.iter().enumerate() {
                for turn in 0..lanes.len() {
                    let lane = &lanes[(turn + index + round as usize) % lanes.len()];
                    let measured = lane.measure(metric, options.slice)?;
                    for (name, _, read) in metric.values {
                        samples.note(name, lane.contender.name(), round, read(&measured));
                    }
                }
            }
            progress(&format!("{name} {} of {rounds}", round + 1));
        }
    }
    run.finish()?;
    Ok(rows(&samples, machine))
}

/// Lanes for these contenders, in one world.
pub(crate) fn lanes(run: &Run, options: &Options, contenders: &[Contender]) -> Result<Vec<Lane>> {
    let clusters: Vec<_> = contenders.iter().map(|contender| (contender.name(), 2)).collect();
    let world = World::build(run, &clusters)?;
    contenders.iter().enumerate().map(|(number, of)| Lane::build(*of, &world, number, options)).collect()
}

fn rows(samples: &Samples, machine: Vec<Row>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (metric, unit, _) in METRICS.iter().chain(&THROUGHPUT).flat_map(|metric| metric.values) {
        for contender in Contender::ALL {
            let baseline = (contender != Contender::None).then_some(BASELINE);
            rows.extend(samples.row(BENCH, (metric, unit), contender.name(), baseline));
        }
        if RATE.contains(metric) {
            rows.extend(samples.row(BENCH, (metric, unit), "stolos", Some("nfqueue")));
        }
    }
    rows.extend(machine);
    rows
}

/// One line for each figure that has a floor: reached or missed, and the aim beside it.
pub fn against_the_floors(rows: &[Row]) -> String {
    let row = |metric: &str, baseline: &str| {
        rows.iter().find(|row| (row.metric, row.contender, row.baseline) == (metric, "stolos", Some(baseline)))
    };
    let ratio = |metric: &str, baseline: &str| row(metric, baseline)?.ratio;
    let figures = [
        ("connect + request p50, one core, × none", ratio("connect_request_p50", BASELINE), 1.30, 1.15, false),
        ("keep-alive p50, one core, × none", ratio("keepalive_rtt_p50", BASELINE), 1.08, 1.03, false),
        ("connections/s, two threads, × none", ratio(RATE[0], BASELINE), 0.75, 0.90, true),
        ("connections/s, two threads, × nfqueue", ratio(RATE[0], "nfqueue"), 1.7, 2.2, true),
        (
            "throughput × none, upper bound of the median",
            row("throughput", BASELINE).and_then(|row| row.ratio_max),
            1.0,
            1.0,
            true,
        ),
    ];
    let mut text = String::new();
    for (name, value, floor, aim, more_is_better) in figures {
        let Some(value) = value else { continue };
        let holds = |bound: f64| if more_is_better { value >= bound } else { value <= bound };
        let said = if holds(aim) {
            "aim reached"
        } else if holds(floor) {
            "floor reached"
        } else {
            "MISSED"
        };
        text += &format!("{name:46} {value:.3}  floor {floor:.2}  aim {aim:.2}  {said}\n");
    }
    text
}
