//! Classes for two banks at once, so that no connection meets the class of one state and the verdicts of another.
//!
//! Programs read the live bank's number first and take that cell of every class they meet. A new state is written into the
//! cells of the bank that it goes live with; the other cells keep saying what the state before said. They are brought up to
//! date when that bank is filled again, by when no program can still be reading it: filling waits for all of them.

use std::collections::BTreeMap;

use crate::abi;
use crate::assign::Locals;
use crate::tables::Tables;

/// An entry with a class for each bank.
pub(crate) trait Classed {
    fn class(&mut self) -> &mut [u32; 2];
    /// Whether `before` was an entry about the same thing, so that its class is this one's class under the other bank.
    fn continues(&self, before: &Self) -> bool;
    /// The class under a bank that does not know this entry.
    fn unknown(&self) -> u32;
}

impl Classed for abi::Peer {
    fn class(&mut self) -> &mut [u32; 2] {
        &mut self.class
    }

    fn continues(&self, before: &Self) -> bool {
        self.instance == before.instance
    }

    fn unknown(&self) -> u32 {
        abi::CLASS_NONE
    }
}

impl Classed for abi::Place {
    fn class(&mut self) -> &mut [u32; 2] {
        &mut self.class
    }

    fn continues(&self, before: &Self) -> bool {
        (self.kind, self.r#ref) == (before.kind, before.r#ref)
    }

    fn unknown(&self) -> u32 {
        0
    }
}

impl Classed for abi::Local {
    fn class(&mut self) -> &mut [u32; 2] {
        &mut self.class
    }

    fn continues(&self, before: &Self) -> bool {
        self.generation == before.generation
    }

    /// Nothing judged its sockets before; under the other bank a class without verdicts is denied (fail closed).
    fn unknown(&self) -> u32 {
        self.class[0]
    }
}

/// `wanted` has the same class in both cells; afterwards the cell of the bank that is not `bank` says what `written` says.
pub(crate) fn stage<K: Ord, V: Classed + Copy>(written: &BTreeMap<K, V>, wanted: &mut BTreeMap<K, V>, bank: u32) {
    let other = (bank & 1 ^ 1) as usize;
    for (key, value) in wanted {
        let before = written.get(key).copied().filter(|before| value.continues(before));
        let class = before.map_or_else(|| value.unknown(), |mut before| before.class()[other]);
        value.class()[other] = class;
    }
}

/// The same for everything that has classes.
pub(crate) fn stage_all(written: (&Tables, &Locals), tables: &mut Tables, locals: &mut Locals, bank: u32) {
    stage(&written.0.peers, &mut tables.peers, bank);
    stage(&written.0.places, &mut tables.places, bank);
    stage(&written.1.entries, &mut locals.entries, bank);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(instance: u64, class: u32) -> abi::Peer {
        abi::Peer { instance, class: [class; 2], flags: 0, pad: 0 }
    }

    fn applied(written: &mut BTreeMap<u64, abi::Peer>, wanted: &[(u64, abi::Peer)], bank: u32) -> Vec<[u32; 2]> {
        let mut wanted = wanted.iter().copied().collect();
        stage(written, &mut wanted, bank);
        *written = wanted;
        written.values().map(|peer| peer.class).collect()
    }

    #[test]
    fn each_bank_keeps_the_class_of_its_own_state() {
        let mut written = BTreeMap::new();
        assert_eq!(applied(&mut written, &[(1, peer(9, 5))], 1), [[abi::CLASS_NONE, 5]]);
        assert_eq!(applied(&mut written, &[(1, peer(9, 6))], 0), [[6, 5]]);
        assert_eq!(applied(&mut written, &[(1, peer(9, 7))], 1), [[6, 7]]);
        // Nothing changed: the cells meet, and stay.
        assert_eq!(applied(&mut written, &[(1, peer(9, 7))], 0), [[7, 7]]);
        assert_eq!(applied(&mut written, &[(1, peer(9, 7))], 1), [[7, 7]]);
    }

    #[test]
    fn a_slots_next_workload_is_unknown_under_the_bank_before() {
        let mut written = BTreeMap::new();
        applied(&mut written, &[(1, peer(9, 5))], 1);
        assert_eq!(applied(&mut written, &[(1, peer(10, 6))], 0), [[6, abi::CLASS_NONE]]);
        assert_eq!(applied(&mut written, &[], 1), Vec::<[u32; 2]>::new());
    }
}
