//! Verbs that work on single objects and on files of them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use super::{Connection, Format, Scope, value};

/// `stolos describe`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  stolos describe namespace /acme/shop\n  stolos describe workload web")]
pub(crate) struct Describe {
    /// Kind of the object
    pub(crate) kind: String,
    /// Its name
    pub(crate) name: String,
    /// Where to look: this namespace and all below it
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `stolos edit`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The editor is VISUAL, else EDITOR, else vi. What cannot be stored is kept in a file, and the answer names it.\n\n\
    Example:\n  stolos edit policy web-to-db -n /acme/shop"
)]
pub(crate) struct Edit {
    /// Kind of the object
    pub(crate) kind: String,
    /// Its name
    pub(crate) name: String,
    /// Where to look: this namespace and all below it
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `stolos diff`
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status: 0 nothing differs, 1 something does, 2 and above as always.\n\n\
    Example:\n  stolos diff -f policies/")]
pub(crate) struct Diff {
    /// Manifest, directory, or - for standard input; repeatable
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub(crate) filename: Vec<PathBuf>,
    /// Where objects without metadata.namespace are
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `stolos wait`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  stolos wait workload web --for status.state=live\n  stolos wait policy old -n /acme --for deleted\n  \
    stolos wait rollout --timeout 2m"
)]
pub(crate) struct Wait {
    /// Kind of the object; or `rollout`: until every connected node enforces what is stored now
    pub(crate) kind: String,
    /// Its name
    pub(crate) name: Option<String>,
    /// exists, deleted, or FIELD=VALUE with the field as a path, for example status.state=live
    #[arg(long = "for", value_name = "WHAT", value_parser = value::condition, default_value = "exists")]
    pub(crate) until: value::Condition,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = value::duration)]
    pub(crate) timeout: Duration,
    /// Where to look: this namespace and all below it
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `stolos export`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "What agents report (nodes, workloads) is not exported; kinds of the whole fleet are with -n /.\n\n\
    Examples:\n  stolos export -n /acme >acme.yaml\n  stolos export -n /acme --out acme/\n  stolos import acme/ -n /acme --exact"
)]
pub(crate) struct Export {
    /// Write a file for each namespace into this directory, which must be absent or empty, instead of printing
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The subtree
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `stolos import`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "All of it is stored, or nothing.\n\nExample:\n  stolos import acme/ -n /acme --exact --dry-run"
)]
pub(crate) struct Import {
    /// Files or directories that `stolos export` wrote
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Make the subtree equal to the files: delete what they do not hold, in the same transaction
    #[arg(long)]
    pub(crate) exact: bool,
    /// Store nothing; show what would be done and which flows seen today would break
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The subtree
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Form of the answer
    #[command(flatten)]
    pub(crate) format: Format,
}

/// Verbs of the audit trail.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditVerb {
    /// Show who changed what, the newest last
    List(AuditList),
    /// Check here, entry by entry, that nothing was taken out, put in or altered
    Verify(AuditVerify),
}

/// `stolos audit list`
#[derive(Debug, clap::Args)]
#[command(after_help = "With -o json, what each object was before and is since.\n\n\
    Examples:\n  stolos audit list -n /acme --by admin\n  stolos audit list policy web-to-db -o json")]
pub(crate) struct AuditList {
    /// Only of this kind
    pub(crate) kind: Option<String>,
    /// Only of the object of this name
    pub(crate) name: Option<String>,
    /// Only acts of this subject
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    /// Only so many, the newest
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) last: u32,
    /// Only in this namespace and below it
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Form of the answer
    #[command(flatten)]
    pub(crate) format: Format,
}

/// `stolos audit verify`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The answer's last line names the end of the trail; kept elsewhere, it shows later whether the beginning \
    was written anew.\n\nExample:\n  stolos audit verify --since 4711:9f86d0…"
)]
pub(crate) struct AuditVerify {
    /// Begin after an entry that was checked before
    #[arg(long, value_name = "NUMBER:HASH", value_parser = value::anchor)]
    pub(crate) since: Option<(u64, api::audit::Fingerprint)>,
    /// How to reach the server
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Form of the answer
    #[command(flatten)]
    pub(crate) format: Format,
}
