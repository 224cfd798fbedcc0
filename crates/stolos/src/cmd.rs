//! One file a verb. Each takes what was typed and answers on a [`crate::output::Screen`].

use api::kind::{self, Kind};

use crate::args::Verb;
use crate::failure::{C, Failure, Outcome};

mod agent;
mod apply;
mod authority;
mod cluster;
mod delete;
mod dev;
mod doctor;
mod explain;
mod flows;
mod get;
mod label;
mod revoke;
mod run;
mod server;
mod status;
mod version;

/// Does what was typed.
pub(crate) fn run(verb: Verb) -> Outcome {
    match verb {
        Verb::Agent(verb) => agent::run(verb),
        Verb::Apply(args) => apply::run(args),
        Verb::Authority(verb) => authority::run(verb),
        Verb::Cluster(verb) => cluster::run(verb),
        Verb::Delete(args) => delete::run(args),
        Verb::Dev(args) => dev::run(args),
        Verb::Doctor(args) => doctor::run(args),
        Verb::Explain(verb) => explain::run(verb),
        Verb::Flows(args) => flows::run(args),
        Verb::Get(args) => get::run(args),
        Verb::Label(args) => label::run(args),
        Verb::Revoke(args) => revoke::run(args),
        Verb::Run(args) => run::run(args),
        Verb::Server(verb) => server::run(verb),
        Verb::Status(args) => status::run(args),
        Verb::Version => version::run(),
    }
}

/// The kind that a word names, in any of its forms; else a suggestion.
fn kind_named(word: &str) -> Result<&'static Kind, Failure> {
    kind::find(word).ok_or_else(|| {
        let near = kind::suggest(word).map(|kind| format!("did you mean `{}`? ", kind.name.to_lowercase()));
        Failure::usage(
            C::KIND_UNKNOWN,
            format!("there is no kind `{word}`"),
            format!("{}`stolos get` lists the kinds", near.unwrap_or_default()),
        )
    })
}
