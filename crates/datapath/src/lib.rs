//! The kernel datapath: eBPF programs and the code that loads, feeds and reads them.
//!
//! Owns `bpf/` and everything that touches it. Knows workloads by slot and class only: names, labels and policies are
//! compiled away before a [`state::State`] gets here. Start at [`Datapath`], then `bpf/ingress.h`.

mod abi;
mod apply;
mod assign;
mod attach;
mod bank;
pub mod bpffs;
pub mod capacity;
pub mod count;
mod destroy;
pub mod event;
pub mod feature;
mod object;
mod page;
pub mod refuse;
pub mod state;
mod tables;
pub mod walk;
mod write;

pub use apply::{Applied, ApplyError};
pub use attach::{AttachError, Datapath, DetachError, ExemptError, Options};
pub use tables::StateError;
pub use write::WriteError;
