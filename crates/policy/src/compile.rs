//! Rules compiled over the identities of a fleet, so that a decision between two of them is two short lists.
//!
//! A [`Fleet`] keeps for every class (a distinct identity) the policies that mean it at either end. A change of one
//! policy touches only the classes that it means. What it answers equals what its [`RuleSet`] answers for the same
//! identities.

mod census;

use std::collections::HashMap;
use std::sync::Arc;

use self::census::Census;
use crate::attribute::{Identity, Peer};
use crate::decide::{Decision, SideDecision, SideVerdict, join};
use crate::namespace::{NamespacePath, PolicyId};
use crate::policy::{Action, Mode, Policy, Side};
use crate::posture::Posture;
use crate::rules::{Match, Matches, RuleSet, Tally};

/// A class of a [`Fleet`]: one distinct identity. Numbers are dense, and reused after [`Fleet::forget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(u32);

/// Rules and the identities that they are compiled over.
///
/// Cost: memory and time follow how many policies mean each identity, not their product. Measured by
/// `./x bench policy`.
#[derive(Debug, Default)]
pub struct Fleet {
    rules: RuleSet,
    members: Vec<Option<Member>>,
    free: Vec<u32>,
    by_identity: HashMap<Arc<Identity>, Class>,
    census: Census,
}

/// A class and what is known of it.
#[derive(Debug)]
struct Member {
    identity: Arc<Identity>,
    matches: Matches,
    mode: Mode,
    egress: Action,
    ingress: Action,
}

impl Member {
    fn adopt(&mut self, posture: Posture) {
        (self.mode, self.egress, self.ingress) = (posture.mode, posture.egress, posture.ingress);
    }

    fn default_of(&self, side: Side) -> Action {
        match side {
            Side::Egress => self.egress,
            Side::Ingress => self.ingress,
        }
    }
}

impl Fleet {
    /// Rules that mean nobody yet.
    pub fn new(rules: RuleSet) -> Self {
        Self { rules, ..Self::default() }
    }

    /// The rules.
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// The class of an identity, compiled now if it is new.
    pub fn intern(&mut self, identity: Arc<Identity>) -> Class {
        if let Some(class) = self.by_identity.get(&identity) {
            return *class;
        }
        let mut member = Member {
            matches: self.rules.matches(&identity),
            identity: Arc::clone(&identity),
            mode: Mode::Observe,
            egress: Action::Allow,
            ingress: Action::Allow,
        };
        member.adopt(self.rules.posture(identity.namespace()));
        let number = self.free.pop().unwrap_or_else(|| {
            self.members.push(None);
            u32::try_from(self.members.len() - 1).expect("BUG: 2^32 classes in memory")
        });
        self.census.add(number, &identity);
        self.members[number as usize] = Some(member);
        self.by_identity.insert(identity, Class(number));
        Class(number)
    }

    /// Drops a class; its number may be given to another identity.
    pub fn forget(&mut self, class: Class) {
        let Some(member) = self.members.get_mut(class.0 as usize).and_then(Option::take) else {
            return;
        };
        self.census.remove(class.0, &member.identity);
        self.by_identity.remove(&member.identity);
        self.free.push(class.0);
    }

    /// How many classes there are.
    pub fn len(&self) -> usize {
        self.by_identity.len()
    }

    /// Whether there is no class.
    pub fn is_empty(&self) -> bool {
        self.by_identity.is_empty()
    }

    /// The identity of a class; `None` after [`Fleet::forget`].
    pub fn identity(&self, class: Class) -> Option<&Arc<Identity>> {
        self.member(class).map(|member| &member.identity)
    }

