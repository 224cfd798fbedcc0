//! `bench-load`: the load of all benches and the userspace contender's queue reader, as processes of their own, so that they
//! can be workloads. Started by the benches.

use anyhow::{Context as _, Result, bail};
use testbed::bench::{load, nfqueue, probe};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", at, threads] => load::serve(at.parse()?, threads.parse()?, None),
        ["serve", at, threads, core] => load::serve(at.parse()?, threads.parse()?, Some(core.parse()?)),
        ["drive", slice] => {
            let slice = serde_json::from_str(slice).context("a slice as JSON")?;
            println!("{}", serde_json::to_string(&load::drive(&slice)?)?);
            Ok(())
        }
        ["nfqueue"] => nfqueue::read(),
        ["probe", at] => probe::probe(at.parse()?),
        _ => bail!("usage: bench-load serve ADDR THREADS [CORE] | drive SLICE | nfqueue | probe ADDR"),
    }
}
