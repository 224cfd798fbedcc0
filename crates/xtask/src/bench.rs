//! `bench NAME`: measurements, one program each, all built for release.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};

use crate::step::{cargo, program, target_dir};

/// What to measure and how long.
#[derive(ClapArgs)]
pub(crate) struct Args {
    name: Name,
    /// Rounds of interleaved contenders, or repetitions where there are no contenders
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
    /// The agent's memory and processor time, and how fast a policy write is live in every kernel
    Agent,
    /// Where the handshake's time goes: each kernel program per connection and per round trip
    Profile,
}

pub(crate) fn bench(args: &Args) -> Result<bool> {
    let rounds = args.rounds.iter().flat_map(|rounds| ["--rounds".to_owned(), rounds.to_string()]);
    // The bench runs in its package's directory, so the path must not depend on it.
    let json = args.json.as_ref().map(std::path::absolute).transpose()?;
    let json = json.iter().flat_map(|path| ["--json".to_owned(), path.display().to_string()]);
    let flags = rounds.chain(json);
    let name = match args.name {
        Name::Policy => {
            let run = ["run", "--release", "-p", "policy", "--example", "bench_policy", "--"];
            return cargo(&run).args(flags).succeeds();
        }
        Name::Handshake => "bench-handshake",
        Name::Agent => "bench-agent",
        Name::Profile => "bench-profile",
    };
    // They start the product and the load as programs of their own.
    if !cargo(&["build", "--release", "-p", "stolos", "-p", "testbed", "--bins"]).succeeds()? {
        return Ok(false);
    }
    program(target_dir().join("release").join(name), &[]).args(flags).succeeds()
}
