//! Rules compiled over the identities of a fleet, so that a decision between two of them is two short lists.
//!
//! A [`Fleet`] keeps for every class (a distinct identity) the policies that mean it at either end. A change of one
//! policy touches only the classes that it means. What it answers equals what its [`RuleSet`] answers for the same
//! identities.

mod census;

use std::collections::HashMap;
use std::sync::Arc;

use self::census::{Census, Land};
use crate::attribute::{Identity, Peer};
use crate::decide::{Decision, SideDecision, SideVerdict, join};
use crate::namespace::{NamespacePath, PolicyId};
use crate::policy::{Policy, Side};
use crate::posture::Posture;
use crate::rules::{Match, Matches, RuleSet, Tally};
use crate::selector::Selector;

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
    /// Policies that mean it by more than its namespace; the others are its land's.
    matches: Matches,
    land: u32,
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
        let number = self.free.pop().unwrap_or_else(|| {
            self.members.push(None);
            u32::try_from(self.members.len() - 1).expect("BUG: 2^32 classes in memory")
        });
        let rules = &self.rules;
        let land = self.census.add(number, &identity, || Land {
            classes: Vec::new(),
            matches: rules.matches_where(&identity, Selector::is_wide),
            posture: rules.posture(identity.namespace()),
        });
        let matches = rules.matches_where(&identity, |selector| !selector.is_wide());
        self.members[number as usize] = Some(Member { identity: Arc::clone(&identity), matches, land });
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
        self.each_list(&policy, |speaks, list, classes| {
            let entry = Match::new(number, speaks);
            if let Err(at) = list.binary_search(&entry) {
                list.insert(at, entry);
                touched.extend(classes.iter().map(|class| Class(*class)));
            }
        });
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
        // Who has it in the list is meant.
        self.each_list(&policy, |_, list, classes| {
            if let Ok(at) = list.binary_search_by_key(&number, |m| m.rule()) {
                list.remove(at);
                touched.extend(classes.iter().map(|class| Class(*class)));
            }
        });
        self.rules.remove(id);
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// As [`RuleSet::set_posture`]; the classes in the namespace or below.
    pub fn set_posture(&mut self, namespace: NamespacePath, posture: Option<Posture>) -> Vec<Class> {
        self.rules.set_posture(namespace.clone(), posture);
        let mut touched = Vec::new();
        let rules = &self.rules;
        self.census.each_below(namespace.as_str(), |path, land| {
            land.posture = rules.posture(path);
            touched.extend(land.classes.iter().map(|class| Class(*class)));
        });
        touched
    }

    /// What happens to a flow between two classes; `None` when one was forgotten.
    pub fn decide(&self, client: Class, server: Class, protocol: u8, port: u16) -> Option<Decision> {
        let (client, server) = (self.member(client)?, self.member(server)?);
        let (mut egress, mut ingress) = (Tally::default(), Tally::default());
        self.each_common(client, server, |from, to| {
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
            let posture = self.census.land(member.land).posture;
            Some(SideDecision { mode: posture.mode, outcome: tally.outcome(posture.default_of(side)) })
        };
        let (egress, ingress) = (word(client, Side::Egress, egress), word(server, Side::Ingress, ingress));
        Some(join(egress, ingress, false, protocol))
    }

    /// What a class's side says about every port to or from another class; `None` when one was forgotten.
    pub fn side(&self, side: Side, subject: Class, peer: Class) -> Option<SideVerdict> {
        let (subject, peer) = (self.member(subject)?, self.member(peer)?);
        let (client, server) = match side {
            Side::Egress => (subject, peer),
            Side::Ingress => (peer, subject),
        };
        let mut numbers = Vec::new();
        self.each_common(client, server, |from, to| {
            if (if side == Side::Egress { from } else { to }).speaks() {
                numbers.push(from.rule());
            }
        });
        numbers.sort_unstable();
        numbers.dedup();
        Some(self.rules.side_verdict(side, &subject.identity, false, numbers))
    }

    /// What a class's side says about every port to or from an external end; `None` when the class was forgotten.
    pub fn side_external(&self, side: Side, subject: Class, peer: &Peer<'_>) -> Option<SideVerdict> {
        let subject = self.member(subject)?;
        let mut numbers = self.rules.matching(side, &subject.matches, peer, None);
        numbers.extend(self.rules.matching(side, &self.census.land(subject.land).matches, peer, None));
        numbers.sort_unstable();
        numbers.dedup();
        Some(self.rules.side_verdict(side, &subject.identity, true, numbers))
    }

    /// The classes about which some policy speaks on a class's side, in order. For every other class the side's
    /// verdict is its default on all ports.
    pub fn peers(&self, side: Side, subject: Class) -> Vec<Class> {
        let Some(subject) = self.member(subject) else {
            return Vec::new();
        };
        let lists = [&subject.matches, &self.census.land(subject.land).matches];
        let matches = lists.into_iter().flat_map(|matches| matches.list(side));
        let rules = matches.filter(|m| m.speaks()).filter_map(|m| self.rules.rule(m.rule()));
        let mut peers: Vec<Class> = rules.flat_map(|rule| self.meant(&rule.policy, side.other())).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// The classes on whose side some policy may speak about a class, in order: [`Fleet::peers`] seen from the other end.
    /// For every other class the side's verdict about it is that side's default on all ports.
    pub fn speakers(&self, side: Side, peer: Class) -> Vec<Class> {
        let Some(peer) = self.member(peer) else {
            return Vec::new();
        };
        let lists = [&peer.matches, &self.census.land(peer.land).matches];
        let matches = lists.into_iter().flat_map(|matches| matches.list(side.other()));
        let rules = matches.filter_map(|m| self.rules.rule(m.rule()));
        let mut speakers: Vec<Class> = rules.flat_map(|rule| self.meant(&rule.policy, side)).collect();
        speakers.sort_unstable();
        speakers.dedup();
        speakers
    }

    fn member(&self, class: Class) -> Option<&Member> {
        self.members.get(class.0 as usize).and_then(Option::as_ref)
    }

    /// Calls `with` for every list in which a policy stands, or may have to: whether the policy speaks for those whose
    /// list it is, the list, and the classes whose list it is.
    fn each_list(&mut self, policy: &Policy, mut with: impl FnMut(bool, &mut Vec<Match>, &[u32])) {
        let own = policy.namespace();
        let Self { members, census, .. } = self;
        for (end, selectors) in [(Side::Egress, &policy.from), (Side::Ingress, &policy.to)] {
            for selector in selectors.iter().filter(|s| !s.is_external()) {
                if selector.is_wide() {
                    census.each_meant(own, selector, |path, land| {
                        with(own.contains(path), land.matches.list_mut(end), &land.classes);
                    });
                    continue;
                }
                census.candidates(own, selector, |number| {
                    let Some(member) = members[number as usize].as_mut() else { return };
                    if selector.matches_workload(own, &member.identity) {
                        let speaks = own.contains(member.identity.namespace());
                        with(speaks, member.matches.list_mut(end), &[number]);
                    }
                });
            }
        }
    }

    /// Calls `with` for every rule that means both; for one that means them in several ways, several times.
    fn each_common(&self, client: &Member, server: &Member, mut with: impl FnMut(Match, Match)) {
        let (near, far) = (&self.census.land(client.land).matches, &self.census.land(server.land).matches);
        for from in [&client.matches.from, &near.from] {
            for to in [&server.matches.to, &far.to] {
                common(from, to, &mut with);
            }
        }
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
