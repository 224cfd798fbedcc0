//! Step 4: `stolos explain flow` names what decided, what is missing and the smallest rule that would allow it.

use anyhow::{Context as _, Result, ensure};
use api::explain::{ExplainAnswer, ExplainedSide};
use api::flow::Verdict;

use super::site::{SETTLE_LIMIT, Site, say};
use super::{Ground, Step, step_label};
use crate::wait;

pub(super) const STEP: Step = Step {
    number: 4,
    title: "explain: who decided, what is missing, and the smallest rule that would allow it",
    on: Ground::Fleet,
    run,
};

const QUESTION: [&str; 4] = ["explain", "flow", "cron@eu-1", "db@us-1:6379"];

fn run(site: &mut Site) -> Result<()> {
    site.enforce()?;
    let allowed: ExplainAnswer = site.json(&["explain", "flow", "web@eu-1", "db@us-1:6379"])?;
    ensure!(allowed.verdict == Verdict::Allow, "web is refused: {}", allowed.text);
    for side in [&allowed.egress, &allowed.ingress] {
        let side = side.as_ref().context("a side is missing")?;
        ensure!(side.policy.as_deref() == Some("/acme:web-to-db"), "the deciding policy is not named: {side:?}");
    }
    say("web@eu-1 to db@us-1: policy /acme:web-to-db decides, for both sides");

    let refused: ExplainAnswer = site.json(&QUESTION)?;
    ensure!(refused.verdict == Verdict::Deny, "cron is let in: {}", refused.text);
    let mut rules = Vec::new();
    for side in [&refused.egress, &refused.ingress] {
        rules.push(check_default(side.as_ref().context("a side is missing")?)?);
    }
    for line in refused.text.lines() {
        say(line);
    }
    // The proof of the smallest rule is that it works and, taken back, stops working.
    let cron = site.workload("cron")?.peer()?;
    let [db, _] = site.db_dialled();
    ensure!(!step_label::lets_in(&cron, db)?, "cron reaches db before the rule");
    rules.dedup();
    for rule in &rules {
        site.apply(rule)?;
    }
    wait::until_ok("cron to be let in by the smallest rule", SETTLE_LIMIT, || {
        Ok(step_label::lets_in(&cron, db)?.then_some(()))
    })?;
    say("applied as it stands there, the smallest rule lets cron in");
    for rule in &rules {
        site.delete(rule)?;
    }
    wait::until_ok("cron to be refused again", SETTLE_LIMIT, || Ok((!step_label::lets_in(&cron, db)?).then_some(())))
}

/// A refusal by default, with what is missing. Gives the smallest rule.
fn check_default(side: &ExplainedSide) -> Result<String> {
    ensure!(side.would == Verdict::Deny, "this side allows: {side:?}");
    ensure!(side.policy.is_none() && side.reason.as_deref() == Some("default-deny"), "no default: {side:?}");
    ensure!(side.missing.iter().any(|line| line.contains("app=web")), "the missing attribute is not named: {side:?}");
    side.smallest_rule.clone().with_context(|| format!("no smallest rule: {side:?}"))
}
