//! The control plane process: REST, gRPC, the per-node view.

#![forbid(unsafe_code)]

pub mod class;
pub mod fleet;
pub mod generations;
pub mod place;
pub mod slots;
pub mod view;
