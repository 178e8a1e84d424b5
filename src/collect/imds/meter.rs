//! What was asked of IMDS, in numbers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::facts::ImdsRequests;

/// A part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The connection.
    Connect,
    /// A token.
    Token,
    /// Anything else.
    Get,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Connect, Self::Token, Self::Get];

    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Token => "token",
            Self::Get => "get",
        }
    }
}

/// What a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// An answer, if only that there is no such path: the usual one where nothing is announced.
    Ok,
    /// Too many requests.
    Throttled,
    /// No answer in time.
    Timeout,
    /// No connection, or it was cut.
    NoAnswer,
    /// Another status.
    Error,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Throttled, Self::Timeout, Self::NoAnswer, Self::Error];

    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
            Self::NoAnswer => "no-answer",
            Self::Error => "error",
        }
    }

    fn is_failure(self) -> bool {
        self != Self::Ok
    }
}

/// The upper bounds of a histogram's buckets, in milliseconds; IMDS usually answers within 5.
pub const BUCKETS: [u64; 3] = [5, 50, 500];

/// A histogram of times.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// How many took no longer than each bound of [`BUCKETS`], those of the bound before included.
    pub buckets: [u64; BUCKETS.len()],
    /// How many there were.
    pub count: u64,
    /// All of them together.
    pub sum: Duration,
}

/// An answer that took longer is slow.
const SLOW: Duration = Duration::from_millis(50);
/// So many requests are looked at together: six minutes on a node that is not spot.
const RECENT: usize = 30;

#[derive(Debug, Default)]
struct Counts {
    requests: BTreeMap<Outcome, u64>,
    latencies: BTreeMap<Phase, Latency>,
    /// Whether each of the last requests failed, and whether it was slow.
    recent: VecDeque<(bool, bool)>,
}

/// Requests and the times that they took.
#[derive(Debug, Default)]
pub struct Meter(Mutex<Counts>);

impl Meter {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, outcome: Outcome, took: Duration) {
        let mut counts = self.counts();
        *counts.requests.entry(outcome).or_default() += 1;
        if counts.recent.len() >= RECENT {
            counts.recent.pop_front();
        }
        counts.recent.push_back((outcome.is_failure(), took > SLOW));
    }

    pub(super) fn took(&self, phase: Phase, took: Duration) {
        let mut counts = self.counts();
        let latency = counts.latencies.entry(phase).or_default();
        for (bucket, bound) in latency.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(took <= Duration::from_millis(bound));
        }
        latency.count += 1;
        latency.sum = latency.sum.saturating_add(took);
    }

    /// How many requests came to what.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<Outcome, u64> {
        self.counts().requests.clone()
    }

    /// How many requests were made.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts().requests.values().sum()
    }

    /// How long each phase took; only of phases that came to their end.
    #[must_use]
    pub fn latency(&self, phase: Phase) -> Latency {
        self.counts().latencies.get(&phase).copied().unwrap_or_default()
    }

    /// What is over and was reported by itself no longer counts.
    pub(super) fn forget_recent(&self) {
        self.counts().recent.clear();
    }

    pub(super) fn recent(&self) -> ImdsRequests {
        let counts = self.counts();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        ImdsRequests {
            sent: number(counts.recent.len()),
            failed: number(counts.recent.iter().filter(|(failed, _)| *failed).count()),
            slow: number(counts.recent.iter().filter(|(failed, slow)| !failed && *slow).count()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_each_bucket_that_holds_it() {
        let meter = Meter::default();
        for millis in [1, 50, 51, 2000] {
            meter.took(Phase::Get, Duration::from_millis(millis));
        }
        let latency = meter.latency(Phase::Get);
        assert_eq!((latency.buckets, latency.count), ([1, 2, 3], 4));
        assert_eq!(latency.sum, Duration::from_millis(2102));
        assert_eq!(meter.latency(Phase::Token), Latency::default());
    }

    #[test]
    fn the_last_requests_are_counted_and_no_others() {
        let meter = Meter::default();
        let quick = Duration::from_millis(1);
        (0..40).for_each(|_| meter.count(Outcome::Timeout, PATIENT));
        (0..25).for_each(|_| meter.count(Outcome::Ok, quick));
        meter.count(Outcome::Ok, Duration::from_millis(51));
        assert_eq!(meter.recent(), ImdsRequests { sent: 30, failed: 4, slow: 1 });
        assert_eq!(meter.total(), 66);
    }

    const PATIENT: Duration = Duration::from_secs(1);
}
