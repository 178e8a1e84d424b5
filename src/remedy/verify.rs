//! What an executor proves for itself before it would act: that the same mount was there for ten minutes, that the pod had no process
//! meanwhile, and that nothing holds the filesystem. It reads these facts itself and believes nothing that a request says.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::facts::{Cause, DevId, MountHolders, MountId, Mounts, NodeTime, NotAbsent, PodCgroups, PodUid, Unknown};

use super::act::{Act, UnmountPodPath};
use super::permit::{names_pod, unfit};
use super::request::Answer;

/// For so long a mount must have been the same, and a pod without a process.
pub const SETTLED: Duration = Duration::from_secs(600);
/// What happened in a longer time without a look is not known.
const MAX_GAP: Duration = Duration::from_secs(60);
/// Mounts of pods that are followed; a node with more is not acted on.
const MAX_MOUNTS: usize = 10_000;
/// Pods that had a process lately. A kubelet starts a few hundred at most.
const MAX_PODS: usize = 4096;

/// What was seen of mounts and processes, look by look.
#[derive(Debug, Default)]
pub struct Sightings {
    mounts: BTreeMap<MountId, (Identity, NodeTime)>,
    /// Since when the pods' control groups were read, all of them and without a gap.
    groups_since: Option<NodeTime>,
    /// When a pod was last seen with a process.
    busy: BTreeMap<PodUid, NodeTime>,
    last: Option<NodeTime>,
}

/// What distinguishes a mount from another one of the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    point: Box<str>,
    dev: DevId,
    root: Box<str>,
}

impl Sightings {
    /// Takes in one sample. What could not be read interrupts what was seen before.
    pub fn follow(&mut self, at: NodeTime, mounts: Result<&Mounts, &Unknown>, groups: Result<&PodCgroups, &Unknown>) {
        let gap = self.last.replace(at).and_then(|last| at.since(&last));
        if gap.is_none_or(|gap| gap > MAX_GAP) {
            *self = Self { last: Some(at), ..Self::default() };
        }
        self.follow_mounts(at, mounts.ok().filter(|mounts| mounts.incomplete().is_none()));
        self.follow_groups(at, groups.ok().filter(|groups| groups.incomplete().is_none()));
    }

    fn follow_mounts(&mut self, at: NodeTime, mounts: Option<&Mounts>) {
        let before = std::mem::take(&mut self.mounts);
        let Some(mounts) = mounts else { return };
        let of_pods = mounts.iter().filter(|(_, mount)| mount.volume.as_ref().is_some_and(|path| path.pod().is_some()));
        for (id, mount) in of_pods {
            let identity = Identity { point: mount.point.clone(), dev: mount.dev, root: (*mount.root).into() };
            let since = before.get(id).filter(|(other, _)| *other == identity).map_or(at, |(_, since)| *since);
            self.mounts.insert(*id, (identity, since));
        }
        if self.mounts.len() > MAX_MOUNTS {
            self.mounts.clear();
        }
    }

    fn follow_groups(&mut self, at: NodeTime, groups: Option<&PodCgroups>) {
        let Some(groups) = groups else {
            self.groups_since = None;
            self.busy.clear();
            return;
        };
        self.groups_since.get_or_insert(at);
        self.busy.retain(|_, seen| at.since(seen).is_some_and(|age| age < SETTLED));
        for (uid, group) in groups {
            // A group that does not say how many it has may have some.
            if group.cgroup.ids.pids.seen().ok().flatten() != Some(&0) {
                self.busy.insert(uid.clone(), at);
            }
        }
        if self.busy.len() > MAX_PODS {
            self.groups_since = None;
            self.busy.clear();
        }
    }

    /// For how long this very mount was seen.
    fn mounted_for(&self, act: &UnmountPodPath, now: &NodeTime) -> Duration {
        let same = |identity: &Identity| {
            *identity.point == *act.path && identity.dev == act.device && *identity.root == *act.root
        };
        let since = self.mounts.get(&act.mount_id).filter(|(identity, _)| same(identity)).map(|(_, since)| since);
        since.and_then(|since| now.since(since)).unwrap_or_default()
    }

    /// For how long a pod was seen without a process.
    fn quiet_for(&self, uid: &PodUid, now: &NodeTime) -> Duration {
        let watched = self.groups_since.and_then(|since| now.since(&since)).unwrap_or_default();
        match self.busy.get(uid) {
            Some(seen) => now.since(seen).unwrap_or_default().min(watched),
            None => watched,
        }
    }
}

/// What is in a pod's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Nothing but directories.
    OnlyDirectories,
    /// Something else: its path.
    Something(String),
}

