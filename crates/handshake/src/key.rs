//! Node keys and pair keys: X25519 between two nodes, HKDF-SHA256 to one SipHash key for each direction.
//!
//! Every key is zeroized when dropped and shows no byte in Debug. Where secrets lie on disk is the agent's business.

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use identity::ids::NodeId;
use zeroize::{Zeroize, Zeroizing};

use crate::mac::MacKey;

/// Length of X25519 secrets and public keys.
pub const LENGTH: usize = 32;
const SALT_PREFIX: &[u8] = b"stolos-hs-1";
/// All of an RFC 8410 X25519 key but its 32 bytes; the cryptographic library reads no such file.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20];

/// Why keys could not be made. Never carries key bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The secret's bytes are not an X25519 key.
    #[error("not an X25519 private key")]
    Secret,
    /// The library could not produce a key.
    #[error("no key could be generated")]
    Generate,
    /// The peer's public key yields the all-zero shared secret: a low-order point that anybody could share.
    #[error("the public key of node {0} is of low order")]
    LowOrder(NodeId),
    /// A node has no pair key with itself; it uses a local random one.
    #[error("node {0} with itself uses a local key")]
    SameNode(NodeId),
}

/// An X25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodePublic(pub [u8; LENGTH]);

impl std::fmt::Debug for NodePublic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "NodePublic({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

/// A node's X25519 private key for one generation.
pub struct NodeSecret {
    key: PrivateKey,
    public: NodePublic,
}

impl std::fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeSecret({:?})", self.public)
    }
}

impl NodeSecret {
    /// A new random key.
    pub fn generate() -> Result<Self, KeyError> {
        Self::from_key(PrivateKey::generate(&X25519).map_err(|_| KeyError::Generate)?)
    }

    /// From the 32 bytes of [`NodeSecret::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::from_key(PrivateKey::from_private_key(&X25519, bytes).map_err(|_| KeyError::Secret)?)
    }

    /// From PKCS#8 DER (RFC 8410, version 1 without attributes, as `openssl genpkey -algorithm X25519` writes it).
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        Self::from_bytes(der.strip_prefix(&PKCS8_PREFIX).ok_or(KeyError::Secret)?)
    }

    /// The 32 secret bytes, for a file that only root reads. Wiped when dropped.
    pub fn to_bytes(&self) -> Result<Zeroizing<[u8; LENGTH]>, KeyError> {
        let seed: Curve25519SeedBin<'static> = self.key.as_be_bytes().map_err(|_| KeyError::Secret)?;
        let mut bytes = Zeroizing::new([0; LENGTH]);
        let source: &[u8] = seed.as_ref();
        if source.len() != LENGTH {
            return Err(KeyError::Secret);
        }
        bytes.copy_from_slice(source);
        Ok(bytes)
    }

    /// The key that other nodes are told.
    pub fn public(&self) -> NodePublic {
        self.public
    }

    fn from_key(key: PrivateKey) -> Result<Self, KeyError> {
        let computed = key.compute_public_key().map_err(|_| KeyError::Secret)?;
        let public = NodePublic(computed.as_ref().try_into().map_err(|_| KeyError::Secret)?);
        Ok(Self { key, public })
    }
}

/// The two directions' keys between this node and another, for one pair of generations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairKeys {
    /// For what this node sends.
    pub send: MacKey,
    /// For what the other node sends.
    pub receive: MacKey,
}

impl PairKeys {
    /// `K = HKDF-SHA256(salt "stolos-hs-1" ‖ trust domain, X25519, info id_lo ‖ pub_lo ‖ id_hi ‖ pub_hi)`, 32 bytes: the first 16
    /// key what the lower id sends, the last 16 what the higher id sends. Ids are three bytes, big endian, as on the wire.
    ///
    /// Errors: [`KeyError::LowOrder`] for all-zero results, [`KeyError::SameNode`] for a node with itself.
    pub fn derive(
        trust_domain: &str,
        (own_id, own): (NodeId, &NodeSecret),
        (peer_id, peer): (NodeId, &NodePublic),
    ) -> Result<Self, KeyError> {
        if own_id == peer_id {
            return Err(KeyError::SameNode(own_id));
        }
        let mut shared = Zeroizing::new([0; LENGTH]);
        let peer_key = UnparsedPublicKey::new(&X25519, &peer.0);
        agreement::agree(&own.key, peer_key, KeyError::LowOrder(peer_id), |result| {
            // The library refuses low-order points itself; that is checked again because everything rests on it.
            if result.len() != LENGTH || result.iter().all(|b| *b == 0) {
                return Err(KeyError::LowOrder(peer_id));
            }
            shared.copy_from_slice(result);
            Ok(())
        })?;

        let own_end = (own_id, &own.public);
        let peer_end = (peer_id, peer);
        let (low, high) = if own_id < peer_id { (own_end, peer_end) } else { (peer_end, own_end) };
        let keys = expand(trust_domain, &shared, low, high);
        let [first, last] = halves(&keys);
        Ok(if own_id < peer_id { Self { send: first, receive: last } } else { Self { send: last, receive: first } })
    }

