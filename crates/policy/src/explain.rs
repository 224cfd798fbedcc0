//! Why a flow is allowed or refused, which policy came nearest, and the smallest rule that would allow it.
//!
//! All as data, for both sides; [`Explanation::text`] says it in sentences. Whoever shows it to somebody who may not
//! read the other side's policies leaves that side out.

mod nearest;
mod suggest;

use std::fmt;

pub use self::nearest::{Miss, NearMiss};
pub use self::suggest::Suggestion;
use crate::attribute::Peer;
use crate::decide::{Decision, Flow, SideDecision};
use crate::namespace::{NamespacePath, PolicyId};
use crate::policy::{Action, Policy, Side};
use crate::reason::Reason;
use crate::rules::RuleSet;

/// Why a flow is allowed or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What happens to the flow.
    pub decision: Decision,
    /// The sides that are ours: the client's, then the server's.
    pub sides: Vec<ExplainedSide>,
    /// The smallest policies that would allow the flow, all of them together; empty when no default refuses it.
    pub suggestions: Vec<Suggestion>,
    /// An external end that no ExternalNetwork in reach covers: it needs one before a policy can name it.
    pub needs_network: bool,
}

/// What one side says, and what would have to be different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedSide {
    /// Which side.
    pub side: Side,
    /// The namespace of the end it speaks for.
    pub namespace: NamespacePath,
    /// What it says.
    pub word: SideDecision,
    /// Why it refuses or would refuse.
    pub reason: Option<Reason>,
    /// Every enforcing deny that matches; while one of them stands, no rule can allow the flow.
    pub denies: Vec<PolicyId>,
    /// Policies that nearly allow it, the nearest first. Only where the default refuses.
    pub nearest: Vec<NearMiss>,
}

/// Explains what the rules say about a flow.
pub fn explain(rules: &RuleSet, flow: &Flow<'_>) -> Explanation {
    let decision = rules.decide(flow);
    let mut sides = Vec::new();
    for (side, subject) in [(Side::Egress, flow.client), (Side::Ingress, flow.server)] {
        let (Peer::Workload(subject), Some(word)) = (subject, decision.side(side)) else {
            continue;
        };
        let by_default = word.outcome.action == Action::Deny && word.outcome.by.is_none();
        sides.push(ExplainedSide {
            side,
            namespace: subject.namespace().clone(),
            word: word.clone(),
            reason: reason_of(flow, word),
            denies: denies(rules, flow, subject.namespace()),
            nearest: if by_default { nearest::nearest(rules, flow, subject.namespace()) } else { Vec::new() },
        });
    }
    let refusing: Vec<Side> = sides
        .iter()
        .filter(|s| s.word.outcome.action == Action::Deny && s.word.outcome.by.is_none())
        .map(|s| s.side)
        .collect();
    let (suggestions, needs_network) = suggest::suggestions(rules, flow, &refusing);
    Explanation { decision, sides, suggestions, needs_network }
}

fn reason_of(flow: &Flow<'_>, word: &SideDecision) -> Option<Reason> {
    let external = [flow.client, flow.server].iter().any(|end| matches!(end, Peer::External(_)));
    let alone = crate::decide::join(Some(word.clone()), None, external, flow.protocol);
    alone.reason
}

/// Every enforcing deny that speaks for a namespace and matches the flow.
fn denies(rules: &RuleSet, flow: &Flow<'_>, subject: &NamespacePath) -> Vec<PolicyId> {
    let matching = |policy: &Policy| {
        policy.action == Action::Deny
            && policy.mode == crate::policy::Mode::Enforce
            && policy.namespace().contains(subject)
            && policy.covers(flow.protocol, flow.port)
            && policy.from.iter().any(|s| s.matches(policy.namespace(), &flow.client))
            && policy.to.iter().any(|s| s.matches(policy.namespace(), &flow.server))
    };
    let mut ids: Vec<PolicyId> = rules.policies().filter(|p| matching(p)).map(|p| p.id.clone()).collect();
    ids.sort_unstable();
    ids
}

impl Explanation {
    /// What a side says; `None` where it is not ours.
    pub fn side(&self, side: Side) -> Option<&ExplainedSide> {
        self.sides.iter().find(|s| s.side == side)
    }

    /// All of it in sentences, one a line.
    pub fn text(&self) -> String {
        let mut lines = vec![match (self.decision.allowed, self.decision.would_allow) {
            (true, true) => "allowed".to_owned(),
            (true, false) => "allowed, because a side only observes; enforcing would refuse it".to_owned(),
            (false, _) => "refused".to_owned(),
        }];
        for side in &self.sides {
            lines.push(side.to_string());
            lines.extend(side.denies.iter().skip(1).map(|id| format!("  {id} denies it, too")));
            lines.extend(side.nearest.iter().map(|near| format!("  nearest: {near}")));
        }
        if self.needs_network {
            lines.push("no ExternalNetwork in reach covers the external end: declare one for its address".to_owned());
        }
        if !self.suggestions.is_empty() {
            lines.push(match self.suggestions.len() {
                1 => "the smallest rule that would allow it:".to_owned(),
                n => format!("the smallest rules that would allow it, all {n} together:"),
            });
        }
        let documents: Vec<String> = self.suggestions.iter().map(Suggestion::yaml).collect();
        lines.push(documents.join("---\n"));
        lines.join("\n").trim_end().to_owned()
    }
}

impl fmt::Display for ExplainedSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match self.side {
            Side::Egress => "client",
            Side::Ingress => "server",
        };
        let outcome = &self.word.outcome;
        write!(f, "{end}'s side ({}, {}): ", self.namespace, self.word.mode)?;
        match (&outcome.by, outcome.action) {
            (Some(id), Action::Allow) => write!(f, "{id} allows it")?,
            (Some(id), Action::Deny) => write!(f, "{id} denies it")?,
            (None, Action::Allow) => write!(f, "no policy speaks about it, the default allows it")?,
            (None, Action::Deny) => write!(f, "no policy allows it, the default denies it")?,
        }
        if let Some(reason) = self.reason {
            write!(f, " ({})", reason.code())?;
        }
        if let Some(observed) = &outcome.observed {
            write!(f, "; {} would {} it, but only observes", observed.by, observed.action)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
