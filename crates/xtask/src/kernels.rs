//! `kernels`: the whole product on other kernels than this machine's, in a fresh Debian user space with cgroup v2 alone.
//!
//! Each kernel is a package of this machine's apt; it boots in QEMU from disks that nothing is written to, and what it says on
//! its console is read here. Nothing of it outlives the command, whatever ends it.

mod image;
mod machine;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::step::{Tally, cargo, target_dir};
use crate::suite;
use machine::{Machine, Outcome};

/// What `./x kernels` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Beginnings of kernel versions, such as 6.1; the newest package of each is taken
    #[arg(default_values = ["6.1", "6.12"])]
    versions: Vec<String>,
    /// For each kernel
    #[arg(long, default_value_t = 45)]
    minutes: u64,
    /// The integration tests that run, by the beginning of their names
    #[arg(long, default_value = "netns_")]
    tests: String,
    /// Leaves out the tour
    #[arg(long)]
    no_demo: bool,
}

/// Runs the tour and the kernel's tests on each kernel.
pub(crate) fn kernels(options: &Options) -> Result<bool> {
    ensure!(cfg!(target_arch = "x86_64"), "`./x kernels` knows only amd64's kernels, and this machine is another");
    if !suite::build_programs()? {
        return Ok(false);
    }
    let tests = integration_tests()?;
    let packages = options.versions.iter().map(|version| package(version)).collect::<Result<Vec<_>>>()?;
    let directory = target_dir().canonicalize()?.join("kernels");
    let root = image::Root::with(&directory, &packages)?;
    let programs = ["stolos", "demo", "testbed-peer", "bench-load"].map(|name| target_dir().join("debug").join(name));
    let built = programs.into_iter().chain([tests.clone()]).map(|path| Ok(path.canonicalize()?));
    let work = image::make_work(&directory, &built.collect::<Result<Vec<_>>>()?, &script(options, &tests)?)?;
    let mut tally = Tally::default();
    let mut machine = Machine::new(root, work);
    for package in packages {
        let release = package.trim_start_matches("linux-image-");
        let start = Instant::now();
        let outcome = machine.run(release, Duration::from_secs(60 * options.minutes))?;
        println!("{}", line(release, &outcome, start.elapsed()));
        tally.add(outcome.tally);
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

/// The one line that a kernel gets.
fn line(release: &str, outcome: &Outcome, took: Duration) -> String {
    let Tally { passed, failed } = outcome.tally;
    let state = if outcome.ended { "" } else { ", and did not come to its end" };
    let log = if failed == 0 { String::new() } else { format!("; see {}", outcome.log.display()) };
    format!("{release} ({}): {passed} passed, {failed} failed{state}, {} s{log}", outcome.emulation, took.as_secs())
}

/// What the machine runs; all paths are as here, because tests know theirs from the build.
fn script(options: &Options, tests: &std::path::Path) -> Result<String> {
    let project = crate::root().canonicalize()?;
    let target = target_dir().canonicalize()?;
    let (project, target) = (project.display(), target.display());
    let mut script =
        format!("for d in {project} {target}; do mkdir -p $d; mount --bind /mnt/files$d $d; done\ncd {project}\n");
    if !options.no_demo {
        script += &format!("{target}/debug/demo --check 2>&1 | cat\n");
    }
    script += &format!("{} {} 2>&1 | cat\n", tests.canonicalize()?.display(), options.tests);
    // What is known of a failure is in the logs of the runs that failed, which end with the machine.
    script += "for log in /run/stolos-testbed/*/*.log /run/stolos-testbed/*/*/*.log; do\n";
    script += "[ -s \"$log\" ] && echo \"--- $log\" && tail -n 20 \"$log\"\ndone\necho 'x: done'\n";
    Ok(script)
}

/// Builds the integration binary and tells where it is.
fn integration_tests() -> Result<PathBuf> {
    let built =
        cargo(&["test", "-q", "-p", "testbed", "--test", "it", "--no-run", "--message-format=json"]).output()?;
    let messages = String::from_utf8(built)?;
    let mut artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let executable = artifacts.find_map(|message| {
        (message["target"]["name"] == "it").then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    });
    executable.context("the integration tests do not build")
}

/// The newest kernel package of a version that apt has.
fn package(version: &str) -> Result<String> {
    let names =
        Command::new("apt-cache").args(["pkgnames", "linux-image-"]).output().context("cannot start apt-cache")?;
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    match newest(names.lines(), version) {
        Some(name) => Ok(name.to_owned()),
        None => bail!("apt has no kernel {version} here; `apt-cache pkgnames linux-image-` lists those it has"),
    }
}

/// Cloud kernels: Debian's own for virtual machines, same source and options but for drivers.
fn newest<'a>(names: impl Iterator<Item = &'a str>, version: &str) -> Option<&'a str> {
    let of_version = |name: &&str| {
        let rest = name.strip_prefix("linux-image-").and_then(|name| name.strip_prefix(version));
        rest.is_some_and(|rest| rest.starts_with('.') && rest.ends_with("-cloud-amd64"))
    };
    names.filter(of_version).max_by_key(|name| {
        let numbers = name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<u64>().ok());
        numbers.collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_of_a_version_is_taken_and_no_other_version_or_flavour() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-10-cloud-amd64",
            "linux-image-6.1.0-11-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.9+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
        ];
        assert_eq!(newest(names.into_iter(), "6.1"), Some("linux-image-6.1.0-10-cloud-amd64"));
        assert_eq!(newest(names.into_iter(), "6.12"), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest(names.into_iter(), "5.10"), None);
    }
}
