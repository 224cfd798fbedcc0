//! Step 14: `dig` at the resolver with one try succeeds where it is allowed, and gets an error at once where it is not.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::site::{Site, say};
use super::{COMMAND, Ground, Step, workloads};
use crate::peer::Peer;

pub(super) const STEP: Step =
    Step { number: 14, title: "UDP: dig asks once and is answered, or told at once", on: Ground::Fleet, run };

const FAST: Duration = Duration::from_secs(1);

fn run(site: &mut Site) -> Result<()> {
    site.enforce()?;
    let resolver = site.workload("resolver")?.addresses;
    for address in resolver.both() {
        let web = site.workload("web")?;
        let answer = web.place.output(workloads::dig(address), COMMAND)?;
        ensure!(answer.trim() == workloads::NAME_IS, "dig at {address} says {answer:?}");
        let cron = site.workload("cron")?;
        let start = Instant::now();
        let refused = cron.place.finished(workloads::dig(address), COMMAND)?;
        ensure!(!refused.status.success(), "cron may ask {address}: {}", refused.stdout);
        ensure!(start.elapsed() < FAST, "cron is told only after {:?}", start.elapsed());
        say(&format!("web asks {address}: {}; cron gets an error after {:?}", answer.trim(), start.elapsed()));
    }
    other_udp_is_refused(site)
}

/// UDP between workloads that no place authorizes is refused with its own reason.
fn other_udp_is_refused(site: &Site) -> Result<()> {
    let (web, load) = (site.workload("web")?, site.workload("load")?);
    let port = web.peer()?.udp_echo(web.addresses.v4.into(), 0)?;
    let client: Peer = load.peer()?;
    let to = std::net::SocketAddr::new(web.addresses.v4.into(), port);
    let outcome = client.udp_request(to, FAST)?;
    ensure!(outcome.is_err(), "UDP that nothing authorizes got through");
    say("other UDP between workloads is refused until it is built");
    Ok(())
}
