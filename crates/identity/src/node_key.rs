//! The signature by which a node's certificate vouches for its handshake key (X25519).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::verify::{Leaf, Verified, public_key_of, verify_p256};

/// Greatest generation: two bits on the wire.
pub const GENERATION_MAX: u32 = 3;

/// Why a handshake key was not signed or not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeKeyError {
    /// The private key cannot be read.
    #[error("the node's private key cannot be read")]
    PrivateKey,
    /// The generation does not fit its two bits.
    #[error("a handshake key's generation is 0 to 3")]
    Generation,
    /// The key is all zero or a point whose shared secret would be.
    #[error("the handshake key is of low order")]
    LowOrder,
    /// Another key signed it, or another key was signed.
    #[error("the handshake key is not signed by the node's certificate")]
    Signature,
}

/// Signs a handshake key: over `stolos-node-key-1` | generation u32 BE | public key.
pub fn sign(node_key_pem: &str, generation: u32, public: &[u8; 32]) -> Result<Vec<u8>, NodeKeyError> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(node_key_pem.as_bytes()).map_err(|_| NodeKeyError::PrivateKey)?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.secret_pkcs8_der())
        .map_err(|_| NodeKeyError::PrivateKey)?;
    let signature =
        key.sign(&SystemRandom::new(), &message(generation, public)).map_err(|_| NodeKeyError::PrivateKey)?;
    Ok(signature.as_ref().to_vec())
}

/// Checks a handshake key against the certificate of the node that presents it.
pub fn verify(
    node: &Verified<Leaf>,
    generation: u32,
    public: &[u8],
    signature: &[u8],
) -> Result<[u8; 32], NodeKeyError> {
    check(&node.get().public_key, generation, public, signature)
}

/// The same for a certificate that the authority has issued a moment ago, at enrolment.
pub fn verify_issued(
    certificate: &CertificateDer<'_>,
    generation: u32,
    public: &[u8],
    signature: &[u8],
) -> Result<[u8; 32], NodeKeyError> {
    let point = public_key_of(certificate).map_err(|_| NodeKeyError::Signature)?;
    check(&point, generation, public, signature)
}

fn check(point: &[u8], generation: u32, public: &[u8], signature: &[u8]) -> Result<[u8; 32], NodeKeyError> {
    if generation > GENERATION_MAX {
        return Err(NodeKeyError::Generation);
    }
    let public: [u8; 32] = public.try_into().map_err(|_| NodeKeyError::Signature)?;
    if LOW_ORDER.iter().any(|bad| same_point(bad, &public)) {
        return Err(NodeKeyError::LowOrder);
    }
    if !verify_p256(point, &message(generation, &public), signature) {
        return Err(NodeKeyError::Signature);
    }
    Ok(public)
}

fn message(generation: u32, public: &[u8; 32]) -> Vec<u8> {
    [b"stolos-node-key-1".as_slice(), &generation.to_be_bytes(), public].concat()
}

/// The top bit of a u-coordinate is not part of it.
fn same_point(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a[..31] == b[..31] && a[31] & 0x7f == b[31] & 0x7f
}

/// u-coordinates of low order on Curve25519 below 2^255, little endian. Source: RFC 7748 section 6.1 and
/// <https://cr.yp.to/ecdh.html#validate>.
const LOW_ORDER: [[u8; 32]; 7] = {
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    let mut p_minus_1 = p;
    p_minus_1[0] = 0xec;
    let mut p_plus_1 = p;
    p_plus_1[0] = 0xee;
    let mut one = [0; 32];
    one[0] = 1;
    [
        [0; 32],
        one,
        [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
            0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ],
        [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
            0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
        ],
        p_minus_1,
        p,
        p_plus_1,
    ]
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Authority, NodeRequest};
    use crate::ids::NodeId;
    use crate::spiffe_id::TrustDomain;

    #[test]
    fn only_the_nodes_own_key_vouches() {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        let authority = Authority::generate(TrustDomain::new("a").unwrap(), now).unwrap();
        let request = NodeRequest::generate().unwrap();
        let issued = authority.issue_node(&request.request_der, NodeId::new(1).unwrap(), now).unwrap();
        let public = [9; 32];
        let signature = sign(&request.key_pem, 2, &public).unwrap();
        assert_eq!(verify_issued(&issued.certificate, 2, &public, &signature), Ok(public));
        assert_eq!(verify_issued(&issued.certificate, 1, &public, &signature), Err(NodeKeyError::Signature));
        assert_eq!(verify_issued(&issued.certificate, 2, &[8; 32], &signature), Err(NodeKeyError::Signature));
        assert_eq!(verify_issued(&issued.certificate, 4, &public, &signature), Err(NodeKeyError::Generation));
        let other = NodeRequest::generate().unwrap();
        let forged = sign(&other.key_pem, 2, &public).unwrap();
        assert_eq!(verify_issued(&issued.certificate, 2, &public, &forged), Err(NodeKeyError::Signature));
    }

    #[test]
    fn low_order_keys_are_refused_even_when_signed() {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        let authority = Authority::generate(TrustDomain::new("a").unwrap(), now).unwrap();
        let request = NodeRequest::generate().unwrap();
        let issued = authority.issue_node(&request.request_der, NodeId::new(1).unwrap(), now).unwrap();
        for mut bad in LOW_ORDER {
            bad[31] |= 0x80;
            let signature = sign(&request.key_pem, 0, &bad).unwrap();
            assert_eq!(verify_issued(&issued.certificate, 0, &bad, &signature), Err(NodeKeyError::LowOrder));
        }
    }
}
