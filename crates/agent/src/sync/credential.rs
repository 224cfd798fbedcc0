//! Who this node is: its certificate, its keys and whom it trusts, in the data directory. Private keys are mode 0600.

use handshake::key::{KeyError, NodeSecret};
use identity::ids::NodeId;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::tls::{self, ConnectError};
use crate::compile::KeyRing;
use crate::disk::{Disk, DiskError};
use crate::state::Trust;

const NODE: &str = "node.json";
const KEY: &str = "node-key.pem";
const LOCAL_KEY: &str = "local-key";
/// Generations on the wire.
const GENERATIONS: u8 = 4;

/// What enrolment gave, except the private key. Its presence on disk means "enrolled".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Number in the handshake.
    pub node: u32,
    /// Name in the fleet.
    pub name: String,
    /// Cluster.
    pub cluster: String,
    /// Trust domain.
    pub trust_domain: String,
    /// The server's URL.
    pub server: String,
    /// Verifies seals, Ed25519.
    pub seal_key: [u8; 32],
    /// When the certificate ends, unix seconds.
    pub not_after_unix_s: i64,
    /// The node's certificate, DER.
    pub certificate: Vec<u8>,
    /// The authorities, DER.
    pub authorities: Vec<Vec<u8>>,
}

/// A node's identity, ready to be used. Debug shows no private key.
#[derive(Clone)]
pub struct Credential {
    /// What is no secret.
    pub enrolled: Enrolled,
    key_pem: Zeroizing<String>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("enrolled", &self.enrolled.name).finish_non_exhaustive()
    }
}

/// Why keys on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The disk said no.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file has not the form it should have.
    #[error("{0} in the data directory is damaged")]
    Damaged(&'static str),
    /// A handshake key cannot be made or read.
    #[error("a handshake key cannot be made or read")]
    Handshake(#[from] KeyError),
}

impl Credential {
    /// The one on disk; `None` when this node never enrolled.
    pub fn load(disk: &Disk) -> Result<Option<Self>, CredentialError> {
        let Some(enrolled) = disk.read_json::<Enrolled>(NODE)? else { return Ok(None) };
        let key = disk.read(KEY)?.ok_or(CredentialError::Damaged(KEY))?;
        let key_pem = String::from_utf8(key).map(Zeroizing::new).map_err(|_| CredentialError::Damaged(KEY))?;
        let credential = Self { enrolled, key_pem };
        credential.trust().ok_or(CredentialError::Damaged(NODE))?;
        Ok(Some(credential))
    }

    /// Puts a new one on disk: the key first, so that "enrolled" never lacks it.
    pub(crate) fn store(disk: &Disk, enrolled: Enrolled, key_pem: Zeroizing<String>) -> Result<Self, CredentialError> {
        disk.write(KEY, key_pem.as_bytes())?;
        disk.write_json(NODE, &enrolled)?;
        Ok(Self { enrolled, key_pem })
    }

    /// Whose seals are believed.
    pub fn trust(&self) -> Option<Trust> {
        NodeId::new(self.enrolled.node).map(|node| Trust { node, key: self.enrolled.seal_key })
    }

    /// Signs a handshake key of this node.
    pub fn sign(&self, generation: u8, secret: &NodeSecret) -> Option<api::sync::NodePublicKey> {
        let public = secret.public().0;
        let signature = identity::node_key::sign(&self.key_pem, generation.into(), &public).ok()?;
        Some(api::sync::NodePublicKey { generation: generation.into(), public: public.to_vec(), signature })
    }

    /// TLS with this node's certificate.
    pub(super) fn tls(&self) -> Result<rustls::ClientConfig, ConnectError> {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|_| ConnectError::Credential(rustls::Error::General("the private key is damaged".to_owned())))?;
        let authorities: Vec<CertificateDer<'static>> =
            self.enrolled.authorities.iter().cloned().map(CertificateDer::from).collect();
        tls::mutual(&authorities, vec![CertificateDer::from(self.enrolled.certificate.clone())], key)
    }
}

fn file_of(generation: u8) -> String {
    format!("handshake-key-{generation}")
}

/// All handshake keys on disk, and the key with itself (made now if there is none).
pub fn load_ring(disk: &Disk) -> Result<KeyRing, CredentialError> {
    let local = match disk.read(LOCAL_KEY)? {
        Some(bytes) => bytes.try_into().map_err(|_| CredentialError::Damaged(LOCAL_KEY))?,
        None => {
            let local: [u8; 16] = rand::random();
            disk.write(LOCAL_KEY, &local)?;
            local
        }
    };
    let mut ring = KeyRing::new(local);
    for generation in 0..GENERATIONS {
        if let Some(bytes) = disk.read(&file_of(generation))? {
            ring.secrets.insert(generation, NodeSecret::from_bytes(&Zeroizing::new(bytes))?);
        }
    }
    Ok(ring)
}

/// Makes a handshake key and puts it on disk; one of the same generation is replaced.
pub fn make_key(disk: &Disk, ring: &mut KeyRing, generation: u8) -> Result<(), CredentialError> {
    let secret = NodeSecret::generate()?;
    disk.write(&file_of(generation), secret.to_bytes()?.as_slice())?;
    ring.secrets.insert(generation, secret);
    Ok(())
}

/// Deletes a handshake key that nobody uses any more.
pub fn forget_key(disk: &Disk, ring: &mut KeyRing, generation: u8) -> Result<(), CredentialError> {
    disk.remove(&file_of(generation))?;
    ring.secrets.remove(&generation);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshake_keys_survive_a_restart_and_are_forgotten_for_good() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::open(dir.path()).expect("opened");
        let mut ring = load_ring(&disk).expect("made");
        make_key(&disk, &mut ring, 2).expect("made");
        let again = load_ring(&disk).expect("read");
        assert_eq!(again.secrets[&2].public(), ring.secrets[&2].public());
        assert_eq!(again.local, ring.local);
        forget_key(&disk, &mut ring, 2).expect("removed");
        assert!(load_ring(&disk).expect("read").secrets.is_empty());
    }
}
