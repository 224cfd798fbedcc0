//! Policies that nearly allow a flow, and what is missing.

use std::fmt;

use crate::attribute::Peer;
use crate::decide::Flow;
use crate::namespace::{NamespacePath, PolicyId};
use crate::policy::{Action, Mode, Policy, Side};
use crate::port::Port;
use crate::rules::RuleSet;
use crate::selector::{Selector, Test};

/// Most policies named as near.
const NEAREST_MAX: usize = 3;
/// Most things that may be missing in a policy that is still near, when neither end matches it fully.
const MISSES_MAX: usize = 2;

/// A policy that nearly allows a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The policy.
    pub policy: PolicyId,
    /// What is missing; at least one thing.
    pub misses: Vec<Miss>,
}

/// What keeps a policy from allowing a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// An end does not meet a requirement.
    Requirement {
        /// Which end: egress is the client.
        end: Side,
        /// The requirement, as its author wrote it.
        requirement: String,
        /// The value that the end has for the key.
        has: Option<String>,
    },
    /// An end lies outside what the selector reaches.
    Scope {
        /// Which end.
        end: Side,
        /// Where the end lies.
        namespace: NamespacePath,
        /// The subtree that the selector reaches.
        reach: NamespacePath,
    },
    /// The selector means workloads and the end is external, or the other way round.
    External {
        /// Which end.
        end: Side,
        /// The selector.
        selector: String,
    },
    /// The port is not among the policy's.
    Port(Vec<Port>),
    /// The policy only observes.
    Observes,
}

impl fmt::Display for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let misses: Vec<String> = self.misses.iter().map(Miss::to_string).collect();
        write!(f, "{}: {}", self.policy, misses.join("; "))
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |end: &Side| match end {
            Side::Egress => "client",
            Side::Ingress => "server",
        };
        match self {
            Miss::Requirement { end, requirement, has: Some(has) } => {
                write!(f, "the {} does not meet {requirement}, it has {has}", name(end))
            }
            Miss::Requirement { end, requirement, has: None } => write!(f, "the {} lacks {requirement}", name(end)),
            Miss::Scope { end, namespace, reach } => {
                write!(f, "the {} is in {namespace}, the selector reaches {reach} and below", name(end))
            }
            Miss::External { end, selector } => {
                write!(f, "the {} is not what `{selector}` means", name(end))
            }
            Miss::Port(ports) => {
                let ports: Vec<String> = ports.iter().map(Port::to_string).collect();
                write!(f, "the port is not among {}", ports.join(", "))
            }
            Miss::Observes => f.write_str("the policy only observes"),
        }
    }
}

/// The policies that come nearest to allowing a flow for an end in `subject`, the nearest first.
pub(super) fn nearest(rules: &RuleSet, flow: &Flow<'_>, subject: &NamespacePath) -> Vec<NearMiss> {
    let speaking = rules.policies().filter(|p| p.action == Action::Allow && p.namespace().contains(subject));
    let mut near: Vec<NearMiss> = speaking.filter_map(|policy| near_miss(policy, flow)).collect();
    near.sort_by(|a, b| (a.misses.len(), &a.policy).cmp(&(b.misses.len(), &b.policy)));
    near.truncate(NEAREST_MAX);
    near
}

fn near_miss(policy: &Policy, flow: &Flow<'_>) -> Option<NearMiss> {
    let best = |end, peer: &Peer<'_>, selectors: &[Selector]| {
        let all = selectors.iter().map(|selector| misses(end, selector, policy.namespace(), peer));
        all.min_by_key(Vec::len).unwrap_or_default()
    };
    let client = best(Side::Egress, &flow.client, &policy.from);
    let server = best(Side::Ingress, &flow.server, &policy.to);
    let near = client.is_empty() || server.is_empty() || client.len() + server.len() <= MISSES_MAX;
    let mut misses = [client, server].concat();
    if !policy.covers(flow.protocol, flow.port) {
        misses.push(Miss::Port(policy.ports.clone()));
    }
    if policy.mode == Mode::Observe {
        misses.push(Miss::Observes);
    }
    (near && !misses.is_empty()).then(|| NearMiss { policy: policy.id.clone(), misses })
}

/// What keeps a selector of a policy of `own` from meaning an end.
fn misses(end: Side, selector: &Selector, own: &NamespacePath, peer: &Peer<'_>) -> Vec<Miss> {
    if selector.matches(own, peer) {
        return Vec::new();
    }
    let Peer::Workload(identity) = peer else {
        return vec![Miss::External { end, selector: selector.to_string() }];
    };
    if selector.is_external() {
        return vec![Miss::External { end, selector: selector.to_string() }];
    }
    let mut found = Vec::new();
    if !selector.names_namespaces() && !own.contains(identity.namespace()) {
        found.push(Miss::Scope { end, namespace: identity.namespace().clone(), reach: own.clone() });
    }
    for requirement in selector.requirements().iter().filter(|r| !r.holds(identity)) {
        let value = identity.attributes().get(&requirement.key);
        let has = value.map(|value| match &requirement.test {
            Test::Absent | Test::Exists => requirement.key.clone(),
            Test::In(_) | Test::NotIn(_) => format!("{}={value}", requirement.key),
        });
        found.push(Miss::Requirement { end, requirement: requirement.to_string(), has });
    }
    found
}
