//! Which selectors may mean a workload, found without asking all of them.
//!
//! Every selector is filed under its scope (a namespace) and, where it has one, under a value or a key that it demands.
//! A workload looks at the namespaces above it, with each of its attributes. Entries are found by a keyed 64-bit hash;
//! the caller checks the selector itself, so a collision costs time and never changes an answer.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use crate::attribute::{EXTERNAL_KEY, Identity, NAMESPACE_KEY};
use crate::namespace::NamespacePath;
use crate::policy::{Policy, Side};
use crate::selector::{Pattern, Selector, Test};

/// Most entries that one selector makes by listing values; beyond, it is filed under its scopes alone.
const ENTRIES_PER_SELECTOR_MAX: usize = 256;

/// Where each selector of each policy is filed.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    seed: RandomState,
    entries: HashMap<u64, Vec<Entry>, BuildHasherDefault<Hashed>>,
    /// How many entries each scope has, so that workloads skip the namespaces where nothing is filed.
    scopes: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    rule: u32,
    selector: u32,
    /// Egress: a selector of `from`; ingress: of `to`.
    end: Side,
}

/// The keys of the maps are hashes already.
#[derive(Default)]
pub(crate) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// What a selector is filed under besides its scope.
enum Anchor<'a> {
    Value(&'a str, &'a str),
    Key(&'a str),
    Nothing,
}

impl Index {
    pub(super) fn insert(&mut self, rule: u32, policy: &Policy) {
        self.each(rule, policy, |index, scope, place, entry| {
            index.entries.entry(place).or_default().push(entry);
            *index.scopes.entry(scope).or_default() += 1;
        });
    }

    pub(super) fn remove(&mut self, rule: u32, policy: &Policy) {
        self.each(rule, policy, |index, scope, place, entry| {
            if let Some(list) = index.entries.get_mut(&place)
                && let Some(at) = list.iter().position(|e| *e == entry)
            {
                list.swap_remove(at);
                if list.is_empty() {
                    index.entries.remove(&place);
                }
            }
            if let Some(count) = index.scopes.get_mut(&scope) {
                *count -= 1;
                if *count == 0 {
                    index.scopes.remove(&scope);
                }
            }
        });
    }

    /// Calls `found` with rule, end and selector for all that may mean the workload; some may come twice.
    pub(super) fn candidates(&self, identity: &Identity, mut found: impl FnMut(u32, Side, u32)) {
        let mut attributes: Vec<(u64, u64)> = Vec::with_capacity(identity.attributes().len());
        attributes.extend(identity.attributes().iter().map(|(k, v)| (self.key_hash(k), self.value_hash(k, v))));
        for path in identity.namespace().and_ancestors() {
            let scope = self.seed.hash_one(path);
            if !self.scopes.contains_key(&scope) {
                continue;
            }
            let mut look = |place: u64| {
                for entry in self.entries.get(&place).into_iter().flatten() {
                    found(entry.rule, entry.end, entry.selector);
                }
            };
            look(scope);
            for &(key, value) in &attributes {
                look(mix(scope, key));
                look(mix(scope, value));
            }
        }
    }

    fn each(&mut self, rule: u32, policy: &Policy, mut with: impl FnMut(&mut Self, u64, u64, Entry)) {
        for (end, selectors) in [(Side::Egress, &policy.from), (Side::Ingress, &policy.to)] {
            for (number, selector) in selectors.iter().enumerate() {
                let entry = Entry { rule, selector: u32::try_from(number).expect("BUG: 2^32 selectors"), end };
                if selector.is_external() {
                    continue;
                }
                for scope in scopes(policy.namespace(), selector) {
                    for anchor in anchors(selector) {
                        let scope = self.seed.hash_one(scope);
                        let place = match anchor {
                            Anchor::Value(key, value) => mix(scope, self.value_hash(key, value)),
                            Anchor::Key(key) => mix(scope, self.key_hash(key)),
                            Anchor::Nothing => scope,
                        };
                        with(self, scope, place, entry);
                    }
                }
            }
        }
    }

    fn key_hash(&self, key: &str) -> u64 {
        self.seed.hash_one((1_u8, key))
    }

    fn value_hash(&self, key: &str, value: &str) -> u64 {
        self.seed.hash_one((2_u8, key, value))
    }
}

fn mix(scope: u64, anchor: u64) -> u64 {
    (scope.rotate_left(23) ^ anchor).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The namespaces under which a selector of a policy of `own` is filed, each once: all it can match lies at or below
/// one of them.
pub(crate) fn scopes<'a>(own: &'a NamespacePath, selector: &'a Selector) -> Vec<&'a str> {
    let Some(patterns) = selector.namespace_patterns().min_by_key(|patterns| patterns.len()) else {
        return vec![own.as_str()];
    };
    let mut scopes: Vec<&str> = patterns
        .iter()
        .map(|pattern| match pattern {
            Pattern::Exact(path) => path.as_str(),
            Pattern::Subtree(path) => path.as_str(),
            Pattern::Prefix(_) => "/",
        })
        .collect();
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

/// The narrowest thing that a selector demands: one of few values, else a key.
fn anchors(selector: &Selector) -> Vec<Anchor<'_>> {
    let tests = || {
        let all = selector.requirements().iter();
        all.filter(|r| r.key != NAMESPACE_KEY && r.key != EXTERNAL_KEY).map(|r| (r.key.as_str(), &r.test))
    };
    let mut best: Option<(&str, Vec<&str>)> = None;
    for (key, test) in tests() {
        let Test::In(patterns) = test else { continue };
        let values = patterns.iter().map(|p| match p {
            Pattern::Exact(value) => Some(value.as_str()),
            _ => None,
        });
        let Some(mut values) = values.collect::<Option<Vec<_>>>() else { continue };
        values.sort_unstable();
        values.dedup();
        let rank = |key: &str, count: usize| (count, key.starts_with('@'));
        if best.as_ref().is_none_or(|(k, v)| rank(key, values.len()) < rank(k, v.len())) {
            best = Some((key, values));
        }
    }
    let scopes = selector.namespace_patterns().map(<[_]>::len).min().unwrap_or(1);
    if let Some((key, values)) = best.filter(|(_, values)| values.len() * scopes <= ENTRIES_PER_SELECTOR_MAX) {
        return values.into_iter().map(|value| Anchor::Value(key, value)).collect();
    }
    let demanded = tests().find(|(_, test)| matches!(test, Test::Exists | Test::In(_)));
    vec![demanded.map_or(Anchor::Nothing, |(key, _)| Anchor::Key(key))]
}
