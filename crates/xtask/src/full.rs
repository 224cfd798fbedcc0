//! What `check --full` adds: licences and sources of dependencies, spelling, and the other architecture. Tools are pinned and
//! kept in `target/tools`; one that cannot be had is a failure, not a skip.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::step::{Tally, cargo, program, target_dir};

/// From PyPI, where it comes as a wheel: <https://pypi.org/project/typos>.
const TYPOS: &str = "1.52.0";
/// From crates.io, built here: some minutes, once.
const DENY: &str = "0.20.2";
/// The architecture that is checked beside this machine's.
const OTHER_TARGET: &str = "aarch64-unknown-linux-gnu";
/// The crates that build for it with nothing but that compiler. The others link libelf, which would have to be there for the
/// other architecture, too; of the datapath the kernel programs are compiled.
const OTHER_CRATES: &[&str] = &["identity", "policy", "handshake", "linux", "api", "store", "server"];
/// Debian's cross compiler for it, and where that keeps its headers.
const OTHER_CC: &str = "aarch64-linux-gnu-gcc";
const OTHER_HEADERS: &str = "/usr/aarch64-linux-gnu/include";

/// Each check counts as one.
pub(crate) fn tally() -> Result<Tally> {
    let mut tally = Tally::default();
    tally.add(Tally::one(match typos()? {
        Some(typos) => program(typos, &[]).succeeds()?,
        None => false,
    }));
    tally.add(Tally::one(match deny()? {
        Some(deny) => program(deny, &["--locked", "check", "bans", "licenses", "sources"]).succeeds()?,
        None => false,
    }));
    for object in ["stolos", "sweep", "repair"] {
        tally.add(Tally::one(kernel_program(object)?));
    }
    if let Some(passed) = rust()? {
        tally.add(Tally::one(passed));
    }
    Ok(tally)
}

/// Where a tool of a version is kept, and whether it is there.
fn kept(name: &str, version: &str) -> (PathBuf, PathBuf, bool) {
    let directory = target_dir().join("tools").join(format!("{name}-{version}"));
    let binary = directory.join("bin").join(name);
    let there = binary.exists();
    (directory, binary, there)
}

fn typos() -> Result<Option<PathBuf>> {
    let (directory, binary, there) = kept("typos", TYPOS);
    if there {
        return Ok(Some(binary));
    }
    eprintln!("x: installs typos {TYPOS} from PyPI into {}", directory.display());
    let made = program("python3", &["-m", "venv"]).args([&directory]).succeeds()?;
    let package = format!("typos=={TYPOS}");
    let pip = directory.join("bin/pip");
    let installed = made && program(pip, &["install", "--quiet", "--no-deps", &package]).succeeds()?;
    Ok(installed.then_some(binary))
}

fn deny() -> Result<Option<PathBuf>> {
    let (directory, binary, there) = kept("cargo-deny", DENY);
    if there {
        return Ok(Some(binary));
    }
    eprintln!("x: builds cargo-deny {DENY} into {} (some minutes, once)", directory.display());
    let package = format!("cargo-deny@{DENY}");
    // Not optimized: building it would take longer than it ever runs.
    let install = cargo(&["install", "--quiet", "--locked", "--debug", &package, "--root"]).args([&directory]);
    Ok(install.succeeds()?.then_some(binary))
}

/// A kernel program compiled for the other architecture, with that one's headers.
fn kernel_program(object: &str) -> Result<bool> {
    let Some(libbpf) = libbpf_headers() else {
        eprintln!("x: libbpf's headers are not there; build first: cargo build -p datapath");
        return Ok(false);
    };
    let out = target_dir().join(format!("{object}.arm64.bpf.o"));
    let clang = std::env::var("STOLOS_CLANG").unwrap_or_else(|_| "clang-19".to_owned());
    let flags = ["-target", "bpf", "-D__TARGET_ARCH_arm64", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror"];
    let compile = program(clang, &flags).args(["-isystem", OTHER_HEADERS, "-I", "crates/datapath/bpf", "-I"]);
    let source = format!("crates/datapath/bpf/{object}.bpf.c");
    compile.args([&libbpf]).args(["-c", &source, "-o"]).args([&out]).succeeds()
}

/// The headers that the build of `libbpf-sys` has unpacked.
fn libbpf_headers() -> Option<PathBuf> {
    let builds = std::fs::read_dir(target_dir().join("debug/build")).ok()?;
    let headers = builds.flatten().map(|entry| entry.path().join("out/include"));
    headers.into_iter().find(|path| path.join("bpf/bpf_helpers.h").exists())
}

/// The Rust crates for the other architecture; `None` where the toolchain has no standard library for it.
fn rust() -> Result<Option<bool>> {
    if !standard_library(OTHER_TARGET) {
        println!(
            "x: the Rust crates are NOT checked for {OTHER_TARGET}: its standard library is not installed \
             (rustup target add {OTHER_TARGET})"
        );
        return Ok(None);
    }
    let packages = OTHER_CRATES.iter().flat_map(|name| ["-p", name]);
    let check = cargo(&["check", "--target", OTHER_TARGET]).args(packages);
    let check = check.env("CC_aarch64_unknown_linux_gnu", OTHER_CC);
    check.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", OTHER_CC).succeeds().map(Some)
}

fn standard_library(target: &str) -> bool {
    let root = Command::new("rustc").args(["--print", "sysroot"]).output();
    let root = root.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    Path::new(&root).join("lib/rustlib").join(target).join("lib").is_dir()
}
