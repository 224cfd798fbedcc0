//! Enrolment: a join token and a certificate request for a node certificate.

use api::sync::enrolment_server::Enrolment;
use api::sync::{EnrolRequest, EnrolResponse};
use policy::code::enrolment as code;
use tonic::{Code, Request, Response, Status};

use super::{internal, refusal};
use crate::class::Refused;
use crate::control::Shared;
use crate::registry::enrol::{self, EnrolError};

/// The service. Reached with server-authenticated TLS only.
#[derive(Clone, Debug)]
pub struct Service(pub(crate) Shared);

#[tonic::async_trait]
impl Enrolment for Service {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let request = request.into_inner();
        let Some(key) = request.handshake_key.as_ref() else {
            let refused = Refused::new(&code::NODE_KEY_BAD, "the request has no handshake key");
            return Err(refusal(Code::InvalidArgument, &refused));
        };
        let asked = enrol::Request {
            secret: &request.token_secret,
            csr: &request.csr_der,
            hostname: &request.hostname,
            key: (key.generation, &key.public, &key.signature),
        };
        let control = &self.0;
        let enrolled = control.registry.enrol(&control.authority, &asked).await.map_err(|error| match error {
            EnrolError::Refused(refused) => refusal(grpc_code(&refused), &refused),
            EnrolError::Registry(cause) => internal(&cause),
        })?;
        Ok(Response::new(EnrolResponse {
            node_id: enrolled.id.get(),
            node_name: enrolled.name,
            cluster: enrolled.cluster,
            trust_domain: control.authority.trust_domain().as_str().to_owned(),
            certificate_der: enrolled.issued.certificate.to_vec(),
            authority_der: vec![control.authority.root().to_vec()],
            snapshot_verify_key: control.seal_key.public().to_vec(),
            not_after_unix_s: enrolled.issued.not_after.as_second(),
        }))
    }
}

fn grpc_code(refused: &Refused) -> Code {
    let token = [code::TOKEN_UNKNOWN, code::TOKEN_SPENT, code::TOKEN_EXPIRED, code::CLUSTER_GONE];
    if token.contains(refused.code) {
        Code::PermissionDenied
    } else if *refused.code == code::NODES_EXHAUSTED {
        Code::ResourceExhausted
    } else {
        Code::InvalidArgument
    }
}
