//! Control groups: the levels above the pods, and the pods.

mod files;
mod names;
mod pods;

use std::collections::BTreeMap;

pub use files::{parse_flat_keyed, parse_limit, parse_number};
pub use names::{container_id, pod_uid};
pub use pods::pods;

use super::root::{Root, below};
use crate::facts::{
    Cause, Cgroup, CgroupDriver, CgroupLevel, CgroupVersion, Cgroups, OomCounts, Qos, RootMemory, Unknown,
};
use files::Group;

/// Where every hierarchy is mounted.
const MOUNT: &str = "sys/fs/cgroup";

/// Where the memory and pids controllers of this machine are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hierarchy {
    version: CgroupVersion,
    memory: &'static str,
    pids: &'static str,
}

impl Hierarchy {
    const V2: Self = Self { version: CgroupVersion::V2, memory: MOUNT, pids: MOUNT };
    const V1: Self = Self { version: CgroupVersion::V1, memory: "sys/fs/cgroup/memory", pids: "sys/fs/cgroup/pids" };

    /// v2 says so by `cgroup.controllers` in its root. A hybrid machine has its memory in v1, and is v1 for us.
    fn find(root: &Root) -> Result<Self, Unknown> {
        if present(root, "sys/fs/cgroup/cgroup.controllers")? {
            return Ok(Self::V2);
        }
        if present(root, Self::V1.memory)? {
            return Ok(Self::V1);
        }
        let why = format!(
            "no cgroup hierarchy at {}: expected cgroup.controllers (v2) or a directory memory (v1)",
            root.name(MOUNT)
        );
        Err(Unknown::new(Cause::Missing, why))
    }

    fn memory_dir(self, group: &str) -> String {
        below(self.memory, group)
    }

    /// The pids files of a group, which is open: of version 2 it has them itself.
    fn pids(self, root: &Root, open: &Group<'_>, name: &str, into: &mut Cgroup) {
        match self.version {
            CgroupVersion::V2 => open.pids(into),
            CgroupVersion::V1 => Group::At(root, below(self.pids, name)).pids(into),
        }
    }

    /// Which of the two names `kubepods` has here; none where no kubelet has started pods.
    fn driver(self, root: &Root) -> Result<Option<CgroupDriver>, Unknown> {
        for driver in [CgroupDriver::Systemd, CgroupDriver::Cgroupfs] {
            if present(root, &self.memory_dir(kubepods_group(driver)))? {
                return Ok(Some(driver));
            }
        }
        Ok(None)
    }
}

/// Whether it is there; that this could not be found out is not the same as no.
fn present(root: &Root, path: &str) -> Result<bool, Unknown> {
    match root.handle(path) {
        Ok(_) => Ok(true),
        Err(unknown) if unknown.cause == Cause::Missing => Ok(false),
        Err(unknown) => Err(unknown),
    }
}

fn kubepods_group(driver: CgroupDriver) -> &'static str {
    match driver {
        CgroupDriver::Systemd => "kubepods.slice",
        CgroupDriver::Cgroupfs => "kubepods",
    }
}

/// The group whose children are the pods of this class.
fn qos_group(driver: CgroupDriver, qos: Qos) -> &'static str {
    match (driver, qos) {
        (_, Qos::Guaranteed) => kubepods_group(driver),
        (CgroupDriver::Systemd, Qos::Burstable) => "kubepods.slice/kubepods-burstable.slice",
        (CgroupDriver::Systemd, Qos::BestEffort) => "kubepods.slice/kubepods-besteffort.slice",
        (CgroupDriver::Cgroupfs, Qos::Burstable) => "kubepods/burstable",
        (CgroupDriver::Cgroupfs, Qos::BestEffort) => "kubepods/besteffort",
    }
}

