//! `fuzz`: the targets in fuzz/, built on stable Rust with the coverage passes that libFuzzer needs.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::step::cargo;

const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

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
    let mut all_well = true;
    for name in targets {
        let corpus = format!("fuzz/corpus/{name}");
        fs::create_dir_all(&corpus)?;
        let run = cargo(&["run", "--release", "--manifest-path", "fuzz/Cargo.toml", "--bin", &name, "--", &corpus]);
        all_well &= run.args([format!("-max_total_time={seconds}")]).env("RUSTFLAGS", COVERAGE).succeeds()?;
    }
    Ok(all_well)
}
