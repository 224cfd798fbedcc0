//! Verbs that ask the server.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use super::{Connection, Format, Scope, value};

/// `stolos apply`
#[derive(Debug, clap::Args)]
#[command(after_help = "Nothing is stored unless every document of every file is sound.\n\n\
    Examples:\n  stolos apply -f policies/ -f namespace.yaml\n  stolos apply --dry-run -f deny-cron.yaml\n  \
    cat web.yaml | stolos apply -f -")]
pub(crate) struct Apply {
    /// Manifest (several documents allowed), directory of *.yaml, *.yml, *.json, or - for standard input; repeatable
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub(crate) filename: Vec<PathBuf>,
    /// Store nothing; list the flows seen today that would break
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Delete what this owner applied before and the manifests hold no more, in the same transaction
    #[arg(long, requires = "owner")]
    pub(crate) prune: bool,
    /// Mark every object as applied by this owner (label stolos.dev/owner)
    #[arg(long, value_name = "NAME", value_parser = value::name)]
    pub(crate) owner: Option<String>,
    /// Where objects without metadata.namespace go
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Form of the answer
    #[command(flatten)]
    pub(crate) format: Format,
}

/// `stolos get`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  stolos get policies -n /acme -l team=web\n  \
    stolos get workload web.node-1 -o yaml\n  stolos get nodes --watch\n  \
    stolos get policies -o jsonpath='$.items[*].metadata.name'")]
pub(crate) struct Get {
    /// Kind: policy, policies, Policy, …; without it, the kinds there are
    pub(crate) kind: Option<String>,
    /// Name of one object
    pub(crate) name: Option<String>,
    /// Only objects whose own labels fit, for example team=web,tier in (a,b),!legacy
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Go on showing changes as they come, until Ctrl-C
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Where to look: this namespace and all below it
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Form of the answer
    #[command(flatten)]
    pub(crate) format: Format,
}

/// `stolos delete`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  stolos delete policy web-to-db -n /acme\n  stolos delete -f policies.yaml")]
pub(crate) struct Delete {
    /// Kind of the object
    #[arg(required_unless_present = "filename", requires = "name")]
    pub(crate) kind: Option<String>,
    /// Name of the object
    pub(crate) name: Option<String>,
    /// Delete what this manifest names; repeatable
    #[arg(short, long = "filename", value_name = "FILE", conflicts_with = "kind")]
    pub(crate) filename: Vec<PathBuf>,
    /// The object's namespace
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Verbs of clusters.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterVerb {
    /// Print a one-time token with which one node can join
    JoinToken(JoinToken),
}

/// `stolos cluster join-token`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The token is a secret until it is spent. It carries the fingerprint of the server's authority.\n\n\
    Example:\n  stolos cluster join-token eu-1 --out /etc/stolos/join-token"
)]
pub(crate) struct JoinToken {
    /// Name of the Cluster object
    pub(crate) cluster: String,
    /// How long it can be used: one minute to seven days (default: one hour)
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub(crate) ttl: Option<Duration>,
    /// Name of the node that joins with it (default: the node's host name)
    #[arg(long, value_name = "NAME", value_parser = value::name)]
    pub(crate) node: Option<String>,
    /// Write it to this file (mode 0600) instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Verbs that say why.
#[derive(Debug, Subcommand)]
pub(crate) enum Explain {
    /// Why a connection is allowed or refused, for each side, and the smallest rule that would allow it
    Flow(ExplainFlow),
    /// What a code means and what to do
    #[command(after_help = "Example:\n  stolos explain code P1002")]
    Code {
        /// The code, for example P1002; or `all`
        code: String,
        /// Form of the answer
        #[command(flatten)]
        format: Format,
    },
    /// What a field of a manifest means
    #[command(after_help = "Examples:\n  stolos explain field policy.spec\n  \
        stolos explain field policy --schema >policy.schema.json\n\n\
        Editors that know the YAML language server check a manifest that begins with\n  \
        # yaml-language-server: $schema=policy.schema.json")]
    Field {
        /// Kind, and fields joined by dots
        #[arg(value_name = "KIND[.FIELD…]")]
        path: String,
        /// The JSON schema of the whole kind, for editors
        #[arg(long)]
        schema: bool,
        /// Form of the answer
        #[command(flatten)]
        format: Format,
    },
}

/// `stolos explain flow`
#[derive(Debug, clap::Args)]
#[command(after_help = "A workload is written NAME, NAME@CLUSTER, NAME@NODE, /NAMESPACE/NAME or its uid.\n\n\
    Example:\n  stolos explain flow web db:5432")]
pub(crate) struct ExplainFlow {
    /// The client
    pub(crate) from: String,
    /// The server and its port: the one its socket is bound to
    #[arg(value_name = "TO:PORT", value_parser = value::endpoint)]
    pub(crate) to: value::Endpoint,
    /// Transport protocol
    #[arg(long, value_enum, default_value_t = Protocol::Tcp)]
    pub(crate) protocol: Protocol,
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Form of the answer
    #[command(flatten)]
    pub(crate) format: Format,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Protocol {
    /// The name as the API writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// `stolos flows`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  stolos flows --since 10m --verdict deny\n  stolos flows --from cron --to db --limit 5\n  stolos flows --follow -n /acme -o json"
)]
pub(crate) struct Flows {
    /// Go on showing flows as they are reported, until Ctrl-C
    #[arg(short = 'F', long)]
    pub(crate) follow: bool,
    /// Only flows seen within this time
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub(crate) since: Option<Duration>,
    /// Only flows with this verdict, or that enforcing would refuse
    #[arg(long, value_enum)]
    pub(crate) verdict: Option<Verdict>,
    /// Only flows of this client: a workload (also one that has ended), an external network or an address
    #[arg(long, value_name = "END")]
    pub(crate) from: Option<String>,
    /// Only flows to this server
    #[arg(long, value_name = "END")]
    pub(crate) to: Option<String>,
    /// Only so many, the newest (default: 1000, at most 10000)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000), conflicts_with = "follow")]
    pub(crate) limit: Option<u32>,
    /// Only flows with an end in this namespace or below it
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Form of the answer
    #[command(flatten)]
    pub(crate) format: Format,
}

/// A verdict to filter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verdict {
    /// Allowed, and would be when enforced
    Allow,
    /// Refused
    Deny,
    /// Allowed while observing; enforcing would refuse it
    WouldDeny,
}

