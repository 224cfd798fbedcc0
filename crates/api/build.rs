//! Generates the gRPC types from `proto/` (needs protoc, which `./x` installs).

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=../../proto");
    tonic_prost_build::configure()
        .btree_map(".")
        .compile_protos(&["../../proto/stolos/sync/v1/sync.proto"], &["../../proto"])
}
