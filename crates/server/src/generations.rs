//! Key generations: when a new key may be used for sending, and when its number may be used again.
//!
//! A pure state machine over the two generation bits of the wire, used for each node's X25519 key and for the fleet
//! key. It is told the revision that every subscribed agent has acknowledged, and says which keys agents must know.

use serde::{Deserialize, Serialize};

/// How many generations the wire can name.
pub const GENERATIONS: u8 = 4;

/// The keys of one owner, by generation.
///
/// Shape: at most one generation sends; the others are announced (verified only, not yet known to all), retired
///        (verified only, no longer sent) or removed (no longer told; the number waits for acknowledgements).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring<K> {
    entries: [Option<Entry<K>>; GENERATIONS as usize],
}

/// A key and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<K> {
    /// The key; `None` once it was removed.
    pub key: Option<K>,
    /// Where it stands.
    pub stage: Stage,
    /// The revision since which agents are told so.
    pub since: u64,
}

/// The life of a generation, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Told to agents for verifying; not all have it.
    Announced,
    /// Known to all: used for sending.
    Sending,
    /// A newer one sends; some agent may still send with this one.
    Retired,
    /// No longer told; some agent may still hold it.
    Removed,
}

/// No generation can be added now: a rotation is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key rotation is still under way: not every node has acknowledged the last one")]
pub struct Busy;

impl<K> Default for Ring<K> {
    fn default() -> Self {
        Self { entries: [const { None }; GENERATIONS as usize] }
    }
}

impl<K> Ring<K> {
    /// A ring with one key, which sends: nobody has an older one to send with.
    pub fn with_first(generation: u8, key: K, since: u64) -> Self {
        let mut ring = Self::default();
        if let Some(entry) = ring.entries.get_mut(usize::from(generation)) {
            *entry = Some(Entry { key: Some(key), stage: Stage::Sending, since });
        }
        ring
    }

    /// The generation that a rotation would add.
    pub fn next(&self) -> Result<u8, Busy> {
        if self.entries.iter().flatten().any(|e| e.stage == Stage::Announced) {
            return Err(Busy);
        }
        let next = self.sending().map_or(0, |(generation, _)| (generation + 1) % GENERATIONS);
        match self.entries[usize::from(next)] {
            None => Ok(next),
            Some(_) => Err(Busy),
        }
    }

    /// Adds the generation that [`Ring::next`] named; `announced` is the first revision at which agents are told.
    pub fn announce(&mut self, generation: u8, key: K, announced: u64) -> Result<(), Busy> {
        if self.next()? != generation {
            return Err(Busy);
        }
        let stage = if self.sending().is_some() { Stage::Announced } else { Stage::Sending };
        self.entries[usize::from(generation)] = Some(Entry { key: Some(key), stage, since: announced });
        Ok(())
    }

    /// What follows from every subscribed agent having acknowledged `acknowledged`. Whatever changes is told to agents
    /// from revision `next` on. Returns whether anything that agents are told has changed; call again until it is false.
    pub fn step(&mut self, acknowledged: u64, next: u64) -> bool {
        for entry in &mut self.entries {
            if entry.as_ref().is_some_and(|e| e.stage == Stage::Removed && e.since <= acknowledged) {
                *entry = None;
            }
        }
        let ready = |e: &Entry<K>, stage| e.stage == stage && e.since <= acknowledged;
        if let Some(at) = self.entries.iter().position(|e| e.as_ref().is_some_and(|e| ready(e, Stage::Announced))) {
            for (index, entry) in self.entries.iter_mut().enumerate() {
                let Some(entry) = entry else { continue };
                match (index == at, entry.stage) {
                    (true, _) => (entry.stage, entry.since) = (Stage::Sending, next),
                    (false, Stage::Sending) => (entry.stage, entry.since) = (Stage::Retired, next),
                    _ => {}
                }
            }
            return true;
        }
        let mut changed = false;
        for entry in self.entries.iter_mut().flatten() {
            if ready(entry, Stage::Retired) {
                *entry = Entry { key: None, stage: Stage::Removed, since: next };
                changed = true;
            }
        }
        changed
    }

    /// Whether an acknowledgement is awaited.
    pub fn unsettled(&self) -> bool {
        self.entries.iter().flatten().any(|e| e.stage != Stage::Sending)
    }

