//! Benches over real sockets and real kernels. Start at [`handshake::run`].
//!
//! Contenders are interleaved and compared within the same round, because the machine's speed changes in between.

pub mod handshake;
pub mod load;
pub mod nfqueue;
pub mod report;
