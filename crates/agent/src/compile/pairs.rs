//! Verdicts between the classes of this node and all others, kept between compiles and recomputed where something changed.
//!
//! Sparse: of each local class there is one fallback for both directions, and a pair is listed only where its verdicts
//! differ from that. Which pairs can differ follows from the policies that match one end and the other.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use datapath::state::{ClassId, Direction, PairVerdicts};
use policy::attribute::{Identity, Peer};
use policy::decide::{PortOutcome, SideVerdict};
use policy::namespace::{ExternalId, NamespacePath, PolicyId};
use policy::policy::{Action, Mode, Policy, Side};
use policy::posture::{Encryption, Posture};
use policy::rules::RuleSet;

use super::verdict::{self, Ends};
use crate::model::{Model, SideKey};
use crate::numbering::Numbering;

/// All verdicts of a node.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    rules: RuleSet,
    reach: HashMap<PolicyId, Reach>,
    classes: BTreeMap<ClassId, Identity>,
    locals: BTreeSet<ClassId>,
    externals: BTreeMap<ClassId, BTreeSet<ExternalId>>,
    host: Host,
    done: BTreeMap<ClassId, Local>,
}

/// The node's host workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Its class, once placed.
    pub class: Option<ClassId>,
    /// It is enforced like any other.
    pub protected: bool,
}

/// Which classes a policy's ends mean.
#[derive(Debug)]
struct Reach {
    policy: Policy,
    from: BTreeSet<ClassId>,
    to: BTreeSet<ClassId>,
}

/// Verdicts of one local class.
#[derive(Debug)]
struct Local {
    /// For peers without an entry: ingress, egress.
    fallback: [PairVerdicts; 2],
    pairs: BTreeMap<(ClassId, Direction), PairVerdicts>,
}

const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

impl Reach {
    fn of(policy: Policy, classes: &BTreeMap<ClassId, Identity>) -> Self {
        let mut reach = Self { policy, from: BTreeSet::new(), to: BTreeSet::new() };
        for (class, identity) in classes {
            reach.see(*class, identity);
        }
        reach
    }

    fn see(&mut self, class: ClassId, identity: &Identity) {
        let own = self.policy.namespace();
        if self.policy.from.iter().any(|selector| selector.matches_workload(own, identity)) {
            self.from.insert(class);
        }
        if self.policy.to.iter().any(|selector| selector.matches_workload(own, identity)) {
            self.to.insert(class);
        }
    }

    fn forget(&mut self, class: ClassId) {
        self.from.remove(&class);
        self.to.remove(&class);
    }

    /// Classes whose pair with `local` it can have a say in.
    fn partners(&self, local: ClassId) -> impl Iterator<Item = ClassId> {
        let to = self.from.contains(&local).then_some(&self.to);
        let from = self.to.contains(&local).then_some(&self.from);
        to.into_iter().chain(from).flatten().copied()
    }
}

/// What is to be recomputed.
#[derive(Debug, Default)]
struct Stale {
    locals: BTreeSet<ClassId>,
    peers: BTreeSet<ClassId>,
    pairs: BTreeSet<(ClassId, ClassId)>,
    externals: BTreeSet<ClassId>,
}

impl Pairs {
    /// Brings everything up to date with the model. `locals` are the classes of this node's placed workloads,
    /// `externals` the classes of sets of external networks, [`ClassId::EXTERNAL_OTHER`] among them.
    pub(super) fn update(
        &mut self,
        model: &mut Model,
        locals: BTreeSet<ClassId>,
        externals: BTreeMap<ClassId, BTreeSet<ExternalId>>,
        host: Host,
        numbering: &mut Numbering,
    ) {
        let touched = std::mem::take(&mut model.touched);
        let mut stale = Stale::default();
        let anew = touched.all || touched.postures || host != self.host || externals != self.externals;
        if touched.all {
            *self = Self::default();
        }
        self.host = host;
        self.externals = externals;
        if touched.all || touched.postures {
            self.take_postures(model);
        }
        let classes: Vec<ClassId> =
            if touched.all { model.classes.keys().copied().collect() } else { touched.classes.into_iter().collect() };
        for class in classes {
            self.take_class(class, model.classes.get(&class));
            stale.peers.insert(class);
            stale.locals.insert(class);
        }
        let policies: Vec<PolicyId> =
            if touched.all { model.policies.keys().cloned().collect() } else { touched.policies.into_iter().collect() };
        for id in policies {
            self.take_policy(&id, model.policies.get(&id), &mut stale);
        }
        stale.pairs.extend(touched.sides.iter().map(|side| (side.local, side.peer)));
        let gone: Vec<ClassId> = self.done.keys().filter(|class| !locals.contains(class)).copied().collect();
        gone.iter().for_each(|class| drop(self.done.remove(class)));
        stale.locals.extend(locals.difference(&self.locals));
        self.locals = locals;
        if anew {
            stale.locals.extend(&self.locals);
        }
        self.recompute(stale, model, numbering);
    }

