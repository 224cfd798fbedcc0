//! The smallest policy that would allow a flow.

use crate::attribute::{EXTERNAL_KEY, Identity, NAMESPACE_KEY, Peer};
use crate::decide::Flow;
use crate::manifest::to_yaml;
use crate::namespace::{NamespacePath, PolicyId};
use crate::policy::{Action, Mode, Policy, Side};
use crate::port::Port;
use crate::rules::RuleSet;
use crate::selector::{Pattern, Requirement, Selector, Test};

/// User keys that name what a workload is, the best first.
const NAMING_KEYS: &[&str] = &["app", "app.kubernetes.io/name", "k8s-app", "name", "service"];
/// System keys that name what a workload is, for workloads without labels.
const SYSTEM_NAMING_KEYS: &[&str] =
    &["@k8s:owner", "@k8s:serviceaccount", "@linux:unit", "@linux:exe", "@linux:user", "@type"];
/// Most labels that stand for a workload without a naming key.
const LABELS_MAX: usize = 3;

/// A policy that nobody has written yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// The sides it is for.
    pub sides: Vec<Side>,
    /// The policy.
    pub policy: Policy,
}

impl Suggestion {
    /// The policy as a YAML document, ready to apply.
    pub fn yaml(&self) -> String {
        to_yaml(&self.policy)
    }
}

/// The policies that make the refusing sides allow a flow, and whether an ExternalNetwork is missing for that. One
/// policy in the namespace that both ends share, if that is below the root; across tenants one for each side.
pub(super) fn suggestions(rules: &RuleSet, flow: &Flow<'_>, refusing: &[Side]) -> (Vec<Suggestion>, bool) {
    let Some(&first) = refusing.first() else {
        return (Vec::new(), false);
    };
    let namespace = |end: &Peer<'_>| match end {
        Peer::Workload(identity) => Some(identity.namespace().clone()),
        Peer::External(_) => None,
    };
    let (client, server) = (namespace(&flow.client), namespace(&flow.server));
    let shared = client.as_ref().zip(server.as_ref()).map(|(a, b)| a.common(b));
    let places: Vec<(Vec<Side>, NamespacePath)> = match shared {
        Some(shared) if !shared.is_root() || client == server => vec![(refusing.to_vec(), shared)],
        _ => {
            let own = |side: &Side| match side {
                Side::Egress => client.clone(),
                Side::Ingress => server.clone(),
            };
            refusing.iter().filter_map(|side| Some((vec![*side], own(side)?))).collect()
        }
    };
    debug_assert!(!places.is_empty(), "{first} refuses and has no end of ours");
    let made: Vec<Option<Suggestion>> =
        places.into_iter().map(|(sides, own)| Some(Suggestion { sides, policy: policy(rules, flow, &own)? })).collect();
    let needs_network = made.iter().any(Option::is_none);
    (made.into_iter().flatten().collect(), needs_network)
}

/// `None`: an end is external and no network that a policy of `own` reaches covers it.
fn policy(rules: &RuleSet, flow: &Flow<'_>, own: &NamespacePath) -> Option<Policy> {
    let (from, client) = selector(&flow.client, own)?;
    let (to, server) = selector(&flow.server, own)?;
    let port = Port::of_flow(flow.protocol, flow.port).unwrap_or(Port::Any);
    let id = free_id(rules, own, &format!("{client}-to-{server}"));
    Some(Policy {
        id,
        from: vec![from],
        to: vec![to],
        ports: vec![port],
        action: Action::Allow,
        mode: Mode::Enforce,
        reason: None,
    })
}

/// A selector of a policy of `own` that means an end by what it is, and a short name for it.
fn selector(end: &Peer<'_>, own: &NamespacePath) -> Option<(Selector, String)> {
    let identity = match end {
        Peer::Workload(identity) => identity,
        Peer::External(networks) => {
            let network = networks.iter().rfind(|network| network.namespace().contains(own))?;
            let requirement = equals(EXTERNAL_KEY, network.name());
            return Some((Selector::of(vec![requirement]), network.name().to_owned()));
        }
    };
    let mut requirements = naming(identity);
    let name = requirements.first().map_or("any", |(_, value)| value).to_owned();
    if identity.namespace() != own {
        requirements.insert(0, (NAMESPACE_KEY, identity.namespace().as_str()));
    }
    let requirements = requirements.into_iter().map(|(key, value)| equals(key, value)).collect();
    Some((Selector::of(requirements), name))
}

fn equals(key: &str, value: &str) -> Requirement {
    Requirement { key: key.to_owned(), test: Test::In(vec![Pattern::Exact(value.to_owned())]) }
}

/// The few attributes that say what a workload is.
fn naming(identity: &Identity) -> Vec<(&str, &str)> {
    let attributes = identity.attributes();
    let one = |keys: &[&'static str]| keys.iter().find_map(|&key| attributes.get(key).map(|value| (key, value)));
    if let Some(named) = one(NAMING_KEYS) {
        return vec![named];
    }
    let labels: Vec<(&str, &str)> = attributes.user().take(LABELS_MAX).collect();
    if !labels.is_empty() {
        return labels;
    }
    one(SYSTEM_NAMING_KEYS).into_iter().collect()
}

/// An id that no policy has yet, from words of any kind.
fn free_id(rules: &RuleSet, own: &NamespacePath, words: &str) -> PolicyId {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = words.chars().map(plain).collect();
    let name: Vec<&str> = name.split('-').filter(|part| !part.is_empty()).collect();
    let mut name = name.join("-");
    name.truncate(200);
    let name = name.trim_end_matches('-');
    let numbered = |n: usize| if n == 1 { name.to_owned() } else { format!("{name}-{n}") };
    let ids = (1..).filter_map(|n| PolicyId::new(own.clone(), &numbered(n)).ok());
    ids.into_iter().find(|id| rules.get(id).is_none()).expect("BUG: every number is taken")
}
