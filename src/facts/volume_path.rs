//! What a path below the kubelet's directory says about a volume, from its names alone.

use serde::{Deserialize, Serialize};

use super::PodUid;

/// A place where the kubelet or a CSI driver mounts a volume.
///
/// The layouts are those of kubelet 1.24 and later; where an older one differs it is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "place")]
pub enum VolumePath {
    /// `plugins/kubernetes.io/csi/DRIVER/HASH/globalmount`, or a directory in it: the device itself is mounted here.
    Staging {
        /// CSI driver name.
        driver: String,
        /// Hexadecimal SHA-256 of the volume handle.
        handle_hash: String,
    },
    /// `plugins/kubernetes.io/csi/pv/PV/globalmount`: the same before 1.24.
    LegacyStaging {
        /// PersistentVolume name.
        pv: String,
    },
    /// `pods/UID/volumes/PLUGIN/NAME[/mount]`: what the pod's containers are given.
    Pod {
        /// The pod.
        pod: PodUid,
        /// Plugin directory, such as `kubernetes.io~csi`.
        plugin: String,
        /// PersistentVolume name, or the volume's name in the pod for ephemeral ones.
        name: String,
    },
    /// `pods/UID/volume-subpaths/VOLUME/CONTAINER/INDEX`.
    Subpath {
        /// The pod.
        pod: PodUid,
        /// PersistentVolume or volume name.
        name: String,
        /// Container name.
        container: String,
    },
    /// `pods/UID/volumeDevices/PLUGIN/PV` or `plugins/kubernetes.io/csi/volumeDevices/…`: a device node, not a filesystem.
    RawBlock {
        /// The pod, where the path names one.
        pod: Option<PodUid>,
        /// PersistentVolume name.
        pv: String,
    },
    /// `plugins/kubernetes.io~local-volume/volumeDevices/PV/UID`: the device node of a local PersistentVolume, a disk of the node's own.
    LocalBlock {
        /// The pod.
        pod: PodUid,
        /// PersistentVolume name.
        pv: String,
    },
    /// `plugins/kubernetes.io/PLUGIN/mounts/…/ID`: a device mount of an in-tree plugin.
    InTree {
        /// Plugin, such as `aws-ebs`.
        plugin: String,
        /// The last part of the path: a volume id.
        volume: String,
    },
}

impl VolumePath {
    /// Reads a path, given the kubelet's root directory without a slash at its end.
    #[must_use]
    pub fn parse(kubelet_root: &str, path: &str) -> Option<Self> {
        Self::parse_below(path.strip_prefix(kubelet_root)?.strip_prefix('/')?)
    }

    /// Reads a path below the kubelet's directory, without a slash at its head.
    #[must_use]
    pub fn parse_below(below: &str) -> Option<Self> {
        let parts: Vec<&str> = below.split('/').collect();
        match *parts.as_slice() {
            ["pods", pod, "volumes", plugin, name] | ["pods", pod, "volumes", plugin, name, "mount"] => {
                Some(Self::Pod { pod: pod.into(), plugin: plugin.into(), name: name.into() })
            }
            ["pods", pod, "volume-subpaths", name, container, _index] => {
                Some(Self::Subpath { pod: pod.into(), name: name.into(), container: container.into() })
            }
            ["pods", pod, "volumeDevices", _plugin, pv] => {
                Some(Self::RawBlock { pod: Some(pod.into()), pv: pv.into() })
            }
            ["plugins", "kubernetes.io~local-volume", "volumeDevices", pv, pod] => {
                Some(Self::LocalBlock { pod: pod.into(), pv: pv.into() })
            }
            ["plugins", "kubernetes.io", "csi", ref rest @ ..] => Self::csi(rest),
            ["plugins", "kubernetes.io", plugin, "mounts", .., volume] => {
                Some(Self::InTree { plugin: plugin.into(), volume: volume.into() })
            }
            _ => None,
        }
    }

    fn csi(parts: &[&str]) -> Option<Self> {
        match *parts {
            ["volumeDevices", "publish", pv, pod] | ["volumeDevices", pv, "dev", pod] => {
                Some(Self::RawBlock { pod: Some(pod.into()), pv: pv.into() })
            }
            ["volumeDevices", "publish" | "staging", pv] => Some(Self::RawBlock { pod: None, pv: pv.into() }),
            ["pv", pv, "globalmount"] => Some(Self::LegacyStaging { pv: pv.into() }),
            // Some drivers mount into a directory of their own in it (that of Ceph RBD).
            [driver, hash, "globalmount"] | [driver, hash, "globalmount", _] => {
                Some(Self::Staging { driver: driver.into(), handle_hash: hash.into() })
            }
            _ => None,
        }
    }

