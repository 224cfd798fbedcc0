//! `fuzz`: the targets in fuzz/, built on stable Rust with the coverage passes that libFuzzer needs.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::step::{Tally, cargo};

/// Runs one target, or all of them one after the other, for `seconds` each.
pub(crate) fn fuzz(target: Option<&str>, seconds: u32) -> Result<bool> {
    let mut targets = Vec::new();
    for entry in fs::read_dir("fuzz/fuzz_targets").context("there are no fuzz targets")? {
        let path = entry?.path();
        targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    targets.sort();
    if let Some(wanted) = target {
        if !targets.iter().any(|name| name == wanted) {
            bail!("no fuzz target {wanted:?}; there are {}", targets.join(", "));
        }
        targets = vec![wanted.to_owned()];
    }
    let mut tally = Tally::default();
    for name in targets {
        // What a run finds goes to the first directory; only chosen inputs are committed to the second.
        let found = std::path::absolute("target/fuzz")?.join(&name);
        fs::create_dir_all(&found)?;
        let corpus = format!("corpus/{name}");
        let run = cargo(&["run", "--release", "--bin", &name, "--"]).args([&found]).args([corpus]);
        // In its own directory: fuzz/.cargo/config.toml has the coverage passes, and a target to keep build scripts free of them.
        let run = run.args([format!("-max_total_time={seconds}")]).current_dir("fuzz");
        tally.add(Tally::one(run.succeeds()?));
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}
