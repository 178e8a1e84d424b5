//! What several volumes look up in the same lists, by what they look for: each list is walked once for all volumes.

use std::collections::{BTreeMap, BTreeSet};

use super::Parts;
use crate::facts::{BlockDevice, FilesystemKey, IN_TREE_EBS, MountEntry, Pod, PodUid, Source, VolumeId, VolumePath};
use crate::view::reads;

#[derive(Default)]
pub(super) struct Index<'v> {
    /// Hashes of volume handles, in lower case, under which something is staged.
    staged: BTreeSet<String>,
    /// Volumes that are staged by their ids.
    staged_in_tree: BTreeSet<VolumeId>,
    /// PersistentVolumes that are staged by their names.
    staged_legacy: BTreeSet<&'v str>,
    /// A mount of each volume that pods have mounted, by PersistentVolume and pod. Older kubelets have one bind of a raw block volume for all pods.
    of_pods: BTreeMap<&'v str, BTreeMap<Option<&'v str>, &'v MountEntry>>,
    /// Live filesystems by device.
    filesystems: BTreeMap<&'v str, &'v FilesystemKey>,
    /// Pods that have not ended, by namespace and claim.
    users: BTreeMap<&'v str, BTreeMap<&'v str, Vec<&'v Pod>>>,
    /// The PersistentVolume that the kubelet wrote beside a handle first.
    recorded: BTreeMap<VolumeId, Option<&'v str>>,
    /// Pods in whose directories the kubelet wrote a handle, with the name of the volume's directory there.
    recorded_pods: BTreeMap<VolumeId, BTreeMap<&'v PodUid, &'v str>>,
    /// Loop devices that have a file.
    loops: Vec<&'v BlockDevice>,
}

impl<'v> Index<'v> {
    pub fn of(parts: &Parts<'v>) -> Self {
        let mut index = Self::default();
        let mounts = parts.mounts.seen().ok().map(|mounts| mounts.value);
        for mount in mounts.into_iter().flat_map(|mounts| mounts.values()) {
            let is_no_volume = || mounts.is_some_and(|mounts| mounts.is_bind_of_own_disk(mount));
            match &mount.volume {
                Some(VolumePath::Staging { handle_hash, .. }) => {
                    index.staged.insert(handle_hash.to_ascii_lowercase());
                }
                Some(VolumePath::LegacyStaging { pv }) => {
                    index.staged_legacy.insert(pv);
                }
                Some(VolumePath::InTree { plugin, volume }) if plugin == IN_TREE_EBS => {
                    index.staged_in_tree.extend(VolumeId::from_serial(volume));
                }
                Some(VolumePath::Pod { pod, name, .. }) => {
                    let pods = index.of_pods.entry(name).or_default();
                    // What is at the path beside a volume takes nothing away.
                    if !(pods.contains_key(&Some(pod)) && is_no_volume()) {
                        pods.insert(Some(pod), mount);
                    }
                }
                Some(VolumePath::RawBlock { pod, pv }) => {
                    index.of_pods.entry(pv).or_default().insert(pod.as_deref(), mount);
                }
                _ => {}
            }
        }
        let filesystems = parts.filesystems.seen().ok().into_iter().flat_map(|seen| seen.value.iter());
        for (key, _) in filesystems.filter(|(key, _)| key.fstype.is_mounted_by_number()) {
            index.filesystems.entry(&key.device).or_insert(key);
        }
        let pods = parts.pods.seen().ok().into_iter().flat_map(|pods| pods.value.values());
        for pod in pods.map(AsRef::as_ref).filter(|pod| !pod.is_over()) {
            let claims: BTreeSet<&str> = pod.claims.iter().map(String::as_str).collect();
            for claim in claims {
                index.users.entry(&pod.namespace).or_default().entry(claim).or_default().push(pod);
            }
        }
        let dirs = parts.kubelet_dirs.seen().ok().into_iter().flat_map(|dirs| dirs.value.pods.iter());
        let volumes = dirs.flat_map(|(pod, dir)| dir.volumes.iter().map(move |volume| (pod, volume)));
        for (pod, volume) in volumes {
            let Some(data) = &volume.data else { continue };
            if let Some(id) = VolumeId::of_handle(&data.handle) {
                index.recorded.entry(id.clone()).or_insert(data.pv.as_deref());
                index.recorded_pods.entry(id).or_default().insert(pod, &volume.name);
            }
        }
        let block = parts.block.seen().ok().into_iter().flat_map(|block| block.value.values());
        index.loops.extend(block.filter(|device| device.loop_file.is_some()));
        index
    }

    pub fn loops(&self) -> &[&'v BlockDevice] {
        reads::note(Source::BlockDevices);
        &self.loops
    }

    pub fn is_staged(&self, id: &VolumeId, hash: &str) -> bool {
        reads::note(Source::Mounts);
        self.staged.contains(&hash.to_ascii_lowercase()) || self.staged_in_tree.contains(id)
    }

    /// Whether anything is staged by the name of its PersistentVolume.
    pub fn has_legacy_staging(&self) -> bool {
        reads::note(Source::Mounts);
        !self.staged_legacy.is_empty()
    }

    pub fn is_staged_as(&self, pv: &str) -> bool {
        reads::note(Source::Mounts);
        self.staged_legacy.contains(pv)
    }

    /// A mount of a PersistentVolume that a pod has.
    pub fn mount_for(&self, pod: &str, pv: &str) -> Option<&'v MountEntry> {
        reads::note(Source::Mounts);
        let pods = self.of_pods.get(pv)?;
        pods.get(&None).or_else(|| pods.get(&Some(pod))).copied()
    }

    /// A live filesystem on one of these devices, the first in the order of their keys.
    pub fn filesystem_on(&self, devices: &[&BlockDevice]) -> Option<&'v FilesystemKey> {
        reads::note(Source::Filesystems);
        devices.iter().filter_map(|device| self.filesystems.get(device.name.as_str()).copied()).min()
    }

    pub fn users(&self, namespace: &str, claim: &str) -> &[&'v Pod] {
        reads::note(Source::Pods);
        self.users.get(namespace).and_then(|users| users.get(claim)).map_or(&[], Vec::as_slice)
    }

    /// Pods in whose directories the kubelet wrote a volume's handle, with the name of the volume's directory there.
    pub fn recorded_pods(&self, id: &VolumeId) -> impl Iterator<Item = (&'v PodUid, &'v str)> {
        reads::note(Source::KubeletDirs);
        self.recorded_pods.get(id).into_iter().flatten().map(|(pod, name)| (*pod, *name))
    }

    pub fn recorded_pv(&self, id: &VolumeId) -> Option<&'v str> {
        reads::note(Source::KubeletDirs);
        self.recorded.get(id).copied().flatten()
    }
}
