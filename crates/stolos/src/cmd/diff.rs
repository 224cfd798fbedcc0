//! `stolos diff`: how the live objects differ from files. The server says what it would store, so defaults are no difference.

use std::io::Write;

use api::apply::{ApplyRequest, ApplyResult};
use api::object::Object;
use similar::{ChangeTag, TextDiff};

use crate::args::{Diff, Output};
use crate::failure::{Failure, Outcome};
use crate::manifest;
use crate::output::{Ink, Screen, printable, yaml};
use crate::process;
use crate::server::Server;

/// Lines of context around a change.
const CONTEXT: usize = 3;

pub(crate) fn run(args: Diff) -> Outcome {
    let sources = manifest::read(&args.filename)?;
    manifest::check(&sources)?;
    let server = Server::configured(&args.connection, &args.scope)?;
    let request = ApplyRequest { sources, namespace: server.namespace().map(str::to_owned), ..ApplyRequest::default() };
    let mut screen = Screen::stdout(Output::Table);
    let differing = process::ask(async {
        let mut differing = 0;
        for ApplyResult { object, .. } in server.apply(&request, true).await?.results {
            let live = server.object(&object.key()).await?;
            differing += usize::from(show(&mut screen, live.as_ref(), &object)?);
        }
        Ok(differing)
    })?;
    match differing {
        0 => Ok(()),
        1 => Err(Failure::Reported("1 object differs".to_owned())),
        many => Err(Failure::Reported(format!("{many} objects differ"))),
    }
}

/// Shows the difference as a unified diff, if there is one.
fn show<W: Write>(screen: &mut Screen<W>, live: Option<&Object>, wanted: &Object) -> Result<bool, Failure> {
    let (old, new) = (live.map(authored).unwrap_or_default(), authored(wanted));
    if old == new {
        return Ok(false);
    }
    let key = wanted.key();
    let diff = TextDiff::from_lines(&old, &new);
    let from = if live.is_some() { format!("--- {key} (live)") } else { "--- (none)".to_owned() };
    screen.line(screen.paint(Ink::Head, &from))?;
    screen.line(screen.paint(Ink::Head, &format!("+++ {key}")))?;
    for hunk in diff.unified_diff().context_radius(CONTEXT).iter_hunks() {
        screen.line(hunk.header().to_string())?;
        for change in hunk.iter_changes() {
            let line = printable(change.value().trim_end_matches('\n'));
            screen.line(match change.tag() {
                ChangeTag::Delete => screen.paint(Ink::Bad, &format!("-{line}")),
                ChangeTag::Insert => screen.paint(Ink::Good, &format!("+{line}")),
                ChangeTag::Equal => format!(" {line}"),
            })?;
        }
    }
    Ok(true)
}

/// What its author wrote, as YAML.
pub(crate) fn authored(object: &Object) -> String {
    let mut object = object.clone();
    object.status = None;
    object.metadata.uid = None;
    object.metadata.revision = None;
    object.metadata.created = None;
    object.metadata.updated = None;
    yaml(&object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(revision: u64, action: &str) -> Object {
        serde_json::from_value(json!({"apiVersion": "stolos.dev/v1", "kind": "Policy",
            "metadata": {"namespace": "/acme", "name": "x", "revision": revision}, "spec": {"action": action}}))
        .unwrap()
    }

    fn shown(live: Option<&Object>, wanted: &Object) -> (bool, String) {
        let mut screen = Screen::to(Vec::new(), Output::Table);
        let differs = show(&mut screen, live, wanted).unwrap();
        (differs, String::from_utf8(screen.into_inner()).unwrap())
    }

    #[test]
    fn only_what_its_author_wrote_can_differ() {
        assert_eq!(shown(Some(&policy(7, "allow")), &policy(9, "allow")), (false, String::new()));
        let (differs, text) = shown(Some(&policy(7, "allow")), &policy(7, "deny"));
        assert!(differs && text.contains("-  action: allow\n+  action: deny\n"), "{text}");
        let (differs, text) = shown(None, &policy(0, "deny"));
        assert!(differs && text.starts_with("--- (none)\n+++ Policy /acme:x\n"), "{text}");
    }
}
