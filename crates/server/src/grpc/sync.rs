//! The Sync stream: who is calling, and one session for each stream.

use std::pin::Pin;

use api::sync::sync_server::Sync;
use api::sync::{AgentMessage, ServerMessage};
use policy::code::enrolment as code;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::info;

use super::session::Session;
use super::{internal, refused_by};
use crate::authn::{Caller, Node};
use crate::control::Shared;

/// Messages that wait for a slow agent before the session waits, too.
const OUTBOUND_MAX: usize = 16;

/// The service. Needs the node certificate.
#[derive(Clone, Debug)]
pub struct Service(pub(crate) Shared);

#[tonic::async_trait]
impl Sync for Service {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<ServerMessage, Status>> + Send>>;

    async fn sync(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Self::SyncStream>, Status> {
        let control = self.0.clone();
        let caller = self.authenticate(&request).await?;
        let node = caller.id();
        let inbound = request.into_inner();
        let (outbound, receiver) = mpsc::channel(OUTBOUND_MAX);
        self.0.streams.spawn(async move {
            let session = Session::new(control, caller, outbound.clone());
            match session.run(inbound).await {
                Ok(()) => info!(%node, "sync stream ended"),
                Err(status) => {
                    info!(%node, reason = status.message(), "sync stream refused or failed");
                    // A receiver that is gone has nobody to tell.
                    let _ = outbound.send(Err(status)).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Service {
    /// The node whose certificate the connection has proved, if it is enrolled here with that very key.
    async fn authenticate(&self, request: &Request<Streaming<AgentMessage>>) -> Result<Node, Status> {
        let node = match request.extensions().get::<Caller>() {
            Some(Caller::Node(node)) => node.clone(),
            Some(Caller::Admin(_)) => return Err(refused_by(Code::PermissionDenied, &code::NOT_A_NODE)),
            Some(Caller::Anonymous) | None => return Err(refused_by(Code::Unauthenticated, &code::NOT_A_NODE)),
        };
        let public_key = &node.certificate().get().public_key;
        let certified = self.0.registry.is_certified(node.id(), public_key).await;
        match certified.map_err(|cause| internal(&cause))? {
            true => Ok(node),
            false => Err(refused_by(Code::PermissionDenied, &code::NODE_UNKNOWN)),
        }
    }
}
