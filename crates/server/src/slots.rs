//! Numbers that name something on the wire, and when a number may name something else (PROTOCOL rule 12).
//!
//! A pure state machine: slots of a node and ids of nodes follow the same rule. It must not know how bindings are
//! stored or who subscribes; it is told the revision that every subscribed agent has acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;

/// A pool of numbers `1..=last`, each bound to at most one owner.
///
/// Shape:  a number is *unused*, *bound* (an owner has it), *draining* (released, but some subscribed agent may still
///         hold the old binding) or *free* (released, and every subscribed agent has acknowledged that).
/// Reuse:  unused numbers first, then free ones, first released first reused; draining ones never.
/// Errors: [`Exhausted`] when there is neither an unused nor a free number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool<O: Ord + Clone> {
    last: u32,
    /// The smallest number that was never bound.
    unused: u32,
    bound: BTreeMap<O, u32>,
    /// In the order of release; `since` never decreases.
    draining: VecDeque<Draining<O>>,
    free: VecDeque<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Draining<O> {
    number: u32,
    owner: O,
    since: u64,
}

/// Where one number of a pool stands: what is persisted, and from what a pool is rebuilt after a restart.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing<O> {
    /// The owner has it.
    Bound {
        /// Who.
        owner: O,
    },
    /// Released; agents that have not acknowledged `since` may still hold it.
    Released {
        /// Who had it.
        owner: O,
        /// The revision at which the removal was announced.
        since: u64,
        /// The order of release within the pool.
        order: u64,
    },
}

/// All numbers are bound or draining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all {0} numbers are bound, or released but not yet acknowledged by every node")]
pub struct Exhausted(pub u32);

/// What [`Pool::bind`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The owner had this number already, or had it until lately and no other owner has had it since.
    Kept(u32),
    /// A number that nobody holds any more.
    New(u32),
}

impl Bound {
    /// The number, whichever way it came.
    pub fn number(self) -> u32 {
        match self {
            Bound::Kept(number) | Bound::New(number) => number,
        }
    }
}

impl<O: Ord + Clone + Debug> Pool<O> {
    /// An empty pool of the numbers `1..=last`.
    pub fn new(last: u32) -> Self {
        Self { last, unused: 1, bound: BTreeMap::new(), draining: VecDeque::new(), free: VecDeque::new() }
    }

    /// Rebuilds a pool from what was persisted. Every released number counts as draining until [`Pool::acknowledged`]
    /// says otherwise, so that a restart never makes a number free early.
    pub fn restore(last: u32, standings: impl IntoIterator<Item = (u32, Standing<O>)>) -> Self {
        let mut pool = Self::new(last);
        let mut released = Vec::new();
        for (number, standing) in standings {
            pool.unused = pool.unused.max(number.saturating_add(1));
            match standing {
                Standing::Bound { owner } => {
                    pool.bound.insert(owner, number);
                }
                Standing::Released { owner, since, order } => released.push((order, Draining { number, owner, since })),
            }
        }
        released.sort_by_key(|(order, _)| *order);
        pool.draining = released.into_iter().map(|(_, draining)| draining).collect();
        pool
    }

    /// The number of an owner, bound now if it has none. An owner that comes back while its number is draining gets it
    /// back: no agent can mistake it for anybody else.
    pub fn bind(&mut self, owner: O) -> Result<Bound, Exhausted> {
        if let Some(number) = self.bound.get(&owner) {
            return Ok(Bound::Kept(*number));
        }
        if let Some(at) = self.draining.iter().position(|d| d.owner == owner) {
            let number = self.draining.remove(at).map(|d| d.number).ok_or(Exhausted(self.last))?;
            self.bound.insert(owner, number);
            return Ok(Bound::Kept(number));
        }
        let number = match self.unused <= self.last {
            true => {
                self.unused += 1;
                self.unused - 1
            }
            false => self.free.pop_front().ok_or(Exhausted(self.last))?,
        };
        self.bound.insert(owner, number);
        Ok(Bound::New(number))
    }

    /// Takes the number from its owner; `announced` is the first revision at which agents are told. `None` when the
    /// owner has none.
    pub fn release(&mut self, owner: &O, announced: u64) -> Option<u32> {
        let number = self.bound.remove(owner)?;
        let since = self.draining.back().map_or(announced, |d| d.since.max(announced));
        self.draining.push_back(Draining { number, owner: owner.clone(), since });
        Some(number)
    }

    /// Every subscribed agent has acknowledged `revision`: what was released by then becomes free. Returns the numbers.
    pub fn acknowledged(&mut self, revision: u64) -> Vec<u32> {
        let done = self.draining.iter().take_while(|d| d.since <= revision).count();
        let freed: Vec<u32> = self.draining.drain(..done).map(|d| d.number).collect();
        self.free.extend(&freed);
        freed
    }

