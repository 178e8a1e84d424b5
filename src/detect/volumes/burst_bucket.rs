//! The bucket of burst credits of a volume: between which bounds its balance must be, by what the volume did.
//!
//! EC2 shows no balance here, and how many credits a request costs depends on what EBS merges and splits. So two
//! bounds are kept: the least and the most that the requests can have cost. Nothing in between is claimed.

use std::time::Duration;

use crate::facts::{Cause, EbsType, Unknown};
use crate::view::{IoTotal, VolumeSeries};
use crate::wording;

const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1024.0 * MIB;
const TIB: f64 = 1024.0 * GIB;

/// A rate is taken over this time at least: what lasts a minute empties no bucket.
const SHORTEST: Duration = Duration::from_secs(300);

/// What a volume does in a shorter time disproves no type: EBS does not count by the second.
const DISPROVES: Duration = Duration::from_secs(60);
/// So many times of what it had is more than EBS lets through.
const MORE: f64 = 1.5;

/// A larger request of an SSD counts as several.
pub(super) const LARGEST: f64 = 262_144.0;
/// Operations a second that a gp2 volume bursts to, and what its bucket holds.
const GP2_BURST: f64 = 3_000.0;
const GP2_BUCKET: f64 = 5_400_000.0;
/// EC2 makes no smaller disks (st1, sc1).
const SMALLEST_DISK: f64 = 125.0 * GIB;

/// The bucket of a volume of one type and size. Its credits are operations of gp2, bytes of st1 and sc1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bucket {
    of: EbsType,
    /// Credits earned each second, which is also what is left when it is empty.
    base: f64,
    /// Credits that it holds.
    holds: f64,
}

/// Credits that were spent between two samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spent {
    /// Where EBS merged all that it could.
    pub least: f64,
    /// Where each request counted for itself.
    pub most: f64,
}

/// What is in a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Balance {
    /// No less than this.
    pub least: f64,
    /// No more than this.
    pub most: f64,
    /// No more than this, if each request counted for itself.
    pub if_each_counts: f64,
}

impl Bucket {
    /// Types that have a bucket at some sizes.
    pub const TYPES: [EbsType; 3] = [EbsType::Gp2, EbsType::St1, EbsType::Sc1];

    /// The bucket of a volume of this type and of so many bytes; `None` where it has none.
    pub fn of(of: EbsType, size: u64) -> Option<Self> {
        let size = size as f64;
        // MiB a second for each TiB, and at most.
        let rate = |each: f64, most: f64| (each * size / TIB).min(most);
        let disk = |base: f64, burst: f64| {
            (size >= SMALLEST_DISK && base < burst).then_some(Self { of, base: base * MIB, holds: size })
        };
        match of {
            EbsType::Gp2 => {
                let base = (3.0 * size / GIB).clamp(100.0, 16_000.0);
                (base < GP2_BURST).then_some(Self { of, base, holds: GP2_BUCKET })
            }
            EbsType::St1 => disk(rate(40.0, 500.0), rate(250.0, 500.0)),
            EbsType::Sc1 => disk(rate(12.0, 192.0), rate(80.0, 250.0)),
            EbsType::Gp3 | EbsType::Io1 | EbsType::Io2 | EbsType::Standard => None,
        }
    }

    /// Credits that were spent between two samples.
    pub fn spent(&self, from: IoTotal, to: IoTotal) -> Spent {
        let requests = to.requests.saturating_sub(from.requests) as f64;
        let bytes = to.bytes.saturating_sub(from.bytes) as f64;
        match self.of {
            EbsType::Gp2 => Spent { least: bytes / LARGEST, most: requests + bytes / LARGEST },
            // Random requests of up to 1 MiB count as 1 MiB.
            _ => Spent { least: bytes, most: bytes + requests * MIB },
        }
    }

    /// What must be in it after these samples, of which the first is all that is known of the time before.
    pub fn balance(&self, mut samples: impl Iterator<Item = IoTotal>) -> Option<Balance> {
        let first = samples.next()?;
        let (mut balance, mut last) = (self.before(first), first);
        for next in samples {
            balance = self.after(balance, last, next);
            last = next;
        }
        Some(balance)
    }

    /// What must be in it at the first sample. The counters begin with the device, which is no older than the boot, and then it cannot
    /// have held more than a full bucket.
    fn before(&self, first: IoTotal) -> Balance {
        let spent = self.spent(IoTotal::default(), first);
        let since_boot = self.base * first.up.as_secs_f64();
        Balance {
            least: 0.0,
            most: self.within(self.holds + since_boot - spent.least),
            if_each_counts: self.within(self.holds + since_boot - spent.most),
        }
    }

