//! Compiles kernel programs: for the datapath's own, and for those that tests put beside them.

use std::path::{Path, PathBuf};
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;

/// The compiler: `$STOLOS_CLANG`, else the first of these that runs.
fn clang() -> PathBuf {
    println!("cargo::rerun-if-env-changed=STOLOS_CLANG");
    if let Some(path) = std::env::var_os("STOLOS_CLANG") {
        return path.into();
    }
    let runs = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success());
    match ["clang-19", "clang", "clang-18", "clang-17", "clang-16"].iter().find(|name| runs(name)) {
        Some(name) => name.into(),
        None => {
            println!(
                "cargo::error=the kernel programs need clang 16 or newer: run `apt-get install clang-19` (or set STOLOS_CLANG)"
            );
            std::process::exit(1);
        }
    }
}

/// Compiles `dir/NAME.bpf.c` for each name into `$OUT_DIR/NAME.bpf.o`. Headers are looked for in `include`.
///
/// Ends the build with what to do about it where that cannot be.
pub(crate) fn compile(dir: &Path, names: &[&str], include: &Path) {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let clang = clang();
    for changed in [dir, include] {
        println!("cargo::rerun-if-changed={}", changed.display());
    }
    for name in names {
        let include = format!("-I{}", include.display());
        let built = SkeletonBuilder::new()
            .source(dir.join(format!("{name}.bpf.c")))
            .obj(out.join(format!("{name}.bpf.o")))
            .clang(&clang)
            .clang_args([include.as_str(), "-mcpu=v3", "-Wall", "-Werror"])
            .build();
        if let Err(error) = built {
            println!("cargo::error=the kernel program {name}.bpf.c does not compile: {error:#}");
            println!("cargo::error=needed: clang 16 or newer with the bpf target (`apt-get install clang-19`)");
            std::process::exit(1);
        }
    }
}
