//! Identity: the names of nodes and workloads, SPIFFE ids, and the authority that certifies them.
//!
//! PURE plus cryptography: no sockets, files or clocks; `now` is always an argument. Start at [`authority`] for who
//! signs, at [`verify`] for what a verified peer is.

#![forbid(unsafe_code)]

pub mod authority;
pub mod fingerprint;
pub mod ids;
pub mod instance;
pub mod node_key;
pub mod seal;
pub mod spiffe_id;
pub mod verify;
