//! The rules compiled over the classes of the fleet, and what each class's side says about each other.
//!
//! What a class is told of its peers' sides is kept as nodes get it. A change of a policy judges those pairs anew of which
//! it means both ends, a new class those that some policy speaks about; nothing else is looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use policy::attribute::Identity;
use policy::compile::{Class, Fleet};
use policy::namespace::{NamespacePath, PolicyId};
use policy::policy::{Policy, Side};
use policy::posture::Posture;
use policy::rules::RuleSet;

use crate::view::layer::Layer;
use crate::view::side_object;

const SIDES: [Side; 2] = [Side::Egress, Side::Ingress];

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    fleet: Fleet,
    /// Interned classes that some workload has, with how many.
    classes: BTreeMap<u32, (Class, usize)>,
    ids: HashMap<Class, u32>,
    /// By the class that is told: what sides say about it, where that is not their posture.
    told: HashMap<u32, Arc<Layer>>,
    /// By class and side: the classes that are told of it.
    hearers: HashMap<(u32, Side), BTreeSet<u32>>,
}

impl Compiled {
    /// The rules.
    pub(crate) fn rules(&self) -> &RuleSet {
        self.fleet.rules()
    }

    /// Puts a policy in.
    pub(crate) fn insert(&mut self, policy: Policy) {
        let touched = self.fleet.insert(policy);
        self.judge_between(&touched);
    }

    /// Takes a policy out.
    pub(crate) fn remove(&mut self, id: &PolicyId) {
        let touched = self.fleet.remove(id);
        self.judge_between(&touched);
    }

    /// Says what holds in a namespace.
    pub(crate) fn set_posture(&mut self, namespace: NamespacePath, posture: Option<Posture>) {
        let touched = self.fleet.set_posture(namespace, posture);
        for id in self.ids_of(&touched) {
            SIDES.into_iter().for_each(|side| self.judge_side(side, id, |_| true));
        }
    }

    /// A workload has this class.
    pub(crate) fn hold(&mut self, id: u32, identity: &Arc<Identity>) {
        if let Some((_, count)) = self.classes.get_mut(&id) {
            *count += 1;
            return;
        }
        let class = self.fleet.intern(Arc::clone(identity));
        self.classes.insert(id, (class, 1));
        self.ids.insert(class, id);
        for side in SIDES {
            self.judge_side(side, id, |_| true);
            for speaker in self.ids_of(&self.fleet.speakers(side, class)) {
                self.judge(side, speaker, id);
            }
        }
    }

    /// A workload has it no longer.
    pub(crate) fn release(&mut self, id: u32) {
        let Some((class, count)) = self.classes.get_mut(&id) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        let class = *class;
        for side in SIDES {
            for hearer in self.hearers.get(&(id, side)).cloned().unwrap_or_default() {
                self.tell(side, id, hearer, None);
            }
            let all = self.hearers.iter().filter(|((_, of), hearers)| *of == side && hearers.contains(&id));
            let speakers: Vec<u32> = all.map(|((speaker, _), _)| *speaker).collect();
            speakers.into_iter().for_each(|speaker| self.tell(side, speaker, id, None));
        }
        self.classes.remove(&id);
        self.ids.remove(&class);
        self.fleet.forget(class);
    }

    /// What a class is told of its peers' sides; `None` where all of them say what their postures say.
    pub(crate) fn told(&self, hearer: u32) -> Option<&Arc<Layer>> {
        self.told.get(&hearer)
    }

    /// A policy speaks about a pair only if it means both of its ends.
    fn judge_between(&mut self, touched: &[Class]) {
        let touched = self.ids_of(touched);
        for id in &touched {
            SIDES.into_iter().for_each(|side| self.judge_side(side, *id, |peer| touched.contains(&peer)));
        }
    }

    /// Judges what a class's side says of those peers about which it says, or has said, something.
    fn judge_side(&mut self, side: Side, speaker: u32, among: impl Fn(u32) -> bool) {
        let Some((class, _)) = self.classes.get(&speaker) else { return };
        let mut peers = self.ids_of(&self.fleet.peers(side, *class));
        peers.extend(self.hearers.get(&(speaker, side)).into_iter().flatten());
        peers.into_iter().filter(|peer| among(*peer)).for_each(|peer| self.judge(side, speaker, peer));
    }

    fn judge(&mut self, side: Side, speaker: u32, hearer: u32) {
        let class = |id| self.classes.get(&id).map(|(class, _)| *class);
        let (Some(subject), Some(peer)) = (class(speaker), class(hearer)) else { return };
        let verdict = self.fleet.side(side, subject, peer);
        let object = verdict.and_then(|verdict| side_object(speaker, hearer, side, &verdict));
        self.tell(side, speaker, hearer, object);
    }

    fn tell(&mut self, side: Side, speaker: u32, hearer: u32, object: Option<Vec<u8>>) {
        // By the class that is told first, so that what one class is told lies together.
        let key = format!("side/{hearer}/{speaker}/{side}");
        match object {
            Some(object) => {
                let layer = self.told.entry(hearer).or_default();
                if layer.get(&*key).is_none_or(|known| **known != *object) {
                    Arc::make_mut(layer).insert(key.into(), object.into());
                }
                self.hearers.entry((speaker, side)).or_default().insert(hearer);
            }
            None => {
                if let Some(layer) = self.told.get_mut(&hearer)
                    && layer.contains_key(&*key)
                {
                    Arc::make_mut(layer).remove(&*key);
                    if layer.is_empty() {
                        self.told.remove(&hearer);
                    }
                }
                if let Some(of) = self.hearers.get_mut(&(speaker, side)) {
                    of.remove(&hearer);
                    if of.is_empty() {
                        self.hearers.remove(&(speaker, side));
                    }
                }
            }
        }
    }

    fn ids_of(&self, classes: &[Class]) -> BTreeSet<u32> {
        classes.iter().filter_map(|class| self.ids.get(class).copied()).collect()
    }
}
