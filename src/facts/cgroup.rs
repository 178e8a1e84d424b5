//! Control groups, as far as the kubelet's and the system's levels go.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Cause, Inventory, Part, PressureFile, Unknown};

/// A pod's UID as the API writes it. For a static pod it is the hash of its manifest.
pub type PodUid = String;

/// Which hierarchy carries the memory controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupVersion {
    /// One hierarchy for each controller.
    V1,
    /// One hierarchy.
    #[default]
    V2,
}

/// How the kubelet names its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// `kubepods.slice/kubepods-burstable.slice/…`
    Systemd,
    /// `kubepods/burstable/…`
    Cgroupfs,
}

/// Whose limit a group carries, from the outermost in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupLevel {
    /// The machine itself.
    Node,
    /// `kubepods`: node allocatable.
    Kubepods,
    /// `kubepods/burstable` or `besteffort`.
    Qos,
    /// One pod.
    Pod,
    /// One container.
    Container,
    /// `runtime.slice`: kubelet and container runtime on EKS.
    Runtime,
    /// `system.slice`: the system's services.
    System,
    /// Any other.
    Other,
}

/// A pod's quality-of-service class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Qos {
    /// Requests equal limits.
    Guaranteed,
    /// Some request or limit.
    Burstable,
    /// None.
    BestEffort,
}

/// OOM counters of one group since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomCounts {
    /// Times this group's own limit was hit with nothing left to reclaim (v2 `memory.events.local`; absent in v1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_hit: Option<u64>,
    /// Processes killed in this group itself, not below it (v2 `memory.events.local`, v1 `memory.oom_control`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed_here: Option<u64>,
    /// Times a limit was hit with nothing left to reclaim in this group or below it (v2 `memory.events`; absent in v1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_hit_below: Option<u64>,
    /// Processes killed in this group and below it (v2 `memory.events`; absent in v1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed: Option<u64>,
}

impl OomCounts {
    /// The same group when it was made.
    #[must_use]
    fn newborn(&self) -> Self {
        Self {
            limit_hit: self.limit_hit.and(Some(0)),
            killed_here: self.killed_here.and(Some(0)),
            limit_hit_below: self.limit_hit_below.and(Some(0)),
            killed: self.killed.and(Some(0)),
        }
    }

    /// How many processes were killed in it and below it since an earlier reading.
    #[must_use]
    pub fn killed_since(&self, old: &Self) -> u64 {
        grown(self.killed, old.killed).max(grown(self.killed_here, old.killed_here))
    }

    /// Whether the limit that was reached since an earlier reading was above this group, where it counts the limits of groups below it.
    #[must_use]
    pub fn is_limit_above(&self, old: &Self) -> Option<bool> {
        Some(self.limit_hit_below?.saturating_sub(old.limit_hit_below?) == 0)
    }

    /// How often its own limit was reached since an earlier reading.
    #[must_use]
    pub fn limit_hit_since(&self, old: &Self) -> u64 {
        grown(self.limit_hit, old.limit_hit)
    }
}

/// By how much a counter grew; one that is absent or went backwards has not.
fn grown(new: Option<u64>, old: Option<u64>) -> u64 {
    new.zip(old).map_or(0, |(new, old)| new.saturating_sub(old))
}

/// What a group counts of process ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidCounts {
    /// Tasks (threads) in it and below (`pids.current`).
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub pids: Part<u64>,
    /// Limit on tasks (`pids.max`); absent where it is `max`, and not known where there is no such file.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub pids_max: Part<u64>,
    /// Times a fork of a task in this very group failed, whosever limit it was: `pids.events` up to 6.10 and in v1.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub pids_refused: Part<u64>,
    /// Times a fork failed for this group's own limit: `pids.events.local`, from 6.11 on.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub pids_limit_hit: Part<u64>,
}

impl PidCounts {
    fn parts(&self) -> [&Part<u64>; 4] {
        [&self.pids, &self.pids_max, &self.pids_refused, &self.pids_limit_hit]
    }

