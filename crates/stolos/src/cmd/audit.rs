//! `stolos audit`: who changed what; and whether anybody touched the record of it. The check is done here, so that the server
//! need not be believed.

use std::io::Write;

use api::audit::{AuditEntry, Verifier};
use serde::Serialize;

use crate::args::{AuditList, AuditVerb, AuditVerify};
use crate::failure::{C, Failure, Outcome};
use crate::output::{Columns, Ink, Screen};
use crate::process;
use crate::server::Server;

/// Records that are asked for at a time.
const PAGE: u32 = 1000;

/// What a check found.
#[derive(Debug, Serialize)]
struct Verified {
    /// How many entries were checked.
    entries: u64,
    /// The last one's number.
    sequence: u64,
    /// Its hash.
    hash: Option<String>,
}

pub(crate) fn run(verb: AuditVerb) -> Outcome {
    match verb {
        AuditVerb::List(args) => list(args),
        AuditVerb::Verify(args) => verify(args),
    }
}

fn list(args: AuditList) -> Outcome {
    let server = Server::configured(&args.connection, &args.scope)?;
    let wanted = |entry: &AuditEntry| fits(entry, &args, server.namespace());
    let entries = process::ask(async {
        let mut after = 0;
        let mut found: Vec<AuditEntry> = Vec::new();
        loop {
            let page = server.audit(after, PAGE).await?;
            for record in &page.items {
                let entry: AuditEntry = serde_json::from_str(&record.entry).map_err(|_| server.strange())?;
                after = entry.sequence;
                if wanted(&entry) {
                    found.push(entry);
                }
            }
            let surplus = found.len().saturating_sub(args.last as usize);
            found.drain(..surplus);
            if page.items.len() < PAGE as usize {
                return Ok(found);
            }
        }
    })?;
    Screen::stdout(args.format.output).answer(&entries, show)
}

fn fits(entry: &AuditEntry, args: &AuditList, namespace: Option<&str>) -> bool {
    let path = entry.object.path();
    let inside = |outer: &str| {
        let rest = path.strip_prefix(outer.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    namespace.is_none_or(inside)
        && args.by.as_ref().is_none_or(|by| entry.by.name == *by)
        && args
            .kind
            .as_ref()
            .is_none_or(|word| api::kind::find(word).is_some_and(|kind| kind.name == entry.object.kind))
        && args.name.as_ref().is_none_or(|name| entry.object.name == *name)
}

fn show<W: Write>(screen: &mut Screen<W>, entries: &Vec<AuditEntry>) -> Outcome {
    if entries.is_empty() {
        return screen.line("No entries.");
    }
    let mut table = Columns::new(["NUMBER", "AT", "WHO", "FROM", "ACTION", "OBJECT", "REVISION"]);
    for entry in entries {
        table.row([
            entry.sequence.to_string(),
            entry.at.strftime("%FT%TZ").to_string(),
            entry.by.name.clone(),
            entry.by.from.map(|from| from.to_string()).unwrap_or_default(),
            entry.action.clone(),
            entry.object.to_string(),
            entry.revision.map(|revision| revision.to_string()).unwrap_or_default(),
        ]);
    }
    screen.table(&table)
}

fn verify(args: AuditVerify) -> Outcome {
    let server = Server::configured(&args.connection, &Default::default())?;
    let mut verifier = match &args.since {
        Some((sequence, hash)) => Verifier { sequence: *sequence, hash: Some(*hash) },
        None => Verifier::default(),
    };
    let begun = verifier.sequence;
    process::ask(async {
        loop {
            let page = server.audit(verifier.sequence, PAGE).await?;
            for record in &page.items {
                verifier.check(record).map_err(|broken| {
                    Failure::new(
                        C::TRAIL_BROKEN,
                        format!("the audit trail does not hold: {broken}"),
                        "keep the database and its backups as they are, and compare with a copy of the trail",
                    )
                })?;
            }
            if page.items.len() < PAGE as usize {
                return Ok(());
            }
        }
    })?;
    let verified = Verified {
        entries: verifier.sequence - begun,
        sequence: verifier.sequence,
        hash: verifier.hash.map(|hash| hash.to_string()),
    };
    Screen::stdout(args.format.output).answer(&verified, |screen, verified| {
        let good = screen.paint(Ink::Good, "The trail holds");
        let Some(hash) = &verified.hash else { return screen.line(format!("{good}: it has no entries.")) };
        screen.line(format!("{good}: {} entries checked.", verified.entries))?;
        screen.line(format!("To check from here on: stolos audit verify --since {}:{hash}", verified.sequence))
    })
}

#[cfg(test)]
mod tests {
    use api::audit::Actor;
    use api::object::ObjectKey;

    use super::*;
    use crate::args::Output;

    fn entry(key: ObjectKey) -> AuditEntry {
        AuditEntry {
            sequence: 7,
            at: jiff::Timestamp::UNIX_EPOCH,
            by: Actor { name: "ada".into(), credential: "certificate".into(), from: "192.0.2.1".parse().ok() },
            action: "updated".into(),
            revision: None,
            object: key,
            before: None,
            after: None,
            detail: None,
        }
    }

    #[test]
    fn entries_are_one_line_each() {
        let mut screen = Screen::to(Vec::new(), Output::Table);
        show(&mut screen, &vec![entry(ObjectKey::new("Policy", "/acme", "x"))]).unwrap();
        let text = String::from_utf8(screen.into_inner()).unwrap();
        assert!(text.ends_with("7       1970-01-01T00:00:00Z  ada  192.0.2.1  updated  Policy /acme:x  -\n"), "{text}");
    }

    #[test]
    fn entries_are_picked_by_subtree_author_and_object() {
        let args = |line: &[&str]| {
            use clap::Parser;
            #[derive(Parser)]
            struct Only {
                #[command(flatten)]
                list: AuditList,
            }
            Only::parse_from(std::iter::once(&"x").chain(line)).list
        };
        let policy = entry(ObjectKey::new("Policy", "/acme/shop", "x"));
        assert!(fits(&policy, &args(&[]), Some("/acme")) && fits(&policy, &args(&[]), Some("/")));
        assert!(!fits(&policy, &args(&[]), Some("/acm")));
        assert!(fits(&policy, &args(&["pol", "x", "--by", "ada"]), None));
        assert!(!fits(&policy, &args(&["pol", "y"]), None) && !fits(&policy, &args(&["--by", "eve"]), None));
    }
}
