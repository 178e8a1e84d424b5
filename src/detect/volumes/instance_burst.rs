//! EbsBurstForecast of the instance: when has it used up what EC2 promises beyond its baseline?
//!
//! EC2 says that an instance type which bursts does so for half an hour in a day at least, and neither how much more it
//! may be nor how it is earned. So no balance is claimed here, but what of that promise can be left at most: the counters
//! show how much more than its baseline the instance was given at least. It is for information: whether EC2 holds the
//! instance back is what InstanceEbsThrottled knows.

use std::time::Duration;

use crate::facts::{BlockDevices, Cause, EbsRate, ImdsInstance, InstanceType, Node, Tri, Unknown};
use crate::finding::{Finding, Kind, Object, Severity};
use crate::view::input::Known;
use crate::view::{InstanceSeries, IoSeries, IoSpan, IoTotal, Seen};
use crate::wording;

use super::Names;
use super::burst_bucket::{LARGEST, beginning, not_watched};

const KIND: Kind = Kind::EbsBurstForecast;

/// EC2 promises the most for so long in each day.
const BURST_SECONDS: f64 = 1_800.0;
const DAY: Duration = Duration::from_secs(86_400);

/// What is to say of the instance, where the promise is used up within this time.
pub(super) fn evaluate(
    io: &IoSeries,
    (node, imds): (Known<'_, Node>, Known<'_, ImdsInstance>),
    names: Names<'_>,
    block: &Seen<'_, BlockDevices>,
    within: Duration,
) -> Tri<Finding> {
    if io.iter().next().is_none() {
        return Tri::No(block.no());
    }
    let series = io.instance();
    let Some(last) = series.last() else { return Tri::Unknown(not_watched("the instance")) };
    // The type of an idle instance is not needed.
    if !Use::ALL.iter().any(|by| by.rate(last) > by.limit(EbsRate::SMALLEST_BASE)) {
        return Tri::No(block.no());
    }
    let not_known = |name: &str| {
        let why = format!("what EBS does for an instance of type {name:?} is not known");
        Unknown::new(Cause::Unsupported, why)
    };
    let (name, says) = match (super::instance_type(node.seen().ok(), imds), node.seen()) {
        (Some(known), _) => known,
        (None, Ok(_)) => return Tri::Unknown(not_known("")),
        (None, Err(why)) => return Tri::Unknown(why.clone()),
    };
    let Some(of) = InstanceType::of(name) else { return Tri::Unknown(not_known(name)) };
    let spent = Use::ALL.iter().filter_map(|by| BurstAllowance::of(*by, of, series, last));
    let soonest = spent.filter(|allowance| allowance.lasts <= within).min_by_key(|allowance| {
        // What is so for sure says more than what may be.
        (allowance.by == Use::Operations, allowance.lasts)
    });
    let Some(allowance) = soonest else { return Tri::No(block.no()) };
    let busiest = busiest(io, names, block, allowance.by);
    Tri::Yes(Finding {
        kind: KIND,
        severity: Severity::Info,
        object: Object::node(),
        message: format!("{name} {}", allowance.words(&busiest)),
        evidence: vec![block.says(allowance.fact()), says],
        // The limit that binds is the same, and not the volume's.
        advice: crate::catalogue::row(Kind::InstanceEbsThrottled).remediation.to_owned(),
    })
}

/// The volume that has most of it.
fn busiest(io: &IoSeries, names: Names<'_>, block: &Seen<'_, BlockDevices>, by: Use) -> String {
    let moved = block.value.values().filter_map(|device| {
        let now = IoTotal::of(device, block.at)?;
        let since = beginning(io.of(&device.name)?, now)?;
        let (requests, bytes) = (now.requests.checked_sub(since.requests)?, now.bytes.checked_sub(since.bytes)?);
        Some((by.of(IoSpan { from: since.up, to: now.up, requests, bytes }), device))
    });
    let Some((_, device)) = moved.max_by(|a, b| a.0.total_cmp(&b.0)) else { return String::new() };
    let user = names.name_user(&mut Object::node(), &device.name);
    format!(", most of it for {}{user}", device.name)
}

/// What an instance has a limit of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Bytes,
    /// Where EBS merges none.
    Operations,
}

impl Use {
    const ALL: [Self; 2] = [Self::Bytes, Self::Operations];

    fn limit(self, rate: EbsRate) -> f64 {
        match self {
            Self::Bytes => rate.bytes,
            Self::Operations => rate.operations,
        }
    }

    fn of(self, span: IoSpan) -> f64 {
        let bytes = span.bytes as f64;
        match self {
            Self::Bytes => bytes,
            // A request that is larger than EBS takes is sent as several.
            Self::Operations => (span.requests as f64).max(bytes / LARGEST),
        }
    }

    fn rate(self, span: IoSpan) -> f64 {
        self.of(span) / span.length().as_secs_f64().max(1.0)
    }

    /// In EC2's units, as its documentation has them.
    fn words(self, a_second: f64) -> String {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is never below zero, and saturates"
        )]
        let whole = |value: f64| wording::count(value.round() as u64);
        match self {
            Self::Bytes if a_second < 1e8 => format!("{:.1} MB/s", a_second / 1e6),
            Self::Bytes => format!("{} MB/s", whole(a_second / 1e6)),
            Self::Operations => format!("{} IOPS", whole(a_second)),
        }
    }
}

