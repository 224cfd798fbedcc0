//! Testbed: clusters of namespaced nodes on one machine, for tests, the demo and the benches. Never ships.
//!
//! Start at [`run::Run`], which owns everything a run creates and takes it away again, then [`world::World`], which
//! builds nodes, clusters and NATs. Real programs are started with [`process::Program`], scripted peers with
//! [`peer::Peer`]. Missing privilege or a missing tool is an error with a clear text ([`require`]), never a silent pass.

#![forbid(unsafe_code)]

pub mod attack;
pub mod bench;
pub mod cgroup;
pub mod demo;
pub mod fleet;
pub mod gateway;
pub mod ip;
pub mod machine;
pub mod netns;
pub mod node;
pub mod peer;
pub mod process;
pub mod programs;
pub mod require;
pub mod run;
pub mod snapshot;
pub mod wait;
pub mod world;