    /// What of it could not be read, the first of it.
    #[must_use]
    pub fn unread(&self) -> Option<&Unknown> {
        self.parts().into_iter().find_map(Part::unread)
    }
}

/// One group. What its hierarchy or version does not have is absent. Sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Charged memory, kernel memory included (`memory.current`, `memory.usage_in_bytes`).
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub memory: Part<u64>,
    /// Of it, page cache that was not used lately (`inactive_file`, v1 `total_inactive_file`).
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub inactive_file: Part<u64>,
    /// Of it, what the kernel gives back when memory runs short: page cache without tmpfs, and reclaimable slab (v2).
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub reclaimable: Part<u64>,
    /// Limit; absent where there is none (`max`).
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub memory_max: Part<u64>,
    /// OOM counters.
    #[serde(default)]
    pub oom: OomCounts,
    /// Its process ids.
    #[serde(flatten)]
    pub ids: PidCounts,
    /// Memory pressure of it (`memory.pressure`, v2 only).
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub memory_pressure: Part<PressureFile>,
}

/// Memory use of the whole machine as the kubelet computes it from the root group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootMemory {
    /// v2: anon + file of `memory.stat`; v1: `memory.usage_in_bytes`. In bytes.
    pub usage: u64,
    /// v2 `inactive_file`, v1 `total_inactive_file`. In bytes.
    pub inactive_file: u64,
}

impl RootMemory {
    /// What the kubelet calls the working set: never below zero.
    #[must_use]
    pub fn working_set(&self) -> u64 {
        self.usage.saturating_sub(self.inactive_file)
    }
}

/// The levels above the pods, read on every cycle.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cgroups {
    /// Which version carries memory.
    pub version: CgroupVersion,
    /// How kubepods is named; absent where there is none.
    pub driver: Option<CgroupDriver>,
    /// Use of the whole machine; absent where the root group does not say.
    pub root: Part<RootMemory>,
    /// `kubepods`; absent where there is none.
    pub kubepods: Option<Cgroup>,
    /// The QoS groups and the system's slices, by path below the root of the hierarchy.
    pub others: BTreeMap<String, (CgroupLevel, Cgroup)>,
    /// Why the OOM counters of a level that is there are absent above, the first of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_unread: Option<Box<Unknown>>,
    /// `kubepods` by its path below the root of the hierarchy, where the kubelet has a `cgroupRoot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubepods_path: Option<String>,
    /// Groups of the kubelet, the runtime and the system, as the kubelet's configuration and its process name them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<String, CgroupLevel>,
    /// Why other groups may be of the kubelet, the runtime or the system, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_unread: Option<Box<Unknown>>,
}

/// Process ids of the system's services by the path of their group below the root of the hierarchy.
pub type ServiceCgroups = Inventory<String, PidCounts>;

/// The group of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerCgroup {
    /// OOM counters.
    #[serde(flatten)]
    pub oom: OomCounts,
    /// Memory limit in force (`memory.max`), in bytes; absent where there is none.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub memory_max: Part<u64>,
    /// Charged memory, in bytes; absent where it has no limit, and where its whole pod uses less than three quarters of that.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub memory: Part<u64>,
    /// Of it, page cache that was not used lately; absent where its memory is.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub inactive_file: Part<u64>,
    /// Its process ids; how many are in use is absent where it has no limit on them.
    #[serde(flatten)]
    pub ids: PidCounts,
    /// Path below the root of the hierarchy, where it is not below its pod's group: among the services, with another cgroup driver than
    /// the kubelet's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<String>,
}

impl Cgroups {
    /// `kubepods` as a path.
    #[must_use]
    pub fn kubepods_name(&self) -> String {
        match (&self.kubepods_path, self.driver) {
            (Some(path), _) => format!("/{path}"),
            (None, Some(CgroupDriver::Cgroupfs)) => "/kubepods".to_owned(),
            (None, _) => "/kubepods.slice".to_owned(),
        }
    }

