//! The node agent: it finds this node's workloads, keeps the Sync stream with the server, compiles what it is told into
//! the kernel's desired state, and reports what the kernel saw.
//!
//! [`Agent::bind`] checks the machine, enrols, attaches and applies the last state; [`Bound::run`] goes on until cancelled
//! and leaves the kernel enforcing. Inside, `node` is the one task that holds all state; [`compile`] is what the kernel is
//! told, [`model`] what the server tells, [`enforce`] the thread that owns the programs.

#![forbid(unsafe_code)]

pub mod clock;
pub mod compile;
pub mod config;
mod coverage;
pub mod disk;
mod doctor;
mod document;
pub mod enforce;
pub mod flow;
mod local;
pub mod metrics;
pub mod model;
mod node;
pub mod numbering;
mod start;
pub mod state;
pub mod sync;
pub mod view;
pub mod workload;

pub use self::config::Config;
pub use self::start::{Agent, BindError, Bound};
