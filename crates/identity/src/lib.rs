//! Identity: the names of nodes and workloads, SPIFFE ids, and the authority that certifies them.
//!
//! PURE plus cryptography: no sockets, files or clocks; `now` is always an argument.

#![forbid(unsafe_code)]

pub mod ids;
