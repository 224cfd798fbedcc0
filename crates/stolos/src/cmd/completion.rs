//! `stolos completion`: a script that lets a shell complete verbs, flags and kinds.

use std::io::{self, Write};

use clap::CommandFactory;

use crate::args::{Args, Completion};
use crate::failure::Outcome;

pub(crate) fn run(args: Completion) -> Outcome {
    // Into memory first: the generator panics where a pipe closes early.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "stolos", &mut script);
    Ok(io::stdout().write_all(&script)?)
}
