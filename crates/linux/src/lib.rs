//! The few system calls and kernel files that rustix lacks, behind safe functions.
//!
//! Knows the kernel's interfaces and nothing of workloads, policies or the server. Where to start: [`netns`] for network
//! namespaces, [`cgroup`] for cgroup v2 directories, [`process`] for what `/proc` says, [`mount`] for mounted file systems.

pub mod cgroup;
pub mod mount;
pub mod netns;
pub mod process;
