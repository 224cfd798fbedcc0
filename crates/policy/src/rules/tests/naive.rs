//! The evaluator once more, word for word from the design and without any cleverness, to compare with.

use super::*;
use crate::policy::Action;
use crate::selector::{Pattern, Selector, Test};

/// Every policy is asked about every flow.
#[derive(Default)]
pub(super) struct Naive {
    pub(super) policies: Vec<Policy>,
    pub(super) postures: Vec<(NamespacePath, Posture)>,
}

/// What one side says: action, the deciding policy, the observing policy.
type Word = (Mode, Action, Option<String>, Option<(String, Action)>);

impl Naive {
    pub(super) fn side(&self, side: Side, subject: &Identity, peer: &Peer<'_>, protocol: u8, port: u16) -> Word {
        let posture = self
            .postures
            .iter()
            .filter(|(path, _)| below(subject.namespace(), path))
            .max_by_key(|(path, _)| path.as_str().trim_end_matches('/').len())
            .map_or(Posture::FRESH, |(_, posture)| *posture);
        let subject_peer = Peer::Workload(subject);
        let (client, server) = match side {
            Side::Egress => (&subject_peer, peer),
            Side::Ingress => (peer, &subject_peer),
        };
        let mut hits: Vec<&Policy> = self
            .policies
            .iter()
            .filter(|p| below(subject.namespace(), p.namespace()))
            .filter(|p| p.from.iter().any(|s| means(s, p.namespace(), client)))
            .filter(|p| p.to.iter().any(|s| means(s, p.namespace(), server)))
            .filter(|p| p.ports.iter().any(|port_of| names(*port_of, protocol, port)))
            .collect();
        hits.sort_by(|a, b| a.id.cmp(&b.id));
        let first = |mode, action| hits.iter().find(|p| p.mode == mode && p.action == action).map(|p| p.id.to_string());
        let default = if side == Side::Egress { posture.egress } else { posture.ingress };
        let (deny, allow) = (first(Mode::Enforce, Action::Deny), first(Mode::Enforce, Action::Allow));
        let (may_deny, may_allow) = (first(Mode::Observe, Action::Deny), first(Mode::Observe, Action::Allow));
        let (action, by) = match (&deny, &allow) {
            (Some(_), _) => (Action::Deny, deny.clone()),
            (None, Some(_)) => (Action::Allow, allow.clone()),
            (None, None) => (default, None),
        };
        let observed = if deny.is_some() {
            None
        } else if let Some(id) = may_deny {
            Some((id, Action::Deny))
        } else if allow.is_some() {
            None
        } else {
            may_allow.map(|id| (id, Action::Allow))
        };
        (posture.mode, action, by, observed)
    }
}

fn below(inner: &NamespacePath, outer: &NamespacePath) -> bool {
    let parts = |path: &NamespacePath| -> Vec<String> {
        path.as_str().split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect()
    };
    parts(inner).starts_with(&parts(outer))
}

fn names(port_of: Port, protocol: u8, port: u16) -> bool {
    match port_of {
        Port::Any => true,
        Port::Icmp => protocol == 1 || protocol == 58,
        Port::Tcp(first, last) => protocol == 6 && first <= port && port <= last,
        Port::Udp(first, last) => protocol == 17 && first <= port && port <= last,
    }
}

fn means(selector: &Selector, own: &NamespacePath, end: &Peer<'_>) -> bool {
    let tests = selector.requirements();
    match end {
        Peer::External(networks) => networks.iter().any(|network| {
            below(own, network.namespace())
                && tests.len() == 1
                && tests[0].key == "@external"
                && match &tests[0].test {
                    Test::In(patterns) => patterns.iter().any(|pattern| match pattern {
                        Pattern::Exact(name) => name == network.name() || *name == network.to_string(),
                        Pattern::Prefix(name) => network.name().starts_with(name.as_str()),
                        Pattern::Subtree(_) => false,
                    }),
                    _ => false,
                }
        }),
        Peer::Workload(identity) => {
            let explicit = tests.iter().any(|r| r.key == "@namespace" && matches!(r.test, Test::In(_)));
            (explicit || below(identity.namespace(), own))
                && tests.iter().all(|requirement| {
                    let value = identity.attributes().get(&requirement.key);
                    let fits = |pattern: &Pattern| match (pattern, value) {
                        (_, None) => false,
                        (Pattern::Exact(text), Some(value)) => text == value,
                        (Pattern::Prefix(text), Some(value)) => value.starts_with(text.as_str()),
                        (Pattern::Subtree(path), Some(value)) => below(&value.parse().unwrap(), path),
                    };
                    requirement.key != "@external"
                        && match &requirement.test {
                            Test::Exists => value.is_some(),
                            Test::Absent => value.is_none(),
                            Test::In(patterns) => patterns.iter().any(fits),
                            Test::NotIn(patterns) => !patterns.iter().any(fits),
                        }
                })
        }
    }
}
