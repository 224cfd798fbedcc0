//! The policies of a fleet, indexed, and the one evaluator.
//!
//! A [`RuleSet`] changes one policy at a time; what it answers depends only on what it holds, not on how it got there.
//! The cost of an answer depends on how many policies match, not on how many there are.

mod index;
mod ranges;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use self::index::Index;
pub(crate) use self::index::{Hashed, scopes};
pub(crate) use self::ranges::Tally;
use crate::attribute::{Identity, Peer};
use crate::decide::{Decision, Flow, SideDecision, SideVerdict, join};
use crate::namespace::{NamespacePath, PolicyId};
use crate::policy::{Policy, Side};
use crate::port::PortRange;
use crate::posture::Posture;
use crate::selector::Selector;

/// Policies and postures, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    rules: Vec<Option<Rule>>,
    free: Vec<u32>,
    by_id: HashMap<PolicyId, u32>,
    index: Index,
    postures: BTreeMap<NamespacePath, Posture>,
}

/// A policy as it is evaluated.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) policy: Arc<Policy>,
    /// Disjoint, sorted.
    pub(crate) ports: Box<[PortRange]>,
}

impl Rule {
    /// Whether a flow's protocol and port are among the policy's.
    pub(crate) fn covers(&self, protocol: u8, port: u16) -> bool {
        self.ports.iter().any(|range| range.contains(protocol, port))
    }
}

/// The policies whose `from`, and those whose `to`, mean one workload; each sorted by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Matches {
    pub(crate) from: Vec<Match>,
    pub(crate) to: Vec<Match>,
}

impl Matches {
    /// Those of one end: egress `from`, ingress `to`.
    pub(crate) fn list(&self, end: Side) -> &[Match] {
        match end {
            Side::Egress => &self.from,
            Side::Ingress => &self.to,
        }
    }

    /// As [`Matches::list`], to change.
    pub(crate) fn list_mut(&mut self, end: Side) -> &mut Vec<Match> {
        match end {
            Side::Egress => &mut self.from,
            Side::Ingress => &mut self.to,
        }
    }
}

/// A policy's number in its rule set, and whether the policy speaks for the workload that it matches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Match(u32);

impl Match {
    pub(crate) fn new(rule: u32, speaks: bool) -> Self {
        Self(rule << 1 | u32::from(speaks))
    }

    pub(crate) const fn rule(self) -> u32 {
        self.0 >> 1
    }

    pub(crate) const fn speaks(self) -> bool {
        self.0 & 1 == 1
    }
}

impl std::fmt::Debug for Match {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.rule(), if self.speaks() { "!" } else { "" })
    }
}

impl RuleSet {
    /// No policies; everything observes and allows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a policy in; the one of the same id that was there.
    pub fn insert(&mut self, policy: Policy) -> Option<Arc<Policy>> {
        let before = self.remove(&policy.id);
        let policy = Arc::new(policy);
        let rule = Rule { ports: ranges::normalise(&policy.ports), policy: Arc::clone(&policy) };
        let number = match self.free.pop() {
            Some(number) => {
                self.rules[number as usize] = Some(rule);
                number
            }
            None => {
                self.rules.push(Some(rule));
                u32::try_from(self.rules.len() - 1).expect("BUG: 2^32 policies in memory")
            }
        };
        self.index.insert(number, &policy);
        self.by_id.insert(policy.id.clone(), number);
        before
    }

    /// Takes a policy out.
    pub fn remove(&mut self, id: &PolicyId) -> Option<Arc<Policy>> {
        let number = self.by_id.remove(id)?;
        let rule = self.rules[number as usize].take()?;
        self.index.remove(number, &rule.policy);
        self.free.push(number);
        Some(rule.policy)
    }

    /// The policy of an id.
    pub fn get(&self, id: &PolicyId) -> Option<&Arc<Policy>> {
        self.by_id.get(id).and_then(|&number| self.rule(number)).map(|rule| &rule.policy)
    }

    /// The policy of an id, with its number here.
    pub(crate) fn numbered(&self, id: &PolicyId) -> Option<(u32, Arc<Policy>)> {
        let number = *self.by_id.get(id)?;
        self.rule(number).map(|rule| (number, Arc::clone(&rule.policy)))
    }