    /// The generation to send with.
    pub fn sending(&self) -> Option<(u8, &K)> {
        self.told().find(|(_, _, send)| *send).map(|(generation, key, _)| (generation, key))
    }

    /// What agents are told: generation, key, whether to send with it.
    pub fn told(&self) -> impl Iterator<Item = (u8, &K, bool)> {
        (0u8..).zip(&self.entries).filter_map(|(generation, entry)| {
            let entry = entry.as_ref()?;
            Some((generation, entry.key.as_ref()?, entry.stage == Stage::Sending))
        })
    }

    /// The key of a generation, while agents are told.
    pub fn get(&self, generation: u8) -> Option<&K> {
        self.entries.get(usize::from(generation))?.as_ref()?.key.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stages(ring: &Ring<u8>) -> Vec<(u8, bool)> {
        ring.told().map(|(generation, _, send)| (generation, send)).collect()
    }

    #[test]
    fn a_generation_sends_only_after_every_agent_has_acknowledged_it() {
        let mut ring = Ring::with_first(0, 10, 1);
        assert_eq!(ring.next(), Ok(1));
        ring.announce(1, 11, 5).unwrap();
        assert_eq!(stages(&ring), [(0, true), (1, false)]);
        assert!(!ring.step(4, 6));
        assert_eq!(ring.next(), Err(Busy));
        assert!(ring.step(5, 6));
        assert_eq!(stages(&ring), [(0, false), (1, true)]);
    }

    #[test]
    fn an_old_generation_is_kept_until_nobody_sends_with_it_and_its_number_until_nobody_holds_it() {
        let mut ring = Ring::with_first(0, 10, 1);
        ring.announce(1, 11, 5).unwrap();
        ring.step(5, 6);
        assert!(!ring.step(5, 7), "some agent may still send with generation 0");
        assert!(ring.step(6, 7));
        assert_eq!(stages(&ring), [(1, true)]);
        assert!(ring.unsettled());
        assert!(!ring.step(7, 8));
        assert!(!ring.unsettled());
    }

    #[test]
    fn generations_go_round_and_never_collide() {
        let mut ring = Ring::with_first(0, 0u8, 0);
        let mut revision = 0;
        for round in 1u8..20 {
            let generation = ring.next().unwrap();
            assert_eq!(generation, round % GENERATIONS);
            revision += 1;
            ring.announce(generation, round, revision).unwrap();
            while ring.step(revision, revision + 1) {
                revision += 1;
            }
            assert_eq!(ring.sending(), Some((generation, &round)));
        }
    }

    proptest! {
        /// At every moment one generation sends, every agent that follows its acknowledged state can verify it, and a
        /// number never changes its key while an agent may hold the old one.
        #[test]
        fn what_is_sent_can_be_verified_by_all(steps in proptest::collection::vec((any::<bool>(), 0u64..4), 1..120)) {
            let mut revision = 1u64;
            let mut acknowledged = 0u64;
            let mut ring = Ring::with_first(0, 0u32, revision);
            let mut history = vec![(revision, ring.clone())];
            for (index, (rotate, lag)) in (1u32..).zip(steps) {
                match rotate {
                    true => {
                        if let Ok(generation) = ring.next() {
                            revision += 1;
                            ring.announce(generation, index, revision).unwrap();
                            history.push((revision, ring.clone()));
                        }
                    }
                    false => {
                        acknowledged = acknowledged.max(revision.saturating_sub(lag));
                        if ring.step(acknowledged, revision + 1) {
                            revision += 1;
                            history.push((revision, ring.clone()));
                        }
                    }
                }
                let oldest = history.iter().rposition(|(r, _)| *r <= acknowledged).unwrap_or(0);
                let held: Vec<&Ring<u32>> = history[oldest..].iter().map(|(_, ring)| ring).collect();
                prop_assert_eq!(ring.told().filter(|(_, _, send)| *send).count(), 1);
                for sender in &held {
                    let (generation, key) = sender.sending().unwrap();
                    for verifier in held.iter().filter(|_| acknowledged > 0) {
                        prop_assert_eq!(verifier.get(generation), Some(key));
                    }
                }
            }
        }
    }
}
