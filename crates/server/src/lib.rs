//! The control plane process: REST, gRPC, the per-node view.

#![forbid(unsafe_code)]

pub mod generations;
pub mod slots;
