//! What an agent runs with.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use api::token::JoinToken;
use datapath::feature::Feature;

/// What an agent runs with. [`Config::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the desired state comes from.
    pub source: Source,
    /// Keys, the last state, the registry of workloads.
    pub data: PathBuf,
    /// The cgroup v2 directory that programs attach to; workloads lie below it.
    pub cgroup_root: PathBuf,
    /// Where programs and maps are pinned: a directory on a BPF file system.
    pub bpf_pin: PathBuf,
    /// The local socket.
    pub socket: PathBuf,
    /// A list of workloads that are always there (YAML), read at start and when it changes.
    pub declared: Option<PathBuf>,
    /// Kernel features to do without.
    pub force_off: BTreeSet<Feature>,
    /// The host workload is enforced like any other.
    pub protect_host: bool,
    /// Name to enrol under; `None` = the machine's host name.
    pub hostname: Option<String>,
    /// Addresses that this node's workloads share; `None` = those of the agent's network namespace.
    pub node_addresses: Option<Vec<std::net::IpAddr>>,
    /// Timers.
    pub timers: Timers,
}

/// Where the desired state comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A server. The token is needed for the first start only.
    Server {
        /// From `stolos cluster join-token`.
        join_token: Option<JoinToken>,
    },
    /// A file with a [`datapath::state::State`] as JSON, read at start; no server.
    File(PathBuf),
}

/// How often and how long.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    /// Flow records are sent this often.
    pub flows: Duration,
    /// Processes, addresses and empty cgroups are looked at this often.
    pub observe: Duration,
    /// The clock is compared with the server's, and the time floor written, this often.
    pub clock: Duration,
    /// First pause before a reconnect; it doubles up to [`Timers::reconnect_max`].
    pub reconnect_min: Duration,
    /// Longest pause before a reconnect.
    pub reconnect_max: Duration,
    /// What bypasses the programs is looked for this often.
    pub coverage: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            flows: Duration::from_secs(2),
            observe: Duration::from_secs(2),
            clock: Duration::from_secs(30),
            reconnect_min: Duration::from_millis(250),
            reconnect_max: Duration::from_secs(15),
            coverage: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// Defaults for a machine with one agent.
    pub fn new(source: Source) -> Self {
        Self {
            source,
            data: "/var/lib/stolos/agent".into(),
            cgroup_root: "/sys/fs/cgroup".into(),
            bpf_pin: "/sys/fs/bpf/stolos".into(),
            socket: api::local::SOCKET.into(),
            declared: None,
            force_off: BTreeSet::new(),
            protect_host: false,
            hostname: None,
            node_addresses: None,
            timers: Timers::default(),
        }
    }
}
