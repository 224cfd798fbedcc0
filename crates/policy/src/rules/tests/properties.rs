//! The indexed evaluator equals the naive one, however its policies came and went.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::naive::Naive;
use super::*;
use crate::decide::combine;
use crate::policy::Action;

const NAMESPACES: &[&str] = &["/", "/a", "/a/b", "/a/b/c", "/a/bc", "/x", "/x/y"];
const PORTS: &[(u8, u16)] =
    &[(6, 1), (6, 79), (6, 80), (6, 81), (6, 443), (6, 65535), (17, 53), (17, 80), (1, 0), (58, 0), (132, 80)];

fn value() -> impl Strategy<Value = &'static str> {
    select(vec!["p", "q", "pq", "r"])
}

fn requirement() -> impl Strategy<Value = String> {
    let key = select(vec!["k", "l", "m", "@cluster"]);
    let namespace = select(vec![
        "@namespace=/a",
        "@namespace=/a/**",
        "@namespace=/**",
        "@namespace in (/x/**,/a/b)",
        "@namespace!=/a/b",
        "@namespace!=/a/**",
        "@namespace=/a/b/c",
    ]);
    prop_oneof![
        4 => (key.clone(), value()).prop_map(|(k, v)| format!("{k}={v}")),
        1 => (key.clone(), value()).prop_map(|(k, v)| format!("{k}!={v}")),
        1 => (key.clone(), value()).prop_map(|(k, v)| format!("{k}={v}*")),
        1 => (key.clone(), value(), value()).prop_map(|(k, v, w)| format!("{k} in ({v},{w})")),
        1 => (key.clone(), value(), value()).prop_map(|(k, v, w)| format!("{k} notin ({v},{w}*)")),
        1 => key.clone().prop_map(|k| k.to_owned()),
        1 => key.prop_map(|k| format!("!{k}")),
        2 => namespace.prop_map(str::to_owned),
    ]
}

fn selector() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => Just("any".to_owned()),
        6 => vec(requirement(), 1..4).prop_map(|parts| parts.join(", ")),
        1 => select(vec!["@external=n", "@external=/a:n", "@external=n*", "@external in (n,o)"]).prop_map(str::to_owned),
    ]
}

prop_compose! {
    fn a_policy()(
        namespace in select(NAMESPACES),
        name in select(vec!["p1", "p2", "p3", "p4", "p5"]),
        from in vec(selector(), 1..3),
        to in vec(selector(), 1..3),
        ports in vec(select(vec!["any", "tcp", "tcp/80", "tcp/79-81", "tcp/1-443", "udp/53", "udp", "icmp", "tcp/81-65535"]), 1..4),
        action in select(vec!["allow", "allow", "deny"]),
        mode in select(vec!["", "", "observe"]),
    ) -> Policy {
        let (from, to, ports) = (from.join(";"), to.join(";"), ports.join(" "));
        policy(&format!("{namespace}:{name} {action} {mode} | {from} | {to} | {ports}"))
    }
}

prop_compose! {
    pub(crate) fn an_identity()(
        namespace in select(NAMESPACES),
        labels in vec((select(vec!["k", "l", "m", "@cluster"]), value()), 0..4),
    ) -> Identity {
        Identity::from_pairs(labels.into_iter().chain([("@namespace", namespace)])).unwrap()
    }
}

pub(crate) fn an_end() -> impl Strategy<Value = End> {
    let networks = vec((select(NAMESPACES), select(vec!["n", "o", "np"])), 0..3);
    prop_oneof![
        5 => an_identity().prop_map(End::Workload),
        1 => networks.prop_map(|ids| {
            End::External(ids.iter().map(|(ns, name)| format!("{ns}:{name}").parse().unwrap()).collect())
        }),
    ]
}

prop_compose! {
    pub(crate) fn a_posture()(
        namespace in select(NAMESPACES),
        mode in select(vec![Mode::Observe, Mode::Enforce]),
        ingress in select(vec![Action::Allow, Action::Deny]),
        egress in select(vec![Action::Allow, Action::Deny]),
    ) -> (NamespacePath, Posture) {
        (namespace.parse().unwrap(), Posture { mode, ingress, egress, ..Posture::FRESH })
    }
}

/// A change to the policies: put one in (or over another), or take one out.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Insert(Policy),
    Remove(usize),
}

pub(crate) fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![3 => a_policy().prop_map(Change::Insert), 1 => any::<usize>().prop_map(Change::Remove)];
    vec(change, 0..24)
}