    /// The pod that the path names.
    #[must_use]
    pub fn pod(&self) -> Option<&PodUid> {
        match self {
            Self::Pod { pod, .. } | Self::Subpath { pod, .. } | Self::LocalBlock { pod, .. } => Some(pod),
            Self::RawBlock { pod, .. } => pod.as_ref(),
            Self::Staging { .. } | Self::LegacyStaging { .. } | Self::InTree { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBELET: &str = "/var/lib/kubelet";
    const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";

    fn parse(below: &str) -> Option<VolumePath> {
        VolumePath::parse(KUBELET, &format!("{KUBELET}/{below}"))
    }

    #[test]
    fn the_paths_of_a_real_node_are_understood() {
        let hash = "0716741166d0850117b90c3d6688532ba1540f0e1a0a88abb39e4599625e4fb7";
        assert_eq!(
            parse(&format!("plugins/kubernetes.io/csi/ebs.csi.aws.com/{hash}/globalmount")),
            Some(VolumePath::Staging { driver: "ebs.csi.aws.com".into(), handle_hash: hash.into() })
        );
        assert_eq!(
            parse(&format!("pods/{UID}/volumes/kubernetes.io~csi/pv-a/mount")),
            Some(VolumePath::Pod { pod: UID.into(), plugin: "kubernetes.io~csi".into(), name: "pv-a".into() })
        );
        assert_eq!(
            parse(&format!("pods/{UID}/volume-subpaths/pv-a/c/1")),
            Some(VolumePath::Subpath { pod: UID.into(), name: "pv-a".into(), container: "c".into() })
        );
        let raw = Some(VolumePath::RawBlock { pod: Some(UID.into()), pv: "pv-b".into() });
        assert_eq!(parse(&format!("plugins/kubernetes.io/csi/volumeDevices/publish/pv-b/{UID}")), raw);
        assert_eq!(parse(&format!("plugins/kubernetes.io/csi/volumeDevices/pv-b/dev/{UID}")), raw);
        assert_eq!(parse(&format!("pods/{UID}/volumeDevices/kubernetes.io~csi/pv-b")), raw);
        let local = VolumePath::LocalBlock { pod: UID.into(), pv: "pv-l".into() };
        assert_eq!(local.pod().map(String::as_str), Some(UID));
        assert_eq!(parse(&format!("plugins/kubernetes.io~local-volume/volumeDevices/pv-l/{UID}")), Some(local));
    }

    #[test]
    fn a_directory_that_a_driver_makes_in_its_staging_directory_is_staging_too() {
        let hash = "aa11bb22cc33dd44ee55ff66aa11bb22cc33dd44ee55ff66aa11bb22cc33dd44";
        let staging = VolumePath::Staging { driver: "rook-ceph.rbd.csi.ceph.com".into(), handle_hash: hash.into() };
        let below = format!("plugins/kubernetes.io/csi/rook-ceph.rbd.csi.ceph.com/{hash}/globalmount");
        assert_eq!(parse(&format!("{below}/0001-0009-rook-ceph-0000000000000002-img")), Some(staging));
        assert_eq!(parse(&format!("{below}/a/b")), None);
    }

    #[test]
    fn older_layouts_are_understood() {
        assert_eq!(
            parse("plugins/kubernetes.io/csi/pv/pv-a/globalmount"),
            Some(VolumePath::LegacyStaging { pv: "pv-a".into() })
        );
        assert_eq!(
            parse("plugins/kubernetes.io/aws-ebs/mounts/aws/us-east-1a/vol-0123"),
            Some(VolumePath::InTree { plugin: "aws-ebs".into(), volume: "vol-0123".into() })
        );
    }

    #[test]
    fn other_paths_are_no_ones_volume() {
        for below in [
            "",
            "pods",
            "pods/x/volumes",
            "plugins/kubernetes.io/csi",
            "plugins_registry/ebs.csi.aws.com-reg.sock",
            "plugins/kubernetes.io~local-volume/volumeDevices/pv-l",
            "plugins/kubernetes.io~local-volume/volumeDevices/pv-l/x/y",
        ] {
            assert_eq!(parse(below), None, "{below}");
        }
        assert_eq!(VolumePath::parse(KUBELET, "/var/lib/kubelet2/pods/x/volumes/p/n"), None);
        assert_eq!(VolumePath::parse(KUBELET, KUBELET), None);
    }
}
