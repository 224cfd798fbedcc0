//! What was typed: the command line as types, and nothing that depends on the machine.
//!
//! One enum of verbs; each verb's flags stand in a struct of its own, so that the help of a verb shows exactly what that
//! verb honours. `config.rs` turns this into what the verbs run with. Start reading at [`Args`].

use clap::{Parser, Subcommand};

pub(crate) use node::{AgentVerb, Doctor, Label, Run};
pub(crate) use operator::Explain;

mod node;
mod operator;
pub(crate) mod value;

/// Identity-based zero trust for fleets: who may reach what is written on identities, never on addresses.
#[derive(Debug, Parser)]
#[command(
    name = "stolos",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
#[command(after_help = "Every error has a code; `stolos explain code CODE` says what it means and what to do.")]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Everything `stolos` can be asked to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the node agent, and talk to the one on this machine
    #[command(subcommand, arg_required_else_help = true)]
    Agent(AgentVerb),
    /// Say why: a flow's verdict, a code, or a field of a manifest
    #[command(subcommand, arg_required_else_help = true)]
    Explain(Explain),
    /// Check this machine: kernel, cgroups, agent, clock, what is not captured
    Doctor(Doctor),
    /// Change the labels of a running workload of this machine
    Label(Label),
    /// Start a program as a workload of its own
    Run(Run),
    /// Print the version
    Version,
}

/// In which form a verb answers.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Format {
    /// Form of the answer; json and yaml are stable for machines
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t = Output::Table, hide_default_value = true)]
    pub(crate) output: Output,
}

/// A form of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// Columns for people
    #[default]
    Table,
    /// More columns for people
    Wide,
    /// JSON; one document, or one a line where the answer has no end
    Json,
    /// YAML
    Yaml,
}

#[cfg(test)]
mod tests;
