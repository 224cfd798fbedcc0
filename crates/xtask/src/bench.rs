//! `bench NAME`: measurements, one program each.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};

use crate::step::cargo;

/// What to measure and how long.
#[derive(ClapArgs)]
pub(crate) struct Args {
    name: Name,
    /// Rounds of interleaved contenders
    #[arg(long)]
    rounds: Option<u32>,
    /// One JSON object per line, per metric and contender
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// Connections and traffic: none, stolos, a userspace NFQUEUE handshake
    Handshake,
    /// Compile, decide, incremental change; time and memory
    Policy,
}

pub(crate) fn bench(args: &Args) -> Result<bool> {
    let base: &[&str] = match args.name {
        Name::Handshake => &["run", "--release", "-p", "testbed", "--bin", "bench-handshake", "--"],
        Name::Policy => &["bench", "-p", "policy", "--bench", "policy", "--"],
    };
    let rounds = args.rounds.iter().flat_map(|rounds| ["--rounds".to_owned(), rounds.to_string()]);
    // The bench runs in its package's directory, so the path must not depend on it.
    let json = args.json.as_ref().map(std::path::absolute).transpose()?;
    let json = json.iter().flat_map(|path| ["--json".to_owned(), path.display().to_string()]);
    cargo(base).args(rounds.chain(json)).succeeds()
}
