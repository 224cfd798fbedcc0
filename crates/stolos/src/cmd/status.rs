//! `stolos status`: is the fleet as it should be, and if not, where?

use std::io::Write;

use api::kind::node::NodeStatus;
use api::kind::revocation::{RevocationSpec, RevocationStatus};
use api::kind::workload::{WorkloadState, WorkloadStatus};
use api::object::{Object, Revision};
use api::report::{FleetStatus, NodeLine, Rollout, UnconfirmedRevocation, WaitingWorkload, WorkloadCounts};
use serde_json::Value;

use crate::args::Status;
use crate::failure::{Failure, Outcome};
use crate::output::{Columns, Ink, Screen, age, printable};
use crate::process;
use crate::server::Server;

/// A certificate that ends sooner is shown.
const CERTIFICATE_NEAR: jiff::SignedDuration = jiff::SignedDuration::from_hours(24 * 14);
/// A clock that differs more is shown, in milliseconds (PROTOCOL section 1, time).
const SKEW_REPORTED_MS: i64 = 30_000;

type Node = Object<Value, NodeStatus>;
type Workload = Object<Value, WorkloadStatus>;
type Revocation = Object<RevocationSpec, RevocationStatus>;

pub(crate) fn run(args: Status) -> Outcome {
    let server = Server::configured(&args.connection, &Default::default())?;
    let status = process::ask(ask(&server))?;
    Screen::stdout(args.format.output).answer(&status, show)
}

async fn ask(server: &Server) -> Result<FleetStatus, Failure> {
    let (nodes, revision) = server.all::<Value, NodeStatus>("Node").await?;
    let (workloads, _) = server.all::<Value, WorkloadStatus>("Workload").await?;
    let (revocations, _) = server.all::<RevocationSpec, RevocationStatus>("Revocation").await?;
    Ok(FleetStatus { server: server.url().to_owned(), ..compose(&nodes, &workloads, &revocations, revision) })
}

/// The status out of what the server lists.
fn compose(nodes: &[Node], workloads: &[Workload], revocations: &[Revocation], revision: Revision) -> FleetStatus {
    let mut nodes: Vec<NodeLine> = nodes.iter().map(node_line).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let behind: Vec<String> = nodes.iter().filter(|node| !node.live).map(|node| node.name.clone()).collect();
    let all = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let rollout = Rollout { live: all - u32::try_from(behind.len()).unwrap_or(all), nodes: all, behind };
    let mut counts = WorkloadCounts::default();
    let mut waiting = Vec::new();
    for workload in workloads {
        let Some(status) = &workload.status else { continue };
        match status.state {
            WorkloadState::Live => counts.live += 1,
            WorkloadState::Revoked => counts.revoked += 1,
            WorkloadState::Pending => counts.pending += 1,
            WorkloadState::Refused => counts.refused += 1,
        }
        waiting.extend(waits(workload, status));
    }
    let unconfirmed = revocations
        .iter()
        .filter_map(|object| Some((object, object.status.as_ref()?)))
        .filter(|(_, status)| !status.pending.is_empty())
        .map(|(object, status)| UnconfirmedRevocation {
            name: object.metadata.name.clone(),
            nodes: status.pending.clone(),
        })
        .collect();
    FleetStatus { server: String::new(), revision, rollout, nodes, workloads: counts, waiting, unconfirmed }
}

fn node_line(node: &Node) -> NodeLine {
    let status = node.status.clone().unwrap_or_default();
    NodeLine {
        name: node.metadata.name.clone(),
        live: status.connected && status.rejected.is_none() && status.applied_revision >= status.due_revision,
        cluster: status.cluster,
        connected: status.connected,
        detached: status.detached,
        applied_revision: status.applied_revision,
        last_seen: status.last_seen,
        holds_until: status.holds_until,
        clock_skew_ms: status.clock_skew_ms,
        certificate_not_after: status.certificate_not_after,
        workloads: status.workloads,
        rejected: status.rejected,
        alarms: status.alarms,
    }
}