pub(crate) fn apply(changes: &[Change], rules: &mut RuleSet) -> Vec<Policy> {
    let mut policies: Vec<Policy> = Vec::new();
    for change in changes {
        match change {
            Change::Insert(policy) => {
                policies.retain(|p| p.id != policy.id);
                policies.push(policy.clone());
                rules.insert(policy.clone());
            }
            Change::Remove(at) if !policies.is_empty() => {
                let gone = policies.remove(at % policies.len());
                assert_eq!(rules.remove(&gone.id).as_deref(), Some(&gone));
            }
            Change::Remove(_) => {}
        }
    }
    policies
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.peer().fmt(f)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn equals_the_naive_evaluator(
        changes in changes(),
        postures in vec(a_posture(), 0..4),
        client in an_end(),
        server in an_end(),
    ) {
        let mut rules = RuleSet::new();
        let policies = apply(&changes, &mut rules);
        let mut by_path = BTreeMap::new();
        for (path, posture) in postures {
            rules.set_posture(path.clone(), Some(posture));
            by_path.insert(path, posture);
        }
        let naive = Naive { policies, postures: by_path.into_iter().collect() };
        let verdict = |side, subject: &End, peer: &End| match subject {
            End::Workload(identity) => Some(rules.side(side, identity, &peer.peer())),
            End::External(_) => None,
        };
        let egress = verdict(Side::Egress, &client, &server);
        let ingress = verdict(Side::Ingress, &server, &client);
        for &(protocol, port) in PORTS {
            let flow = Flow { client: client.peer(), server: server.peer(), protocol, port };
            let decision = rules.decide(&flow);
            prop_assert_eq!(&decision, &combine(egress.as_ref(), ingress.as_ref(), protocol, port));
            let mut blocked = false;
            let mut denied = false;
            for (side, subject, peer) in [(Side::Egress, &client, &server), (Side::Ingress, &server, &client)] {
                let End::Workload(identity) = subject else {
                    prop_assert!(decision.side(side).is_none());
                    continue;
                };
                let (mode, action, by, observed) = naive.side(side, identity, &peer.peer(), protocol, port);
                let word = decision.side(side).unwrap();
                prop_assert_eq!(word.mode, mode);
                prop_assert_eq!(word.outcome.action, action);
                prop_assert_eq!(word.outcome.by.as_ref().map(|id| id.to_string()), by);
                prop_assert_eq!(word.outcome.observed.as_ref().map(|o| (o.by.to_string(), o.action)), observed);
                denied |= action == Action::Deny;
                blocked |= action == Action::Deny && mode == Mode::Enforce;
            }
            if decision.egress.is_some() || decision.ingress.is_some() {
                prop_assert_eq!(decision.allowed, !blocked);
                prop_assert_eq!(decision.would_allow, !denied);
            }
            prop_assert_eq!(decision.reason.is_some(), !decision.would_allow);
        }
    }

    #[test]
    fn incremental_equals_fresh(changes in changes(), client in an_identity(), server in an_identity()) {
        let mut grown = RuleSet::new();
        let policies = apply(&changes, &mut grown);
        let mut fresh = RuleSet::new();
        for policy in policies.into_iter().rev() {
            fresh.insert(policy);
        }
        for side in [Side::Egress, Side::Ingress] {
            let (subject, peer) = if side == Side::Egress { (&client, &server) } else { (&server, &client) };
            prop_assert_eq!(
                grown.side(side, subject, &Peer::Workload(peer)),
                fresh.side(side, subject, &Peer::Workload(peer))
            );
        }
        prop_assert_eq!(grown.len(), fresh.len());
    }

    #[test]
    fn ranges_are_sorted_and_disjoint(changes in changes(), client in an_identity(), server in an_identity()) {
        let mut rules = RuleSet::new();
        apply(&changes, &mut rules);
        let verdict = rules.side(Side::Ingress, &server, &Peer::Workload(&client));
        for pair in verdict.ranges.windows(2) {
            prop_assert!((pair[0].protocol, pair[0].last) < (pair[1].protocol, pair[1].first));
        }
        for range in &verdict.ranges {
            prop_assert!(range.first <= range.last);
            prop_assert!(range.protocol != protocol::ANY || (range.first, range.last) == (0, u16::MAX));
        }
    }

    #[test]
    fn selectors_print_and_parse_back(text in selector()) {
        let selector: crate::selector::Selector = text.parse().unwrap();
        let printed = selector.to_string();
        prop_assert_eq!(printed.parse::<crate::selector::Selector>().unwrap(), selector);
    }

    #[test]
    fn any_text_parses_or_has_problems_in_bounds(text in "[a-c@=!,*()\"' \\\\/in]{0,24}") {
        match crate::selector::Selector::parse(&text) {
            Ok(parsed) => {
                let printed = parsed.selector.to_string();
                prop_assert_eq!(printed.parse::<crate::selector::Selector>().unwrap(), parsed.selector);
            }
            Err(error) => {
                prop_assert!(!error.0.is_empty());
                for problem in error.0 {
                    prop_assert!(text.get(problem.span.clone()).is_some(), "{:?} of {:?}", problem, text);
                }
            }
        }
    }
}
