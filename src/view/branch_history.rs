//! Which branch ENIs pods of this node had lately: an ENI outlives its pod by a cool-down that only the controller sees.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::facts::{BootId, NodeTime, Pod, Pods};

/// Twice what a node can have: of more than these it is not known what was released before.
const MAX_ENIS: usize = 256;
/// The watch of pods confirms its list once a minute. What came and went in a longer pause was not seen.
const LONGEST_PAUSE: Duration = Duration::from_secs(150);

/// A branch ENI that a pod no longer holds, in times since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// Since when it was seen.
    pub first: Duration,
    /// The pod still held it then.
    pub after: Duration,
    /// The pod had finished or was gone then.
    pub by: Duration,
    /// Whether it is known that there was one.
    pub is_certain: bool,
}

/// A branch ENI that a pod holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    first: Duration,
    is_certain: bool,
}

/// What is remembered of branch ENIs.
#[derive(Clone, Debug, Default)]
pub struct BranchHistory {
    boot: BootId,
    /// Since when each list of pods was seen; absent where the last one was not.
    since: Option<Duration>,
    last: Option<Duration>,
    held: BTreeMap<String, Held>,
    /// ENIs that pods requested and that no annotation names yet, by ids of our own.
    awaited: BTreeSet<String>,
    released: BTreeMap<String, Released>,
    /// ENIs that the annotations of finished pods name.
    finished: BTreeSet<String>,
    /// The same of finished pods that were deleted, with the time.
    departed: BTreeMap<String, Duration>,
}

/// An ENI of a pod: its id, and whether it is known that there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEni {
    /// Its id; one of our own where the annotation has none.
    pub id: String,
    /// Whether the annotation could be read.
    pub is_certain: bool,
}

/// The ENIs that a pod's annotation names. Only the controller may write it, and does so where a pod requests ENIs.
#[must_use]
pub fn enis_of(pod: &Pod) -> Vec<PodEni> {
    let requests = match pod.network.requests.seen() {
        Ok(None) => return Vec::new(),
        Ok(Some(requests)) => Some(*requests),
        Err(_) => None,
    };
    let own = |number: u64| format!("{}/{number}", pod.uid);
    match pod.network.branch_enis.seen() {
        Ok(ids) => {
            let ids = ids.into_iter().flatten().zip(0..);
            let id = |(id, number): (&String, u64)| if id.is_empty() { own(number) } else { id.clone() };
            ids.map(|eni| PodEni { id: id(eni), is_certain: requests.is_some() }).collect()
        }
        Err(_) => {
            let most = requests.unwrap_or(1).min(MAX_ENIS as u64);
            (0..most).map(|number| PodEni { id: own(number), is_certain: false }).collect()
        }
    }
}

/// Whether an ENI has only an id of ours, as the annotation does not name it.
#[must_use]
pub fn is_our_own(id: &str) -> bool {
    id.contains('/')
}

/// ENIs that a pod requests and that its annotation does not name yet. The controller may have made them all the same.
fn awaited_by(pod: &Pod) -> impl Iterator<Item = String> {
    let requests = pod.network.requests.seen().ok().flatten().copied().unwrap_or_default().min(MAX_ENIS as u64);
    let is_awaited = pod.network.branch_enis.is_absent() && !pod.is_over();
    (0..requests).filter(move |_| is_awaited).map(|number| format!("{}/{number}", pod.uid))
}

impl BranchHistory {
    /// A list of pods could not be read: what came and went meanwhile is not known.
    pub(super) fn interrupt(&mut self) {
        self.since = None;
    }

