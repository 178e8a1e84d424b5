//! EBS volumes, mounts and filesystems.

pub mod dead_mount;
pub mod filesystem_error;
pub mod orphaned_pod_directory;
pub mod pinned_filesystem;
pub mod stacked_mounts;
pub mod stalled_io;

use crate::facts::{BlockDevices, MountEntry, VolumePath};
use crate::finding::{Subject, SubjectType};

/// A mount point as a subject, with the pod and volume that its path or device names.
fn mount_subject(mount: &MountEntry, block: Option<&BlockDevices>) -> Subject {
    let mut subject = Subject::new(SubjectType::Mount, &*mount.point);
    if let Some(path) = &mount.volume {
        subject.pod = path.pod().cloned();
        subject.pv = pv_of(path).map(str::to_owned);
    }
    subject.volume = block.and_then(|block| block.get(&mount.dev)).and_then(|device| device.volume.clone());
    subject
}

fn pv_of(path: &VolumePath) -> Option<&str> {
    match path {
        VolumePath::LegacyStaging { pv } | VolumePath::RawBlock { pv, .. } => Some(pv),
        VolumePath::Pod { name, .. } | VolumePath::Subpath { name, .. } => Some(name),
        VolumePath::Staging { .. } | VolumePath::InTree { .. } => None,
    }
}

/// What a mount point is to people: the part of the pod or of the staging that it plays.
fn describe(mount: &MountEntry) -> String {
    match &mount.volume {
        Some(VolumePath::Pod { pod, name, .. }) => format!("volume {name} of pod {pod}"),
        Some(VolumePath::Subpath { pod, name, container }) => {
            format!("a subpath of volume {name} in container {container} of pod {pod}")
        }
        Some(VolumePath::RawBlock { pod: Some(pod), pv }) => format!("raw block volume {pv} of pod {pod}"),
        Some(VolumePath::RawBlock { pod: None, pv }) => format!("raw block volume {pv}"),
        Some(VolumePath::Staging { driver, .. }) => format!("a staged volume of {driver}"),
        Some(VolumePath::LegacyStaging { pv }) => format!("the staged volume {pv}"),
        Some(VolumePath::InTree { plugin, volume }) => format!("the {plugin} volume {volume}"),
        None => "a filesystem".to_owned(),
    }
}
