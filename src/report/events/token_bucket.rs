//! How many events one node may write: all of them share one API server.

use std::collections::VecDeque;
use std::time::Duration;

use crate::facts::NodeTime;

/// What may be written at once after a quiet time.
pub(super) const BURST: u32 = 10;
/// Time in which one more is earned.
const EARNED_IN: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);
/// What may be written within any hour.
pub(super) const PER_HOUR: usize = 60;

#[derive(Debug)]
pub(super) struct TokenBucket {
    left: u32,
    counted: NodeTime,
    spent: VecDeque<NodeTime>,
}

impl TokenBucket {
    pub fn new(now: NodeTime) -> Self {
        Self { left: BURST, counted: now, spent: VecDeque::with_capacity(PER_HOUR) }
    }

    /// Takes the right to write one event, if there is one.
    pub fn take(&mut self, now: NodeTime) -> bool {
        self.earn(now);
        self.spent.retain(|at| now.since(at).is_some_and(|age| age < HOUR));
        if self.left == 0 || self.spent.len() >= PER_HOUR {
            return false;
        }
        self.left -= 1;
        self.spent.push_back(now);
        true
    }

    fn earn(&mut self, now: NodeTime) {
        let passed = now.since(&self.counted).unwrap_or_default();
        let earned = u32::try_from(passed.as_secs() / EARNED_IN.as_secs()).unwrap_or(BURST);
        self.left = self.left.saturating_add(earned).min(BURST);
        self.counted = match self.left {
            BURST => now,
            _ => self.counted.plus(EARNED_IN.saturating_mul(earned)),
        };
    }
}
