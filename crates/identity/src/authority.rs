//! The certificate authority of a trust domain: the only place that decides what a certificate says.
//!
//! One self-signed root (ECDSA P-256). Leaves stand directly below it.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use zeroize::Zeroizing;

use crate::ids::NodeId;
use crate::spiffe_id::{SpiffeId, SpiffeIdError, TrustDomain};

/// How long the root holds.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(20 * 365 * 86_400);
/// How long the server's certificate holds.
pub const SERVER_LIFETIME: Duration = Duration::from_secs(5 * 365 * 86_400);
/// How long an operator's certificate holds.
pub const ADMIN_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// How long a node's certificate holds. Long for now; `stolos get nodes` shows the end.
pub const NODE_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// Certificates begin this long before they are issued, for clocks that are behind.
pub const BACKDATED: Duration = Duration::from_secs(300);

/// The authority of one trust domain with its private key.
pub struct Authority {
    trust_domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

/// A certificate with its private key. `Debug` shows neither.
pub struct Credential {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The private key, PKCS#8 PEM.
    pub key_pem: Zeroizing<String>,
    /// When the certificate ends.
    pub not_after: Timestamp,
}

/// A certificate whose key the other side has.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// When it ends.
    pub not_after: Timestamp,
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request cannot be parsed, or its signature does not prove possession of the key.
    #[error("the certificate request cannot be read or does not prove possession of its key")]
    Request(#[source] rcgen::Error),
    /// The key is of another type.
    #[error("the certificate request's key is not ECDSA P-256")]
    KeyType,
    /// A server name is neither a DNS name nor an address.
    #[error("`{0}` is neither a DNS name nor an address")]
    Name(String),
    /// An operator's name is no SPIFFE path segment.
    #[error("an admin's name is a word of a-z, A-Z, 0-9, `.`, `-` and `_`")]
    AdminName(#[source] SpiffeIdError),
    /// Signing failed.
    #[error("the authority could not sign")]
    Sign(#[source] rcgen::Error),
}

/// Why an authority could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The private key cannot be read.
    #[error("the authority's private key cannot be read")]
    Key(#[source] rcgen::Error),
    /// The certificate cannot be read.
    #[error("the authority's certificate cannot be read")]
    Certificate,
    /// The key belongs to another certificate.
    #[error("the authority's private key does not belong to its certificate")]
    Mismatch,
}

impl Authority {
    /// Makes the root of a trust domain.
    pub fn generate(trust_domain: TrustDomain, now: Timestamp) -> Result<Self, IssueError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IssueError::Sign)?;
        let mut params = template(&format!("Stolos authority of {trust_domain}"), now, ROOT_LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&SpiffeId::new(trust_domain.clone(), "").map_err(IssueError::AdminName)?)?];
        let root = params.self_signed(&key).map_err(IssueError::Sign)?.der().clone();
        Ok(Self { trust_domain, issuer: Issuer::new(params, key), root })
    }

    /// Loads a root that [`Authority::generate`] made.
    pub fn load(trust_domain: TrustDomain, root: CertificateDer<'static>, key_pem: &str) -> Result<Self, LoadError> {
        let key = KeyPair::from_pem_and_sign_algo(key_pem, &PKCS_ECDSA_P256_SHA256).map_err(LoadError::Key)?;
        {
            let (_, parsed) = x509_parser::parse_x509_certificate(&root).map_err(|_| LoadError::Certificate)?;
            if *parsed.public_key().subject_public_key.data != *key.public_key_raw() {
                return Err(LoadError::Mismatch);
            }
        }
        let issuer = Issuer::from_ca_cert_der(&root, key).map_err(|_| LoadError::Certificate)?;
        Ok(Self { trust_domain, issuer, root })
    }

    /// The trust domain that it speaks for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The root certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The private key, PKCS#8 PEM.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// A certificate for the control plane under DNS names and addresses.
    pub fn issue_server(&self, names: &[String], now: Timestamp) -> Result<Credential, IssueError> {
        let mut params = template("Stolos server", now, SERVER_LIFETIME)?;
        params.subject_alt_names = vec![uri(&SpiffeId::server(&self.trust_domain))?];
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(dns_name(name)?),
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.with_new_key(params, now, SERVER_LIFETIME)
    }

    /// A client certificate for an operator with all rights.
    pub fn issue_admin(&self, name: &str, now: Timestamp) -> Result<Credential, IssueError> {
        let id = SpiffeId::admin(&self.trust_domain, name).map_err(IssueError::AdminName)?;
        let mut params = template(name, now, ADMIN_LIFETIME)?;
        params.subject_alt_names = vec![uri(&id)?];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.with_new_key(params, now, ADMIN_LIFETIME)
    }

