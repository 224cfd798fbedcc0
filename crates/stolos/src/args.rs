//! What was typed: the command line as types, and nothing that depends on the machine.
//!
//! One enum of verbs; each verb's flags stand in a struct of its own, so that the help of a verb shows exactly what that
//! verb honours. `config.rs` turns this into what the verbs run with. Start reading at [`Args`].

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub(crate) use node::{AgentRun, AgentVerb, Dev, Doctor, Label, Run};
pub(crate) use operator::{
    Apply, AuthorityVerb, ClusterVerb, Delete, Explain, ExplainFlow, Flows, Get, JoinToken, Revoke, RevokeTarget,
    Status, Verdict,
};
pub(crate) use server::{ServerInit, ServerRun, ServerVerb};

mod node;
mod operator;
mod server;
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
#[command(after_help = "Every error has a code; `stolos explain code CODE` says what it means and what to do.\n\
    New here? `stolos dev` brings up a server and an agent on this machine and says what to try.")]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Everything `stolos` can be asked to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Set up and run the control plane
    #[command(subcommand, arg_required_else_help = true)]
    Server(ServerVerb),
    /// Run the node agent, and talk to the one on this machine
    #[command(subcommand, arg_required_else_help = true)]
    Agent(AgentVerb),
    /// Try it all on this one machine: a server and an agent, gone again on Ctrl-C
    Dev(Dev),
    /// Create or change objects from YAML or JSON manifests
    Apply(Apply),
    /// Show objects of one kind, or one object
    Get(Get),
    /// Delete an object, or everything that a manifest names
    Delete(Delete),
    /// Enrolment of clusters
    #[command(subcommand, arg_required_else_help = true)]
    Cluster(ClusterVerb),
    /// Say why: a flow's verdict, a code, or a field of a manifest
    #[command(subcommand, arg_required_else_help = true)]
    Explain(Explain),
    /// List connections as the nodes report them, with both identities and verdicts
    Flows(Flows),
    /// Server, roll-out, nodes, pending workloads, outage budget, unconfirmed revocations
    Status(Status),
    /// Check this machine: kernel, cgroups, agent, clock, what is not captured
    Doctor(Doctor),
    /// Cut off a workload, a node or a cluster, live connections included
    Revoke(Revoke),
    /// Change the labels of a running workload of this machine
    Label(Label),
    /// Start a program as a workload of its own
    Run(Run),
    /// Rotate the keys of the handshake
    #[command(subcommand, arg_required_else_help = true)]
    Authority(AuthorityVerb),
    /// Print the version
    Version,
}

/// How to reach the server, for every verb that asks it something.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Connection {
    /// Operator's configuration (`admin.yaml`, written by `stolos server init`)
    #[arg(long, value_name = "FILE", env = "STOLOS_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
}

/// Which namespace a verb works in.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Scope {
    /// Namespace path, for example /acme/prod (default: everywhere; / for writes)
    #[arg(short, long, value_name = "PATH", value_parser = value::namespace, env = "STOLOS_NAMESPACE", hide_env_values = true)]
    pub(crate) namespace: Option<String>,
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
