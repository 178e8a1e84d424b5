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

use crate::collect::host::root::{EntryKind, Root, below};
use crate::collect::kubelet::place::KubeletPaths;
use crate::facts::{Cause, Inventory, KubeletDirs, PodDir, PodUid, StagingDir, Unknown, VolumeData, VolumeDir};

/// Far more than a node runs (the limit is 737 on the largest instances).
const MAX_PODS: usize = 2_000;
/// Far more than a pod has.
const MAX_VOLUMES: usize = 200;
/// Staging directories: one for each volume on the node.
const MAX_STAGED: usize = 2_000;

/// The only plugin that keeps a file beside its mount point.
const CSI: &str = "kubernetes.io~csi";

/// Where the kubelet binds subpaths of volumes.
const SUBPATHS: &str = "volume-subpaths";

/// Reads the directories of pods and of staged CSI volumes.
///
/// # Errors
/// When the mount table is not known, the kubelet's directory is not there or is reached through a link, or its
/// `pods` cannot be listed. Below that, what cannot be read makes the list incomplete.
pub fn read(root: &Root, paths: &KubeletPaths, mount_points: Option<Vec<&str>>) -> Result<KubeletDirs, Unknown> {
    let Some(mount_points) = mount_points else {
        let why = "the mount table is not known, so the kubelet's directories are not looked at";
        return Err(Unknown::new(Cause::Incomplete, why));
    };
    for dir in [paths.root.clone(), paths.dir("pods"), paths.dir("plugins")] {
        refuse_detours(root, dir.trim_matches('/'))?;
    }
    root.handle(paths.root.trim_matches('/'))?;
    let look = Look { root, mounted: mount_points.into_iter().map(|point| point.trim_start_matches('/')).collect() };
    let mut failures = Failures::default();
    let pods = look.pods(&paths.dir("pods"), &mut failures)?;
    let pods_dir = paths.dir("pods").trim_matches('/').to_owned();
    let known: BTreeSet<&str> = pods.iter().map(|(uid, _)| uid.as_str()).collect();
    look.expect_what_is_mounted(&pods_dir, |uid| known.contains(uid), &mut failures);
    let pods = Inventory::with_incomplete(pods, failures.names.take());
    let staging = look.staging(&paths.dir("plugins"), &mut failures);
    let csi = below(paths.dir("plugins").trim_matches('/'), "kubernetes.io/csi");
    for driver in look.names_of_mounts(&csi).filter(|driver| !is_no_driver(driver)) {
        look.expect_what_is_mounted(&below(&csi, driver), |hash| staging.contains_key(hash), &mut failures);
    }
    Ok(KubeletDirs { pods, staging: Inventory::with_incomplete(staging, failures.names), unread: failures.unread })
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
    /// Mount points, without the slash at their heads.
    mounted: BTreeSet<&'a str>,
}

/// A path, as [`Root`] takes it, that is no mount point and below none within the kubelet's directory.
struct Place(String);

/// What could not be read, the first of it: names, so that a list is not whole, and what belongs to a known name.
#[derive(Default)]
struct Failures {
    names: Option<Unknown>,
    unread: Option<Unknown>,
}

impl Failures {
    fn note(&mut self, why: String) {
        self.names.get_or_insert_with(|| Unknown::new(Cause::Incomplete, why));
    }

    /// The value; what vanished since it was listed is gone, and nothing is missing.
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

/// Raw block volumes, and the layout before 1.24.
fn is_no_driver(name: &str) -> bool {
    matches!(name, "volumeDevices" | "pv")
}

impl Look<'_> {
    /// The names in a directory below which something is mounted.
    fn names_of_mounts<'s>(&'s self, dir: &'s str) -> impl Iterator<Item = &'s str> {
        let below =
            move |point: &'s str| point.strip_prefix(dir)?.strip_prefix('/')?.split_once('/').map(|(name, _)| name);
        self.mounted.iter().copied().filter_map(below)
    }

    /// What the mount table shows below a directory is in it, whatever its list says.
    fn expect_what_is_mounted(&self, dir: &str, is_listed: impl Fn(&str) -> bool, failures: &mut Failures) {
        if let Some(name) = self.names_of_mounts(dir).find(|name| !is_listed(name)) {
            let path = self.root.name(&below(dir, name));
            failures.note(format!("{path} is not there, and the mount table has a mount below it"));
        }
    }

    /// What is in a place, if nothing is mounted there.
    fn enter(&self, place: &Place, name: &str) -> Result<Place, Unknown> {
        let path = below(&place.0, name);
        if self.mounted.contains(path.as_str()) {
            let why = format!("{} is a mount point, so not looked into", self.root.name(&path));
            return Err(Unknown::new(Cause::Incomplete, why));
        }
        Ok(Place(path))
    }

    /// The names of the directories in a place, in order, and no more than `most` of them.
    fn directories(&self, place: &Place, most: usize, failures: &mut Failures) -> Result<Vec<String>, Unknown> {
        // What the filesystem does not give a type is taken for a directory: listing it does no harm.
        let may_be = |kind| matches!(kind, EntryKind::Directory | EntryKind::Other);
        let mut names = self.names(place, failures, may_be)?;
        self.cut(place, most, &mut names, failures);
        Ok(names)
    }

    fn names(
        &self,
        place: &Place,
        failures: &mut Failures,
        keep: impl Fn(EntryKind) -> bool,
    ) -> Result<Vec<String>, Unknown> {
        let mut names = Vec::new();
        self.root.each(&place.0, |name, kind| names.extend(keep(kind).then(|| name.to_owned())))?;
        names.sort_unstable();
        if let Some(name) = names.iter().find(|name| name.contains(char::REPLACEMENT_CHARACTER)) {
            failures.note(format!("{} holds a name that is not UTF-8: {name:?}", self.root.name(&place.0)));
        }
        Ok(names)
    }

