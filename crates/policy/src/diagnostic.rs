//! Problems in what a user wrote: as data with a stable code and a place, then as text.
//!
//! A parser reports [`Problem`]s with byte spans of its own text; [`Diagnostic`] adds file, line and column, and
//! [`render`] shows the place.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::code::Code;

/// Longest piece of a source line, in bytes, that a rendered diagnostic shows on either side of its place.
const EXCERPT_MAX: usize = 200;

/// Whether what was written is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It is refused.
    Error,
    /// It is taken; somebody should look at it.
    Warning,
}

/// One thing wrong with a piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether it is refused for that.
    pub severity: Severity,
    /// Its stable code.
    pub code: Code,
    /// One sentence: what is wrong, with the offending words.
    pub message: String,
    /// What to write instead, where that is known.
    pub help: Option<String>,
    /// The field in its document, as in `spec.from[0]`.
    pub field: Option<String>,
    /// Byte range in the text that was parsed; may be empty.
    pub span: Range<usize>,
}

impl Problem {
    /// An error without advice.
    pub fn new(code: Code, span: Range<usize>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { severity: Severity::Error, code, message, help: None, field: None, span }
    }

    /// Adds what to write instead.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says in which field it is.
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Makes it a warning.
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Adds the place in a file.
    pub fn locate(self, file: Option<&str>, source: &str) -> Diagnostic {
        let (line, column) = line_and_column(source, self.span.start);
        Diagnostic { problem: self, file: file.map(str::to_owned), line, column }
    }
}

/// A problem and where in which file it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong; its span counts bytes of the file.
    pub problem: Problem,
    /// The file, as its author calls it.
    pub file: Option<String>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// Line and column, both from 1, of a byte offset; the column counts characters.
pub fn line_and_column(source: &str, offset: usize) -> (u32, u32) {
    let before = source.get(..offset.min(source.len())).unwrap_or(source);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (count(before.matches('\n').count() + 1), count(before[start..].chars().count() + 1))
}

/// How a diagnostic is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Plain characters.
    Plain,
    /// With terminal colours.
    Colour,
}

/// The diagnostics with the places they are about, in the form that compilers use.
pub fn render(diagnostics: &[Diagnostic], source: &str, style: Style) -> String {
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Colour => Renderer::styled(),
    };
    let texts: Vec<String> = diagnostics.iter().map(|d| render_one(d, source, &renderer)).collect();
    texts.join("\n\n")
}

fn render_one(diagnostic: &Diagnostic, source: &str, renderer: &Renderer) -> String {
    let problem = &diagnostic.problem;
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let (excerpt, span) = excerpt(source, problem.span.clone());
    let mut snippet =
        Snippet::source(excerpt).line_start(diagnostic.line as usize).annotation(AnnotationKind::Primary.span(span));
    if let Some(file) = &diagnostic.file {
        snippet = snippet.path(printable(file));
    }
    let title = printable(&problem.message);
    let mut group = level.primary_title(title).id(problem.code.id).element(snippet);
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(printable(help)));
    }
    renderer.render(&[group])
}

/// The line of a place, cut to a bearable length, and the place in it.
fn excerpt(source: &str, span: Range<usize>) -> (String, Range<usize>) {
    let start = floor(source, span.start);
    let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = source[start..].find('\n').map_or(source.len(), |at| start + at);
    let from = floor(source, line_start.max(start.saturating_sub(EXCERPT_MAX)));
    let to = floor(source, line_end.min(start + EXCERPT_MAX));
    let end = floor(source, span.end).clamp(start, to);
    // One byte for one: spans stay right, and control characters of a hostile file never reach a terminal.
    let text: String = source[from..to].chars().map(|c| if c.is_ascii_control() { ' ' } else { c }).collect();
    (text, start - from..end - from)
}

fn floor(source: &str, at: usize) -> usize {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::manifest::SELECTOR_SYNTAX;

    #[test]
    fn places_count_lines_and_characters() {
        assert_eq!(line_and_column("ab\ncd", 0), (1, 1));
        assert_eq!(line_and_column("ab\ncd", 4), (2, 2));
        assert_eq!(line_and_column("ä\nöx", 5), (2, 2));
        assert_eq!(line_and_column("", 9), (1, 1));
    }

    #[test]
    fn a_rendered_problem_shows_code_place_and_help() {
        let source = "spec:\n  from: [\"app==\"]\n";
        let problem = Problem::new(SELECTOR_SYNTAX, 15..20, "a value is missing").help("write `app=\"\"`");
        let text = render(&[problem.locate(Some("shop.yaml"), source)], source, Style::Plain);
        insta::assert_snapshot!(text, @r#"
        error[P2101]: a value is missing
         --> shop.yaml:2:10
          |
        2 |   from: ["app=="]
          |          ^^^^^
          |
          = help: write `app=""`
        "#);
    }

    #[test]
    fn hostile_text_reaches_no_terminal() {
        let source = format!("a: \u{1b}[2J{}", "x".repeat(1000));
        let problem = Problem::new(SELECTOR_SYNTAX, 3..900, "bad\u{1b}[2J");
        let text = render(&[problem.locate(None, &source)], &source, Style::Plain);
        assert!(!text.contains('\u{1b}'));
        assert!(text.lines().all(|line| line.len() < 600));
    }
}
