//! `bench-agent`: measures the agent's memory and processor time, and how fast a policy write is live. Run by
//! `./x bench agent`.

use anyhow::Result;
use testbed::bench::agent::{self, Options};
use testbed::bench::flags::{Flags, beside_us};

fn main() -> Result<()> {
    let flags = Flags::typed()?;
    let mut options = Options::new(beside_us("stolos")?, beside_us("bench-load")?);
    options.writes = flags.rounds.unwrap_or(options.writes);
    let rows = agent::run(&options, |doing| eprintln!("{doing}"))?;
    flags.report(&rows)?;
    print!("{}", agent::against_the_floors(&rows));
    Ok(())
}
