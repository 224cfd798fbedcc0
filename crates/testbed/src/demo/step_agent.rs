//! Step 7: an agent killed with SIGKILL: live connections lose nothing, new ones are still judged, a restart takes over.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::site::{Site, say};
use super::{COMMAND, Ground, Step, step_label, step_refuse};
use crate::peer::Peer;
use crate::peer::script::Speak;
use crate::process::Program;
use crate::wait;

pub(super) const STEP: Step = Step {
    number: 7,
    title: "kill -9 of both agents: nothing is lost, nothing opens, a restart takes over",
    on: Ground::Fleet,
    run,
};

const CONNECTIONS: u16 = 100;
const TRIES: usize = 50;
const TRAFFIC: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_millis(20);
const NODES: [&str; 2] = ["eu-1-n1", "us-1-n1"];

fn run(site: &mut Site) -> Result<()> {
    site.enforce()?;
    site.apply(step_refuse::CRON_MAY_LEAVE)?;
    site.wait_until_rolled_out()?;
    let (web, cron) = (site.workload("web")?.peer()?, site.workload("cron")?.peer()?);
    let [db, _] = site.db_dialled();
    let start = Instant::now();
    let traffic = web.traffic(db, CONNECTIONS, EVERY, Speak::Redis)?;
    wait::until("all connections to speak", COMMAND, || {
        traffic.report().ok().filter(|report| report.right >= 2 * u64::from(CONNECTIONS))
    })?;
    for node in NODES {
        site.agent_process(node)?.kill();
    }
    say(&format!("{CONNECTIONS} redis connections are live; the agents of {} are killed", NODES.join(" and ")));
    let before = received(site)?;
    let admitted = each(&web, db)?;
    ensure!(admitted == TRIES, "only {admitted} of {TRIES} new allowed connections succeeded");
    let let_in = each(&cron, db)?;
    ensure!(let_in == 0, "{let_in} of {TRIES} new denied connections got a reply");
    // Each look at the counter is a connection of its own, the second one's included.
    let accepted = received(site)? - before - 1;
    ensure!(accepted == TRIES as u64, "redis accepted {accepted} connections, not the {TRIES} allowed ones");
    say(&format!("{TRIES} of {TRIES} allowed connections succeed, 0 of {TRIES} denied ones are accepted"));
    for node in NODES {
        site.start_agent(node)?;
    }
    wait::until("the rest of the traffic", TRAFFIC, || (start.elapsed() >= TRAFFIC).then_some(()))?;
    let report = traffic.stop()?;
    ensure!((report.opened, report.broken, report.wrong) == (u64::from(CONNECTIONS), 0, 0), "{report:?}");
    ensure!(report.right == report.sent, "replies were lost: {report:?}");
    say(&format!(
        "after the restart: {} messages in {TRAFFIC:?}, all replied to in sequence, slowest {:?}",
        report.sent, report.slowest
    ));
    site.wait_until_rolled_out()?;
    ensure!(step_label::lets_in(&web, db)? && !step_label::lets_in(&cron, db)?, "the verdicts changed by the restart");
    site.cli(&["delete", "policy", "cron-may-leave", "-n", "/acme/eu-1"])?;
    site.wait_until_rolled_out()
}

/// How many of some connections, tried side by side, get a reply.
fn each(client: &Peer, to: SocketAddr) -> Result<usize> {
    let tries: Vec<_> = (0..TRIES)
        .map(|_| {
            let client = client.clone();
            std::thread::spawn(move || step_label::lets_in(&client, to))
        })
        .collect();
    let mut count = 0;
    for thread in tries {
        count += usize::from(thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
    }
    Ok(count)
}

/// Connections that redis accepted since its start, this look at it included.
fn received(site: &Site) -> Result<u64> {
    let info = site.workload("db")?.place.output(Program::new("redis-cli").args(["INFO", "stats"]), COMMAND)?;
    let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    Ok(line.unwrap_or_default().trim().parse()?)
}
