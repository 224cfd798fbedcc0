//! `stolos explain flow`: both sides' judgement, and the smallest rule that would allow it.

use std::io::Write;

use api::explain::{ExplainAnswer, ExplainRequest, ExplainedEnd, ExplainedSide};
use api::flow::Verdict;
use api::kind::namespace::Mode;

use crate::args::ExplainFlow;
use crate::failure::Outcome;
use crate::output::{Ink, Screen, printable};
use crate::process;
use crate::server::Server;

pub(crate) fn run(args: ExplainFlow) -> Outcome {
    let server = Server::configured(&args.connection, &Default::default())?;
    let request =
        ExplainRequest { from: args.from, to: args.to.end, port: format!("{}/{}", args.protocol.name(), args.to.port) };
    let answer = process::ask(server.explain(&request))?;
    Screen::stdout(args.format.output).answer(&answer, show)
}

fn show<W: Write>(screen: &mut Screen<W>, answer: &ExplainAnswer) -> Outcome {
    let word = match (answer.verdict, answer.would) {
        (Verdict::Deny, _) => screen.paint(Ink::Bad, "DENY"),
        (Verdict::Allow, Verdict::Deny) => screen.paint(Ink::Warn, "ALLOW while observed, DENY once enforced"),
        (Verdict::Allow, Verdict::Allow) => screen.paint(Ink::Good, "ALLOW"),
    };
    let ends = format!("{} -> {} {}", end(&answer.from), end(&answer.to), answer.port);
    screen.line(format!("{}: {word}", printable(&ends)))?;
    side(screen, "client's side", answer.egress.as_ref())?;
    side(screen, "server's side", answer.ingress.as_ref())?;
    screen.line(format!("\nThe port is checked by: {}", printable(&answer.port_checked_by)))?;
    for node in &answer.behind {
        let text = format!("Not yet everywhere: this is revision {}, and {node}", answer.revision);
        screen.line(screen.paint(Ink::Warn, &printable(&text)))?;
    }
    rules(screen, answer)
}

fn end(end: &ExplainedEnd) -> String {
    let place: Vec<&str> = [&end.node, &end.cluster].into_iter().filter_map(|part| part.as_deref()).collect();
    if place.is_empty() { end.name.clone() } else { format!("{} ({})", end.name, place.join(", ")) }
}

fn side<W: Write>(screen: &mut Screen<W>, title: &str, side: Option<&ExplainedSide>) -> Outcome {
    let Some(side) = side else {
        return screen.line(format!("\n{title}: external, it has no say"));
    };
    let head = screen.paint(Ink::Head, title);
    let mode = match side.mode {
        Mode::Observe => "observes",
        Mode::Enforce => "enforces",
    };
    screen.line(format!("\n{head}: {} {mode}", printable(&side.namespace)))?;
    let ink = if side.would == Verdict::Deny { Ink::Bad } else { Ink::Good };
    let verdict = screen.paint(ink, &side.would.to_string());
    let by =
        side.policy.as_deref().map(|policy| format!("policy {policy}")).unwrap_or_else(|| "the default".to_owned());
    let reason = match (&side.reason, &side.code) {
        (Some(reason), Some(code)) => format!(" ({reason}, {code})"),
        (Some(reason), None) => format!(" ({reason})"),
        _ => String::new(),
    };
    screen.line(format!("  {verdict} by {}", printable(&format!("{by}{reason}"))))?;
    for missing in &side.missing {
        screen.line(format!("  missing: {}", printable(missing)))?;
    }
    Ok(())
}

/// The smallest rules, each once, ready for `stolos apply -f -`.
fn rules<W: Write>(screen: &mut Screen<W>, answer: &ExplainAnswer) -> Outcome {
    let sides = [answer.egress.as_ref(), answer.ingress.as_ref()];
    let mut rules: Vec<&str> = sides.iter().flatten().filter_map(|side| side.smallest_rule.as_deref()).collect();
    rules.dedup();
    if rules.is_empty() {
        return Ok(());
    }
    screen.line("\nThe smallest rule that would allow it (for `stolos apply -f -`):")?;
    for rule in rules {
        screen.line("---")?;
        for line in rule.lines().filter(|line| *line != "---") {
            screen.line(printable(line))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Output;

    #[test]
    fn both_sides_the_missing_attribute_and_the_rule_are_shown() {
        let judged = |would, policy: Option<&str>, rule: Option<&str>| ExplainedSide {
            namespace: "/acme".into(),
            mode: Mode::Enforce,
            would,
            policy: policy.map(str::to_owned),
            reason: policy.is_none().then(|| "default-deny".into()),
            code: policy.is_none().then(|| "P1002".into()),
            missing: if policy.is_none() { vec!["client lacks app=web".into()] } else { Vec::new() },
            smallest_rule: rule.map(str::to_owned),
        };
        let named = |name: &str| ExplainedEnd { name: name.into(), node: Some("n1".into()), ..ExplainedEnd::default() };
        let answer = ExplainAnswer {
            from: named("/acme/cron"),
            to: named("/acme/db"),
            port: "tcp/6379".into(),
            verdict: Verdict::Deny,
            would: Verdict::Deny,
            egress: Some(judged(Verdict::Allow, Some("/acme:open"), None)),
            ingress: Some(judged(Verdict::Deny, None, Some("kind: Policy\nspec: {}\n"))),
            port_checked_by: "the server's node".into(),
            revision: 3,
            behind: vec![api::explain::NodeBehind { node: "n1".into(), revision: 2, connected: false }],
            text: String::new(),
        };
        let mut screen = Screen::to(Vec::new(), Output::Table);
        show(&mut screen, &answer).unwrap();
        let text = String::from_utf8(screen.into_inner()).unwrap();
        assert_eq!(
            text,
            "/acme/cron (n1) -> /acme/db (n1) tcp/6379: DENY\n\n\
             client's side: /acme enforces\n  allow by policy /acme:open\n\n\
             server's side: /acme enforces\n  deny by the default (default-deny, P1002)\n  missing: client lacks app=web\n\n\
             The port is checked by: the server's node\n\
             Not yet everywhere: this is revision 3, and n1 enforces revision 2, and it is not connected\n\n\
             The smallest rule that would allow it (for `stolos apply -f -`):\n---\nkind: Policy\nspec: {}\n"
        );
    }
}
