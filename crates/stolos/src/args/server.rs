//! `stolos server …`: the control plane.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Subcommand;

/// Verbs of the control plane.
#[derive(Debug, Subcommand)]
pub(crate) enum ServerVerb {
    /// Create the authority, the store and the operator's certificate in an empty directory
    Init(ServerInit),
    /// Run the control plane until SIGINT or SIGTERM
    Run(ServerRun),
}

/// `stolos server init`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  stolos server init --data /var/lib/stolos/server --listen 0.0.0.0:7443 \\\n    \
    --name control.example.net --trust-domain example.net")]
pub(crate) struct ServerInit {
    /// Directory for keys and data; must be absent or empty
    #[arg(long, value_name = "DIR", env = "STOLOS_SERVER_DATA", hide_env_values = true)]
    pub(crate) data: PathBuf,
    /// Address and port on which agents and operators reach the server
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7443")]
    pub(crate) listen: SocketAddr,
    /// DNS name or address for the server's certificate; repeatable; the first one stands in join tokens and admin.yaml
    #[arg(long = "name", value_name = "DNS-OR-IP")]
    pub(crate) names: Vec<String>,
    /// The root of every identity: spiffe://TRUST-DOMAIN/…
    #[arg(long, value_name = "TD", default_value = "stolos.local")]
    pub(crate) trust_domain: String,
    /// The database, as in postgres://stolos@db.example.net/stolos; a file in the directory unless given. Better without
    /// a password: see PGPASSFILE
    #[arg(long, value_name = "URL", env = "STOLOS_STORE", hide_env_values = true)]
    pub(crate) store: Option<String>,
    /// Key file of the first server: makes the directory of one more server of the control plane in the database
    #[arg(long, value_name = "FILE", conflicts_with = "trust_domain")]
    pub(crate) seal_key: Option<PathBuf>,
}

/// `stolos server run`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  stolos server run --data /var/lib/stolos/server")]
pub(crate) struct ServerRun {
    /// The directory that `stolos server init` wrote
    #[arg(long, value_name = "DIR", env = "STOLOS_SERVER_DATA", hide_env_values = true)]
    pub(crate) data: PathBuf,
    /// The database, instead of the one in server.yaml
    #[arg(long, value_name = "URL", env = "STOLOS_STORE", hide_env_values = true)]
    pub(crate) store: Option<String>,
    /// Listen here instead of where `init` was told
    #[arg(long, value_name = "ADDR:PORT", env = "STOLOS_SERVER_LISTEN", hide_env_values = true)]
    pub(crate) listen: Option<SocketAddr>,
}
