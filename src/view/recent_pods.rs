//! Which pods with volumes are or were on this node, and since when the API server does not list them any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::facts::{KnownPod, MountEntry, Mounts, NodeTime, NotAbsent, Part, Pod, PodUid, Pods, VolumePath};

/// As many as an instance takes volumes, twice over.
const MAX_RECENT_PODS: usize = 256;

/// Plugins of the kubelet's by which a pod has a PersistentVolume with a block device.
const PERSISTENT: [&str; 3] = ["kubernetes.io~csi", "kubernetes.io~aws-ebs", "kubernetes.io~local-volume"];

/// Names of pods with claims that are or were on this node: what they leave behind is called by their UIDs alone, and an agent
/// that was started again must know them, too.
#[derive(Clone, Debug, Default)]
pub struct RecentPods {
    pods: VecDeque<KnownPod>,
    /// Other pods whose PersistentVolumes are mounted here, with the time of the first whole list that lacked them. They left before this
    /// agent looked, so the first look counts. A static pod, which the API server may never have had, can have no PersistentVolume.
    strangers: BTreeMap<PodUid, Option<NodeTime>>,
    /// When the last whole list was read.
    listed: Option<NodeTime>,
}

/// What whole lists of this node's pods show of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// When one first lacked it, where the last one did.
    pub since: Option<NodeTime>,
    /// When the last one was read.
    pub listed: Option<NodeTime>,
    /// Its `spec.terminationGracePeriodSeconds`, where that is known.
    pub grace_seconds: Option<u64>,
}

impl Missed {
    /// The time from the first list that lacked it to the last.
    #[must_use]
    pub fn lasted(&self) -> Option<Duration> {
        self.listed?.since(&self.since?)
    }
}

impl RecentPods {
    /// Those that an agent before us knew.
    #[must_use]
    pub fn with(pods: Vec<KnownPod>) -> Self {
        let mut pods: VecDeque<KnownPod> = pods.into();
        pods.truncate(MAX_RECENT_PODS);
        Self { pods, ..Self::default() }
    }

    /// To be kept over a restart.
    #[must_use]
    pub fn pods(&self) -> Vec<KnownPod> {
        self.pods.iter().cloned().collect()
    }

    /// What is not in a list that is not whole may be there: such a list changes nothing of a pod that it lacks.
    pub(super) fn follow(&mut self, now: &Pods, at: &NodeTime) {
        if now.incomplete().is_none() {
            self.listed = Some(*at);
        }
        for known in &mut self.pods {
            match now.lacks(&known.uid) {
                Ok(_) => known.left = Some(first(known.left, at)),
                Err(NotAbsent::Present(pod)) => {
                    known.left = None;
                    known.grace_seconds = grace(pod);
                }
                Err(NotAbsent::Unknown(_)) => {}
            }
        }
        self.strangers.retain(|uid, since| match now.lacks(uid) {
            Ok(_) => {
                *since = Some(first(*since, at));
                true
            }
            Err(NotAbsent::Present(_)) => false,
            Err(NotAbsent::Unknown(_)) => true,
        });
        for (uid, pod) in now.iter().filter(|(_, pod)| !pod.claims.is_empty()) {
            if self.name(uid).is_some() {
                continue;
            }
            if self.pods.len() == MAX_RECENT_PODS {
                // Who is still here can be remembered again.
                let gone = self.pods.iter().position(|known| now.get(&known.uid).is_none());
                let Some(gone) = gone.and_then(|gone| self.pods.remove(gone)) else { return };
                // Since when it is missed stays known, for as long as its volumes are mounted here.
                if gone.left.is_some() && self.strangers.len() < MAX_RECENT_PODS {
                    self.strangers.insert(gone.uid, gone.left);
                }
            }
            self.pods.push_back(KnownPod {
                uid: uid.clone(),
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                grace_seconds: grace(pod),
                left: None,
            });
        }
    }

    pub(super) fn follow_mounts(&mut self, mounts: &Mounts) {
        let uids: BTreeSet<&PodUid> = mounts.values().filter_map(pod_with_volume).collect();
        if mounts.incomplete().is_none() {
            self.strangers.retain(|uid, _| uids.contains(uid));
        }
        for uid in uids {
            if self.strangers.len() >= MAX_RECENT_PODS {
                return;
            }
            if !self.strangers.contains_key(uid) && self.name(uid).is_none() {
                self.strangers.insert(uid.clone(), None);
            }
        }
    }

    fn known(&self, uid: &PodUid) -> Option<&KnownPod> {
        self.pods.iter().find(|known| known.uid == *uid)
    }

