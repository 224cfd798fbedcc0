//! Enrolment: a join token and a certificate request for a certificate, once.

use api::sync::enrolment_client::EnrolmentClient;
use api::sync::{EnrolRequest, EnrolResponse};
use api::token::JoinToken;
use identity::authority::{IssueError, NodeRequest};
use identity::ids::NodeId;

use super::credential::{Credential, CredentialError, Enrolled, load_ring, make_key};
use super::tls::{self, ConnectError};
use crate::disk::Disk;

/// Why the node is not enrolled. Nothing but a handshake key is on disk then, and the token may be used again unless the
/// server says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The server was not reached, or is not the token's.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server refused; its words.
    #[error("{0}")]
    Refused(String),
    /// The answer has not what it should have.
    #[error("the server's answer lacks {0}")]
    Answer(&'static str),
    /// No certificate request could be made.
    #[error("no certificate request could be made")]
    Request(#[from] IssueError),
    /// Keys could not be kept.
    #[error(transparent)]
    Credential(#[from] CredentialError),
}

impl EnrolError {
    /// Whether this machine's clock and the server's are too far apart.
    pub const fn is_of_clocks(&self) -> bool {
        matches!(self, EnrolError::Connect(ConnectError::ClockBehind | ConnectError::ClockAhead))
    }
}

/// Enrols this machine as `hostname` and keeps what it gets.
pub async fn enrol(disk: &Disk, token: &JoinToken, hostname: &str) -> Result<Credential, EnrolError> {
    let mut ring = load_ring(disk)?;
    if !ring.secrets.contains_key(&0) {
        make_key(disk, &mut ring, 0)?;
    }
    let request = NodeRequest::generate()?;
    let public = ring.secrets[&0].public().0;
    let signature = identity::node_key::sign(&request.key_pem, 0, &public);
    let signature = signature.map_err(|_| EnrolError::Credential(CredentialError::Damaged("the node's key")))?;
    let channel = tls::connect(&token.server, tls::pinned(token.ca)?, None).await?;
    let message = EnrolRequest {
        token_secret: token.secret.clone(),
        csr_der: request.request_der,
        hostname: hostname.to_owned(),
        handshake_key: Some(api::sync::NodePublicKey { generation: 0, public: public.to_vec(), signature }),
    };
    let answer = EnrolmentClient::new(channel).enrol(message).await;
    let answer = answer.map_err(|status| EnrolError::Refused(status.message().to_owned()))?.into_inner();
    let enrolled = check(answer, token)?;
    Ok(Credential::store(disk, enrolled, request.key_pem)?)
}

fn check(answer: EnrolResponse, token: &JoinToken) -> Result<Enrolled, EnrolError> {
    NodeId::new(answer.node_id).ok_or(EnrolError::Answer("a node number"))?;
    let seal_key =
        answer.snapshot_verify_key.try_into().map_err(|_| EnrolError::Answer("the key that verifies seals"))?;
    if answer.certificate_der.is_empty() || answer.authority_der.is_empty() {
        return Err(EnrolError::Answer("a certificate"));
    }
    Ok(Enrolled {
        node: answer.node_id,
        name: answer.node_name,
        cluster: answer.cluster,
        trust_domain: answer.trust_domain,
        server: token.server.clone(),
        seal_key,
        not_after_unix_s: answer.not_after_unix_s,
        certificate: answer.certificate_der,
        authorities: answer.authority_der,
    })
}
