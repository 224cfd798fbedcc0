//! Who holds an address in a realm: the earlier live claim (PROTOCOL rule 1).
//!
//! A pure state machine. It knows nothing of ranges (what a Cluster grants is checked before) nor of Services.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use identity::ids::{NodeId, WorkloadRef};

/// Who can claim an address for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A node: all its workloads share the address.
    Node(NodeId),
    /// A workload with an address of its own.
    Workload(WorkloadRef),
}

/// All claims of all realms.
///
/// Shape: for each realm and address a queue of owners without duplicates, in the order of their claims; the first one
///        holds the address, the others wait until those before them are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    queues: BTreeMap<(String, IpAddr), VecDeque<Owner>>,
}

impl Claims {
    /// An owner claims exactly `wanted` in `realm`, and nothing else any more. Returns the owners for whom something
    /// has changed besides: those that waited for an address that is free now.
    pub fn claim(&mut self, owner: Owner, realm: &str, wanted: &BTreeSet<IpAddr>) -> BTreeSet<Owner> {
        let promoted = self.retain(owner, |(r, address)| r == realm && wanted.contains(address));
        for address in wanted {
            let queue = self.queues.entry((realm.to_owned(), *address)).or_default();
            if !queue.contains(&owner) {
                queue.push_back(owner);
            }
        }
        promoted
    }

    /// An owner is gone. Returns the owners that hold an address now that they waited for.
    pub fn release(&mut self, owner: Owner) -> BTreeSet<Owner> {
        self.retain(owner, |_| false)
    }

    /// Who holds an address.
    pub fn holder(&self, realm: &str, address: IpAddr) -> Option<Owner> {
        self.queues.get(&(realm.to_owned(), address))?.front().copied()
    }

    /// Every held address of a realm, with its holder.
    pub fn held<'a>(&'a self, realm: &'a str) -> impl Iterator<Item = (IpAddr, Owner)> + 'a {
        let start = (realm.to_owned(), IpAddr::from([0, 0, 0, 0]));
        let of_realm = self.queues.range(start..).take_while(move |((r, _), _)| r == realm);
        of_realm.filter_map(|((_, address), queue)| Some((*address, *queue.front()?)))
    }

    /// Realms in which somebody holds the address.
    pub fn realms_of(&self, address: IpAddr) -> impl Iterator<Item = (&str, Owner)> {
        let with_address = self.queues.iter().filter(move |((_, a), _)| *a == address);
        with_address.filter_map(|((realm, _), queue)| Some((realm.as_str(), *queue.front()?)))
    }

    fn retain(&mut self, owner: Owner, keep: impl Fn(&(String, IpAddr)) -> bool) -> BTreeSet<Owner> {
        let mut promoted = BTreeSet::new();
        for (place, queue) in &mut self.queues {
            let Some(at) = queue.iter().position(|o| *o == owner).filter(|_| !keep(place)) else { continue };
            queue.remove(at);
            if at == 0 {
                promoted.extend(queue.front().copied());
            }
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        promoted
    }
}

#[cfg(test)]
mod tests {
    use identity::ids::Slot;
    use proptest::prelude::*;

    use super::*;

    fn node(id: u32) -> Owner {
        Owner::Node(NodeId::new(id).unwrap())
    }

    fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn the_earlier_live_claim_holds() {
        let address = "10.0.0.5".parse().unwrap();
        let mut claims = Claims::default();
        claims.claim(node(1), "a", &set(&["10.0.0.5"]));
        claims.claim(node(2), "a", &set(&["10.0.0.5"]));
        claims.claim(node(3), "b", &set(&["10.0.0.5"]));
        assert_eq!(claims.holder("a", address), Some(node(1)));
        assert_eq!(claims.holder("b", address), Some(node(3)), "another realm is another address");
        assert_eq!(claims.release(node(1)), [node(2)].into());
        assert_eq!(claims.holder("a", address), Some(node(2)));
        assert_eq!(claims.realms_of(address).count(), 2);
    }

    #[test]
    fn a_repeated_claim_keeps_its_place_in_the_queue() {
        let mut claims = Claims::default();
        claims.claim(node(1), "a", &set(&["10.0.0.5"]));
        claims.claim(node(2), "a", &set(&["10.0.0.5"]));
        claims.claim(node(1), "a", &set(&["10.0.0.5", "fd00::5"]));
        assert_eq!(claims.holder("a", "10.0.0.5".parse().unwrap()), Some(node(1)));
        assert_eq!(claims.held("a").count(), 2);
        assert_eq!(claims.claim(node(1), "a", &set(&["fd00::5"])), [node(2)].into());
    }

    proptest! {
        /// Nobody loses a held address by what others claim.
        #[test]
        fn a_held_address_is_lost_only_by_its_holder(
            steps in proptest::collection::vec((1u32..5, any::<bool>(), proptest::collection::btree_set(0u8..4, 0..4)), 0..40)
        ) {
            let mut claims = Claims::default();
            for (id, slot, wanted) in steps {
                let workload = WorkloadRef { node: NodeId::new(id).unwrap(), slot: Slot(1) };
                let owner = if slot { Owner::Workload(workload) } else { node(id) };
                let wanted: BTreeSet<IpAddr> = wanted.into_iter().map(|b| IpAddr::from([10, 0, 0, b])).collect();
                let before: Vec<(IpAddr, Owner)> = claims.held("r").filter(|(_, o)| *o != owner).collect();
                claims.claim(owner, "r", &wanted);
                for (address, holder) in before {
                    prop_assert_eq!(claims.holder("r", address), Some(holder));
                }
                for (address, holder) in claims.held("r") {
                    prop_assert!(holder != owner || wanted.contains(&address));
                }
            }
        }
    }
}
