//! How late the API server shows what happens to the pods of this node, and how many of them come and go.
//!
//! When a container was started or ended stands in its pod's status, by this node's clock. A status that was not there in the
//! reading before came later than that one: the time between is the least by which it was late, however late we heard of it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::facts::{NodeTime, Pods};

/// Minutes that are kept, the one that has not ended among them.
const MINUTES: usize = 6;
const MINUTE: Duration = Duration::from_secs(60);
/// A change that shows later than this is late: the kubelet reports within a second or two.
pub const LATE: Duration = Duration::from_secs(30);

/// What came of the changes of one minute, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    /// Pods with a container that was started or ended.
    pub changes: u64,
    /// Those of them that were late.
    pub late: u64,
    /// The latest of them: by how much, and the pod.
    pub worst: Option<(Duration, String)>,
    /// Pods that were bound to this node.
    pub came: u64,
    /// Pods that are gone.
    pub went: u64,
}

/// Counts of the last minutes.
#[derive(Clone, Debug, Default)]
pub struct StatusLag {
    minutes: VecDeque<(NodeTime, Reports)>,
}

impl StatusLag {
    /// Takes in the pods as they were and as they are. What the first reading shows says nothing of when it came.
    pub fn follow(&mut self, (before, then): (&Pods, NodeTime), now: &Pods, at: NodeTime) {
        if at.since(&then).is_none() {
            self.minutes.clear();
            return;
        }
        let mut reports = Reports::default();
        let booted = at.wall_at(Duration::ZERO);
        for (uid, pod) in now {
            let Some(old) = before.get(uid) else {
                reports.came = reports.came.saturating_add(u64::from(before.lacks(uid).is_ok()));
                continue;
            };
            // What ended in an earlier boot is reported by the kubelet of this one.
            let Some(changed) = pod.changed.filter(|changed| *changed >= booted) else { continue };
            if old.changed.is_some_and(|old| old >= changed) {
                continue;
            }
            reports.changes = reports.changes.saturating_add(1);
            let lag = Duration::try_from(then.wall.duration_since(changed)).unwrap_or_default();
            if lag >= LATE {
                reports.late = reports.late.saturating_add(1);
                reports.note(lag, || pod.full_name());
            }
        }
        let gone = before.iter().filter(|(uid, _)| now.lacks(uid).is_ok());
        reports.went = u64::try_from(gone.count()).unwrap_or(u64::MAX);
        self.add(reports, at);
    }

    fn add(&mut self, reports: Reports, at: NodeTime) {
        if let Some((begun, minute)) = self.minutes.back_mut()
            && at.since(begun).is_some_and(|age| age < MINUTE)
        {
            minute.add(&reports);
            return;
        }
        if self.minutes.len() == MINUTES {
            self.minutes.pop_front();
        }
        self.minutes.push_back((at, reports));
    }

    /// All that came in this time before now.
    #[must_use]
    pub fn within(&self, time: Duration, now: NodeTime) -> Reports {
        let mut all = Reports::default();
        for (_, minute) in self.minutes.iter().filter(|(begun, _)| now.since(begun).is_some_and(|age| age <= time)) {
            all.add(minute);
        }
        all
    }
}

impl Reports {
    fn note(&mut self, lag: Duration, pod: impl FnOnce() -> String) {
        if self.worst.as_ref().is_none_or(|(worst, _)| lag > *worst) {
            self.worst = Some((lag, pod()));
        }
    }

    fn add(&mut self, other: &Self) {
        self.changes = self.changes.saturating_add(other.changes);
        self.late = self.late.saturating_add(other.late);
        self.came = self.came.saturating_add(other.came);
        self.went = self.went.saturating_add(other.went);
        if let Some((lag, pod)) = &other.worst {
            self.note(*lag, || pod.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, Cause, Pod, Unknown};

    fn at(up: u64) -> NodeTime {
        let wall = Timestamp::from_second(i64::try_from(up).unwrap()).unwrap();
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall }
    }

    /// Pods with the second at which a container of each was last started or ended.
    fn pods(of: &[(&str, Option<u64>)]) -> Pods {
        let pod = |(name, changed): &(&str, Option<u64>)| {
            let changed = changed.map(|up| at(up).wall);
            let pod = Pod { namespace: "ci".into(), name: (*name).to_owned(), changed, ..Pod::default() };
            ((*name).to_owned(), Arc::new(pod))
        };
        Pods::whole(of.iter().map(pod))
    }

    #[test]
    fn a_change_is_late_by_the_time_until_the_reading_that_did_not_have_it() {
        let mut lag = StatusLag::default();
        let (none, begun) = (
            pods(&[("a", None), ("b", Some(90)), ("c", None)]),
            pods(&[("a", Some(100)), ("b", Some(90)), ("c", Some(219))]),
        );
        lag.follow((&none, at(220)), &begun, at(260));
        let expected = Reports {
            changes: 2,
            late: 1,
            worst: Some((Duration::from_secs(120), "ci/a".into())),
            ..Reports::default()
        };
        assert_eq!(lag.within(Duration::from_secs(300), at(261)), expected);
        // Nothing was heard of the API server for long: how late the change came is not known.
        let mut away = StatusLag::default();
        away.follow((&none, at(101)), &begun, at(400));
        assert_eq!(away.within(Duration::from_secs(300), at(400)).late, 0);
    }

    #[test]
    fn pods_that_come_and_go_are_counted_where_the_lists_are_whole() {
        let mut lag = StatusLag::default();
        let (before, after) = (pods(&[("a", None), ("b", None)]), pods(&[("b", None), ("c", Some(1)), ("d", None)]));
        lag.follow((&before, at(50)), &after, at(60));
        let seen = lag.within(MINUTE, at(60));
        assert_eq!((seen.came, seen.went, seen.changes), (2, 1, 0));
        let why = Unknown::new(Cause::Incomplete, "half of it");
        lag.follow((&before.lacking(why.clone()), at(60)), &after.lacking(why), at(70));
        let seen = lag.within(MINUTE, at(70));
        assert_eq!((seen.came, seen.went), (2, 1));
    }

    #[test]
    fn what_was_before_this_boot_or_before_another_one_says_nothing() {
        let mut lag = StatusLag::default();
        let old = NodeTime { wall: at(1000).wall, ..at(50) };
        let now = NodeTime { wall: at(1010).wall, ..at(60) };
        lag.follow((&pods(&[("a", None)]), old), &pods(&[("a", Some(940))]), now);
        assert_eq!(lag.within(MINUTE, now), Reports::default());
        lag.follow((&pods(&[("a", None)]), at(70)), &pods(&[("a", Some(1))]), at(60));
        assert!(lag.minutes.is_empty());
    }

    #[test]
    fn minutes_go_by() {
        let mut lag = StatusLag::default();
        for minute in 0..20 {
            let (before, after) = (pods(&[("a", None)]), pods(&[("a", Some(1))]));
            lag.follow((&before, at(minute * 60 + 100)), &after, at(minute * 60 + 101));
        }
        assert_eq!((lag.minutes.len(), lag.within(Duration::from_secs(300), at(1241)).late), (MINUTES, 6));
        assert_eq!(lag.within(Duration::from_secs(90), at(1241)).late, 2);
    }
}
