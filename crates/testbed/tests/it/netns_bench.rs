//! The handshake bench measures what it says it measures.

use std::time::Duration;

use anyhow::Result;
use testbed::bench::handshake::{self, Options};

#[test]
fn one_short_round_measures_every_contender() -> Result<()> {
    let program = env!("CARGO_BIN_EXE_bench-handshake").into();
    let options = Options { rounds: 1, slice: Duration::from_millis(30), program };
    let rows = handshake::run(&options, |_| {})?;
    let metrics = 6;
    assert_eq!(rows.len(), metrics * 3 + 1, "and the rate against nfqueue");
    for row in &rows {
        assert!(row.value > 0.0 && row.rounds == 1, "{row:?}");
        assert_eq!(row.ratio.is_none(), row.contender == "none", "{row:?}");
    }
    assert_eq!(handshake::against_the_floors(&rows).lines().count(), 5);
    Ok(())
}