fn waits(workload: &Workload, status: &WorkloadStatus) -> Option<WaitingWorkload> {
    let (code, reason) = match (status.state, &status.refused) {
        (WorkloadState::Pending, _) => ("P1006".to_owned(), "not every connected node has confirmed it".to_owned()),
        (WorkloadState::Refused, Some(refusal)) => (refusal.code.clone(), refusal.message.clone()),
        (WorkloadState::Refused, None) => (String::new(), "the server does not accept it".to_owned()),
        (WorkloadState::Live | WorkloadState::Revoked, _) => return None,
    };
    Some(WaitingWorkload {
        workload: format!("{}/{}", workload.metadata.namespace.trim_end_matches('/'), status.name),
        node: status.node.clone(),
        state: status.state,
        code,
        reason,
    })
}

fn show<W: Write>(screen: &mut Screen<W>, status: &FleetStatus) -> Outcome {
    let now = jiff::Timestamp::now();
    screen.line(format!("Server {}, revision {}", status.server, status.revision))?;
    let Rollout { live, nodes, behind } = &status.rollout;
    let text = format!("Rolled out on {live} of {nodes} nodes");
    match behind.as_slice() {
        [] => screen.line(screen.paint(Ink::Good, &text))?,
        behind => screen.line(screen.paint(Ink::Warn, &format!("{text}; not on {}", behind.join(", "))))?,
    }
    let WorkloadCounts { live, pending, refused, revoked } = status.workloads;
    screen.line(format!("Workloads: {live} live, {pending} pending, {refused} refused, {revoked} revoked"))?;
    let mut columns =
        Columns::new(["NODE", "CLUSTER", "STATE", "LIVE-REVISION", "WORKLOADS", "OUTAGE-BUDGET", "NOTES"]);
    for node in &status.nodes {
        columns.row([
            node.name.clone(),
            node.cluster.clone(),
            state(node, now),
            node.applied_revision.to_string(),
            node.workloads.to_string(),
            node.holds_until.map(|until| budget(until, now)).unwrap_or_default(),
            notes(node, now),
        ]);
    }
    if columns.len() > 0 {
        screen.line("")?;
    }
    screen.table(&columns)?;
    for waiting in &status.waiting {
        let code = if waiting.code.is_empty() { String::new() } else { format!(" [{}]", waiting.code) };
        let text = format!("{} on {}: {}{code}: {}", waiting.workload, waiting.node, waiting.state, waiting.reason);
        screen.line(screen.paint(Ink::Warn, &printable(&text)))?;
    }
    for node in &status.nodes {
        for alarm in &node.alarms {
            let text = format!("alarm on {}: {} [{}]: {}", node.name, alarm.object, alarm.code, alarm.message);
            screen.line(screen.paint(Ink::Bad, &printable(&text)))?;
        }
    }
    for revocation in &status.unconfirmed {
        let text = format!("revocation {} is not confirmed by {}", revocation.name, revocation.nodes.join(", "));
        screen.line(screen.paint(Ink::Bad, &text))?;
    }
    Ok(())
}

fn state(node: &NodeLine, now: jiff::Timestamp) -> String {
    match (node.detached, node.connected, &node.rejected) {
        (true, ..) => "DETACHED".to_owned(),
        (_, false, _) => match node.last_seen {
            Some(seen) => format!("away {}", age(seen, now)),
            None => "away".to_owned(),
        },
        (_, true, Some(_)) => "rejected".to_owned(),
        (_, true, None) if node.live => "live".to_owned(),
        _ => "applying".to_owned(),
    }
}

fn budget(until: jiff::Timestamp, now: jiff::Timestamp) -> String {
    if until <= now { "OVER".to_owned() } else { age(now, until) }
}