/// Reads the root group, `kubepods`, its QoS groups and the system's slices. Groups are named by their path
/// below the root of the hierarchy, without a slash at its head.
///
/// # Errors
/// When no hierarchy is there, or which one it is cannot be found out. A file that cannot be read hides nothing but
/// what stands in it.
pub fn levels(root: &Root) -> Result<Cgroups, Unknown> {
    let tree = Hierarchy::find(root)?;
    let driver = tree.driver(root)?;
    let mut look = Levels { root, tree, others: BTreeMap::new(), oom_unread: None };
    if let Some(driver) = driver {
        for qos in [Qos::Burstable, Qos::BestEffort] {
            look.qos(qos_group(driver, qos));
        }
    }
    look.slice("runtime.slice", CgroupLevel::Runtime);
    look.slice("system.slice", CgroupLevel::System);
    let kubepods = driver.map(|driver| look.kubepods(kubepods_group(driver)));
    Ok(Cgroups {
        version: tree.version,
        driver,
        root: look.root_memory().into(),
        kubepods,
        others: look.others,
        oom_unread: look.oom_unread.map(Box::new),
    })
}

struct Levels<'a> {
    root: &'a Root,
    tree: Hierarchy,
    others: BTreeMap<String, (CgroupLevel, Cgroup)>,
    oom_unread: Option<Unknown>,
}

impl Levels<'_> {
    /// The root group of v2 has no `memory.current`: the kubelet takes anon + file instead, and so do we.
    fn root_memory(&self) -> Result<Option<RootMemory>, Unknown> {
        let top = Group::At(self.root, self.tree.memory.to_owned());
        if self.tree.version == CgroupVersion::V1 {
            let usage = top.number("memory.usage_in_bytes")?;
            let inactive = top.required("memory.stat", ["total_inactive_file"])?;
            return Ok(usage.zip(inactive).map(|(usage, [inactive_file])| RootMemory { usage, inactive_file }));
        }
        // Kernels before 5.8 or so have no memory.stat in the root group.
        let stat = top.required("memory.stat", ["anon", "file", "inactive_file"])?;
        Ok(stat.map(|[anon, file, inactive_file]| RootMemory { usage: anon.saturating_add(file), inactive_file }))
    }

    fn kubepods(&mut self, name: &str) -> Cgroup {
        let dir = self.tree.memory_dir(name);
        let group = match Group::open(self.root, &dir) {
            Ok(Some(group)) => group,
            // Each of its files says then what is wrong.
            Ok(None) | Err(_) => Group::At(self.root, dir),
        };
        let mut cgroup = Cgroup { oom: self.oom(&group), ..Cgroup::default() };
        match self.tree.version {
            CgroupVersion::V1 => {
                cgroup.memory = group.number("memory.usage_in_bytes").into();
                group.cache(["total_inactive_file", "total_cache", "total_shmem"], &mut cgroup);
                cgroup.memory_max = group.limit("memory.limit_in_bytes").into();
            }
            CgroupVersion::V2 => {
                cgroup.memory = group.number("memory.current").into();
                group.cache(["inactive_file", "file", "shmem", "slab_reclaimable"], &mut cgroup);
                cgroup.memory_max = group.limit("memory.max").into();
                cgroup.memory_pressure = group.pressure().into();
            }
        }
        self.tree.pids(self.root, &group, name, &mut cgroup);
        cgroup
    }

    fn oom(&mut self, group: &Group<'_>) -> OomCounts {
        match group.oom(self.tree.version) {
            Ok(counts) => counts.unwrap_or_default(),
            Err(why) => {
                self.oom_unread.get_or_insert(why);
                OomCounts::default()
            }
        }
    }

    fn qos(&mut self, name: &str) {
        match Group::open(self.root, &self.tree.memory_dir(name)) {
            Ok(Some(group)) => {
                let cgroup = Cgroup { oom: self.oom(&group), ..Cgroup::default() };
                self.others.insert(name.to_owned(), (CgroupLevel::Qos, cgroup));
            }
            Ok(None) => {}
            Err(why) => drop(self.oom_unread.get_or_insert(why)),
        }
    }

    fn slice(&mut self, name: &str, level: CgroupLevel) {
        match Group::open(self.root, &self.tree.memory_dir(name)) {
            Ok(Some(group)) => {
                let mut cgroup = Cgroup { oom: self.oom(&group), ..Cgroup::default() };
                self.tree.pids(self.root, &group, name, &mut cgroup);
                self.others.insert(name.to_owned(), (level, cgroup));
            }
            Ok(None) => {}
            Err(why) => drop(self.oom_unread.get_or_insert(why)),
        }
    }
}

#[cfg(test)]
mod tests;
