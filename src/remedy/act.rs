//! The acts: typed, and each with everything that its object is compared by.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::{DevId, MountEntry, MountId, PodUid, VolumePath, pod_uid_of};
use crate::finding::Kind;

/// Bytes of a path. The kernel takes no longer ones.
const MAX_PATH: usize = 4096;

/// One act on one object of this node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Unmount one path of a pod that is gone.
    UnmountPodPath(UnmountPodPath),
    /// Remove the directory of a pod that is gone, where nothing but empty directories is in it.
    RemoveEmptyPodDirectory(RemoveEmptyPodDirectory),
}

/// A mount by everything that distinguishes it from another one at the same path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UnmountPodPath {
    /// The pod that it was mounted for.
    pub pod: PodUid,
    /// The mount point, as the host's mount table has it.
    pub path: String,
    /// The kernel's number of the mount.
    pub mount_id: MountId,
    /// The device that carries the filesystem.
    pub device: DevId,
    /// What of the filesystem is mounted.
    pub root: String,
}

/// The directory of a pod below the kubelet's `pods`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RemoveEmptyPodDirectory {
    /// The pod.
    pub pod: PodUid,
}

/// What sort of act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActKind {
    /// [`Act::UnmountPodPath`]
    UnmountPodPath,
    /// [`Act::RemoveEmptyPodDirectory`]
    RemoveEmptyPodDirectory,
}

impl ActKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::UnmountPodPath, Self::RemoveEmptyPodDirectory];

    /// The name in metrics, the journal and settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UnmountPodPath => "unmount-pod-path",
            Self::RemoveEmptyPodDirectory => "remove-empty-pod-directory",
        }
    }

    /// The kind of finding that it remedies.
    #[must_use]
    pub fn finding(self) -> Kind {
        match self {
            Self::UnmountPodPath => Kind::StuckUnmount,
            Self::RemoveEmptyPodDirectory => Kind::OrphanedPodDirectory,
        }
    }
}

impl Act {
    /// What sort of act it is.
    #[must_use]
    pub fn kind(&self) -> ActKind {
        match self {
            Self::UnmountPodPath(_) => ActKind::UnmountPodPath,
            Self::RemoveEmptyPodDirectory(_) => ActKind::RemoveEmptyPodDirectory,
        }
    }

    /// The pod that it is about.
    #[must_use]
    pub fn pod(&self) -> &PodUid {
        match self {
            Self::UnmountPodPath(act) => &act.pod,
            Self::RemoveEmptyPodDirectory(act) => &act.pod,
        }
    }

    /// Whether it is about something that this program ever touches, by its form alone.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_form(&self, kubelet_root: &str) -> Result<(), String> {
        check_uid(self.pod())?;
        match self {
            Self::UnmountPodPath(act) => act.check_form(kubelet_root),
            Self::RemoveEmptyPodDirectory(_) => Ok(()),
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnmountPodPath(act) => {
                write!(f, "unmount {} (mount {}, device {}) of pod {}", act.path, act.mount_id, act.device, act.pod)
            }
            Self::RemoveEmptyPodDirectory(act) => write!(f, "remove the empty directory of pod {}", act.pod),
        }
    }
}

impl UnmountPodPath {
    /// The unmount of this entry of the mount table.
    #[must_use]
    pub fn of(pod: &PodUid, id: MountId, mount: &MountEntry) -> Self {
        Self {
            pod: pod.clone(),
            path: mount.point.to_string(),
            mount_id: id,
            device: mount.dev,
            root: mount.root.to_string(),
        }
    }

    /// Whether it is this entry of the mount table.
    #[must_use]
    pub fn is(&self, id: MountId, mount: &MountEntry) -> bool {
        self.mount_id == id && self.path == *mount.point && self.device == mount.dev && self.root == *mount.root
    }