    /// What of it could not be read, the first of it.
    #[must_use]
    pub fn unread(&self) -> Option<&Unknown> {
        let kubepods = self.kubepods.as_ref();
        let part = kubepods.and_then(|group| {
            let numbers = [&group.memory, &group.inactive_file, &group.memory_max];
            numbers.into_iter().find_map(Part::unread).or(group.memory_pressure.unread())
        });
        // The pids controller need not be switched on for the groups of services.
        let of_levels = self.others.values().flat_map(|(_, group)| group.ids.parts());
        let mut torn = of_levels.filter_map(Part::unread).filter(|why| why.cause != Cause::Missing);
        let pids = || kubepods.and_then(|group| group.ids.unread()).or_else(|| torn.next());
        self.root.unread().or(part).or(self.oom_unread.as_deref()).or_else(pids)
    }
}

/// One pod's group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodCgroup {
    /// Path below the root of the hierarchy.
    pub path: String,
    /// From where in the tree it stands.
    pub qos: Qos,
    /// Its own figures.
    pub cgroup: Cgroup,
    /// Its containers by id.
    pub containers: BTreeMap<String, ContainerCgroup>,
    /// Why OOM counters of it or of a container are absent above, the first of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_unread: Option<Box<Unknown>>,
}

impl PodCgroup {
    /// The group that its processes are in: its own, or that of a container elsewhere.
    #[must_use]
    pub fn place(&self) -> &str {
        let elsewhere = self.containers.values().find_map(|container| container.elsewhere.as_deref());
        elsewhere.unwrap_or(&self.path)
    }

    /// The same pod when it was made.
    #[must_use]
    pub fn newborn(&self) -> Self {
        let containers = self.containers.iter().map(|(id, container)| {
            (id.clone(), ContainerCgroup { oom: container.oom.newborn(), ..ContainerCgroup::default() })
        });
        let cgroup = Cgroup { oom: self.cgroup.oom.newborn(), ..Cgroup::default() };
        Self { path: String::new(), qos: self.qos, cgroup, containers: containers.collect(), oom_unread: None }
    }

    /// How many processes were killed in it since an earlier reading.
    #[must_use]
    pub fn killed_since(&self, old: &Self) -> u64 {
        let own = grown(self.cgroup.oom.killed_here, old.cgroup.oom.killed_here);
        let here = self.containers.iter().map(|(id, new)| {
            let old = old.containers.get(id).map_or_else(|| new.oom.newborn(), |old| old.oom);
            grown(new.oom.killed_here, old.killed_here)
        });
        here.fold(own, u64::saturating_add).max(grown(self.cgroup.oom.killed, old.cgroup.oom.killed))
    }

    /// Whose limit was reached where it lost a process.
    #[must_use]
    pub fn limit_hit_since(&self, old: &Self) -> LimitHit<'_> {
        let hit = |id: &String, new: &ContainerCgroup| {
            let old = old.containers.get(id).map_or_else(|| new.oom.newborn(), |old| old.oom);
            new.oom.limit_hit_since(&old) > 0
        };
        let (own, before) = (&self.cgroup.oom, &old.cgroup.oom);
        let found = self.containers.iter().find(|(id, new)| hit(id, new));
        match found {
            Some((id, container)) => LimitHit::Container(Some((id.as_str(), container))),
            None if own.limit_hit_since(before) > 0 => LimitHit::Pod,
            None if grown(own.limit_hit_below, before.limit_hit_below) > 0 => LimitHit::Container(None),
            None if own.limit_hit.is_none() && own.limit_hit_below.is_none() => LimitHit::Unknown,
            None => LimitHit::Above,
        }
    }

    /// What of it could not be read, the first of it.
    #[must_use]
    pub fn unread(&self) -> Option<&Unknown> {
        let containers = || self.containers.values().find_map(|container| container.ids.unread());
        self.cgroup.ids.unread().or(self.oom_unread.as_deref()).or_else(containers)
    }
}

/// Whose limit was reached where a pod lost a process.
#[derive(Clone, Copy, Debug)]
pub enum LimitHit<'a> {
    /// That of a container, which is named where it is still there: a killed one is soon replaced.
    Container(Option<(&'a str, &'a ContainerCgroup)>),
    /// The pod's own.
    Pod,
    /// None in the pod: it is only the victim.
    Above,
    /// cgroup v1 does not show it.
    Unknown,
}

