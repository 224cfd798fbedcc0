//! Step 6: `stolos revoke workload` cuts a live connection, says who confirmed; deleting the Revocation undoes it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::report::Revoked;

use super::site::{SETTLE_LIMIT, Site, say};
use super::{Ground, Step, step_label};
use crate::wait;

pub(super) const STEP: Step =
    Step { number: 6, title: "revoke: a live connection is cut, and the nodes confirm", on: Ground::Fleet, run };

const CUT_LIMIT: Duration = Duration::from_secs(5);

fn run(site: &mut Site) -> Result<()> {
    site.enforce()?;
    let web = site.workload("web")?.peer()?;
    let [db, _] = site.db_dialled();
    let live = web.connect(db, CUT_LIMIT)?.context("web reaches db")?;
    live.redis_ping(CUT_LIMIT)?.context("the connection lives")?;
    let (sender, ended) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || sender.send(live.wait_end(CUT_LIMIT + SETTLE_LIMIT)));
    let revoked: Revoked = site.json(&["revoke", "workload", "web@eu-1", "--reason", "the demo's step 6"])?;
    let end = ended.recv_timeout(CUT_LIMIT + SETTLE_LIMIT).context("the connection hangs")??;
    let failure = end.err().context("the connection was closed politely, not reset")?;
    ensure!(failure.is_reset(), "the client saw {failure}, not a reset");
    ensure!(revoked.connections_cut > 0, "nothing is reported as cut: {revoked:?}");
    ensure!(revoked.unconfirmed.is_empty(), "a node did not confirm: {revoked:?}");
    ensure!(revoked.confirmed.iter().any(|node| node == "eu-1-n1"), "eu-1-n1 did not confirm: {revoked:?}");
    say(&format!(
        "web's connection was reset; {} cut, confirmed by {}",
        revoked.connections_cut,
        revoked.confirmed.join(", ")
    ));
    ensure!(!step_label::lets_in(&web, db)?, "a revoked workload reaches db");
    site.cli(&["delete", "revocation", &revoked.name])?;
    wait::until_ok("web to be let in again", SETTLE_LIMIT, || Ok(step_label::lets_in(&web, db)?.then_some(())))?;
    say("the Revocation is deleted: web reaches db again");
    Ok(())
}
