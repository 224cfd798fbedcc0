//! Which columns each kind has in a table. Machines get the whole objects instead.

use api::kind::{Kind, Scope};
use api::object::Object;
use serde_json::Value;

use crate::output::{Columns, age};

/// One column: its header, whether only `wide` shows it, and where its text comes from.
struct Column {
    header: &'static str,
    wide: bool,
    text: Text,
}

/// Where a cell's text comes from.
enum Text {
    /// A JSON pointer into the object; lists are joined by commas, absent is empty.
    At(&'static str),
    /// Anything else.
    By(fn(&Value) -> String),
}

const fn at(header: &'static str, pointer: &'static str) -> Column {
    Column { header, wide: false, text: Text::At(pointer) }
}

const fn by(header: &'static str, text: fn(&Value) -> String) -> Column {
    Column { header, wide: false, text: Text::By(text) }
}

const fn wide(column: Column) -> Column {
    Column { wide: true, ..column }
}

fn of(kind: &Kind) -> Vec<Column> {
    let mut columns = match (kind.name, kind.scope) {
        ("Namespace", _) => vec![by("PATH", path)],
        (_, Scope::Fleet) => vec![at("NAME", "/metadata/name")],
        (_, Scope::Namespace) => vec![at("NAMESPACE", "/metadata/namespace"), at("NAME", "/metadata/name")],
    };
    columns.extend(match kind.name {
        "Namespace" => vec![
            at("MODE", "/spec/protection/mode"),
            at("INGRESS", "/spec/protection/default/ingress"),
            at("EGRESS", "/spec/protection/default/egress"),
            wide(at("OBSERVE-UNTIL", "/spec/observeUntil")),
        ],
        "Cluster" => vec![
            at("WORKS-IN", "/spec/namespace"),
            at("REGION", "/spec/region"),
            by("REALM", |object| first(object, &["/spec/realm", "/metadata/name"])),
            by("CONNECTED", |object| of_all(object, "/status/connected", "/status/nodes")),
            wide(at("OPEN-TOKENS", "/status/openJoinTokens")),
            wide(at("NAT-ADDRESSES", "/spec/natAddresses")),
        ],
        "ExternalNetwork" => vec![at("CIDRS", "/spec/cidrs"), wide(at("DNS", "/spec/dnsNames"))],
        "Service" => vec![by("ADDRESSES", addresses), by("MEMBERS", members)],
        "Policy" => vec![
            at("ACTION", "/spec/action"),
            at("FROM", "/spec/from"),
            at("TO", "/spec/to"),
            at("PORTS", "/spec/ports"),
            at("MODE", "/spec/mode"),
            wide(at("REASON", "/spec/reason")),
        ],
        "Revocation" => vec![
            by("TARGET", target),
            by("CONFIRMED", confirmed),
            by("CUT", cut),
            at("REASON", "/spec/reason"),
            wide(at("EXPIRES", "/spec/expires")),
        ],
        "Node" => vec![
            at("CLUSTER", "/status/cluster"),
            by("STATE", node_state),
            at("LIVE-REVISION", "/status/appliedRevision"),
            at("WORKLOADS", "/status/workloads"),
            by("SEEN", |object| since(object, "/status/lastSeen")),
            wide(at("ADDRESSES", "/status/addresses")),
            wide(at("AGENT", "/status/agentVersion")),
            wide(at("KERNEL", "/status/kernelRelease")),
            wide(at("SKEW-MS", "/status/clockSkewMs")),
            wide(at("CERTIFICATE-ENDS", "/status/certificateNotAfter")),
        ],
        "Workload" => vec![
            at("CLUSTER", "/status/cluster"),
            at("STATE", "/status/state"),
            by("LABELS", labels),
            wide(at("TYPE", "/status/type")),
            wide(at("ADDRESSES", "/status/addresses")),
            wide(at("SLOT", "/status/slot")),
            wide(at("UID", "/status/uid")),
        ],
        _ => Vec::new(),
    });
    columns.push(by("AGE", |object| since(object, "/metadata/created")));
    columns
}

/// Objects of one kind as a table; `all` shows the wide columns too.
pub(super) fn table(kind: &Kind, objects: &[Object], all: bool) -> Columns {
    let columns: Vec<Column> = of(kind).into_iter().filter(|column| all || !column.wide).collect();
    let mut table = Columns::new(columns.iter().map(|column| column.header));
    for object in objects {
        let value = serde_json::to_value(object).unwrap_or_default();
        table.row(columns.iter().map(|column| match column.text {
            Text::At(pointer) => text_at(&value, pointer),
            Text::By(text) => text(&value),
        }));
    }
    table
}

fn text_at(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).map(plain).unwrap_or_default()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn first(object: &Value, pointers: &[&str]) -> String {
    pointers.iter().map(|pointer| text_at(object, pointer)).find(|text| !text.is_empty()).unwrap_or_default()
}

fn of_all(object: &Value, some: &str, all: &str) -> String {
    match (text_at(object, some), text_at(object, all)) {
        (_, all) if all.is_empty() => String::new(),
        (some, all) => format!("{some}/{all}"),
    }
}

fn since(object: &Value, pointer: &str) -> String {
    let then = object.pointer(pointer).and_then(Value::as_str).and_then(|text| text.parse().ok());
    then.map(|then| age(then, jiff::Timestamp::now())).unwrap_or_default()
}

fn path(object: &Value) -> String {
    match (text_at(object, "/metadata/namespace").as_str(), text_at(object, "/metadata/name").as_str()) {
        (_, "/") => "/".to_owned(),
        ("/", name) => format!("/{name}"),
        (parent, name) => format!("{parent}/{name}"),
    }
}

fn addresses(object: &Value) -> String {
    let list = object.pointer("/spec/addresses").and_then(Value::as_array);
    let one = |address: &Value| {
        let text = text_at(address, "/address");
        let text = if text.contains(':') { format!("[{text}]") } else { text };
        match (text_at(address, "/port"), text_at(address, "/targetPort")) {
            (port, _) if port.is_empty() => text,
            (port, target) if target.is_empty() || target == port => format!("{text}:{port}"),
            (port, target) => format!("{text}:{port}>{target}"),
        }
    };
    list.into_iter().flatten().map(one).collect::<Vec<_>>().join(", ")
}

fn members(object: &Value) -> String {
    let live = text_at(object, "/status/members");
    if live.is_empty() { text_at(object, "/spec/members/selectors") } else { live }
}

fn target(object: &Value) -> String {
    let target = object.pointer("/spec/target").and_then(Value::as_object);
    let named = target.and_then(|target| target.iter().find(|(_, value)| !value.is_null()));
    named.map(|(what, name)| format!("{what} {}", plain(name))).unwrap_or_default()
}

fn count(object: &Value, pointer: &str) -> usize {
    object.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len)
}

