//! When something may be done again: waits that grow, times that differ from node to node, and budgets. Without a clock: the
//! caller passes the time.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::facts::NodeTime;

/// A wait that doubles with each failure, from the first one to a longest.
#[must_use]
pub fn doubled(first: Duration, failures: u32, longest: Duration) -> Duration {
    first.saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX)).min(longest)
}

/// Waits that double from a shortest to a longest, each cut by up to a half at random.
#[derive(Debug)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Nothing has failed yet.
    #[must_use]
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, failures: 0 }
    }

    /// How long to wait after one more failure.
    pub fn wait(&mut self) -> Duration {
        let wait = doubled(self.shortest, self.failures, self.longest);
        self.failures = self.failures.saturating_add(1);
        spread(wait.mul_f64(0.75), 1.0 / 3.0)
    }

    /// It works again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A time within this share of `around`, at random.
#[must_use]
pub fn spread(around: Duration, share: f64) -> Duration {
    around.mul_f64(1.0 - share + 2.0 * share * random())
}

/// A number from 0 to 1.
#[must_use]
pub fn random() -> f64 {
    // Keys of a hash map's hasher are random for each one, which is all that is needed here.
    RandomState::new().hash_one(0u8) as f64 / u64::MAX as f64
}

/// A number that stands for these parts; the order counts. Times that follow from it differ from node to node and are the
/// same in a test and a replay.
#[must_use]
pub fn fingerprint(parts: &[&str]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        // No part may run into the next.
        hash.update([0xff]);
    }
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A time within 20 % of `mean`, by a seed.
#[must_use]
pub fn jittered(mean: Duration, seed: u64) -> Duration {
    let percent = 80 + fingerprint(&[&seed.to_string()]) % 41;
    let millis = u64::try_from(mean.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(millis / 100 * percent)
}

/// After a write that the API server refused for the first time, and at most.
const FIRST_REFUSAL: Duration = Duration::from_secs(5);
const MAX_REFUSAL: Duration = Duration::from_secs(300);

/// How long to wait after so many writes that were refused: 5 s, doubled each time up to 5 min, or what the server asks for.
#[must_use]
pub fn after_refusals(tries: u32, retry_after: Option<Duration>, seed: u64) -> Duration {
    let wait = doubled(FIRST_REFUSAL, tries.saturating_sub(1), MAX_REFUSAL);
    jittered(wait, seed).max(retry_after.unwrap_or_default())
}

/// What may be done at once, and again as time passes. Times are since boot; one that goes backwards earns nothing.
#[derive(Debug)]
pub struct TokenBucket {
    burst: u32,
    /// The time in which one token is earned.
    refill: Duration,
    /// What is in it, in time: a whole number would lose what is earned by half.
    credit: Duration,
    counted: Duration,
}

impl TokenBucket {
    /// A full one, at this time.
    #[must_use]
    pub fn full(burst: u32, refill: Duration, now: Duration) -> Self {
        Self { burst, refill, credit: refill.saturating_mul(burst), counted: now }
    }

    /// Takes one token, if more than the reserve are left.
    pub fn take(&mut self, now: Duration, reserve: u32) -> bool {
        let is_granted = self.has(now, reserve);
        if is_granted {
            self.credit = self.credit.saturating_sub(self.refill);
        }
        is_granted
    }

    /// Whether more than the reserve are left.
    pub fn has(&mut self, now: Duration, reserve: u32) -> bool {
        let earned = now.saturating_sub(self.counted);
        self.counted = now;
        self.credit = self.credit.saturating_add(earned).min(self.refill.saturating_mul(self.burst));
        self.credit >= self.refill.saturating_mul(reserve.saturating_add(1))
    }
}

/// Pauses between writes that another writer undoes again and again: it is not fought at full speed.
#[derive(Debug, Default)]
pub struct ConflictBackoff {
    last: Option<NodeTime>,
    rounds: u32,
}

impl ConflictBackoff {
    /// Between the first writes, and later.
    const PAUSES: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(60)];
    const FEW_ROUNDS: u32 = 4;
    /// A conflict that comes later than this is a new one.
    const ROUND: Duration = Duration::from_secs(600);

    /// Whether the pause after the last conflict is over.
    #[must_use]
    pub fn may_go_on(&self, now: NodeTime) -> bool {
        let [first, later] = Self::PAUSES;
        let pause = if self.rounds < Self::FEW_ROUNDS { first } else { later };
        self.last.is_none_or(|last| now.since(&last).is_some_and(|age| age >= pause))
    }

    /// Another writer had undone what is now written again.
    pub fn note_conflict(&mut self, now: NodeTime) {
        let recent = |last: NodeTime| now.since(&last).is_none_or(|age| age < Self::ROUND);
        self.rounds = if self.last.is_some_and(recent) { self.rounds.saturating_add(1) } else { 1 };
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::BootId;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_wait_doubles_to_the_longest_however_many_failed() {
        let waits: Vec<_> = (0..6).map(|failures| doubled(secs(1), failures, secs(20)).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 20]);
        assert_eq!(doubled(secs(1), 32, secs(20)), secs(20));
        assert_eq!(doubled(secs(1), u32::MAX, Duration::MAX), secs(u64::from(u32::MAX)));
    }

    #[test]
    fn waits_grow_to_the_longest_and_begin_again() {
        let mut backoff = Backoff::new(secs(1), secs(60));
        for most in [1, 2, 4, 8, 16, 32, 60, 60] {
            let (wait, most) = (backoff.wait(), secs(most));
            assert!(wait <= most + Duration::from_millis(1) && wait >= most / 2 - Duration::from_millis(1), "{wait:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= secs(1));
    }

    #[test]
    fn two_nodes_do_not_wait_alike() {
        let waits: BTreeSet<_> = (0..20).map(|_| spread(secs(60), 0.5)).collect();
        assert!(waits.len() > 15, "{waits:?}");
    }

    #[test]
    fn times_spread_within_a_fifth() {
        let times: BTreeSet<_> = (0..500).map(|seed| jittered(secs(300), seed)).collect();
        assert_eq!((times.first(), times.last()), (Some(&secs(240)), Some(&secs(360))));
    }

    #[test]
    fn waiting_doubles_has_an_end_and_heeds_the_server() {
        let waits: Vec<_> = (1..20).map(|tries| after_refusals(tries, None, 7).as_secs()).collect();
        assert!(waits[0] <= 6 && waits[1] > waits[0] && waits.iter().all(|wait| *wait <= 360), "{waits:?}");
        assert_eq!(after_refusals(u32::MAX, Some(secs(900)), 7).as_secs(), 900);
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(fingerprint(&["ab", "c"]), fingerprint(&["a", "bc"]));
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_what_is_earned() {
        let mut bucket = TokenBucket::full(3, secs(30), secs(100));
        assert!((0..3).all(|_| bucket.take(secs(100), 0)));
        assert!(!bucket.take(secs(129), 0));
        assert!(bucket.take(secs(130), 0), "what was earned by half is kept");
        assert!(!bucket.take(secs(131), 0));
        assert!(!bucket.take(secs(5), 0), "a time that goes backwards earns nothing");
        assert!(bucket.take(secs(9_000), 2), "no more than the burst is kept");
        assert!(!bucket.take(secs(9_000), 2) && bucket.has(secs(9_000), 1), "the reserve is for others");
    }

    #[test]
    fn a_conflict_that_goes_on_is_answered_less_often() {
        let at = |seconds| NodeTime { boot: BootId::default(), up: secs(seconds), wall: Timestamp::UNIX_EPOCH };
        let mut conflict = ConflictBackoff::default();
        assert!(conflict.may_go_on(at(0)));
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            conflict.note_conflict(at(now));
            let next = (now..).find(|second| conflict.may_go_on(at(*second))).unwrap();
            pauses.push(next - now);
            now = next;
        }
        assert_eq!(pauses, [15, 15, 15, 60, 60, 60]);
        conflict.note_conflict(at(now + 600));
        assert!(conflict.may_go_on(at(now + 615)), "a new one");
    }
}
