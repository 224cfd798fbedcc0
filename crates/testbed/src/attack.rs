//! Attackers with raw sockets: they listen in, replay, forge, relay, and speak as captured nodes.
//!
//! Deterministic from a seed, bounded in number, and each says exactly what it sent, with the outcome that the model of
//! the handshake ([`handshake::model`]) foretells for every packet, so that the kernel's counters can be compared to the unit.
//! Start at [`Attacker`]; [`oracle::Oracle`] is a victim as the model sees it.

pub mod flood;
pub mod forge;
pub mod oracle;
pub mod raw;
pub mod relay;
pub mod speak;
pub mod tap;

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result, ensure};
use policy::reason::Reason;

use crate::attack::raw::Injector;
use crate::attack::tap::Tap;
use crate::netns::Netns;

/// What one packet must meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// Refused for this reason, and counted.
    Refused(Reason),
    /// A SYN that verifies: answered, and worth nothing without the ACK.
    Answered,
    /// It proves an identity. No attack may ever have one of these.
    Accepted,
}

/// How many packets were sent, by what they must meet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<Fate, u64>);

impl Tally {
    /// Counts one packet.
    pub fn add(&mut self, fate: Fate) {
        *self.0.entry(fate).or_default() += 1;
    }

    /// Packets with one fate.
    pub fn of(&self, fate: Fate) -> u64 {
        self.0.get(&fate).copied().unwrap_or(0)
    }

    /// All packets.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Both tallies together.
    pub fn merge(&mut self, other: &Tally) {
        for (fate, count) in &other.0 {
            *self.0.entry(*fate).or_default() += count;
        }
    }

    /// Packets by the reason for which they must be refused.
    pub fn refused(&self) -> BTreeMap<Reason, u64> {
        let refused = self.0.iter().filter_map(|(fate, count)| match fate {
            Fate::Refused(reason) => Some((*reason, *count)),
            _ => None,
        });
        refused.collect()
    }

    /// Fails unless counters moved by exactly what was sent. `before` and `after` are the victim's denials by reason.
    pub fn compare(&self, before: &BTreeMap<Reason, u64>, after: &BTreeMap<Reason, u64>) -> Result<()> {
        let moved = |reason: &Reason| {
            after.get(reason).copied().unwrap_or(0) as i128 - before.get(reason).copied().unwrap_or(0) as i128
        };
        let sent = self.refused();
        let mut wrong = Vec::new();
        for reason in Reason::ALL {
            let (sent, counted) = (i128::from(sent.get(reason).copied().unwrap_or(0)), moved(reason));
            if sent != counted {
                wrong.push(format!("{}: sent {sent}, counted {counted}", reason.label()));
            }
        }
        ensure!(wrong.is_empty(), "counters do not say what was sent: {}\n{self}", wrong.join("; "));
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fate, count) in &self.0 {
            match fate {
                Fate::Refused(reason) => write!(f, "{} {count}, ", reason.label())?,
                Fate::Answered => write!(f, "answered {count}, ")?,
                Fate::Accepted => write!(f, "ACCEPTED {count}, ")?,
            }
        }
        write!(f, "{} in all", self.total())
    }
}

/// A machine that sends and hears raw packets. Its kernel takes no part: it answers none of what comes back.
pub struct Attacker {
    injector: Injector,
    tap: Tap,
}

impl Attacker {
    /// An attacker in `netns`, whose own kernel is kept from sending RSTs there.
    pub fn new(netns: &Netns) -> Result<Self> {
        netns
            .nft(
                "table inet attacker {\n\
                 chain in {\n type filter hook input priority -300\n meta l4proto tcp drop\n }\n\
                 }\n",
            )
            .context("an attacker's kernel must keep silent")?;
        Ok(Self { injector: Injector::open(netns)?, tap: Tap::open(netns)? })
    }

    /// Its sending half.
    pub fn injector(&self) -> &Injector {
        &self.injector
    }

    /// Its hearing half.
    pub fn tap(&self) -> &Tap {
        &self.tap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_moved_otherwise_is_named() {
        let mut tally = Tally::default();
        tally.add(Fate::Refused(Reason::PairMacBad));
        tally.add(Fate::Refused(Reason::PairMacBad));
        tally.add(Fate::Answered);
        let before = BTreeMap::from([(Reason::PairMacBad, 5)]);
        let right = BTreeMap::from([(Reason::PairMacBad, 7)]);
        tally.compare(&before, &right).expect("equal");
        for after in
            [BTreeMap::from([(Reason::PairMacBad, 6)]), BTreeMap::from([(Reason::PairMacBad, 7), (Reason::Replay, 1)])]
        {
            let error = tally.compare(&before, &after).expect_err("unequal").to_string();
            assert!(error.contains("sent"), "{error}");
        }
        assert_eq!(tally.total(), 3);
    }
}
