//! What CPU each pod used in each of the last hours, and how often its limit held it back in the last hour.
//!
//! It lives in the agent's memory alone: after a restart of the agent, or where more than a quarter of an hour passed between two samples, it begins
//! again. A counter between two samples gives the mean of that time, so nothing that a pod used is missed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::peaks::Peaks;
use crate::facts::{CpuLimit, NodeTime, PodCpu, PodCpus, PodUid};

/// Of a longer time the mean says little of the peak in it.
const MAX_GAP: Duration = Duration::from_secs(900);
/// Time that is added up in one place.
const SLOT: u64 = 600;
/// Places: an hour, and the current one.
const SLOTS: usize = 7;
/// Limits that are followed, at 320 bytes each (a test holds that): two for each pod of the largest node.
const MAX_LIMITS: usize = 2048;

/// What a limit did in the last hour.
#[derive(Clone, Copy, Debug)]
struct Held {
    first: NodeTime,
    last: NodeTime,
    /// Periods, and those in which it was held back, by time since boot.
    slots: [(u32, u32); SLOTS],
}

/// What each pod used, and what its limits did.
#[derive(Clone, Debug, Default)]
pub struct PodCpuUse {
    peaks: Peaks,
    /// The mean between the last two samples, in thousandths of a CPU.
    now: BTreeMap<PodUid, u32>,
    /// By pod and container; no container is the pod's own limit.
    limits: BTreeMap<(PodUid, String), Held>,
}

/// The most that a pod used in a minute or so, and for how long it was watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuPeak {
    /// In thousandths of a CPU, rounded up.
    pub millis: u64,
    /// From its first sample to its last.
    pub watched: Duration,
}

/// How often a limit held back what it limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttled {
    /// Periods in which there was something to run.
    pub periods: u64,
    /// Of these, those in which it had to wait.
    pub throttled: u64,
    /// In so long.
    pub watched: Duration,
}

/// Thousandths of a CPU, rounded up; none where the counter went backwards or no time passed.
fn rate(before: &PodCpu, now: &PodCpu, passed: Duration) -> Option<u32> {
    let known = |pod: &PodCpu| pod.used_us.seen().ok().flatten().copied();
    let used = u128::from(known(now)?.checked_sub(known(before)?)?);
    let millis = used.saturating_mul(1000).checked_div(passed.as_micros())?;
    let rest = used.saturating_mul(1000).checked_rem(passed.as_micros())?;
    Some(u32::try_from(millis.saturating_add(u128::from(rest > 0))).unwrap_or(u32::MAX))
}

fn slot(at: &NodeTime) -> (usize, u64) {
    let slot = at.up.as_secs() / SLOT;
    (usize::try_from(slot % SLOTS as u64).unwrap_or_default(), slot)
}

/// The limits of a pod, its own without a name.
fn limits(pod: &PodCpu) -> impl Iterator<Item = (&str, &CpuLimit)> {
    let containers = pod.containers.iter().map(|(id, limit)| (id.as_str(), limit));
    let all = std::iter::once(("", &pod.limit)).chain(containers);
    all.filter_map(|(id, limit)| Some((id, limit.seen().ok().flatten()?)))
}

impl PodCpuUse {
    /// Takes in a reading, with the one before it. What is gone is forgotten; a pod of which a figure is missing begins again.
    pub fn follow(&mut self, before: Option<(&PodCpus, NodeTime)>, now: &PodCpus, at: &NodeTime) {
        self.peaks.begin(now, at, MAX_GAP);
        self.now.clear();
        let before = before.and_then(|(before, then)| Some((before, at.since(&then)?)));
        let before = before.filter(|(_, passed)| !passed.is_zero() && *passed <= MAX_GAP);
        self.limits.retain(|(uid, id), held| {
            let is_there = now.get(uid).is_some_and(|pod| limits(pod).any(|(there, _)| there == id));
            is_there && at.since(&held.last).is_some_and(|gap| gap <= MAX_GAP)
        });
        for (uid, pod) in now {
            let earlier = before.and_then(|(before, passed)| Some((before.get(uid)?, passed)));
            match earlier.and_then(|(earlier, passed)| rate(earlier, pod, passed)) {
                Some(millis) => {
                    self.peaks.push(uid, millis, at);
                    self.now.insert(uid.clone(), millis);
                }
                None => self.peaks.forget(uid),
            }
            for (id, limit) in limits(pod) {
                let old = earlier.and_then(|(earlier, _)| limits(earlier).find(|(old, _)| *old == id));
                self.hold(uid, id, old.map(|(_, limit)| limit), limit, at);
            }
        }
    }

