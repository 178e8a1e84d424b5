//! The kubelet's directories: what is left in `pods/UID` and in the CSI staging directory.
//!
//! Nothing at or below a volume's mount point is ever opened, looked at or listed: a path held there can make the
//! host's unmount fail, and a hung filesystem would hold us. The layout keeps us above mount points (a volume's
//! directory is only named, and only a CSI one has a file beside its mount), and the mount table is asked
//! besides before each step.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use nix::sys::stat::fstat;
use serde::Deserialize;

use crate::facts::{Cause, Inventory, KubeletDirs, PodDir, PodUid, StagingDir, Unknown, VolumeData, VolumeDir};
use crate::observe::host::root::{EntryKind, Root};

/// Far more than a node runs (the limit is 737 on the largest instances).
const MOST_PODS: usize = 2_000;
/// Far more than a pod has.
const MOST_VOLUMES: usize = 200;
/// Staging directories: one for each volume on the node.
const MOST_STAGED: usize = 2_000;

/// The only plugin that keeps a file beside its mount point.
const CSI: &str = "kubernetes.io~csi";

/// Reads the directories of pods and of staged CSI volumes.
///
/// # Errors
/// When the mount table is not known, the kubelet's directory is not there or is reached through a link, or its
/// `pods` cannot be listed. Below that, what cannot be read is a gap.
pub fn read(root: &Root, kubelet_root: &str, mount_points: Option<&[String]>) -> Result<KubeletDirs, Unknown> {
    let Some(mount_points) = mount_points else {
        let why = "the mount table is not known, so the kubelet's directories are not looked at";
        return Err(Unknown::new(Cause::Incomplete, why));
    };
    let top = kubelet_root.trim_matches('/');
    refuse_detours(root, top)?;
    root.handle(top)?;
    let prefix = format!("/{top}/");
    let mounted = mount_points.iter().filter_map(|point| point.strip_prefix(&prefix)).collect();
    let look = Look { root, top, mounted };
    let mut gap = Gap::default();
    let pods = look.pods(&mut gap)?;
    let pods = Inventory::with_gap(pods, gap.names.take());
    let staging = look.staging(&mut gap);
    Ok(KubeletDirs { pods, staging: Inventory::with_gap(staging, gap.names), unread: gap.unread })
}

/// The mount table has real paths: by any other way we would not know a mount point when we come to it.
fn refuse_detours(root: &Root, top: &str) -> Result<(), Unknown> {
    if top.split('/').any(|part| matches!(part, "" | "." | "..")) {
        let why = format!("{} is no plain path: set kubelet-root to one", root.name(top));
        return Err(Unknown::new(Cause::WrongType, why));
    }
    for (end, _) in top.match_indices('/').chain([(top.len(), "")]) {
        if let Some(path) = top.get(..end)
            && let Ok(to) = root.link(path)
        {
            let why = format!("{} is a link to {to}: set kubelet-root to the directory itself", root.name(path));
            return Err(Unknown::new(Cause::WrongType, why));
        }
    }
    Ok(())
}

struct Look<'a> {
    root: &'a Root,
    /// The kubelet's directory, without slashes at its ends.
    top: &'a str,
    /// Mount points below it, without the path to it.
    mounted: BTreeSet<&'a str>,
}

/// What could not be read, the first of it: names, so that a list is not whole, and what belongs to a known name.
#[derive(Default)]
struct Gap {
    names: Option<Unknown>,
    unread: Option<Unknown>,
}

impl Gap {
    fn note(&mut self, why: String) {
        self.names.get_or_insert_with(|| Unknown::new(Cause::Incomplete, why));
    }

    /// The value; what vanished since it was listed is gone, and no gap.
    fn unless<T>(&mut self, result: Result<T, Unknown>) -> Option<T> {
        result
            .map_err(|unknown| {
                if unknown.cause != Cause::Missing {
                    self.note(unknown.why);
                }
            })
            .ok()
    }

    /// The same of a file whose directory is known: without it nothing is missing from the list.
    fn unread<T>(&mut self, result: Result<T, Unknown>) -> Option<T> {
        result
            .map_err(|unknown| {
                if unknown.cause != Cause::Missing {
                    self.unread.get_or_insert_with(|| Unknown::new(Cause::Incomplete, unknown.why));
                }
            })
            .ok()
    }
}

