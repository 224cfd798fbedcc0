//! Step 3: `cron` is refused with ECONNREFUSED in milliseconds, at its own side and at the server's.

use std::time::Duration;

use anyhow::{Result, ensure};
use policy::reason::Reason;

use super::site::{SETTLE_LIMIT, Site, say};
use super::{Ground, Step, views};
use crate::peer::Peer;
use crate::wait;
use std::net::SocketAddr;

pub(super) const STEP: Step = Step {
    number: 3,
    title: "refuse: cron gets connection refused in milliseconds, at either side",
    on: Ground::Fleet,
    run,
};

/// The slowest refusal that still counts as fast on a loaded machine, out of [`TRIES`] the quickest one.
const FAST: Duration = Duration::from_millis(50);
/// A refusal that never comes.
const SLOW: Duration = Duration::from_secs(3);
const TRIES: usize = 5;

/// Speaks for the clients of eu-1 only: the servers' side still refuses.
pub(super) const CRON_MAY_LEAVE: &str = "apiVersion: stolos.dev/v1\nkind: Policy\n\
     metadata: {namespace: /acme/eu-1, name: cron-may-leave}\n\
     spec: {from: [app=cron], to: ['app=db, @namespace=/acme/**'], ports: [tcp/6379], action: allow}\n";

fn run(site: &mut Site) -> Result<()> {
    site.enforce()?;
    let cron = site.workload("cron")?.peer()?;
    let own = refused_at(site, "eu-1-n1", &cron)?;
    say(&format!("cron asks db: connection refused after {own:?}, by its own side"));
    site.apply(CRON_MAY_LEAVE)?;
    site.wait_until_rolled_out()?;
    let theirs = refused_at(site, "us-1-n1", &cron)?;
    say(&format!("its own side lets it go now: refused after {theirs:?}, by the server's side, through both NATs"));
    site.cli(&["delete", "policy", "cron-may-leave", "-n", "/acme/eu-1"])?;
    site.wait_until_rolled_out()
}

/// Refusals over IPv4 and IPv6, counted by `node`; the slower of the quickest ones.
fn refused_at(site: &Site, node: &str, cron: &Peer) -> Result<Duration> {
    let mut slower = Duration::ZERO;
    for dialled in site.db_dialled() {
        let before = views::refused(site, node, Reason::DefaultDeny)?;
        slower = slower.max(refused(cron, dialled)?);
        wait::until_succeeds("the refusals to be counted", SETTLE_LIMIT, || {
            let counted = views::refused(site, node, Reason::DefaultDeny)? - before;
            ensure!(counted >= TRIES as u64, "{node} has counted {counted} refusals of {TRIES}");
            Ok(())
        })?;
    }
    Ok(slower)
}

/// The quickest of some refusals. Errors: anything but ECONNREFUSED, or none of them fast.
pub(super) fn refused(client: &Peer, to: SocketAddr) -> Result<Duration> {
    let mut quickest = SLOW;
    for _ in 0..TRIES {
        match client.connect(to, SLOW)? {
            Ok(_) => anyhow::bail!("{to} let it in"),
            Err(failure) => {
                ensure!(failure.is_refused(), "{to}: {failure}, not connection refused");
                quickest = quickest.min(failure.took);
            }
        }
    }
    ensure!(quickest < FAST, "{to}: refused only after {quickest:?}");
    Ok(quickest)
}
