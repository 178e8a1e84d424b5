//! EbsBurstForecast of the instance: when has it used up what EC2 promises beyond its baseline?
//!
//! EC2 says that an instance type which bursts does so for half an hour in a day at least, and neither how much more it
//! may be nor how it is earned. So no balance is claimed here, but what of that promise can be left at most: the counters
//! tell how much more than its baseline the instance was given at least.

use std::time::Duration;

use crate::facts::{BlockDevices, Cause, EbsRate, InstanceType, Unknown};
use crate::finding::{Finding, Judgement, Kind, Severity, Subject};
use crate::view::{InstanceSeries, IoSpan, Seen, View};
use crate::wording;

use super::burst_forecast::Settings;

const KIND: Kind = Kind::EbsBurstForecast;

/// A rate is taken over this time at least.
const SHORTEST: Duration = Duration::from_secs(300);

/// EC2 promises the most for so long in each day.
const PROMISED: f64 = 1_800.0;
const DAY: Duration = Duration::from_secs(86_400);

/// A larger request counts as several.
const LARGEST: f64 = 262_144.0;

/// An instance that is asked for less than this is within the baseline of every type (t3.nano's).
const SMALLEST: EbsRate = EbsRate { operations: 250.0, bytes: 5_375_000.0 };

/// Adds what is to say of the instance.
pub(super) fn judge(view: &View, block: &Seen<'_, BlockDevices>, settings: &Settings, judgement: &mut Judgement) {
    let series = view.io.instance();
    let Some(last) = series.last(SHORTEST) else { return };
    // Nobody needs to know the type of an instance that is idle.
    if !Use::ALL.iter().any(|of| of.rate(last) > of.limit(SMALLEST)) {
        return;
    }
    let node = match view.node.known() {
        Ok(node) => node,
        Err(why) => return judgement.blind_to(Subject::node(), why),
    };
    let name = node.value.instance_type().unwrap_or_default();
    let Some(of) = InstanceType::of(name) else {
        let why = format!("what EBS does for an instance of type {name:?} is not known");
        return judgement.blind_to(Subject::node(), &Unknown::new(Cause::Unsupported, why));
    };
    let spent = Use::ALL.iter().filter_map(|by| Promise::of(*by, of, series, last));
    let soonest = spent.filter(|promise| promise.lasts <= settings.info_within).min_by_key(|promise| {
        // What is so for sure says more than what may be.
        (promise.by == Use::Operations, promise.lasts)
    });
    let Some(promise) = soonest else { return };
    judgement.raised.push(Finding {
        kind: KIND,
        severity: if promise.is_held() { Severity::Warning } else { Severity::Info },
        subject: Subject::node(),
        message: format!("{name} {}", promise.words()),
        evidence: vec![block.says(promise.fact()), node.says(format!("the Node's instance type is {name}"))],
        advice: crate::catalogue::row(KIND).act.to_owned(),
    });
}

/// What an instance has a limit of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Bytes,
    /// Where each request counts for itself: EBS merges some.
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
            Self::Operations => span.requests as f64 + bytes / LARGEST,
        }
    }

    fn rate(self, span: IoSpan) -> f64 {
        self.of(span) / span.length().as_secs_f64().max(1.0)
    }

    fn words(self, a_second: f64) -> String {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is no less than zero, and saturates"
        )]
        let whole = a_second.round() as u64;
        match self {
            Self::Bytes => format!("{}/s", wording::bytes(whole)),
            Self::Operations => format!("{} IOPS", wording::count(whole)),
        }
    }
}

/// What of a day's promise can be left at most.
struct Promise {
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

impl Promise {
    /// `None` where the type does not burst, or the instance is within its baseline.
    fn of(by: Use, of: InstanceType, series: &InstanceSeries, last: IoSpan) -> Option<Self> {
        let (base, most) = (by.limit(of.ebs_base), by.limit(of.ebs_most));
        let (promised, rate) = ((most - base) * PROMISED, by.rate(last));
        // Whoever is held to the baseline never gets quite all of it.
        if promised <= 0.0 || rate < 0.9 * base {
            return None;
        }
        // An average hides what was given beyond the baseline, and never adds to it.
        let beyond = |span: IoSpan| (by.of(span) - base * span.length().as_secs_f64()).max(0.0);
        let left = (promised - series.within(DAY).map(beyond).sum::<f64>()).max(0.0);
        let lasts = match rate - base {
            _ if left <= 0.0 => Duration::ZERO,
            net if net <= 0.0 => return None,
            net => Duration::try_from_secs_f64(left / net).ok()?,
        };
        Some(Self { by, base, most, rate, over: last.length(), left: left / promised, lasts })
    }

    /// Whether it looks as if EC2 holds it to the baseline now.
    fn is_held(&self) -> bool {
        self.by == Use::Bytes && self.left <= 0.0 && self.rate <= 1.1 * self.base
    }

    fn words(&self) -> String {
        let [base, most, rate] = [self.base, self.most, self.rate].map(|a_second| self.by.words(a_second));
        let promise = format!("the 30 min of {most} that EC2 promises it for a day beyond its baseline of {base}");
        let counts = match self.by {
            Use::Bytes => "",
            Use::Operations => ", if each request counts for itself",
        };
        if self.is_held() {
            format!("has used up {promise}, and is given {rate}: EC2 holds it there, or it asks for no more")
        } else if self.left <= 0.0 {
            format!("has used up {promise}{counts}: at {rate} EC2 may hold it back at any moment")
        } else {
            let left = wording::duration(self.lasts);
            format!("spends {promise}{counts}: at {rate} nothing is left of it in {left} at the latest")
        }
    }

    fn fact(&self) -> String {
        format!(
            "all EBS volumes together were given {} over the last {}; {:.0} % of the promise is left at most, by what we saw",
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
    use crate::facts::{BlockDevice, BootId, DevId, IoStat, Moment, VolumeId};
    use crate::view::IoSeries;

    fn follow(series: &mut IoSeries, up: u64, bytes: u64) {
        let device = BlockDevice {
            name: "nvme1n1".into(),
            volume: VolumeId::from_serial("vol0123456789abcdef0"),
            io: Some(IoStat { reads: bytes / 4096, bytes: Some(bytes), ..IoStat::default() }),
            ..BlockDevice::default()
        };
        let block = BlockDevices::whole([(DevId { major: 259, minor: 1 }, device)]);
        let at = Moment { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH };
        series.follow(&block, at);
    }

    #[test]
    fn a_promise_lasts_half_an_hour_at_the_most() {
        let of = InstanceType::of("m5.large").unwrap();
        let mut series = IoSeries::default();
        let mut promise = |up| {
            // 593.75 MB/s
            follow(&mut series, up, 593_750_000 * up);
            let last = series.instance().last(SHORTEST)?;
            Promise::of(Use::Bytes, of, series.instance(), last).map(|promise| promise.lasts.as_secs())
        };
        assert_eq!((promise(0), promise(290), promise(300)), (None, None, Some(1_500)));
        for up in (310..1_800).step_by(10) {
            assert_eq!(promise(up), Some(1_800 - up), "{up}");
        }
        assert_eq!((promise(1_800), promise(2_400)), (Some(0), Some(0)));
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
            let promised = (of.ebs_most.bytes - of.ebs_base.bytes) * PROMISED;
            let last = series.instance().last(SHORTEST);
            if let Some(promise) = last.and_then(|last| Promise::of(Use::Bytes, of, series.instance(), last)) {
                prop_assert!(promise.left * promised >= promised - beyond - 1.0);
            }
        }
    }
}
