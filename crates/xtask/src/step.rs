//! Commands, run and counted.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Passed and failed, summed over everything that ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tally {
    /// One thing that passed or failed.
    pub(crate) fn one(passed: bool) -> Self {
        Self { passed: u64::from(passed), failed: u64::from(!passed) }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Reads `N passed, N failed` (the demo's line) and `test result: ok. N passed; N failed; …` (cargo's).
    pub(crate) fn read(line: &str) -> Option<Self> {
        let line = line.trim();
        let counts = match line.strip_prefix("test result: ") {
            Some(rest) => rest.split_once(". ")?.1,
            None => line,
        };
        let mut words = counts.split([' ', ';', ',']).filter(|word| !word.is_empty());
        let passed = words.next()?.parse().ok()?;
        (words.next()? == "passed").then_some(())?;
        let failed = words.next()?.parse().ok()?;
        (words.next()? == "failed").then_some(Self { passed, failed })
    }
}

/// A command line that is shown before it runs.
pub(crate) struct Step(Command);

/// `cargo` with these arguments.
pub(crate) fn cargo(args: &[&str]) -> Step {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Set for xtask by `cargo run`; the inner cargo finds its own.
    for variable in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        command.env_remove(variable);
    }
    command.args(args);
    Step(command)
}

/// Any program with these arguments.
pub(crate) fn program(program: impl AsRef<OsStr>, args: &[&str]) -> Step {
    let mut command = Command::new(program);
    command.args(args);
    Step(command)
}

impl Step {
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.0.args(args);
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(key, value);
        self
    }

    pub(crate) fn current_dir(mut self, directory: &str) -> Self {
        self.0.current_dir(directory);
        self
    }

    /// Runs it to the end; whether its status was 0.
    pub(crate) fn succeeds(mut self) -> Result<bool> {
        self.announce();
        let status = self.0.status().with_context(|| format!("cannot start {:?}", self.0.get_program()))?;
        Ok(status.success())
    }

    /// Runs it to the end and gives its standard output; a status other than 0 is an error.
    pub(crate) fn output(mut self) -> Result<Vec<u8>> {
        self.announce();
        let run = self.0.stderr(Stdio::inherit()).output();
        let output = run.with_context(|| format!("cannot start {:?}", self.0.get_program()))?;
        ensure!(output.status.success(), "{:?} failed", self.0.get_program());
        Ok(output.stdout)
    }

    /// Becomes it: signals from the terminal then reach it alone, and its status is ours. Returns only on failure.
    pub(crate) fn replaces_us(mut self) -> anyhow::Error {
        self.announce();
        let error = self.0.exec();
        anyhow::Error::new(error).context(format!("cannot start {:?}", self.0.get_program()))
    }

    /// Runs it to the end, passing its standard output on, and sums the counts in it. A failure without a count in it
    /// (a build error, a crash) counts as one.
    pub(crate) fn tally(mut self) -> Result<Tally> {
        self.announce();
        let child = self.0.stdout(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("cannot start {:?}", self.0.get_program()))?;
        let output = child.stdout.take().context("BUG: standard output was asked to be piped")?;
        let mut tally = Tally::default();
        for line in BufReader::new(output).split(b'\n') {
            let line = line?;
            let mut out = std::io::stdout().lock();
            out.write_all(&line)?;
            out.write_all(b"\n")?;
            tally.add(Tally::read(&String::from_utf8_lossy(&line)).unwrap_or_default());
        }
        if !child.wait()?.success() && tally.failed == 0 {
            tally.failed = 1;
        }
        Ok(tally)
    }

    fn announce(&self) {
        let words: Vec<_> = self.0.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let program = PathBuf::from(self.0.get_program());
        let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        eprintln!("x: {name} {}", words.join(" "));
    }
}

/// The directory that cargo builds into.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_cargo_and_from_the_demo() {
        let cargo =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.13s";
        assert_eq!(Tally::read(cargo), Some(Tally { passed: 12, failed: 3 }));
        assert_eq!(Tally::read("13 passed, 0 failed"), Some(Tally { passed: 13, failed: 0 }));
        assert_eq!(Tally::read("running 12 tests"), None);
        assert_eq!(Tally::read("test result: who knows"), None);
    }
}
