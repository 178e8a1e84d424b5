//! How long to wait before the next try: longer each time, and never all nodes at once.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Waits that double from a shortest to a longest, each cut by up to a half at random.
#[derive(Debug)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Nothing has failed yet.
    #[must_use]
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, next: shortest }
    }

    /// How long to wait after one more failure.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (self.next * 2).min(self.longest);
        spread(wait.mul_f64(0.75), 1.0 / 3.0)
    }

    /// It works again.
    pub fn reset(&mut self) {
        self.next = self.shortest;
    }
}

/// A time within this share of `around`, at random.
pub fn spread(around: Duration, share: f64) -> Duration {
    around.mul_f64(1.0 - share + 2.0 * share * random())
}

/// A number from 0 to 1.
pub fn random() -> f64 {
    // Keys of a hash map's hasher are random for each one, which is all that is needed here.
    RandomState::new().hash_one(0u8) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for most in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = backoff.wait();
            let most = Duration::from_secs(most);
            assert!(wait <= most + Duration::from_millis(1) && wait >= most / 2 - Duration::from_millis(1), "{wait:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_secs(1));
    }

    #[test]
    fn two_nodes_do_not_wait_alike() {
        let waits: std::collections::BTreeSet<_> = (0..20).map(|_| spread(Duration::from_secs(60), 0.5)).collect();
        assert!(waits.len() > 15, "{waits:?}");
    }
}
