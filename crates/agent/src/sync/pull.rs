//! Asking the server about peers and keys that the kernel does not know (PROTOCOL rule 11): merged, budgeted, and with a
//! memory of what the server does not know either. Owns no clock.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use identity::ids::{NodeId, WorkloadRef};

/// Something to ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unknown {
    /// A workload.
    Peer(WorkloadRef),
    /// A node's keys.
    Keys(NodeId),
}

/// What is asked, and what was answered.
#[derive(Debug)]
pub struct Pulls {
    waiting: BTreeSet<Unknown>,
    /// Asked, or known to be absent, until then.
    quiet: HashMap<Unknown, Duration>,
    tokens: f64,
    filled: Duration,
    dropped: u64,
    /// Something was to be asked since the last answer.
    open: bool,
}

/// Questions a second, on average.
const RATE: f64 = 50.0;
/// Questions at once after a quiet time.
const BURST: f64 = 200.0;
/// How long an unanswered question keeps the same one from being asked again.
const ASKED: Duration = Duration::from_secs(2);
/// How long "the server does not know it" is remembered.
const ABSENT: Duration = Duration::from_secs(10);
/// Most remembered answers; an attacker who names others is stopped by the budget.
const QUIET_MAX: usize = 4096;

impl Default for Pulls {
    fn default() -> Self {
        let quiet = HashMap::new();
        Self { waiting: BTreeSet::new(), quiet, tokens: BURST, filled: Duration::ZERO, dropped: 0, open: false }
    }
}

impl Pulls {
    /// The kernel met something it does not know. `now` counts from any fixed point.
    pub fn want(&mut self, unknown: Unknown, now: Duration) {
        let quiet = self.quiet.get(&unknown).is_some_and(|until| now < *until);
        if quiet || self.waiting.contains(&unknown) {
            return;
        }
        self.tokens = (self.tokens + now.saturating_sub(self.filled).as_secs_f64() * RATE).min(BURST);
        self.filled = now;
        if self.tokens < 1.0 || self.quiet.len() >= QUIET_MAX && !self.forget_old(now) {
            self.dropped += 1;
            self.open = true;
            return;
        }
        self.tokens -= 1.0;
        self.open = true;
        self.waiting.insert(unknown);
    }

    /// One message with everything that is wanted; `None` when nothing is.
    pub fn take(&mut self, now: Duration) -> Option<api::sync::Pull> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return None;
        }
        let mut pull = api::sync::Pull::default();
        for unknown in waiting {
            self.quiet.insert(unknown, now + ASKED);
            match unknown {
                Unknown::Peer(at) => {
                    pull.peers.push(api::sync::PeerRef { node: at.node.get(), slot: at.slot.0.into() })
                }
                Unknown::Keys(node) => pull.node_keys.push(node.get()),
            }
        }
        Some(pull)
    }

    /// The server's answer: what was asked and it named absent is not asked about for a while.
    pub fn answered(&mut self, answer: &api::sync::PullAnswer, now: Duration) {
        let peers = answer.absent_peers.iter().filter_map(|at| crate::model::workload_ref(at.node, at.slot).ok());
        let absent: Vec<Unknown> = peers
            .map(Unknown::Peer)
            .chain(answer.absent_nodes.iter().filter_map(|node| NodeId::new(*node)).map(Unknown::Keys))
            .collect();
        for unknown in absent {
            if let Some(until) = self.quiet.get_mut(&unknown) {
                *until = now + ABSENT;
            }
        }
        self.open = !self.waiting.is_empty();
    }

    /// Whether everything that was to be asked was asked, and answered since: what is still unknown then is so for good. What
    /// an ended stream or the budget swallowed is open until a later answer.
    pub fn settled(&self) -> bool {
        !self.open
    }

    /// A new stream: nothing of the old one will be answered.
    pub fn reconnected(&mut self) {
        self.quiet.clear();
    }

    /// How many questions the budget swallowed.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn forget_old(&mut self, now: Duration) -> bool {
        self.quiet.retain(|_, until| now < *until);
        self.quiet.len() < QUIET_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::ids::Slot;

    fn peer(slot: u16) -> Unknown {
        Unknown::Peer(WorkloadRef { node: NodeId::new(2).expect("in range"), slot: Slot(slot) })
    }

    #[test]
    fn equal_questions_are_merged_and_not_repeated() {
        let mut pulls = Pulls::default();
        let t = Duration::from_secs(1);
        (0..100).for_each(|_| pulls.want(peer(1), t));
        pulls.want(Unknown::Keys(NodeId::new(3).expect("in range")), t);
        let pull = pulls.take(t).expect("something to ask");
        assert_eq!((pull.peers.len(), pull.node_keys.as_slice()), (1, &[3][..]));
        pulls.want(peer(1), t);
        assert_eq!(pulls.take(t), None, "asked already");
        pulls.want(peer(1), t + ASKED);
        assert!(pulls.take(t + ASKED).is_some(), "no answer came");
    }

    #[test]
    fn what_the_server_does_not_know_is_not_asked_again_for_a_while() {
        let mut pulls = Pulls::default();
        let t = Duration::from_secs(1);
        pulls.want(peer(1), Duration::ZERO);
        pulls.take(Duration::ZERO).expect("a question");
        let answer =
            api::sync::PullAnswer { absent_peers: vec![api::sync::PeerRef { node: 2, slot: 1 }], ..Default::default() };
        pulls.answered(&answer, t);
        pulls.want(peer(1), t + ASKED * 2);
        assert_eq!(pulls.take(t), None);
        pulls.want(peer(1), t + ABSENT);
        assert!(pulls.take(t + ABSENT).is_some());
    }

    #[test]
    fn rule_11_nothing_is_settled_before_its_answer() {
        let mut pulls = Pulls::default();
        let t = Duration::from_secs(1);
        assert!(pulls.settled());
        pulls.want(peer(1), t);
        assert!(!pulls.settled());
        assert!(pulls.take(t).is_some() && !pulls.settled());
        pulls.reconnected();
        assert!(!pulls.settled(), "the old stream's answer will not come");
        pulls.want(peer(2), t);
        pulls.answered(&api::sync::PullAnswer::default(), t);
        assert!(!pulls.settled(), "one more was not asked yet");
        assert!(pulls.take(t).is_some());
        pulls.answered(&api::sync::PullAnswer::default(), t);
        assert!(pulls.settled());
        (0..=BURST as u16).for_each(|slot| pulls.want(peer(slot + 9), t));
        assert!(pulls.dropped() > 0 && pulls.take(t).is_some());
        assert!(!pulls.settled());
    }

    #[test]
    fn a_flood_of_names_is_stopped_by_the_budget() {
        let mut pulls = Pulls::default();
        (0..10_000u16).for_each(|slot| pulls.want(peer(slot), Duration::ZERO));
        assert_eq!(pulls.take(Duration::ZERO).expect("some").peers.len(), BURST as usize);
        assert_eq!(pulls.dropped(), 10_000 - BURST as u64);
    }
}
