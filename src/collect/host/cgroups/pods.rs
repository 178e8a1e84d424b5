//! One group for each pod, and one for each of its containers.

use std::collections::BTreeMap;

use super::files::Group;
use super::{Hierarchy, Kubepods, container_id, kubepods_of, pod_uid};
use crate::collect::host::root::{Folder, Root, below};
use crate::collect::kubelet::groups::Groups;
use crate::facts::{
    Cause, Cgroup, CgroupVersion, ContainerCgroup, Inventory, OomCounts, Part, PodCgroup, PodCgroups, PodUid, Qos,
    Unknown, pod_of_scope,
};

/// Where a runtime whose driver is not the kubelet's makes the groups of containers, where its process was not found: below its own.
const RUNTIMES: [&str; 4] = [
    "system.slice/containerd.service",
    "runtime.slice/containerd.service",
    "system.slice/crio.service",
    "runtime.slice/crio.service",
];

/// Reads every pod below `kubepods`, and containers that a runtime with the other driver made elsewhere: OOM and pids counters.
///
/// # Errors
/// When there is no hierarchy or no `kubepods`, or `kubepods` cannot be listed. A pod that cannot be read makes the list incomplete.
pub fn pods(root: &Root, groups: &Groups) -> Result<PodCgroups, Unknown> {
    let (tree, names) = kubepods_of(root, groups)?;
    let walk = Walk { root, tree };
    let dir = |group: &str| tree.memory_dir(group);
    let mut found = FoundPods::below(root, &names, dir, |pod, path, qos| walk.pod(pod, path, qos).map(Some))?;
    let usual = RUNTIMES.into_iter().filter(|_| groups.runtimes.is_empty());
    for runtime in groups.runtimes.iter().map(String::as_str).chain(usual) {
        if let Err(unknown) = walk.elsewhere(runtime, &mut found.pods) {
            found.note(unknown);
        }
    }
    Ok(found.inventory())
}

struct Walk<'a> {
    root: &'a Root,
    tree: Hierarchy,
}

/// Pods that were found, and why there may be more.
pub(super) struct FoundPods<P> {
    pods: Vec<(PodUid, P)>,
    incomplete: Option<Unknown>,
}

impl<P> FoundPods<P> {
    /// Reads each pod below `kubepods`, whose groups are in this hierarchy: by its folder, its path, and its class. Of one that went while it
    /// was read there is none.
    pub fn below(
        root: &Root,
        names: &Kubepods,
        dir: impl Fn(&str) -> String,
        read: impl Fn(Folder<'_>, String, Qos) -> Result<Option<P>, Unknown>,
    ) -> Result<Self, Unknown> {
        let mut found = Self { pods: Vec::new(), incomplete: None };
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            let group = names.class(qos);
            let listed = root.folder(&dir(&group)).and_then(|folder| {
                let pods = groups(&folder, |name| pod_uid(names.driver, name))?;
                Ok((folder, pods))
            });
            let (folder, pods) = match listed {
                Ok(listed) => listed,
                // Only kubepods itself must be there; the other two come with their first pod.
                Err(unknown) if qos == Qos::Guaranteed => return Err(unknown),
                Err(unknown) => {
                    found.note(unknown);
                    continue;
                }
            };
            for (name, uid) in pods {
                match folder.folder(&name).and_then(|pod| read(pod, below(&group, &name), qos)) {
                    Ok(Some(pod)) => found.pods.push((uid, pod)),
                    Ok(None) => {}
                    Err(unknown) => found.note(unknown),
                }
            }
        }
        Ok(found)
    }

    /// What vanished between being listed and being read is gone, and nothing is missing.
    fn note(&mut self, unknown: Unknown) {
        if unknown.cause != Cause::Missing {
            self.incomplete.get_or_insert_with(|| Unknown::new(Cause::Incomplete, unknown.why));
        }
    }

    pub fn inventory(self) -> Inventory<PodUid, P> {
        Inventory::with_incomplete(self.pods, self.incomplete)
    }
}

