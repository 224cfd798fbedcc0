//! Compiles the kernel programs of the tests, which stand beside the datapath's or call into them.

use std::path::Path;

#[path = "../datapath/build/compile.rs"]
mod compile;

fn main() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    compile::compile(&own.join("bpf"), &["neighbour", "harness"], &own.join("../datapath/bpf"));
}
