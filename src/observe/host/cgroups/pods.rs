//! One group for each pod, and one for each of its containers.

use std::collections::BTreeMap;

use super::files::{Files, Group};
use super::{Hierarchy, MOUNT, container_id, pod_uid, present, qos_group};
use crate::facts::{Cause, Cgroup, CgroupDriver, Inventory, OomCounts, PodCgroup, PodCgroups, PodUid, Qos, Unknown};
use crate::observe::host::root::Root;

/// Reads every pod below `kubepods`: its OOM and pids counters and its containers' OOM counters.
///
/// # Errors
/// When there is no hierarchy or no `kubepods`, or `kubepods` cannot be listed. A pod that cannot be read is a gap.
pub fn pods(root: &Root) -> Result<PodCgroups, Unknown> {
    let tree = Hierarchy::find(root)?;
    let driver = tree.driver(root)?.ok_or_else(|| {
        let why = format!("no kubepods group below {}: no kubelet has started pods here", root.name(MOUNT));
        Unknown::new(Cause::Missing, why)
    })?;
    let mut walk = Walk { root, tree, driver, files: Files::new(root), pods: BTreeMap::new(), gap: None };
    for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
        match walk.class(qos) {
            // Only kubepods itself must be there; the other two come with their first pod.
            Err(unknown) if qos == Qos::Guaranteed => return Err(unknown),
            Err(unknown) => walk.note(unknown),
            Ok(()) => {}
        }
    }
    Ok(Inventory::with_gap(walk.pods, walk.gap))
}

struct Walk<'a> {
    root: &'a Root,
    tree: Hierarchy,
    driver: CgroupDriver,
    files: Files<'a>,
    pods: BTreeMap<PodUid, PodCgroup>,
    gap: Option<Unknown>,
}

impl Walk<'_> {
    fn class(&mut self, qos: Qos) -> Result<(), Unknown> {
        let group = qos_group(self.driver, qos);
        let dir = self.tree.memory_dir(group);
        let Some(open) = Group::open(self.root, &dir)? else { return Err(self.gone(&dir)) };
        for (name, uid) in groups(&open, |name| pod_uid(self.driver, name))? {
            match self.pod(format!("{group}/{name}"), qos) {
                Ok(pod) => drop(self.pods.insert(uid, pod)),
                Err(unknown) => self.note(unknown),
            }
        }
        Ok(())
    }

    /// What vanished between being listed and being read is gone, and no gap.
    fn note(&mut self, unknown: Unknown) {
        if unknown.cause != Cause::Missing {
            self.gap.get_or_insert_with(|| Unknown::new(Cause::Incomplete, unknown.why));
        }
    }

    fn pod(&mut self, path: String, qos: Qos) -> Result<PodCgroup, Unknown> {
        let dir = self.tree.memory_dir(&path);
        let Some(group) = Group::open(self.root, &dir)? else { return Err(self.gone(&dir)) };
        let mut containers = BTreeMap::new();
        for (name, id) in groups(&group, |name| container_id(name).map(str::to_owned))? {
            if let Some(oom) = self.own_oom(&format!("{dir}/{name}"))? {
                containers.insert(id, oom);
            }
        }
        let oom = self.oom(&group)?.ok_or_else(|| self.gone(&dir))?;
        let mut cgroup = Cgroup { oom, ..Cgroup::default() };
        self.tree.pids(&mut self.files, &group, &path, &mut cgroup)?;
        Ok(PodCgroup { path, qos, cgroup, containers })
    }

    fn gone(&self, dir: &str) -> Unknown {
        Unknown::new(Cause::Missing, format!("{} is not there", self.root.name(dir)))
    }

    /// A pod's OOM counters, with those of containers that may be gone by now.
    fn oom(&mut self, group: &Group<'_>) -> Result<Option<OomCounts>, Unknown> {
        let counts = self.files.oom(self.tree.version, group)?;
        self.if_there(group.path(), counts)
    }

    /// A container's own OOM counters.
    fn own_oom(&mut self, dir: &str) -> Result<Option<OomCounts>, Unknown> {
        let counts = self.files.own_oom(self.tree.version, &Group::at(dir))?;
        self.if_there(dir, counts)
    }

    /// None where the group is gone. One that is there on a kernel without these counters has none of them.
    fn if_there(&self, dir: &str, counts: Option<OomCounts>) -> Result<Option<OomCounts>, Unknown> {
        match counts {
            Some(counts) => Ok(Some(counts)),
            None => Ok(present(self.root, dir)?.then(OomCounts::default)),
        }
    }
}

/// The groups in a group that are wanted, with what they are wanted as.
fn groups(group: &Group<'_>, wanted: impl Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>, Unknown> {
    let mut groups = Vec::new();
    group.each(|name| groups.extend(wanted(name).map(|id| (name.to_owned(), id))))?;
    Ok(groups)
}
