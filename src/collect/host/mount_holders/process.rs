//! A process as a holder: its name, its control group and its pod.

use super::Search;
use crate::collect::host::root::Root;
use crate::facts::{HeldBy, MountHolder, pod_uid_of};

/// No path of a mount is longer, but for what a process makes of it.
const MAX_POINT: usize = 4096;

/// Levels of a control group that is no pod's, by which it is an owner.
const OWNER_LEVELS: usize = 3;

impl Search<'_> {
    /// The number of the pod that a process is of, else of its control group's upper levels: a session of a user or a service.
    pub(super) fn owner(&mut self, pid: u32) -> usize {
        let cgroup = self.root.bytes(&format!("proc/{pid}/cgroup")).ok().and_then(|bytes| parse_cgroup(&bytes));
        let cgroup = from_root(&cgroup.unwrap_or_default(), &self.first);
        let name =
            pod_uid_of(&cgroup).unwrap_or_else(|| cgroup.split('/').take(OWNER_LEVELS).collect::<Vec<_>>().join("/"));
        let next = self.owners.len();
        *self.owners.entry(name).or_insert(next)
    }
}

/// A process that holds something at a path.
pub(super) fn holder(root: &Root, first: &str, pid: u32, mut point: String, by: HeldBy) -> MountHolder {
    point.truncate(point.floor_char_boundary(MAX_POINT));
    let command = root.text(&format!("proc/{pid}/comm")).unwrap_or_default();
    let cgroup = root.bytes(&format!("proc/{pid}/cgroup")).ok().and_then(|bytes| parse_cgroup(&bytes));
    let cgroup = cgroup.map(|cgroup| from_root(&cgroup, first));
    let pod = cgroup.as_deref().and_then(pod_uid_of);
    MountHolder { pid, command, cgroup, pod, point, by }
}

/// A group's path from the root of its hierarchy. A container sees paths from its own group on, with `/..` at their head
/// for each level up; as many as the first process's path has lead to the root. With fewer of them the levels that it
/// shares with our own group stay untold.
#[must_use]
pub fn from_root(path: &str, first: &str) -> String {
    let rise = |path: &str| path.split('/').skip(1).take_while(|part| *part == "..").count();
    let up = rise(path);
    if up == 0 || up != rise(first) {
        return path.to_owned();
    }
    let below: Vec<&str> = path.split('/').skip(up.saturating_add(1)).collect();
    format!("/{}", below.join("/"))
}

/// The group of a process, from `/proc/PID/cgroup`: where it is accounted for memory, else where systemd has it,
/// else its place in the one hierarchy of version 2.
#[must_use]
pub fn parse_cgroup(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let line = |wanted: &str| {
        text.lines().find_map(|line| {
            let (_number, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|controller| controller == wanted).then_some(path)
        })
    };
    let path = line("memory").or_else(|| line("name=systemd")).or_else(|| line(""))?;
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.starts_with('/').then(|| path.to_owned())
}
