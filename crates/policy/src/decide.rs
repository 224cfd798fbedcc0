//! From the verdicts of both sides to a decision.
//!
//! [`SideVerdict`] is what one side says about every port of a pair of ends; [`combine`] joins the two. Both are plain
//! data, so that a side can be computed where its policies are known and used where they are not.

use crate::attribute::Peer;
use crate::namespace::PolicyId;
use crate::policy::{Action, Mode, Side};
use crate::port::protocol;
use crate::reason::Reason;

/// What one side says about all ports between two ends.
///
/// Shape: `ranges` are disjoint within a protocol and sorted by (protocol, first). A flow's port is looked up among the
///        ranges of its own protocol, then among those of [`protocol::ANY`], else `default` holds. [`protocol::ANY`] has
///        at most one range, and it has all ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideVerdict {
    /// Whether this side carries its verdicts out.
    pub mode: Mode,
    /// Whether the other end is outside the fleet.
    pub external_peer: bool,
    /// What the posture says about ports in no range.
    pub default: Action,
    /// Ports about which policies say something.
    pub ranges: Vec<PortOutcome>,
}

/// What one side says about a range of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOutcome {
    /// IP protocol number; [`protocol::ANY`] for all that have no range of their own.
    pub protocol: u8,
    /// First port.
    pub first: u16,
    /// Last port, inclusive.
    pub last: u16,
    /// What is said.
    pub outcome: Outcome,
}

/// What one side says about one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Allow or deny, as if carried out.
    pub action: Action,
    /// The policy that decides; `None`: the default.
    pub by: Option<PolicyId>,
    /// The policy with `mode: observe` that would decide, were it enforced.
    pub observed: Option<Observed>,
}

/// What a policy with `mode: observe` would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The policy.
    pub by: PolicyId,
    /// What it would make of the flow.
    pub action: Action,
}

impl SideVerdict {
    /// What this side says about a flow's protocol and port.
    pub fn at(&self, protocol: u8, port: u16) -> Outcome {
        let found = self.range(protocol, port).or_else(|| self.range(protocol::ANY, port));
        found.map_or(Outcome { action: self.default, by: None, observed: None }, |range| range.outcome.clone())
    }

    fn range(&self, protocol: u8, port: u16) -> Option<&PortOutcome> {
        let after = self.ranges.partition_point(|r| (r.protocol, r.first) <= (protocol, port));
        let range = self.ranges[..after].last()?;
        (range.protocol == protocol && range.last >= port).then_some(range)
    }
}

/// A connection, or an exchange of datagrams, to be decided on.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// Who opens it.
    pub client: Peer<'a>,
    /// Who is reached.
    pub server: Peer<'a>,
    /// IP protocol number.
    pub protocol: u8,
    /// The port that the server's socket is bound to; 0 for protocols without ports.
    pub port: u16,
}

/// What happens to a flow, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is carried out.
    pub allowed: bool,
    /// What would be carried out if both sides enforced.
    pub would_allow: bool,
    /// The client's side; `None` for an external end, or where it is not known.
    pub egress: Option<SideDecision>,
    /// The server's side; `None` for an external end, or where it is not known.
    pub ingress: Option<SideDecision>,
    /// The side that refuses, or would: one that carries it out comes first, then the client's.
    pub refused_by: Option<Side>,
    /// Why, seen from the side that refuses; `None` when nothing refuses or would.
    pub reason: Option<Reason>,
}

/// What one side says about a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideDecision {
    /// Whether the side carries it out.
    pub mode: Mode,
    /// What it says.
    pub outcome: Outcome,
}

impl SideDecision {
    /// Whether this side stops the flow.
    pub fn blocks(&self) -> bool {
        self.mode == Mode::Enforce && self.outcome.action == Action::Deny
    }
}

impl Decision {
    /// What one side says.
    pub fn side(&self, side: Side) -> Option<&SideDecision> {
        match side {
            Side::Egress => self.egress.as_ref(),
            Side::Ingress => self.ingress.as_ref(),
        }
    }

    /// The reason as one end may know it: of the other side only that it refused.
    pub fn reason_seen_from(&self, side: Side) -> Option<Reason> {
        let reason = self.reason?;
        Some(if self.refused_by == Some(side.other()) { Reason::PeerSideDeny } else { reason })
    }
}

/// Joins what both sides say about one port. A side that is not ours has no say; a flow without any side is refused.
pub fn combine(egress: Option<&SideVerdict>, ingress: Option<&SideVerdict>, protocol: u8, port: u16) -> Decision {
    let at = |side: &SideVerdict| SideDecision { mode: side.mode, outcome: side.at(protocol, port) };
    let external = egress.or(ingress).is_none_or(|side| side.external_peer);
    join(egress.map(at), ingress.map(at), external, protocol)
}

/// Joins two sides' words about one flow; `external`: an end is outside the fleet.
pub(crate) fn join(
    egress: Option<SideDecision>,
    ingress: Option<SideDecision>,
    external: bool,
    protocol: u8,
) -> Decision {
    if egress.is_none() && ingress.is_none() {
        let reason = Some(Reason::ExternalDeny);
        return Decision { allowed: false, would_allow: false, egress, ingress, refused_by: None, reason };
    }
    let sides = [(Side::Egress, &egress), (Side::Ingress, &ingress)];
    let said = || sides.iter().filter_map(|(side, word)| word.as_ref().map(|word| (*side, word)));
    let denies = |word: &SideDecision| word.outcome.action == Action::Deny;
    let blocking = said().find(|(_, word)| word.blocks());
    let denying = blocking.or_else(|| said().find(|(_, word)| denies(word)));
    let (allowed, would_allow) = (blocking.is_none(), denying.is_none());
    let reason = denying.map(|(_, word)| refusal(word, external, protocol));
    let refused_by = denying.map(|(side, _)| side);
    Decision { allowed, would_allow, egress, ingress, refused_by, reason }
}

fn refusal(word: &SideDecision, external: bool, protocol: u8) -> Reason {
    match (&word.outcome.by, protocol) {
        (Some(_), _) => Reason::PolicyDeny,
        (None, protocol::ICMP | protocol::ICMPV6) => Reason::IcmpDeny,
        (None, _) if external => Reason::ExternalDeny,
        (None, _) => Reason::DefaultDeny,
    }
}
