//! The one binary, `stolos`: server, agent and the operator's command line.
//!
//! `args.rs` is what was typed, `config.rs` what a verb needs of the machine, `cmd/` has one file a verb, `output.rs`
//! writes answers and `failure.rs` says how verbs fail. Nothing here decides anything about traffic: it asks the server
//! (`api::client`) or the agent of this machine (`agent_socket.rs`).

#![forbid(unsafe_code)]

mod agent_socket;
mod answer;
mod args;
mod cmd;
mod config;
mod failure;
mod launch;
mod manifest;
mod output;
mod process;
mod reach;
mod server;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::failure::{C, Failure};

fn main() -> ExitCode {
    // The HTTP client asks the process for its cryptography. Fails only where it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    match cmd::run(args.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure);
            failure.exit_code()
        }
    }
}

/// Help, version, or what is wrong with the command line, with its code. Exit status 0 or 2.
fn usage(error: &clap::Error) -> ExitCode {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let rendered = error.render();
    if !error.use_stderr() {
        let colour = !plain && std::io::stdout().is_terminal();
        let text = if colour { rendered.ansi().to_string() } else { rendered.to_string() };
        // A reader that has gone away has read what it wanted.
        let _ = std::io::stdout().write_all(text.as_bytes());
        return ExitCode::SUCCESS;
    }
    let text = rendered.to_string();
    let text = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => text,
        _ => text.replacen("error:", &format!("error[{}]:", C::USAGE), 1),
    };
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(2)
}

fn report(failure: &Failure) {
    let text = failure.to_string();
    if !text.is_empty() {
        // Where standard error is gone there is nobody left to tell.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}
