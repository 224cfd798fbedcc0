//! Many policies' words about ports -> one word for each port.

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;
use crate::decide::{Observed, Outcome, PortOutcome};
use crate::policy::{Action, Mode, Policy};
use crate::port::{Port, PortRange, protocol};

/// Disjoint sorted ranges of what a policy names; `any` swallows the rest.
pub(super) fn normalise(ports: &[Port]) -> Box<[PortRange]> {
    let mut ranges: Vec<PortRange> = ports.iter().flat_map(|port| port.ranges()).collect();
    if let Some(any) = ranges.iter().find(|range| range.protocol == protocol::ANY) {
        return Box::new([*any]);
    }
    ranges.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.protocol == range.protocol && u32::from(range.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged.into()
}

/// The policies that decide one port: of each sort the one with the smallest id.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally<'a> {
    deny: Option<&'a Policy>,
    allow: Option<&'a Policy>,
    observed_deny: Option<&'a Policy>,
    observed_allow: Option<&'a Policy>,
}

impl<'a> Tally<'a> {
    /// Hears one more policy.
    pub(crate) fn add(&mut self, rule: &'a Rule) {
        let policy: &Policy = &rule.policy;
        let place = match (policy.mode, policy.action) {
            (Mode::Enforce, Action::Deny) => &mut self.deny,
            (Mode::Enforce, Action::Allow) => &mut self.allow,
            (Mode::Observe, Action::Deny) => &mut self.observed_deny,
            (Mode::Observe, Action::Allow) => &mut self.observed_allow,
        };
        if place.is_none_or(|before| policy.id < before.id) {
            *place = Some(policy);
        }
    }

    /// Any deny wins, then an allow, then the default; a policy that only observes is named where it would decide.
    pub(crate) fn outcome(&self, default: Action) -> Outcome {
        let by = |policy: Option<&Policy>| policy.map(|p| p.id.clone());
        let action = match (self.deny, self.allow) {
            (Some(_), _) => Action::Deny,
            (None, Some(_)) => Action::Allow,
            (None, None) => default,
        };
        let observer = match (self.deny, self.observed_deny, self.allow) {
            (Some(_), _, _) => None,
            (None, Some(deny), _) => Some(deny),
            (None, None, Some(_)) => None,
            (None, None, None) => self.observed_allow,
        };
        let observed = observer.map(|policy| Observed { by: policy.id.clone(), action: policy.action });
        Outcome { action, by: by(self.deny.or(self.allow)), observed }
    }
}

/// What policies that match both ends say about every port that one of them names.
pub(super) fn outcomes(mut rules: Vec<&Rule>, default: Action) -> Vec<PortOutcome> {
    rules.sort_unstable_by(|a, b| a.policy.id.cmp(&b.policy.id));
    let mut always = Active::default();
    let mut edges: BTreeMap<u8, Vec<Edge>> = BTreeMap::new();
    for (rank, rule) in rules.iter().enumerate() {
        for range in &rule.ports {
            if range.protocol == protocol::ANY {
                always.set(rank, rule, true);
                continue;
            }
            let edges = edges.entry(range.protocol).or_default();
            edges.push(Edge { at: u32::from(range.first), opens: true, rank });
            edges.push(Edge { at: u32::from(range.last) + 1, opens: false, rank });
        }
    }
    let mut found = Vec::new();
    if always.count > 0 {
        let outcome = always.outcome(&rules, default);
        found.push(PortOutcome { protocol: protocol::ANY, first: 0, last: u16::MAX, outcome });
    }
    for (protocol, edges) in edges {
        sweep(protocol, edges, &rules, always.clone(), default, &mut found);
    }
    found
}

/// Where a policy's range begins, or the port after its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    at: u32,
    opens: bool,
    rank: usize,
}

/// The policies that name the port under the sweep, by rank.
#[derive(Clone, Default)]
struct Active {
    sorts: [BTreeSet<usize>; 4],
    count: usize,
}

impl Active {
    fn set(&mut self, rank: usize, rule: &Rule, active: bool) {
        let sort = match (rule.policy.mode, rule.policy.action) {
            (Mode::Enforce, Action::Deny) => 0,
            (Mode::Enforce, Action::Allow) => 1,
            (Mode::Observe, Action::Deny) => 2,
            (Mode::Observe, Action::Allow) => 3,
        };
        if active {
            self.count += usize::from(self.sorts[sort].insert(rank));
        } else {
            self.count -= usize::from(self.sorts[sort].remove(&rank));
        }
    }

    fn outcome(&self, rules: &[&Rule], default: Action) -> Outcome {
        let mut tally = Tally::default();
        for first in self.sorts.iter().filter_map(BTreeSet::first) {
            tally.add(rules[*first]);
        }
        tally.outcome(default)
    }
}

fn sweep(
    protocol: u8,
    mut edges: Vec<Edge>,
    rules: &[&Rule],
    mut active: Active,
    default: Action,
    found: &mut Vec<PortOutcome>,
) {
    edges.sort_unstable();
    let always = active.count;
    let mut start = 0;
    for edge in edges {
        if edge.at > start && active.count > always {
            let outcome = active.outcome(rules, default);
            push_merged(found, protocol, start, edge.at - 1, outcome);
        }
        start = edge.at;
        active.set(edge.rank, rules[edge.rank], edge.opens);
    }
}

fn push_merged(found: &mut Vec<PortOutcome>, protocol: u8, first: u32, last: u32, outcome: Outcome) {
    let port = |n: u32| u16::try_from(n).expect("BUG: a port over 65535");
    match found.last_mut() {
        Some(before)
            if before.protocol == protocol && u32::from(before.last) + 1 == first && before.outcome == outcome =>
        {
            before.last = port(last);
        }
        _ => found.push(PortOutcome { protocol, first: port(first), last: port(last), outcome }),
    }
}
