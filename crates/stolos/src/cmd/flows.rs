//! `stolos flows`: connections as the nodes report them, both ends in one row.

use std::io::Write;

use api::flow::{FlowEnd, FlowList, FlowQuery, FlowRow, SideReport, Verdict};

use crate::args::{self, Flows, Output};
use crate::failure::Outcome;
use crate::output::{Columns, Ink, Screen, printable};
use crate::process;
use crate::server::Server;

pub(crate) fn run(args: Flows) -> Outcome {
    let server = Server::configured(&args.connection, &args.scope)?;
    let query = query(&args, server.namespace(), jiff::Timestamp::now());
    let mut screen = Screen::stdout(args.format.output);
    if args.follow {
        return process::follow(follow(&server, query, &mut screen));
    }
    let list = process::ask(server.flows(&query))?;
    screen.answer(&list, show)
}

fn query(args: &Flows, namespace: Option<&str>, now: jiff::Timestamp) -> FlowQuery {
    let (verdict, would) = match args.verdict {
        None => (None, None),
        Some(args::Verdict::Allow) => (Some(Verdict::Allow), Some(Verdict::Allow)),
        Some(args::Verdict::Deny) => (Some(Verdict::Deny), None),
        Some(args::Verdict::WouldDeny) => (Some(Verdict::Allow), Some(Verdict::Deny)),
    };
    let since = args.since.and_then(|since| jiff::SignedDuration::try_from(since).ok());
    FlowQuery {
        from: args.from.clone(),
        to: args.to.clone(),
        limit: args.limit,
        namespace: namespace.map(str::to_owned),
        verdict,
        would,
        since: since.and_then(|since| now.checked_sub(since).ok()),
        follow: args.follow,
        ..FlowQuery::default()
    }
}

/// One line a row, as rows come and change, until the server or the reader ends it.
async fn follow(server: &Server, query: FlowQuery, screen: &mut Screen) -> Outcome {
    let mut rows = server.follow_flows(&query).await?;
    while let Some(row) = rows.next().await? {
        if screen.is_text() {
            screen.line(line(screen, &row))?;
            screen.flush()?;
        } else {
            screen.item(&row)?;
        }
    }
    Ok(())
}

/// Flows as a table; also the flows that a dry run would break.
pub(crate) fn table(rows: &[FlowRow], form: Output) -> Columns {
    let mut header = vec!["SEEN", "CLIENT", "SERVER", "PORT", "VERDICT", "N", "WHY"];
    let wide = form == Output::Wide;
    if wide {
        header.extend(["PROOF", "CLIENT-NODE", "SERVER-NODE", "DIALLED", "SENT", "RECEIVED", "ID"]);
    }
    let mut columns = Columns::new(header);
    for row in rows {
        let mut cells = vec![
            time(row),
            end(&row.client),
            end(&row.server),
            port(row),
            verdict(row).to_owned(),
            row.count.to_string(),
            why(row),
        ];
        if wide {
            let node = |end: &FlowEnd| end.node.clone().unwrap_or_default();
            let proof = serde_json::to_value(row.proof).ok();
            cells.extend([
                proof.and_then(|proof| proof.as_str().map(str::to_owned)).unwrap_or_default(),
                node(&row.client),
                node(&row.server),
                row.dialled.clone().unwrap_or_default(),
                row.bytes_to_server.to_string(),
                row.bytes_to_client.to_string(),
                row.id.to_string(),
            ]);
        }
        columns.row(cells);
    }
    columns
}

fn show<W: Write>(screen: &mut Screen<W>, list: &FlowList) -> Outcome {
    if list.items.is_empty() {
        screen.line("No flows.")?;
    }
    screen.table(&table(&list.items, screen.form()))?;
    if list.sampled_out > 0 {
        let text =
            format!("{} allowed flows were not recorded under pressure; refusals are all here.", list.sampled_out);
        screen.line(screen.paint(Ink::Warn, &text))?;
    }
    Ok(())
}

fn line<W: Write>(screen: &Screen<W>, row: &FlowRow) -> String {
    let word = verdict(row);
    let ink = match (row.verdict, row.would) {
        (Verdict::Deny, _) => Ink::Bad,
        (_, Verdict::Deny) => Ink::Warn,
        _ => Ink::Good,
    };
    let painted = screen.paint(ink, &format!("{word:<10}"));
    let why = match why(row) {
        why if why.is_empty() => why,
        why => format!("  ({why})"),
    };
    let text = format!("{} -> {} {}", end(&row.client), end(&row.server), port(row));
    format!("{}  {painted}  {}{}", time(row), printable(&text), printable(&why))
}