    /// Everything, for the kernel.
    pub(super) fn all(&self) -> impl Iterator<Item = &PairVerdicts> {
        self.done.values().flat_map(|local| local.fallback.iter().chain(local.pairs.values()))
    }

    /// How many entries [`Pairs::all`] has.
    pub(super) fn len(&self) -> usize {
        self.done.values().map(|local| local.pairs.len() + local.fallback.len()).sum()
    }

    fn take_postures(&mut self, model: &Model) {
        let mut rules = RuleSet::new();
        for reach in self.reach.values() {
            rules.insert(reach.policy.clone());
        }
        for (path, posture) in &model.postures {
            rules.set_posture(path.clone(), Some(*posture));
        }
        self.rules = rules;
    }

    fn take_class(&mut self, class: ClassId, identity: Option<&Identity>) {
        for reach in self.reach.values_mut() {
            reach.forget(class);
            if let Some(identity) = identity {
                reach.see(class, identity);
            }
        }
        match identity {
            Some(identity) => self.classes.insert(class, identity.clone()),
            None => self.classes.remove(&class),
        };
    }

    fn take_policy(&mut self, id: &PolicyId, policy: Option<&Policy>, stale: &mut Stale) {
        self.rules.remove(id);
        if let Some(old) = self.reach.remove(id) {
            stale.policy(&old, &self.locals);
        }
        if let Some(policy) = policy {
            let reach = Reach::of(policy.clone(), &self.classes);
            stale.policy(&reach, &self.locals);
            self.rules.insert(policy.clone());
            self.reach.insert(id.clone(), reach);
        }
    }

    fn recompute(&mut self, stale: Stale, model: &Model, numbering: &mut Numbering) {
        let whole: BTreeSet<ClassId> = stale.locals.intersection(&self.locals).copied().collect();
        for local in &whole {
            self.recompute_local(*local, model, numbering);
        }
        let externals: Vec<ClassId> = self.externals.keys().copied().collect();
        let others: Vec<ClassId> = self.locals.difference(&whole).copied().collect();
        let peers: Vec<ClassId> = stale.peers.iter().copied().collect();
        for local in others {
            let paired = stale.pairs.range((local, ClassId(0))..=(local, ClassId(u32::MAX))).map(|(_, peer)| *peer);
            let mut peers: Vec<ClassId> = peers.iter().copied().chain(paired).collect();
            if stale.externals.contains(&local) {
                peers.extend(&externals);
            }
            self.recompute_pairs(local, &peers, model, numbering);
        }
    }

    fn recompute_local(&mut self, local: ClassId, model: &Model, numbering: &mut Numbering) {
        let Some(identity) = self.classes.get(&local) else {
            self.done.remove(&local);
            return;
        };
        let fallback = DIRECTIONS.map(|direction| {
            let own = self.own_default(local, identity, direction);
            verdict::pair(
                local,
                ClassId::ANY,
                direction,
                &Ends { own: &own, peer: None, strict: self.strict(identity, None) },
                numbering,
            )
        });
        self.done.insert(local, Local { fallback, pairs: BTreeMap::new() });
        let mut peers: BTreeSet<ClassId> = self.reach.values().flat_map(|reach| reach.partners(local)).collect();
        let sided = SideKey { local, peer: ClassId(0), direction: Direction::Ingress };
        peers.extend(model.sides.range(sided..).take_while(|(key, _)| key.local == local).map(|(key, _)| key.peer));
        peers.extend(self.classes.iter().filter(|(_, peer)| self.has_own_default(peer)).map(|(class, _)| *class));
        peers.extend(self.host.class);
        peers.extend(self.externals.keys());
        let peers: Vec<ClassId> = peers.into_iter().collect();
        self.recompute_pairs(local, &peers, model, numbering);
    }

