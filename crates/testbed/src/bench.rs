//! Benches over real sockets, real kernels and the real agent. Start at [`handshake::run`] and [`agent::run`].
//!
//! Contenders are interleaved and compared within the same round, because the machine's speed changes in between.

pub mod affinity;
pub mod agent;
pub mod flags;
pub mod handshake;
pub mod load;
pub mod nfqueue;
pub mod probe;
pub mod profile;
pub mod report;
