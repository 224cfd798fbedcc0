//! What was typed: the command line as types, and nothing that depends on the machine.
//!
//! One enum of verbs; each verb's flags stand in a struct of its own, so that the help of a verb shows exactly what that
//! verb honours. `config.rs` turns this into what the verbs run with. Start reading at [`Args`].

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub(crate) use local::{Completion, ContextVerb};
pub(crate) use node::{AgentRun, AgentVerb, Dev, Doctor, Label, Run};
pub(crate) use object::{AuditList, AuditVerb, AuditVerify, Describe, Diff, Edit, Export, Import, Wait};
pub(crate) use operator::{
    Apply, AuthorityVerb, ClusterVerb, Delete, Explain, ExplainFlow, Flows, Get, JoinToken, Revoke, RevokeTarget,
    Status, Verdict,
};
pub(crate) use server::{ServerInit, ServerRun, ServerVerb};

mod local;
mod node;
mod object;
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
    /// Show everything about one object, and what it is bound up with
    Describe(Describe),
    /// Change one object in an editor
    Edit(Edit),
    /// Show how the live objects differ from manifests
    Diff(Diff),
    /// Write a subtree as files
    Export(Export),
    /// Take a subtree from files that `export` wrote
    Import(Import),
    /// Who changed what, and whether the record of it was touched
    #[command(subcommand, arg_required_else_help = true)]
    Audit(AuditVerb),
    /// Wait until an object is as it should be, or until the fleet enforces what is stored
    Wait(Wait),
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
    /// Keep several servers and credentials by name, and say which is the current one
    #[command(subcommand, arg_required_else_help = true)]
    Context(ContextVerb),
    /// Print a completion script for a shell
    Completion(Completion),
    /// Print the version
    Version,
}

/// How to reach the server, for every verb that asks it something.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Connection {
    /// Operator's configuration (`admin.yaml`, written by `stolos server init`)
    #[arg(long, value_name = "FILE", env = "STOLOS_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// Kept server and credential to use (`stolos context list`); goes before --config
    #[arg(long, value_name = "NAME", env = "STOLOS_CONTEXT", hide_env_values = true)]
    pub(crate) context: Option<String>,
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
    /// Form of the answer: table, wide, json, yaml, or jsonpath=EXPR (RFC 9535) for parts of the JSON
    #[arg(short, long, value_name = "FORM", value_parser = value::output, default_value = "table", hide_default_value = true)]
    pub(crate) output: Output,
}

/// A form of output. The command line lives as long as the process, so an expression is kept for good.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
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
    /// What an expression picks out of the JSON: one value a line, text without quotes
    Path(&'static serde_json_path::JsonPath),
}

#[cfg(test)]
mod tests;
