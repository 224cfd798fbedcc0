//! gRPC: what nodes' agents speak, on the same port as REST. Translation only; decisions are in [`crate::registry`].

mod budget;
pub mod enrolment;
pub mod session;
pub mod sync;

use api::sync::enrolment_server::EnrolmentServer;
use api::sync::sync_server::SyncServer;
use policy::code::Code;
use tonic::Status;
use tonic::service::Routes;

use crate::class::Refused;
use crate::control::Shared;

/// Metadata key of an error's stable code.
pub const CODE_KEY: &str = "stolos-code";
/// Greatest message that an agent may send.
const MESSAGE_MAX: usize = 16 * 1024 * 1024;

/// All gRPC services. A request's [`crate::authn::Caller`] is in its extensions.
pub(crate) fn routes(control: &Shared) -> Routes {
    let sync = SyncServer::new(sync::Service(control.clone())).max_decoding_message_size(MESSAGE_MAX);
    Routes::new(EnrolmentServer::new(enrolment::Service(control.clone()))).add_service(sync)
}

/// A refusal as gRPC tells it: `CODE: sentence`, and the code in the metadata.
pub(crate) fn refusal(grpc: tonic::Code, refused: &Refused) -> Status {
    let mut status = Status::new(grpc, format!("{}: {refused}", refused.code.id));
    if let Ok(value) = refused.code.id.parse() {
        status.metadata_mut().insert(CODE_KEY, value);
    }
    status
}

/// The same for a code whose title says enough.
fn refused_by(grpc: tonic::Code, code: &'static Code) -> Status {
    refusal(grpc, &Refused::new(code, code.title))
}

/// A failure of ours; what it was is logged, not told.
fn internal(cause: &(dyn std::error::Error + 'static)) -> Status {
    tracing::error!(error = cause, "an agent's request failed");
    Status::internal("the server failed; its log says why")
}
