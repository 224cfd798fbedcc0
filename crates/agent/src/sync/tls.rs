//! TLS to the server: before enrolment by the authority's fingerprint in the join token, after it by the authority.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use identity::fingerprint::Fingerprint;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::enforce::Commands;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server's URL is none.
    #[error("`{0}` is no https URL with a host")]
    Url(String),
    /// Keys or certificates of this node cannot be used.
    #[error("this node's certificate cannot be used")]
    Credential(#[source] rustls::Error),
    /// By this machine's clock the server's certificate is not valid yet.
    #[error("this machine's clock is behind: the server's certificate is not valid yet; set the clock (UTC)")]
    ClockBehind,
    /// By this machine's clock the server's certificate is over.
    #[error("the server's certificate is over, or this machine's clock is ahead; set the clock (UTC), or renew it")]
    ClockAhead,
    /// Nobody answered, or not as the server should.
    #[error("no connection to the server: {}", chain(.0))]
    Transport(#[source] tonic::transport::Error),
}

/// The causes of an error, one after the other: transport errors keep what matters at the end.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// A silent connection is probed this often, and dropped when a probe stays unanswered as long.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A client that believes whoever holds a certificate below the authority with this fingerprint.
pub(super) fn pinned(authority: Fingerprint) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Pinned { authority, provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ConnectError::Credential)?;
    Ok(with_h2(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

/// A client with a certificate, that believes the authorities.
pub(super) fn mutual(
    authorities: &[CertificateDer<'static>],
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, ConnectError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(ConnectError::Credential)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(ConnectError::Credential)?;
    let config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key);
    config.map(with_h2).map_err(ConnectError::Credential)
}

fn with_h2(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Connects. With `commands` the socket is left alone by the kernel programs; without, there are none yet.
pub(super) async fn connect(
    url: &str,
    config: ClientConfig,
    commands: Option<Commands>,
) -> Result<Channel, ConnectError> {
    let invalid = || ConnectError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| invalid())?;
    let host = uri.host().ok_or_else(invalid)?.to_owned();
    let port = uri.port_u16().unwrap_or(443);
    let name = host.trim_matches(['[', ']']).to_owned();
    let server_name = ServerName::try_from(name.clone()).map_err(|_| invalid())?;
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_: Uri| {
        let (connector, server_name, name) = (connector.clone(), server_name.clone(), name.clone());
        let commands = commands.clone();
        async move {
            let stream = dial(&name, port, commands.as_ref()).await?;
            stream.set_nodelay(true)?;
            connector.connect(server_name, stream).await.map(TokioIo::new)
        }
    });
    // TLS is the connector's; the scheme here only keeps the transport from adding its own.
    let endpoint = Endpoint::from_shared(format!("http://{host}:{port}")).map_err(ConnectError::Transport)?;
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    let connected = tokio::time::timeout(CONNECT * 2, endpoint.connect_with_connector(connect)).await;
    match connected {
        Ok(connected) => connected.map_err(failed),
        Err(_) => Err(ConnectError::Url(format!("{url} (no answer)"))),
    }
}

/// A certificate out of its time is about clocks, which nobody guesses from a transport error.
fn failed(error: tonic::transport::Error) -> ConnectError {
    use rustls::CertificateError as E;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        // An I/O error hides what it carries: its source is the source of that.
        let io = inner.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        let tls = inner.downcast_ref().or_else(|| io.and_then(|io| io.downcast_ref()));
        match tls {
            Some(rustls::Error::InvalidCertificate(E::NotValidYet | E::NotValidYetContext { .. })) => {
                return ConnectError::ClockBehind;
            }
            Some(rustls::Error::InvalidCertificate(E::Expired | E::ExpiredContext { .. })) => {
                return ConnectError::ClockAhead;
            }
            _ => cause = inner.source(),
        }
    }
    ConnectError::Transport(error)
}

/// Tries every address of a name, in the order of the resolver.
async fn dial(name: &str, port: u16, commands: Option<&Commands>) -> std::io::Result<TcpStream> {
    let mut failed = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host((name, port)).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(commands) = commands {
            super::link::exempt(commands, &socket).await;
        }
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Finds the authority among what the server shows, by its fingerprint, and verifies the server below it.
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
        let authority = intermediates.iter().find(|certificate| Fingerprint::of(certificate) == self.authority);
        let authority = authority.ok_or_else(|| {
            rustls::Error::General("the server's authority is not the one that the join token names".to_owned())
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build();
        let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::authority::Authority;
    use identity::spiffe_id::TrustDomain;

    #[test]
    fn only_a_server_below_the_tokens_authority_is_believed() {
        let now: jiff::Timestamp = "2030-01-01T00:00:00Z".parse().expect("a time");
        let authority =
            |domain: &str| Authority::generate(TrustDomain::new(domain).expect("a name"), now).expect("made");
        let (ours, theirs) = (authority("a"), authority("b"));
        let server =
            |authority: &Authority| authority.issue_server(&["s.example".to_owned()], now).expect("issued").certificate;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let pinned = Pinned { authority: Fingerprint::of(ours.root()), provider };
        let name = |name: &str| ServerName::try_from(name.to_owned()).expect("a name");
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second() as u64 + 60));
        let verify = |leaf: CertificateDer<'static>, root: &Authority, host: &str| {
            pinned.verify_server_cert(&leaf, &[root.root().clone()], &name(host), &[], at)
        };
        assert!(verify(server(&ours), &ours, "s.example").is_ok());
        assert!(verify(server(&ours), &ours, "other.example").is_err(), "another name");
        assert!(verify(server(&theirs), &theirs, "s.example").is_err(), "another authority");
        assert!(verify(server(&theirs), &ours, "s.example").is_err(), "our root shown beside their certificate");
    }
}