    fn hold(&mut self, uid: &PodUid, id: &str, old: Option<&CpuLimit>, new: &CpuLimit, at: &NodeTime) {
        let key = (uid.clone(), id.to_owned());
        let grown = old.and_then(|old| {
            // Under another limit it is another question.
            let is_same = old.millis == new.millis;
            let (periods, throttled) =
                (new.periods.checked_sub(old.periods)?, new.throttled.checked_sub(old.throttled)?);
            is_same.then_some((u32::try_from(periods).ok()?, u32::try_from(throttled).ok()?))
        });
        let Some((periods, throttled)) = grown else {
            if self.limits.len() < MAX_LIMITS || self.limits.contains_key(&key) {
                self.limits.insert(key, Held { first: *at, last: *at, slots: [(0, 0); SLOTS] });
            }
            return;
        };
        let Some(held) = self.limits.get_mut(&key) else { return };
        let ((place, now), (_, before)) = (slot(at), slot(&held.last));
        // Places of time that was passed over are of an hour ago.
        for passed in before.saturating_add(1)..=now.min(before.saturating_add(SLOTS as u64)) {
            let place = usize::try_from(passed % SLOTS as u64).unwrap_or_default();
            if let Some(slot) = held.slots.get_mut(place) {
                *slot = (0, 0);
            }
        }
        held.last = *at;
        if let Some(slot) = held.slots.get_mut(place) {
            *slot = (slot.0.saturating_add(periods), slot.1.saturating_add(throttled));
        }
    }

    /// The most that a pod used in the last day or so.
    #[must_use]
    pub fn of(&self, uid: &PodUid) -> Option<CpuPeak> {
        let (millis, watched) = self.peaks.of(uid)?;
        Some(CpuPeak { millis: u64::from(millis), watched })
    }

    /// What a pod used between the last two samples, in thousandths of a CPU.
    #[must_use]
    pub fn now(&self, uid: &PodUid) -> Option<u64> {
        self.now.get(uid).map(|millis| u64::from(*millis))
    }

    /// What a limit of a pod did in the last hour or so: that of a container, or without one the pod's own.
    #[must_use]
    pub fn throttled(&self, uid: &PodUid, container: Option<&str>) -> Option<Throttled> {
        let held = self.limits.get(&(uid.clone(), container.unwrap_or_default().to_owned()))?;
        let sum = held.slots.iter().fold((0u64, 0u64), |(periods, throttled), slot| {
            (periods.saturating_add(u64::from(slot.0)), throttled.saturating_add(u64::from(slot.1)))
        });
        let most = Duration::from_secs(SLOT * SLOTS as u64);
        let watched = held.last.since(&held.first)?.min(most);
        Some(Throttled { periods: sum.0, throttled: sum.1, watched })
    }

    /// Since when pods are watched.
    #[must_use]
    pub fn since(&self) -> Option<NodeTime> {
        self.peaks.since()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, Cause, Part, Unknown};

