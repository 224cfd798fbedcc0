//! `check`: format, clippy, tidy; with `--full` what needs tools that not every machine has.

use anyhow::Result;

use crate::step::{Tally, cargo};
use crate::{full, tidy};

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
        tally.add(full::tally()?);
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