impl Walk<'_> {
    /// Containers below a runtime's own group, of pods that have a group of their own or none.
    fn elsewhere(&self, runtime: &str, pods: &mut Vec<(PodUid, PodCgroup)>) -> Result<(), Unknown> {
        let folder = self.root.folder(&self.tree.memory_dir(runtime))?;
        for (name, uid) in groups(&folder, |name| pod_of_scope(name).map(|(uid, _)| uid))? {
            let Some((_, id)) = pod_of_scope(&name) else { continue };
            let path = below(runtime, &name);
            let mut oom_unread = None;
            let Some(mut container) = self.container(&Group::Within(&folder, &name), &path, &mut oom_unread)? else {
                continue;
            };
            self.memory_of(&Group::Within(&folder, &name), &mut container);
            container.elsewhere = Some(path.clone());
            let pod = match pods.iter().position(|(known, _)| *known == uid) {
                Some(at) => pods.get_mut(at),
                None => {
                    let qos = if name.contains("-besteffort-") {
                        Qos::BestEffort
                    } else if name.contains("-burstable-") {
                        Qos::Burstable
                    } else {
                        Qos::Guaranteed
                    };
                    let (cgroup, containers) = (Cgroup::default(), BTreeMap::new());
                    pods.push((uid, PodCgroup { path, qos, cgroup, containers, oom_unread: None }));
                    pods.last_mut()
                }
            };
            if let Some((_, pod)) = pod {
                pod.containers.insert(id.to_owned(), container);
                pod.oom_unread = pod.oom_unread.take().or(oom_unread);
            }
        }
        Ok(())
    }

    /// None where it is gone. A file that cannot be read hides no other.
    fn container(
        &self,
        group: &Group<'_>,
        path: &str,
        oom_unread: &mut Option<Box<Unknown>>,
    ) -> Result<Option<ContainerCgroup>, Unknown> {
        let counts = known(group.own_oom(self.tree.version), oom_unread);
        let Some(oom) = self.if_there(group, counts)? else { return Ok(None) };
        let mut container = ContainerCgroup { oom, ..ContainerCgroup::default() };
        container.memory_max = group.limit(self.limit_file()).into();
        container.ids = match self.tree.version {
            CgroupVersion::V2 => group.pids_of_container(),
            CgroupVersion::V1 => Group::At(self.root, below(self.tree.pids, path)).pids_of_container(),
        };
        Ok(Some(container))
    }

    fn limit_file(&self) -> &'static str {
        match self.tree.version {
            CgroupVersion::V2 => "memory.max",
            CgroupVersion::V1 => "memory.limit_in_bytes",
        }
    }

    /// What a container with a limit uses.
    fn memory_of(&self, group: &Group<'_>, container: &mut ContainerCgroup) {
        if container.memory_max.is_absent() {
            return;
        }
        let mut cgroup = Cgroup::default();
        self.memory(group, &mut cgroup);
        (container.memory, container.inactive_file) = (cgroup.memory, cgroup.inactive_file);
    }

    fn memory(&self, group: &Group<'_>, cgroup: &mut Cgroup) {
        match self.tree.version {
            CgroupVersion::V1 => {
                cgroup.memory = group.number("memory.usage_in_bytes").into();
                group.cache(["total_inactive_file"], cgroup);
            }
            CgroupVersion::V2 => {
                cgroup.memory = group.number("memory.current").into();
                group.cache(["inactive_file"], cgroup);
            }
        }
    }

    fn pod(&self, folder: Folder<'_>, path: String, qos: Qos) -> Result<PodCgroup, Unknown> {
        let mut containers = BTreeMap::new();
        let mut oom_unread = None;
        let names = groups(&folder, |name| container_id(name).map(str::to_owned))?;
        for (name, id) in &names {
            let group = Group::Within(&folder, name);
            if let Some(container) = self.container(&group, &below(&path, name), &mut oom_unread)? {
                containers.insert(id.clone(), container);
            }
        }
        let group = Group::Open(folder);
        let counts = known(group.oom(self.tree.version), &mut oom_unread);
        let oom = self.if_there(&group, counts)?.ok_or_else(|| self.gone(&path))?;
        let mut cgroup = Cgroup { oom, ..Cgroup::default() };
        cgroup.memory_max = group.limit(self.limit_file()).into();
        self.memory(&group, &mut cgroup);
        // A container uses no more than its pod: where that is far from its limit, so is the container, and nothing more is read.
        for (name, id) in &names {
            let Some(container) = containers.get_mut(id) else { continue };
            if is_near(&cgroup, &container.memory_max) {
                let dir = below(&self.tree.memory_dir(&path), name);
                self.memory_of(&Group::At(self.root, dir), container);
            }
        }
        cgroup.ids = self.tree.pids(self.root, &group, &path);
        // Its files go with it.
        if cgroup.ids.pids.unread().is_some_and(|why| why.cause == Cause::Missing) && !group.present(self.root)? {
            return Err(self.gone(&path));
        }
        Ok(PodCgroup { path, qos, cgroup, containers, oom_unread })
    }

    fn gone(&self, group: &str) -> Unknown {
        let dir = self.tree.memory_dir(group);
        Unknown::new(Cause::Missing, format!("{} is not there", self.root.name(&dir)))
    }

    /// None where the group is gone. One that is there on a kernel without these counters has none of them.
    fn if_there(&self, group: &Group<'_>, counts: Option<OomCounts>) -> Result<Option<OomCounts>, Unknown> {
        match counts {
            Some(counts) => Ok(Some(counts)),
            None => Ok(group.present(self.root)?.then(OomCounts::default)),
        }
    }
}

/// Whether a pod may use three quarters of the limit of one of its containers; where that is not known, it may.
fn is_near(pod: &Cgroup, limit: &Part<u64>) -> bool {
    let Part::Known(limit) = limit else { return true };
    let (Part::Known(memory), Part::Known(cache)) = (&pod.memory, &pod.inactive_file) else { return true };
    memory.saturating_sub(*cache) / 3 >= limit / 4
}

fn known(counts: Result<Option<OomCounts>, Unknown>, oom_unread: &mut Option<Box<Unknown>>) -> Option<OomCounts> {
    counts.unwrap_or_else(|why| {
        oom_unread.get_or_insert_with(|| Box::new(why));
        Some(OomCounts::default())
    })
}

/// The groups in a group that are wanted, with what they are wanted as.
pub(super) fn groups(
    group: &Folder<'_>,
    wanted: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, Unknown> {
    let mut groups = Vec::new();
    group.each_directory(|name| groups.extend(wanted(name).map(|id| (name.to_owned(), id))))?;
    Ok(groups)
}
