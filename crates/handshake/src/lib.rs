//! The identity handshake as pure functions: option codec, keys, MACs, time, places, and the model of both ends' decisions.
//!
//! PURE plus cryptography: no sockets, files or clocks. `docs/wire.md` is the specification with byte vectors, generated and
//! checked by this crate's tests; the eBPF programs are a second implementation of the same page, and `model` is the oracle
//! that tests hold against them. Start reading at [`option`], then [`mac`], then [`model`].

#![forbid(unsafe_code)]

pub mod burn;
pub mod generation;
pub mod key;
pub mod mac;
pub mod model;
pub mod option;
pub mod place;
pub mod segment;
pub mod time;
