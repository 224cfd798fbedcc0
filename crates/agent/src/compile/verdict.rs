//! From what two sides say to the verdicts by port that the kernel looks up.

use std::collections::BTreeSet;

use datapath::state::{ClassId, Direction, PairVerdicts, RangeVerdict, Verdict};
use policy::decide::{Decision, SideDecision, SideVerdict, combine};
use policy::policy::{Action, Mode, Side};
use policy::port::protocol;
use policy::reason::Reason;

use crate::numbering::Numbering;

/// What is known of both ends.
pub(super) struct Ends<'a> {
    /// What this node's side says.
    pub own: &'a SideVerdict,
    /// What the peer's side says, where it is judged here.
    pub peer: Option<&'a SideVerdict>,
    /// Mandatory encryption, and whether that is carried out.
    pub strict: Option<Mode>,
}

/// Verdicts of one pair in one direction.
///
/// Shape: a range is listed only where it differs from `otherwise`; ranges touch only where verdicts differ.
pub(super) fn pair(
    local: ClassId,
    peer: ClassId,
    direction: Direction,
    ends: &Ends<'_>,
    numbering: &mut Numbering,
) -> PairVerdicts {
    let sides = || std::iter::once(ends.own).chain(ends.peer);
    let named: BTreeSet<u8> =
        sides().flat_map(|side| &side.ranges).map(|range| range.protocol).filter(|p| *p != protocol::ANY).collect();
    let unnamed = (1..=u8::MAX).rev().find(|protocol| !named.contains(protocol)).unwrap_or(u8::MAX);
    let otherwise = verdict(ends, direction, unnamed, 0, numbering);
    let mut ranges: Vec<RangeVerdict> = Vec::new();
    for protocol in named {
        let mut cuts = BTreeSet::from([0u32]);
        for range in sides().flat_map(|side| &side.ranges).filter(|range| range.protocol == protocol) {
            cuts.extend([u32::from(range.first), u32::from(range.last) + 1]);
        }
        cuts.insert(1 << 16);
        let cuts: Vec<u32> = cuts.into_iter().collect();
        for span in cuts.windows(2) {
            let (first, last) = (span[0] as u16, (span[1] - 1) as u16);
            let verdict = verdict(ends, direction, protocol, first, numbering);
            match ranges.last_mut() {
                _ if verdict == otherwise => {}
                Some(before)
                    if before.protocol == protocol
                        && before.verdict == verdict
                        && u32::from(before.last) + 1 == span[0] =>
                {
                    before.last = last;
                }
                _ => ranges.push(RangeVerdict { protocol, first, last, verdict }),
            }
        }
    }
    PairVerdicts { local, peer, direction, ranges, otherwise }
}

/// Whether two entries say the same, whomever they are about.
pub(super) fn same(a: &PairVerdicts, b: &PairVerdicts) -> bool {
    a.otherwise == b.otherwise && a.ranges == b.ranges
}

fn verdict(ends: &Ends<'_>, direction: Direction, protocol: u8, port: u16, numbering: &mut Numbering) -> Verdict {
    let side = match direction {
        Direction::Ingress => Side::Ingress,
        Direction::Egress => Side::Egress,
    };
    let (egress, ingress) = match side {
        Side::Ingress => (ends.peer, Some(ends.own)),
        Side::Egress => (Some(ends.own), ends.peer),
    };
    let decision = combine(egress, ingress, protocol, port);
    let Some(own) = decision.side(side) else {
        return Verdict { allow: false, would_allow: false, reason: Reason::DefaultDeny as u8, rule: 0 };
    };
    let by = own.outcome.by.as_ref().map(ToString::to_string);
    let mut verdict = Verdict {
        allow: decision.allowed,
        would_allow: decision.would_allow,
        reason: reason(&decision, own, side, ends.own.external_peer).map_or(0, |reason| reason as u8),
        rule: by.map_or(0, |name| numbering.number(&name)),
    };
    if let Some(observed) = own.outcome.observed.as_ref().filter(|o| o.action == Action::Deny && verdict.would_allow) {
        // A policy that only observes changes no verdict; that it would refuse is what it is there to record.
        verdict.would_allow = false;
        verdict.reason = Reason::PolicyDeny as u8;
        verdict.rule = numbering.number(&observed.by.to_string());
    }
    if let Some(mode) = ends.strict.filter(|_| verdict.would_allow) {
        verdict.would_allow = false;
        verdict.allow &= mode == Mode::Observe;
        verdict.reason = Reason::DepthUnavailable as u8;
    }
    verdict
}

/// Why it is refused or would be, as this end may know it: its own side's word comes first, of the other only that it refuses.
fn reason(decision: &Decision, own: &SideDecision, side: Side, external: bool) -> Option<Reason> {
    if decision.would_allow {
        return None;
    }
    let own_refuses = if decision.allowed { own.outcome.action == Action::Deny } else { own.blocks() };
    match (own_refuses, &own.outcome.by) {
        (false, _) => Some(Reason::PeerSideDeny),
        (true, Some(_)) => Some(Reason::PolicyDeny),
        (true, None) if decision.refused_by == Some(side) => decision.reason,
        (true, None) if external => Some(Reason::ExternalDeny),
        (true, None) => Some(Reason::DefaultDeny),
    }
}
