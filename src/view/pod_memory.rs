//! The most memory that each pod used in each of the last hours, by its control group.
//!
//! It lives in the agent's memory alone: after a restart of the agent, or where an hour passed without a sample, it begins again.

use std::time::Duration;

use super::peaks::Peaks;
use crate::facts::{NodeTime, PodCgroup, PodCgroups, PodUid};

/// After a longer gap what a pod used in between is not known.
const MAX_GAP: Duration = Duration::from_secs(3600);
/// Figures are kept in pages of 4 KiB, rounded up: no pod is shown to have used less than it did.
const PAGE: u64 = 4096;

/// What each pod used.
#[derive(Clone, Debug, Default)]
pub struct PodMemory(Peaks);

/// The most that a pod used, and for how long it was watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peak {
    /// In bytes, rounded up to whole pages.
    pub bytes: u64,
    /// From its first sample to its last.
    pub watched: Duration,
}

fn working_set(pod: &PodCgroup) -> Option<u64> {
    let known = |part: &crate::facts::Part<u64>| part.seen().ok().flatten().copied();
    // The pod's own group does not have what a container elsewhere uses.
    let is_whole = pod.containers.values().all(|container| container.elsewhere.is_none());
    is_whole.then_some(known(&pod.cgroup.memory)?.saturating_sub(known(&pod.cgroup.inactive_file)?))
}

impl PodMemory {
    /// Takes in a reading of the pods' groups. What is gone is forgotten; a pod of which a figure is missing begins again.
    pub fn follow(&mut self, groups: &PodCgroups, at: &NodeTime) {
        self.0.begin(groups, at, MAX_GAP);
        for (uid, pod) in groups {
            match working_set(pod) {
                Some(bytes) => self.0.push(uid, u32::try_from(bytes.div_ceil(PAGE)).unwrap_or(u32::MAX), at),
                None => self.0.forget(uid),
            }
        }
    }

    /// The most that a pod used in the last day or so.
    #[must_use]
    pub fn of(&self, uid: &PodUid) -> Option<Peak> {
        let (pages, watched) = self.0.of(uid)?;
        Some(Peak { bytes: u64::from(pages).saturating_mul(PAGE), watched })
    }

    /// Since when pods are watched.
    #[must_use]
    pub fn since(&self) -> Option<NodeTime> {
        self.0.since()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, Cause, Cgroup, Part, Qos, Unknown};

    fn at(up: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH }
    }

    fn pod(memory: Part<u64>) -> PodCgroup {
        let cgroup = Cgroup { memory, inactive_file: Part::Known(0), ..Cgroup::default() };
        PodCgroup { path: String::new(), qos: Qos::Burstable, cgroup, containers: BTreeMap::new(), oom_unread: None }
    }

    fn groups(pods: &[(&str, u64)]) -> PodCgroups {
        PodCgroups::whole(pods.iter().map(|(uid, bytes)| ((*uid).to_owned(), pod(Part::Known(*bytes)))))
    }

    fn peak(memory: &PodMemory, uid: &str) -> Option<(u64, u64)> {
        memory.of(&uid.to_owned()).map(|peak| (peak.bytes / PAGE, peak.watched.as_secs()))
    }

    #[test]
    fn the_peak_of_a_day_is_kept_and_goes_after_it() {
        let mut memory = PodMemory::default();
        for minute in 0..60 * 24 {
            let pages = if minute == 130 { 90 } else { 10 };
            memory.follow(&groups(&[("a", pages * PAGE - 1)]), &at(minute * 60));
        }
        assert_eq!(peak(&memory, "a"), Some((90, (60 * 24 - 1) * 60)));
        for minute in 60 * 24..60 * 28 {
            memory.follow(&groups(&[("a", 10 * PAGE)]), &at(minute * 60));
        }
        assert_eq!(peak(&memory, "a"), Some((10, (60 * 28 - 1) * 60)), "the hour of the peak is more than a day ago");
    }

    #[test]
    fn what_was_not_seen_begins_again() {
        let mut memory = PodMemory::default();
        memory.follow(&groups(&[("a", 5), ("b", 5)]), &at(0));
        memory.follow(&groups(&[("a", 5)]), &at(1800));
        assert_eq!((peak(&memory, "a"), peak(&memory, "b")), (Some((1, 1800)), None), "b is gone");
        let torn = Part::Unknown(Box::new(Unknown::new(Cause::Torn, "x")));
        memory.follow(&PodCgroups::whole([("a".to_owned(), pod(torn))]), &at(2000));
        assert_eq!(peak(&memory, "a"), None);
        memory.follow(&groups(&[("a", 5)]), &at(2100));
        assert_eq!((peak(&memory, "a"), memory.since()), (Some((1, 0)), Some(at(0))));
        memory.follow(&groups(&[("a", 5)]), &at(6000));
        assert_eq!(
            (peak(&memory, "a"), memory.since()),
            (Some((1, 0)), Some(at(6000))),
            "more than an hour without a sample"
        );
        let rest = PodCgroups::with_incomplete([], Some(Unknown::new(Cause::Incomplete, "x")));
        memory.follow(&rest, &at(6030));
        assert_eq!(peak(&memory, "a"), Some((1, 0)), "it may be there");
        let mut other = at(100);
        other.boot = "00000000-0000-4000-8000-00000000000a".parse().unwrap();
        memory.follow(&groups(&[("a", 5)]), &other);
        assert_eq!((peak(&memory, "a"), memory.since()), (Some((1, 0)), Some(other)), "another boot");
    }
}
