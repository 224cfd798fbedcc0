//! Which classes may be meant by a selector: the index of the rules, turned round.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, RandomState};
use std::ops::Bound;

use crate::attribute::{EXTERNAL_KEY, Identity, NAMESPACE_KEY};
use crate::namespace::NamespacePath;
use crate::posture::Posture;
use crate::rules::{Hashed, Matches, scopes};
use crate::selector::{Pattern, Selector, Test};

/// Classes by namespace and by attribute. Attributes are found by a keyed hash; the caller checks the selector itself,
/// so a collision costs time and never changes an answer.
#[derive(Debug, Default)]
pub(super) struct Census {
    seed: RandomState,
    lands: Vec<Land>,
    free: Vec<u32>,
    by_namespace: BTreeMap<NamespacePath, u32>,
    by_attribute: HashMap<u64, Vec<u32>, BuildHasherDefault<Hashed>>,
}

/// A namespace in which classes live, and what holds for all of them alike.
#[derive(Debug)]
pub(super) struct Land {
    /// The classes.
    pub(super) classes: Vec<u32>,
    /// The policies that mean them by nothing but their namespace.
    pub(super) matches: Matches,
    /// The effective posture.
    pub(super) posture: Posture,
}

impl Census {
    /// Enters a class; the number of its land. A land that is new is made by `land`.
    pub(super) fn add(&mut self, number: u32, identity: &Identity, land: impl FnOnce() -> Land) -> u32 {
        let at = match self.by_namespace.get(identity.namespace()) {
            Some(at) => *at,
            None => {
                let at = self.place(land());
                self.by_namespace.insert(identity.namespace().clone(), at);
                at
            }
        };
        self.lands[at as usize].classes.push(number);
        for (key, value) in identity.attributes().iter().filter(|(key, _)| *key != NAMESPACE_KEY) {
            let place = self.seed.hash_one((key, value));
            self.by_attribute.entry(place).or_default().push(number);
        }
        at
    }

    fn place(&mut self, land: Land) -> u32 {
        match self.free.pop() {
            Some(at) => {
                self.lands[at as usize] = land;
                at
            }
            None => {
                self.lands.push(land);
                u32::try_from(self.lands.len() - 1).expect("BUG: 2^32 namespaces in memory")
            }
        }
    }

    pub(super) fn remove(&mut self, number: u32, identity: &Identity) {
        let drop_from = |list: &mut Vec<u32>| {
            if let Some(at) = list.iter().position(|n| *n == number) {
                list.swap_remove(at);
            }
            list.is_empty()
        };
        if let Some(&at) = self.by_namespace.get(identity.namespace())
            && drop_from(&mut self.lands[at as usize].classes)
        {
            self.by_namespace.remove(identity.namespace());
            self.free.push(at);
        }
        for (key, value) in identity.attributes().iter().filter(|(key, _)| *key != NAMESPACE_KEY) {
            let place = self.seed.hash_one((key, value));
            if self.by_attribute.get_mut(&place).is_some_and(drop_from) {
                self.by_attribute.remove(&place);
            }
        }
    }

    /// The land of a number that [`Census::add`] gave.
    pub(super) fn land(&self, at: u32) -> &Land {
        &self.lands[at as usize]
    }

    /// Calls `with` for every land that a selector of a policy of `own` means by nothing but the namespace.
    pub(super) fn each_meant(
        &mut self,
        own: &NamespacePath,
        selector: &Selector,
        mut with: impl FnMut(&NamespacePath, &mut Land),
    ) {
        let Self { lands, by_namespace, .. } = self;
        for scope in scopes(own, selector) {
            for (path, &at) in below(by_namespace, scope) {
                if selector.matches_namespace(own, path) {
                    with(path, &mut lands[at as usize]);
                }
            }
        }
    }

    /// Calls `with` for every land at or below a path.
    pub(super) fn each_below(&mut self, path: &str, mut with: impl FnMut(&NamespacePath, &mut Land)) {
        let Self { lands, by_namespace, .. } = self;
        for (path, &at) in below(by_namespace, path) {
            with(path, &mut lands[at as usize]);
        }
    }

    /// Calls `found` with every class that a selector of a policy of `own` may mean; some may come twice.
    pub(super) fn candidates(&self, own: &NamespacePath, selector: &Selector, mut found: impl FnMut(u32)) {
        let scopes = scopes(own, selector);
        let in_scope: usize = scopes.iter().flat_map(|scope| self.lists_below(scope)).map(Vec::len).sum();
        let best = self.rarest_demand(selector).filter(|places| self.count(places) < in_scope);
        match best {
            Some(places) => {
                places.iter().filter_map(|place| self.by_attribute.get(place)).flatten().for_each(|n| found(*n));
            }
            None => scopes.iter().flat_map(|scope| self.lists_below(scope)).flatten().for_each(|n| found(*n)),
        }
    }

    /// Among the requirements that list values, the one that the fewest classes can meet.
    fn rarest_demand(&self, selector: &Selector) -> Option<Vec<u64>> {
        let demands = selector.requirements().iter().filter_map(|requirement| {
            let key = requirement.key.as_str();
            let Test::In(patterns) = &requirement.test else { return None };
            if key == NAMESPACE_KEY || key == EXTERNAL_KEY {
                return None;
            }
            let place = |pattern: &Pattern| match pattern {
                Pattern::Exact(value) => Some(self.seed.hash_one((key, value.as_str()))),
                _ => None,
            };
            patterns.iter().map(place).collect::<Option<Vec<u64>>>()
        });
        demands.min_by_key(|places| self.count(places))
    }

    fn count(&self, places: &[u64]) -> usize {
        places.iter().filter_map(|place| self.by_attribute.get(place)).map(Vec::len).sum()
    }

    fn lists_below(&self, path: &str) -> impl Iterator<Item = &Vec<u32>> {
        below(&self.by_namespace, path).map(|(_, &at)| &self.lands[at as usize].classes)
    }
}

/// The namespaces at or below a path. In byte order `/a/…` is one stretch, and `/a` stands alone.
fn below<'a>(
    by_namespace: &'a BTreeMap<NamespacePath, u32>,
    path: &str,
) -> impl Iterator<Item = (&'a NamespacePath, &'a u32)> {
    let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
    let own = if path == "/" { None } else { by_namespace.get_key_value(path) };
    let start = prefix.clone();
    let stretch = by_namespace.range::<str, _>((Bound::Included(start.as_str()), Bound::Unbounded));
    own.into_iter().chain(stretch.take_while(move |(at, _)| at.as_str().starts_with(&prefix)))
}
