//! Whose limit it was.

use std::collections::BTreeMap;

use crate::facts::{CgroupLevel, PodUid, container_id_of, is_below, pod_of_scope, pod_uid_of};

/// Below these any user may make groups, under any name.
const OF_USERS: [&str; 2] = ["user.slice", "machine.slice"];

/// The level of a group's path, and the pod that it belongs to. Reserved groups are named by the kubelet's configuration and by where
/// it stands; where those are not known, by their usual names.
pub(super) fn level_of(path: &str, reserved: &BTreeMap<String, CgroupLevel>) -> (CgroupLevel, Option<PodUid>) {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let Some(top) = parts.first() else { return (CgroupLevel::Node, None) };
    if OF_USERS.contains(top) {
        return (CgroupLevel::Other, None);
    }
    if let Some((uid, _)) = parts.iter().find_map(|part| pod_of_scope(part)) {
        return (CgroupLevel::Container, Some(uid));
    }
    if let Some(base) = (1..=parts.len()).find(|n| parts.get(..*n).is_some_and(is_kubepods)) {
        return below_kubepods(path, parts.get(base..).unwrap_or_default());
    }
    let own = parts.join("/");
    let has = |group: &str| own == group || is_below(&own, group);
    let known = reserved.iter().filter(|(group, _)| has(group)).max_by_key(|(group, _)| group.len());
    // Docker, podman and others put a container that is not the kubelet's beside the services, as a scope.
    let in_scope = parts.last().is_some_and(|part| part.ends_with(".scope"));
    let usual = match *top {
        "system.slice" if in_scope => CgroupLevel::Other,
        "runtime.slice" | "kube.slice" | "kubelet.slice" | "podruntime.slice" | "runtime" | "kubelet"
        | "podruntime" => CgroupLevel::Runtime,
        "system.slice" | "system" => CgroupLevel::System,
        _ => CgroupLevel::Other,
    };
    (known.map_or(usual, |(_, level)| level.clone()), None)
}

/// Whether a group was made inside a container, as a runtime or systemd does that runs there: its limit is not the container's.
pub(super) fn is_inside_container(path: &str) -> bool {
    let Some(id) = container_id_of(path) else { return false };
    let inside = path.rsplit_once(id).and_then(|(_, rest)| rest.split_once('/')).map(|(_, inside)| inside);
    // With crun the container is in a group of this name, below the one that has its id.
    inside.is_some_and(|inside| !inside.is_empty() && inside != "container")
}

/// Whether a group is the one of all pods, at the top or below a `cgroupRoot` (`k8s.slice/k8s-kubepods.slice`, `k8s/kubepods`).
fn is_kubepods(parts: &[&str]) -> bool {
    let Some((last, before)) = parts.split_last() else { return false };
    let Some(stem) = last.strip_suffix(".slice") else {
        return *last == "kubepods" && before.iter().all(|name| !name.contains('.'));
    };
    let names: Vec<&str> = stem.split('-').collect();
    let is_level = |(part, n): (&&str, usize)| {
        let expected = names.get(..n).map(|names| names.join("-"));
        part.strip_suffix(".slice").map(str::to_owned) == expected
    };
    names.last() == Some(&"kubepods") && names.len() == parts.len() && parts.iter().zip(1..).all(is_level)
}

fn below_kubepods(path: &str, below: &[&str]) -> (CgroupLevel, Option<PodUid>) {
    let pod = pod_uid_of(path);
    let in_qos = below.first().is_some_and(|part| {
        part.ends_with("burstable.slice")
            || part.ends_with("besteffort.slice")
            || matches!(*part, "burstable" | "besteffort")
    });
    let level = match (below.len(), &pod) {
        (0, _) => CgroupLevel::Kubepods,
        (n, Some(_)) if n > 1 + usize::from(in_qos) => CgroupLevel::Container,
        (_, Some(_)) => CgroupLevel::Pod,
        (_, None) => CgroupLevel::Qos,
    };
    (level, pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_a_container_made_has_a_limit_of_its_own() {
        let pod = "/kubepods/pod74dcc96c-be53-45c4-a46f-3809d56e9a65";
        for (below, inside) in [
            ("", false),
            ("/aaaabbbbcccc", false),
            ("/aaaabbbbcccc/container", false),
            ("/aaaabbbbcccc/docker/ffff", true),
            ("/crio-aaaabbbbcccc.scope/system.slice/x.service", true),
        ] {
            assert_eq!(is_inside_container(&format!("{pod}{below}")), inside, "{below}");
        }
    }

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
            ("/k8s.slice/k8s-kubepods.slice", CgroupLevel::Kubepods, false),
            ("/k8s.slice/k8s-kubepods.slice/k8s-kubepods-besteffort.slice", CgroupLevel::Qos, false),
            (
                &format!("/k8s.slice/k8s-kubepods.slice/k8s-kubepods-burstable.slice/k8s-{slice}/crio-ab.scope"),
                CgroupLevel::Container,
                true,
            ),
            (&format!("/k8s/kubepods/besteffort/pod{uid}"), CgroupLevel::Pod, true),
            (
                &format!("/system.slice/containerd.service/{slice}:cri-containerd:0011223344"),
                CgroupLevel::Container,
                true,
            ),
            ("/user.slice/user-1000.slice/user@1000.service/kubepods.slice", CgroupLevel::Other, false),
            (&format!("/user.slice/user-1000.slice/kubepods/pod{uid}"), CgroupLevel::Other, false),
            ("/system.slice/docker-x.scope/kubelet.slice/kubelet-kubepods.slice", CgroupLevel::System, false),
            ("/podruntime.slice/crio.service", CgroupLevel::Runtime, false),
            ("/mine.slice/kubelet.service", CgroupLevel::Runtime, false),
            ("/mine.slices", CgroupLevel::Other, false),
            ("/", CgroupLevel::Node, false),
        ];
        for (path, level, in_pod) in cases {
            let reserved = [("mine.slice".to_owned(), CgroupLevel::Runtime)].into();
            let pod = in_pod.then(|| uid.to_owned());
            assert_eq!(level_of(path, &reserved), (level, pod), "{path}");
        }
    }
}
