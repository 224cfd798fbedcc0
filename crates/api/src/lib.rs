//! Wire types: everything that crosses a process boundary, and nothing else.

#![forbid(unsafe_code)]

pub mod local;

/// Generated gRPC types and services of the Sync protocol (`proto/stolos/sync/v1/sync.proto`).
#[allow(missing_docs, clippy::all)]
pub mod sync {
    tonic::include_proto!("stolos.sync.v1");
}
