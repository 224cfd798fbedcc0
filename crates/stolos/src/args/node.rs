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
    /// Run the agent until SIGINT or SIGTERM; enforcement stays in the kernel when it ends
    Run(Box<AgentRun>),
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

/// `stolos agent run`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  stolos agent run --join-token-file /etc/stolos/join-token\n  \
    stolos agent run --state /etc/stolos/state.json     # no server: the whole state from a file")]
pub(crate) struct AgentRun {
    /// Join token for the first start (from `stolos cluster join-token`); not needed once enrolled
    #[arg(long, value_name = "FILE", env = "STOLOS_JOIN_TOKEN_FILE", hide_env_values = true, conflicts_with = "state")]
    pub(crate) join_token_file: Option<PathBuf>,
    /// Enforce the state in this file, without any server
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Keys, and the last state from the server
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/stolos/agent",
        env = "STOLOS_AGENT_DATA",
        hide_env_values = true
    )]
    pub(crate) data: PathBuf,
    /// The cgroup v2 directory below which workloads are enforced (default: where cgroup v2 is mounted)
    #[arg(long, value_name = "DIR", env = "STOLOS_CGROUP_ROOT", hide_env_values = true)]
    pub(crate) cgroup_root: Option<PathBuf>,
    /// Where programs and maps are pinned, on a BPF file system
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/sys/fs/bpf/stolos",
        env = "STOLOS_BPF_PIN",
        hide_env_values = true
    )]
    pub(crate) bpf_pin: PathBuf,
    /// The agent's socket
    #[command(flatten)]
    pub(crate) socket: Socket,
    /// Workloads that are always there (YAML: name, cgroup or unit, labels), read anew when it changes
    #[arg(long, value_name = "FILE", env = "STOLOS_WORKLOADS", hide_env_values = true)]
    pub(crate) workloads: Option<PathBuf>,
    /// Name to enrol under (default: the host name)
    #[arg(long, value_name = "NAME", value_parser = value::name)]
    pub(crate) node_name: Option<String>,
    /// An address that this node's workloads share (default: those of its network); repeatable
    #[arg(long = "node-address", value_name = "ADDR")]
    pub(crate) node_addresses: Vec<std::net::IpAddr>,
    /// Enforce what runs in no workload, too (ssh and system services included)
    #[arg(long)]
    pub(crate) protect_host: bool,
    /// Treat a feature of the kernel as absent (as `stolos doctor` names it); repeatable
    #[arg(long, value_name = "FEATURE")]
    pub(crate) force_off: Vec<String>,
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

/// `stolos dev`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  stolos dev\n  stolos dev --data ./stolos-dev    # kept for the next time")]
pub(crate) struct Dev {
    /// Keep server and agent data here (default: a temporary directory, removed at the end)
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Address and port of the server
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7443")]
    pub(crate) listen: std::net::SocketAddr,
    /// Server only: no agent, no root needed
    #[arg(long)]
    pub(crate) no_agent: bool,
    /// The cgroup v2 directory to make its own cgroup in, `stolos-dev` (default: where cgroup v2 is mounted)
    #[arg(long, value_name = "DIR", env = "STOLOS_CGROUP_ROOT", hide_env_values = true)]
    pub(crate) cgroup_root: Option<PathBuf>,
    /// Where programs and maps are pinned, on a BPF file system; removed at the end
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/sys/fs/bpf/stolos-dev",
        env = "STOLOS_BPF_PIN",
        hide_env_values = true
    )]
    pub(crate) bpf_pin: PathBuf,
}
