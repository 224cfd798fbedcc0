//! The task runner behind `./x`: every way to build, check, test, try and measure the project.

#![forbid(unsafe_code)]

mod api;
mod bench;
mod check;
mod full;
mod fuzz;
mod kernels;
mod step;
mod suite;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser, Subcommand};

/// ./x: the project's one door.
#[derive(Parser)]
#[command(name = "./x", bin_name = "./x", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Two clusters with equal addresses on this machine, and a guided tour (root)
    Demo {
        /// Unattended: asserts every step, takes everything down, ends with `N passed, N failed`
        #[arg(long)]
        check: bool,
        /// Passed on to the demo
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Everything: check, all tests, `demo --check`; ends with `N passed, N failed` (root)
    Test,
    /// Format, clippy, tidy
    Check {
        /// Also cargo-deny, typos, and the kernel programs and Rust crates for aarch64 (pinned tools, kept in target/tools)
        #[arg(long)]
        full: bool,
    },
    /// House rules that no compiler knows: lengths, names, layers, documentation
    Tidy,
    /// `stolos dev`: server and agent for this one machine
    Dev {
        /// Passed on to `stolos dev`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Fuzzes the parsers of peer and user bytes (stable Rust, libFuzzer)
    Fuzz {
        /// One target; all of them where it is left out
        target: Option<String>,
        /// For each target
        #[arg(long, default_value_t = 30)]
        seconds: u32,
    },
    /// The tour and the kernel's tests on other kernels, in virtual machines; ends with `N passed, N failed` (root)
    Kernels(kernels::Options),
    /// Asks a real server what its OpenAPI document allows and what it forbids; part of `./x test`
    Api {
        /// Cases of each operation and phase
        #[arg(long)]
        examples: Option<u32>,
        /// Another seed, other requests
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Measures: `handshake`, `agent`, `profile` (root) or `policy`
    Bench(bench::Args),
    /// Writes the generated files anew
    Codegen,
    /// Compares golden files; with --accept writes them
    Golden {
        /// Takes the new contents as right
        #[arg(long)]
        accept: bool,
    },
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("x: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `Ok(false)`: something failed and was reported.
fn run(args: Args) -> Result<bool> {
    std::env::set_current_dir(root()).context("cannot enter the workspace")?;
    let Some(verb) = args.verb else {
        Args::command().print_help()?;
        return Ok(true);
    };
    match verb {
        Verb::Demo { check, rest } => suite::demo(check, &rest),
        Verb::Test => suite::test(),
        Verb::Check { full } => check::check(full),
        Verb::Tidy => check::tidy(),
        Verb::Dev { rest } => Err(step::cargo(&["run", "-q", "-p", "stolos", "--", "dev"]).args(rest).replaces_us()),
        Verb::Fuzz { target, seconds } => fuzz::fuzz(target.as_deref(), seconds),
        Verb::Kernels(options) => kernels::kernels(&options),
        Verb::Api { examples, seed } => suite::api(examples, seed),
        Verb::Bench(args) => bench::bench(&args),
        Verb::Codegen => suite::golden(true),
        Verb::Golden { accept } => suite::golden(accept),
    }
}

/// The workspace's directory.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
