//! The demo: two clusters with equal addresses, a server, real programs, and a guided tour that asserts what it shows.
//!
//! [`site`] brings the fleet up with the real `stolos` binary; each step of the tour is a file `step_*.rs` and proves by
//! what a user can see: exit status and JSON of the CLI, errno and timing of real connections.

mod lab;
pub mod site;
mod step_agent;
mod step_capture;
mod step_enforce;
mod step_explain;
mod step_label;
mod step_listener;
mod step_observe;
mod step_outsider;
mod step_refuse;
mod step_relay;
mod step_replay;
mod step_resolver;
mod step_revoke;
mod step_server;
mod views;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::run::{self, Run};
use crate::snapshot::Snapshot;
use site::Site;

/// How the demo is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Unattended: assert every step, take everything down, print the sum.
    pub check: bool,
    /// Only these steps (by number); all where it is empty. The fleet is brought up in any case.
    pub steps: Vec<u8>,
    /// The `stolos` binary.
    pub stolos: PathBuf,
}

/// One step of the tour.
pub struct Step {
    /// As in the README.
    pub number: u8,
    /// One line.
    pub title: &'static str,
    /// What it happens on.
    pub on: Ground,
    /// Shows and asserts.
    pub run: fn(&mut Site) -> Result<()>,
}

/// What a step happens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// The two clusters with their server.
    Fleet,
    /// The cluster where attackers know the keys.
    Lab,
}

/// The tour, in order.
const TOUR: &[Step] = &[
    step_observe::STEP,
    step_enforce::STEP,
    step_refuse::STEP,
    step_explain::STEP,
    step_label::STEP,
    step_revoke::STEP,
    step_agent::STEP,
    step_server::STEP,
    step_outsider::STEP,
    step_listener::STEP,
    step_replay::STEP,
    step_capture::STEP,
    step_relay::STEP,
    step_resolver::STEP,
];

/// For a connection or a small program that must succeed on a loaded machine.
const COMMAND: Duration = Duration::from_secs(10);
/// Longer than any timer of an agent, as the demo sets them.
const TIMERS_LONGEST: Duration = Duration::from_secs(20);

/// Runs the demo to its end.
pub fn run(options: &Options) -> ExitCode {
    match tour(options) {
        Ok((passed, 0)) => {
            println!("{passed} passed, 0 failed");
            ExitCode::SUCCESS
        }
        Ok((passed, failed)) => {
            println!("{passed} passed, {failed} failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            println!("0 passed, {} failed", TOUR.len().max(1));
            ExitCode::FAILURE
        }
    }
}

/// Passed and failed steps. An error: the fleet could not be brought up.
fn tour(options: &Options) -> Result<(usize, usize)> {
    let alone = run::alone()?;
    let before = Snapshot::settled()?;
    let run = alone.start("demo")?;
    let mut site = Site::build(&run, options)?;
    let chosen = |step: &&Step| options.steps.is_empty() || options.steps.contains(&step.number);
    let steps: Vec<_> = TOUR.iter().filter(chosen).collect();
    if steps.iter().any(|step| step.on == Ground::Fleet) || !options.check {
        site.bring_up()?;
    }
    let failed = steps.iter().filter(|step| !take(step, &mut site)).count();
    let mut tally = (steps.len() - failed, failed);
    if options.check {
        drop(site);
        count(&mut tally, "everything is taken down and the machine is as it was", clean_up(run, &before, failed));
    } else {
        site.invite();
        stay(&run);
    }
    Ok(tally)
}

fn take(step: &Step, site: &mut Site) -> bool {
    println!("\n== {}. {}", step.number, step.title);
    let start = Instant::now();
    let outcome = (step.run)(site);
    report(&format!("step {}", step.number), start, &outcome)
}

fn count(tally: &mut (usize, usize), what: &str, outcome: Result<()>) {
    println!("\n== {what}");
    let passed = report(what, Instant::now(), &outcome);
    *(if passed { &mut tally.0 } else { &mut tally.1 }) += 1;
}

fn report(what: &str, start: Instant, outcome: &Result<()>) -> bool {
    match outcome {
        Ok(()) => println!("   ok ({:.1} s)", start.elapsed().as_secs_f64()),
        Err(error) => println!("   FAILED: {what}: {error:#}"),
    }
    outcome.is_ok()
}

fn clean_up(run: Run, before: &Snapshot, failed: usize) -> Result<()> {
    if failed > 0 {
        run.keep_directory();
    }
    run.finish()?;
    before.assert_equal_now()
}

/// Until Ctrl-C, whose handler takes the run down and ends the process.
fn stay(run: &Run) -> ! {
    println!("\nEverything stays up until Ctrl-C (run {}).", run.id());
    loop {
        std::thread::park();
    }
}