    fn check_form(&self, kubelet_root: &str) -> Result<(), String> {
        if self.path.len() > MAX_PATH || self.root.len() > MAX_PATH {
            return Err(format!("a path is longer than {MAX_PATH} bytes"));
        }
        if !is_plain(&self.path) || !is_plain(&self.root) {
            return Err("a path is not absolute, or has an empty part, a dot part or a control character".to_owned());
        }
        match VolumePath::parse(kubelet_root, &self.path) {
            Some(VolumePath::Pod { pod, .. } | VolumePath::Subpath { pod, .. }) if pod == self.pod => {}
            _ => return Err(format!("the path is no volume or subpath of this pod below {kubelet_root}/pods")),
        }
        match self.device.major {
            0 => Err("the mount has no block device".to_owned()),
            _ => Ok(()),
        }
    }
}

/// A pod's UID has one of two forms; anything else could lead out of the kubelet's directory.
fn check_uid(uid: &str) -> Result<(), String> {
    match pod_uid_of(&format!("pod{uid}")) {
        Some(read) if read == uid => Ok(()),
        _ => Err("expected a pod UID: a UUID in small letters, or 32 hexadecimal digits".to_owned()),
    }
}

/// Whether a path is absolute, leads nowhere else by its own parts, and can stand in a line of text.
fn is_plain(path: &str) -> bool {
    let parts = |rest: &str| rest.is_empty() || rest.split('/').all(|part| !matches!(part, "" | "." | ".."));
    path.strip_prefix('/').is_some_and(parts) && !path.chars().any(char::is_control)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub const KUBELET: &str = "/var/lib/kubelet";
    pub const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";

    pub fn unmount() -> UnmountPodPath {
        UnmountPodPath {
            pod: UID.to_owned(),
            path: format!("{KUBELET}/pods/{UID}/volumes/kubernetes.io~csi/pv-a/mount"),
            mount_id: 101,
            device: DevId { major: 259, minor: 2 },
            root: "/".to_owned(),
        }
    }

    #[test]
    fn an_act_reads_back_as_it_was_written() {
        let acts = [
            Act::UnmountPodPath(unmount()),
            Act::RemoveEmptyPodDirectory(RemoveEmptyPodDirectory { pod: UID.to_owned() }),
        ];
        for act in acts {
            let text = serde_json::to_string(&act).unwrap();
            assert!(text.contains(act.kind().name()), "{text}");
            assert_eq!(serde_json::from_str::<Act>(&text).unwrap(), act);
            assert_eq!(act.check_form(KUBELET), Ok(()));
        }
    }

    #[test]
    fn what_is_no_path_of_the_pod_is_refused_by_its_form() {
        let below = |rest: &str| UnmountPodPath { path: format!("{KUBELET}/{rest}"), ..unmount() };
        let other = "11111111-be53-45c4-a46f-3809d56e9a65";
        for bad in [
            below("plugins/kubernetes.io/csi/ebs.csi.aws.com/0716/globalmount"),
            below(&format!("pods/{other}/volumes/kubernetes.io~csi/pv-a/mount")),
            below(&format!("pods/{UID}/volumes/../volumes/pv-a")),
            below(&format!("pods/{UID}/volumes//pv-a")),
            below(&format!("pods/{UID}/volumes/kubernetes.io~csi/pv-a/mount/deeper")),
            below(&format!("pods/{UID}/volumeDevices/kubernetes.io~csi/pv-a")),
            below(&format!("pods/{UID}/volumes/kubernetes.io~csi/pv\na/mount")),
            below("pods"),
            UnmountPodPath { path: "/".to_owned(), ..unmount() },
            UnmountPodPath { path: "relative".to_owned(), ..unmount() },
            UnmountPodPath { pod: "..".to_owned(), ..unmount() },
            UnmountPodPath { pod: UID.to_uppercase(), ..unmount() },
            UnmountPodPath { device: DevId { major: 0, minor: 40 }, ..unmount() },
            UnmountPodPath { root: "/../x".to_owned(), ..unmount() },
            UnmountPodPath { path: format!("/{}", "x".repeat(MAX_PATH)), ..unmount() },
        ] {
            assert!(Act::UnmountPodPath(bad.clone()).check_form(KUBELET).is_err(), "{bad:?}");
        }
        for pod in ["", "../..", "x", "74dcc96c", &"0".repeat(31)] {
            let act = Act::RemoveEmptyPodDirectory(RemoveEmptyPodDirectory { pod: pod.to_owned() });
            assert!(act.check_form(KUBELET).is_err(), "{pod}");
        }
    }
}
