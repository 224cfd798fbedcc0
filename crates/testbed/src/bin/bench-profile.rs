//! `bench-profile`: where the datapath's time goes. Run by `./x bench profile`.

use anyhow::Result;
use testbed::bench::flags::{Flags, beside_us};
use testbed::bench::handshake::Options;
use testbed::bench::profile;

const ROUNDS: u32 = 20;

fn main() -> Result<()> {
    let flags = Flags::typed()?;
    let mut options = Options::new(beside_us("stolos")?, beside_us("bench-load")?);
    options.rounds = flags.rounds.unwrap_or(ROUNDS);
    options.slice = flags.slice.unwrap_or(options.slice);
    flags.report(&profile::run(&options)?)
}
