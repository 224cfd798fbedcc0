//! The identity handshake as pure functions: option codec, keys, MACs, and the model of the kernel's decisions.
//!
//! PURE plus cryptography: no sockets, files or clocks.

#![forbid(unsafe_code)]
