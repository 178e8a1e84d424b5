//! Whose limit it was.

use crate::facts::{CgroupLevel, Cgroups, OomCounts, PodCgroup};

/// The level of a group's path, and the pod that it belongs to.
pub(super) fn level_of(path: &str) -> (CgroupLevel, Option<String>) {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let Some(base) = parts.iter().position(|part| matches!(*part, "kubepods" | "kubepods.slice")) else {
        return match parts.first() {
            Some(&"runtime.slice") => (CgroupLevel::Runtime, None),
            Some(&"system.slice") => (CgroupLevel::System, None),
            None => (CgroupLevel::Node, None),
            _ => (CgroupLevel::Other, None),
        };
    };
    let pod = crate::facts::pod_uid_of(path);
    let below = parts.len() - base - 1;
    let in_qos =
        parts.get(base + 1).is_some_and(|part| part.ends_with("burstable.slice") || part.ends_with("besteffort.slice"))
            || matches!(parts.get(base + 1), Some(&"burstable" | &"besteffort"));
    let level = match (below, &pod) {
        (0, _) => CgroupLevel::Kubepods,
        (n, Some(_)) if n > 1 + usize::from(in_qos) => CgroupLevel::Container,
        (_, Some(_)) => CgroupLevel::Pod,
        (_, None) => CgroupLevel::Qos,
    };
    (level, pod)
}

pub(super) fn kubepods_path(cgroups: &Cgroups) -> &'static str {
    match cgroups.driver {
        Some(crate::facts::CgroupDriver::Cgroupfs) => "/kubepods",
        _ => "/kubepods.slice",
    }
}

/// Whose limit was hit where a pod lost a process.
pub(super) enum Limit {
    /// That of a container, by its id where it is still there: a killed one is soon replaced.
    Container(Option<String>),
    /// The pod's own.
    Pod,
    /// None in the pod: it is only the victim.
    Above,
    /// cgroup v1 does not tell.
    Unknown,
}

pub(super) fn limit_hit(new: &PodCgroup, old: &PodCgroup) -> Limit {
    let hit = |new: &OomCounts, old: &OomCounts| grown(new.limit_hit, old.limit_hit) > 0;
    let container = new.containers.iter().find(|(id, new)| old.containers.get(*id).is_some_and(|old| hit(new, old)));
    let (own, before) = (&new.cgroup.oom, &old.cgroup.oom);
    match container {
        Some((id, _)) => Limit::Container(Some(id.clone())),
        None if hit(own, before) => Limit::Pod,
        None if grown(own.limit_hit_below, before.limit_hit_below) > 0 => Limit::Container(None),
        None if own.limit_hit.is_none() && own.limit_hit_below.is_none() => Limit::Unknown,
        None => Limit::Above,
    }
}

/// By how much a counter grew; one that is absent or went backwards has not.
pub(super) fn grown(new: Option<u64>, old: Option<u64>) -> u64 {
    new.zip(old).map_or(0, |(new, old)| new.saturating_sub(old))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_of_a_limit_is_read_from_its_path() {
        let uid = "74dcc96c-be53-45c4-a46f-3809d56e9a65";
        let slice = "kubepods-burstable-pod74dcc96c_be53_45c4_a46f_3809d56e9a65.slice";
        let cases = [
            ("/kubepods.slice", CgroupLevel::Kubepods, false),
            ("/kubepods.slice/kubepods-burstable.slice", CgroupLevel::Qos, false),
            (&format!("/kubepods.slice/kubepods-burstable.slice/{slice}"), CgroupLevel::Pod, true),
            (
                &format!("/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-ab.scope"),
                CgroupLevel::Container,
                true,
            ),
            (&format!("/kubepods/pod{uid}"), CgroupLevel::Pod, true),
            (&format!("/kubepods/pod{uid}/ab"), CgroupLevel::Container, true),
            (&format!("/kubepods/besteffort/pod{uid}"), CgroupLevel::Pod, true),
            ("/runtime.slice/containerd.service", CgroupLevel::Runtime, false),
            ("/system.slice/sshd.service", CgroupLevel::System, false),
            ("/user.slice", CgroupLevel::Other, false),
            ("/", CgroupLevel::Node, false),
        ];
        for (path, level, in_pod) in cases {
            let pod = in_pod.then(|| uid.to_owned());
            assert_eq!(level_of(path), (level, pod), "{path}");
        }
    }
}
