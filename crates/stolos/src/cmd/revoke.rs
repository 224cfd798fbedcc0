//! `stolos revoke`: cut something off, and say what was cut and who confirmed.

use std::io::Write;
use std::time::{Duration, Instant};

use api::kind::revocation::{RevocationSpec, RevocationStatus, RevocationTarget as Target};
use api::object::{API_VERSION, Metadata, Object};
use api::report::Revoked;
use uuid::Uuid;

use crate::args::{Revoke, RevokeTarget};
use crate::failure::{C, Failure, Outcome};
use crate::output::{Columns, Ink, Screen, printed};
use crate::process;
use crate::server::Server;

/// How often the server is asked who has confirmed.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// After the last node confirmed: time for reports of what was cut to come in.
const SETTLE: Duration = Duration::from_millis(500);

pub(crate) fn run(args: Revoke) -> Outcome {
    let server = Server::configured(&args.connection, &Default::default())?;
    let object = object(&args, jiff::Timestamp::now())?;
    let revoked = process::ask(revoke(&server, object, &args))?;
    Screen::stdout(args.format.output).answer(&revoked, show)?;
    match revoked.unconfirmed.as_slice() {
        [] => Ok(()),
        nodes => Err(Failure::new(
            C::UNCONFIRMED,
            format!("{} did not confirm within {}", nodes.join(", "), printed(args.wait)),
            format!("`stolos get revocation {}` goes on showing who has", revoked.name),
        )),
    }
}

fn object(args: &Revoke, now: jiff::Timestamp) -> Result<Object<RevocationSpec>, Failure> {
    let name = Some(args.name.clone());
    let target = match args.target {
        RevokeTarget::Workload => Target { workload: name, ..Target::default() },
        RevokeTarget::Node => Target { node: name, ..Target::default() },
        RevokeTarget::Cluster => Target { cluster: name, ..Target::default() },
    };
    let expires = args.expires.map(|period| {
        let period = jiff::SignedDuration::try_from(period).ok();
        period.and_then(|period| now.checked_add(period).ok()).ok_or_else(|| {
            Failure::usage(C::USAGE, "--expires is further away than time goes", "leave it out: it ends when deleted")
        })
    });
    Ok(Object {
        api_version: API_VERSION.to_owned(),
        kind: "Revocation".to_owned(),
        metadata: Metadata { namespace: "/".to_owned(), name: object_name(args), ..Metadata::default() },
        spec: RevocationSpec { target, reason: Some(args.reason.clone()), expires: expires.transpose()? },
        status: None,
    })
}

/// A name that says what it is about and is taken by no other: `web-eu-1-5f3a9c01`.
fn object_name(args: &Revoke) -> String {
    let uid = Uuid::now_v7().simple().to_string();
    let about: String =
        args.name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let about: String = about.trim_matches('-').chars().take(40).collect();
    match about.trim_end_matches('-') {
        "" => format!("{}-{}", args.target.name(), &uid[24..]),
        about => format!("{about}-{}", &uid[24..]),
    }
}

fn untyped(object: &Object<RevocationSpec>) -> Object {
    let value = serde_json::to_value(object).and_then(serde_json::from_value);
    value.unwrap_or_else(|error| panic!("BUG: a Revocation is an object: {error}"))
}

async fn revoke(server: &Server, object: Object<RevocationSpec>, args: &Revoke) -> Result<Revoked, Failure> {
    let began = Instant::now();
    let mut stored = server.revoke(&untyped(&object)).await?;
    let mut settled: Option<Instant> = None;
    loop {
        let status = stored.status.clone().unwrap_or_default();
        // Right after the write nobody is listed yet, neither as confirmed nor as pending.
        let confirmed = status.pending.is_empty() && (!status.confirmed.is_empty() || began.elapsed() >= SETTLE);
        let settled = match confirmed {
            true => *settled.get_or_insert_with(Instant::now),
            false => *settled.insert(Instant::now()),
        };
        if settled.elapsed() >= SETTLE || began.elapsed() >= args.wait {
            return Ok(report(&stored, status, began.elapsed()));
        }
        tokio::time::sleep(ASK_EVERY).await;
        stored = server.revocation(&object.metadata.name).await?;
    }
}

