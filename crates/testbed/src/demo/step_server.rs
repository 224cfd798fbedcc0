//! Step 8: the server is away for longer than any timer: enforcement and new allowed connections go on; what is new waits.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api::local::WorkloadState;

use super::site::{Running, SETTLE_LIMIT, Site, WorkloadSpec, say};
use super::{Ground, Step, step_label, views};
use crate::{programs, wait};

pub(super) const STEP: Step = Step {
    number: 8,
    title: "the server is away: enforcement goes on, a new workload is pending",
    on: Ground::Fleet,
    run,
};

fn run(site: &mut Site) -> Result<()> {
    site.enforce()?;
    site.kill_server();
    let outcome = without_server(site);
    // Whatever happened, the steps after this one need it.
    site.start_server()?;
    let late = outcome?;
    let (peer, [db, _]) = (late.peer()?, site.db_dialled());
    let let_in = || Ok(step_label::lets_in(&peer, db)?.then_some(()));
    wait::until_ok("the new workload to be let in", SETTLE_LIMIT, let_in)?;
    say("the server is back: the new workload is placed and reaches db as app=web");
    late.process.kill();
    site.wait_until_rolled_out()
}

fn without_server(site: &mut Site) -> Result<Running> {
    let (web, cron) = (site.workload("web")?.peer()?, site.workload("cron")?.peer()?);
    let [db, _] = site.db_dialled();
    let away = Instant::now();
    let longest = super::TIMERS_LONGEST;
    wait::until("all timers to pass", 2 * longest, || (away.elapsed() > longest).then_some(()))?;
    ensure!(step_label::lets_in(&web, db)?, "web is refused without a server");
    ensure!(!step_label::lets_in(&cron, db)?, "cron is let in without a server");
    say(&format!("after {:?} without a server: web reaches db, cron does not", away.elapsed()));

    let late = WorkloadSpec {
        name: "late",
        node: "eu-1-n2",
        pod_host: None,
        labels: &["app=web"],
        command: programs::idle(),
        wait: Some(Duration::from_secs(1)),
    };
    let late = site.start_workload(&late)?;
    let known = views::local_workload(site, "eu-1-n2", "late")?;
    ensure!(known.state == WorkloadState::Pending, "the new workload is {:?}", known.state);
    say(&format!("a new workload is pending: {}", known.reason.context("the agent says no reason")?));
    let refused = late.peer()?.connect(db, Duration::from_secs(3))?.err().context("a pending workload reaches db")?;
    say(&format!("its connection is refused: {refused}"));
    Ok(late)
}
