//! What every bench takes: `--rounds N`, `--json FILE`, and for trials `--slice-ms N`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::report::{self, Row};

/// What was typed.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// Rounds, at least 1.
    pub rounds: Option<u32>,
    /// Length of one slice of load.
    pub slice: Option<Duration>,
    /// Where the rows go, besides the table on standard output.
    pub json: Option<PathBuf>,
}

impl Flags {
    /// From the command line.
    pub fn typed() -> Result<Self> {
        let mut flags = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("{word} needs a value"))?;
            match word.as_str() {
                "--rounds" => flags.rounds = Some(value.parse().context("--rounds takes a number")?),
                "--slice-ms" => {
                    let ms = value.parse().context("--slice-ms takes a number")?;
                    flags.slice = Some(Duration::from_millis(ms));
                }
                "--json" => flags.json = Some(value.into()),
                _ => bail!("{word} is unknown; there are --rounds N, --slice-ms N and --json FILE"),
            }
        }
        ensure!(flags.rounds != Some(0), "--rounds takes a number above 0");
        Ok(flags)
    }

    /// Prints the table and writes the file.
    pub fn report(&self, rows: &[Row]) -> Result<()> {
        print!("{}", report::table(rows));
        let Some(path) = &self.json else { return Ok(()) };
        std::fs::write(path, report::json_lines(rows)?).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// A program of ours that lies beside this one. Errors: it was not built.
pub fn beside_us(name: &str) -> Result<PathBuf> {
    beside(&std::env::current_exe()?, name)
}

/// A program that lies beside another. Errors: it was not built.
pub fn beside(other: &Path, name: &str) -> Result<PathBuf> {
    let path = other.with_file_name(name);
    ensure!(path.is_file(), "{} is not there; build it: cargo build -p stolos -p testbed --bins", path.display());
    Ok(path)
}