/// What of a day's promise can be left at most.
struct BurstAllowance {
    by: Use,
    base: f64,
    most: f64,
    /// What it is given now.
    rate: f64,
    over: Duration,
    /// Part of the promise that is left at most.
    left: f64,
    lasts: Duration,
}

impl BurstAllowance {
    /// `None` where the type does not burst, or the instance is within its baseline.
    fn of(by: Use, of: InstanceType, series: &InstanceSeries, last: IoSpan) -> Option<Self> {
        let (base, most) = (by.limit(of.ebs_base), by.limit(of.ebs_most));
        let (allowed, rate) = ((most - base) * BURST_SECONDS, by.rate(last));
        if allowed <= 0.0 {
            return None;
        }
        // An average hides what was given beyond the baseline, and never adds to it.
        let beyond = |span: IoSpan| (by.of(span) - base * span.length().as_secs_f64()).max(0.0);
        let left = (allowed - series.within(DAY).map(beyond).sum::<f64>()).max(0.0);
        let lasts = match rate - base {
            net if net > 0.0 => Duration::try_from_secs_f64(left / net).ok()?,
            // An instance that is held to its baseline never gets quite all of it.
            _ if by == Use::Bytes && left <= 0.0 && rate >= 0.9 * base => Duration::ZERO,
            _ => return None,
        };
        Some(Self { by, base, most, rate, over: last.length(), left: left / allowed, lasts })
    }

    fn words(&self, busiest: &str) -> String {
        let [base, most, rate] = [self.base, self.most, self.rate].map(|a_second| self.by.words(a_second));
        let given = match self.by {
            Use::Bytes => format!("is given {rate} by EBS"),
            Use::Operations => format!("is given up to {rate} by EBS, if none of its requests is merged"),
        };
        let what_then = if self.left > 0.0 {
            let lasts = wording::duration(self.lasts);
            format!("at this rate that half hour is used up within {lasts}")
        } else if self.rate > self.base {
            format!("that half hour is used up, so that it may fall to {base} at any moment")
        } else {
            "that half hour is used up, so that this may be all it gets".to_owned()
        };
        format!("{given}{busiest}: EC2 promises {most} for 30 min a day and {base} otherwise; {what_then}")
    }

    fn fact(&self) -> String {
        format!(
            "all EBS volumes together were given {} over the last {}; of the promised burst at most {:.0} % is left, as measured over \
             the last day (time below the baseline is not added back, as EC2 does not document how it is)",
            self.by.words(self.rate),
            wording::duration(self.over),
            (100.0 * self.left).ceil()
        )
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::facts::{BlockDevice, BootId, DevId, IoStat, NodeTime, Part, VolumeId};

    fn follow(series: &mut IoSeries, up: u64, bytes: u64) {
        let device = BlockDevice {
            name: "nvme1n1".into(),
            volume: VolumeId::from_serial("vol0123456789abcdef0"),
            io: Part::Known(IoStat { reads: bytes / 4096, bytes: Some(bytes), ..IoStat::default() }),
            ..BlockDevice::default()
        };
        let block = BlockDevices::whole([(DevId { major: 259, minor: 1 }, device)]);
        let at = NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH };
        series.follow(&block, at);
    }

    #[test]
    fn an_allowance_lasts_half_an_hour_at_the_most() {
        let of = InstanceType::of("m5.large").unwrap();
        let mut series = IoSeries::default();
        let mut allowance = |up| {
            // 593.75 MB/s
            follow(&mut series, up, 593_750_000 * up);
            let last = series.instance().last()?;
            BurstAllowance::of(Use::Bytes, of, series.instance(), last).map(|allowance| allowance.lasts.as_secs())
        };
        assert_eq!((allowance(0), allowance(290), allowance(300)), (None, None, Some(1_500)));
        for up in (310..1_800).step_by(10) {
            assert_eq!(allowance(up), Some(1_800 - up), "{up}");
        }
        assert_eq!((allowance(1_800), allowance(2_400)), (Some(0), Some(0)));
    }

    proptest! {
        /// However unevenly it comes: no more is said to be used than was given beyond the baseline.
        #[test]
        fn no_more_is_taken_off_than_was_given(steps in prop::collection::vec((10u64..60, 0u64..40_000_000_000), 10..200)) {
            let of = InstanceType::of("m5.large").unwrap();
            let (mut series, mut up, mut bytes, mut beyond) = (IoSeries::default(), 0, 0, 0.0);
            follow(&mut series, 0, 0);
            for (seconds, more) in steps {
                (up, bytes) = (up + seconds, bytes + more);
                beyond += (more as f64 - of.ebs_base.bytes * seconds as f64).max(0.0);
                follow(&mut series, up, bytes);
            }
            let allowed = (of.ebs_most.bytes - of.ebs_base.bytes) * BURST_SECONDS;
            let last = series.instance().last();
            if let Some(allowance) = last.and_then(|last| BurstAllowance::of(Use::Bytes, of, series.instance(), last)) {
                prop_assert!(allowance.left * allowed >= allowed - beyond - 1.0);
            }
        }
    }
}