/// `stolos status`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  stolos status -o json")]
pub(crate) struct Status {
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Form of the answer
    #[command(flatten)]
    pub(crate) format: Format,
}

/// `stolos revoke`
#[derive(Debug, clap::Args)]
#[command(after_help = "Undo it by deleting the Revocation; the answer names it.\n\n\
    Example:\n  stolos revoke workload web@eu-1 --reason 'key leaked, ticket 4711'")]
pub(crate) struct Revoke {
    /// What kind of thing to cut off
    #[arg(value_enum)]
    pub(crate) target: RevokeTarget,
    /// Which one: a workload as NAME, NAME@CLUSTER, NAME@NODE, /NAMESPACE/NAME or uid; a node or cluster by name
    pub(crate) name: String,
    /// Why; kept with the Revocation
    #[arg(long)]
    pub(crate) reason: String,
    /// End the revocation after this time
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub(crate) expires: Option<Duration>,
    /// How long to wait for the nodes to confirm
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = value::duration)]
    pub(crate) wait: Duration,
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Form of the answer
    #[command(flatten)]
    pub(crate) format: Format,
}

/// What can be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RevokeTarget {
    /// One workload
    Workload,
    /// A node and every workload on it
    Node,
    /// A cluster, its nodes and their workloads
    Cluster,
}

impl RevokeTarget {
    /// The field of a Revocation's target.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Node => "node",
            Self::Cluster => "cluster",
        }
    }
}

/// Verbs of the authority.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthorityVerb {
    /// Have every node make a new handshake key; used once every peer has it
    #[command(after_help = "Example:\n  stolos authority rotate-node-keys")]
    RotateNodeKeys(Rotate),
    /// Make a new fleet key (the filter for SYNs); used once every node has it
    #[command(after_help = "Example:\n  stolos authority rotate-fleet-key")]
    RotateFleetKey(Rotate),
}

/// A rotation of keys.
#[derive(Debug, clap::Args)]
pub(crate) struct Rotate {
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Form of the answer
    #[command(flatten)]
    pub(crate) format: Format,
}