    /// The same at the next sample.
    fn after(&self, balance: Balance, last: IoTotal, next: IoTotal) -> Balance {
        let earned = self.base * next.up.saturating_sub(last.up).as_secs_f64();
        let spent = self.spent(last, next);
        Balance {
            // At worst all was earned first, and what did not fit is lost.
            least: self.within((balance.least + earned).min(self.holds) - spent.most),
            most: self.within(balance.most + earned - spent.least),
            if_each_counts: self.within(balance.if_each_counts + earned - spent.most),
        }
    }

    /// Whether a volume of this type and size cannot have done what these samples show: it did more than it had credits for, however EBS
    /// counts. Its type was changed since, and no class of the cluster shows that.
    pub fn is_disproved(&self, mut samples: impl Iterator<Item = IoTotal>) -> bool {
        let Some(first) = samples.next() else { return false };
        let (mut balance, mut last) = (self.before(first), first);
        for next in samples {
            let over = next.up.saturating_sub(last.up);
            let had = balance.most + self.base * over.as_secs_f64();
            if over >= DISPROVES && self.spent(last, next).least > had * MORE {
                return true;
            }
            balance = self.after(balance, last, next);
            last = next;
        }
        false
    }

    fn within(&self, credits: f64) -> f64 {
        credits.clamp(0.0, self.holds)
    }

    /// How long these credits last while so many are spent each second; `None` where they do not become fewer.
    pub fn lasts(&self, credits: f64, spent_a_second: f64) -> Option<Duration> {
        let net = spent_a_second - self.base;
        if net <= 0.0 {
            return None;
        }
        Duration::try_from_secs_f64(credits / net).ok()
    }

    /// Whether a volume of an empty bucket is held to what it earns: it asks for more and does not get it. What it does get
    /// is never quite all.
    pub fn holds_down(&self, left: f64, spent_a_second: f64) -> bool {
        left <= self.holds / 100.0 && spent_a_second >= self.base * 0.9
    }

    /// A part of it, in percent; rounded up, as it stands for "at most".
    pub fn percent(&self, credits: f64) -> String {
        format!("{:.0} %", (100.0 * credits / self.holds).ceil())
    }

    /// What is left to the volume when it is empty.
    pub fn limit(&self) -> String {
        self.rate(self.base)
    }

    /// So many credits a second, in words.
    pub fn rate(&self, a_second: f64) -> String {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is never below zero, and saturates"
        )]
        let whole = a_second.round() as u64;
        match self.of {
            EbsType::Gp2 => format!("{} IOPS", wording::count(whole)),
            _ => format!("{}/s", wording::bytes(whole)),
        }
    }
}

/// A rate needs more than the two samples of other kinds.
pub(super) fn not_watched(what: &str) -> Unknown {
    let why = format!("what {what} is given must be watched for {} s (by the agent, or --for 6m)", SHORTEST.as_secs());
    Unknown::new(Cause::Baseline, why)
}

