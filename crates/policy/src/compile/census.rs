//! Which classes may be meant by a selector: the index of the rules, turned round.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, RandomState};
use std::ops::Bound;

use crate::attribute::{EXTERNAL_KEY, Identity, NAMESPACE_KEY};
use crate::namespace::NamespacePath;
use crate::rules::{Hashed, scopes};
use crate::selector::{Pattern, Selector, Test};

/// Classes by namespace and by attribute. Attributes are found by a keyed hash; the caller checks the selector itself,
/// so a collision costs time and never changes an answer.
#[derive(Debug, Default)]
pub(super) struct Census {
    seed: RandomState,
    by_namespace: BTreeMap<NamespacePath, Vec<u32>>,
    by_attribute: HashMap<u64, Vec<u32>, BuildHasherDefault<Hashed>>,
}

impl Census {
    pub(super) fn add(&mut self, number: u32, identity: &Identity) {
        self.by_namespace.entry(identity.namespace().clone()).or_default().push(number);
        for (key, value) in identity.attributes().iter().filter(|(key, _)| *key != NAMESPACE_KEY) {
            let place = self.seed.hash_one((key, value));
            self.by_attribute.entry(place).or_default().push(number);
        }
    }

    pub(super) fn remove(&mut self, number: u32, identity: &Identity) {
        let drop_from = |list: &mut Vec<u32>| {
            if let Some(at) = list.iter().position(|n| *n == number) {
                list.swap_remove(at);
            }
            list.is_empty()
        };
        if self.by_namespace.get_mut(identity.namespace()).is_some_and(drop_from) {
            self.by_namespace.remove(identity.namespace());
        }
        for (key, value) in identity.attributes().iter().filter(|(key, _)| *key != NAMESPACE_KEY) {
            let place = self.seed.hash_one((key, value));
            if self.by_attribute.get_mut(&place).is_some_and(drop_from) {
                self.by_attribute.remove(&place);
            }
        }
    }

    /// Every class in a namespace or below.
    pub(super) fn below(&self, path: &str) -> Vec<u32> {
        self.lists_below(path).flatten().copied().collect()
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

    /// The classes of a namespace and of each below. In byte order `/a/…` is one stretch, and `/a` stands alone.
    fn lists_below(&self, path: &str) -> impl Iterator<Item = &Vec<u32>> {
        let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        let own = if path == "/" { None } else { self.by_namespace.get(path) };
        let start = prefix.clone();
        let below = self.by_namespace.range::<str, _>((Bound::Included(start.as_str()), Bound::Unbounded));
        own.into_iter().chain(below.take_while(move |(at, _)| at.as_str().starts_with(&prefix)).map(|(_, list)| list))
    }
}
