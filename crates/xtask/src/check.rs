//! `check`: format, clippy, tidy; with `--full` what needs tools that not every machine has.

use std::process::Command;

use anyhow::Result;

use crate::step::{Step, Tally, cargo, program};
use crate::tidy;

/// Crates without system calls, that must build for the other architecture, too.
const PURE: &[&str] = &["identity", "policy", "handshake"];
const OTHER_TARGET: &str = "aarch64-unknown-linux-gnu";

pub(crate) fn check(full: bool) -> Result<bool> {
    let tally = tally(full)?;
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

/// Each check counts as one.
pub(crate) fn tally(full: bool) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut count = |passed: bool| tally.add(Tally::one(passed));
    count(cargo(&["fmt", "--all", "--check"]).succeeds()?);
    count(tidy()?);
    count(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]).succeeds()?);
    if full {
        for (name, step) in
            [("cargo-deny", cargo(&["deny", "check", "bans", "licenses", "sources"])), ("typos", program("typos", &[]))]
        {
            count_if_there(name, step, &mut count)?;
        }
        cross_check(&mut count)?;
    }
    Ok(tally)
}

/// Prints every broken house rule with its place.
pub(crate) fn tidy() -> Result<bool> {
    eprintln!("x: tidy");
    let problems = tidy::problems()?;
    for problem in &problems {
        eprintln!("{problem}");
    }
    if !problems.is_empty() {
        eprintln!("x: tidy: {} problems; the rules are in CONTRIBUTING.md", problems.len());
    }
    Ok(problems.is_empty())
}

fn count_if_there(name: &str, step: Step, count: &mut impl FnMut(bool)) -> Result<()> {
    if answers(name, &["--version"]) {
        count(step.succeeds()?);
    } else {
        println!("x: {name} is not installed, so its check did not run (cargo install {name})");
    }
    Ok(())
}

fn cross_check(count: &mut impl FnMut(bool)) -> Result<()> {
    let installed = Command::new("rustup").args(["target", "list", "--installed"]).output();
    let installed = installed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    if !installed.lines().any(|line| line == OTHER_TARGET) {
        println!("x: no check for {OTHER_TARGET}: the target is not installed (rustup target add {OTHER_TARGET})");
    } else if !answers("aarch64-linux-gnu-gcc", &["--version"]) {
        println!("x: no check for {OTHER_TARGET}: no C compiler for it (apt-get install gcc-aarch64-linux-gnu)");
    } else {
        let packages = PURE.iter().flat_map(|name| ["-p", name]);
        count(cargo(&["check", "--target", OTHER_TARGET]).args(packages).succeeds()?);
    }
    Ok(())
}

fn answers(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}