    fn cut(&self, place: &Place, most: usize, names: &mut Vec<String>, failures: &mut Failures) {
        if names.len() > most {
            let path = self.root.name(&place.0);
            failures
                .note(format!("{path} holds {} entries, more than {most}: the others are not looked at", names.len()));
            names.truncate(most);
        }
    }

    /// A directory by its path, if nothing is mounted there.
    fn enter_path(&self, path: &str) -> Result<Place, Unknown> {
        let (parent, name) = path.trim_matches('/').rsplit_once('/').unwrap_or(("", path));
        self.enter(&Place(parent.to_owned()), name)
    }

    fn pods(&self, dir: &str, failures: &mut Failures) -> Result<Vec<(PodUid, PodDir)>, Unknown> {
        let mut pods = Vec::new();
        let place = self.enter_path(dir)?;
        for uid in self.directories(&place, MAX_PODS, failures)? {
            let pod = self.enter(&place, &uid).and_then(|place| self.pod(&place, failures));
            pods.extend(failures.unless(pod).map(|pod| (uid, pod)));
        }
        Ok(pods)
    }

    fn pod(&self, place: &Place, failures: &mut Failures) -> Result<PodDir, Unknown> {
        let path = &place.0;
        let handle = self.root.handle(path)?;
        let stat = fstat(&handle).map_err(|error| self.root.unknown(path, error))?;
        let nanoseconds = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        let changed = Timestamp::new(stat.st_mtime, nanoseconds)
            .map_err(|_| self.root.malformed(path, "was changed at a time that no clock shows"))?;
        let mut volumes = Vec::new();
        self.volumes(place, "volumes", CSI, &mut volumes, failures);
        // Raw block volumes: each name is a link to a device, and has no file of its own here.
        self.volumes(place, "volumeDevices", "", &mut volumes, failures);
        self.subpaths(place, &mut volumes, failures);
        Ok(PodDir { changed, volumes })
    }

    /// `PLUGIN/NAME` in a directory of a pod, with `vol_data.json` where the plugin is `with_data`.
    fn volumes(&self, pod: &Place, dir: &str, with_data: &str, found: &mut Vec<VolumeDir>, failures: &mut Failures) {
        let Some(dir) = failures.unless(self.enter(pod, dir)) else { return };
        let plugins = self.directories(&dir, MAX_VOLUMES, failures);
        for plugin in failures.unless(plugins).unwrap_or_default() {
            let Some(place) = failures.unless(self.enter(&dir, &plugin)) else { continue };
            // The names alone: each may be a mount point.
            let names = self.names(&place, failures, |_| true);
            let mut names = failures.unless(names).unwrap_or_default();
            self.cut(&place, MAX_VOLUMES.saturating_sub(found.len()), &mut names, failures);
            for name in names {
                let data = if plugin == with_data { self.data(&place, &name, failures) } else { None };
                found.push(VolumeDir { plugin: plugin.clone(), name, data });
            }
        }
    }

    /// `volume-subpaths/NAME`: its containers' mounts are below that, and not looked at.
    fn subpaths(&self, pod: &Place, found: &mut Vec<VolumeDir>, failures: &mut Failures) {
        let Some(dir) = failures.unless(self.enter(pod, SUBPATHS)) else { return };
        let names = self.directories(&dir, MAX_VOLUMES, failures);
        let new = |name| VolumeDir { plugin: SUBPATHS.to_owned(), name, data: None };
        found.extend(failures.unless(names).unwrap_or_default().into_iter().map(new));
    }

    /// `vol_data.json` of a directory that is no mount point.
    fn data(&self, place: &Place, name: &str, failures: &mut Failures) -> Option<VolumeData> {
        let file = self.enter(place, name).and_then(|place| self.enter(&place, "vol_data.json"));
        failures.unread(file.and_then(|file| self.root.read(&file.0, parse_vol_data)))
    }

    /// `plugins/kubernetes.io/csi/DRIVER/HASH`; nothing is there before the first CSI volume.
    fn staging(&self, plugins: &str, failures: &mut Failures) -> BTreeMap<String, StagingDir> {
        let mut staged: BTreeMap<String, StagingDir> = BTreeMap::new();
        let plugins = self.enter_path(plugins);
        let place = plugins
            .and_then(|plugins| ["kubernetes.io", "csi"].iter().try_fold(plugins, |at, name| self.enter(&at, name)));
        let drivers = place.and_then(|place| Ok((self.directories(&place, MAX_STAGED, failures)?, place)));
        let Some((drivers, place)) = failures.unless(drivers) else { return staged };
        for driver in drivers {
            if is_no_driver(&driver) {
                continue;
            }
            self.staged_by(&place, &driver, &mut staged, failures);
        }
        staged
    }

    fn staged_by(
        &self,
        place: &Place,
        driver: &str,
        staged: &mut BTreeMap<String, StagingDir>,
        failures: &mut Failures,
    ) {
        let hashes =
            self.enter(place, driver).and_then(|place| Ok((self.directories(&place, MAX_STAGED, failures)?, place)));
        let Some((hashes, place)) = failures.unless(hashes) else { return };
        for hash in hashes {
            let data = self.data(&place, &hash, failures);
            if let Some(other) = staged.get(&hash) {
                failures.note(format!("{} and {driver} both stage a volume as {hash}", other.driver));
                continue;
            }
            staged.insert(hash, StagingDir { driver: driver.to_owned(), data });
        }
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
