mod fixtures;
mod naive;
pub(crate) mod properties;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::namespace::ExternalId;
use crate::policy::Mode;
use crate::port::Port;
use crate::port::protocol;

/// A named end of a fixture.
pub(crate) enum End {
    Workload(Identity),
    External(BTreeSet<ExternalId>),
}

impl End {
    pub(crate) fn peer(&self) -> Peer<'_> {
        match self {
            End::Workload(identity) => Peer::Workload(identity),
            End::External(networks) => Peer::External(networks),
        }
    }
}

/// The text form of a world:
/// ```text
/// posture /shop enforce ingress=deny egress=allow
/// workload web /shop app=web
/// external pay /acme:stripe
/// policy /shop:p deny observe | app=web ; app=x | app=db | tcp/80 udp/53
/// ```
#[derive(Default)]
pub(crate) struct World {
    pub(crate) rules: RuleSet,
    pub(crate) ends: BTreeMap<String, End>,
}

impl World {
    pub(crate) fn line(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap();
        let words: Vec<&str> = rest.split_whitespace().collect();
        match word {
            "posture" => {
                let mut posture = Posture { mode: words[1].parse().unwrap(), ..Posture::FRESH };
                for word in &words[2..] {
                    match word.split_once('=').unwrap() {
                        ("ingress", action) => posture.ingress = action.parse().unwrap(),
                        ("egress", action) => posture.egress = action.parse().unwrap(),
                        _ => panic!("{line}"),
                    }
                }
                self.rules.set_posture(words[0].parse().unwrap(), Some(posture));
            }
            "workload" => {
                let labels = words[2..].iter().map(|pair| pair.split_once('=').unwrap());
                let identity = Identity::from_pairs(labels.chain([("@namespace", words[1])])).unwrap();
                self.ends.insert(words[0].to_owned(), End::Workload(identity));
            }
            "external" => {
                let networks = words[1..].iter().map(|id| id.parse().unwrap()).collect();
                self.ends.insert(words[0].to_owned(), End::External(networks));
            }
            "policy" => drop(self.rules.insert(policy(rest))),
            _ => panic!("{line}"),
        }
    }

    /// Hands `client -> server port` over as a flow.
    pub(crate) fn flow<T>(&self, query: &str, with: impl FnOnce(&RuleSet, &Flow<'_>) -> T) -> T {
        let (client, rest) = query.split_once(" -> ").unwrap();
        let (server, port) = rest.split_once(' ').unwrap();
        let port = port.parse::<Port>().unwrap().ranges().next().unwrap();
        let protocol = if port.protocol == protocol::ANY { 132 } else { port.protocol };
        let (client, server) = (&self.ends[client], &self.ends[server]);
        let flow = Flow { client: client.peer(), server: server.peer(), protocol, port: port.first };
        with(&self.rules, &flow)
    }
}

/// `/ns:name ACTION [observe] | from ; from | to ; to | ports`
pub(crate) fn policy(text: &str) -> Policy {
    let [head, from, to, ports] = text.split('|').map(str::trim).collect::<Vec<_>>()[..] else { panic!("{text}") };
    let head: Vec<&str> = head.split_whitespace().collect();
    let selectors = |text: &str| text.split(';').map(|s| s.parse().unwrap()).collect();
    Policy {
        id: head[0].parse().unwrap(),
        from: selectors(from),
        to: selectors(to),
        ports: ports.split_whitespace().map(|p| p.parse().unwrap()).collect(),
        action: head[1].parse().unwrap(),
        mode: if head.get(2) == Some(&"observe") { Mode::Observe } else { Mode::Enforce },
        reason: None,
    }
}

/// `allow`, `deny policy-deny`, `allow (would deny default-deny)`; then who decided on each side.
fn show(decision: &Decision) -> String {
    let reason = decision.reason.map_or("", |r| r.label());
    let verdict = match (decision.allowed, decision.would_allow) {
        (true, true) => "allow".to_owned(),
        (true, false) => format!("allow (would deny {reason})"),
        (false, _) => format!("deny {reason}"),
    };
    let side = |side: &Option<SideDecision>| match side {
        None => "-".to_owned(),
        Some(SideDecision { outcome, .. }) => {
            let by = outcome.by.as_ref().map_or("default".to_owned(), |id| id.to_string());
            let observed = outcome.observed.as_ref().map(|o| format!(" ({} would {})", o.by, o.action));
            format!("{} {by}{}", outcome.action, observed.unwrap_or_default())
        }
    };
    format!("{verdict} | {} | {}", side(&decision.egress), side(&decision.ingress))
}

/// Lines of a world; lines `QUERY => EXPECTED` are asked of it as it stands by then.
pub(crate) fn check(fixture: &str) {
    let mut world = World::default();
    for line in fixture.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        match line.split_once(" => ") {
            Some((query, expected)) => {
                assert_eq!(world.flow(query, |rules, flow| show(&rules.decide(flow))), expected.trim(), "{query}");
            }
            None => world.line(line),
        }
    }
}
