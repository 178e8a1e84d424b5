//! What was asked of EC2, in numbers.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// An answer.
    Ok,
    /// The account has made too many.
    Throttled,
    /// A right is missing, or credentials are.
    Denied,
    /// No answer in time.
    Timeout,
    /// No server listens, or the connection broke.
    NoAnswer,
    /// An answer that is none.
    Malformed,
    /// Another refusal.
    Error,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Ok, Self::Throttled, Self::Denied, Self::Timeout, Self::NoAnswer, Self::Malformed, Self::Error];

    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::Timeout => "timeout",
            Self::NoAnswer => "no-answer",
            Self::Malformed => "malformed",
            Self::Error => "error",
        }
    }
}

/// The one operation that is ever called.
pub const DESCRIBE_VOLUMES: &str = "DescribeVolumes";

/// Calls by what they came to.
#[derive(Debug, Default)]
pub struct Meter(Mutex<BTreeMap<Outcome, u64>>);

impl Meter {
    #[cfg(feature = "ec2")]
    pub(super) fn count(&self, outcome: Outcome) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *calls.entry(outcome).or_default() += 1;
    }

    /// How many calls came to what.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<Outcome, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many calls were made.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.calls().values().sum()
    }
}