fn time(row: &FlowRow) -> String {
    row.last.strftime("%H:%M:%S").to_string()
}

/// `allow`, `deny`, or `would-deny` while somebody observes.
fn verdict(row: &FlowRow) -> &'static str {
    match (row.verdict, row.would) {
        (Verdict::Deny, _) => "deny",
        (Verdict::Allow, Verdict::Deny) => "would-deny",
        (Verdict::Allow, Verdict::Allow) => "allow",
    }
}

/// What an end is called: the workload with its cluster, the external network with the address, or the address.
fn end(end: &FlowEnd) -> String {
    let address = end.address.as_deref().unwrap_or("?");
    match (&end.workload, &end.cluster, end.external.first()) {
        (Some(workload), Some(cluster), _) => format!("{workload}@{cluster}"),
        (Some(workload), None, _) => workload.clone(),
        (None, _, Some(network)) => format!("{network} ({address})"),
        (None, _, None) => address.to_owned(),
    }
}

fn port(row: &FlowRow) -> String {
    if row.port == 0 { row.protocol.clone() } else { format!("{}/{}", row.protocol, row.port) }
}

/// Which side decided, and by what: of a refusal the side that refuses, of an allowed flow the policies.
fn why(row: &FlowRow) -> String {
    let sides = [("egress", &row.egress), ("ingress", &row.ingress)];
    let of = |side: &SideReport| match (&side.reason, &side.policy) {
        (Some(reason), Some(policy)) => format!("{reason} by {policy}"),
        (Some(reason), None) => reason.clone(),
        (None, Some(policy)) => policy.clone(),
        (None, None) => "default".to_owned(),
    };
    let refusing: Vec<String> = sides
        .iter()
        .filter_map(|(name, side)| side.as_ref().map(|side| (name, side)))
        .filter(|(_, side)| {
            (row.would == Verdict::Deny || row.verdict == Verdict::Deny) == (side.would == Verdict::Deny)
        })
        .map(|(name, side)| format!("{name}: {}", of(side)))
        .collect();
    refusing.join("; ")
}

#[cfg(test)]
mod tests {
    use api::flow::Proof;

    use super::*;

    fn workload(name: &str, cluster: &str) -> FlowEnd {
        FlowEnd { workload: Some(name.into()), cluster: Some(cluster.into()), ..FlowEnd::default() }
    }

    fn side(would: Verdict, reason: Option<&str>, policy: Option<&str>) -> Option<SideReport> {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Some(SideReport {
            verdict: Verdict::Allow,
            would,
            policy: text(policy),
            reason: text(reason),
            port: 6379,
            node: "n1".into(),
        })
    }

    fn row() -> FlowRow {
        let at = "2030-01-01T12:00:00Z".parse().unwrap();
        FlowRow {
            id: 7,
            client: workload("/acme/cron", "eu-1"),
            server: workload("/acme/db", "us-1"),
            protocol: "tcp".into(),
            port: 6379,
            dialled: None,
            verdict: Verdict::Allow,
            would: Verdict::Deny,
            egress: side(Verdict::Allow, None, Some("/acme:open")),
            ingress: side(Verdict::Deny, Some("default-deny"), None),
            proof: Proof::Proved,
            count: 1,
            bytes_to_server: 0,
            bytes_to_client: 0,
            first: at,
            last: at,
            closed: false,
        }
    }

    #[test]
    fn a_row_names_both_identities_the_verdict_and_the_side_that_decides() {
        let mut screen = Screen::to(Vec::new(), Output::Table);
        let list = FlowList { items: vec![row()], sampled_out: 0 };
        show(&mut screen, &list).unwrap();
        assert_eq!(
            String::from_utf8(screen.into_inner()).unwrap(),
            "SEEN      CLIENT           SERVER         PORT      VERDICT     N  WHY\n\
             12:00:00  /acme/cron@eu-1  /acme/db@us-1  tcp/6379  would-deny  1  ingress: default-deny\n"
        );
    }

    #[test]
    fn a_followed_row_is_one_line() {
        let screen = Screen::to(Vec::new(), Output::Table);
        assert_eq!(
            line(&screen, &row()),
            "12:00:00  would-deny  /acme/cron@eu-1 -> /acme/db@us-1 tcp/6379  (ingress: default-deny)"
        );
    }

    #[test]
    fn an_external_end_is_named_by_its_network_and_address() {
        let client =
            FlowEnd { external: vec!["/acme:office".into()], address: Some("192.0.2.7".into()), ..FlowEnd::default() };
        assert_eq!(end(&client), "/acme:office (192.0.2.7)");
        assert_eq!(end(&FlowEnd::default()), "?");
    }
}
