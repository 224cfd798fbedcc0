//! `stolos apply`: create or change objects, all of them or none.

use std::io::Write;

use api::apply::{ApplyRequest, ApplyResponse, Prune};

use crate::args::Apply;
use crate::cmd::flows;
use crate::failure::Outcome;
use crate::manifest;
use crate::output::{Ink, Screen};
use crate::process;
use crate::server::Server;

pub(crate) fn run(args: Apply) -> Outcome {
    let sources = manifest::read(&args.filename)?;
    manifest::check(&sources)?;
    let server = Server::configured(&args.connection, &args.scope)?;
    let namespace = server.namespace().map(str::to_owned);
    let prune = args.prune.then(|| Prune { owner: args.owner.clone(), namespace: args.scope.namespace.clone() });
    let request = ApplyRequest { sources, namespace, prune, owner: args.owner };
    let response = process::ask(server.apply(&request, args.dry_run))?;
    manifest::report(&response.diagnostics);
    Screen::stdout(args.format.output).answer(&response, show)
}

pub(crate) fn show<W: Write>(screen: &mut Screen<W>, response: &ApplyResponse) -> Outcome {
    let would = if response.dry_run { " (dry run)" } else { "" };
    for result in &response.results {
        screen.line(format!("{} {}{would}", result.object.key(), result.outcome))?;
    }
    if !response.dry_run {
        return Ok(());
    }
    if response.would_break.is_empty() {
        return screen.line("\nNo flow seen of late would break.");
    }
    let count = response.would_break.len();
    let head = format!("\n{count} flow{} seen of late would break:", if count == 1 { "" } else { "s" });
    screen.line(screen.paint(Ink::Bad, &head))?;
    screen.table(&flows::table(&response.would_break, screen.form()))
}

#[cfg(test)]
mod tests {
    use api::apply::{ApplyOutcome, ApplyResult};
    use api::object::Object;

    use super::*;
    use crate::args::Output;

    fn shown(dry_run: bool) -> String {
        let object: Object =
            serde_json::from_value(serde_json::json!({"apiVersion": "stolos.dev/v1", "kind": "Policy",
            "metadata": {"namespace": "/acme", "name": "web-to-db"}, "spec": {}}))
            .unwrap();
        let results = vec![ApplyResult { object, outcome: ApplyOutcome::Created }];
        let mut screen = Screen::to(Vec::new(), Output::Table);
        show(&mut screen, &ApplyResponse { results, dry_run, ..ApplyResponse::default() }).unwrap();
        String::from_utf8(screen.into_inner()).unwrap()
    }

    #[test]
    fn each_object_says_what_was_done_with_it() {
        assert_eq!(shown(false), "Policy /acme:web-to-db created\n");
        assert_eq!(shown(true), "Policy /acme:web-to-db created (dry run)\n\nNo flow seen of late would break.\n");
    }
}
