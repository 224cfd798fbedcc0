//! Problems in what a user wrote: as data with a stable code and a place, then as text.
//!
//! A parser reports [`Problem`]s with byte spans of its own text; [`Diagnostic`] adds file, line and column.

use std::ops::Range;

use crate::code::Code;

/// One thing wrong with a piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its stable code.
    pub code: Code,
    /// One sentence: what is wrong, with the offending words.
    pub message: String,
    /// What to write instead, where that is known.
    pub help: Option<String>,
    /// Byte range in the text that was parsed; may be empty.
    pub span: Range<usize>,
}

impl Problem {
    /// A problem without advice.
    pub fn new(code: Code, span: Range<usize>, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, span }
    }

    /// Adds what to write instead.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