/// What the executor has just read.
#[derive(Clone, Debug)]
pub struct Fresh<'a> {
    /// The host's mount table.
    pub mounts: Result<&'a Mounts, &'a Unknown>,
    /// The pods' control groups.
    pub groups: Result<&'a PodCgroups, &'a Unknown>,
    /// Who holds the device that the act is about.
    pub holders: Result<&'a MountHolders, &'a Unknown>,
    /// What is in the directory that the act is about.
    pub contents: Result<&'a Contents, &'a Unknown>,
}

/// Whether the executor would do it, by what it read itself.
#[must_use]
pub fn verify(act: &Act, sightings: &Sightings, fresh: &Fresh<'_>, now: &NodeTime, kubelet_root: &str) -> Answer {
    match refusal(act, sightings, fresh, now, kubelet_root) {
        Ok(()) => Answer::WouldAct,
        Err(why) => Answer::Refused(why),
    }
}

fn refusal(
    act: &Act,
    sightings: &Sightings,
    fresh: &Fresh<'_>,
    now: &NodeTime,
    kubelet_root: &str,
) -> Result<(), String> {
    act.check_form(kubelet_root)?;
    let mounts = fresh.mounts.map_err(not_known)?;
    if let Some(why) = mounts.incomplete() {
        return Err(not_known(why));
    }
    expect_no_process(act.pod(), fresh)?;
    let quiet = sightings.quiet_for(act.pod(), now);
    if quiet < SETTLED {
        return Err(format!(
            "the pod was seen without a process for {} s, expected {}",
            quiet.as_secs(),
            SETTLED.as_secs()
        ));
    }
    match act {
        Act::UnmountPodPath(act) => {
            let gone = || format!("mount {} is not in the host's mount table", act.mount_id);
            let mount = mounts.get(&act.mount_id).ok_or_else(gone)?;
            if !act.is(act.mount_id, mount) {
                return Err(format!("mount {} has another path, device or root by now", act.mount_id));
            }
            unfit(act.mount_id, mount, mounts).map_or(Ok(()), Err)?;
            let age = sightings.mounted_for(act, now);
            if age < SETTLED {
                return Err(format!("the mount was seen for {} s, expected {}", age.as_secs(), SETTLED.as_secs()));
            }
            expect_no_holder(act.device, fresh)
        }
        Act::RemoveEmptyPodDirectory(act) => {
            if let Some(mount) = mounts.values().find(|mount| names_pod(mount, &act.pod)) {
                return Err(format!("{} is mounted", mount.point));
            }
            match fresh.contents.map_err(not_known)? {
                Contents::OnlyDirectories => Ok(()),
                Contents::Something(path) => Err(format!("{path} is no directory, and is not removed")),
            }
        }
    }
}

fn expect_no_process(uid: &PodUid, fresh: &Fresh<'_>) -> Result<(), String> {
    match fresh.groups.map_err(not_known)?.lacks(uid) {
        Ok(_) => Ok(()),
        Err(NotAbsent::Unknown(why)) => Err(not_known(why)),
        Err(NotAbsent::Present(group)) => {
            let absent = || Unknown::new(Cause::Incomplete, "the pod's group lacks pids.current");
            match group.cgroup.ids.pids.needed(absent).map_err(|why| not_known(&why))? {
                0 => Ok(()),
                count => Err(format!("the pod's control group has {count} processes")),
            }
        }
    }
}

fn expect_no_holder(device: DevId, fresh: &Fresh<'_>) -> Result<(), String> {
    let holders = fresh.holders.map_err(not_known)?;
    if let Some(holder) = holders.get(&device).ok_or("it was not asked who holds the device")?.first() {
        return Err(format!("process {} holds the filesystem", holder.pid));
    }
    holders.incomplete().map_or(Ok(()), |why| Err(not_known(why)))
}

