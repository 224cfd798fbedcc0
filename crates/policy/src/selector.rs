//! Selectors: which identities and which external ends a policy means.
//!
//! A selector is a conjunction of requirements. Without a requirement that names namespaces it reaches only the
//! subtree of the namespace of the policy that uses it, so that nobody gets in by borrowing a label.

mod check;
mod parse;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

pub use self::parse::Parsed;
use crate::attribute::{EXTERNAL_KEY, Identity, NAMESPACE_KEY, Peer};
use crate::diagnostic::Problem;
use crate::namespace::{ExternalId, NamespacePath, path_contains};

/// Longest selector text in bytes.
pub const SELECTOR_LEN_MAX: usize = 16 * 1024;
/// Most requirements of one selector.
pub const REQUIREMENTS_MAX: usize = 64;
/// Most values of one `in (…)`.
pub const VALUES_MAX: usize = 256;

/// A conjunction of requirements; none at all is written `any`.
///
/// Shape: what [`Selector::parse`] accepts and `Display` prints; printing and parsing again gives an equal selector.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One requirement on one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The attribute's key, `@` included.
    pub key: String,
    /// What is asked of it.
    pub test: Test,
}

/// What a requirement asks of its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Test {
    /// `key`: it is there.
    Exists,
    /// `!key`: it is not.
    Absent,
    /// `key=a`, `key in (a,b)`: it is there with one of these values.
    In(Vec<Pattern>),
    /// `key!=a`, `key notin (a,b)`: it is absent or has none of these values.
    NotIn(Vec<Pattern>),
}

/// A value to compare with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// This value.
    Exact(String),
    /// Every value that begins so; `*` alone is the empty prefix.
    Prefix(String),
    /// A namespace and all below it; only for `@namespace`.
    Subtree(NamespacePath),
}

/// Why a text is no selector: every problem of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(|p| p.message.as_str()).collect::<Vec<_>>().join("; "))]
pub struct SelectorError(pub Vec<Problem>);

impl Selector {
    /// `any`: every identity in scope.
    pub fn any() -> Self {
        Self { requirements: Vec::new() }
    }

    /// All of these requirements; none at all is [`Selector::any`].
    pub(crate) fn of(requirements: Vec<Requirement>) -> Self {
        Self { requirements }
    }

    /// Parses the text of a selector and keeps where each requirement stands.
    pub fn parse(text: &str) -> Result<Parsed, SelectorError> {
        parse::parse(text)
    }

    /// The requirements in the author's order.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it means external ends rather than workloads.
    pub fn is_external(&self) -> bool {
        self.requirements.iter().any(|r| r.key == EXTERNAL_KEY)
    }

    /// Whether it says itself which namespaces it means. Negations narrow, they never widen.
    pub fn names_namespaces(&self) -> bool {
        self.namespace_patterns().next().is_some()
    }

    /// Whether it asks for nothing but a namespace, so that it means all workloads of a namespace or none.
    pub(crate) fn is_wide(&self) -> bool {
        self.requirements.iter().all(|r| r.key == NAMESPACE_KEY)
    }

    /// Whether a wide selector means the workloads of a namespace.
    pub(crate) fn matches_namespace(&self, own: &NamespacePath, namespace: &NamespacePath) -> bool {
        (self.names_namespaces() || own.contains(namespace))
            && self.requirements.iter().all(|r| r.test.holds(Some(namespace.as_str())))
    }

    pub(crate) fn namespace_patterns(&self) -> impl Iterator<Item = &[Pattern]> {
        self.requirements.iter().filter_map(|r| match &r.test {
            Test::In(patterns) if r.key == NAMESPACE_KEY => Some(&patterns[..]),
            _ => None,
        })
    }

    /// Whether it means this end, when written in a policy of namespace `own`.
    pub fn matches(&self, own: &NamespacePath, end: &Peer<'_>) -> bool {
        match end {
            Peer::Workload(identity) => self.matches_workload(own, identity),
            Peer::External(networks) => self.matches_external(own, networks),
        }
    }

    /// Whether it means this workload.
    pub fn matches_workload(&self, own: &NamespacePath, identity: &Identity) -> bool {
        (self.names_namespaces() || own.contains(identity.namespace()))
            && self.requirements.iter().all(|r| r.holds(identity))
    }

    /// Whether it means an end outside the fleet that these networks cover. Names are looked for in the policy's own
    /// namespace and those above it; nothing but `@external` ever matches such an end.
    pub fn matches_external(&self, own: &NamespacePath, networks: &BTreeSet<ExternalId>) -> bool {
        let [Requirement { key, test }] = &self.requirements[..] else {
            return false;
        };
        key == EXTERNAL_KEY
            && networks.iter().filter(|network| network.namespace().contains(own)).any(|network| match test {
                Test::Exists => true,
                Test::In(patterns) => patterns.iter().any(|p| p.matches_network(network)),
                Test::Absent | Test::NotIn(_) => false,
            })
    }
}

impl Requirement {
    /// Whether a workload meets it. Nothing meets a requirement on `@external`.
    pub fn holds(&self, identity: &Identity) -> bool {
        if self.key == EXTERNAL_KEY {
            return false;
        }
        self.test.holds(identity.attributes().get(&self.key))
    }
}

impl Test {
    /// Whether a value of the key, or its absence, passes.
    pub fn holds(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Test::Exists, value) => value.is_some(),
            (Test::Absent, value) => value.is_none(),
            (Test::In(_), None) => false,
            (Test::In(patterns), Some(value)) => patterns.iter().any(|p| p.matches(value)),
            (Test::NotIn(_), None) => true,
            (Test::NotIn(patterns), Some(value)) => !patterns.iter().any(|p| p.matches(value)),
        }
    }
}

impl Pattern {
    /// Whether a value fits.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Pattern::Exact(exact) => value == exact,
            Pattern::Prefix(prefix) => value.starts_with(prefix.as_str()),
            Pattern::Subtree(path) => path_contains(path.as_str(), value),
        }
    }

    fn matches_network(&self, network: &ExternalId) -> bool {
        let (Pattern::Exact(text) | Pattern::Prefix(text)) = self else {
            return false;
        };
        match text.starts_with('/') {
            true => self.matches(&network.to_string()),
            false => self.matches(network.name()),
        }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text).map(|parsed| parsed.selector)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("any");
        }
        for (index, requirement) in self.requirements.iter().enumerate() {
            write!(f, "{}{requirement}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.test {
            Test::Exists => write!(f, "{key}"),
            Test::Absent => write!(f, "!{key}"),
            Test::In(patterns) => write_list(f, key, "=", "in", patterns),
            Test::NotIn(patterns) => write_list(f, key, "!=", "notin", patterns),
        }
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, key: &str, one: &str, many: &str, patterns: &[Pattern]) -> fmt::Result {
    if let [pattern] = patterns {
        return write!(f, "{key}{one}{pattern}");
    }
    write!(f, "{key} {many} (")?;
    for (index, pattern) in patterns.iter().enumerate() {
        write!(f, "{}{pattern}", if index > 0 { "," } else { "" })?;
    }
    f.write_str(")")
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Exact(text) => write_value(f, text),
            Pattern::Prefix(text) if text.is_empty() => f.write_str("*"),
            Pattern::Prefix(text) => {
                write_value(f, text)?;
                f.write_str("*")
            }
            Pattern::Subtree(path) if path.is_root() => f.write_str("/**"),
            Pattern::Subtree(path) => write!(f, "{path}/**"),
        }
    }
}

fn write_value(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    if !text.is_empty() && text.chars().all(parse::is_bare) {
        return f.write_str(text);
    }
    write!(f, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests;
