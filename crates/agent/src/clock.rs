//! The server's time, as the handshake counts it: boot clock plus an offset that is learnt, remembered for this boot, and
//! never steps below the last time on disk.

use handshake::time::{Skew, TimeSource, offset_ns};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Readings of this machine's clocks, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since boot, suspension included.
    pub boot_ns: i64,
    /// Unix time as this machine believes it.
    pub unix_ns: i64,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        let ns = |clock| {
            let time = clock_gettime(clock);
            time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
        };
        Self { boot_ns: ns(ClockId::Boottime), unix_ns: ns(ClockId::Realtime) }
    }
}

/// What is kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The boot that `offset_ns` belongs to.
    pub boot_id: String,
    /// Server's clock minus boot clock.
    pub offset_ns: Option<i64>,
    /// The last known server time.
    pub floor_unix_ns: i64,
}

/// Follows the server's clock.
#[derive(Debug)]
pub struct Clock {
    boot_id: String,
    learnt: Option<i64>,
    floor_unix_ns: i64,
    asked: Option<(u64, i64)>,
    echo: u64,
}

/// A question to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Comes back with the answer.
    pub echo: u64,
    /// This machine's unix time.
    pub agent_unix_ns: i64,
}

/// Answers that were longer on the way than this say too little about when they were written.
const ROUND_TRIP_MAX_NS: i64 = 5_000_000_000;

impl Clock {
    /// From what was on disk; an offset of an earlier boot counts for nothing.
    pub fn new(boot_id: String, saved: Option<Saved>) -> Self {
        let saved = saved.unwrap_or_default();
        let learnt = saved.offset_ns.filter(|_| saved.boot_id == boot_id);
        Self { boot_id, learnt, floor_unix_ns: saved.floor_unix_ns, asked: None, echo: 0 }
    }

    /// Offset to use now, and where it comes from.
    pub fn offset(&self, now: Now) -> (i64, TimeSource) {
        offset_ns(self.learnt, now.boot_ns, now.unix_ns, self.floor_unix_ns)
    }

    /// The server's time as far as it is known.
    pub fn server_unix_ns(&self, now: Now) -> i64 {
        now.boot_ns.saturating_add(self.offset(now).0)
    }

    /// Asks the server; the answer of an earlier question counts no more.
    pub fn ask(&mut self, now: Now) -> Question {
        self.echo += 1;
        self.asked = Some((self.echo, now.boot_ns));
        Question { echo: self.echo, agent_unix_ns: now.unix_ns }
    }

    /// The server's answer: it was written halfway between question and answer, give or take half the round trip.
    /// Whether the offset changed.
    pub fn answer(&mut self, echo: u64, server_unix_ns: i64, now: Now) -> bool {
        let Some((asked, sent)) = self.asked.take_if(|(asked, _)| *asked == echo) else { return false };
        debug_assert_eq!(asked, echo);
        let round_trip = now.boot_ns.saturating_sub(sent);
        if !(0..=ROUND_TRIP_MAX_NS).contains(&round_trip) {
            return false;
        }
        self.learn(server_unix_ns, sent.saturating_add(round_trip / 2))
    }

    /// The server's time in its greeting, good to the length of the way.
    pub fn greeting(&mut self, server_unix_ns: i64, now: Now) -> bool {
        self.learnt.is_none() && self.learn(server_unix_ns, now.boot_ns)
    }

    fn learn(&mut self, server_unix_ns: i64, boot_ns: i64) -> bool {
        let offset = server_unix_ns.saturating_sub(boot_ns);
        let before = self.learnt.replace(offset);
        before != Some(offset)
    }

    /// This machine's unix time minus the server's, in milliseconds; `None` until known.
    pub fn skew_ms(&self, now: Now) -> Option<i64> {
        let server = now.boot_ns.saturating_add(self.learnt?);
        Some(now.unix_ns.saturating_sub(server) / 1_000_000)
    }

    /// How bad the skew is; [`Skew::Fine`] until known.
    pub fn skew(&self, now: Now) -> Skew {
        Skew::of(self.skew_ms(now).unwrap_or_default())
    }

    /// What to keep on disk. The floor only rises, and only with time that the server has confirmed.
    pub fn save(&mut self, now: Now) -> Saved {
        if let Some(offset) = self.learnt {
            self.floor_unix_ns = self.floor_unix_ns.max(now.boot_ns.saturating_add(offset));
        }
        Saved { boot_id: self.boot_id.clone(), offset_ns: self.learnt, floor_unix_ns: self.floor_unix_ns }
    }
}

/// This boot's id, from the kernel.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    fn at(boot_s: i64, unix_s: i64) -> Now {
        Now { boot_ns: boot_s * S, unix_ns: unix_s * S }
    }

    #[test]
    fn the_offset_is_learnt_at_half_the_round_trip() {
        let mut clock = Clock::new("b".into(), None);
        let question = clock.ask(at(100, 5000));
        assert!(clock.answer(question.echo, 9000 * S, at(102, 5002)));
        assert_eq!(clock.offset(at(102, 5002)), ((9000 - 101) * S, TimeSource::Server));
        assert_eq!(clock.skew_ms(at(102, 5002)), Some((5002 - 9001) * 1000));
    }

    #[test]
    fn stale_and_slow_answers_count_for_nothing() {
        let mut clock = Clock::new("b".into(), None);
        let old = clock.ask(at(1, 1));
        let new = clock.ask(at(2, 2));
        assert!(!clock.answer(old.echo, 9000 * S, at(3, 3)));
        assert!(!clock.answer(new.echo, 9000 * S, at(10, 10)), "eight seconds on the way");
        assert_eq!(clock.offset(at(10, 10)).1, TimeSource::RealTime);
    }

    #[test]
    fn after_a_boot_the_machines_clock_serves_but_never_below_the_floor() {
        let mut clock = Clock::new("one".into(), None);
        clock.greeting(9000 * S, at(100, 9000));
        let saved = clock.save(at(200, 9100));
        assert_eq!(saved.floor_unix_ns, 9100 * S);
        let same = Clock::new("one".into(), Some(saved.clone()));
        assert_eq!(same.offset(at(300, 0)), (8900 * S, TimeSource::Server), "an agent's restart keeps it");
        let rebooted = Clock::new("two".into(), Some(saved));
        assert_eq!(rebooted.offset(at(5, 20_000)), (19_995 * S, TimeSource::RealTime));
        assert_eq!(rebooted.offset(at(5, 60)), (9095 * S, TimeSource::Floor));
    }
}