fn not_known(why: &Unknown) -> String {
    format!("not known: {}", why.why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::act::RemoveEmptyPodDirectory;
    use super::super::act::tests::{KUBELET, UID, unmount};
    use super::*;
    use crate::facts::{BootId, Cgroup, HeldBy, MountEntry, MountHolder, Part, PidCounts, PodCgroup, Qos, VolumePath};

    fn at(seconds: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(seconds), wall: jiff::Timestamp::UNIX_EPOCH }
    }

    fn entry(act: &UnmountPodPath) -> MountEntry {
        MountEntry {
            parent: 29,
            dev: act.device,
            root: (*act.root).into(),
            point: act.path.clone().into(),
            options: "rw".into(),
            fstype: "ext4".into(),
            source: "/dev/nvme1n1".into(),
            super_options: "rw".into(),
            deleted: false,
            volume: VolumePath::parse(KUBELET, &act.path),
            left_out: 0,
        }
    }

    fn table(entries: &[(MountId, MountEntry)]) -> Mounts {
        Mounts::whole(entries.iter().cloned())
    }

    fn groups(processes: Option<Part<u64>>) -> PodCgroups {
        let of = |pids| PodCgroup {
            path: String::new(),
            qos: Qos::Burstable,
            cgroup: Cgroup { ids: PidCounts { pids, ..PidCounts::default() }, ..Cgroup::default() },
            containers: [].into(),
            oom_unread: None,
        };
        PodCgroups::whole(processes.map(|pids| (UID.to_owned(), of(pids))))
    }

    fn unreadable() -> Unknown {
        Unknown::new(Cause::Denied, "it may not be read")
    }

    /// Everything that lets the act go on.
    struct Facts {
        mounts: Result<Mounts, Unknown>,
        groups: Result<PodCgroups, Unknown>,
        holders: Result<MountHolders, Unknown>,
        contents: Result<Contents, Unknown>,
    }

    impl Facts {
        fn good() -> Self {
            let act = unmount();
            Self {
                mounts: Ok(table(&[(act.mount_id, entry(&act))])),
                groups: Ok(groups(Some(Part::Known(0)))),
                holders: Ok(MountHolders::whole([(act.device, vec![])])),
                contents: Ok(Contents::OnlyDirectories),
            }
        }

        fn see(&self, sightings: &mut Sightings, from: u64, to: u64) {
            for second in (from..=to).step_by(10) {
                sightings.follow(at(second), self.mounts.as_ref(), self.groups.as_ref());
            }
        }

        fn ask(&self, act: &Act, sightings: &Sightings, now: u64) -> Answer {
            let fresh = Fresh {
                mounts: self.mounts.as_ref(),
                groups: self.groups.as_ref(),
                holders: self.holders.as_ref(),
                contents: self.contents.as_ref(),
            };
            verify(act, sightings, &fresh, &at(now), KUBELET)
        }
    }

    fn seen(facts: &Facts, seconds: u64) -> Sightings {
        let mut sightings = Sightings::default();
        facts.see(&mut sightings, 0, seconds);
        sightings
    }

    fn refused(answer: &Answer) -> &str {
        match answer {
            Answer::Refused(why) => why,
            other => panic!("expected a refusal: {other:?}"),
        }
    }

    fn act() -> Act {
        Act::UnmountPodPath(unmount())
    }

    #[test]
    fn what_was_seen_for_ten_minutes_would_be_done() {
        let facts = Facts::good();
        assert_eq!(facts.ask(&act(), &seen(&facts, 600), 600), Answer::WouldAct);
        assert!(refused(&facts.ask(&act(), &seen(&facts, 590), 590)).contains("590 s, expected 600"));
        assert!(refused(&facts.ask(&act(), &Sightings::default(), 600)).contains("0 s"));
    }

    #[test]
    fn a_sample_that_failed_or_is_missing_begins_the_time_again() {
        let facts = Facts::good();
        let failed: [fn(&mut Facts); 3] = [
            |facts| facts.mounts = Err(unreadable()),
            |facts| facts.groups = Err(unreadable()),
            |facts| facts.mounts = Ok(facts.mounts.clone().unwrap().lacking(unreadable())),
        ];
        for fail in failed {
            let mut sightings = seen(&facts, 300);
            let mut broken = Facts::good();
            fail(&mut broken);
            broken.see(&mut sightings, 310, 310);
            facts.see(&mut sightings, 320, 600);
            refused(&facts.ask(&act(), &sightings, 600));
            facts.see(&mut sightings, 610, 920);
            assert_eq!(facts.ask(&act(), &sightings, 920), Answer::WouldAct);
        }
        let mut sightings = seen(&facts, 300);
        facts.see(&mut sightings, 370, 600);
        refused(&facts.ask(&act(), &sightings, 600));
    }

    #[test]
    fn another_mount_of_the_same_number_begins_the_time_again() {
        let facts = Facts::good();
        let mut sightings = seen(&facts, 300);
        let gone = Facts { mounts: Ok(table(&[])), ..Facts::good() };
        gone.see(&mut sightings, 310, 310);
        facts.see(&mut sightings, 320, 650);
        assert!(refused(&facts.ask(&act(), &sightings, 650)).contains("the mount was seen for 330 s"));
    }

    #[test]
    fn a_process_that_was_there_meanwhile_begins_the_time_again() {
        let facts = Facts::good();
        for busy in [Part::Known(1), Part::Absent, Part::Unknown(Box::new(unreadable()))] {
            let mut sightings = seen(&facts, 300);
            let running = Facts { groups: Ok(groups(Some(busy.clone()))), ..Facts::good() };
            running.see(&mut sightings, 310, 310);
            refused(&running.ask(&act(), &sightings, 310));
            facts.see(&mut sightings, 320, 900);
            assert!(refused(&facts.ask(&act(), &sightings, 900)).contains("without a process for 590 s"), "{busy:?}");
            facts.see(&mut sightings, 910, 910);
            assert_eq!(facts.ask(&act(), &sightings, 910), Answer::WouldAct);
        }
    }

    #[test]
    fn each_fact_refuses_by_itself() {
        let holder = MountHolder {
            pid: 77,
            command: "x".into(),
            cgroup: None,
            pod: None,
            point: "/x".into(),
            by: HeldBy::Mount,
        };
        let device = unmount().device;
        let with = |more: MountEntry| {
            let act = unmount();
            Ok(table(&[(act.mount_id, entry(&act)), (900, more)]))
        };
        let own = entry(&unmount());
        let cases: Vec<(&str, Facts)> = vec![
            ("not known", Facts { mounts: Err(unreadable()), ..Facts::good() }),
            ("not known", Facts { groups: Err(unreadable()), ..Facts::good() }),
            ("not known", Facts { holders: Err(unreadable()), ..Facts::good() }),
            ("3 processes", Facts { groups: Ok(groups(Some(Part::Known(3)))), ..Facts::good() }),
            ("lacks pids.current", Facts { groups: Ok(groups(Some(Part::Absent))), ..Facts::good() }),
            ("process 77 holds", Facts { holders: Ok(MountHolders::whole([(device, vec![holder])])), ..Facts::good() }),
            ("not asked", Facts { holders: Ok(MountHolders::whole([])), ..Facts::good() }),
            (
                "not known",
                Facts { holders: Ok(MountHolders::whole([(device, vec![])]).lacking(unreadable())), ..Facts::good() },
            ),
            ("not in the host's mount table", Facts { mounts: Ok(table(&[])), ..Facts::good() }),
            (
                "another path, device or root",
                Facts {
                    mounts: Ok(table(&[(101, MountEntry { root: "/other".into(), ..own.clone() })])),
                    ..Facts::good()
                },
            ),
            ("same path", Facts { mounts: with(own.clone()), ..Facts::good() }),
            (
                "is mounted on it",
                Facts { mounts: with(MountEntry { parent: 101, point: "/z".into(), ..own.clone() }), ..Facts::good() },
            ),
            (
                "deleted underneath",
                Facts { mounts: Ok(table(&[(101, MountEntry { deleted: true, ..own.clone() })])), ..Facts::good() },
            ),
        ];
        for (why, facts) in cases {
            let sightings = seen(&Facts::good(), 600);
            let answer = facts.ask(&act(), &sightings, 600);
            assert!(refused(&answer).contains(why), "{answer:?}, expected {why}");
        }
    }

    #[test]
    fn a_directory_must_hold_nothing_but_directories_and_no_mount() {
        let act = Act::RemoveEmptyPodDirectory(RemoveEmptyPodDirectory { pod: UID.to_owned() });
        let empty = || Facts { mounts: Ok(table(&[])), ..Facts::good() };
        let sightings = seen(&empty(), 600);
        assert_eq!(empty().ask(&act, &sightings, 600), Answer::WouldAct);
        refused(&empty().ask(&act, &seen(&empty(), 590), 590));
        assert!(refused(&Facts::good().ask(&act, &sightings, 600)).contains("is mounted"));
        let full = Facts { contents: Ok(Contents::Something("/x".into())), ..empty() };
        assert!(refused(&full.ask(&act, &sightings, 600)).contains("/x is no directory"));
        let unread = Facts { contents: Err(unreadable()), ..empty() };
        assert!(refused(&unread.ask(&act, &sightings, 600)).contains("not known"));
    }

    proptest! {
        /// Whatever a request claims: what the mount table does not have in each part is refused.
        #[test]
        fn a_request_that_is_not_of_this_mount_is_refused(id in 0u32..300, minor in 0u32..5, root in "/[a-b]?", deeper: bool) {
            let mut claimed = UnmountPodPath { mount_id: id, device: DevId { major: 259, minor }, root, ..unmount() };
            if deeper {
                claimed.path.push_str("/x");
            }
            let facts = Facts::good();
            let is_it = claimed == unmount();
            let answer = facts.ask(&Act::UnmountPodPath(claimed), &seen(&facts, 600), 600);
            prop_assert_eq!(answer == Answer::WouldAct, is_it);
        }
    }
}
