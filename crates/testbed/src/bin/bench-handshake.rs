//! `bench-handshake`: measures what the identity handshake costs. Run by `./x bench handshake`.

use anyhow::Result;
use testbed::bench::flags::{Flags, beside_us};
use testbed::bench::handshake::{self, Options};

/// Rounds of throughput: fewer do not tell a percent.
const THROUGHPUT_ROUNDS_MIN: u32 = 60;

fn main() -> Result<()> {
    let flags = Flags::typed()?;
    let mut options = Options::new(beside_us("stolos")?, beside_us("bench-load")?);
    options.rounds = flags.rounds.unwrap_or(options.rounds);
    options.throughput_rounds = options.rounds.max(THROUGHPUT_ROUNDS_MIN);
    options.slice = flags.slice.unwrap_or(options.slice);
    let rows = handshake::run(&options, |done| eprintln!("{done}"))?;
    flags.report(&rows)?;
    print!("{}", handshake::against_the_floors(&rows));
    Ok(())
}