/// All pods that have a group.
pub type PodCgroups = Inventory<PodUid, PodCgroup>;

/// The pod that a group's path names, in the namings of both drivers, below any prefix.
///
/// A path may come from `/proc/PID/cgroup` in a container, where it begins with `/../` and lacks the upper
/// levels. In a cluster within a pod it is the outer pod, the one that this node's kubelet knows.
#[must_use]
pub fn pod_uid_of(path: &str) -> Option<PodUid> {
    path.split('/').find_map(|name| match name.strip_suffix(".slice") {
        Some(slice) => pod_of_slice(slice),
        None => name.strip_prefix("pod").and_then(as_uid).or_else(|| pod_of_scope(name).map(|(uid, _)| uid)),
    })
}

/// kubepods-burstable-podUID: a dash would be a level of its own, so the UID has underscores.
fn pod_of_slice(slice: &str) -> Option<PodUid> {
    slice.rsplit_once("-pod").and_then(|(_, uid)| as_uid(&uid.replace('_', "-")))
}

/// The pod and the container of `kubepods-burstable-podUID.slice:cri-containerd:ID`: a runtime whose driver is cgroupfs takes for
/// one name what a kubelet whose driver is systemd writes.
#[must_use]
pub fn pod_of_scope(name: &str) -> Option<(PodUid, &str)> {
    let (slice, rest) = name.split_once(".slice:")?;
    let (_, container) = rest.rsplit_once(':')?;
    let hex = container.len() >= 8 && container.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some((pod_of_slice(slice)?, container)).filter(|_| hex)
}

/// The container that a group's path names below its pod, by its id.
#[must_use]
pub fn container_id_of(path: &str) -> Option<&str> {
    let mut names = path.split('/');
    if let Some((_, id)) = path.split('/').find_map(pod_of_scope) {
        return Some(id);
    }
    names.find(|name| pod_uid_of(name).is_some())?;
    let name = names.next()?;
    id_of_group(name)
}

