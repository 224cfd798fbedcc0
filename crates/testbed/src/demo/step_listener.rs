//! Step 10: a listener that was there before the agent is repaired (kernels from 6.12) or reported with what to restart.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::site::{SETTLE_LIMIT, Site, say};
use super::{Ground, Step, views};
use crate::peer::Peer;
use crate::wait;

pub(super) const STEP: Step = Step {
    number: 10,
    title: "a listener older than the agent: repaired, or reported with pid, port and workload",
    on: Ground::Fleet,
    run,
};

const NODE: &str = "us-1-n2";
const TRY: Duration = Duration::from_secs(3);
const RULE: &str = "apiVersion: stolos.dev/v1\nkind: Policy\nmetadata: {namespace: /acme/us-1, name: report-to-standby}\n\
     spec: {from: [app=report], to: [app=standby], ports: [tcp/7000-7999], action: allow}\n";

fn run(site: &mut Site) -> Result<()> {
    site.enforce()?;
    site.apply(RULE)?;
    site.wait_until_rolled_out()?;
    let client = site.workload("report")?.peer()?;
    let standby = site.workload("standby")?.clone();
    let features = views::agent(site, NODE)?.features;
    if features.iter().any(|feature| feature == "listener-repair") {
        let (_old, at) = older_listener(site, &standby.peer()?, 7001, &[])?;
        wait::until_ok("the older listener to be repaired", SETTLE_LIMIT, || {
            Ok(client.request(at, TRY)?.is_ok().then_some(()))
        })?;
        say("a listener that was there before the datapath: repaired in place, a connection proves it");
    } else {
        say("this kernel cannot repair listeners (6.12 can); they are reported, which is shown now");
    }
    let peer = standby.peer()?;
    let (_old, at) = older_listener(site, &peer, 7002, &["--force-off", "listener-repair"])?;
    ensure!(client.request(at, TRY)?.is_err(), "an older listener answers as if it had an identity");
    let pid = peer.process().pid();
    let found = wait::until_ok("the agent to report the older listener", SETTLE_LIMIT, || {
        let not_captured = views::agent(site, NODE)?.not_captured;
        Ok(not_captured.into_iter().find(|found| found.kind == "listener" && found.port == Some(7002)))
    })?;
    ensure!((found.pid, found.workload.as_deref()) == (pid, Some("standby")), "pid or workload is wrong: {found:?}");
    ensure!(views::doctor(site, NODE)?.checks.iter().any(|check| check.message.contains("7002")), "doctor is silent");
    say(&format!("with the repair forced off it is reported: pid {pid}, port 7002, workload standby; {}", found.mend));
    drop(peer);
    site.agent_process(NODE)?.kill();
    site.start_agent(NODE)?;
    site.cli(&["delete", "policy", "report-to-standby", "-n", "/acme/us-1"])?;
    site.wait_until_rolled_out()
}

/// A listener that begins while nothing is attached on the node; the agent comes back (with `flags`) after it.
fn older_listener(
    site: &mut Site,
    peer: &Peer,
    port: u16,
    flags: &[&str],
) -> Result<(crate::peer::Listener, SocketAddr)> {
    site.agent(NODE, &["agent", "detach"])?;
    let address = site.workload("standby")?.addresses.v4;
    let listener = peer.listen(address.into(), port)?;
    site.agent_process(NODE)?.kill();
    site.start_agent_with(NODE, flags)?;
    site.agent(NODE, &["agent", "attach"])?;
    Ok((listener, SocketAddr::new(address.into(), port)))
}
