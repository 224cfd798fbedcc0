//! How a verb answers: tables for people, JSON and YAML for machines.
//!
//! Machines get the API's own types through serde, so that the two forms are one contract; people get columns without
//! borders, made for `grep` and `awk` as much as for eyes. Colour only on a terminal, never with `NO_COLOR`.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json_path::JsonPath;

use crate::args::Output;
use crate::failure::Failure;

/// Where answers go: standard output in a chosen form.
pub(crate) struct Screen<W: Write = io::Stdout> {
    out: W,
    form: Output,
    colour: bool,
}

impl Screen {
    /// Standard output.
    pub(crate) fn stdout(form: Output) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = !no_colour && io::stdout().is_terminal();
        Self { out: io::stdout(), form, colour }
    }
}

impl<W: Write> Screen<W> {
    /// Any writer, without colour.
    #[cfg(test)]
    pub(crate) fn to(out: W, form: Output) -> Self {
        Self { out, form, colour: false }
    }

    /// What was written, for tests.
    #[cfg(test)]
    pub(crate) fn into_inner(self) -> W {
        self.out
    }

    /// The chosen form.
    pub(crate) fn form(&self) -> Output {
        self.form
    }

    /// True when people read it.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self.form, Output::Table | Output::Wide)
    }

    /// One answer: `text` writes it for people, serde for machines.
    pub(crate) fn answer<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&mut Self, &T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self.form {
            Output::Table | Output::Wide => text(self, value)?,
            Output::Json => self.json(value, Layout::Pretty)?,
            Output::Yaml => self.yaml(value)?,
            Output::Path(path) => self.picked(value, path)?,
        }
        Ok(self.out.flush()?)
    }

    /// One item of an answer that has no end: a JSON line, or a YAML document.
    pub(crate) fn item<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        match self.form {
            Output::Yaml => {
                self.line("---")?;
                self.yaml(value)?;
            }
            Output::Path(path) => self.picked(value, path)?,
            _ => self.json(value, Layout::Line)?,
        }
        Ok(self.out.flush()?)
    }

    fn json<T: Serialize>(&mut self, value: &T, layout: Layout) -> Result<(), Failure> {
        let text = match layout {
            Layout::Pretty => serde_json::to_string_pretty(value),
            Layout::Line => serde_json::to_string(value),
        };
        let text = text.unwrap_or_else(|error| panic!("BUG: an answer does not serialise: {error}"));
        Ok(writeln!(self.out, "{text}")?)
    }

    fn yaml<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = yaml(value);
        Ok(write!(self.out, "{text}{}", if text.ends_with('\n') { "" } else { "\n" })?)
    }

    /// What an expression picks, one value a line; text as it is, so that scripts need not unquote it.
    fn picked<T: Serialize>(&mut self, value: &T, path: &JsonPath) -> Result<(), Failure> {
        let value =
            serde_json::to_value(value).unwrap_or_else(|error| panic!("BUG: an answer does not serialise: {error}"));
        for node in path.query(&value).all() {
            match node.as_str() {
                Some(text) => self.line(printable(text))?,
                None => self.json(node, Layout::Line)?,
            }
        }
        Ok(())
    }

    /// A line of text.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{}", text.as_ref())?)
    }

    /// Rows below a header. Nothing at all is printed for no rows; say so with [`Screen::line`] where it matters.
    pub(crate) fn table(&mut self, columns: &Columns) -> Result<(), Failure> {
        self.columns(columns, true)
    }

    /// Rows without the header, under one that was written before.
    pub(crate) fn rows(&mut self, columns: &Columns) -> Result<(), Failure> {
        self.columns(columns, false)
    }

    fn columns(&mut self, columns: &Columns, headed: bool) -> Result<(), Failure> {
        if columns.rows.is_empty() {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
        table.set_header(columns.header.iter());
        for row in &columns.rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text = table.trim_fmt();
        // The header still makes the columns wide enough to stand below an earlier one.
        self.line(if headed { &text } else { text.split_once('\n').map_or("", |(_, rows)| rows) })
    }

    /// Text in a colour, where colours are wanted.
    pub(crate) fn paint(&self, ink: Ink, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", ink.code()) } else { text.to_owned() }
    }

    /// Makes every byte written so far visible.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}

/// JSON on one line or on many.
enum Layout {
    Line,
    Pretty,
}

/// YAML of a value, with a line feed at its end.
pub(crate) fn yaml<T: Serialize>(value: &T) -> String {
    serde_saphyr::to_string(value).unwrap_or_else(|error| panic!("BUG: an answer does not serialise: {error}"))
}

/// Header and rows of a table.
pub(crate) struct Columns {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// An empty table with these columns.
    pub(crate) fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Self { header: header.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// One more row; an empty cell is shown as `-`, control characters as `?`, so that a peer's name cannot paint.
    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let cell = |cell: S| match cell.into() {
            text if text.is_empty() => "-".to_owned(),
            text => printable(&text),
        };
        self.rows.push(cells.into_iter().map(cell).collect());
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// Text with control characters replaced by `?`.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Text broken at blanks so that no line is wider than 96 columns, each line after `indent`.
pub(crate) fn wrap(text: &str, indent: &str) -> String {
    let mut lines = vec![String::from(indent)];
    for word in text.split_whitespace() {
        let line = lines.last_mut().unwrap_or_else(|| panic!("BUG: there is always a line"));
        if line.len() == indent.len() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() > 96 {
            lines.push(format!("{indent}{word}"));
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// A colour with a meaning.
#[derive(Clone, Copy)]
pub(crate) enum Ink {
    /// Allowed, sound.
    Good,
    /// Refused, broken.
    Bad,
    /// Needs a look.
    Warn,
    /// A heading.
    Head,
}

impl Ink {
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "31",
            Self::Warn => "33",
            Self::Head => "1",
        }
    }
}

/// How long ago, for a column: `3s`, `5m`, `2h`, `4d`; `now` below a second and for clocks that run ahead.
pub(crate) fn age(then: jiff::Timestamp, now: jiff::Timestamp) -> String {
    match now.as_second() - then.as_second() {
        ..1 => "now".to_owned(),
        seconds @ 1..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A duration as people type it: `10m`, `1h 30m`.
pub(crate) fn printed(period: std::time::Duration) -> String {
    match jiff::SignedDuration::try_from(period) {
        Ok(period) => format!("{period:#}"),
        Err(_) => format!("{period:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_printed_as_people_type_them() {
        assert_eq!(printed(std::time::Duration::from_secs(600)), "10m");
        assert_eq!(printed(std::time::Duration::from_secs(5400)), "1h 30m");
    }

    fn written(form: Output, write: impl FnOnce(&mut Screen<Vec<u8>>) -> Result<(), Failure>) -> String {
        let mut screen = Screen::to(Vec::new(), form);
        write(&mut screen).expect("a vector takes every byte");
        String::from_utf8(screen.into_inner()).expect("we write UTF-8")
    }

    #[derive(Serialize)]
    struct Pair {
        name: &'static str,
        port: u16,
    }

    #[test]
    fn tables_have_no_borders_and_no_trailing_blanks() {
        let text = written(Output::Table, |screen| {
            let mut columns = Columns::new(["NAME", "PORT"]);
            columns.row(["web", "80"]);
            columns.row(["redis-server", ""]);
            screen.table(&columns)
        });
        assert_eq!(text, "NAME          PORT\nweb           80\nredis-server  -\n");
    }

    #[test]
    fn machines_get_the_same_value_in_both_forms() {
        let pair = Pair { name: "web", port: 80 };
        let never = |_: &mut Screen<Vec<u8>>, _: &Pair| panic!("people are not asked");
        assert_eq!(
            written(Output::Json, |screen| screen.answer(&pair, never)),
            "{\n  \"name\": \"web\",\n  \"port\": 80\n}\n"
        );
        assert_eq!(written(Output::Yaml, |screen| screen.answer(&pair, never)), "name: web\nport: 80\n");
        assert_eq!(written(Output::Json, |screen| screen.item(&pair)), "{\"name\":\"web\",\"port\":80}\n");
    }

    #[test]
    fn an_expression_picks_values_one_a_line() {
        let Ok(form) = crate::args::value::output("jsonpath=$[*].name") else { panic!("it parses") };
        let pairs = [Pair { name: "web", port: 80 }, Pair { name: "a\nb", port: 81 }];
        assert_eq!(written(form, |screen| screen.answer(&pairs, |_, _| panic!("people are not asked"))), "web\na?b\n");
        let Ok(form) = crate::args::value::output("jsonpath={.port}") else { panic!("it parses") };
        assert_eq!(written(form, |screen| screen.item(&pairs[0])), "80\n");
    }

    #[test]
    fn a_hostile_name_cannot_paint_the_terminal() {
        let text = written(Output::Table, |screen| {
            let mut columns = Columns::new(["NAME"]);
            columns.row(["\x1b[2Jweb\n"]);
            screen.table(&columns)
        });
        assert!(!text.contains('\x1b'), "{text:?}");
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn long_text_is_broken_at_blanks() {
        let text = wrap(&"word ".repeat(40), "  ");
        assert!(text.lines().all(|line| line.len() <= 96 && line.starts_with("  word")), "{text}");
        assert_eq!(text.split_whitespace().count(), 40);
        assert_eq!(wrap("", "  "), "  ");
    }

    #[test]
    fn ages_are_short() {
        let now: jiff::Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let ago = |seconds: i64| age(now - jiff::SignedDuration::from_secs(seconds), now);
        assert_eq!([ago(-5), ago(3), ago(300), ago(7200), ago(400_000)], ["now", "3s", "5m", "2h", "4d"]);
    }
}
