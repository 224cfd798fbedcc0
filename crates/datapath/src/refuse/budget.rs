//! How many RSTs a source may cause: a token bucket for each /24 and /64, in a table of fixed size.
//!
//! Pure: time is an argument.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Limits of a [`super::Refuser`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// RSTs that a prefix may cause at once.
    pub burst: u32,
    /// RSTs per second after that.
    pub per_second: u32,
    /// Prefixes told apart at a time. Those over it share one bucket.
    pub prefixes_max: usize,
}

impl Default for Budget {
    /// 200 at once, 100 a second, 4096 prefixes (about 200 kB).
    fn default() -> Self {
        Self { burst: 200, per_second: 100, prefixes_max: 4096 }
    }
}

/// A source: an IPv4 /24 or an IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Prefix(u128);

impl Prefix {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self(u128::from(Ipv6Addr::from([0, 0, 0, 0, 0, 0xFFFF, u16::from_be_bytes([a, b]), u16::from(c) << 8])))
            }
            IpAddr::V6(v6) => Self(u128::from(v6) >> 64 << 64),
        }
    }
}

/// Tokens in thousandths, so that slow rates lose nothing to rounding at millisecond steps.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    milli_tokens: u64,
    at: Duration,
}

/// The buckets of all prefixes seen lately.
#[derive(Debug)]
pub struct Buckets {
    budget: Budget,
    known: HashMap<Prefix, Bucket>,
    strangers: Bucket,
}

const TOKEN: u64 = 1000;

impl Buckets {
    /// All full.
    pub fn new(budget: Budget) -> Self {
        let strangers = Bucket { milli_tokens: u64::from(budget.burst) * TOKEN, at: Duration::ZERO };
        Self { budget, known: HashMap::new(), strangers }
    }

    /// Takes a token for a source; `false`: it has none left. `now` is any clock that does not go back.
    pub fn take(&mut self, source: IpAddr, now: Duration) -> bool {
        let (budget, prefix) = (self.budget, Prefix::of(source));
        if !self.known.contains_key(&prefix) && self.known.len() >= budget.prefixes_max {
            // A bucket that is full again says nothing that a new one would not.
            let full = u64::from(budget.burst) * TOKEN;
            self.known.retain(|_, bucket| bucket.refill(budget, now) < full);
            if self.known.len() >= budget.prefixes_max {
                return self.strangers.take(budget, now);
            }
        }
        let fresh = Bucket { milli_tokens: u64::from(budget.burst) * TOKEN, at: now };
        self.known.entry(prefix).or_insert(fresh).take(budget, now)
    }

    /// Prefixes told apart now.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no prefix has a bucket of its own.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

impl Bucket {
    fn refill(&mut self, budget: Budget, now: Duration) -> u64 {
        let elapsed_ms = u64::try_from(now.saturating_sub(self.at).as_millis()).unwrap_or(u64::MAX);
        if elapsed_ms > 0 {
            let gained = elapsed_ms.saturating_mul(u64::from(budget.per_second));
            self.milli_tokens = self.milli_tokens.saturating_add(gained).min(u64::from(budget.burst) * TOKEN);
            // Whole milliseconds only: the rest counts next time.
            self.at += Duration::from_millis(elapsed_ms);
        }
        self.milli_tokens
    }

    fn take(&mut self, budget: Budget, now: Duration) -> bool {
        let enough = self.refill(budget, now) >= TOKEN;
        if enough {
            self.milli_tokens -= TOKEN;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { burst: 3, per_second: 2, prefixes_max: 4 };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn takes(buckets: &mut Buckets, source: &str, now_ms: u64, tries: usize) -> usize {
        (0..tries).filter(|_| buckets.take(ip(source), Duration::from_millis(now_ms))).count()
    }

    #[test]
    fn a_prefix_gets_its_burst_and_then_its_rate() {
        let mut buckets = Buckets::new(BUDGET);
        assert_eq!(takes(&mut buckets, "192.0.2.1", 0, 10), 3);
        assert_eq!(takes(&mut buckets, "192.0.2.200", 499, 10), 0, "the same /24");
        assert_eq!(takes(&mut buckets, "::ffff:192.0.2.9", 500, 10), 1);
        assert_eq!(takes(&mut buckets, "192.0.3.1", 500, 10), 3, "another /24");
        assert_eq!(takes(&mut buckets, "192.0.2.1", 1_000_000, 10), 3, "never more than the burst");
    }

    #[test]
    fn ipv6_sources_are_told_apart_by_64_bits() {
        let mut buckets = Buckets::new(BUDGET);
        assert_eq!(takes(&mut buckets, "2001:db8::1", 0, 10), 3);
        assert_eq!(takes(&mut buckets, "2001:db8::ffff:1", 0, 10), 0);
        assert_eq!(takes(&mut buckets, "2001:db8:0:1::1", 0, 10), 3);
    }

    #[test]
    fn the_rate_holds_however_often_it_is_asked() {
        let mut buckets = Buckets::new(BUDGET);
        takes(&mut buckets, "192.0.2.1", 0, 3);
        let taken: usize = (1..=10_000).map(|ms| takes(&mut buckets, "192.0.2.1", ms, 1)).sum();
        assert_eq!(taken, 20, "ten seconds at two a second");
    }

    #[test]
    fn a_flood_of_prefixes_shares_one_bucket_and_starves_no_known_one() {
        let mut buckets = Buckets::new(BUDGET);
        for n in 0..4 {
            assert_eq!(takes(&mut buckets, &format!("10.0.{n}.1"), 0, 1), 1);
        }
        let flood: usize = (0..250).map(|n| takes(&mut buckets, &format!("10.1.{n}.1"), 0, 1)).sum();
        assert_eq!(flood, 3);
        assert_eq!(buckets.len(), 4);
        assert_eq!(takes(&mut buckets, "10.0.0.1", 0, 10), 2);
        assert_eq!(takes(&mut buckets, "10.2.0.1", 60_000, 10), 3, "those that refilled make room");
        assert_eq!(buckets.len(), 1);
    }
}
