//! The manual's policy page, executed: every YAML block is loaded, every line of a flow table decided.

use std::str::FromStr;

use jiff::Timestamp;
use policy::attribute::{Attributes, Identity, Peer};
use policy::decide::Flow;
use policy::manifest;
use policy::namespace::NamespacePath;
use policy::port::Port;
use policy::posture::PostureTree;
use policy::rules::RuleSet;
use policy::syntax::parse_documents;

const PAGE: &str = include_str!("../../../docs/book/policy.md");

#[test]
fn the_manuals_examples_decide_as_the_page_says() {
    let mut rules = RuleSet::new();
    let mut decided = 0;
    for (kind, block) in blocks(PAGE) {
        match kind {
            "yaml" => rules = load(block),
            "flows" => decided += block.lines().map(|line| check(&rules, line)).count(),
            _ => {}
        }
    }
    assert!(decided >= 9, "the page has fewer examples than it should: {decided}");
}

fn blocks(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.split("```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap_or((block, "")))
}

fn load(yaml: &str) -> RuleSet {
    let (documents, problems) = parse_documents(yaml);
    assert!(problems.is_empty(), "{problems:?}");
    let mut rules = RuleSet::new();
    let mut tree = PostureTree::new();
    for document in &documents {
        if document.root.get("kind").and_then(|kind| kind.text()) == Some("Namespace") {
            let name = document.root.at(&["metadata", "name"]).and_then(|name| name.text()).expect("a name");
            let namespace = NamespacePath::root().join(name).expect("a path");
            let (read, problems) = manifest::protection(&document.root, yaml);
            assert!(problems.is_empty(), "{problems:?}");
            tree.set(namespace.clone(), read.expect("a protection"));
            rules.set_posture(namespace.clone(), Some(tree.effective(&namespace, now())));
        } else {
            let (read, problems) = manifest::policy(&document.root, yaml, &NamespacePath::root());
            rules.insert(read.unwrap_or_else(|| panic!("{problems:?}")));
        }
    }
    // Workloads stand in namespaces below the declared ones.
    for path in ["/acme/eu", "/acme/us", "/other"] {
        let path = NamespacePath::new(path).expect("a path");
        rules.set_posture(path.clone(), Some(tree.effective(&path, now())));
    }
    rules
}

fn now() -> Timestamp {
    Timestamp::from_str("2030-01-01T00:00:00Z").expect("a time")
}

fn identity(namespace: &str, labels: &str) -> Identity {
    let mut attributes = Attributes::new();
    attributes.set("@namespace", namespace).expect("a namespace");
    for label in labels.split(',') {
        let (key, value) = label.split_once('=').expect("key=value");
        attributes.set(key, value).expect("a label");
    }
    Identity::new(attributes).expect("an identity")
}

/// `NAMESPACE LABELS -> NAMESPACE LABELS PORT VERDICT # remark`
fn check(rules: &RuleSet, line: &str) {
    let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
    let [client_ns, client, "->", server_ns, server, port, expected] = words[..] else { panic!("cannot read: {line}") };
    let (client, server) = (identity(client_ns, client), identity(server_ns, server));
    let range = Port::from_str(port).expect("a port").ranges().next().expect("a range");
    let flow = Flow {
        client: Peer::Workload(&client),
        server: Peer::Workload(&server),
        protocol: range.protocol,
        port: range.first,
    };
    let decision = rules.decide(&flow);
    let said = match (decision.allowed, decision.would_allow) {
        (true, true) => "allow",
        (true, false) => "would-deny",
        (false, _) => "deny",
    };
    assert_eq!(said, expected, "{line}\n{decision:#?}");
}