    /// A client certificate for a node's agent. Of the request only the key is taken, after it has proved possession.
    pub fn issue_node(&self, request_der: &[u8], node: NodeId, now: Timestamp) -> Result<Issued, IssueError> {
        let request = CertificateSigningRequestDer::from(request_der);
        let request = CertificateSigningRequestParams::from_der(&request).map_err(IssueError::Request)?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(IssueError::KeyType);
        }
        let mut params = template(&format!("Stolos node {node}"), now, NODE_LIFETIME)?;
        params.subject_alt_names = vec![uri(&SpiffeId::node(&self.trust_domain, node))?];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&request.public_key, &self.issuer).map_err(IssueError::Sign)?;
        Ok(Issued { certificate: signed.der().clone(), not_after: end(now, NODE_LIFETIME) })
    }

    fn with_new_key(
        &self,
        mut params: CertificateParams,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Credential, IssueError> {
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IssueError::Sign)?;
        let signed = params.signed_by(&key, &self.issuer).map_err(IssueError::Sign)?;
        Ok(Credential {
            certificate: signed.der().clone(),
            key_pem: Zeroizing::new(key.serialize_pem()),
            not_after: end(now, lifetime),
        })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// A new P-256 key and the request for a certificate for it.
pub struct NodeRequest {
    /// The private key, PKCS#8 PEM.
    pub key_pem: Zeroizing<String>,
    /// The request, DER.
    pub request_der: Vec<u8>,
}

impl NodeRequest {
    /// What a node makes before it enrols.
    pub fn generate() -> Result<Self, IssueError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IssueError::Sign)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(IssueError::Sign)?;
        Ok(Self { key_pem: Zeroizing::new(key.serialize_pem()), request_der: request.der().to_vec() })
    }
}

/// PEM text of a certificate.
pub fn certificate_pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|&c| char::from(c)));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

/// What all certificates have in common: a leaf for signing handshakes, with a random serial number.
fn template(name: &str, now: Timestamp, lifetime: Duration) -> Result<CertificateParams, IssueError> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| IssueError::Sign(rcgen::Error::RingUnspecified))?;
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_secs(seconds).saturating_sub(BACKDATED);
    params.not_after = epoch + Duration::from_secs(seconds) + lifetime;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn end(now: Timestamp, lifetime: Duration) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now) + lifetime
}

fn uri(id: &SpiffeId) -> Result<SanType, IssueError> {
    let text = id.to_string();
    text.clone().try_into().map(SanType::URI).map_err(|_| IssueError::Name(text))
}

fn dns_name(name: &str) -> Result<rcgen::string::Ia5String, IssueError> {
    let bad = || IssueError::Name(name.to_owned());
    rustls_pki_types::DnsName::try_from(name).map_err(|_| bad())?;
    name.try_into().map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> Authority {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        Authority::generate(TrustDomain::new("example.org").unwrap(), now).unwrap()
    }

    #[test]
    fn an_authority_survives_a_restart() {
        let made = authority();
        let domain = made.trust_domain().clone();
        let loaded = Authority::load(domain.clone(), made.root().clone(), &made.key_pem()).unwrap();
        assert_eq!(loaded.root(), made.root());
        let other = authority();
        assert!(matches!(Authority::load(domain, made.root().clone(), &other.key_pem()), Err(LoadError::Mismatch)));
    }

    #[test]
    fn a_request_without_possession_of_its_key_is_refused() {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        let node = NodeId::new(1).unwrap();
        let mut der = NodeRequest::generate().unwrap().request_der;
        assert!(authority().issue_node(&der, node, now).is_ok());
        let last = der.len() - 1;
        der[last] ^= 1;
        assert!(matches!(authority().issue_node(&der, node, now), Err(IssueError::Request(_))));
        assert!(matches!(authority().issue_node(b"junk", node, now), Err(IssueError::Request(_))));
    }

    #[test]
    fn server_names_are_checked() {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        let names = |n: &str| authority().issue_server(&[n.to_owned()], now);
        assert!(names("stolos.example").is_ok());
        assert!(names("fd00::1").is_ok());
        assert!(matches!(names("no name"), Err(IssueError::Name(_))));
    }

    #[test]
    fn debug_shows_no_keys() {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        let authority = authority();
        let shown = format!("{authority:?} {:?}", authority.issue_admin("root", now).unwrap());
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }
}
