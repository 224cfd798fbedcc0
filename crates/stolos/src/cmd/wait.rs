//! `stolos wait`: until an object is as it should be, or the fleet enforces what is stored.

use std::time::Duration;

use api::kind::node::NodeStatus;
use api::kind::{self, Kind};
use api::object::Object;
use serde_json::Value;

use crate::args::value::Condition;
use crate::args::{Output, Wait};
use crate::cmd::find::called;
use crate::cmd::kind_named;
use crate::failure::{C, Failure, Outcome};
use crate::output::{Screen, printed};
use crate::process;
use crate::server::Server;

/// How often the server is asked where no watch tells of the change.
const ASK_EVERY: Duration = Duration::from_millis(200);

pub(crate) fn run(args: Wait) -> Outcome {
    let mut screen = Screen::stdout(Output::Table);
    if args.kind == "rollout" {
        let server = Server::configured(&args.connection, &args.scope)?;
        let live = process::ask(limited(args.timeout, "the roll-out", rollout(&server)))?;
        return screen.line(live);
    }
    let kind = kind_named(&args.kind)?;
    let Some(name) = args.name.as_deref() else {
        let what = format!("which {} to wait for is missing", kind.name);
        return Err(Failure::usage(C::USAGE, what, format!("write `stolos wait {} NAME`", args.kind)));
    };
    let server = Server::configured(&args.connection, &args.scope)?;
    let what = format!("{} {name}", kind.name);
    process::ask(limited(args.timeout, &what, until(&server, kind, name, &args.until)))?;
    screen.line(format!("{what}: {}", args.until))
}

async fn limited<T>(
    limit: Duration,
    what: &str,
    waiting: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let passed = |_| {
        Failure::new(
            C::WAIT_ENDED,
            format!("{what} is not there yet after {}", printed(limit)),
            "wait longer with --timeout, or look at `stolos status` for what is in the way",
        )
    };
    tokio::time::timeout(limit, waiting).await.map_err(passed)?
}

/// Asks until the condition holds. Status is reported without a revision of its own, so asking again is what sees it for
/// certain; lists are of one kind and cheap.
async fn until(server: &Server, kind: &Kind, name: &str, condition: &Condition) -> Outcome {
    loop {
        let list = server.list(kind, None).await?;
        let mut named = list.items.iter().filter(|object| called(object, name));
        let holds = match condition {
            Condition::Exists => named.next().is_some(),
            Condition::Deleted => named.next().is_none(),
            Condition::Field(path, value) => {
                let mut named = named.peekable();
                named.peek().is_some() && named.all(|object| field(object, path).as_deref() == Some(value))
            }
        };
        if holds {
            return Ok(());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// A field by its path, as text.
fn field(object: &Object, path: &str) -> Option<String> {
    let value = serde_json::to_value(object).ok()?;
    let found = path.split('.').try_fold(&value, |value, part| match part.parse::<usize>() {
        Ok(index) if value.is_array() => value.get(index),
        _ => value.get(part),
    })?;
    Some(found.as_str().map_or_else(|| found.to_string(), str::to_owned))
}

/// Until every connected node enforces what is stored when asked first.
async fn rollout(server: &Server) -> Result<String, Failure> {
    let kind = kind::find("Node").unwrap_or_else(|| panic!("BUG: there is a kind Node"));
    let mut wanted: Option<u64> = None;
    loop {
        let (nodes, _) = server.all::<Value, NodeStatus>(kind.name).await?;
        let known: Vec<&NodeStatus> = nodes.iter().filter_map(|node| node.status.as_ref()).collect();
        let due = known.iter().map(|status| status.due_revision).max().unwrap_or_default();
        let wanted = *wanted.get_or_insert(due);
        let connected: Vec<_> = known.into_iter().filter(|status| status.connected).collect();
        let live = connected.iter().filter(|status| holds(status, wanted)).count();
        if live == connected.len() {
            let away = nodes.len() - connected.len();
            let rest = if away == 0 { String::new() } else { format!("; {away} not connected") };
            return Ok(format!("revision {wanted} is enforced on {live} of {live} connected nodes{rest}"));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// The node enforces what was stored at a revision. One that a write does not concern confirms its revision all the same; that
/// everything *sent* is live says nothing of what is still to be sent.
fn holds(status: &NodeStatus, wanted: u64) -> bool {
    status.rejected.is_none() && status.applied_revision >= wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_was_not_sent_the_newest_yet_does_not_enforce_it() {
        let node =
            |applied, sent| NodeStatus { applied_revision: applied, sent_revision: sent, ..NodeStatus::default() };
        assert!(!holds(&node(7, 7), 8));
        assert!(holds(&node(8, 8), 8) && holds(&node(9, 9), 8));
    }

    #[test]
    fn fields_are_found_by_their_path() {
        let object: Object = serde_json::from_value(serde_json::json!({
            "apiVersion": "stolos.dev/v1", "kind": "Workload", "spec": {"ports": ["tcp/80"], "on": true},
            "metadata": {"name": "x"}, "status": {"state": "live"}
        }))
        .unwrap();
        assert_eq!(field(&object, "status.state").as_deref(), Some("live"));
        assert_eq!(field(&object, "spec.ports.0").as_deref(), Some("tcp/80"));
        assert_eq!(field(&object, "spec.on").as_deref(), Some("true"));
        assert_eq!(field(&object, "status.none"), None);
    }
}
