//! One file a verb. Each takes what was typed and answers on a [`crate::output::Screen`].

use api::kind::{self, Kind};

use crate::args::Verb;
use crate::failure::{C, Failure, Outcome};

mod agent;
mod apply;
mod audit;
mod authority;
mod cluster;
mod completion;
mod context;
mod delete;
mod describe;
mod dev;
mod diff;
mod doctor;
mod edit;
mod explain;
mod export;
mod find;
mod flows;
mod get;
mod label;
mod revoke;
mod run;
mod server;
mod status;
mod version;
mod wait;

/// Does what was typed.
pub(crate) fn run(verb: Verb) -> Outcome {
    match verb {
        Verb::Agent(verb) => agent::run(verb),
        Verb::Apply(args) => apply::run(args),
        Verb::Audit(verb) => audit::run(verb),
        Verb::Authority(verb) => authority::run(verb),
        Verb::Cluster(verb) => cluster::run(verb),
        Verb::Completion(args) => completion::run(args),
        Verb::Context(verb) => context::run(verb),
        Verb::Delete(args) => delete::run(args),
        Verb::Describe(args) => describe::run(args),
        Verb::Dev(args) => dev::run(args),
        Verb::Diff(args) => diff::run(args),
        Verb::Doctor(args) => doctor::run(args),
        Verb::Edit(args) => edit::run(args),
        Verb::Explain(verb) => explain::run(verb),
        Verb::Export(args) => export::run(args),
        Verb::Flows(args) => flows::run(args),
        Verb::Get(args) => get::run(args),
        Verb::Import(args) => export::import(args),
        Verb::Label(args) => label::run(args),
        Verb::Revoke(args) => revoke::run(args),
        Verb::Run(args) => run::run(args),
        Verb::Server(verb) => server::run(verb),
        Verb::Status(args) => status::run(args),
        Verb::Version => version::run(),
        Verb::Wait(args) => wait::run(args),
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
