//! How much one node may ask of the server: every message costs, and what is spent comes back with time.
//!
//! A node that overdraws is heard again when it has earned what it spent; its stream waits meanwhile, and nobody else's
//! does. Whatever an honest agent says fits.

use std::time::Duration;

use api::sync::agent_message::Message;
use tokio::time::Instant;

/// What comes back in a second.
const RATE: f64 = 100.0;
/// What is there after a quiet time: the first report of a full node, and as many flows as an agent keeps.
const BURST: f64 = 10_000.0;
/// Names, flows and the like that cost as much as one write.
const LISTED: usize = 64;
/// A new key is told to the whole fleet.
const KEY: usize = 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    /// Pays for a message that is going to be handled.
    pub(super) fn spend(&mut self, message: &Message, now: Instant) {
        self.left = (self.left + (now - self.at).as_secs_f64() * RATE).min(BURST);
        self.at = now;
        self.left -= cost(message) as f64;
    }

    /// When the next message may be handled, if that is later than now.
    pub(super) fn overdrawn(&self) -> Option<Instant> {
        (self.left < 0.0).then(|| self.at + Duration::from_secs_f64(-self.left / RATE))
    }
}

fn cost(message: &Message) -> usize {
    match message {
        Message::Workloads(report) => 1 + report.upserted.len() + report.removed_uids.len(),
        Message::Pull(pull) => 1 + (pull.peers.len() + pull.node_keys.len()) / LISTED,
        Message::Flows(batch) => 1 + batch.flows.len() / LISTED,
        Message::HandshakeKey(_) => KEY,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use api::sync::{Cut, FlowBatch, LocalWorkload, WorkloadReport};

    use super::*;

    #[test]
    fn an_honest_node_is_never_stopped() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let full = WorkloadReport { upserted: vec![LocalWorkload::default(); 4096], ..WorkloadReport::default() };
        budget.spend(&Message::Workloads(full), start);
        let batch = FlowBatch { flows: vec![Default::default(); 512], ..FlowBatch::default() };
        // All that an agent keeps, and then more than it can record every two seconds.
        (0..64).for_each(|_| budget.spend(&Message::Flows(batch.clone()), start));
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            (0..8).for_each(|_| budget.spend(&Message::Flows(batch.clone()), now));
            assert_eq!(budget.overdrawn(), None, "after {second} s");
        }
    }

    #[test]
    fn a_flood_waits_until_it_has_earned_what_it_spent() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let cut = Message::Cut(Cut::default());
        (0..10_050).for_each(|_| budget.spend(&cut, start));
        assert_eq!(budget.overdrawn(), Some(start + Duration::from_millis(500)));
        budget.spend(&cut, start + Duration::from_secs(2));
        assert_eq!(budget.overdrawn(), None);
    }
}