    /// A node with itself: one random key for both directions; type and ids tell the messages apart.
    pub fn local(random: [u8; 16]) -> Self {
        Self { send: MacKey::new(random), receive: MacKey::new(random) }
    }
}

/// Lengths of HKDF's output.
struct KeyLength;
impl KeyType for KeyLength {
    fn len(&self) -> usize {
        32
    }
}

fn expand(
    trust_domain: &str,
    shared: &[u8; LENGTH],
    low: (NodeId, &NodePublic),
    high: (NodeId, &NodePublic),
) -> Zeroizing<[u8; 32]> {
    let salt = [SALT_PREFIX, trust_domain.as_bytes()].concat();
    let (low_id, high_id) = (low.0.get().to_be_bytes(), high.0.get().to_be_bytes());
    let info: [&[u8]; 4] = [&low_id[1..], &low.1.0, &high_id[1..], &high.1.0];
    let mut out = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, &salt)
        .extract(shared)
        .expand(&info, KeyLength)
        .and_then(|okm| okm.fill(out.as_mut_slice()))
        .expect("BUG: HKDF-SHA256 gives up to 8160 bytes");
    out
}

fn halves(keys: &[u8; 32]) -> [MacKey; 2] {
    let mut half = [0; 16];
    half.copy_from_slice(&keys[..16]);
    let first = MacKey::new(half);
    half.copy_from_slice(&keys[16..]);
    let last = MacKey::new(half);
    half.zeroize();
    [first, last]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: u32) -> NodeId {
        NodeId::new(value).expect("in range")
    }

    fn secret(byte: u8) -> NodeSecret {
        NodeSecret::from_bytes(&[byte; LENGTH]).expect("any 32 bytes are a secret")
    }

    /// RFC 7748 section 6.1, Bob's key.
    #[test]
    fn public_keys_are_those_of_rfc_7748() {
        let bob = NodeSecret::from_bytes(&hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
            .expect("32 bytes");
        assert_eq!(bob.public().0.to_vec(), hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex")).collect()
    }

    #[test]
    fn both_ends_derive_the_same_keys_crosswise() {
        let (a, b) = (secret(1), secret(2));
        let at_a = PairKeys::derive("acme", (id(1), &a), (id(2), &b.public())).expect("sound keys");
        let at_b = PairKeys::derive("acme", (id(2), &b), (id(1), &a.public())).expect("sound keys");
        assert_eq!(at_a.send, at_b.receive);
        assert_eq!(at_a.receive, at_b.send);
        assert_ne!(at_a.send, at_a.receive);
    }

    #[test]
    fn trust_domain_ids_and_keys_all_matter() {
        let (a, b, c) = (secret(1), secret(2), secret(3));
        let derive = |domain, own, peer_id, peer: &NodeSecret| {
            PairKeys::derive(domain, (id(own), &a), (id(peer_id), &peer.public())).expect("sound keys").send
        };
        let base = derive("acme", 1, 2, &b);
        assert_ne!(base, derive("acme2", 1, 2, &b));
        assert_ne!(base, derive("acme", 1, 3, &b), "a node id reused by another machine is another pair");
        assert_ne!(base, derive("acme", 1, 2, &c), "a reused id with a new key is another pair");
    }

    #[test]
    fn low_order_public_keys_are_refused() {
        let mut one = [0; LENGTH];
        one[0] = 1;
        let order8: [u8; LENGTH] =
            hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800").try_into().expect("32 bytes");
        let minus_one: [u8; LENGTH] =
            hex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f").try_into().expect("32 bytes");
        for point in [[0; LENGTH], one, order8, minus_one] {
            let refused = PairKeys::derive("acme", (id(1), &secret(1)), (id(2), &NodePublic(point)));
            assert_eq!(refused, Err(KeyError::LowOrder(id(2))));
        }
    }

    #[test]
    fn a_node_with_itself_uses_a_local_key() {
        let a = secret(1);
        let refused = PairKeys::derive("acme", (id(1), &a), (id(1), &a.public()));
        assert_eq!(refused, Err(KeyError::SameNode(id(1))));
        let local = PairKeys::local([7; 16]);
        assert_eq!(local.send, local.receive);
    }

    #[test]
    fn a_secret_survives_its_bytes() {
        let made = NodeSecret::generate().expect("randomness");
        let bytes = made.to_bytes().expect("32 bytes");
        assert_eq!(NodeSecret::from_bytes(bytes.as_slice()).expect("same").public(), made.public());
        assert_eq!(NodeSecret::from_bytes(&bytes[..31]).err(), Some(KeyError::Secret));
        assert_eq!(NodeSecret::from_pkcs8(bytes.as_slice()).err(), Some(KeyError::Secret));
        let header = hex("302e020100300506032b656e04220420");
        let der = [&header[..], bytes.as_slice()].concat();
        assert_eq!(NodeSecret::from_pkcs8(&der).expect("RFC 8410").public(), made.public());
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?} {:?}", secret(0x41), PairKeys::local([0x42; 16]));
        assert!(!shown.contains("4141") && !shown.contains("4242") && !shown.contains("65, 65"), "{shown}");
    }
}
