//! The most memory that each pod used in each of the last hours, by its control group.
//!
//! It lives in the agent's memory alone: after a restart of the agent, or where an hour passed without a sample, it begins again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::facts::{NodeTime, PodCgroup, PodCgroups, PodUid};

/// Hours that are kept: a day, and the one that has begun.
const HOURS: usize = 25;
/// More pods are not followed. At 300 bytes each (a test holds that) it is 33 KiB for 110 pods and 216 KiB for 737.
const MAX_PODS: usize = 1024;
/// After a longer gap what a pod used in between is not known.
const MAX_GAP: Duration = Duration::from_secs(3600);
/// Figures are kept in pages of 4 KiB, rounded up: no pod is shown to have used less than it did.
const PAGE: u64 = 4096;

/// What one pod used.
#[derive(Clone, Copy, Debug)]
struct Hours {
    first: NodeTime,
    last: NodeTime,
    /// The most of each hour, in pages, by the hour of the node's time since boot.
    most: [u32; HOURS],
}

/// What each pod used.
#[derive(Clone, Debug, Default)]
pub struct PodMemory {
    pods: BTreeMap<PodUid, Hours>,
    /// Since when each sample followed the one before.
    since: Option<NodeTime>,
    last: Option<NodeTime>,
}

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

/// The place of an hour, and how many hours since boot there are.
fn hour(at: &NodeTime) -> (usize, u64) {
    let hour = at.up.as_secs() / 3600;
    (usize::try_from(hour % HOURS as u64).unwrap_or_default(), hour)
}

impl PodMemory {
    /// Takes in a reading of the pods' groups. What is gone is forgotten; a pod of which a figure is missing begins again.
    pub fn follow(&mut self, groups: &PodCgroups, at: &NodeTime) {
        let follows = |last: &NodeTime| at.since(last).is_some_and(|gap| gap <= MAX_GAP);
        if !self.last.as_ref().is_some_and(follows) {
            (self.pods, self.since) = (BTreeMap::new(), Some(*at));
        }
        self.last = Some(*at);
        self.pods.retain(|uid, hours| groups.lacks(uid).is_err() && follows(&hours.last));
        for (uid, pod) in groups {
            match working_set(pod) {
                Some(bytes) => self.push(uid, bytes, at),
                None => drop(self.pods.remove(uid)),
            }
        }
    }

    fn push(&mut self, uid: &PodUid, bytes: u64, at: &NodeTime) {
        let pages = u32::try_from(bytes.div_ceil(PAGE)).unwrap_or(u32::MAX);
        let (place, now) = hour(at);
        if self.pods.len() >= MAX_PODS && !self.pods.contains_key(uid) {
            return;
        }
        let begun = Hours { first: *at, last: *at, most: [0; HOURS] };
        let hours = self.pods.entry(uid.clone()).or_insert(begun);
        let (_, before) = hour(&hours.last);
        let is_new = now != before;
        hours.last = *at;
        if let Some(most) = hours.most.get_mut(place) {
            *most = if is_new { pages } else { pages.max(*most) };
        }
    }

    /// The most that a pod used in the last day or so.
    #[must_use]
    pub fn of(&self, uid: &PodUid) -> Option<Peak> {
        let hours = self.pods.get(uid)?;
        let pages = hours.most.iter().copied().max().unwrap_or_default();
        Some(Peak { bytes: u64::from(pages).saturating_mul(PAGE), watched: hours.last.since(&hours.first)? })
    }

    /// Since when pods are watched.
    #[must_use]
    pub fn since(&self) -> Option<NodeTime> {
        self.since
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn its_size_has_a_bound() {
        let names: Vec<String> = (0..MAX_PODS + 9).map(|n| format!("{n:036}")).collect();
        let all: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let mut memory = PodMemory::default();
        memory.follow(&groups(&all), &at(0));
        assert_eq!(memory.pods.len(), MAX_PODS);
        assert!(size_of::<(PodUid, Hours)>() + 36 <= 300, "{}", size_of::<(PodUid, Hours)>());
    }
}