    /// Every policy, in no order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.rules.iter().flatten().map(|rule| &rule.policy)
    }

    /// How many policies it holds.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether it holds no policy.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Says what holds in a namespace and in those below it that have no word of their own: an *effective* posture,
    /// see [`crate::posture::PostureTree::effective`]. `None` takes the word back.
    pub fn set_posture(&mut self, namespace: NamespacePath, posture: Option<Posture>) {
        match posture {
            Some(posture) => self.postures.insert(namespace, posture),
            None => self.postures.remove(&namespace),
        };
    }

    /// What was said of exactly this namespace.
    pub fn stated_posture(&self, namespace: &NamespacePath) -> Option<Posture> {
        self.postures.get(namespace).copied()
    }

    /// What holds in a namespace: the word of the nearest one at or above it.
    pub fn posture(&self, namespace: &NamespacePath) -> Posture {
        let nearest = namespace.and_ancestors().find_map(|path| self.postures.get(path));
        nearest.copied().unwrap_or(Posture::FRESH)
    }

    /// What the side of `subject` says about every port between it and `peer`. On the egress side the subject is the
    /// client, on the ingress side the server.
    pub fn side(&self, side: Side, subject: &Identity, peer: &Peer<'_>) -> SideVerdict {
        let own = self.matches(subject);
        let other = match peer {
            Peer::Workload(identity) => Some(self.matches(identity)),
            Peer::External(_) => None,
        };
        let matching = self.matching(side, &own, peer, other.as_ref());
        self.side_verdict(side, subject, other.is_none(), matching)
    }

    /// What happens to a flow, and why.
    pub fn decide(&self, flow: &Flow<'_>) -> Decision {
        let matches = |peer: &Peer<'_>| match peer {
            Peer::Workload(identity) => Some(self.matches(identity)),
            Peer::External(_) => None,
        };
        let (client, server) = (matches(&flow.client), matches(&flow.server));
        let external = client.is_none() || server.is_none();
        let word = |side, subject: &Peer<'_>, own: &Option<Matches>, peer: &Peer<'_>, other: &Option<Matches>| {
            let (Peer::Workload(subject), Some(own)) = (subject, own) else {
                return None;
            };
            let mut tally = Tally::default();
            for number in self.matching(side, own, peer, other.as_ref()) {
                if let Some(rule) = self.rule(number).filter(|rule| rule.covers(flow.protocol, flow.port)) {
                    tally.add(rule);
                }
            }
            let posture = self.posture(subject.namespace());
            Some(SideDecision { mode: posture.mode, outcome: tally.outcome(posture.default_of(side)) })
        };
        let egress = word(Side::Egress, &flow.client, &client, &flow.server, &server);
        let ingress = word(Side::Ingress, &flow.server, &server, &flow.client, &client);
        join(egress, ingress, external, flow.protocol)
    }

    pub(crate) fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.get(number as usize).and_then(Option::as_ref)
    }

    /// Every policy that means this workload at one of its ends.
    pub(crate) fn matches(&self, identity: &Identity) -> Matches {
        self.matches_where(identity, |_| true)
    }

    /// As [`RuleSet::matches`], by those selectors alone that `counts` admits.
    pub(crate) fn matches_where(&self, identity: &Identity, counts: impl Fn(&Selector) -> bool) -> Matches {
        let mut matches = Matches::default();
        self.index.candidates(identity, |number, end, selector| {
            let Some(rule) = self.rule(number) else { return };
            let policy = &rule.policy;
            let (selectors, found) = match end {
                Side::Egress => (&policy.from, &mut matches.from),
                Side::Ingress => (&policy.to, &mut matches.to),
            };
            let selector = &selectors[selector as usize];
            if counts(selector) && selector.matches_workload(policy.namespace(), identity) {
                found.push(Match::new(number, policy.namespace().contains(identity.namespace())));
            }
        });
        for list in [&mut matches.from, &mut matches.to] {
            list.sort_unstable();
            list.dedup();
        }
        matches
    }

    /// The policies that speak for the subject on this side and mean both ends.
    pub(crate) fn matching(&self, side: Side, own: &Matches, peer: &Peer<'_>, other: Option<&Matches>) -> Vec<u32> {
        let mine = own.list(side).iter().filter(|m| m.speaks()).map(|m| m.rule());
        match (peer, other) {
            (Peer::External(networks), _) => mine
                .filter(|&number| {
                    self.rule(number).is_some_and(|rule| {
                        let policy = &rule.policy;
                        let selectors = match side {
                            Side::Egress => &policy.to,
                            Side::Ingress => &policy.from,
                        };
                        selectors.iter().any(|s| s.matches_external(policy.namespace(), networks))
                    })
                })
                .collect(),
            (Peer::Workload(_), Some(other)) => {
                let other = other.list(side.other());
                mine.filter(|number| other.binary_search_by_key(number, |m| m.rule()).is_ok()).collect()
            }
            (Peer::Workload(_), None) => Vec::new(),
        }
    }

    pub(crate) fn side_verdict(
        &self,
        side: Side,
        subject: &Identity,
        external_peer: bool,
        matching: Vec<u32>,
    ) -> SideVerdict {
        let posture = self.posture(subject.namespace());
        let default = posture.default_of(side);
        let rules: Vec<&Rule> = matching.into_iter().filter_map(|number| self.rule(number)).collect();
        SideVerdict { mode: posture.mode, external_peer, default, ranges: ranges::outcomes(rules, default) }
    }
}

#[cfg(test)]
pub(crate) mod tests;