impl Look<'_> {
    /// The path to give to [`Root`], if nothing is mounted there or above it within the kubelet's directory.
    fn path(&self, below: &str) -> Result<String, Unknown> {
        let ends = below.match_indices('/').map(|(end, _)| end).chain([below.len()]);
        for point in ends.filter_map(|end| below.get(..end)) {
            if self.mounted.contains(point) {
                let point = self.root.name(&format!("{}/{point}", self.top));
                return Err(Unknown::new(Cause::Incomplete, format!("{point} is a mount point, so not looked into")));
            }
        }
        Ok(format!("{}/{below}", self.top))
    }

    /// The names of the directories in a directory, in order, and no more than `most` of them.
    fn directories(&self, below: &str, most: usize, gap: &mut Gap) -> Result<Vec<String>, Unknown> {
        // What the filesystem does not give a type is taken for a directory: listing it does no harm.
        let may_be = |kind| matches!(kind, EntryKind::Directory | EntryKind::Other);
        let mut names = self.names(below, gap, may_be)?;
        self.cut(below, most, &mut names, gap);
        Ok(names)
    }

    fn names(&self, below: &str, gap: &mut Gap, keep: impl Fn(EntryKind) -> bool) -> Result<Vec<String>, Unknown> {
        let path = self.path(below)?;
        let mut names: Vec<String> =
            self.root.list(&path)?.into_iter().filter(|(_, kind)| keep(*kind)).map(|(name, _)| name).collect();
        names.sort_unstable();
        if let Some(name) = names.iter().find(|name| name.contains(char::REPLACEMENT_CHARACTER)) {
            gap.note(format!("{} holds a name that is not UTF-8: {name:?}", self.root.name(&path)));
        }
        Ok(names)
    }

    fn cut(&self, below: &str, most: usize, names: &mut Vec<String>, gap: &mut Gap) {
        if names.len() > most {
            let path = self.root.name(&format!("{}/{below}", self.top));
            gap.note(format!("{path} holds {} entries, more than {most}: the others are not looked at", names.len()));
            names.truncate(most);
        }
    }

    fn pods(&self, gap: &mut Gap) -> Result<BTreeMap<PodUid, PodDir>, Unknown> {
        let mut pods = BTreeMap::new();
        for uid in self.directories("pods", MOST_PODS, gap)? {
            let pod = self.pod(&format!("pods/{uid}"), gap);
            if let Some(pod) = gap.unless(pod) {
                pods.insert(uid, pod);
            }
        }
        Ok(pods)
    }

    fn pod(&self, below: &str, gap: &mut Gap) -> Result<PodDir, Unknown> {
        let path = self.path(below)?;
        let handle = self.root.handle(&path)?;
        let stat = fstat(&handle).map_err(|error| self.root.unknown(&path, error))?;
        let nanoseconds = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        let changed = Timestamp::new(stat.st_mtime, nanoseconds)
            .map_err(|_| self.root.malformed(&path, "was changed at a time that no clock shows"))?;
        let mut volumes = Vec::new();
        self.volumes(&format!("{below}/volumes"), CSI, &mut volumes, gap);
        // Raw block volumes: each name is a link to a device, and has no file of its own here.
        self.volumes(&format!("{below}/volumeDevices"), "", &mut volumes, gap);
        Ok(PodDir { changed, volumes })
    }

    /// `PLUGIN/NAME` below a directory of a pod, with `vol_data.json` where the plugin is `with_data`.
    fn volumes(&self, below: &str, with_data: &str, found: &mut Vec<VolumeDir>, gap: &mut Gap) {
        let plugins = self.directories(below, MOST_VOLUMES, gap);
        for plugin in gap.unless(plugins).unwrap_or_default() {
            let dir = format!("{below}/{plugin}");
            // The names alone: each may be a mount point.
            let names = self.names(&dir, gap, |_| true);
            let mut names = gap.unless(names).unwrap_or_default();
            self.cut(&dir, MOST_VOLUMES.saturating_sub(found.len()), &mut names, gap);
            for name in names {
                let data = if plugin == with_data { self.data(&format!("{dir}/{name}"), gap) } else { None };
                found.push(VolumeDir { plugin: plugin.clone(), name, data });
            }
        }
    }

    /// `vol_data.json` of a directory that is no mount point.
    fn data(&self, below: &str, gap: &mut Gap) -> Option<VolumeData> {
        let path = gap.unread(self.path(&format!("{below}/vol_data.json")))?;
        let bytes = gap.unread(self.root.bytes(&path))?;
        gap.unread(parse_vol_data(&bytes).map_err(|reason| self.root.malformed(&path, reason)))
    }

    /// `plugins/kubernetes.io/csi/DRIVER/HASH`; nothing is there before the first CSI volume.
    fn staging(&self, gap: &mut Gap) -> BTreeMap<String, StagingDir> {
        let top = "plugins/kubernetes.io/csi";
        let mut staged: BTreeMap<String, StagingDir> = BTreeMap::new();
        let drivers = self.directories(top, MOST_STAGED, gap);
        for driver in gap.unless(drivers).unwrap_or_default() {
            // Raw block volumes, and the layout before 1.24.
            if driver == "volumeDevices" || driver == "pv" {
                continue;
            }
            let dir = format!("{top}/{driver}");
            let hashes = self.directories(&dir, MOST_STAGED, gap);
            for hash in gap.unless(hashes).unwrap_or_default() {
                let data = self.data(&format!("{dir}/{hash}"), gap);
                if let Some(other) = staged.get(&hash) {
                    gap.note(format!("{} and {driver} both stage a volume as {hash}", other.driver));
                    continue;
                }
                staged.insert(hash, StagingDir { driver: driver.clone(), data });
            }
        }
        staged
    }
}

/// The file's own keys.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VolDataFile {
    driver_name: String,
    volume_handle: String,
    #[serde(rename = "specVolID")]
    spec_vol_id: Option<String>,
    #[serde(rename = "attachmentID")]
    attachment_id: Option<String>,
}

/// Reads `vol_data.json`.
///
/// # Errors
/// When it is no JSON object that names a driver and a volume handle.
pub fn parse_vol_data(bytes: &[u8]) -> Result<VolumeData, String> {
    let file: VolDataFile = serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("expected an object with driverName and volumeHandle (line {line}, column {column})")
    })?;
    if file.driver_name.is_empty() || file.volume_handle.is_empty() {
        return Err("its driverName or volumeHandle is empty".into());
    }
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(VolumeData {
        driver: file.driver_name,
        handle: file.volume_handle,
        pv: given(file.spec_vol_id),
        attachment: given(file.attachment_id),
    })
}

#[cfg(test)]
mod tests;