    /// The number an owner has.
    pub fn number(&self, owner: &O) -> Option<u32> {
        self.bound.get(owner).copied()
    }

    /// Owners and their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&O, u32)> {
        self.bound.iter().map(|(owner, number)| (owner, *number))
    }

    /// How many numbers wait for acknowledgements.
    pub fn draining_len(&self) -> usize {
        self.draining.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rule_12_a_slot_survives_relabelling_and_restarts() {
        let mut pool = Pool::new(9);
        let first = pool.bind("uid-1").unwrap();
        assert_eq!(first, Bound::New(1));
        assert_eq!(pool.bind("uid-1").unwrap(), Bound::Kept(1));
        let restored = Pool::restore(9, [(1, Standing::Bound { owner: "uid-1" })]);
        assert_eq!(restored, pool);
    }

    #[test]
    fn rule_12_a_slot_is_reused_only_after_the_removal_was_acknowledged_by_all() {
        let mut pool = Pool::new(1);
        pool.bind("a").unwrap();
        pool.release(&"a", 7);
        assert_eq!(pool.bind("b"), Err(Exhausted(1)));
        assert!(pool.acknowledged(6).is_empty());
        assert_eq!(pool.bind("b"), Err(Exhausted(1)));
        assert_eq!(pool.acknowledged(7), [1]);
        assert_eq!(pool.bind("b"), Ok(Bound::New(1)));
    }

    #[test]
    fn rule_12_free_numbers_are_reused_first_in_first_out() {
        let mut pool = Pool::new(3);
        for owner in ["a", "b", "c"] {
            pool.bind(owner).unwrap();
        }
        pool.release(&"b", 1);
        pool.release(&"a", 2);
        pool.release(&"c", 3);
        pool.acknowledged(3);
        let order: Vec<u32> = ["x", "y", "z"].map(|o| pool.bind(o).unwrap().number()).to_vec();
        assert_eq!(order, [2, 1, 3]);
    }

    #[test]
    fn an_owner_that_comes_back_while_draining_keeps_its_number() {
        let mut pool = Pool::new(2);
        pool.bind("a").unwrap();
        pool.release(&"a", 5);
        assert_eq!(pool.bind("a").unwrap(), Bound::Kept(1));
        assert_eq!(pool.draining_len(), 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Bind(u8),
        Release(u8),
        Acknowledge(u64),
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0u8..12).prop_map(Step::Bind),
            3 => (0u8..12).prop_map(Step::Release),
            2 => (0u64..4).prop_map(Step::Acknowledge),
            1 => Just(Step::Restart),
        ];
        proptest::collection::vec(step, 0..80)
    }

    proptest! {
        /// Whatever happens: two owners never share a number, and a number changes owner only after an
        /// acknowledgement that covers its release.
        #[test]
        fn numbers_never_name_two_things(steps in steps()) {
            const LAST: u32 = 5;
            let mut pool = Pool::new(LAST);
            let mut revision = 0u64;
            let mut acknowledged = 0u64;
            let mut order = 0u64;
            // What a store would hold, and the release not yet acknowledged by number.
            let mut persisted: BTreeMap<u32, Standing<u8>> = BTreeMap::new();
            for step in steps {
                revision += 1;
                match step {
                    Step::Bind(owner) => {
                        if let Ok(bound) = pool.bind(owner) {
                            let number = bound.number();
                            prop_assert!((1..=LAST).contains(&number));
                            match persisted.get(&number) {
                                Some(Standing::Bound { owner: before }) => prop_assert_eq!(*before, owner),
                                Some(Standing::Released { owner: before, since, .. }) => {
                                    prop_assert!(*before == owner || *since <= acknowledged);
                                }
                                None => {}
                            }
                            persisted.insert(number, Standing::Bound { owner });
                        }
                    }
                    Step::Release(owner) => {
                        if let Some(number) = pool.release(&owner, revision) {
                            order += 1;
                            persisted.insert(number, Standing::Released { owner, since: revision, order });
                        }
                    }
                    Step::Acknowledge(lag) => {
                        acknowledged = acknowledged.max(revision.saturating_sub(lag));
                        pool.acknowledged(acknowledged);
                    }
                    Step::Restart => {
                        pool = Pool::restore(LAST, persisted.clone());
                    }
                }
                let numbers: BTreeSet<u32> = pool.iter().map(|(_, n)| n).collect();
                prop_assert_eq!(numbers.len(), pool.iter().count());
            }
        }
    }
}