fn report(stored: &Object<RevocationSpec, RevocationStatus>, status: RevocationStatus, took: Duration) -> Revoked {
    let name = stored.metadata.name.clone();
    Revoked {
        undo: format!("stolos delete revocation {name}"),
        name,
        matched: status.matched,
        connections_cut: status.cut.iter().map(|cut| u64::from(cut.connections)).sum(),
        cut: status.cut,
        confirmed: status.confirmed,
        unconfirmed: status.pending,
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    }
}

fn show<W: Write>(screen: &mut Screen<W>, revoked: &Revoked) -> Outcome {
    let plural = |count: u64, word: &str| if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") };
    match revoked.matched.as_slice() {
        [] => screen.line("It matches no workload now; workloads that it will match are cut off when they come.")?,
        matched => screen.line(format!("Cut off: {}", matched.join(", ")))?,
    }
    screen.line(format!(
        "{} ended; {} confirmed in {} ms.",
        plural(revoked.connections_cut, "live connection"),
        plural(revoked.confirmed.len() as u64, "node"),
        revoked.took_ms
    ))?;
    let mut columns = Columns::new(["NODE", "WORKLOAD", "CONNECTIONS"]);
    for cut in &revoked.cut {
        columns.row([cut.node.clone(), cut.workload.clone(), cut.connections.to_string()]);
    }
    screen.table(&columns)?;
    if !revoked.unconfirmed.is_empty() {
        let text = format!("Not confirmed by {}.", revoked.unconfirmed.join(", "));
        screen.line(screen.paint(Ink::Bad, &text))?;
    }
    screen.line(format!("\nTo undo it: {}", revoked.undo))
}

#[cfg(test)]
mod tests {
    use api::kind::revocation::CutReport;

    use super::*;
    use crate::args::Output;

    fn typed(name: &str) -> Revoke {
        Revoke {
            target: RevokeTarget::Workload,
            name: name.into(),
            reason: "leaked".into(),
            expires: Some(Duration::from_secs(60)),
            wait: Duration::from_secs(1),
            connection: Default::default(),
            format: Default::default(),
        }
    }

    #[test]
    fn the_object_has_the_target_the_reason_and_a_sound_name() {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        for name in ["web@eu-1", "/acme/shop/web", "//", "Ünï"] {
            let object = object(&typed(name), now).unwrap();
            assert!(crate::args::value::name(&object.metadata.name).is_ok(), "{}", object.metadata.name);
            assert_eq!(object.spec.target.workload.as_deref(), Some(name));
            assert_eq!(object.spec.expires.unwrap().to_string(), "2030-01-01T00:01:00Z");
        }
        let forever = Revoke { expires: Some(Duration::MAX), ..typed("web") };
        assert!(object(&forever, now).is_err());
    }

    #[test]
    fn the_answer_says_what_was_cut_who_confirmed_and_how_to_undo_it() {
        let cut = vec![CutReport { node: "n1".into(), workload: "/acme/web".into(), connections: 3 }];
        let revoked = Revoked {
            name: "web-1".into(),
            matched: vec!["/acme/web".into()],
            connections_cut: 3,
            cut,
            confirmed: vec!["n1".into()],
            unconfirmed: vec!["n2".into()],
            took_ms: 120,
            undo: "stolos delete revocation web-1".into(),
        };
        let mut screen = Screen::to(Vec::new(), Output::Table);
        show(&mut screen, &revoked).unwrap();
        assert_eq!(
            String::from_utf8(screen.into_inner()).unwrap(),
            "Cut off: /acme/web\n3 live connections ended; 1 node confirmed in 120 ms.\n\
             NODE  WORKLOAD   CONNECTIONS\nn1    /acme/web  3\n\
             Not confirmed by n2.\n\nTo undo it: stolos delete revocation web-1\n"
        );
    }
}