    fn at(up: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH }
    }

    fn pod(used_us: u64, periods: u64, throttled: u64) -> PodCpu {
        let limit = Part::Known(CpuLimit { millis: 500, periods, throttled });
        PodCpu { used_us: Part::Known(used_us), limit: Part::Absent, containers: [("c".to_owned(), limit)].into() }
    }

    fn pods(all: &[(&str, PodCpu)]) -> PodCpus {
        PodCpus::whole(all.iter().map(|(uid, pod)| ((*uid).to_owned(), pod.clone())))
    }

    /// Follows these readings of the pod "a", each at its second.
    fn followed(readings: &[(u64, PodCpu)]) -> PodCpuUse {
        let mut cpu = PodCpuUse::default();
        let mut before: Option<(PodCpus, NodeTime)> = None;
        for (up, reading) in readings {
            let now = pods(&[("a", reading.clone())]);
            cpu.follow(before.as_ref().map(|(value, then)| (value, *then)), &now, &at(*up));
            before = Some((now, at(*up)));
        }
        cpu
    }

    fn peak(cpu: &PodCpuUse) -> Option<(u64, u64)> {
        cpu.of(&"a".to_owned()).map(|peak| (peak.millis, peak.watched.as_secs()))
    }

    fn held(cpu: &PodCpuUse) -> Option<(u64, u64, u64)> {
        let held = cpu.throttled(&"a".to_owned(), Some("c"))?;
        Some((held.periods, held.throttled, held.watched.as_secs()))
    }

    #[test]
    fn a_pod_uses_the_mean_between_two_samples_and_the_highest_is_its_peak() {
        let second = 1_000_000;
        let cpu = followed(&[(0, pod(7, 0, 0)), (60, pod(30 * second, 0, 0)), (120, pod(36 * second, 0, 0))]);
        assert_eq!((cpu.now(&"a".to_owned()), peak(&cpu)), (Some(100), Some((500, 60))));
        let first = followed(&[(0, pod(7, 0, 0))]);
        assert_eq!((first.now(&"a".to_owned()), peak(&first)), (None, None), "nothing to compare with");
    }

    #[test]
    fn what_was_not_seen_begins_again() {
        let three = |last: (u64, PodCpu)| followed(&[(0, pod(0, 0, 0)), (60, pod(600, 0, 0)), last]);
        assert_eq!(peak(&three((120, pod(700, 0, 0)))), Some((1, 60)));
        assert_eq!(peak(&three((120, pod(599, 0, 0)))), None, "the counter went backwards");
        assert_eq!(peak(&three((961, pod(700, 0, 0)))), None, "more than a quarter of an hour without a sample");
        let torn = Part::Unknown(Box::new(Unknown::new(Cause::Torn, "x")));
        assert_eq!(peak(&three((120, PodCpu { used_us: torn, ..pod(0, 0, 0) }))), None);
    }

    #[test]
    fn an_hour_of_periods_is_kept_and_no_more() {
        let minutes = |n: u64| (0..=n).map(|m| (m * 60, pod(0, m * 600, m.min(10) * 300))).collect::<Vec<_>>();
        assert_eq!(held(&followed(&minutes(10))), Some((6000, 3000, 600)));
        assert_eq!(held(&followed(&minutes(60))), Some((36_000, 3000, 3600)));
        let (periods, throttled, watched) = held(&followed(&minutes(200))).unwrap();
        assert_eq!((throttled, watched), (0, 4200), "what throttled it is more than an hour ago");
        assert!((36_000..=42_000).contains(&periods), "{periods}");
    }

    #[test]
    fn another_limit_and_a_longer_gap_begin_again() {
        let mut other = pod(0, 900, 400);
        other.containers.insert("c".to_owned(), Part::Known(CpuLimit { millis: 900, periods: 900, throttled: 400 }));
        let start = [(0, pod(0, 0, 0)), (60, pod(0, 600, 300))];
        assert_eq!(held(&followed(&start)), Some((600, 300, 60)));
        assert_eq!(held(&followed(&[&start[..], &[(120, other)]].concat())), Some((0, 0, 0)));
        assert_eq!(held(&followed(&[&start[..], &[(1000, pod(0, 900, 400))]].concat())), Some((0, 0, 0)));
        let none = PodCpu { containers: BTreeMap::new(), ..pod(0, 0, 0) };
        assert_eq!(held(&followed(&[&start[..], &[(120, none)]].concat())), None);
    }

    #[test]
    fn its_size_has_a_bound() {
        let ids: Vec<String> = (0..MAX_LIMITS + 9).map(|n| format!("{n:064}")).collect();
        let limit = Part::Known(CpuLimit { millis: 1, periods: 1, throttled: 0 });
        let containers = ids.iter().map(|id| (id.clone(), limit.clone())).collect();
        let mut cpu = PodCpuUse::default();
        cpu.follow(None, &pods(&[("a", PodCpu { containers, ..PodCpu::default() })]), &at(0));
        assert_eq!(cpu.limits.len(), MAX_LIMITS);
        assert!(size_of::<((PodUid, String), Held)>() + 36 + 64 <= 320, "{}", size_of::<((PodUid, String), Held)>());
    }
}
