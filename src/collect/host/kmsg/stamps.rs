//! When a record was written, as time since boot.
//!
//! printk's clock stands still while the machine is suspended, as a hibernated instance is, and no time server corrects it; what
//! counts the time since boot goes on. A record that came since the log was last read to its end was not written before that.

use std::collections::BTreeMap;
use std::time::Duration;

/// So much may lie between the two clocks without a correction: they are read at different moments.
const APART: Duration = Duration::from_secs(60);
/// Corrections that are remembered: a copy of a log is read from its beginning each time.
const MAX_CORRECTIONS: usize = 64;

/// What the stamps of records lack.
#[derive(Clone, Debug, Default)]
pub(super) struct Stamps {
    /// The number of the first record that is not known, and when the log was last read to its end.
    read: Option<(u64, Duration)>,
    /// By the number of the first record for which it counts.
    corrections: BTreeMap<u64, Duration>,
    /// A record of this read was new.
    is_dated: bool,
}

impl Stamps {
    /// When a record was written, given its number and stamp.
    pub(super) fn date(&mut self, seq: u64, stamp: Duration, now: Duration) -> Duration {
        if let Some((next, read_at)) = self.read
            && seq >= next
            && !self.is_dated
        {
            self.is_dated = true;
            let lacks = read_at.checked_sub(stamp).filter(|lacks| *lacks > APART).unwrap_or_default();
            if lacks != self.lacks(seq) {
                self.corrections.insert(seq, lacks);
            }
            if self.corrections.len() > MAX_CORRECTIONS {
                self.corrections.pop_first();
            }
        }
        let lacks = self.lacks(seq);
        if lacks.is_zero() { stamp } else { stamp.saturating_add(lacks).min(now) }
    }

    fn lacks(&self, seq: u64) -> Duration {
        self.corrections.range(..=seq).next_back().map_or(Duration::ZERO, |(_, lacks)| *lacks)
    }

    /// The log was read to its end; this is the number that its next record will have.
    pub(super) fn end(&mut self, next: Option<u64>, now: Duration) {
        self.read = next.map(|next| (next, now));
        self.is_dated = false;
    }

    /// The log was not read to its end: what comes next may be old.
    pub(super) fn go_on(&mut self) {
        self.read = None;
        self.is_dated = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_came_since_the_last_read_was_not_written_before_it() {
        let mut stamps = Stamps::default();
        assert_eq!(stamps.date(1, s(10), s(100)), s(10), "it may be as old as it says");
        stamps.end(Some(2), s(100));
        assert_eq!(stamps.date(2, s(95), s(110)), s(95), "clocks are read one after the other");
        stamps.end(Some(3), s(110));
        // Six hours of hibernation.
        assert_eq!(stamps.date(3, s(115), s(21_730)), s(115), "the log was read before it, and it may be of that time");
        stamps.end(Some(4), s(21_730));
        assert_eq!(stamps.date(4, s(130), s(21_740)), s(21_730));
        assert_eq!(stamps.date(5, s(133), s(21_740)), s(21_733), "their distance is right");
        assert_eq!(stamps.date(6, s(200), s(21_740)), s(21_740), "none is of the future");
        stamps.end(Some(7), s(21_740));
        // A copy is read again.
        assert_eq!([stamps.date(1, s(10), s(21_750)), stamps.date(5, s(133), s(21_750))], [s(10), s(21_733)]);
    }

    #[test]
    fn of_a_log_that_was_not_read_to_its_end_the_rest_may_be_old() {
        let mut stamps = Stamps::default();
        stamps.end(Some(1), s(1000));
        stamps.go_on();
        assert_eq!(stamps.date(1, s(500), s(1010)), s(500));
        stamps.end(Some(2), s(1010));
        assert_eq!(stamps.date(2, s(500), s(1020)), s(1010));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut stamps = Stamps::default();
        for read in 1..500 {
            stamps.end(Some(read), s(read * 100));
            stamps.date(read, s(read), s(read * 100 + 10));
        }
        assert!(stamps.corrections.len() <= MAX_CORRECTIONS);
    }
}
