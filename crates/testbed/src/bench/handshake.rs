//! `bench handshake`: connections and traffic without enforcement, with ours, and with a userspace NFQUEUE handshake.
//!
//! Two nodes joined by one veth pair. A round runs every contender once, in an order that rotates; a contender is set up
//! before its slices and taken away after them, so that nothing of it weighs on the others.

mod ours;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::bench::load::{Measured, Slice, Work};
use crate::bench::nfqueue;
use crate::bench::report::{Row, Samples};
use crate::node::{Node, Workload};
use crate::process::{Place, Process, Program};
use crate::require;
use crate::run::Run;
use crate::world::World;

/// Server ports: everything on one core, and free placement.
const PORTS: [u16; 2] = [9001, 9002];
const LIMIT: Duration = Duration::from_secs(20);
/// The core that everything is pinned to where one core is measured.
const CORE: usize = 0;
const BASELINE: &str = "none";
/// Compared to the userspace contender, too.
const RATE: &str = "connections_per_s";

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// Nothing attached.
    None,
    /// The datapath.
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

/// Name, unit, and how to read it off a slice.
type Value = (&'static str, &'static str, fn(&Measured) -> f64);

/// A metric: its slice of load, and how its value is read.
struct Metric {
    /// Names and units of the values that the slice gives.
    values: &'static [Value],
    work: Work,
    threads: usize,
    one_core: bool,
}

const METRICS: [Metric; 5] = [
    Metric {
        values: &[("connect_request_p50", "us", |m| m.p50_us), ("connect_request_p99", "us", |m| m.p99_us)],
        work: Work::Connect,
        threads: 1,
        one_core: true,
    },
    Metric { values: &[(RATE, "1/s", |m| m.per_second)], work: Work::Connect, threads: 2, one_core: false },
    Metric { values: &[("keepalive_rtt_p50", "us", |m| m.p50_us)], work: Work::KeepAlive, threads: 1, one_core: true },
    Metric { values: &[("throughput", "MB/s", |m| m.per_second / 1e6)], work: Work::Bulk, threads: 1, one_core: false },
    // Not gated: it mostly shows what waking the other core costs.
    Metric {
        values: &[("connect_request_p50_free", "us", |m| m.p50_us)],
        work: Work::Connect,
        threads: 1,
        one_core: false,
    },
];

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rounds; the throughput interval asks for 60.
    pub rounds: u32,
    /// Length of one slice.
    pub slice: Duration,
    /// The bench's own program, which is the load, too.
    pub program: PathBuf,
}

/// The two ends.
struct Bench<'a> {
    client: &'a Node,
    server: &'a Node,
    caller: Workload,
    service: Workload,
    options: &'a Options,
    fleet: ours::Ours,
}

/// Measures all contenders and returns one row for each metric and contender.
pub fn run(options: &Options, mut progress: impl FnMut(u32)) -> Result<Vec<Row>> {
    ensure!(
        require::find_program("iptables-nft").is_some(),
        "the NFQUEUE contender needs iptables: apt-get install iptables"
    );
    let run = Run::start("bench-handshake")?;
    let world = World::one_cluster(&run, 2)?;
    let [client, server] = &world.clusters[0].nodes[..] else { anyhow::bail!("BUG: two nodes were asked for") };
    join(client, server)?;
    let (caller, service) = (client.workload("caller")?, server.workload("service")?);
    let fleet = ours::Ours::plan(&world, [client, server], [&caller, &service], &ADDRESSES)?;
    let mut bench = Bench { client, server, caller, service, options, fleet };
    let mut samples = Samples::default();
    for round in 0..options.rounds {
        for turn in 0..Contender::ALL.len() {
            let contender = Contender::ALL[(turn + round as usize) % Contender::ALL.len()];
            bench.contend(contender, round, &mut samples).with_context(|| format!("contender {}", contender.name()))?;
        }
        progress(round + 1);
    }
    run.finish()?;
    Ok(rows(&samples))
}

