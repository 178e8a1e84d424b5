//! Control groups: the levels above the pods, and the pods.

mod cpu;
mod files;
mod names;
mod pods;
mod services;

use std::collections::BTreeMap;

pub use cpu::{parse_cpu_max, pod_cpus};
pub use files::{parse_flat_keyed, parse_limit, parse_number};
pub use names::{container_id, pod_uid};
pub use pods::pods;
pub use services::services;

use super::root::{Root, below};
use crate::collect::kubelet::groups::{Groups, systemd_path};
use crate::facts::{
    Cause, Cgroup, CgroupDriver, CgroupLevel, CgroupVersion, Cgroups, OomCounts, PidCounts, Qos, RootMemory, Unknown,
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
    fn pids(self, root: &Root, open: &Group<'_>, name: &str) -> PidCounts {
        match self.version {
            CgroupVersion::V2 => open.pids(),
            CgroupVersion::V1 => Group::At(root, below(self.pids, name)).pids(),
        }
    }

    /// Where the kubelet's groups stand; none where no kubelet has started pods. Groups at the top count where none are below the
    /// root that is configured: the kubelet may not run yet.
    fn kubepods(self, root: &Root, cgroup_root: &str) -> Result<Option<Kubepods>, Unknown> {
        for below in [Some(cgroup_root).filter(|path| !path.is_empty()), Some("")].into_iter().flatten() {
            for kubepods in [Kubepods::of_systemd(below), Kubepods::of_cgroupfs(below)] {
                if present(root, &self.memory_dir(&kubepods.path))? {
                    return Ok(Some(kubepods));
                }
            }
        }
        Ok(None)
    }
}

/// The hierarchy, and where the kubelet's groups are in it, for what reads pods alone.
///
/// # Errors
/// When no kubelet has started pods, or that cannot be found out.
fn kubepods_of(root: &Root, groups: &Groups) -> Result<(Hierarchy, Kubepods), Unknown> {
    let tree = Hierarchy::find(root)?;
    let names = tree.kubepods(root, &groups.cgroup_root)?.ok_or_else(|| {
        let why = format!("no kubepods group below {}: no kubelet has started pods here", root.name(MOUNT));
        Unknown::new(Cause::Missing, why)
    })?;
    Ok((tree, names))
}

/// Whether it is there; that this could not be found out is not the same as no.
fn present(root: &Root, path: &str) -> Result<bool, Unknown> {
    match root.handle(path) {
        Ok(_) => Ok(true),
        Err(unknown) if unknown.cause == Cause::Missing => Ok(false),
        Err(unknown) => Err(unknown),
    }
}

/// The kubelet's groups: how they are named, and where.
#[derive(Debug)]
struct Kubepods {
    driver: CgroupDriver,
    /// Below the root of the hierarchy.
    path: String,
    /// What the names below it begin with, of systemd's.
    stem: String,
}

impl Kubepods {
    fn of_systemd(cgroup_root: &str) -> Self {
        // A dash in a name would be a level of its own.
        let names: Vec<String> = cgroup_root.split('/').map(|name| name.replace('-', "_")).collect();
        let path = systemd_path(names.iter().map(String::as_str).chain(["kubepods"]));
        let last = path.rsplit('/').next().unwrap_or_default();
        let stem = last.strip_suffix(".slice").unwrap_or(last).to_owned();
        Self { driver: CgroupDriver::Systemd, path, stem }
    }

    fn of_cgroupfs(cgroup_root: &str) -> Self {
        let path = if cgroup_root.is_empty() { "kubepods".to_owned() } else { below(cgroup_root, "kubepods") };
        Self { driver: CgroupDriver::Cgroupfs, path, stem: String::new() }
    }

    /// The group whose children are the pods of this class.
    fn class(&self, qos: Qos) -> String {
        let name = match qos {
            Qos::Guaranteed => return self.path.clone(),
            Qos::Burstable => "burstable",
            Qos::BestEffort => "besteffort",
        };
        match self.driver {
            CgroupDriver::Systemd => format!("{}/{}-{name}.slice", self.path, self.stem),
            CgroupDriver::Cgroupfs => format!("{}/{name}", self.path),
        }
    }
}

/// Reads the root group, `kubepods`, its QoS groups and the system's slices. Groups are named by their path
/// below the root of the hierarchy, without a slash at its head.
///
/// # Errors
/// When no hierarchy is there, or which one it is cannot be found out. A file that cannot be read hides nothing but
/// what stands in it.
pub fn levels(root: &Root, groups: &Groups) -> Result<Cgroups, Unknown> {
    let tree = Hierarchy::find(root)?;
    let names = tree.kubepods(root, &groups.cgroup_root)?;
    let mut look = Levels { root, tree, others: BTreeMap::new(), oom_unread: None };
    if let Some(names) = &names {
        for qos in [Qos::Burstable, Qos::BestEffort] {
            look.qos(&names.class(qos));
        }
    }
    look.slice("runtime.slice", CgroupLevel::Runtime);
    look.slice("system.slice", CgroupLevel::System);
    for (path, level) in &groups.reserved {
        look.slice(path, level.clone());
    }
    let kubepods = names.as_ref().map(|names| look.kubepods(&names.path));
    let is_usual = |path: &String| matches!(path.as_str(), "kubepods" | "kubepods.slice");
    Ok(Cgroups {
        version: tree.version,
        driver: names.as_ref().map(|names| names.driver),
        root: look.root_memory().into(),
        kubepods,
        others: look.others,
        oom_unread: look.oom_unread.map(Box::new),
        kubepods_path: names.map(|names| names.path).filter(|path| !is_usual(path)),
        reserved: groups.reserved.clone(),
        reserved_unread: groups.unread.clone().map(Box::new),
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
                cgroup.memory_max = group.limit_of_kubepods("memory.limit_in_bytes").into();
            }
            CgroupVersion::V2 => {
                cgroup.memory = group.number("memory.current").into();
                group.cache(["inactive_file", "file", "shmem", "slab_reclaimable"], &mut cgroup);
                cgroup.memory_max = group.limit_of_kubepods("memory.max").into();
                cgroup.memory_pressure = group.pressure().into();
            }
        }
        cgroup.ids = self.tree.pids(self.root, &group, name);
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
        if self.others.contains_key(name) {
            return;
        }
        match Group::open(self.root, &self.tree.memory_dir(name)) {
            Ok(Some(group)) => {
                let mut cgroup = Cgroup { oom: self.oom(&group), ..Cgroup::default() };
                cgroup.ids = self.tree.pids(self.root, &group, name);
                self.others.insert(name.to_owned(), (level, cgroup));
            }
            Ok(None) => {}
            Err(why) => drop(self.oom_unread.get_or_insert(why)),
        }
    }
}

super::read_from_host! {
    Cgroups: |host, _| levels(&host.root, &host.groups);
    PodCgroups: |host, _| pods(&host.root, &host.groups);
    PodCpu: |host, _| pod_cpus(&host.root, &host.groups);
    ServiceCgroups: |host, _| services(&host.root, &host.groups);
}

#[cfg(test)]
mod tests;