fn notes(node: &NodeLine, now: jiff::Timestamp) -> String {
    let mut notes = Vec::new();
    if let Some(rejected) = &node.rejected {
        notes.push(format!("refused revision {}: {} [{}]", rejected.revision, rejected.message, rejected.code));
    }
    if node.clock_skew_ms.abs() > SKEW_REPORTED_MS {
        notes.push(format!("clock off by {} s", node.clock_skew_ms / 1000));
    }
    match node.certificate_not_after {
        Some(end) if end <= now => notes.push("certificate over".to_owned()),
        Some(end) if end.duration_since(now) < CERTIFICATE_NEAR => {
            notes.push(format!("certificate ends in {}", age(now, end)));
        }
        _ => {}
    }
    notes.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::args::Output;

    fn fleet() -> FleetStatus {
        let node = |name: &str, status: Value| -> Node {
            let mut all = json!({"id": 1, "cluster": "eu-1", "namespace": "/acme", "realm": "eu-1", "connected": true,
                "dueRevision": 9, "appliedRevision": 9});
            all.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
            serde_json::from_value(json!({"apiVersion": "stolos.dev/v1", "kind": "Node", "metadata": {"name": name},
                "spec": {}, "status": all}))
            .unwrap()
        };
        let workload = |name: &str, state: &str| -> Workload {
            serde_json::from_value(json!({"apiVersion": "stolos.dev/v1", "kind": "Workload",
                "metadata": {"namespace": "/acme", "name": name}, "spec": {},
                "status": {"uid": name, "name": name, "node": "n1", "cluster": "eu-1", "type": "process", "state": state}}))
            .unwrap()
        };
        let revocation: Revocation =
            serde_json::from_value(json!({"apiVersion": "stolos.dev/v1", "kind": "Revocation",
            "metadata": {"name": "r1"}, "spec": {"target": {"node": "n9"}}, "status": {"pending": ["n2"]}}))
            .unwrap();
        let nodes = [
            node("n2", json!({"appliedRevision": 8})),
            node("n1", json!({})),
            node("n3", json!({"connected": false})),
            node("n4", json!({"detached": true, "clockSkewMs": -61000})),
        ];
        compose(&nodes, &[workload("web", "live"), workload("new", "pending")], &[revocation], Revision(9))
    }

    #[test]
    fn the_rollout_counts_nodes_whose_kernel_has_the_newest_state() {
        let fleet = fleet();
        assert_eq!((fleet.rollout.live, fleet.rollout.nodes), (2, 4));
        assert_eq!(fleet.rollout.behind, ["n2", "n3"]);
    }

    #[test]
    fn each_nodes_outage_budget_is_shown() {
        let hours = |hours| jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours);
        let mut fleet = fleet();
        let budgets = [Some(hours(49)), Some(hours(-1)), None];
        fleet.nodes.iter_mut().zip(budgets).for_each(|(node, until)| node.holds_until = until);
        let mut screen = Screen::to(Vec::new(), Output::Table);
        show(&mut screen, &fleet).unwrap();
        let text = String::from_utf8(screen.into_inner()).unwrap();
        let column =
            text.find("OUTAGE-BUDGET").unwrap() - text[..text.find("OUTAGE-BUDGET").unwrap()].rfind('\n').unwrap() - 1;
        let shown = |node: &str| {
            let line = text.lines().find(|line| line.starts_with(node)).unwrap();
            line[column..].split_whitespace().next().unwrap_or_default().to_owned()
        };
        assert_eq!((shown("n1 "), shown("n2 "), shown("n3 ")), ("2d".into(), "OVER".into(), "-".into()), "{text}");
    }

    #[test]
    fn whatever_is_not_as_it_should_be_is_said() {
        let mut screen = Screen::to(Vec::new(), Output::Table);
        show(&mut screen, &fleet()).unwrap();
        let text = String::from_utf8(screen.into_inner()).unwrap();
        for part in [
            "Rolled out on 2 of 4 nodes; not on n2, n3",
            "1 live, 1 pending",
            "applying",
            "away",
            "DETACHED",
            "clock off by -61 s",
            "/acme/new on n1: pending [P1006]",
            "revocation r1 is not confirmed by n2",
        ] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
    }
}