/// The newest sample that is old enough to take a rate from.
pub(super) fn beginning(series: &VolumeSeries, now: IoTotal) -> Option<IoTotal> {
    series.samples().rev().find(|sample| now.up.saturating_sub(sample.up) >= SHORTEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gib(n: u64) -> u64 {
        n << 30
    }

    fn total(up: u64, requests: u64, bytes: u64) -> IoTotal {
        IoTotal { up: Duration::from_secs(up), requests, bytes }
    }

    #[test]
    fn only_types_and_sizes_that_burst_have_a_bucket() {
        let limit = |of, size| Bucket::of(of, size).map(|bucket| bucket.limit());
        assert_eq!(limit(EbsType::Gp2, gib(8)).as_deref(), Some("100 IOPS"));
        assert_eq!(limit(EbsType::Gp2, gib(100)).as_deref(), Some("300 IOPS"));
        assert_eq!(limit(EbsType::Gp2, gib(999)).as_deref(), Some("2,997 IOPS"));
        assert_eq!(limit(EbsType::Gp2, gib(1000)), None);
        assert_eq!(limit(EbsType::St1, gib(2048)).as_deref(), Some("80 MiB/s"));
        assert_eq!((limit(EbsType::St1, gib(124)), limit(EbsType::St1, gib(12_800))), (None, None));
        assert_eq!(limit(EbsType::Sc1, gib(1024)).as_deref(), Some("12 MiB/s"));
        for of in [EbsType::Gp3, EbsType::Io1, EbsType::Io2, EbsType::Standard] {
            assert_eq!(limit(of, gib(100)), None);
        }
    }

    #[test]
    fn a_full_bucket_lasts_as_long_as_ec2_says() {
        let lasts = |size| {
            let bucket = Bucket::of(EbsType::Gp2, gib(size)).unwrap();
            bucket.lasts(GP2_BUCKET, GP2_BURST).unwrap().as_secs()
        };
        assert_eq!((lasts(33), lasts(100), lasts(750)), (1862, 2000, 7200));
        assert_eq!(Bucket::of(EbsType::Gp2, gib(100)).unwrap().lasts(1.0, 300.0), None);
    }

    #[test]
    fn nothing_is_claimed_of_a_bucket_that_was_not_watched() {
        let bucket = Bucket::of(EbsType::Gp2, gib(100)).unwrap();
        let balance = bucket.balance([total(86_400, 1_000, 4_096_000)].into_iter()).unwrap();
        assert_eq!((balance.least, balance.most), (0.0, GP2_BUCKET));
        assert_eq!(bucket.balance(std::iter::empty()), None);
    }

    #[test]
    fn what_an_empty_bucket_cannot_give_disproves_its_type() {
        let bucket = Bucket::of(EbsType::Gp2, gib(4)).unwrap();
        // Requests of 256 KiB count as one each.
        let does = |a_second: u64| {
            let at = |up: u64| total(up, a_second * up, a_second * up * 262_144);
            bucket.is_disproved((0..=100).map(|n| at(100 * n)))
        };
        // A full bucket gives 540 more each second for 10,000 s.
        assert!(!does(100) && !does(300) && !does(600));
        assert!(does(1_500), "the credits of an hour are spent within the half of it");
        let of_each_second = |up: u64| total(up, 3_000 * up, 3_000 * up * 262_144);
        assert!(!bucket.is_disproved((3_600..3_650).map(of_each_second)), "no two samples are a minute apart");
    }

    #[test]
    fn an_idle_volume_fills_its_bucket() {
        let bucket = Bucket::of(EbsType::Gp2, gib(100)).unwrap();
        let idle = |hours: u64| bucket.balance((0..=hours).map(|h| total(86_400 + 3600 * h, 0, 0))).unwrap();
        assert_eq!(idle(1).least, 300.0 * 3600.0);
        assert_eq!(idle(5).least, GP2_BUCKET, "18,000 s fill it");
    }

    #[test]
    fn what_was_done_since_boot_bounds_it_from_the_first_sample_on() {
        let bucket = Bucket::of(EbsType::Gp2, gib(100)).unwrap();
        // All that was earned in an hour, and half of the bucket, in the largest requests that count as one.
        let operations = 300 * 3600 + 2_700_000;
        let balance = bucket.balance([total(3600, operations, operations * 262_144)].into_iter()).unwrap();
        assert_eq!((balance.least, balance.most), (0.0, GP2_BUCKET / 2.0));
        assert_eq!(balance.if_each_counts, 0.0);
    }

    proptest! {
        /// A bucket that starts anywhere, and whose requests cost anything that they can, stays between the bounds.
        #[test]
        fn the_truth_is_between_the_bounds(
            start in 0.0..=1.0,
            steps in prop::collection::vec((0u64..1_000, 0u64..3_000_000, 0u64..400_000, 0.0..=1.0, any::<bool>()), 0..30),
        ) {
            let bucket = Bucket::of(EbsType::Gp2, gib(100)).unwrap();
            let mut truth = start * bucket.holds;
            let (mut now, mut samples) = (total(0, 0, 0), vec![total(0, 0, 0)]);
            for (seconds, requests, each, share, spent_first) in steps {
                let next = total(now.up.as_secs() + seconds, now.requests + requests, now.bytes + requests * each);
                let spent = bucket.spent(now, next);
                let earned = bucket.base * seconds as f64;
                let cost = spent.least + share * (spent.most - spent.least);
                // No more can be spent than there is; then the volume waits, and so do its requests.
                let has = truth + if spent_first { 0.0 } else { earned.min(bucket.holds - truth) };
                if cost > has {
                    continue;
                }
                truth = if spent_first {
                    bucket.within(truth - cost + earned)
                } else {
                    bucket.within(truth + earned) - cost
                };
                now = next;
                samples.push(next);
            }
            let balance = bucket.balance(samples.into_iter()).unwrap();
            prop_assert!(balance.least <= truth + 1.0 && truth <= balance.most + 1.0, "{balance:?} {truth}");
            prop_assert!(balance.if_each_counts <= balance.most);
        }
    }
}
