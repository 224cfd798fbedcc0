//! Verbs that ask nobody: what is kept on this machine, and the shell.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Format, value};

/// Verbs of contexts.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextVerb {
    /// Show the contexts that are kept
    List {
        /// Form of the answer
        #[command(flatten)]
        format: Format,
    },
    /// Keep a copy of an operator's configuration under a name; the first one becomes current
    #[command(after_help = "Example:\n  stolos context add prod --from admin.yaml -n /acme")]
    Add {
        /// Name: lower-case letters, digits, `-` and `.`
        #[arg(value_parser = value::name)]
        name: String,
        /// The `admin.yaml` to copy
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Where verbs work in this context when no namespace is typed
        #[arg(short, long, value_name = "PATH", value_parser = value::namespace)]
        namespace: Option<String>,
    },
    /// Make a context the current one
    #[command(after_help = "Example:\n  stolos context use prod -n /acme/shop")]
    Use {
        /// Its name
        name: String,
        /// And from now on work in this namespace
        #[arg(short, long, value_name = "PATH", value_parser = value::namespace)]
        namespace: Option<String>,
    },
    /// Print the current context's name
    Current,
    /// Forget a context and its credentials
    Remove {
        /// Its name
        name: String,
    },
}

/// `stolos completion`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  source <(stolos completion bash)\n  \
    stolos completion zsh >~/.zfunc/_stolos\n  stolos completion fish >~/.config/fish/completions/stolos.fish")]
pub(crate) struct Completion {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}
