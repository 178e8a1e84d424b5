//! The most that each pod used of something in each of the last hours.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::facts::{Inventory, NodeTime, PodUid};

/// Hours that are kept: a day, and the current one.
const HOURS: usize = 25;
/// More pods are not followed. At 300 bytes each (a test holds that) it is 33 KiB for 110 pods and 216 KiB for 737.
const MAX_PODS: usize = 1024;

/// What one pod used.
#[derive(Clone, Copy, Debug)]
struct Hours {
    first: NodeTime,
    last: NodeTime,
    /// The most of each hour by the hour of the node's time since boot.
    most: [u32; HOURS],
}

/// What each pod used, in a unit of which 32 bits hold enough.
#[derive(Clone, Debug, Default)]
pub(super) struct Peaks {
    pods: BTreeMap<PodUid, Hours>,
    /// Since when each sample followed the one before.
    since: Option<NodeTime>,
    last: Option<NodeTime>,
}

/// The place of an hour, and how many hours since boot there are.
fn hour(at: &NodeTime) -> (usize, u64) {
    let hour = at.up.as_secs() / 3600;
    (usize::try_from(hour % HOURS as u64).unwrap_or_default(), hour)
}

impl Peaks {
    /// Takes note of a reading. What is gone is forgotten, and everything after a longer gap than this one.
    pub fn begin<T>(&mut self, there: &Inventory<PodUid, T>, at: &NodeTime, longest_gap: Duration) {
        let follows = |last: &NodeTime| at.since(last).is_some_and(|gap| gap <= longest_gap);
        if !self.last.as_ref().is_some_and(follows) {
            (self.pods, self.since) = (BTreeMap::new(), Some(*at));
        }
        self.last = Some(*at);
        self.pods.retain(|uid, hours| there.lacks(uid).is_err() && follows(&hours.last));
    }

    /// A figure is missing: that pod begins again.
    pub fn forget(&mut self, uid: &PodUid) {
        self.pods.remove(uid);
    }

    /// What a pod used by the reading of which note was taken.
    pub fn push(&mut self, uid: &PodUid, used: u32, at: &NodeTime) {
        let (place, now) = hour(at);
        if self.pods.len() >= MAX_PODS && !self.pods.contains_key(uid) {
            return;
        }
        let new = Hours { first: *at, last: *at, most: [0; HOURS] };
        let hours = self.pods.entry(uid.clone()).or_insert(new);
        let (_, before) = hour(&hours.last);
        let is_new = now != before;
        hours.last = *at;
        if let Some(most) = hours.most.get_mut(place) {
            *most = if is_new { used } else { used.max(*most) };
        }
    }

    /// The most that a pod used in the last day or so, and for how long it was watched, from its first sample to its last.
    pub fn of(&self, uid: &PodUid) -> Option<(u32, Duration)> {
        let hours = self.pods.get(uid)?;
        Some((hours.most.iter().copied().max().unwrap_or_default(), hours.last.since(&hours.first)?))
    }

    /// Since when pods are watched.
    pub fn since(&self) -> Option<NodeTime> {
        self.since
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::facts::BootId;

    #[test]
    fn its_size_has_a_bound() {
        let at = NodeTime { boot: BootId::default(), up: Duration::ZERO, wall: Timestamp::UNIX_EPOCH };
        let names: Vec<String> = (0..MAX_PODS + 9).map(|n| format!("{n:036}")).collect();
        let mut peaks = Peaks::default();
        peaks.begin(&Inventory::whole(names.iter().map(|name| (name.clone(), ()))), &at, Duration::ZERO);
        names.iter().for_each(|name| peaks.push(name, 1, &at));
        assert_eq!(peaks.pods.len(), MAX_PODS);
        assert!(size_of::<(PodUid, Hours)>() + 36 <= 300, "{}", size_of::<(PodUid, Hours)>());
    }
}
