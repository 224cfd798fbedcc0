//! Compiles the kernel programs: the core, and an object for each optional walk, embedded by `src/object.rs`.

use std::path::Path;

#[path = "build/compile.rs"]
mod compile;

fn main() {
    let bpf = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
    compile::compile(&bpf, &["stolos", "sweep", "repair"], &bpf);
}