fn rows(samples: &Samples) -> Vec<Row> {
    let mut rows = Vec::new();
    for (metric, unit, _) in METRICS.iter().flat_map(|metric| metric.values) {
        for contender in Contender::ALL {
            let baseline = (contender != Contender::None).then_some(BASELINE);
            rows.extend(samples.row("handshake", (metric, unit), contender.name(), baseline));
        }
        if *metric == RATE {
            rows.extend(samples.row("handshake", (metric, unit), "stolos", Some("nfqueue")));
        }
    }
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
        ("connections/s, two threads, × none", ratio(RATE, BASELINE), 0.75, 0.90, true),
        ("connections/s, two threads, × nfqueue", ratio(RATE, "nfqueue"), 1.7, 2.2, true),
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

/// Addresses on the veth pair that joins both nodes directly: client, server.
const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 1)), IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 2))];

fn join(client: &Node, server: &Node) -> Result<()> {
    let far = server.netns().path().display();
    client.netns().ip(&format!(
        "link add direct type veth peer name direct netns {far}\nlink set direct up\naddr add {}/24 dev direct\n",
        ADDRESSES[0]
    ))?;
    server.netns().ip(&format!("link set direct up\naddr add {}/24 dev direct\n", ADDRESSES[1]))
}

impl Bench<'_> {
    /// Sets one contender up, runs every metric's slice, and takes it away.
    fn contend(&mut self, contender: Contender, round: u32, samples: &mut Samples) -> Result<()> {
        match contender {
            Contender::None => {}
            Contender::Stolos => self.fleet.attach([self.client, self.server])?,
            Contender::Nfqueue => {
                nfqueue::install(self.client.netns(), PORTS)?;
                nfqueue::install(self.server.netns(), PORTS)?;
            }
        }
        let result =
            [true, false].into_iter().try_for_each(|one_core| self.slices(contender, one_core, round, samples));
        match contender {
            Contender::None => {}
            Contender::Stolos => self.fleet.detach()?,
            Contender::Nfqueue => {
                nfqueue::remove(self.client.netns(), PORTS)?;
                nfqueue::remove(self.server.netns(), PORTS)?;
            }
        }
        result
    }

    /// The slices of one placement, with a server (and readers) placed accordingly.
    fn slices(&self, contender: Contender, one_core: bool, round: u32, samples: &mut Samples) -> Result<()> {
        let port = PORTS[usize::from(!one_core)];
        let at = SocketAddr::new(ADDRESSES[1], port);
        let core = one_core.then(|| CORE.to_string());
        let placed = |verb: &str| {
            let program = Program::new(&self.options.program).named(format!("{verb}-{port}")).arg(verb);
            core.iter().fold(program, |program, core| program.arg("--core").arg(core))
        };
        let mut running = Vec::new();
        if contender == Contender::Nfqueue {
            for node in [self.client, self.server] {
                running.push(started(node.host(), placed("nfqueue-reader"))?);
            }
        }
        let threads = if one_core { "1" } else { "2" };
        let server = placed("serve").args(["--at", &at.to_string(), "--threads", threads]);
        running.push(started(self.service.place(), server)?);
        for metric in METRICS.iter().filter(|metric| metric.one_core == one_core) {
            let slice = Slice {
                work: metric.work,
                to: at,
                duration: self.options.slice,
                threads: metric.threads,
                core: one_core.then_some(CORE),
            };
            let drive = Program::new(&self.options.program).arg("drive").arg(serde_json::to_string(&slice)?);
            let output = self.caller.place().output(drive, LIMIT)?;
            let measured: Measured = serde_json::from_str(&output).with_context(|| output.clone())?;
            ensure!(measured.count > 0, "{:?} measured nothing", metric.work);
            for (name, _, read) in metric.values {
                samples.note(name, contender.name(), round, read(&measured));
            }
        }
        for process in running {
            process.kill();
        }
        Ok(())
    }
}

/// Starts a program that says `ready` when it is.
fn started(place: &Place, program: Program) -> Result<Process> {
    let name = format!("{:06x}", rand::random::<u32>() & 0xFF_FFFF);
    let process = place.start(program.named(name))?;
    process.wait_for_log("ready", LIMIT)?;
    Ok(process)
}
