//! The life of key generations: two bits on the wire, so a number may return only after everybody forgot its last meaning.
//!
//! A pure state machine for one owner's keys: a node's X25519 pair, or the fleet key. Whoever holds it (the server) performs
//! what it says and feeds acknowledgements back.

use crate::option::Generation;

/// Where a generation is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nobody knows a key under this number.
    #[default]
    Free,
    /// A key was made and is being spread; nobody sends with it.
    Prepared,
    /// Every subscribed agent has acknowledged it.
    Acknowledged,
    /// The one to send with.
    Sending,
    /// No longer sent with; still accepted, for handshakes under way.
    Draining,
    /// Being removed everywhere.
    Removing,
}

/// The four generations of one owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generations {
    phases: [Phase; Generation::COUNT],
}

/// Why a step was refused. The state is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerationError {
    /// A rotation is under way already.
    #[error("generation {} is still being spread", .0.get())]
    UnderWay(Generation),
    /// No number is free: a removal has not been acknowledged by everybody.
    #[error("no key generation is free: a removal has not been acknowledged by every agent")]
    NoneFree,
    /// The step does not follow the generation's phase.
    #[error("generation {} is {phase:?}", .generation.get())]
    Phase {
        /// Which one.
        generation: Generation,
        /// Where it is.
        phase: Phase,
    },
}

impl Generations {
    /// Phases as they were kept by whoever persists them.
    pub fn from_phases(phases: [Phase; Generation::COUNT]) -> Self {
        Self { phases }
    }

    /// Where a generation is.
    pub fn phase(&self, generation: Generation) -> Phase {
        self.phases[generation.get() as usize]
    }

    /// The generation to send with; `None` before the first was activated.
    pub fn sending(&self) -> Option<Generation> {
        self.first_in(Phase::Sending)
    }

    /// Whether a message under this generation may be verified.
    pub fn accepts(&self, generation: Generation) -> bool {
        !matches!(self.phase(generation), Phase::Free | Phase::Removing)
    }

    /// Reserves the next free number for a new key, which is then spread to every agent.
    pub fn prepare(&mut self) -> Result<Generation, GenerationError> {
        if let Some(busy) = self.first_in(Phase::Prepared).or_else(|| self.first_in(Phase::Acknowledged)) {
            return Err(GenerationError::UnderWay(busy));
        }
        let start = self.sending().map_or(Generation::default(), Generation::next);
        let free = std::iter::successors(Some(start), |g| Some(g.next()))
            .take(Generation::COUNT)
            .find(|g| self.phase(*g) == Phase::Free)
            .ok_or(GenerationError::NoneFree)?;
        self.set(free, Phase::Prepared);
        Ok(free)
    }

    /// Every subscribed agent has the new key.
    pub fn acknowledged(&mut self, generation: Generation) -> Result<(), GenerationError> {
        self.step(generation, Phase::Prepared, Phase::Acknowledged)
    }

    /// Starts sending with an acknowledged generation; the one sent with so far drains and is returned.
    pub fn activate(&mut self, generation: Generation) -> Result<Option<Generation>, GenerationError> {
        let before = self.sending();
        self.step(generation, Phase::Acknowledged, Phase::Sending)?;
        if let Some(old) = before {
            self.set(old, Phase::Draining);
        }
        Ok(before)
    }

    /// Removes a generation that is not sent with: its key is deleted everywhere.
    pub fn retire(&mut self, generation: Generation) -> Result<(), GenerationError> {
        match self.phase(generation) {
            Phase::Prepared | Phase::Acknowledged | Phase::Draining => {
                self.set(generation, Phase::Removing);
                Ok(())
            }
            phase => Err(GenerationError::Phase { generation, phase }),
        }
    }

    /// Every subscribed agent has deleted it: the number may be used for another key.
    pub fn removal_acknowledged(&mut self, generation: Generation) -> Result<(), GenerationError> {
        self.step(generation, Phase::Removing, Phase::Free)
    }

    fn step(&mut self, generation: Generation, from: Phase, to: Phase) -> Result<(), GenerationError> {
        match self.phase(generation) {
            phase if phase == from => {
                self.set(generation, to);
                Ok(())
            }
            phase => Err(GenerationError::Phase { generation, phase }),
        }
    }

    fn set(&mut self, generation: Generation, phase: Phase) {
        self.phases[generation.get() as usize] = phase;
    }

    fn first_in(&self, phase: Phase) -> Option<Generation> {
        let index = self.phases.iter().position(|p| *p == phase)?;
        Generation::new(index as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn generation(value: u8) -> Generation {
        Generation::new(value).expect("in range")
    }

    #[test]
    fn a_generation_is_sent_with_only_after_every_agent_has_it() {
        let mut g = Generations::default();
        let first = g.prepare().expect("all are free");
        assert_eq!(g.activate(first), Err(GenerationError::Phase { generation: first, phase: Phase::Prepared }));
        assert_eq!(g.sending(), None);
        g.acknowledged(first).expect("prepared");
        assert_eq!(g.activate(first), Ok(None));
        assert_eq!(g.sending(), Some(first));
    }

    #[test]
    fn the_old_generation_drains_and_its_number_returns_only_after_its_removal_was_acknowledged() {
        let mut g = Generations::default();
        for _ in 0..2 {
            let next = g.prepare().expect("free");
            g.acknowledged(next).expect("prepared");
            g.activate(next).expect("acknowledged");
        }
        assert_eq!(g.sending(), Some(generation(1)));
        assert!(g.accepts(generation(0)), "handshakes under way finish");
        g.retire(generation(0)).expect("draining");
        assert!(!g.accepts(generation(0)));
        for expect in [2, 3] {
            let next = g.prepare().expect("free");
            assert_eq!(next, generation(expect));
            g.acknowledged(next).expect("prepared");
            g.activate(next).expect("acknowledged");
        }
        assert_eq!(g.prepare(), Err(GenerationError::NoneFree));
        g.removal_acknowledged(generation(0)).expect("removing");
        assert_eq!(g.prepare(), Ok(generation(0)));
    }

    #[test]
    fn only_one_rotation_at_a_time() {
        let mut g = Generations::default();
        let first = g.prepare().expect("free");
        assert_eq!(g.prepare(), Err(GenerationError::UnderWay(first)));
        g.acknowledged(first).expect("prepared");
        assert_eq!(g.prepare(), Err(GenerationError::UnderWay(first)));
    }

    proptest! {
        #[test]
        fn never_two_senders_and_a_number_is_reused_only_from_free(steps in proptest::collection::vec((0u8..5, 0u8..4), 0..200)) {
            let mut g = Generations::default();
            for (step, number) in steps {
                let before = g.clone();
                let target = generation(number);
                let refused = match step {
                    0 => match g.prepare() {
                        Ok(new) => { prop_assert_eq!(before.phase(new), Phase::Free); false }
                        Err(_) => true,
                    },
                    1 => g.acknowledged(target).is_err(),
                    2 => g.activate(target).is_err(),
                    3 => g.retire(target).is_err(),
                    _ => g.removal_acknowledged(target).is_err(),
                };
                if refused {
                    prop_assert_eq!(&g, &before, "a refused step changes nothing");
                }
                let senders = (0..4).filter(|n| g.phase(generation(*n)) == Phase::Sending).count();
                prop_assert!(senders <= 1);
                prop_assert!(before.sending().is_none() || g.sending().is_some(), "sending never stops");
            }
        }
    }
}