    /// Takes in which pods there are now.
    pub(super) fn follow(&mut self, pods: &Pods, at: &NodeTime) {
        if self.boot != at.boot {
            *self = Self { boot: at.boot, ..Self::default() };
        }
        let now = at.up;
        if pods.incomplete().is_some() {
            return self.interrupt();
        }
        if self.last.is_some_and(|last| now.saturating_sub(last) > LONGEST_PAUSE) {
            self.interrupt();
        }
        let after = self.last.replace(now).unwrap_or(now);
        let mut held = BTreeMap::new();
        let (mut finished, mut awaited, mut answered) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for pod in pods.values().filter(|pod| !pod.network.is_empty()) {
            awaited.extend(awaited_by(pod));
            if !pod.network.branch_enis.is_absent() {
                answered.insert(pod.uid.as_str());
            }
            for PodEni { id, is_certain } in enis_of(pod) {
                if pod.is_over() {
                    finished.insert(id);
                } else {
                    held.insert(id, is_certain);
                }
            }
        }
        if [held.len(), finished.len(), awaited.len()].into_iter().any(|enis| enis > MAX_ENIS) {
            *self = Self { boot: self.boot, last: self.last, ..Self::default() };
            return;
        }
        self.since.get_or_insert(now);
        for (id, Held { first, is_certain }) in std::mem::take(&mut self.held) {
            if held.contains_key(&id) {
                self.held.insert(id, Held { first, is_certain });
            } else {
                self.released.insert(id, Released { first, after, by: now, is_certain });
            }
        }
        for id in std::mem::take(&mut self.awaited) {
            // A pod went before its annotation came: an ENI that was made for it at last cools down.
            let is_answered = id.rsplit_once('/').is_some_and(|(uid, _)| answered.contains(uid));
            if !awaited.contains(&id) && !is_answered {
                self.released.insert(id, Released { first: after, after, by: now, is_certain: false });
            }
        }
        self.awaited = awaited;
        for (id, is_certain) in held {
            self.released.remove(&id);
            self.departed.remove(&id);
            self.held.entry(id).or_insert(Held { first: now, is_certain }).is_certain = is_certain;
        }
        for id in std::mem::replace(&mut self.finished, finished) {
            if !self.finished.contains(&id) && !self.held.contains_key(&id) {
                self.departed.insert(id, now);
            }
        }
        self.make_room();
    }

    /// The oldest are forgotten, and with them what was before.
    fn make_room(&mut self) {
        while self.released.len() > MAX_ENIS {
            let oldest = self.released.iter().min_by_key(|(_, released)| released.by);
            let Some((id, by)) = oldest.map(|(id, released)| (id.clone(), released.by)) else { break };
            self.released.remove(&id);
            self.since = self.since.map(|since| since.max(by));
        }
        while self.departed.len() > MAX_ENIS {
            let oldest = self.departed.iter().min_by_key(|(_, by)| **by).map(|(id, _)| id.clone());
            let Some(id) = oldest else { break };
            self.departed.remove(&id);
        }
    }

    /// Since when no list of pods was missed; absent where the last one was.
    #[must_use]
    pub fn since(&self) -> Option<Duration> {
        self.since
    }

    /// Branch ENIs that pods hold now, and held at that time.
    pub fn held_by(&self, then: Duration) -> impl Iterator<Item = &str> {
        let held = self.held.iter().filter(move |(id, held)| held.first <= then && !is_our_own(id));
        held.map(|(id, _)| id.as_str())
    }

    /// Branch ENIs that pods held until they finished or were deleted.
    pub fn released(&self) -> impl Iterator<Item = (&str, Released)> {
        self.released.iter().map(|(id, released)| (id.as_str(), *released))
    }

    /// When an ENI's pod finished or was deleted.
    #[must_use]
    pub fn release_of(&self, id: &str) -> Option<Released> {
        self.released.get(id).copied()
    }

    /// Branch ENIs that annotations of finished pods named until these were deleted, with the time.
    pub fn departed(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.departed.iter().map(|(id, by)| (id.as_str(), *by))
    }

    /// The most ENIs that there can have been at once since a time, where each outlives its pod by so long.
    #[must_use]
    pub fn most_since(&self, begin: Duration, outlives: Duration) -> usize {
        let held = self.held.values().map(|held| (held.first, Duration::MAX));
        let released = self.released.values().map(|one| (one.first, one.by.saturating_add(outlives)));
        let all: Vec<_> = held.chain(released).filter(|(_, end)| *end > begin).collect();
        let there_at = |time: Duration| all.iter().filter(|(first, end)| *first <= time && time < *end).count();
        let times = all.iter().map(|(first, _)| (*first).max(begin)).chain([begin]);
        times.collect::<BTreeSet<_>>().into_iter().map(there_at).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::{Cause, Part, PodNetwork, PodPhase, Unknown};

    fn at(up: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH }
    }

    fn pod(eni: &str, phase: PodPhase) -> Pod {
        let network = PodNetwork {
            requests: Part::Known(1),
            branch_enis: Part::Known(vec![eni.to_owned()]),
            ..PodNetwork::default()
        };
        Pod { uid: format!("uid-{eni}"), phase, network, ..Pod::default() }
    }

    fn list(pods: &[(&str, PodPhase)]) -> Pods {
        Pods::whole(pods.iter().map(|(eni, phase)| (format!("uid-{eni}"), Arc::new(pod(eni, *phase)))))
    }

    use PodPhase::{Running, Succeeded};

