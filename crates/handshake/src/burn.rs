//! The burn table (rule 4): an ACK's proof is good for one connection only.
//!
//! A model of the kernel's map: bounded, never evicting, with times as arguments.

use std::collections::HashMap;

use identity::ids::WorkloadRef;

use crate::mac::Isns;

/// How long a used proof stays burnt: longer than the three steps of T in which it would verify.
pub const BURN_S: u64 = 256;

/// Used proofs of the last [`BURN_S`] seconds.
#[derive(Clone, Debug)]
pub struct BurnTable {
    used: HashMap<(WorkloadRef, Isns), u64>,
    capacity: usize,
}

/// What happened to a proof that was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Burn {
    /// First use; burnt now.
    First,
    /// Used before: a replay.
    Replay,
    /// No room to remember it.
    Full,
}

impl BurnTable {
    /// An empty table for at most `capacity` proofs.
    pub fn new(capacity: usize) -> Self {
        Self { used: HashMap::new(), capacity }
    }

    /// Presents a proof at `now_s` seconds of any monotonic clock.
    pub fn present(&mut self, client: WorkloadRef, isns: Isns, now_s: u64) -> Burn {
        let key = (client, isns);
        match self.used.get(&key) {
            Some(&until) if until > now_s => return Burn::Replay,
            Some(_) => {}
            None if self.used.len() >= self.capacity => {
                self.used.retain(|_, until| *until > now_s);
                if self.used.len() >= self.capacity {
                    return Burn::Full;
                }
            }
            None => {}
        }
        self.used.insert(key, now_s + BURN_S);
        Burn::First
    }

    /// Whether a proof was used within the last [`BURN_S`] seconds. Looks only: one ACK may reach a listener twice (deferred
    /// accept, a full accept queue) before its connection is established.
    pub fn is_burnt(&self, client: WorkloadRef, isns: Isns, now_s: u64) -> bool {
        self.used.get(&(client, isns)).is_some_and(|until| *until > now_s)
    }

    /// Whether no further proof can be remembered at `now_s`.
    pub fn is_full(&self, now_s: u64) -> bool {
        self.used.values().filter(|until| **until > now_s).count() >= self.capacity
    }

    /// How many proofs are remembered, expired ones included until room is needed.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::ids::{NodeId, Slot};

    const CLIENT: WorkloadRef = WorkloadRef { node: NodeId::new(7).unwrap(), slot: Slot(1) };
    const ISNS: Isns = Isns { client: 1, server: 2 };

    #[test]
    fn a_proof_works_once_in_256_seconds() {
        let mut table = BurnTable::new(8);
        assert_eq!(table.present(CLIENT, ISNS, 0), Burn::First);
        assert_eq!(table.present(CLIENT, ISNS, 0), Burn::Replay);
        assert_eq!(table.present(CLIENT, ISNS, BURN_S - 1), Burn::Replay);
        assert_eq!(table.present(CLIENT, ISNS, BURN_S), Burn::First);
        assert_eq!(table.present(CLIENT, Isns { server: 3, ..ISNS }, BURN_S), Burn::First);
    }

    // The burn outlives the time window.
    const _: () = assert!(BURN_S > crate::time::TICK_S * (2 * crate::time::WINDOW + 1));

    #[test]
    fn a_full_table_never_forgets_a_live_entry() {
        let mut table = BurnTable::new(2);
        assert_eq!(table.present(CLIENT, Isns { client: 1, server: 0 }, 0), Burn::First);
        assert_eq!(table.present(CLIENT, Isns { client: 2, server: 0 }, 10), Burn::First);
        assert_eq!(table.present(CLIENT, Isns { client: 3, server: 0 }, 20), Burn::Full);
        assert_eq!(table.present(CLIENT, Isns { client: 1, server: 0 }, 20), Burn::Replay);
        assert_eq!(table.present(CLIENT, Isns { client: 3, server: 0 }, BURN_S), Burn::First, "one expired");
        assert_eq!(table.present(CLIENT, Isns { client: 2, server: 0 }, BURN_S), Burn::Replay);
    }
}
