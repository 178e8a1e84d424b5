//! Times that differ from node to node and from one thing to the next, so that a fleet does not speak at once. They
//! follow from what they are about, not from chance: a test and a replay see the same.

use std::time::Duration;

use sha2::{Digest, Sha256};

/// A number that stands for these parts; the order counts.
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

/// A time within 20 % of `mean`.
#[must_use]
pub fn jittered(mean: Duration, seed: u64) -> Duration {
    let percent = 80 + fingerprint(&[&seed.to_string()]) % 41;
    let millis = u64::try_from(mean.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(millis / 100 * percent)
}

/// How long to wait after so many tries that failed: 5 s, doubled each time up to 5 min, or what the server asks for.
#[must_use]
pub fn back_off(tries: u32, retry_after: Option<Duration>, seed: u64) -> Duration {
    let doubled = Duration::from_secs(5 << tries.saturating_sub(1).min(6));
    jittered(doubled.min(Duration::from_secs(300)), seed).max(retry_after.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_spread_within_a_fifth() {
        let mean = Duration::from_secs(300);
        let times: std::collections::BTreeSet<_> = (0..500).map(|seed| jittered(mean, seed)).collect();
        assert_eq!(times.first(), Some(&Duration::from_secs(240)));
        assert_eq!(times.last(), Some(&Duration::from_secs(360)));
    }

    #[test]
    fn waiting_doubles_has_an_end_and_heeds_the_server() {
        let waits: Vec<_> = (1..20).map(|tries| back_off(tries, None, 7).as_secs()).collect();
        assert!(waits[0] <= 6 && waits[1] > waits[0] && waits.iter().all(|wait| *wait <= 360), "{waits:?}");
        assert_eq!(back_off(u32::MAX, Some(Duration::from_secs(900)), 7).as_secs(), 900);
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(fingerprint(&["ab", "c"]), fingerprint(&["a", "bc"]));
    }
}
