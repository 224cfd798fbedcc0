//! Who is calling: from the TLS connection, as a proof that only verification can make.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::audit::Actor;
use identity::authority::Authority;
use identity::ids::NodeId;
use identity::spiffe_id::Role;
use identity::verify::{Leaf, Verified, VerifyError, verify_client};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

/// Who is at the other end of a connection. In the extensions of every request, REST and gRPC.
#[derive(Clone, Debug)]
pub enum Caller {
    /// An operator.
    Admin(Admin),
    /// An enrolled node's agent.
    Node(Node),
    /// No certificate.
    Anonymous,
}

/// Where a request comes from. In the extensions of every request.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub SocketAddr);

/// A proved operator. Only verification makes one.
#[derive(Clone, Debug)]
pub struct Admin {
    name: Arc<str>,
    /// Where its request comes from, once it has made one.
    from: Option<IpAddr>,
    proof: Arc<Verified<Leaf>>,
}

/// A proved node. Only verification makes one; whether it is still enrolled is another question.
#[derive(Clone, Debug)]
pub struct Node {
    id: NodeId,
    proof: Arc<Verified<Leaf>>,
}

impl Admin {
    /// The operator's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The verified certificate.
    pub fn certificate(&self) -> &Verified<Leaf> {
        &self.proof
    }

    /// The same operator, asking from an address.
    pub(crate) fn asking_from(self, from: Option<IpAddr>) -> Self {
        Self { from, ..self }
    }

    /// As the audit trail names it.
    pub fn actor(&self) -> Actor {
        Actor { name: self.name.to_string(), credential: "certificate".to_owned(), from: self.from }
    }
}

impl Node {
    /// The node's number.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The verified certificate.
    pub fn certificate(&self) -> &Verified<Leaf> {
        &self.proof
    }
}

/// Makes a caller out of the certificates that a client has presented.
pub(crate) fn caller(
    authority: &Authority,
    presented: Option<&[CertificateDer<'_>]>,
    now: Timestamp,
) -> Result<Caller, VerifyError> {
    let Some(leaf) = presented.and_then(|chain| chain.first()) else {
        return Ok(Caller::Anonymous);
    };
    let proof = verify_client(leaf, authority.root(), authority.trust_domain(), now)?;
    let proof = Arc::new(proof);
    match proof.get().id.role() {
        Role::Admin(name) => Ok(Caller::Admin(Admin { name: name.into(), from: None, proof })),
        Role::Node(id) => Ok(Caller::Node(Node { id, proof })),
        // Ours, but nobody that the API knows: no rights at all rather than those of an anonymous caller.
        Role::Server | Role::Workload => Err(VerifyError::Usage),
    }
}