    /// Puts a policy in, over one of the same id; the classes that the old or the new one means, in order.
    pub fn insert(&mut self, policy: Policy) -> Vec<Class> {
        let mut touched = self.remove(&policy.id);
        let id = policy.id.clone();
        self.rules.insert(policy);
        let Some((number, policy)) = self.rules.numbered(&id) else {
            return touched;
        };
        for side in [Side::Egress, Side::Ingress] {
            for class in self.meant(&policy, side) {
                let Some(member) = self.members[class.0 as usize].as_mut() else { continue };
                let entry = Match::new(number, policy.namespace().contains(member.identity.namespace()));
                let list = list_of(&mut member.matches, side);
                if let Err(at) = list.binary_search(&entry) {
                    list.insert(at, entry);
                }
                touched.push(class);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// Takes a policy out; the classes that it meant, in order.
    pub fn remove(&mut self, id: &PolicyId) -> Vec<Class> {
        let Some((number, policy)) = self.rules.numbered(id) else {
            return Vec::new();
        };
        let mut touched = Vec::new();
        for (side, selectors) in [(Side::Egress, &policy.from), (Side::Ingress, &policy.to)] {
            for selector in selectors.iter().filter(|s| !s.is_external()) {
                // Who has it in the list is meant; no need to ask the selector again.
                self.census.candidates(policy.namespace(), selector, |class| {
                    let Some(member) = self.members[class as usize].as_mut() else { return };
                    let list = list_of(&mut member.matches, side);
                    if let Ok(at) = list.binary_search_by_key(&number, |m| m.rule()) {
                        list.remove(at);
                        touched.push(Class(class));
                    }
                });
            }
        }
        self.rules.remove(id);
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// As [`RuleSet::set_posture`]; the classes in the namespace or below.
    pub fn set_posture(&mut self, namespace: NamespacePath, posture: Option<Posture>) -> Vec<Class> {
        self.rules.set_posture(namespace.clone(), posture);
        let touched = self.census.below(namespace.as_str());
        for &number in &touched {
            if let Some(member) = self.members[number as usize].as_mut() {
                member.adopt(self.rules.posture(member.identity.namespace()));
            }
        }
        touched.into_iter().map(Class).collect()
    }

    /// What happens to a flow between two classes; `None` when one was forgotten.
    pub fn decide(&self, client: Class, server: Class, protocol: u8, port: u16) -> Option<Decision> {
        let (client, server) = (self.member(client)?, self.member(server)?);
        let (mut egress, mut ingress) = (Tally::default(), Tally::default());
        common(&client.matches.from, &server.matches.to, |from, to| {
            if let Some(rule) = self.rules.rule(from.rule()).filter(|rule| rule.covers(protocol, port)) {
                if from.speaks() {
                    egress.add(rule);
                }
                if to.speaks() {
                    ingress.add(rule);
                }
            }
        });
        let word = |member: &Member, side, tally: Tally<'_>| {
            Some(SideDecision { mode: member.mode, outcome: tally.outcome(member.default_of(side)) })
        };
        let (egress, ingress) = (word(client, Side::Egress, egress), word(server, Side::Ingress, ingress));
        Some(join(egress, ingress, false, protocol))
    }

    /// What a class's side says about every port to or from another class; `None` when one was forgotten.
    pub fn side(&self, side: Side, subject: Class, peer: Class) -> Option<SideVerdict> {
        let (subject, peer) = (self.member(subject)?, self.member(peer)?);
        let (from, to) = match side {
            Side::Egress => (&subject.matches.from, &peer.matches.to),
            Side::Ingress => (&peer.matches.from, &subject.matches.to),
        };
        let mut numbers = Vec::new();
        common(from, to, |from, to| {
            if (if side == Side::Egress { from } else { to }).speaks() {
                numbers.push(from.rule());
            }
        });
        Some(self.rules.side_verdict(side, &subject.identity, false, numbers))
    }

    /// What a class's side says about every port to or from an external end; `None` when the class was forgotten.
    pub fn side_external(&self, side: Side, subject: Class, peer: &Peer<'_>) -> Option<SideVerdict> {
        let subject = self.member(subject)?;
        let numbers = self.rules.matching(side, &subject.matches, peer, None);
        Some(self.rules.side_verdict(side, &subject.identity, true, numbers))
    }

    /// The classes about which some policy speaks on a class's side, in order. For every other class the side's
    /// verdict is its default on all ports.
    pub fn peers(&self, side: Side, subject: Class) -> Vec<Class> {
        let Some(subject) = self.member(subject) else {
            return Vec::new();
        };
        let list = match side {
            Side::Egress => &subject.matches.from,
            Side::Ingress => &subject.matches.to,
        };
        let rules = list.iter().filter(|m| m.speaks()).filter_map(|m| self.rules.rule(m.rule()));
        let mut peers: Vec<Class> = rules.flat_map(|rule| self.meant(&rule.policy, side.other())).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    fn member(&self, class: Class) -> Option<&Member> {
        self.members.get(class.0 as usize).and_then(Option::as_ref)
    }

    /// The classes that a policy means at one end: egress its `from`, ingress its `to`. Each once, in no order.
    fn meant(&self, policy: &Policy, end: Side) -> Vec<Class> {
        let selectors = match end {
            Side::Egress => &policy.from,
            Side::Ingress => &policy.to,
        };
        let mut found: Vec<Class> = Vec::new();
        for selector in selectors.iter().filter(|s| !s.is_external()) {
            self.census.candidates(policy.namespace(), selector, |number| {
                let member = self.members[number as usize].as_ref();
                if member.is_some_and(|m| selector.matches_workload(policy.namespace(), &m.identity)) {
                    found.push(Class(number));
                }
            });
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn list_of(matches: &mut Matches, end: Side) -> &mut Vec<Match> {
    match end {
        Side::Egress => &mut matches.from,
        Side::Ingress => &mut matches.to,
    }
}

/// Calls `with` for every rule that is in both lists.
fn common(from: &[Match], to: &[Match], mut with: impl FnMut(Match, Match)) {
    // A list that is much shorter looks its rules up in the other one.
    const MUCH: usize = 16;
    if from.len() * MUCH < to.len() {
        for &a in from {
            if let Ok(at) = to.binary_search_by_key(&a.rule(), |m| m.rule()) {
                with(a, to[at]);
            }
        }
        return;
    }
    if to.len() * MUCH < from.len() {
        for &b in to {
            if let Ok(at) = from.binary_search_by_key(&b.rule(), |m| m.rule()) {
                with(from[at], b);
            }
        }
        return;
    }
    let (mut i, mut j) = (0, 0);
    while let (Some(&a), Some(&b)) = (from.get(i), to.get(j)) {
        match a.rule().cmp(&b.rule()) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                with(a, b);
                (i, j) = (i + 1, j + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests;
