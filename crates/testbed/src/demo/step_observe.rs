//! Step 1: while everything observes, all traffic flows, and every flow is listed once with both ends' would-be verdicts.

use anyhow::{Context as _, Result, ensure};
use api::flow::{FlowRow, Proof, Verdict};

use super::site::{DB_PORT, SETTLE_LIMIT, Site, say};
use super::{COMMAND, Ground, Step, views};
use crate::peer::Peer;
use crate::wait;
use std::net::SocketAddr;

pub(super) const STEP: Step = Step {
    number: 1,
    title: "observe: all traffic flows, each flow is listed once, with both identities",
    on: Ground::Fleet,
    run,
};

fn run(site: &mut Site) -> Result<()> {
    let [db_v4, db_v6] = site.db_dialled();
    let db_at_home = SocketAddr::new(site.workload("db")?.addresses.v4.into(), DB_PORT);
    // web is allowed by a policy, api and audit by nothing; api comes through both NATs, audit from its own cluster.
    once(&site.workload("web")?.peer()?, db_v4)?;
    once(&site.workload("api")?.peer()?, db_v6)?;
    once(&site.workload("audit")?.peer()?, db_at_home)?;
    say("web and api (eu-1, through two NATs) and audit (us-1) reach db: nothing is refused while observing");
    for (client, cluster, would) in
        [("web", "eu-1", Verdict::Allow), ("api", "eu-1", Verdict::Deny), ("audit", "us-1", Verdict::Deny)]
    {
        let row = wait::until_succeeds(&format!("one complete row for {client} to db"), SETTLE_LIMIT, || {
            let rows = views::flows(site, &format!("/acme/{cluster}/{client}"), "/acme/us-1/db")?;
            ensure!(rows.len() == 1, "the flow is listed {} times: {rows:#?}", rows.len());
            let row = rows.into_iter().next().context("BUG: one row")?;
            ensure!(row.egress.is_some() && row.ingress.is_some(), "an end has not reported: {row:#?}");
            Ok(row)
        })?;
        check(&row, would).with_context(|| format!("{row:#?}"))?;
        say(&format!("{client}@{cluster} to db@us-1: allowed, would be {would}, one row, reported by both ends"));
    }
    Ok(())
}

fn once(client: &Peer, to: SocketAddr) -> Result<()> {
    let connection = client.connect(to, COMMAND)??;
    connection.redis_ping(COMMAND)??;
    connection.close()
}

fn check(row: &FlowRow, would: Verdict) -> Result<()> {
    ensure!((row.verdict, row.would) == (Verdict::Allow, would), "the verdicts are wrong");
    ensure!(row.proof == Proof::Proved, "the client is not proved");
    ensure!((row.protocol.as_str(), row.port, row.count) == ("tcp", DB_PORT, 1), "the port or count is wrong");
    let sides = [&row.egress, &row.ingress].into_iter().flatten();
    for side in sides {
        ensure!((side.verdict, side.would) == (Verdict::Allow, would), "a side's verdict is wrong");
        ensure!(side.policy.is_some() == (would == Verdict::Allow), "a side names the wrong policy");
    }
    Ok(())
}
