//! T, the coarse time under every MAC: how it is counted, how eight bits become sixty-four again, and what skew means.
//!
//! Owns no clock: every function takes the readings it needs.

/// Seconds in one step of T.
pub const TICK_S: u64 = 64;
/// How far a sender's T may be from the receiver's, in steps.
pub const WINDOW: u64 = 1;
/// Skew against the server's clock from which it is reported.
pub const SKEW_REPORTED_MS: u64 = 30_000;
/// Skew beyond which a peer with a true clock may refuse what this node sends: one whole step.
pub const SKEW_MAX_MS: u64 = TICK_S * 1000;

/// T: unix seconds / 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct T(pub u64);

impl T {
    /// The T that holds at a unix time.
    pub const fn at_unix_s(seconds: u64) -> Self {
        Self(seconds / TICK_S)
    }

    /// The eight bits that travel.
    pub const fn low_bits(self) -> u8 {
        self.0 as u8
    }

    /// The sender's T for its low eight bits, when it lies within the window around `self`, the receiver's T.
    ///
    /// `None`: outside. The window is three steps wide and eight bits tell 256 apart, so at most one T fits.
    pub const fn accept(self, t8: u8) -> Option<T> {
        let distance = t8.wrapping_sub(self.low_bits()) as i8;
        if distance.unsigned_abs() as u64 > WINDOW {
            return None;
        }
        match self.0.checked_add_signed(distance as i64) {
            Some(t) => Some(T(t)),
            None => None,
        }
    }
}

/// How far this node's idea of the server's clock is off, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    /// Below [`SKEW_REPORTED_MS`].
    Fine,
    /// Works, and is reported.
    Reported,
    /// Over [`SKEW_MAX_MS`]: peers may refuse; the node fails closed and says so.
    Outside,
}

impl Skew {
    /// Judges a measured difference.
    pub const fn of(difference_ms: i64) -> Self {
        match difference_ms.unsigned_abs() {
            0..=SKEW_REPORTED_MS => Skew::Fine,
            ms if ms <= SKEW_MAX_MS => Skew::Reported,
            _ => Skew::Outside,
        }
    }
}

/// Where a node's time comes from. All but [`TimeSource::Server`] are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSource {
    /// Boot clock plus the offset learnt from the server since this boot.
    Server,
    /// The node's real-time clock: no server was heard since this boot.
    RealTime,
    /// The real-time clock stands before what was last written to disk; that value serves.
    Floor,
}

/// Offset (server's clock minus boot clock, nanoseconds) to use, and where it comes from.
///
/// `learnt` is the offset measured since this boot; `floor_unix_ns` the last time written to disk (0 = none).
pub const fn offset_ns(
    learnt: Option<i64>,
    boot_ns: i64,
    realtime_unix_ns: i64,
    floor_unix_ns: i64,
) -> (i64, TimeSource) {
    match learnt {
        Some(offset) => (offset, TimeSource::Server),
        None if realtime_unix_ns >= floor_unix_ns => (realtime_unix_ns.saturating_sub(boot_ns), TimeSource::RealTime),
        None => (floor_unix_ns.saturating_sub(boot_ns), TimeSource::Floor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn eight_bits_are_enough_within_the_window(now in 1u64..u64::MAX / 2, off in -1i64..=1) {
            let sent = T(now.checked_add_signed(off).expect("in range"));
            prop_assert_eq!(T(now).accept(sent.low_bits()), Some(sent));
        }

        #[test]
        fn outside_the_window_is_refused(now in 1000u64..u64::MAX / 2, off in 2i64..=126) {
            prop_assert_eq!(T(now).accept(T(now + off as u64).low_bits()), None);
            prop_assert_eq!(T(now).accept(T(now - off as u64).low_bits()), None);
        }
    }

    #[test]
    fn the_low_byte_wraps_without_a_gap() {
        assert_eq!(T(0x1FF).accept(0x00), Some(T(0x200)));
        assert_eq!(T(0x200).accept(0xFF), Some(T(0x1FF)));
        assert_eq!(T(0).accept(0xFF), None, "there is nothing before 1970");
        assert_eq!(T(0).accept(0), Some(T(0)));
        assert_eq!(T(5).accept(5 + 128), None);
    }

    #[test]
    fn t_steps_every_64_seconds() {
        assert_eq!(T::at_unix_s(63), T(0));
        assert_eq!(T::at_unix_s(64), T(1));
        assert_eq!(T::at_unix_s(1_893_456_000), T(29_585_250));
    }

    #[test]
    fn a_skew_of_one_step_still_passes_and_is_reported() {
        assert_eq!(Skew::of(30_000), Skew::Fine);
        assert_eq!(Skew::of(-30_001), Skew::Reported);
        assert_eq!(Skew::of(64_000), Skew::Reported);
        assert_eq!(Skew::of(-64_001), Skew::Outside);
        assert_eq!(Skew::of(3_600_000), Skew::Outside);
        assert_eq!(Skew::of(i64::MIN), Skew::Outside);
    }

    #[test]
    fn before_a_server_was_heard_time_never_goes_back() {
        assert_eq!(offset_ns(Some(5), 1, 100, 200), (5, TimeSource::Server));
        assert_eq!(offset_ns(None, 10, 300, 200), (290, TimeSource::RealTime));
        assert_eq!(offset_ns(None, 10, 100, 200), (190, TimeSource::Floor));
    }
}
