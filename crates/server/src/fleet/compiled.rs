//! The rules compiled over the classes of the fleet, and what each class's side says about each other.
//!
//! Keeps what was asked until a policy or a posture changes for both classes of the pair.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use policy::attribute::Identity;
use policy::compile::{Class, Fleet};
use policy::decide::SideVerdict;
use policy::namespace::{NamespacePath, PolicyId};
use policy::policy::{Policy, Side};
use policy::posture::Posture;
use policy::rules::RuleSet;

/// (the subject's class, the other end's, the subject's side).
type Pair = (u32, u32, Side);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    fleet: Fleet,
    /// Interned classes that some workload has, with how many.
    classes: BTreeMap<u32, (Class, usize)>,
    ids: HashMap<Class, u32>,
    asked: Mutex<HashMap<Pair, Option<Arc<[u8]>>>>,
}

impl Compiled {
    /// The rules.
    pub(crate) fn rules(&self) -> &RuleSet {
        self.fleet.rules()
    }

    /// Puts a policy in.
    pub(crate) fn insert(&mut self, policy: Policy) {
        let touched = self.fleet.insert(policy);
        self.forget_between(&touched);
    }

    /// Takes a policy out.
    pub(crate) fn remove(&mut self, id: &PolicyId) {
        let touched = self.fleet.remove(id);
        self.forget_between(&touched);
    }

    /// Says what holds in a namespace.
    pub(crate) fn set_posture(&mut self, namespace: NamespacePath, posture: Option<Posture>) {
        let touched = self.fleet.set_posture(namespace, posture);
        let touched = self.ids_of(&touched);
        self.asked_mut().retain(|(subject, _, _), _| !touched.contains(subject));
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
    }

    /// A workload has it no longer.
    pub(crate) fn release(&mut self, id: u32) {
        let Some((class, count)) = self.classes.get_mut(&id) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        let class = *class;
        self.classes.remove(&id);
        self.ids.remove(&class);
        self.fleet.forget(class);
        self.asked_mut().retain(|(subject, peer, _), _| *subject != id && *peer != id);
    }

    /// What `encode` makes of the word of a class's side about another class, kept until it changes.
    pub(crate) fn side(
        &self,
        side: Side,
        subject: u32,
        peer: u32,
        encode: impl FnOnce(&SideVerdict) -> Option<Vec<u8>>,
    ) -> Option<Arc<[u8]>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = asked.entry((subject, peer, side)).or_insert_with(|| {
            let class = |id| self.classes.get(id).map(|(class, _)| *class);
            let verdict = self.fleet.side(side, class(&subject)?, class(&peer)?)?;
            encode(&verdict).map(Arc::from)
        });
        entry.clone()
    }

    /// A policy speaks about a pair only if it means both of its ends.
    fn forget_between(&mut self, touched: &[Class]) {
        let touched = self.ids_of(touched);
        self.asked_mut().retain(|(subject, peer, _), _| !(touched.contains(subject) && touched.contains(peer)));
    }

    fn ids_of(&self, classes: &[Class]) -> BTreeSet<u32> {
        classes.iter().filter_map(|class| self.ids.get(class).copied()).collect()
    }

    fn asked_mut(&mut self) -> &mut HashMap<Pair, Option<Arc<[u8]>>> {
        self.asked.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}
