//! Checking a peer's certificate. What comes out is a value that only this module can make.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256};

use crate::spiffe_id::{SpiffeId, TrustDomain};

/// A value that has been verified: only this crate can make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// What was verified.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// Gives the value away, and the proof up.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// A peer's certificate after verification.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Who it is.
    pub id: SpiffeId,
    /// When the certificate ends.
    pub not_after: Timestamp,
    /// Its public key: an uncompressed P-256 point.
    pub public_key: Vec<u8>,
}

/// Why a certificate proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// There is none, or it cannot be parsed.
    #[error("the certificate cannot be read")]
    Malformed,
    /// Another authority signed it, or nobody.
    #[error("the certificate is not signed by this trust domain's authority")]
    NotOurs,
    /// Its time has not come, or one of the clocks is wrong.
    #[error("the certificate is not valid yet: compare the clocks of both machines")]
    NotYet,
    /// Its time is over.
    #[error("the certificate has expired")]
    Expired,
    /// It is an authority's, or not for clients.
    #[error("the certificate is not a client certificate")]
    Usage,
    /// It has not exactly one SPIFFE id of this trust domain.
    #[error("the certificate does not name exactly one identity of this trust domain")]
    Identity,
}

/// Verifies a client certificate that stands directly below the root.
///
/// Shape: ECDSA P-256; not an authority; for client authentication; exactly one URI, a SPIFFE id of `trust_domain`.
/// Source: X509-SVID sections 3 to 5.
pub fn verify_client(
    certificate: &CertificateDer<'_>,
    root: &CertificateDer<'_>,
    trust_domain: &TrustDomain,
    now: Timestamp,
) -> Result<Verified<Leaf>, VerifyError> {
    let leaf = parse(certificate)?;
    let root = parse(root)?;
    check_signature(&leaf, &root)?;
    let validity = leaf.validity();
    if now.as_second() < validity.not_before.timestamp() {
        return Err(VerifyError::NotYet);
    }
    if now.as_second() >= validity.not_after.timestamp() {
        return Err(VerifyError::Expired);
    }
    check_usage(&leaf)?;
    let id = identity_of(&leaf)?;
    if id.trust_domain() != trust_domain {
        return Err(VerifyError::Identity);
    }
    let not_after = Timestamp::from_second(validity.not_after.timestamp()).map_err(|_| VerifyError::Malformed)?;
    Ok(Verified(Leaf { id, not_after, public_key: p256_point(&leaf)?.to_vec() }))
}

/// The P-256 point of a certificate's key, without verifying anything else.
pub fn public_key_of(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, VerifyError> {
    p256_point(&parse(certificate)?).map(<[u8]>::to_vec)
}

/// Checks a signature by a P-256 key: ECDSA with SHA-256, DER.
pub(crate) fn verify_p256(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, VerifyError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(VerifyError::Malformed),
    }
}

fn check_signature(leaf: &X509Certificate<'_>, root: &X509Certificate<'_>) -> Result<(), VerifyError> {
    let algorithms = [&leaf.signature_algorithm.algorithm, &leaf.tbs_certificate.signature.algorithm];
    let ours = leaf.issuer().as_raw() == root.subject().as_raw()
        && algorithms.iter().all(|oid| **oid == OID_SIG_ECDSA_WITH_SHA256)
        && verify_p256(p256_point(root)?, leaf.tbs_certificate.as_ref(), &leaf.signature_value.data);
    if ours { Ok(()) } else { Err(VerifyError::NotOurs) }
}

fn p256_point<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a [u8], VerifyError> {
    let key = certificate.public_key();
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return Err(VerifyError::Malformed);
    }
    Ok(&key.subject_public_key.data)
}

fn check_usage(leaf: &X509Certificate<'_>) -> Result<(), VerifyError> {
    let mut client = false;
    let mut signs = false;
    for extension in leaf.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(basic) if basic.ca => return Err(VerifyError::Usage),
            ParsedExtension::BasicConstraints(_) => {}
            ParsedExtension::ExtendedKeyUsage(usage) => client = usage.client_auth,
            ParsedExtension::KeyUsage(usage) => signs = usage.digital_signature() && !usage.key_cert_sign(),
            ParsedExtension::SubjectAlternativeName(_) => {}
            _ if extension.critical => return Err(VerifyError::Usage),
            _ => {}
        }
    }
    if client && signs { Ok(()) } else { Err(VerifyError::Usage) }
}

fn identity_of(leaf: &X509Certificate<'_>) -> Result<SpiffeId, VerifyError> {
    let names = leaf.subject_alternative_name().map_err(|_| VerifyError::Malformed)?.ok_or(VerifyError::Identity)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse().map_err(|_| VerifyError::Identity),
        _ => Err(VerifyError::Identity),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Authority, NodeRequest};
    use crate::ids::NodeId;
    use crate::spiffe_id::Role;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn authority(domain: &str) -> Authority {
        Authority::generate(TrustDomain::new(domain).unwrap(), at("2030-01-01T00:00:00Z")).unwrap()
    }

    #[test]
    fn nodes_and_admins_are_who_the_authority_says() {
        let ours = authority("example.org");
        let now = at("2030-01-02T00:00:00Z");
        let id = NodeId::new(17).unwrap();
        let node = ours.issue_node(&NodeRequest::generate().unwrap().request_der, id, now).unwrap();
        let proof = verify_client(&node.certificate, ours.root(), ours.trust_domain(), now).unwrap();
        assert_eq!(proof.get().id.role(), Role::Node(id));
        assert_eq!(proof.get().not_after, node.not_after);
        let admin = ours.issue_admin("root", now).unwrap();
        let proof = verify_client(&admin.certificate, ours.root(), ours.trust_domain(), now).unwrap();
        assert_eq!(proof.get().id.to_string(), "spiffe://example.org/stolos/admin/root");
    }

    #[test]
    fn what_proves_nothing_is_refused() {
        let ours = authority("example.org");
        let now = at("2030-01-02T00:00:00Z");
        let check = |der: &CertificateDer<'_>, now| {
            verify_client(der, ours.root(), ours.trust_domain(), now).map(|_| ()).unwrap_err()
        };
        let admin = ours.issue_admin("root", now).unwrap().certificate;
        assert_eq!(check(&admin, at("2029-12-31T00:00:00Z")), VerifyError::NotYet);
        assert_eq!(check(&admin, at("2031-01-03T00:00:00Z")), VerifyError::Expired);
        assert_eq!(check(ours.root(), now), VerifyError::Usage);
        let server = ours.issue_server(&["a.example".into()], now).unwrap().certificate;
        assert_eq!(check(&server, now), VerifyError::Usage);
        let foreign = authority("example.org").issue_admin("root", now).unwrap().certificate;
        assert_eq!(check(&foreign, now), VerifyError::NotOurs);
        assert_eq!(check(&CertificateDer::from(b"junk".to_vec()), now), VerifyError::Malformed);
        let mut bent = admin.to_vec();
        let last = bent.len() - 1;
        bent[last] ^= 1;
        assert_eq!(check(&CertificateDer::from(bent), now), VerifyError::NotOurs);
        let other = TrustDomain::new("other.org").unwrap();
        assert_eq!(verify_client(&admin, ours.root(), &other, now).unwrap_err(), VerifyError::Identity);
    }
}
