//! `stolos version`

use crate::args::Output;
use crate::failure::Outcome;
use crate::output::Screen;

pub(crate) fn run() -> Outcome {
    Screen::stdout(Output::Table).line(concat!("stolos ", env!("CARGO_PKG_VERSION")))
}
