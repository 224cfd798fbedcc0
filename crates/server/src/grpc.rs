//! gRPC: what nodes' agents speak, on the same port as REST.

use tonic::service::Routes;

use crate::control::Shared;

/// All gRPC services. A request's [`crate::authn::Caller`] is in its extensions.
pub(crate) fn routes(_control: &Shared) -> Routes {
    Routes::default()
}
