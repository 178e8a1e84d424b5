//! For what share of the time was more asked of volumes than a limit lets through?

use std::time::Duration;

use crate::facts::{Cause, DeviceName, EbsFigures, EbsStatistics, Exceeded, Unknown, VolumeStatistics};
use crate::view::Delta;
use crate::view::input::Paired;

/// Thresholds, in percent of the time.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Warning from here on.
    pub warn_percent: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { warn_percent: 10 }
    }
}

/// What one volume was held back by one pair of limits between two samples.
pub(super) struct ThrottleShare<'a> {
    pub controller: &'a DeviceName,
    pub statistics: &'a VolumeStatistics,
    pub iops: Delta,
    pub throughput: Delta,
    /// Operations that wait now.
    pub queue: u64,
}

/// A controller, its page, and what its volume was held back by: none where it is no EBS volume.
pub(super) type OfVolume<'a> = (&'a DeviceName, &'a VolumeStatistics, Option<Result<ThrottleShare<'a>, Unknown>>);

/// What one pair of limits held each EBS volume back by since the pages before; of other controllers there is nothing to say.
///
/// # Errors
/// Where there are no pages to compare with.
pub(super) fn share<'a>(
    pages: &Paired<'a, EbsStatistics>,
    of: fn(&EbsFigures) -> Exceeded,
) -> Result<impl Iterator<Item = OfVolume<'a>>, Unknown> {
    let (before, over) = pages.before()?;
    let one = move |(controller, now, old)| (controller, now, ThrottleShare::between(controller, now, old, over, of));
    Ok(pages.now.value.beside(before).map(one))
}

impl<'a> ThrottleShare<'a> {
    /// `None` where it is no EBS volume.
    ///
    /// # Errors
    /// Where the controller gave no page, or there is nothing to compare it with: another volume, or a counter that went
    /// backwards.
    fn between(
        controller: &'a DeviceName,
        now: &'a VolumeStatistics,
        before: Option<&VolumeStatistics>,
        over: Duration,
        of: fn(&EbsFigures) -> Exceeded,
    ) -> Option<Result<Self, Unknown>> {
        now.volume.as_ref()?;
        let page = match now.page() {
            Ok(page) => page,
            Err(why) => return Some(Err(why.clone())),
        };
        let new = of(page.ebs.as_ref()?);
        let grew = || {
            let before = before.filter(|before| before.volume == now.volume)?;
            let old = of(before.ebs().ok()??);
            let delta = |new: u64, old: u64| Some(Delta { by: new.checked_sub(old)?, over });
            let (iops, throughput) = (delta(new.iops_us, old.iops_us)?, delta(new.throughput_us, old.throughput_us)?);
            Some(Self { controller, statistics: now, iops, throughput, queue: page.queue })
        };
        let baseline = || Unknown::new(Cause::Baseline, format!("the counters of {controller} started again"));
        Some(grew().ok_or_else(baseline))
    }

    /// The device that people look for.
    pub fn device(&self) -> &'a str {
        self.statistics.device(self.controller)
    }

    /// It, and the volume.
    pub fn name(&self) -> String {
        let volume = self.statistics.volume.as_ref().map(|volume| format!(" ({})", volume.as_str()));
        format!("{}{}", self.device(), volume.unwrap_or_default())
    }

    /// The larger of both shares: they overlap.
    pub fn percent(&self) -> u64 {
        percent(self.iops).max(percent(self.throughput))
    }

    /// Which limit, by whose it is, and for what share of the time.
    pub fn limits(&self, whose: &str) -> String {
        let share = |name: &str, delta| format!("{whose} {name} limit for {} % of the time", percent(delta));
        match (self.iops.by, self.throughput.by) {
            (_, 0) => share("IOPS", self.iops),
            (0, _) => share("throughput", self.throughput),
            _ => format!("{} and {}", share("IOPS", self.iops), share("throughput", self.throughput)),
        }
    }

    /// What the page says.
    pub fn fact(&self) -> String {
        let name = self.statistics.attached_as.as_ref().map(|name| format!(", attached as {name}"));
        format!(
            "{}{}: above the IOPS limit for {:.1} s and above the throughput limit for {:.1} s of the last {:.1} s, {} operations wait",
            self.name(),
            name.unwrap_or_default(),
            seconds(self.iops.by),
            seconds(self.throughput.by),
            self.iops.over.as_secs_f64(),
            self.queue,
        )
    }
}

fn percent(delta: Delta) -> u64 {
    let over = u64::try_from(delta.over.as_micros()).unwrap_or(u64::MAX);
    delta.by.saturating_mul(100).checked_div(over).unwrap_or(0).min(100)
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Page, StatisticsPage, VolumeId};

    fn statistics(volume: &str, iops_us: u64, throughput_us: u64) -> VolumeStatistics {
        let ebs = EbsFigures { volume: Exceeded { iops_us, throughput_us }, ..EbsFigures::default() };
        VolumeStatistics {
            volume: VolumeId::from_serial(volume),
            page: Page::Told(StatisticsPage { ebs: Some(ebs), ..StatisticsPage::default() }),
            ..VolumeStatistics::default()
        }
    }

    #[test]
    fn shares_are_of_the_time_between_two_samples() {
        let name = "nvme1".to_owned();
        let (one, two) = (statistics("vol12345678", 1_000_000, 0), statistics("vol12345678", 5_500_000, 40_000_000));
        let ten = Duration::from_secs(10);
        let share = ThrottleShare::between(&name, &two, Some(&one), ten, |ebs| ebs.volume)
            .unwrap()
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(share.percent(), 100, "what is counted in more than one place is no more than all the time");
        assert_eq!(
            share.limits("its"),
            "its IOPS limit for 45 % of the time and its throughput limit for 100 % of the time"
        );
        assert_eq!(share.name(), "nvme1 (vol-12345678)");
        let none = ThrottleShare::between(&name, &two, Some(&one), ten, |ebs| ebs.instance)
            .unwrap()
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(none.percent(), 0);
    }

    #[test]
    fn a_first_sample_a_decrease_and_another_volume_are_a_baseline() {
        let name = "nvme1".to_owned();
        let now = statistics("vol12345678", 9_000_000, 0);
        for before in [None, Some(statistics("vol12345678", 9_000_001, 0)), Some(statistics("vol12345679", 0, 0))] {
            let share = ThrottleShare::between(&name, &now, before.as_ref(), Duration::from_secs(10), |ebs| ebs.volume);
            assert_eq!(share.unwrap().err().map(|why| why.cause), Some(Cause::Baseline));
        }
        let silent = VolumeStatistics { page: Page::Unknown(Unknown::new(Cause::Failed, "it rests")), ..now.clone() };
        let share = ThrottleShare::between(&name, &silent, Some(&now), Duration::from_secs(10), |ebs| ebs.volume);
        assert_eq!(share.unwrap().err().map(|why| why.why).as_deref(), Some("it rests"));
        let store = VolumeStatistics::default();
        assert!(ThrottleShare::between(&name, &store, Some(&now), Duration::from_secs(10), |ebs| ebs.volume).is_none());
    }
}
