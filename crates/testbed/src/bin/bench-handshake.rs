//! `bench-handshake`: measures what the identity handshake costs. Run by `./x bench handshake`.
//!
//! The same program is the load and the userspace contender's queue reader, as processes of their own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use testbed::bench::handshake::{self, Options};
use testbed::bench::{load, nfqueue, report};
use testbed::require;

const ROUNDS: u32 = 60;
const SLICE: Duration = Duration::from_millis(200);

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1).peekable();
    let verb = words.next_if(|word| !word.starts_with("--"));
    let mut flags = Flags::default();
    let mut loose = None;
    while let Some(word) = words.next() {
        if !word.starts_with("--") {
            loose = Some(word);
            continue;
        }
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        flags.set(&word, value)?;
    }
    match verb.as_deref() {
        None => bench(&flags),
        Some("serve") => load::serve(flags.at.context("--at")?, flags.threads.context("--threads")?, flags.core),
        Some("nfqueue-reader") => nfqueue::read(flags.core),
        Some("drive") => {
            let slice = serde_json::from_str(&loose.context("a slice as JSON")?)?;
            println!("{}", serde_json::to_string(&load::drive(&slice)?)?);
            Ok(())
        }
        Some(other) => bail!("no such verb: {other}"),
    }
}

/// What was typed. The inner verbs are typed by the bench itself.
#[derive(Default)]
struct Flags {
    rounds: Option<u32>,
    slice_ms: Option<u64>,
    json: Option<PathBuf>,
    at: Option<SocketAddr>,
    threads: Option<usize>,
    core: Option<usize>,
}

impl Flags {
    fn set(&mut self, flag: &str, value: String) -> Result<()> {
        match flag {
            "--rounds" => self.rounds = Some(value.parse().context("--rounds takes a number")?),
            "--slice-ms" => self.slice_ms = Some(value.parse().context("--slice-ms takes a number")?),
            "--json" => self.json = Some(value.into()),
            "--at" => self.at = Some(value.parse()?),
            "--threads" => self.threads = Some(value.parse()?),
            "--core" => self.core = Some(value.parse()?),
            _ => bail!("{flag} is unknown; there are --rounds N, --slice-ms N and --json FILE"),
        }
        Ok(())
    }
}

fn bench(flags: &Flags) -> Result<()> {
    require::everything()?;
    let options = Options {
        rounds: flags.rounds.unwrap_or(ROUNDS).max(1),
        slice: flags.slice_ms.map_or(SLICE, Duration::from_millis),
        program: std::env::current_exe()?,
    };
    let rows = handshake::run(&options, |round| eprintln!("round {round} of {}", options.rounds))?;
    print!("{}", report::table(&rows));
    print!("{}", handshake::against_the_floors(&rows));
    if let Some(path) = &flags.json {
        std::fs::write(path, report::json_lines(&rows)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
