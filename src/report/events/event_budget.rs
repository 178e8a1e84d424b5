//! How many events one node may write: all of them share one API server.

use std::collections::VecDeque;
use std::time::Duration;

use crate::facts::NodeTime;
use crate::finding::Share;
use crate::pacing::TokenBucket;

/// What may be written at once after a quiet time.
pub(super) const BURST: u32 = 10;
/// Time in which one more is earned.
const EARNED_IN: Duration = Duration::from_secs(30);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
/// What may be written within any hour.
pub(super) const PER_HOUR: usize = 60;
/// What may be written of the pods of one namespace within any hour; more by so many where it is critical.
const PER_NAMESPACE: usize = 15;
const PER_NAMESPACE_CRITICAL: usize = 5;

/// How urgent an event is, from the least. Each class leaves a reserve to those above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Whatever is not one of these.
    Ordinary,
    /// The first one of its kind within an hour, a critical finding that still stands, and the summary.
    First,
    /// A new critical finding that concerns a pod.
    PodCritical,
    /// A new critical finding of the node.
    Critical,
}

impl Class {
    /// What is left to the classes above: of the burst, and of the hour.
    fn leaves(self) -> (u32, usize) {
        match self {
            Self::Ordinary => (3, 20),
            Self::First => (2, 16),
            Self::PodCritical => (1, 8),
            Self::Critical => (0, 0),
        }
    }
}

/// What this node may still write.
#[derive(Debug)]
pub(super) struct EventBudget {
    bucket: TokenBucket,
    spent: VecDeque<(NodeTime, Share)>,
}

impl EventBudget {
    pub fn new(now: NodeTime) -> Self {
        Self { bucket: TokenBucket::full(BURST, EARNED_IN, now.up), spent: VecDeque::with_capacity(PER_HOUR) }
    }

    /// Takes the right to write one event of this class, out of this share, if there is one.
    pub fn take(&mut self, now: NodeTime, class: Class, share: &Share) -> bool {
        self.spent.retain(|(at, _)| now.since(at).is_some_and(|age| age < HOUR));
        let (of_burst, of_hour) = class.leaves();
        let critical = if class >= Class::PodCritical { PER_NAMESPACE_CRITICAL } else { 0 };
        let in_share = || self.spent.iter().filter(|(_, other)| other == share).count();
        if PER_HOUR.saturating_sub(self.spent.len()) <= of_hour
            || (share.is_of_pods() && in_share() >= PER_NAMESPACE + critical)
            || !self.bucket.take(now.up, of_burst)
        {
            return false;
        }
        self.spent.push_back((now, share.clone()));
        true
    }
}