/// The id in the name of a container's group.
#[must_use]
pub fn id_of_group(name: &str) -> Option<&str> {
    let id = match name.strip_suffix(".scope") {
        // RUNTIME-ID.scope: cri-containerd-, crio-, docker-.
        Some(scope) => scope.rsplit_once('-').map_or(scope, |(_, id)| id),
        // CRI-O with the driver cgroupfs: crio-ID.
        None => name.strip_prefix("crio-").unwrap_or(name),
    };
    Some(id).filter(|id| id.len() >= 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A UUID, or the 32 digits that stand for a static pod.
fn as_uid(text: &str) -> Option<PodUid> {
    let dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let uuid = || text.bytes().enumerate().all(|(at, byte)| if dash(at) { byte == b'-' } else { hex(byte) });
    let known = match text.len() {
        36 => uuid(),
        32 => text.bytes().all(hex),
        _ => false,
    };
    known.then(|| text.to_owned())
}

impl super::Partial for Cgroups {
    fn incomplete(&self) -> Option<&Unknown> {
        None
    }

    fn unread(&self) -> Option<&Unknown> {
        self.unread()
    }
}

impl super::partial::ListEntry for PodCgroup {
    fn unread(&self) -> Option<&Unknown> {
        self.unread()
    }
}

impl super::partial::ListEntry for PidCounts {
    fn unread(&self) -> Option<&Unknown> {
        self.unread()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";
    const SLICE: &str = "74dcc96c_be53_45c4_a46f_3809d56e9a65";
    const STATIC: &str = "5e5c0d6f8bd6b94a4ae5e0a0b3c2d1f0";
    const CONTAINER: &str = "0b1f60c0c4b1f4a1b44be7a3d3d7d6a9e3d4b0a5b2a9c8f7e6d5c4b3a2918070";

    #[test]
    fn both_drivers_name_the_pod() {
        for path in [
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice/cri-containerd-{CONTAINER}.scope"
            ),
            format!("/kubepods.slice/kubepods-pod{SLICE}.slice"),
            format!("/kubepods/burstable/pod{UID}/{CONTAINER}"),
            format!("/kubepods/pod{UID}"),
        ] {
            assert_eq!(pod_uid_of(&path).as_deref(), Some(UID), "{path}");
        }
    }

    #[test]
    fn a_prefix_does_not_matter() {
        for path in [
            format!("/../../kubepods-burstable-pod{SLICE}.slice/cri-containerd-{CONTAINER}.scope"),
            format!("/../../pod{UID}/{CONTAINER}"),
            format!("/docker/{CONTAINER}/kubelet/kubepods/burstable/pod{UID}/{CONTAINER}"),
            format!(
                "/system.slice/docker-{CONTAINER}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{SLICE}.slice/cri-containerd-{CONTAINER}.scope"
            ),
            format!(
                "/kubepods/pod{UID}/{CONTAINER}/kubelet/kubepods/podffffffff-be53-45c4-a46f-3809d56e9a65/{CONTAINER}"
            ),
        ] {
            assert_eq!(pod_uid_of(&path).as_deref(), Some(UID), "{path}");
        }
    }

    #[test]
    fn a_static_pod_has_the_hash_of_its_manifest() {
        for path in
            [format!("/kubepods/burstable/pod{STATIC}/{CONTAINER}"), format!("/x/kubepods-burstable-pod{STATIC}.slice")]
        {
            assert_eq!(pod_uid_of(&path).as_deref(), Some(STATIC), "{path}");
        }
    }

    #[test]
    fn a_runtime_with_the_other_driver_writes_pod_and_container_into_one_name() {
        let name = format!("kubepods-burstable-pod{SLICE}.slice:cri-containerd:{CONTAINER}");
        assert_eq!(pod_of_scope(&name), Some((UID.to_owned(), CONTAINER)));
        assert_eq!(pod_uid_of(&format!("/system.slice/containerd.service/{name}")).as_deref(), Some(UID));
        assert_eq!(container_id_of(&format!("/system.slice/containerd.service/{name}")), Some(CONTAINER));
        let scope = format!("/kubepods.slice/kubepods-pod{SLICE}.slice/cri-containerd-{CONTAINER}.scope/nested");
        assert_eq!(container_id_of(&scope), Some(CONTAINER));
        assert_eq!(container_id_of(&format!("/kubepods/pod{UID}/{CONTAINER}")), Some(CONTAINER));
        assert_eq!(container_id_of(&format!("/kubepods/pod{UID}")), None);
        for not in
            [format!("kubepods-pod{SLICE}.slice:x"), format!("kubepods-pod{SLICE}.slice:x:y"), "a.slice:b:c".into()]
        {
            assert_eq!(pod_of_scope(&not), None, "{not}");
        }
    }

    #[test]
    fn other_groups_are_no_ones_pod() {
        for path in [
            "",
            "/",
            "/..",
            "/system.slice/kubelet.service",
            "/kubepods.slice/kubepods-burstable.slice",
            "/kubepods/podinfo",
            "/kubepods/pod",
            "/machine.slice/libpod_pod_0b1f60c0c4b1f4a1b44be7a3d3d7d6a9e3d4b0a5b2a9c8f7e6d5c4b3a2918070",
            "/kubepods/pod74dcc96c-be53-45c4-a46f-3809d56e9a6",
            "/kubepods/pod74dcc96c_be53_45c4_a46f_3809d56e9a65",
            "/kubepods/pod74dcc96c-be53-45c4-a46f-3809d56e9a6\u{e9}",
            "/kubepods/pod74DCC96C-be53-45c4-a46f-3809d56e9a65",
        ] {
            assert_eq!(pod_uid_of(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_pod_has_a_uid_of_one_of_two_lengths(path in "(/|pod|-pod|\\.slice|[0-9a-f_-]{8}|\\PC){0,12}") {
            if let Some(uid) = pod_uid_of(&path) {
                prop_assert!(matches!(uid.len(), 32 | 36) && uid.is_ascii(), "{}", uid);
            }
        }
    }
}
