//! `stolos explain …`: the same word everywhere for "why".

use crate::args::Explain;
use crate::failure::Outcome;

mod code;
mod field;
mod flow;

pub(crate) fn run(verb: Explain) -> Outcome {
    match verb {
        Explain::Flow(args) => flow::run(args),
        Explain::Code { code, format } => code::run(&code, format),
        Explain::Field { path, schema: true, .. } => field::schema(&path),
        Explain::Field { path, format, .. } => field::run(&path, format),
    }
}
