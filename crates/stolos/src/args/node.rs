//! Verbs for the machine one sits at: the agent, and what speaks to its socket.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use super::{Format, value};

/// Where the agent of this machine listens.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Socket {
    /// The agent's socket (root only)
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/stolos/agent.sock",
        env = "STOLOS_SOCKET",
        hide_env_values = true
    )]
    pub(crate) socket: PathBuf,
}

/// Verbs of the node agent.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentVerb {
    /// Break-glass: take enforcement off this node (recorded, alarmed)
    #[command(after_help = "Example:\n  stolos agent detach --for 10m")]
    Detach {
        /// How to reach the agent
        #[command(flatten)]
        socket: Socket,
        /// Put enforcement back after this time; without it, only `stolos agent attach` does
        #[arg(long = "for", value_name = "TIME", value_parser = value::duration)]
        period: Option<Duration>,
    },
    /// Put enforcement back on this node
    #[command(after_help = "Example:\n  stolos agent attach")]
    Attach {
        /// How to reach the agent
        #[command(flatten)]
        socket: Socket,
    },
    /// What the agent of this machine is doing
    #[command(after_help = "Example:\n  stolos agent status -o json")]
    Status {
        /// How to reach the agent
        #[command(flatten)]
        socket: Socket,
        /// Form of the answer
        #[command(flatten)]
        format: Format,
    },
}

/// `stolos run`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The program keeps this shell's input, output, environment and directory; its exit status is its own.\n\n\
    Example:\n  stolos run --name web --label app=web -- nginx -g 'daemon off;'"
)]
pub(crate) struct Run {
    /// Name of the workload (default: the program's name)
    #[arg(long, value_parser = value::name)]
    pub(crate) name: Option<String>,
    /// A label of the workload; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = value::label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Namespace, relative to the cluster's
    #[arg(long, value_name = "REL", value_parser = value::relative_namespace)]
    pub(crate) namespace: Option<String>,
    /// How long to wait for the fleet to know the workload before starting anyway, with a warning
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = value::duration)]
    pub(crate) wait: Duration,
    /// How to reach the agent
    #[command(flatten)]
    pub(crate) socket: Socket,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// `stolos label`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  stolos label web tier=front beta-")]
pub(crate) struct Label {
    /// Name or uid of a workload of this machine
    pub(crate) workload: String,
    /// KEY=VALUE sets, KEY- removes
    #[arg(required = true, value_name = "CHANGE", value_parser = value::label_change)]
    pub(crate) changes: Vec<value::LabelChange>,
    /// How to reach the agent
    #[command(flatten)]
    pub(crate) socket: Socket,
    /// Form of the answer
    #[command(flatten)]
    pub(crate) format: Format,
}

/// `stolos doctor`
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status 1 when a check failed.\n\n\
    Example:\n  stolos doctor --bundle /tmp/stolos-report.json")]
pub(crate) struct Doctor {
    /// Write everything support needs into this file (no keys, no tokens)
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,
    /// How to reach the agent
    #[command(flatten)]
    pub(crate) socket: Socket,
    /// Form of the answer
    #[command(flatten)]
    pub(crate) format: Format,
}
