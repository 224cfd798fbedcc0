//! `stolos explain code`: the page of a stable code, or the list of all.

use std::io::Write;

use policy::code::{self, Code};
use serde::Serialize;

use crate::args::Format;
use crate::failure::{C, Failure, Outcome};
use crate::output::{Columns, Ink, Screen, wrap};

/// A code for machines.
#[derive(Serialize)]
struct Page {
    code: &'static str,
    title: &'static str,
    meaning: &'static str,
    mend: &'static str,
}

impl From<&'static Code> for Page {
    fn from(code: &'static Code) -> Self {
        Self { code: code.id, title: code.title, meaning: code.meaning, mend: code.mend }
    }
}

pub(crate) fn run(id: &str, format: Format) -> Outcome {
    let mut screen = Screen::stdout(format.output);
    if id.eq_ignore_ascii_case("all") {
        let pages: Vec<Page> = code::all().map(Page::from).collect();
        return screen.answer(&pages, list);
    }
    let page = Page::from(code::find(id).ok_or_else(|| unknown(id))?);
    screen.answer(&page, show)
}

fn unknown(id: &str) -> Failure {
    let near = code::suggest(id).map(|code| format!("did you mean {} ({})? ", code.id, code.title)).unwrap_or_default();
    Failure::usage(
        C::CODE_UNKNOWN,
        format!("there is no code `{id}`"),
        format!("{near}`stolos explain code all` lists every code"),
    )
}

fn list<W: Write>(screen: &mut Screen<W>, pages: &Vec<Page>) -> Outcome {
    let mut columns = Columns::new(["CODE", "TITLE"]);
    for page in pages {
        columns.row([page.code, page.title]);
    }
    screen.table(&columns)
}

fn show<W: Write>(screen: &mut Screen<W>, page: &Page) -> Outcome {
    let head = screen.paint(Ink::Head, &format!("{}: {}", page.code, page.title));
    screen.line(head)?;
    screen.line("")?;
    screen.line(wrap(page.meaning, "  "))?;
    screen.line("")?;
    screen.line("What to do")?;
    screen.line(wrap(page.mend, "  "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Output;

    #[test]
    fn a_page_says_what_it_means_and_what_to_do() {
        let mut screen = Screen::to(Vec::new(), Output::Table);
        show(&mut screen, &Page { code: "P1", title: "a title", meaning: "It means.", mend: "Do it." }).unwrap();
        let text = String::from_utf8(screen.into_inner()).unwrap();
        assert_eq!(text, "P1: a title\n\n  It means.\n\nWhat to do\n  Do it.\n");
    }

    #[test]
    fn an_unknown_code_suggests_a_near_one() {
        assert!(unknown("P1O02").to_string().contains("did you mean P1002"));
        assert!(unknown("hello").to_string().contains("lists every code"));
    }

    #[test]
    fn every_code_of_this_crate_has_a_page() {
        for id in C::ALL {
            assert!(code::find(id).is_some(), "{id} has no page in policy::code");
        }
        assert_eq!(code::all().filter(|code| code.id.starts_with("C6")).count(), C::ALL.len(), "a page without a use");
    }
}
