//! `stolos agent …`: run the agent, or talk to the one of this machine.

use std::io::Write;

use api::local::{Detach, Enforcement, Status};
use reqwest::Method;

use crate::agent_socket::AgentSocket;
use crate::args::{AgentVerb, Output};
use crate::failure::Outcome;
use crate::output::{Columns, Ink, Screen, age, printable, printed};
use crate::process;

pub(crate) mod run;

pub(crate) fn run(verb: AgentVerb) -> Outcome {
    match verb {
        AgentVerb::Run(args) => run::run(*args),
        AgentVerb::Detach { socket, period } => {
            let agent = AgentSocket::connectable(&socket.socket)?;
            let body = Detach { for_s: period.map(|period| period.as_secs().max(1)) };
            process::ask(agent.send::<Enforcement>(Method::POST, &["detach"], &body))?;
            let back = match period {
                Some(period) => {
                    let period = printed(period);
                    format!("it comes back by itself in {period}, or at once with `stolos agent attach`")
                }
                None => "`stolos agent attach` puts it back".to_owned(),
            };
            Screen::stdout(Output::Table).line(format!("Nothing is enforced on this node now; {back}."))
        }
        AgentVerb::Attach { socket } => {
            let agent = AgentSocket::connectable(&socket.socket)?;
            process::ask(agent.send::<Enforcement>(Method::POST, &["attach"], &serde_json::json!({})))?;
            Screen::stdout(Output::Table).line("Enforcement is back on this node.")
        }
        AgentVerb::Status { socket, format } => {
            let agent = AgentSocket::connectable(&socket.socket)?;
            let status: Status = process::ask(agent.get(&["status"]))?;
            Screen::stdout(format.output).answer(&status, show)
        }
    }
}

fn show<W: Write>(screen: &mut Screen<W>, status: &Status) -> Outcome {
    let now = jiff::Timestamp::now();
    let mut facts = Columns::new(["AGENT", status.version.as_str()]);
    if let Some(node) = &status.node {
        facts.row(["node", &format!("{} (number {}) of cluster {}", node.name, node.id, node.cluster)]);
        facts.row(["trust domain", &node.trust_domain]);
        facts.row(["certificate", &left(&node.certificate_expires, now)]);
    } else {
        facts.row(["node", "not enrolled"]);
    }
    let link = if status.server.connected { "connected" } else { "not connected" };
    let since = parsed(&status.server.since).map(|since| format!(" for {}", age(since, now))).unwrap_or_default();
    facts.row(["server", &format!("{} ({link}{since})", status.server.source)]);
    facts.row(["live revision", &status.revision.to_string()]);
    facts.row(["outage budget", &status.holds_until.as_deref().map(|until| left(until, now)).unwrap_or_default()]);
    facts.row(["enforcement", &enforcement(&status.enforcement, now)]);
    let skew = status.clock.skew_ms.map(|skew| format!(", {skew} ms from the server's")).unwrap_or_default();
    facts.row(["clock", &format!("{}{skew}", status.clock.source)]);
    facts.row(["kernel features", &status.features.join(", ")]);
    facts.row(["cgroup root", &status.cgroup_root.display().to_string()]);
    facts.row(["denials", &status.denials.to_string()]);
    screen.table(&facts)?;
    workloads(screen, status)?;
    for alarm in &status.alarms {
        let text = format!("alarm {} {}: {}", alarm.code, alarm.object, alarm.message);
        screen.line(screen.paint(Ink::Bad, &printable(&text)))?;
    }
    for missed in &status.not_captured {
        let port = missed.port.map(|port| format!(" port {port}")).unwrap_or_default();
        let text =
            format!("not captured: {} of {} (pid {}){port}: {}", missed.kind, missed.command, missed.pid, missed.mend);
        screen.line(screen.paint(Ink::Warn, &printable(&text)))?;
    }
    Ok(())
}

fn workloads<W: Write>(screen: &mut Screen<W>, status: &Status) -> Outcome {
    let mut columns = Columns::new(["WORKLOAD", "STATE", "NAMESPACE", "LABELS", "WHY"]);
    for workload in &status.workloads {
        let state = serde_json::to_value(workload.state).ok().and_then(|state| state.as_str().map(str::to_owned));
        let labels: Vec<String> = workload.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        columns.row([
            workload.name.clone(),
            state.unwrap_or_default(),
            workload.namespace.clone(),
            labels.join(","),
            workload.reason.clone().unwrap_or_default(),
        ]);
    }
    if columns.len() > 0 {
        screen.line("")?;
    }
    screen.table(&columns)
}

fn enforcement(state: &Enforcement, now: jiff::Timestamp) -> String {
    match (state.attached, &state.until) {
        (true, _) => "on".to_owned(),
        (false, None) => "OFF until `stolos agent attach`".to_owned(),
        (false, Some(until)) => format!("OFF, back by itself: {}", left(until, now)),
    }
}

fn parsed(time: &str) -> Option<jiff::Timestamp> {
    time.parse().ok()
}

/// Time left until `then`, in the words of a column.
fn left(then: &str, now: jiff::Timestamp) -> String {
    match parsed(then) {
        Some(then) if then <= now => "over".to_owned(),
        Some(then) => format!("{} left", age(now, then)),
        None => String::new(),
    }
}
