//! `stolos get`: objects of one kind, or one object; without a kind, the kinds there are.

use std::io::Write;

use api::kind::KINDS;
use api::object::Object;

use crate::args::{Get, Output};
use crate::cmd::find::{called, no_such};
use crate::cmd::kind_named;
use crate::failure::Outcome;
use crate::output::{Columns, Screen};
use crate::process;
use crate::server::Server;

mod columns;
mod watch;

pub(crate) fn run(args: Get) -> Outcome {
    let mut screen = Screen::stdout(args.format.output);
    let Some(word) = &args.kind else {
        return kinds(&mut screen);
    };
    let kind = kind_named(word)?;
    let server = Server::configured(&args.connection, &args.scope)?;
    let labels = args.selector.as_deref();
    if args.watch {
        return process::follow(watch::follow(&mut screen, &server, kind, args.name.as_deref(), labels));
    }
    let list = process::ask(server.list(kind, labels))?;
    let Some(name) = &args.name else {
        let all = screen.form() == Output::Wide;
        return screen.answer(&list, |screen, list| match list.items.as_slice() {
            [] => screen.line(format!("No {}.", kind.plural)),
            items => screen.table(&columns::table(kind, items, all)),
        });
    };
    let found: Vec<Object> = list.items.iter().filter(|object| called(object, name)).cloned().collect();
    let all = screen.form() == Output::Wide;
    match found.as_slice() {
        [] => Err(no_such(kind, name, server.namespace(), &list.items)),
        [one] => screen.answer(one, |screen, one| screen.table(&columns::table(kind, std::slice::from_ref(one), all))),
        many => screen.answer(&many, |screen, many| screen.table(&columns::table(kind, many, all))),
    }
}

fn kinds<W: Write>(screen: &mut Screen<W>) -> Outcome {
    let rows: Vec<_> = KINDS
        .iter()
        .map(|kind| serde_json::json!({"kind": kind.name, "words": kind.aliases, "about": kind.about}))
        .collect();
    screen.answer(&rows, |screen, _| {
        let mut columns = Columns::new(["KIND", "WORDS", "ABOUT"]);
        for kind in KINDS {
            let words: Vec<&str> = std::iter::once(kind.plural).chain(kind.aliases.iter().copied()).collect();
            columns.row([kind.name, &words.join(", "), kind.about]);
        }
        screen.table(&columns)
    })
}
