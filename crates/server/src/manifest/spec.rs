//! The meaning of each kind's spec by itself.

mod cluster;
mod external_network;
mod revocation;
mod service;

use std::net::IpAddr;

use api::kind::Spec;
use api::kind::cluster::ClusterSpec;
use api::kind::external_network::ExternalNetworkSpec;
use api::kind::namespace::NamespaceSpec;
use api::kind::policy::PolicySpec;
use api::kind::revocation::RevocationSpec;
use api::kind::service::ServiceSpec;
use ipnet::IpNet;
use policy::code::Code;
use policy::code::api as api_code;
use policy::selector::{Selector, SelectorError};
use serde_json::Value as Json;

use super::*;

/// Reports everything that is wrong with a document's spec.
pub(super) fn check(kind: &Kind, root: &Node, source: &str, own: &NamespacePath, problems: &mut Vec<Problem>) {
    let mut reader = Spotter { root, source, own, problems };
    match kind.name {
        NamespaceSpec::KIND => reader.problems.extend(policy::manifest::protection(root, source).1),
        PolicySpec::KIND => reader.problems.extend(policy::manifest::policy(root, source, own).1),
        ExternalNetworkSpec::KIND => external_network::check(&mut reader),
        ServiceSpec::KIND => service::check(&mut reader),
        ClusterSpec::KIND => cluster::check(&mut reader),
        RevocationSpec::KIND => revocation::check(&mut reader),
        _ => {}
    }
}

/// A spec read into its type and written again: absent and default are one.
pub(super) fn normalised(kind: &Kind, spec: Json) -> Result<Json, serde_json::Error> {
    fn through<S: Spec>(spec: Json) -> Result<Json, serde_json::Error> {
        serde_json::from_value::<S>(spec).and_then(serde_json::to_value)
    }
    match kind.name {
        NamespaceSpec::KIND => through::<NamespaceSpec>(spec),
        PolicySpec::KIND => through::<PolicySpec>(spec),
        ExternalNetworkSpec::KIND => through::<ExternalNetworkSpec>(spec),
        ServiceSpec::KIND => through::<ServiceSpec>(spec),
        ClusterSpec::KIND => through::<ClusterSpec>(spec),
        RevocationSpec::KIND => through::<RevocationSpec>(spec),
        _ => Ok(spec),
    }
}

/// Looks at values and reports at their places.
struct Spotter<'a, 'p> {
    root: &'a Node,
    source: &'a str,
    own: &'a NamespacePath,
    problems: &'p mut Vec<Problem>,
}

impl<'a> Spotter<'a, '_> {
    /// The value at a path below `spec`.
    fn at(&self, path: &[&str]) -> Option<&'a Node> {
        path.iter().try_fold(self.root.get("spec")?, |node, key| node.get(key))
    }

    /// The items of a list below `spec`, with their fields' names.
    fn items(&self, path: &[&str]) -> Vec<(&'a Node, String)> {
        let field = format!("spec.{}", path.join("."));
        let items = self.at(path).map_or(&[][..], Node::items);
        items.iter().enumerate().map(|(index, node)| (node, format!("{field}[{index}]"))).collect()
    }

    fn error(&mut self, code: Code, node: &Node, field: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(code, node.span.clone(), message).field(field));
    }

    fn error_with_help(&mut self, code: Code, node: &Node, field: &str, message: String, help: impl Into<String>) {
        self.problems.push(Problem::new(code, node.span.clone(), message).field(field).help(help));
    }

    /// A list's length.
    fn length(&mut self, path: &[&str], least: usize, most: usize) {
        let Some(node) = self.at(path) else { return };
        let count = node.items().len();
        if matches!(node.value, Value::List(_)) && !(least..=most).contains(&count) {
            let field = format!("spec.{}", path.join("."));
            self.error(api_code::RANGE, node, &field, format!("{least} to {most} entries are taken here, not {count}"));
        }
    }

    /// A prefix: its host bits must be zero.
    fn prefix(&mut self, node: &Node, field: &str) -> Option<IpNet> {
        let text = node.text()?;
        match text.parse::<IpNet>() {
            Ok(prefix) if prefix.trunc() == prefix => Some(prefix),
            Ok(prefix) => {
                let message = format!("`{text}` has bits set behind the prefix");
                let help = format!(
                    "write {}, or {}/{} for this address alone",
                    prefix.trunc(),
                    prefix.addr(),
                    prefix.max_prefix_len()
                );
                self.error_with_help(code::WRONG_TYPE, node, field, message, help);
                None
            }
            Err(_) => {
                let help = match text.parse::<IpAddr>() {
                    Ok(address) => format!("for this address alone write {}", IpNet::from(address)),
                    Err(_) => "write it as in 203.0.113.0/24 or 2001:db8::/32".to_owned(),
                };
                self.error_with_help(code::WRONG_TYPE, node, field, format!("`{text}` is no prefix"), help);
                None
            }
        }
    }

    /// A single address that a peer can have.
    fn address(&mut self, node: &Node, field: &str) -> Option<IpAddr> {
        let text = node.text()?;
        let Ok(address) = text.parse::<IpAddr>() else {
            self.error(code::WRONG_TYPE, node, field, format!("`{text}` is no IP address"));
            return None;
        };
        if address.is_unspecified() || address.is_multicast() {
            self.error(api_code::RANGE, node, field, format!("`{text}` is no address of a host"));
            return None;
        }
        if address.to_canonical() != address {
            let help = format!("write {}", address.to_canonical());
            self.error_with_help(
                code::WRONG_TYPE,
                node,
                field,
                format!("`{text}` is an IPv4 address in IPv6 form"),
                help,
            );
            return None;
        }
        Some(address)
    }

    /// A selector; every reason why it cannot match.
    fn selector(&mut self, node: &Node, field: &str) -> Option<Selector> {
        let text = node.text()?;
        let (parsed, found) = match Selector::parse(text) {
            Ok(parsed) => {
                let found = parsed.problems(self.own);
                (Some(parsed.selector), found)
            }
            Err(SelectorError(found)) => (None, found),
        };
        for mut problem in found {
            problem.span = node.place_of(self.source, problem.span);
            self.problems.push(problem.field(field));
        }
        parsed
    }

    /// A field that nothing honours yet.
    fn not_honoured(&mut self, key: &str, why: &str) {
        let Some(entry) = self.root.get("spec").and_then(|spec| spec.entry(key)) else { return };
        let problem = Problem::new(api_code::NOT_HONOURED, entry.span.clone(), format!("`{key}` {why}"));
        self.problems.push(problem.field(format!("spec.{key}")).help("take the field out"));
    }
}
