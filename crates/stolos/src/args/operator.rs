//! Verbs that ask the server.

use clap::Subcommand;

use super::Format;

/// Verbs that say why.
#[derive(Debug, Subcommand)]
pub(crate) enum Explain {
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
    #[command(after_help = "Example:\n  stolos explain field policy.spec")]
    Field {
        /// Kind, and fields joined by dots
        #[arg(value_name = "KIND[.FIELD…]")]
        path: String,
        /// Form of the answer
        #[command(flatten)]
        format: Format,
    },
}
