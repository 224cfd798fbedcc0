//! `test`, `api`, `demo` and `golden`.

use std::time::Instant;

use anyhow::Result;

use crate::step::{Tally, cargo, program, target_dir};
use crate::{api, check, step};

/// Everything; the last line is the sum.
pub(crate) fn test() -> Result<bool> {
    let start = Instant::now();
    let mut tally = check::tally(false)?;
    // The integration tests start the product and the testbed's programs, so those are built first.
    let built = build_programs()?;
    tally.add(Tally::one(built));
    tally.add(cargo(&["test", "--workspace", "--no-fail-fast"]).tally()?);
    if built {
        tally.add(api::fuzz(None, None)?);
        tally.add(program(target_dir().join("debug/demo"), &["--check"]).tally()?);
    } else {
        eprintln!("x: no fuzzing of the API and no demo, because the programs do not build");
    }
    eprintln!("x: took {} s", start.elapsed().as_secs());
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

/// Builds the server and fuzzes its API.
pub(crate) fn api(examples: Option<u32>, seed: Option<u64>) -> Result<bool> {
    let built = cargo(&["build", "-p", "stolos"]).succeeds()?;
    Ok(built && api::fuzz(examples, seed)?.failed == 0)
}

/// Builds and runs the demo.
pub(crate) fn demo(check: bool, rest: &[String]) -> Result<bool> {
    if !build_programs()? {
        return Ok(false);
    }
    let flag: &[&str] = if check { &["--check"] } else { &[] };
    Err(program(target_dir().join("debug/demo"), flag).args(rest).replaces_us())
}

/// What the tour and the integration tests start.
pub(crate) fn build_programs() -> Result<bool> {
    cargo(&["build", "-p", "stolos", "-p", "testbed", "--bins"]).succeeds()
}

/// Golden files are compared by tests; `STOLOS_GOLDEN=accept` makes the tests write them.
pub(crate) fn golden(accept: bool) -> Result<bool> {
    let tests = step::cargo(&["test", "--workspace", "--exclude", "testbed", "--no-fail-fast"]);
    let tests = if accept { tests.env("STOLOS_GOLDEN", "accept").env("INSTA_UPDATE", "always") } else { tests };
    tests.succeeds()
}
