//! TLS of clients: the authority of one trust domain is the only one they trust.

use std::sync::Arc;

use identity::fingerprint::Fingerprint;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Why a client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate cannot be read.
    #[error("the {0} cannot be read")]
    Certificate(&'static str),
    /// The private key cannot be read, or is not the certificate's.
    #[error("the private key cannot be read or does not belong to the certificate")]
    Key,
    /// rustls does not take the parts.
    #[error("TLS cannot be set up")]
    Rustls(#[source] rustls::Error),
}

/// A client's certificate chain and its private key.
pub struct ClientIdentity {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

impl ClientIdentity {
    /// Reads both from PEM.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, TlsError> {
        Ok(Self {
            chain: certificates_from_pem(certificate, "client certificate")?,
            key: PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| TlsError::Key)?,
        })
    }
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientIdentity").finish_non_exhaustive()
    }
}

/// The cryptography that all of Stolos uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// All certificates of a PEM text, at least one. `what` names them in errors.
pub fn certificates_from_pem(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    read.ok().filter(|certificates| !certificates.is_empty()).ok_or(TlsError::Certificate(what))
}

/// A client that trusts one authority, with or without a certificate of its own. No resumption, no other roots.
pub fn client_config(
    authority: &CertificateDer<'static>,
    identity: Option<ClientIdentity>,
) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(|_| TlsError::Certificate("authority's certificate"))?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rustls)?
        .with_root_certificates(roots);
    match identity {
        Some(own) => builder.with_client_auth_cert(own.chain, own.key).map_err(|_| TlsError::Key),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// A client that knows only the fingerprint of the authority, from a join token: the server must send the authority's
/// certificate along, and its own must be signed by it and valid for the name dialled.
pub fn pinned_config(authority: Fingerprint) -> Result<ClientConfig, TlsError> {
    let verifier = Arc::new(Pinned { authority, provider: provider() });
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rustls)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

#[derive(Debug)]
struct Pinned {
    authority: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let pinned = intermediates.iter().find(|der| Fingerprint::of(der) == self.authority).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned()).map_err(|_| unknown())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|_| unknown())?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