    /// The namespace and name of a pod that is or was on this node.
    #[must_use]
    pub fn name(&self, uid: &PodUid) -> Option<(&str, &str)> {
        self.known(uid).map(|pod| (&*pod.namespace, &*pod.name))
    }

    /// Since when the API server does not list a pod.
    #[must_use]
    pub fn missed(&self, uid: &PodUid) -> Missed {
        let (since, grace_seconds) = match self.known(uid) {
            Some(known) => (known.left, known.grace_seconds),
            None => (self.strangers.get(uid).copied().flatten(), None),
        };
        Missed { since, listed: self.listed, grace_seconds }
    }
}

/// The first time of those in this boot: of a pod that ran in an earlier one nothing is left.
fn first(before: Option<NodeTime>, now: &NodeTime) -> NodeTime {
    before.filter(|before| now.since(before).is_some()).unwrap_or(*now)
}

fn grace(pod: &Pod) -> Option<u64> {
    match &pod.lifecycle {
        Part::Known(lifecycle) => lifecycle.grace_seconds,
        _ => None,
    }
}

/// The pod that has a PersistentVolume mounted, with a block device.
fn pod_with_volume(mount: &MountEntry) -> Option<&PodUid> {
    match mount.volume.as_ref()? {
        VolumePath::Pod { pod, plugin, .. } if mount.has_device() && PERSISTENT.contains(&plugin.as_str()) => Some(pod),
        VolumePath::RawBlock { pod: Some(pod), .. } => Some(pod),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, Cause, DevId, Observation, PodLifecycle, Reading, Unknown};
    use crate::view::View;

    const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";

    fn at(up: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH }
    }

    fn after_reboot(up: u64) -> NodeTime {
        NodeTime { boot: "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a".parse().unwrap(), ..at(up) }
    }

    fn pod(grace: u64) -> Pod {
        let lifecycle = PodLifecycle { grace_seconds: Some(grace), ..PodLifecycle::default() };
        let (namespace, name) = ("ns".to_owned(), "db-0".to_owned());
        Pod { namespace, name, claims: vec!["c".into()], lifecycle: Part::Known(lifecycle), ..Pod::default() }
    }

    fn with_it(grace: u64) -> Pods {
        Pods::whole([(UID.to_owned(), Arc::new(pod(grace)))])
    }

    fn without() -> Pods {
        Pods::whole([])
    }

    fn in_part() -> Pods {
        without().lacking(Unknown::new(Cause::Incomplete, "too many pods"))
    }

    fn mounts(points: &[&str]) -> Mounts {
        let mount = |point: &str| MountEntry {
            parent: 0,
            dev: DevId { major: 259, minor: 1 },
            root: "/".into(),
            point: point.into(),
            options: "rw".into(),
            fstype: "xfs".into(),
            source: "/dev/nvme1n1".into(),
            super_options: "rw".into(),
            deleted: false,
            volume: VolumePath::parse("/k", point),
            left_out: 0,
        };
        Mounts::whole((1..).zip(points.iter().map(|point| mount(point))))
    }

    fn missed(recent: &RecentPods) -> Option<(u64, Option<u64>)> {
        let missed = recent.missed(&UID.to_owned());
        Some((missed.since?.up.as_secs(), missed.lasted().map(|lasted| lasted.as_secs())))
    }

    #[test]
    fn a_pod_is_missed_from_the_first_whole_list_without_it_to_the_last() {
        let mut recent = RecentPods::default();
        let mut follow = |pods: Pods, up| {
            recent.follow(&pods, &at(up));
            missed(&recent)
        };
        assert_eq!(follow(with_it(30), 10), None);
        assert_eq!(follow(in_part(), 20), None, "it may be in the part that was not read");
        assert_eq!(follow(without(), 30), Some((30, Some(0))));
        assert_eq!(follow(in_part(), 60), Some((30, Some(0))), "such a list shows nothing of it");
        assert_eq!(follow(without(), 100), Some((30, Some(70))));
        assert_eq!(follow(with_it(30), 110), None, "it is back");
        assert_eq!(follow(without(), 120), Some((120, Some(0))));
    }

    #[test]
    fn its_last_grace_period_is_kept() {
        let mut recent = RecentPods::default();
        [(with_it(30), 10), (with_it(600), 20), (without(), 30)]
            .iter()
            .for_each(|(list, up)| recent.follow(list, &at(*up)));
        assert_eq!(recent.missed(&UID.to_owned()).grace_seconds, Some(600));
    }

    #[test]
    fn an_agent_that_is_started_again_goes_on_from_when_the_one_before_missed_it() {
        let mut before = RecentPods::default();
        [(with_it(30), 10), (without(), 30)].iter().for_each(|(list, up)| before.follow(list, &at(*up)));
        let kept = serde_json::to_string(&before.pods()).unwrap();
        let mut after = RecentPods::with(serde_json::from_str(&kept).unwrap());
        assert_eq!(missed(&after), Some((30, None)), "it has no list yet");
        after.follow(&without(), &at(200));
        assert_eq!(missed(&after), Some((30, Some(170))));
        let mut rebooted = RecentPods::with(serde_json::from_str(&kept).unwrap());
        rebooted.follow(&without(), &after_reboot(90));
        assert_eq!(missed(&rebooted), Some((90, Some(0))), "what ran before a reboot has ended");
        let old = r#"[{"uid":"74dcc96c-be53-45c4-a46f-3809d56e9a65","namespace":"ns","name":"db-0"}]"#;
        let mut of_earlier_version = RecentPods::with(serde_json::from_str(old).unwrap());
        of_earlier_version.follow(&without(), &at(50));
        assert_eq!(missed(&of_earlier_version), Some((50, Some(0))));
    }

    /// Of one that was never listed there is no time at which it left: the first look counts.
    #[test]
    fn a_pod_that_was_never_listed_is_missed_from_the_first_look_while_its_volume_is_mounted() {
        const MOUNT: &str = "/k/pods/74dcc96c-be53-45c4-a46f-3809d56e9a65/volumes/kubernetes.io~csi/pv-a/mount";
        const OF_ITS_OWN: &str = "/k/pods/74dcc96c-be53-45c4-a46f-3809d56e9a65/volumes/kubernetes.io~empty-dir/tmp";
        let mut recent = RecentPods::default();
        recent.follow_mounts(&mounts(&[OF_ITS_OWN]));
        recent.follow(&without(), &at(10));
        assert_eq!(missed(&recent), None, "a static pod has these, too");
        recent.follow_mounts(&mounts(&[OF_ITS_OWN, MOUNT]));
        assert_eq!(missed(&recent), None, "the list was read before");
        recent.follow(&in_part(), &at(20));
        assert_eq!(missed(&recent), None);
        recent.follow(&without(), &at(30));
        recent.follow(&without(), &at(130));
        assert_eq!(missed(&recent), Some((30, Some(100))));
        recent.follow_mounts(&mounts(&[]));
        assert_eq!(missed(&recent), None);
        recent.follow_mounts(&mounts(&[MOUNT]));
        recent.follow(&with_it(30), &at(140));
        assert_eq!(missed(&recent), None, "its list came later than its mount");
    }

    #[test]
    fn many_mounts_of_pods_take_no_more_than_their_place() {
        let points: Vec<String> = (0..2000)
            .map(|n| format!("/k/pods/74dcc96c-be53-45c4-a46f-3809d56e{n:04}/volumes/kubernetes.io~csi/pv-a/mount"))
            .collect();
        let mut recent = RecentPods::default();
        recent.follow_mounts(&mounts(&points.iter().map(String::as_str).collect::<Vec<_>>()));
        recent.follow(&without(), &at(10));
        assert_eq!(recent.strangers.len(), MAX_RECENT_PODS);
    }

    #[test]
    fn a_pod_that_had_a_claim_is_remembered_by_name_and_not_for_ever() {
        let list = |names: std::ops::Range<usize>| {
            let claims = |n: usize| if n == 7 { Vec::new() } else { vec!["c".to_owned()] };
            let pod =
                |n: usize| Pod { namespace: "ns".into(), name: format!("p-{n}"), claims: claims(n), ..Pod::default() };
            Pods::whole(names.map(|n| (format!("uid-{n:04}"), Arc::new(pod(n)))))
        };
        let mut view = View::new(at(0));
        let mut tell = |up, pods| {
            view.take(at(up), vec![Observation::Pods(Reading::Known { value: pods, at: at(up) })]);
            [0, 7, 9].map(|n| view.recent_pods.name(&format!("uid-{n:04}")).map(|(_, name)| name.to_owned()))
        };
        let (first, ninth) = (Some("p-0".to_owned()), Some("p-9".to_owned()));
        assert_eq!(tell(1, list(0..10)), [first.clone(), None, ninth.clone()]);
        assert_eq!(tell(2, list(9..20)), [first, None, ninth.clone()]);
        // Of those that are gone the oldest are dropped; since when they are missed stays known.
        assert_eq!(tell(3, list(9..260)), [None, None, ninth]);
        let since = view.recent_pods.missed(&"uid-0000".to_owned()).since;
        assert_eq!(since, Some(at(2)));
        let kept = view.recent_pods.pods();
        assert_eq!((kept.len(), RecentPods::with(kept.clone()).pods() == kept), (MAX_RECENT_PODS, true));
    }
}
