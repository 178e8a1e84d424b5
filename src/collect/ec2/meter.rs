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

/// An operation that is called. Each of them reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Of an agent, of `barnacle cluster` and of `barnacle sweep`.
    DescribeVolumes,
    /// Of an agent and of `barnacle sweep`.
    DescribeNetworkInterfaces,
    /// Of an agent alone.
    DescribeSubnets,
    /// Of `barnacle sweep` alone.
    DescribeInstances,
}

impl Operation {
    /// Those of an agent.
    pub const OF_AGENTS: [Self; 3] = [Self::DescribeVolumes, Self::DescribeNetworkInterfaces, Self::DescribeSubnets];

    /// As EC2 and IAM write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DescribeVolumes => "DescribeVolumes",
            Self::DescribeNetworkInterfaces => "DescribeNetworkInterfaces",
            Self::DescribeSubnets => "DescribeSubnets",
            Self::DescribeInstances => "DescribeInstances",
        }
    }
}

/// Calls by what they asked, and what they came to.
#[derive(Debug, Default)]
pub struct Meter(Mutex<BTreeMap<(Operation, Outcome), u64>>);

impl Meter {
    #[cfg(feature = "ec2")]
    pub(super) fn count(&self, operation: Operation, outcome: Outcome) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *calls.entry((operation, outcome)).or_default() += 1;
    }

    /// How many calls came to what.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<(Operation, Outcome), u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same of these operations, by the names in metrics: with each zero.
    #[must_use]
    pub fn figures(&self, operations: &[Operation]) -> BTreeMap<(&'static str, &'static str), u64> {
        let calls = self.calls();
        let each = operations.iter().flat_map(|operation| Outcome::ALL.map(|outcome| (*operation, outcome)));
        let count = |call: (Operation, Outcome)| calls.get(&call).copied().unwrap_or_default();
        each.map(|call| ((call.0.name(), call.1.name()), count(call))).collect()
    }

    /// How many calls of an operation were made.
    #[must_use]
    pub fn of(&self, operation: Operation) -> u64 {
        self.calls().into_iter().filter(|((of, _), _)| *of == operation).map(|(_, calls)| calls).sum()
    }

    /// How many calls were made.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.calls().values().sum()
    }
}