fn confirmed(object: &Value) -> String {
    let done = count(object, "/status/confirmed");
    format!("{done}/{}", done + count(object, "/status/pending"))
}

fn cut(object: &Value) -> String {
    let reports = object.pointer("/status/cut").and_then(Value::as_array).into_iter().flatten();
    reports.filter_map(|report| report.get("connections")?.as_u64()).sum::<u64>().to_string()
}

fn node_state(object: &Value) -> String {
    let is = |pointer: &str| object.pointer(pointer).and_then(Value::as_bool).unwrap_or(false);
    match (is("/status/connected"), is("/status/detached"), object.pointer("/status/rejected").is_some()) {
        (_, true, _) => "detached",
        (false, ..) => "away",
        (true, _, true) => "rejected",
        (true, ..) => "connected",
    }
    .to_owned()
}

/// User labels: everything of the attributes that has no `@`.
fn labels(object: &Value) -> String {
    let attributes = object.pointer("/status/attributes").and_then(Value::as_object);
    let users = attributes.into_iter().flatten().filter(|(key, _)| !key.starts_with('@'));
    users.map(|(key, value)| format!("{key}={}", plain(value))).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use api::kind;
    use serde_json::json;

    use super::*;
    use crate::args::Output;
    use crate::output::Screen;

    fn shown(word: &str, objects: Value, all: bool) -> String {
        let objects: Vec<Object> = serde_json::from_value(objects).unwrap();
        let mut screen = Screen::to(Vec::new(), Output::Table);
        screen.table(&table(kind::find(word).unwrap(), &objects, all)).unwrap();
        String::from_utf8(screen.into_inner()).unwrap()
    }

    fn object(kind: &str, namespace: &str, name: &str, spec: Value, status: Value) -> Value {
        let metadata = json!({"namespace": namespace, "name": name});
        json!({"apiVersion": "stolos.dev/v1", "kind": kind, "metadata": metadata, "spec": spec, "status": status})
    }

    #[test]
    fn a_policy_shows_who_may_reach_what() {
        let spec = json!({"from": ["app=web", "app=api"], "to": ["app=db"], "ports": ["tcp/5432"], "action": "allow"});
        let text = shown("policy", json!([object("Policy", "/acme", "web-to-db", spec, Value::Null)]), false);
        assert_eq!(
            text,
            "NAMESPACE  NAME       ACTION  FROM              TO      PORTS     MODE  AGE\n\
             /acme      web-to-db  allow   app=web, app=api  app=db  tcp/5432  -     -\n"
        );
    }

    #[test]
    fn a_workload_shows_its_users_labels_only() {
        let status = json!({"cluster": "eu-1", "state": "live", "attributes": {"app": "web", "@cluster": "eu-1"}});
        let text = shown("workload", json!([object("Workload", "/acme", "web.n1", json!({}), status)]), false);
        assert!(text.contains("live   app=web  -"), "{text}");
        assert!(!text.contains("@cluster"), "{text}");
    }

    #[test]
    fn a_revocation_shows_what_was_cut_and_who_confirmed() {
        let status = json!({"confirmed": ["n1"], "pending": ["n2"], "cut": [
            {"node": "n1", "workload": "/acme/web", "connections": 3},
            {"node": "n1", "workload": "/acme/web", "connections": 4}]});
        let spec = json!({"target": {"workload": "web"}, "reason": "leaked"});
        let text = shown("revocation", json!([object("Revocation", "/", "r1", spec, status)]), false);
        assert!(text.contains("workload web  1/2        7    leaked"), "{text}");
    }

    #[test]
    fn every_kind_has_columns_of_its_own_even_for_an_empty_object() {
        for kind in kind::KINDS {
            let all = of(kind);
            assert!(all.len() > 3, "{} has no columns of its own", kind.name);
            let text = shown(kind.plural, json!([object(kind.name, "/", "x", json!({}), Value::Null)]), true);
            assert_eq!(text.lines().count(), 2, "{text}");
        }
    }
}
