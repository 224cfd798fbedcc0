//! The kernel datapath: eBPF programs and the code that loads, feeds and reads them.

pub mod refuse;
pub mod state;
