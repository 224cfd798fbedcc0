//! Step 5: `stolos label` on a running workload changes its verdicts within two seconds.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::site::{Site, say};
use super::{Ground, Step};
use crate::peer::Peer;
use crate::wait;
use std::net::SocketAddr;

pub(super) const STEP: Step =
    Step { number: 5, title: "label: a running workload's verdicts follow its labels", on: Ground::Fleet, run };

/// From the command to the new verdict.
const LIMIT: Duration = Duration::from_secs(2);
const TRY: Duration = Duration::from_millis(500);

fn run(site: &mut Site) -> Result<()> {
    site.enforce()?;
    let cron = site.workload("cron")?;
    let (node, peer, pid) = (cron.node.clone(), cron.peer()?, cron.process.pid());
    let [db, _] = site.db_dialled();
    ensure!(!lets_in(&peer, db)?, "cron reaches db before it is labelled");
    let opened = relabel(site, &node, "app=web", || Ok(lets_in(&peer, db)?.then_some(())))?;
    say(&format!("stolos label cron app=web: let in after {opened:?}"));
    let closed = relabel(site, &node, "app=cron", || Ok((!lets_in(&peer, db)?).then_some(())))?;
    say(&format!("stolos label cron app=cron: refused after {closed:?}"));
    ensure!(site.workload("cron")?.process.pid() == pid, "cron was restarted");
    ensure!(site.workload("cron")?.process.status().is_none(), "cron has ended");
    Ok(())
}

fn relabel(site: &Site, node: &str, label: &str, verdict: impl FnMut() -> Result<Option<()>>) -> Result<Duration> {
    let start = Instant::now();
    site.agent(node, &["label", "cron", label])?;
    let left = LIMIT.checked_sub(start.elapsed()).context("the command alone took longer than the verdict may")?;
    wait::until_ok(&format!("the verdict after {label}"), left, verdict)?;
    Ok(start.elapsed())
}

/// Whether a connection carries a request there and a reply back.
pub(super) fn lets_in(client: &Peer, to: SocketAddr) -> Result<bool> {
    match client.connect(to, TRY)? {
        Ok(connection) => {
            // The client's kernel may believe in a connection that the server has not accepted: ask for a reply.
            let open = connection.redis_ping(TRY)?.is_ok();
            connection.close()?;
            Ok(open)
        }
        Err(_) => Ok(false),
    }
}
