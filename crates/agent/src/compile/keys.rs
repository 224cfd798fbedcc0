//! Pair keys for every peer node, for every pair of generations; derived once and kept.

use std::collections::{BTreeMap, BTreeSet};

use datapath::state::{Key128, PairKey};
use handshake::key::{NodePublic, NodeSecret, PairKeys};
use identity::ids::NodeId;

use crate::model::NodeKey;

/// This node's private keys and the key it uses with itself.
#[derive(Debug)]
pub struct KeyRing {
    /// Own X25519 keys by generation.
    pub secrets: BTreeMap<u8, NodeSecret>,
    /// The key for connections inside this node.
    pub local: [PairKeys; 1],
}

impl KeyRing {
    /// A ring without node keys.
    pub fn new(local: [u8; 16]) -> Self {
        Self { secrets: BTreeMap::new(), local: [PairKeys::local(local)] }
    }
}

/// Derived keys.
#[derive(Debug, Default)]
pub(super) struct Derived {
    keys: BTreeMap<Derivation, Option<PairKeys>>,
}

/// All that a pair key depends on, besides the private key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Derivation {
    node: NodeId,
    own_generation: u8,
    own_public: [u8; 32],
    peer_generation: u8,
    peer_public: [u8; 32],
}

impl Derived {
    /// Keys with every node of `peers`. Public keys of low order are left out and named in `bad`.
    pub(super) fn pair_keys(
        &mut self,
        trust_domain: &str,
        own: NodeId,
        own_generation: u8,
        ring: &KeyRing,
        peers: &BTreeMap<(NodeId, u8), NodeKey>,
        bad: &mut BTreeSet<NodeId>,
    ) -> Vec<PairKey> {
        let mut kept = BTreeMap::new();
        let mut pair_keys = Vec::new();
        for (own_gen, secret) in &ring.secrets {
            for ((node, peer_generation), peer) in peers.iter().filter(|((node, _), _)| *node != own) {
                let derivation = Derivation {
                    node: *node,
                    own_generation: *own_gen,
                    own_public: secret.public().0,
                    peer_generation: *peer_generation,
                    peer_public: peer.public,
                };
                let derive = || PairKeys::derive(trust_domain, (own, secret), (*node, &NodePublic(peer.public))).ok();
                let keys = self.keys.remove(&derivation).unwrap_or_else(derive);
                match &keys {
                    Some(keys) => pair_keys.push(PairKey {
                        node: *node,
                        own_generation: *own_gen,
                        peer_generation: *peer_generation,
                        tx: Key128(*keys.send.as_bytes()),
                        rx: Key128(*keys.receive.as_bytes()),
                        send: *own_gen == own_generation && peer.send,
                    }),
                    None => drop(bad.insert(*node)),
                }
                kept.insert(derivation, keys);
            }
            let [local] = &ring.local;
            pair_keys.push(PairKey {
                node: own,
                own_generation: *own_gen,
                peer_generation: *own_gen,
                tx: Key128(*local.send.as_bytes()),
                rx: Key128(*local.receive.as_bytes()),
                send: *own_gen == own_generation,
            });
        }
        self.keys = kept;
        pair_keys.sort_by_key(|key| (key.node, key.own_generation, key.peer_generation));
        pair_keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32) -> NodeId {
        NodeId::new(id).expect("in range")
    }

    #[test]
    fn both_nodes_derive_the_same_and_low_order_keys_are_left_out() {
        let (mut a, mut b) = (KeyRing::new([1; 16]), KeyRing::new([2; 16]));
        a.secrets.insert(0, NodeSecret::generate().expect("a key"));
        b.secrets.insert(1, NodeSecret::generate().expect("a key"));
        let public = |ring: &KeyRing, generation: u8| ring.secrets[&generation].public().0;
        let key = |public| NodeKey { public, send: true };
        let peers = BTreeMap::from([
            ((node(1), 0), key(public(&a, 0))),
            ((node(2), 1), key(public(&b, 1))),
            ((node(3), 0), key([0; 32])),
        ]);
        let mut bad = BTreeSet::new();
        let at_a = Derived::default().pair_keys("t", node(1), 0, &a, &peers, &mut bad);
        let at_b = Derived::default().pair_keys("t", node(2), 1, &b, &peers, &mut bad);
        let with = |keys: &[PairKey], other: u32| keys.iter().find(|k| k.node == node(other)).cloned().expect("listed");
        let (ab, ba) = (with(&at_a, 2), with(&at_b, 1));
        assert!(ab.tx == ba.rx && ab.rx == ba.tx && ab.tx != ab.rx);
        assert!(ab.send && ba.send);
        assert_eq!(bad, BTreeSet::from([node(3)]));
        assert_eq!(with(&at_a, 1).tx, Key128([1; 16]), "the key with itself is local");
    }

    #[test]
    fn a_replaced_public_key_is_derived_anew() {
        let mut ring = KeyRing::new([1; 16]);
        ring.secrets.insert(0, NodeSecret::generate().expect("a key"));
        let mut derived = Derived::default();
        let mut at = |public: [u8; 32]| {
            let peers = BTreeMap::from([((node(2), 0), NodeKey { public, send: true })]);
            derived.pair_keys("t", node(1), 0, &ring, &peers, &mut BTreeSet::new())[1].tx
        };
        let (first, second) = ([9; 32], NodeSecret::generate().expect("a key").public().0);
        assert!(at(first) != at(second) && at(first) == at(first));
    }
}