    #[test]
    fn what_a_pod_held_is_released_when_it_finishes_or_is_deleted() {
        let mut history = BranchHistory::default();
        history.follow(&list(&[("a", Running), ("b", Running), ("c", Succeeded)]), &at(10));
        assert_eq!((history.released().count(), history.since()), (0, Some(Duration::from_secs(10))));
        history.follow(&list(&[("a", Succeeded)]), &at(20));
        let [first, after, by] = [10, 10, 20].map(Duration::from_secs);
        let released = Released { first, after, by, is_certain: true };
        assert_eq!(history.released().collect::<Vec<_>>(), [("a", released), ("b", released)]);
        assert_eq!(history.departed().collect::<Vec<_>>(), [("c", by)]);
        // The finished pod is deleted later.
        history.follow(&list(&[]), &at(30));
        assert_eq!(history.departed().map(|(id, _)| id).collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn an_annotation_without_a_request_or_with_a_shared_eni_is_counted_for_what_it_is() {
        let forged =
            Pod { network: PodNetwork { requests: Part::Absent, ..pod("x", Running).network }, ..pod("x", Running) };
        assert_eq!(enis_of(&forged), []);
        let unread = Part::from(Err::<Vec<String>, _>(Unknown::new(Cause::Malformed, "no list")));
        let bad = Pod { network: PodNetwork { branch_enis: unread, ..pod("x", Running).network }, ..pod("x", Running) };
        assert_eq!(enis_of(&bad).iter().map(|eni| eni.is_certain).collect::<Vec<_>>(), [false]);
        let mut history = BranchHistory::default();
        let shared = [("1", "a"), ("2", "a")].map(|(uid, eni)| (uid.to_owned(), Arc::new(pod(eni, Running))));
        history.follow(&Pods::whole(shared), &at(10));
        assert_eq!(history.most_since(Duration::ZERO, Duration::ZERO), 1);
    }

    #[test]
    fn a_pod_that_went_before_its_annotation_came_may_have_had_an_eni() {
        let waits = || {
            let network = PodNetwork { branch_enis: Part::Absent, ..pod("a", Running).network };
            Pods::whole([("uid-a".to_owned(), Arc::new(Pod { network, ..pod("a", PodPhase::Pending) }))])
        };
        for (then, released) in [(list(&[]), 1), (list(&[("a", Running)]), 0), (waits(), 0)] {
            let mut history = BranchHistory::default();
            history.follow(&waits(), &at(10));
            assert_eq!(history.most_since(Duration::ZERO, Duration::ZERO), 0);
            history.follow(&then, &at(20));
            let certain: Vec<_> = history.released().map(|(_, released)| released.is_certain).collect();
            assert_eq!(certain, vec![false; released]);
        }
    }

    #[test]
    fn what_was_missed_is_not_known() {
        let mut history = BranchHistory::default();
        history.follow(&list(&[("a", Running)]), &at(10));
        let part = list(&[]).lacking(Unknown::new(Cause::Malformed, "a pod"));
        history.follow(&part, &at(20));
        assert_eq!((history.since(), history.released().count()), (None, 0), "it may be what could not be read");
        history.follow(&list(&[("a", Running)]), &at(30));
        assert_eq!(history.since(), Some(Duration::from_secs(30)));
        history.follow(&list(&[]), &at(200));
        assert_eq!(history.since(), Some(Duration::from_secs(200)), "a long pause");
        let released = history.release_of("a").unwrap();
        assert_eq!((released.after.as_secs(), released.by.as_secs()), (30, 200));
    }

    #[test]
    fn the_most_at_once_is_found_between_looks() {
        let mut history = BranchHistory::default();
        history.follow(&list(&[("a", Running), ("b", Running)]), &at(0));
        history.follow(&list(&[("b", Running)]), &at(50));
        history.follow(&list(&[("b", Running), ("c", Running)]), &at(100));
        let most = |begin, outlives| history.most_since(Duration::from_secs(begin), Duration::from_secs(outlives));
        assert_eq!([most(0, 60), most(0, 40), most(110, 60), most(105, 60)], [3, 2, 2, 3]);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut history = BranchHistory::default();
        for round in 0..300_u64 {
            history.follow(&list(&[(&format!("{round:03}"), Running)]), &at(10 * round));
        }
        assert_eq!(history.released().count(), MAX_ENIS);
        assert!(history.since() > Some(Duration::ZERO), "{:?}", history.since());
        let many: Vec<String> = (0..300).map(|number| number.to_string()).collect();
        let many: Vec<_> = many.iter().map(|eni| (eni.as_str(), Running)).collect();
        history.follow(&list(&many), &at(3_000));
        assert_eq!((history.since(), history.released().count()), (None, 0));
    }
}
