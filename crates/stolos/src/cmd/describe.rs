//! `stolos describe`: everything about one object, and what it is bound up with.

use std::io::Write;

use api::flow::FlowQuery;
use api::kind::namespace::NamespaceSpec;
use api::kind::policy::PolicySpec;
use api::object::Object;
use serde_json::Value;

use crate::args::{Describe, Output};
use crate::cmd::{find, flows, kind_named};
use crate::failure::Outcome;
use crate::output::{Columns, Ink, Screen, age, printable, yaml};
use crate::process;
use crate::server::Server;

/// So many of a workload's flows are shown, the newest.
const FLOWS_SHOWN: u32 = 5;

pub(crate) fn run(args: Describe) -> Outcome {
    let kind = kind_named(&args.kind)?;
    let server = Server::configured(&args.connection, &args.scope)?;
    let mut screen = Screen::stdout(Output::Table);
    process::ask(async {
        let object = find::one(&server, kind, &args.name).await?;
        head(&mut screen, &object)?;
        block(&mut screen, "Spec", &object.spec)?;
        block(&mut screen, "Status", &object.status.clone().unwrap_or_default())?;
        match kind.name {
            "Namespace" => {
                postures(&mut screen, &server, &object.key().path()).await?;
                policies(&mut screen, &server, &object.key().path()).await
            }
            "Workload" => {
                policies(&mut screen, &server, &object.metadata.namespace).await?;
                seen(&mut screen, &server, &object).await
            }
            _ => Ok(()),
        }
    })
}

fn head<W: Write>(screen: &mut Screen<W>, object: &Object) -> Outcome {
    let metadata = &object.metadata;
    let pairs = |map: &std::collections::BTreeMap<String, String>| {
        let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(", ")
    };
    let now = jiff::Timestamp::now();
    let when = |time: Option<jiff::Timestamp>| time.map(|time| format!("{time} ({} ago)", age(time, now)));
    let lines = [
        ("Kind", Some(object.kind.clone())),
        ("Name", Some(metadata.name.clone())),
        ("Namespace", Some(metadata.namespace.clone())),
        ("Labels", Some(pairs(&metadata.labels))),
        ("Annotations", Some(pairs(&metadata.annotations))),
        ("UID", metadata.uid.map(|uid| uid.to_string())),
        ("Revision", metadata.revision.map(|revision| revision.to_string())),
        ("Created", when(metadata.created)),
        ("Updated", when(metadata.updated)),
    ];
    for (name, text) in lines {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            screen.line(format!("{name:<12} {}", printable(&text)))?;
        }
    }
    Ok(())
}

fn heading<W: Write>(screen: &mut Screen<W>, text: &str) -> Outcome {
    let painted = screen.paint(Ink::Head, text);
    screen.line(format!("\n{painted}"))
}

/// A value as indented YAML; nothing for an empty one.
fn block<W: Write>(screen: &mut Screen<W>, name: &str, value: &Value) -> Outcome {
    if value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(());
    }
    heading(screen, name)?;
    yaml(value).lines().try_for_each(|line| screen.line(format!("  {}", printable(line))))
}

/// A namespace and those above it, from the root down.
fn path_from_root(path: &str) -> Vec<String> {
    let mut all = vec!["/".to_owned()];
    let mut whole = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        whole = format!("{whole}/{part}");
        all.push(whole.clone());
    }
    all
}

/// What each namespace on the way says of protection: the tightest holds.
async fn postures<W: Write>(screen: &mut Screen<W>, server: &Server, path: &str) -> Outcome {
    let (namespaces, _) = server.all::<NamespaceSpec, Value>("Namespace").await?;
    let mut table = Columns::new(["NAMESPACE", "MODE", "INGRESS", "EGRESS", "ENCRYPTION"]);
    for above in path_from_root(path) {
        let Some(object) = namespaces.iter().find(|object| object.key().path() == above) else { continue };
        let spec = serde_json::to_value(&object.spec).unwrap_or_default();
        let cell = |pointer: &str| spec.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        table.row([
            above,
            cell("/protection/mode"),
            cell("/protection/default/ingress"),
            cell("/protection/default/egress"),
            cell("/protection/encryption"),
        ]);
    }
    heading(screen, "Protection, from the root down (the tightest holds)")?;
    screen.table(&table)
}

/// The policies that speak for a namespace: its own, and those that it inherits.
async fn policies<W: Write>(screen: &mut Screen<W>, server: &Server, path: &str) -> Outcome {
    let (all, _) = server.all::<PolicySpec, Value>("Policy").await?;
    let mut table = Columns::new(["POLICY", "ORIGIN", "ACTION", "FROM", "TO"]);
    for above in path_from_root(path).iter().rev() {
        for policy in all.iter().filter(|policy| policy.metadata.namespace == *above) {
            let spec = serde_json::to_value(&policy.spec).unwrap_or_default();
            let list = |field: &str| {
                let texts = spec[field].as_array().into_iter().flatten().filter_map(Value::as_str);
                texts.collect::<Vec<_>>().join("; ")
            };
            let origin = if above == path { "own".to_owned() } else { format!("inherited from {above}") };
            let action = spec["action"].as_str().unwrap_or_default().to_owned();
            table.row([policy.metadata.name.clone(), origin, action, list("from"), list("to")]);
        }
    }
    heading(screen, "Policies that speak here")?;
    if table.len() == 0 { screen.line("  none") } else { screen.table(&table) }
}

/// The newest flows of a workload, either way.
async fn seen<W: Write>(screen: &mut Screen<W>, server: &Server, object: &Object) -> Outcome {
    let Some(uid) = object.status.as_ref().and_then(|status| status["uid"].as_str()) else { return Ok(()) };
    for (title, from, to) in [("Calls", Some(uid), None), ("Called by", None, Some(uid))] {
        let own = |end: Option<&str>| end.map(str::to_owned);
        let query = FlowQuery { from: own(from), to: own(to), limit: Some(FLOWS_SHOWN), ..FlowQuery::default() };
        let rows = server.flows(&query).await?.items;
        heading(screen, &format!("{title} (newest {FLOWS_SHOWN})"))?;
        if rows.is_empty() {
            screen.line("  none seen")?;
        } else {
            screen.table(&flows::table(&rows, screen.form()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_down_begins_at_the_root() {
        assert_eq!(path_from_root("/"), ["/"]);
        assert_eq!(path_from_root("/acme/shop"), ["/", "/acme", "/acme/shop"]);
    }

    #[test]
    fn what_is_empty_is_left_out_and_control_characters_cannot_paint() {
        let object: Object = serde_json::from_value(serde_json::json!({
            "apiVersion": "stolos.dev/v1", "kind": "Policy", "spec": {},
            "metadata": {"namespace": "/acme", "name": "x", "labels": {"team": "a\u{1b}[2J"}}
        }))
        .unwrap();
        let mut screen = Screen::to(Vec::new(), Output::Table);
        head(&mut screen, &object).unwrap();
        block(&mut screen, "Status", &Value::Null).unwrap();
        let text = String::from_utf8(screen.into_inner()).unwrap();
        assert_eq!(text, "Kind         Policy\nName         x\nNamespace    /acme\nLabels       team=a?[2J\n");
    }
}
