//! Wire types: everything that crosses a process boundary, and nothing else.
//!
//! Start at [`kind`] for documents, [`problem`] for errors, [`client`] for talking to a server, [`local`] for the
//! agent's socket. How things are stored or decided is not known here.

#![forbid(unsafe_code)]

pub mod admin;
pub mod apply;
pub mod audit;
pub mod authority;
pub mod client;
pub mod explain;
pub mod flow;
pub mod kind;
pub mod local;
pub mod object;
pub mod openapi;
pub mod problem;
pub mod report;
pub mod route;
pub mod tls;
pub mod token;
pub mod watch;

/// Generated gRPC types and services of the Sync protocol (`proto/stolos/sync/v1/sync.proto`).
#[allow(missing_docs, clippy::all)]
pub mod sync {
    tonic::include_proto!("stolos.sync.v1");
}
