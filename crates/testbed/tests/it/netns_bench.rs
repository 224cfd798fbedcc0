//! The benches measure what they say they measure. Times are not looked at: the machine may be busy.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use testbed::bench::flags::beside;
use testbed::bench::{agent, handshake};

/// The program that is the load; the product lies beside it.
const LOAD: &str = env!("CARGO_BIN_EXE_bench-load");

#[test]
fn one_short_round_measures_every_contender() -> Result<()> {
    let load = Path::new(LOAD);
    let mut options = handshake::Options::new(beside(load, "stolos")?, load.into());
    (options.rounds, options.throughput_rounds, options.slice) = (1, 1, Duration::from_millis(20));
    let rows = handshake::run(&options, |_| {})?;
    let named = |name: &str| rows.iter().filter(|row| row.metric == name).count();
    for once in ["connect_request_p50", "connect_request_p99", "keepalive_rtt_p50", "throughput"] {
        assert_eq!(named(once), 3, "{once}: none, stolos, nfqueue");
    }
    assert_eq!((named("connections_per_s"), named("connections_per_s_ipv6")), (4, 4), "and the rate against nfqueue");
    for row in rows.iter().filter(|row| row.contender != "machine") {
        assert!(row.value > 0.0 && row.rounds == 1, "{row:?}");
        assert_eq!(row.ratio.is_none(), row.contender == "none", "{row:?}");
    }
    assert_eq!(handshake::against_the_floors(&rows).lines().count(), 5);
    Ok(())
}

#[test]
fn a_policy_write_is_timed_until_connections_follow_it() -> Result<()> {
    let load = Path::new(LOAD);
    let mut options = agent::Options::new(beside(load, "stolos")?, load.into());
    (options.writes, options.workloads, options.window) = (2, 3, Duration::from_millis(300));
    let rows = agent::run(&options, |_| {})?;
    for row in &rows {
        assert!(row.value.is_finite() && row.ratio.is_none() && row.baseline.is_none(), "{row:?}");
    }
    for timed in ["policy_write_to_live_p50", "policy_write_to_live_p99", "policy_acknowledged_to_live_p50"] {
        let row = rows.iter().find(|row| row.metric == timed).expect(timed);
        assert_eq!((row.rounds, row.unit), (2, "ms"), "{row:?}");
    }
    assert_eq!(agent::against_the_floors(&rows).lines().count(), 3);
    Ok(())
}
