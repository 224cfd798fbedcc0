//! Seals: the server's detached signature over a node's whole state, so that a state on disk can be trusted.

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::ids::NodeId;

/// A seal as it stands in `stolos.sync.v1.Seal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Until when the state may be used without a server, unix seconds.
    pub expires_unix_s: i64,
    /// [`digest`] of the state's objects.
    pub digest: [u8; 32],
    /// Ed25519 over `stolos-state-1` | node id u32 BE | revision u64 BE | expires i64 BE | digest.
    pub signature: Vec<u8>,
}

/// The key that seals. `Debug` shows only the public half.
pub struct SealKey(Ed25519KeyPair);

/// Why a state is not to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The seal's parts have the wrong length.
    #[error("the seal cannot be read")]
    Malformed,
    /// The objects are not those that were sealed.
    #[error("the state differs from what was sealed")]
    Digest,
    /// Another key made it, or it is for another node or revision.
    #[error("the seal is not by this trust domain's server for this node and revision")]
    Signature,
    /// Its time is over.
    #[error("the seal has expired")]
    Expired,
    /// The private key cannot be made or read.
    #[error("the sealing key cannot be read")]
    Key,
}

impl SealKey {
    /// Makes a new key: the key and its PKCS#8 form to store.
    pub fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), SealError> {
        let document =
            Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).map_err(|_| SealError::Key)?;
        let bytes = Zeroizing::new(document.as_ref().to_vec());
        Ok((Self::load(&bytes)?, bytes))
    }

    /// Reads a stored key.
    pub fn load(pkcs8: &[u8]) -> Result<Self, SealError> {
        Ed25519KeyPair::from_pkcs8(pkcs8).map(Self).map_err(|_| SealError::Key)
    }

    /// What agents verify with, 32 bytes.
    pub fn public(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        bytes
    }

    /// Seals a state.
    pub fn seal(&self, node: NodeId, revision: u64, expires: Timestamp, digest: [u8; 32]) -> Seal {
        let expires_unix_s = expires.as_second();
        let signature = self.0.sign(&message(node, revision, expires_unix_s, &digest)).as_ref().to_vec();
        Seal { expires_unix_s, digest, signature }
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SealKey").field(&self.public()).finish()
    }
}

impl Seal {
    /// Puts a seal together from what was received.
    pub fn from_parts(expires_unix_s: i64, digest: &[u8], signature: &[u8]) -> Result<Self, SealError> {
        let digest = digest.try_into().map_err(|_| SealError::Malformed)?;
        if signature.len() != 64 {
            return Err(SealError::Malformed);
        }
        Ok(Self { expires_unix_s, digest, signature: signature.to_vec() })
    }

    /// Whether `objects_digest` was sealed for this node at this revision, whatever the time.
    pub fn check(
        &self,
        public: &[u8; 32],
        node: NodeId,
        revision: u64,
        objects_digest: &[u8; 32],
    ) -> Result<(), SealError> {
        if &self.digest != objects_digest {
            return Err(SealError::Digest);
        }
        UnparsedPublicKey::new(&ED25519, public)
            .verify(&message(node, revision, self.expires_unix_s, &self.digest), &self.signature)
            .map_err(|_| SealError::Signature)
    }

    /// [`Seal::check`], and the time is not over.
    pub fn check_at(
        &self,
        public: &[u8; 32],
        node: NodeId,
        revision: u64,
        objects_digest: &[u8; 32],
        now: Timestamp,
    ) -> Result<(), SealError> {
        self.check(public, node, revision, objects_digest)?;
        if now.as_second() >= self.expires_unix_s { Err(SealError::Expired) } else { Ok(()) }
    }
}

/// SHA-256 over the objects: key length u32 BE | key | value length u32 BE | value.
///
/// The objects must come sorted by key, each key once, as a `BTreeMap` gives them.
pub fn digest<'a>(sorted: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for (key, value) in sorted {
        for part in [key.as_bytes(), value] {
            context.update(&(part.len() as u32).to_be_bytes());
            context.update(part);
        }
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

fn message(node: NodeId, revision: u64, expires: i64, digest: &[u8; 32]) -> Vec<u8> {
    let (node, revision, expires) = (node.get().to_be_bytes(), revision.to_be_bytes(), expires.to_be_bytes());
    [b"stolos-state-1".as_slice(), &node, &revision, &expires, digest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_for_one_node_revision_state_and_time() {
        let (key, stored) = SealKey::generate().unwrap();
        let public = SealKey::load(&stored).unwrap().public();
        assert_eq!(public, key.public());
        let (node, other) = (NodeId::new(1).unwrap(), NodeId::new(2).unwrap());
        let expires: Timestamp = "2030-01-02T00:00:00Z".parse().unwrap();
        let before: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let state = digest([("a", b"1".as_slice()), ("b", b"2")]);
        let seal = key.seal(node, 7, expires, state);
        let seal = Seal::from_parts(seal.expires_unix_s, &seal.digest, &seal.signature).unwrap();
        assert_eq!(seal.check_at(&public, node, 7, &state, before), Ok(()));
        assert_eq!(seal.check_at(&public, node, 7, &state, expires), Err(SealError::Expired));
        assert_eq!(seal.check(&public, other, 7, &state), Err(SealError::Signature));
        assert_eq!(seal.check(&public, node, 8, &state), Err(SealError::Signature));
        assert_eq!(seal.check(&public, node, 7, &digest([("a", b"12".as_slice())])), Err(SealError::Digest));
        let longer = Seal { expires_unix_s: seal.expires_unix_s + 1, ..seal.clone() };
        assert_eq!(longer.check(&public, node, 7, &state), Err(SealError::Signature));
        let stranger = SealKey::generate().unwrap().0.public();
        assert_eq!(seal.check(&stranger, node, 7, &state), Err(SealError::Signature));
    }

    #[test]
    fn the_digest_keeps_keys_and_values_apart() {
        let ab = digest([("a", b"b".as_slice())]);
        assert_ne!(ab, digest([("ab", b"".as_slice())]));
        assert_ne!(digest([("a", b"".as_slice()), ("b", b"")]), digest([("a", b"b".as_slice())]));
    }
}