    fn recompute_pairs(&mut self, local: ClassId, peers: &[ClassId], model: &Model, numbering: &mut Numbering) {
        let Some(mut held) = self.done.remove(&local) else { return };
        for peer in peers {
            for (direction, fallback) in DIRECTIONS.into_iter().zip(&held.fallback) {
                let external = self.externals.contains_key(peer);
                match self.pair(local, *peer, direction, model, numbering) {
                    Some(verdicts) if external || !verdict::same(&verdicts, fallback) => {
                        held.pairs.insert((*peer, direction), verdicts);
                    }
                    _ => drop(held.pairs.remove(&(*peer, direction))),
                }
            }
        }
        held.pairs.retain(|(peer, _), _| self.classes.contains_key(peer) || self.externals.contains_key(peer));
        self.done.insert(local, held);
    }

    /// The verdicts between two classes; `None` when one of them is not known.
    fn pair(
        &self,
        local: ClassId,
        peer: ClassId,
        direction: Direction,
        model: &Model,
        numbering: &mut Numbering,
    ) -> Option<PairVerdicts> {
        let identity = self.classes.get(&local)?;
        let side = own_side(direction);
        if let Some(networks) = self.externals.get(&peer) {
            let own = self.as_host(local, self.rules.side(side, identity, &Peer::External(networks)));
            let ends = Ends { own: &own, peer: None, strict: self.strict(identity, None) };
            return Some(verdict::pair(local, peer, direction, &ends, numbering));
        }
        let other = self.classes.get(&peer)?;
        let mut own = self.as_host(local, self.rules.side(side, identity, &Peer::Workload(other)));
        if direction == Direction::Ingress && self.host.class == Some(peer) {
            // Probes by the node's own host workload pass where nothing denies them (PROTOCOL rule 9).
            own.default = Action::Allow;
        }
        let other_side = (direction == Direction::Ingress).then(|| {
            let key = SideKey { local, peer, direction };
            self.peer_side(other, model.sides.get(&key).map_or(&[][..], Vec::as_slice))
        });
        let strict = self.strict(identity, Some(other));
        Some(verdict::pair(local, peer, direction, &Ends { own: &own, peer: other_side.as_ref(), strict }, numbering))
    }

    fn own_default(&self, local: ClassId, identity: &Identity, direction: Direction) -> SideVerdict {
        let posture = self.rules.posture(identity.namespace());
        let default = posture.default_of(own_side(direction));
        self.as_host(local, SideVerdict { mode: posture.mode, external_peer: false, default, ranges: Vec::new() })
    }

    /// The host workload is not enforced unless it is protected by name.
    fn as_host(&self, local: ClassId, mut side: SideVerdict) -> SideVerdict {
        if self.host.class == Some(local) && !self.host.protected {
            side.mode = Mode::Observe;
            side.default = Action::Allow;
        }
        side
    }

    /// The client's side of a peer, from what the server compiled and from its namespace's posture.
    fn peer_side(&self, peer: &Identity, outcomes: &[PortOutcome]) -> SideVerdict {
        let posture = self.rules.posture(peer.namespace());
        let (mode, default) = match is_host(peer) {
            true => (Mode::Observe, Action::Allow),
            false => (posture.mode, posture.egress),
        };
        SideVerdict { mode, external_peer: false, default, ranges: outcomes.to_vec() }
    }

    /// Whether a peer's side says something even without a policy.
    fn has_own_default(&self, peer: &Identity) -> bool {
        let posture = self.rules.posture(peer.namespace());
        !is_host(peer) && (posture.egress == Action::Deny || posture.encryption == Encryption::Strict)
    }

    /// The tightest posture whose mode makes encryption mandatory; no enforcer here can give it.
    fn strict(&self, own: &Identity, peer: Option<&Identity>) -> Option<Mode> {
        let of = |identity: &Identity| -> Option<Mode> {
            let Posture { mode, encryption, .. } = self.rules.posture(identity.namespace());
            (encryption == Encryption::Strict && !is_host(identity)).then_some(mode)
        };
        of(own).max(peer.and_then(of))
    }

    /// Whether refusals without a verdict are carried out in a namespace.
    pub(super) fn enforces(&self, namespace: &NamespacePath) -> bool {
        self.rules.posture(namespace).mode == Mode::Enforce
    }
}

impl Stale {
    fn policy(&mut self, reach: &Reach, locals: &BTreeSet<ClassId>) {
        for local in locals {
            if reach.from.contains(local) || reach.to.contains(local) {
                self.pairs.extend(reach.partners(*local).map(|peer| (*local, peer)));
                self.externals.insert(*local);
            }
        }
    }
}

fn own_side(direction: Direction) -> Side {
    match direction {
        Direction::Ingress => Side::Ingress,
        Direction::Egress => Side::Egress,
    }
}

fn is_host(identity: &Identity) -> bool {
    identity.attributes().get("@type") == Some("host")
}
