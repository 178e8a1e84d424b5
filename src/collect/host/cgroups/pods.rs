//! One group for each pod, and one for each of its containers.

use std::collections::BTreeMap;

use super::files::Group;
use super::{Hierarchy, MOUNT, container_id, pod_uid, qos_group};
use crate::collect::host::root::{Folder, Root, below};
use crate::facts::{
    Cause, Cgroup, CgroupDriver, CgroupVersion, Inventory, OomCounts, PodCgroup, PodCgroups, PodUid, Qos, Unknown,
};

/// Reads every pod below `kubepods`: its memory, its OOM and pids counters and its containers' OOM counters.
///
/// # Errors
/// When there is no hierarchy or no `kubepods`, or `kubepods` cannot be listed. A pod that cannot be read makes the list incomplete.
pub fn pods(root: &Root) -> Result<PodCgroups, Unknown> {
    let tree = Hierarchy::find(root)?;
    let driver = tree.driver(root)?.ok_or_else(|| {
        let why = format!("no kubepods group below {}: no kubelet has started pods here", root.name(MOUNT));
        Unknown::new(Cause::Missing, why)
    })?;
    let mut walk = Walk { root, tree, driver, pods: Vec::new(), incomplete: None };
    for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
        match walk.class(qos) {
            // Only kubepods itself must be there; the other two come with their first pod.
            Err(unknown) if qos == Qos::Guaranteed => return Err(unknown),
            Err(unknown) => walk.note(unknown),
            Ok(()) => {}
        }
    }
    Ok(Inventory::with_incomplete(walk.pods, walk.incomplete))
}

struct Walk<'a> {
    root: &'a Root,
    tree: Hierarchy,
    driver: CgroupDriver,
    pods: Vec<(PodUid, PodCgroup)>,
    incomplete: Option<Unknown>,
}

impl Walk<'_> {
    fn class(&mut self, qos: Qos) -> Result<(), Unknown> {
        let group = qos_group(self.driver, qos);
        let folder = self.root.folder(&self.tree.memory_dir(group))?;
        for (name, uid) in groups(&folder, |name| pod_uid(self.driver, name))? {
            let pod = folder.folder(&name).and_then(|pod| self.pod(pod, below(group, &name), qos));
            match pod {
                Ok(pod) => self.pods.push((uid, pod)),
                Err(unknown) => self.note(unknown),
            }
        }
        Ok(())
    }

    /// What vanished between being listed and being read is gone, and nothing is missing.
    fn note(&mut self, unknown: Unknown) {
        if unknown.cause != Cause::Missing {
            self.incomplete.get_or_insert_with(|| Unknown::new(Cause::Incomplete, unknown.why));
        }
    }

    fn pod(&self, folder: Folder<'_>, path: String, qos: Qos) -> Result<PodCgroup, Unknown> {
        let mut containers = BTreeMap::new();
        let mut oom_unread = None;
        // What one file does not tell hides no other.
        let mut known = |counts: Result<Option<OomCounts>, Unknown>| {
            counts.unwrap_or_else(|why| {
                oom_unread.get_or_insert_with(|| Box::new(why));
                Some(OomCounts::default())
            })
        };
        for (name, id) in groups(&folder, |name| container_id(name).map(str::to_owned))? {
            let group = Group::Within(&folder, &name);
            if let Some(oom) = self.if_there(&group, known(group.own_oom(self.tree.version)))? {
                containers.insert(id, oom);
            }
        }
        let group = Group::Open(folder);
        let oom = self.if_there(&group, known(group.oom(self.tree.version)))?.ok_or_else(|| self.gone(&path))?;
        let mut cgroup = Cgroup { oom, ..Cgroup::default() };
        match self.tree.version {
            CgroupVersion::V1 => {
                cgroup.memory = group.number("memory.usage_in_bytes").into();
                group.cache(["total_inactive_file"], &mut cgroup);
            }
            CgroupVersion::V2 => {
                cgroup.memory = group.number("memory.current").into();
                group.cache(["inactive_file"], &mut cgroup);
            }
        }
        self.tree.pids(self.root, &group, &path, &mut cgroup);
        // Its files go with it.
        if cgroup.pids.unread().is_some_and(|why| why.cause == Cause::Missing) && !group.present(self.root)? {
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

/// The groups in a group that are wanted, with what they are wanted as.
fn groups(group: &Folder<'_>, wanted: impl Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>, Unknown> {
    let mut groups = Vec::new();
    group.each_directory(|name| groups.extend(wanted(name).map(|id| (name.to_owned(), id))))?;
    Ok(groups)
}
