//! What the name of a group's directory says.

use crate::facts::{CgroupDriver, PodUid, id_of_group};

/// The UID of the pod whose group has this name, as the API writes it.
///
/// systemd reads `-` as a level of its own, so the kubelet writes `_` for it. A static pod's UID is the hash of
/// its manifest and has neither.
#[must_use]
pub fn pod_uid(driver: CgroupDriver, name: &str) -> Option<PodUid> {
    let uid = match driver {
        CgroupDriver::Cgroupfs => name.strip_prefix("pod")?.to_owned(),
        CgroupDriver::Systemd => {
            // Below a `cgroupRoot` its names stand before: k8s-kubepods-podUID.slice.
            let (root, name) = name.strip_suffix(".slice")?.split_once("kubepods-")?;
            if !root.is_empty() && !root.ends_with('-') {
                return None;
            }
            let name = name.strip_prefix("burstable-").or_else(|| name.strip_prefix("besteffort-")).unwrap_or(name);
            name.strip_prefix("pod")?.replace('_', "-")
        }
    };
    Some(uid).filter(|uid| !uid.is_empty())
}

/// The id of the container whose group has this name; none where it is clearly no container's
/// (`crio-conmon-ID.scope`, a group that a container made in a group of its pod).
#[must_use]
pub fn container_id(name: &str) -> Option<&str> {
    id_of_group(name).filter(|_| !name.starts_with("crio-conmon-"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use CgroupDriver::{Cgroupfs, Systemd};

    const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";
    const HASH: &str = "9d1f6b0c2a7e4f5d8c3b1a0918273645";
    const ID: &str = "3f1c0f6e2b7a4d9c8e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5";

    #[test]
    fn a_pods_uid_has_its_dashes_back() {
        let escaped = UID.replace('-', "_");
        for class in ["", "burstable-", "besteffort-"] {
            let name = format!("kubepods-{class}pod{escaped}.slice");
            assert_eq!(pod_uid(Systemd, &name).as_deref(), Some(UID), "{name}");
            assert_eq!(pod_uid(Systemd, &format!("k8s-{name}")).as_deref(), Some(UID), "{name}");
            assert_eq!(pod_uid(Systemd, &format!("my{name}")), None);
        }
        assert_eq!(pod_uid(Cgroupfs, &format!("pod{UID}")).as_deref(), Some(UID));
    }

    #[test]
    fn a_static_pods_uid_is_its_hash() {
        assert_eq!(pod_uid(Systemd, &format!("kubepods-burstable-pod{HASH}.slice")).as_deref(), Some(HASH));
        assert_eq!(pod_uid(Cgroupfs, &format!("pod{HASH}")).as_deref(), Some(HASH));
    }

    #[test]
    fn other_groups_are_no_pods() {
        for name in ["kubepods-burstable.slice", "kubepods-pod.slice", "system.slice", "", "kubepods-podx", "pod"] {
            assert_eq!(pod_uid(Systemd, name), None, "{name}");
        }
        for name in ["burstable", "besteffort", "pod", ""] {
            assert_eq!(pod_uid(Cgroupfs, name), None, "{name}");
        }
    }

    #[test]
    fn each_runtimes_containers_are_known() {
        for name in [
            format!("cri-containerd-{ID}.scope"),
            format!("crio-{ID}.scope"),
            format!("docker-{ID}.scope"),
            ID.to_owned(),
        ] {
            assert_eq!(container_id(&name), Some(ID), "{name}");
        }
        for name in [&format!("crio-conmon-{ID}.scope"), "kubelet", "init.scope", "nested", "", ".scope", "-"] {
            assert_eq!(container_id(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_uid_survives_being_a_name(uid in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", any in ".*") {
            let name = format!("kubepods-besteffort-pod{}.slice", uid.replace('-', "_"));
            prop_assert_eq!(pod_uid(Systemd, &name), Some(uid));
            prop_assert!(container_id(&any).is_none_or(|id| any.contains(id)));
            let _ = (pod_uid(Systemd, &any), pod_uid(Cgroupfs, &any));
        }
    }
}
