//! The node agent: it finds this node's workloads, keeps the Sync stream with the server, compiles what it is told into
//! the kernel's desired state, and reports what the kernel saw.
//!
//! Start at [`compile`] for what the kernel is told, at [`model`] for what the server tells.

#![forbid(unsafe_code)]

pub mod clock;
pub mod compile;
pub mod disk;
mod document;
pub mod model;
pub mod numbering;
