//! statfs of the filesystems that the kubelet watches: its own directory's and the images'.
//!
//! Nothing else is ever asked: a volume's mount point could hang us. Called on the thread that may be left behind.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat, major, minor};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::fstatvfs;

use super::HostSettings;
use super::own_mounts::{OwnMounts, mount_at};
use super::root::Root;
use super::root::relative;
use crate::facts::{Cause, Component, DevId, DiskUsage, Mounts, OtherFilesystems, Unknown, is_below};

/// In a copy of a machine, what statfs said there: an object from path to [`DiskUsage`].
const SIDE_FILE: &str = "captured/statfs.json";

/// The filesystem of the kubelet's directory: its nodefs, which is not always that of `/`.
///
/// # Errors
/// When no directory on it can be asked, or it has no size.
pub fn nodefs(root: &Root, settings: &HostSettings, host: Option<&Mounts>) -> Result<DiskUsage, Unknown> {
    let kubelet = settings.kubelet_root.trim_end_matches('/');
    if root.is_partial() {
        return nodefs_from_inside(&Places::of(root, host)?, settings, &OwnMounts::read(root, host)?);
    }
    let places = Places::of(root, host)?;
    if let Some(state) = settings.state_dir.as_deref().filter(|state| is_below(state, kubelet))
        && places.has(state)?
    {
        let why = format!("{state} is on the filesystem of {kubelet}");
        return places.usage(state, Some(why));
    }
    if places.has(kubelet)? {
        return places.usage(kubelet, None);
    }
    // Where pods run, the kubelet's directory is only hidden from us, and what we see instead may be a container's own.
    if KUBEPODS.iter().any(|path| root.exists(path)) {
        let why = format!("{kubelet} is not there, although pods run here: set kubelet-root, or a state-dir below it");
        return Err(Unknown::new(Cause::Missing, why));
    }
    let mut at = kubelet;
    while let Some((parent, _)) = at.rsplit_once('/') {
        let parent_name = if parent.is_empty() { "/" } else { parent };
        if places.has(parent_name)? {
            let why = format!("{kubelet} is not there; this is the filesystem it would be on");
            return places.usage(parent_name, Some(why));
        }
        at = parent;
    }
    Err(Unknown::new(Cause::Missing, format!("{} and all above it are not there", root.name(relative(kubelet)))))
}

/// In a container: the kubelet's directory where it is mounted, else our own where it is on the same filesystem.
fn nodefs_from_inside(places: &Places<'_>, settings: &HostSettings, own: &OwnMounts<'_>) -> Result<DiskUsage, Unknown> {
    let kubelet = settings.kubelet_root.trim_end_matches('/');
    let hidden = match places.shown(kubelet, own) {
        Ok(()) => return places.usage(kubelet, None),
        Err(unknown) if unknown.cause == Cause::Missing => unknown,
        Err(unknown) => return Err(unknown),
    };
    let Some(state) = settings.state_dir.as_deref() else {
        let why = format!("{}; a state-dir on its filesystem would show it", hidden.why);
        return Err(Unknown::new(Cause::Missing, why));
    };
    // By our own path: it is not below the root.
    let (handle, _) = Places { root: &Root::own()?, captured: None, host: None }.directory(state)?;
    let dev = own.expect_same_device(state, &handle, kubelet)?;
    let why = format!("{state} is on the filesystem of {kubelet} (device {dev})");
    usage_of(&handle, state, Some(why), dev)
        .map_err(|error| places.root.unknown(relative(state), error))
        .and_then(with_size)
}

fn with_size(usage: DiskUsage) -> Result<DiskUsage, Unknown> {
    if usage.capacity == 0 {
        let why = format!("statfs of {} says that it holds no bytes", usage.path);
        return Err(Unknown::new(Cause::Malformed, why));
    }
    Ok(usage)
}

/// Where pods show, by version and driver of the control groups.
pub(in crate::collect) const KUBEPODS: [&str; 4] = [
    "sys/fs/cgroup/kubepods.slice",
    "sys/fs/cgroup/kubepods",
    "sys/fs/cgroup/memory/kubepods.slice",
    "sys/fs/cgroup/memory/kubepods",
];

/// Directories that the system writes to, and that no volume is mounted at.
const OTHERS: [&str; 2] = ["/", "/tmp"];

/// The filesystems that the system writes to beside those of the kubelet.
///
/// # Errors
/// In a container, which has neither of the host's; or when the root cannot be read.
pub fn others(root: &Root, host: Option<&Mounts>) -> Result<OtherFilesystems, Unknown> {
    if root.is_partial() {
        let why = "the agent's container does not have the host's / and /tmp: barnacle check on the host reads them";
        return Err(Unknown::new(Cause::Unsupported, why));
    }
    let places = Places::of(root, host)?;
    let mut found = Vec::new();
    let mut unread = None;
    for path in OTHERS {
        match places.has(path).and_then(|has| has.then(|| places.usage(path, None)).transpose()) {
            Ok(usage) => found.extend(usage.map(|usage| (path.to_owned(), usage))),
            // Of a copy only some directories were captured.
            Err(why) if why.cause == Cause::Unsupported => {}
            Err(why) => drop(unread.get_or_insert(why)),
        }
    }
    let found = OtherFilesystems::whole(found);
    Ok(match unread {
        Some(why) => found.lacking(why),
        None => found,
    })
}

/// The filesystem of the container images: the kubelet's imagefs. It is where running containers have theirs; where none
/// runs, where a runtime is configured to keep them or keeps them by default, which is then called an assumption.
///
/// # Errors
/// When no directory of images is there, its filesystem has no size, or that of the running containers is not seen.
pub fn imagefs(
    root: &Root,
    settings: &HostSettings,
    host: Option<&Mounts>,
    used: Option<&[&str]>,
) -> Result<DiskUsage, Unknown> {
    let places = Places::of(root, host)?;
    let own = if root.is_partial() { Some(OwnMounts::read(root, host)?) } else { None };
    if let Some(path) = settings.image_root.as_deref() {
        own.as_ref().map_or(Ok(()), |own| places.shown(path, own))?;
        return places.usage(path, None);
    }
    let is_shown = |path: &str| -> Result<bool, Unknown> {
        Ok(places.has(path)? && own.as_ref().is_none_or(|own| places.shown(path, own).is_ok()))
    };
    // Without the mount table it is not known that no container runs: its images may be elsewhere.
    let used = used.ok_or_else(|| {
        let why = "where the running containers' images are is not known, as the mount table could not be read";
        Unknown::new(Cause::Incomplete, why)
    })?;
    if !used.is_empty() {
        return in_use(&places, used, is_shown);
    }
    for runtime in &RUNTIMES {
        let named = configured(root, runtime);
        let (dirs, by) = match &named {
            Ok(Some(root)) => {
                (vec![format!("{root}/{}", runtime.images), root.clone()], format!("as {} says", runtime.file))
            }
            Ok(None) => (runtime.default_dirs(), "as by default".to_owned()),
            Err(why) => (runtime.default_dirs(), format!("as by default: {why}")),
        };
        for path in &dirs {
            if is_shown(path)? {
                let why =
                    format!("no running container is seen that shows where the images are: {path} is assumed, {by}");
                return Ok(DiskUsage { assumed: Some(why), ..places.usage(path, None)? });
            }
        }
        // Where the runtime keeps its images is known then: the directories of another one say nothing of it.
        if let Ok(Some(named)) = named {
            let why = format!(
                "{} names {named} for the images, which is not seen here: set container-image-root to a directory on its filesystem \
                 that is, or use the component of the distribution",
                root.name(runtime.file)
            );
            return Err(Unknown::new(Cause::Missing, why));
        }
    }
    if own.is_some() {
        let why = "no container images directory is mounted here (the component of the distribution does that)";
        return Err(Unknown::new(Cause::Missing, why).in_component(Component::Distribution));
    }
    let defaults = RUNTIMES.iter().flat_map(|runtime| runtime.defaults);
    let looked: Vec<String> = defaults.map(|path| root.name(relative(path))).collect();
    let why =
        format!("no container images directory found (looked in {}); set container-image-root", looked.join(", "));
    Err(Unknown::new(Cause::Missing, why))
}

/// The filesystem of the directories that running containers have their images in. Several of them are as good as one where
/// they are on one filesystem.
fn in_use(
    places: &Places<'_>,
    used: &[&str],
    is_shown: impl Fn(&str) -> Result<bool, Unknown>,
) -> Result<DiskUsage, Unknown> {
    let mut seen: Vec<DiskUsage> = Vec::new();
    for dir in used {
        // Of a copy, what was captured of the runtime's directory will do as well.
        let above = dir.rsplit_once('/').map_or("", |(above, _)| above);
        for path in [dir, above].into_iter().filter(|path| !path.is_empty()) {
            if is_shown(path)? && places.is_captured(path) {
                seen.push(places.usage(path, None)?);
                break;
            }
        }
    }
    let several = seen.iter().any(|usage| seen.first().is_some_and(|first| first.dev != usage.dev));
    let all = seen.len() == used.len();
    match seen.into_iter().next() {
        Some(first) if all && !several => Ok(first),
        Some(first) => {
            let why = format!(
                "running containers have their images in {}: {} is assumed to be the kubelet's imagefs",
                used.join(" and "),
                first.path
            );
            Ok(DiskUsage { assumed: Some(why), ..first })
        }
        None => {
            let why = format!(
                "running containers have their images in {}, which is not seen here (set container-image-root to a directory on \
                 its filesystem that is, or use the component of the distribution)",
                used.join(" and ")
            );
            Err(Unknown::new(Cause::Missing, why))
        }
    }
}

/// A container runtime: where it keeps images unless its configuration says otherwise.
struct RuntimeDirs {
    /// Its configuration.
    file: &'static str,
    /// What it says.
    root_of: fn(&[u8]) -> Result<Option<String>, String>,
    /// The directory of the images in a configured root.
    images: &'static str,
    /// Directories by default; the first that is there counts.
    defaults: &'static [&'static str],
}

impl RuntimeDirs {
    fn default_dirs(&self) -> Vec<String> {
        self.defaults.iter().copied().map(str::to_owned).collect()
    }
}

const RUNTIMES: [RuntimeDirs; 3] = [
    RuntimeDirs {
        file: "etc/containerd/config.toml",
        root_of: |bytes| toml_string(bytes, "", "root"),
        images: "io.containerd.snapshotter.v1.overlayfs",
        defaults: &["/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs", "/var/lib/containerd"],
    },
    RuntimeDirs {
        file: "etc/containers/storage.conf",
        root_of: |bytes| match toml_string(bytes, "storage", "imagestore")?.filter(|store| !store.is_empty()) {
            Some(store) => Ok(Some(store)),
            None => toml_string(bytes, "storage", "graphroot"),
        },
        images: "overlay",
        defaults: &["/var/lib/containers/storage"],
    },
    RuntimeDirs {
        file: "etc/docker/daemon.json",
        root_of: json_data_root,
        images: "overlay2",
        defaults: &["/var/lib/docker"],
    },
];

/// The root that a runtime's configuration names, if it is there and names one.
fn configured(root: &Root, runtime: &RuntimeDirs) -> Result<Option<String>, Unknown> {
    let is_path = |path: &str| path.starts_with('/') && path.len() < MAX_PATH_BYTES;
    let parse = |bytes: &[u8]| match (runtime.root_of)(bytes)? {
        // An empty one is as good as none to these runtimes.
        None => Ok(None),
        Some(path) if path.is_empty() => Ok(None),
        Some(path) if is_path(&path) => Ok(Some(path.trim_end_matches('/').to_owned())),
        Some(_) => Err("expected an absolute path of the directory of the images".to_owned()),
    };
    match root.read(runtime.file, parse) {
        Ok(named) => Ok(named),
        Err(unknown) if unknown.cause == Cause::Missing => Ok(None),
        Err(unknown) => Err(unknown),
    }
}

/// PATH_MAX: no kernel takes a longer one.
const MAX_PATH_BYTES: usize = 4096;

/// The value of a key in a table of a TOML file, or before the first table. A plain line `key = "value"` is all that
/// these configurations have for a path.
///
/// # Errors
/// When it is no text, or the value is not a whole string: the file may be torn.
fn toml_string(bytes: &[u8], table: &str, key: &str) -> Result<Option<String>, String> {
    let text = str::from_utf8(bytes).map_err(|_| "expected TOML in UTF-8".to_owned())?;
    let expected = || format!("expected {key} = \"PATH\" in one line");
    let mut here = "";
    for line in text.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            here = header.split_once(']').map_or("", |(name, _)| name.trim());
        } else if here == table
            && let Some((name, value)) = line.split_once('=')
            && name.trim() == key
        {
            let value = value.trim();
            let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\'')).ok_or_else(expected)?;
            let value = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)).ok_or_else(expected)?;
            return Ok(Some(value.0.to_owned()));
        }
    }
    Ok(None)
}

/// The `data-root` of Docker's configuration.
///
/// # Errors
/// When it is no JSON object, or has something else than a string there.
fn json_data_root(bytes: &[u8]) -> Result<Option<String>, String> {
    // Docker takes an empty file for an empty object.
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes)
        .map_err(|error| format!("expected a JSON object (line {}, column {})", error.line(), error.column()))?;
    let named = object.get("data-root");
    named.map(|value| value.as_str().map(str::to_owned).ok_or("expected a string as data-root".to_owned())).transpose()
}

/// The directories of a machine, or what was captured of them.
struct Places<'a> {
    root: &'a Root,
    captured: Option<BTreeMap<String, DiskUsage>>,
    /// The host's mounts.
    host: Option<&'a Mounts>,
}

impl<'a> Places<'a> {
    fn of(root: &'a Root, host: Option<&'a Mounts>) -> Result<Self, Unknown> {
        if root.is_live() {
            return Ok(Self { root, captured: None, host });
        }
        let bytes = root.bytes(SIDE_FILE).map_err(|unknown| match unknown.cause {
            Cause::Missing => Unknown::new(
                Cause::Unsupported,
                format!("{} is a copy of a machine, and {}", root.name(""), unknown.why),
            ),
            _ => unknown,
        })?;
        let captured = parse_captured(&bytes).map_err(|reason| root.malformed(SIDE_FILE, reason))?;
        Ok(Self { root, captured: Some(captured), host })
    }

    /// Whether a directory stands there. In a copy, one of which something was captured did, whether it was
    /// copied or not.
    fn has(&self, path: &str) -> Result<bool, Unknown> {
        if self.captured.as_ref().is_some_and(|captured| captured.contains_key(path)) {
            return Ok(true);
        }
        match self.directory(path) {
            Ok(_) => Ok(true),
            Err(unknown) if matches!(unknown.cause, Cause::Missing | Cause::WrongType) => Ok(false),
            Err(unknown) => Err(unknown),
        }
    }

    /// Whether its filesystem can be asked: in a copy, whether something was captured of it.
    fn is_captured(&self, path: &str) -> bool {
        self.captured.as_ref().is_none_or(|captured| captured.contains_key(path))
    }

    /// Whether it is the host's own directory, and not what a container has in its place.
    fn shown(&self, path: &str, own: &OwnMounts<'_>) -> Result<(), Unknown> {
        let (handle, _) = self.directory(path)?;
        own.expect_shown(relative(path), &handle)
    }

    /// A handle that is neither opened nor listed, and its device number.
    fn directory(&self, path: &str) -> Result<(OwnedFd, DevId), Unknown> {
        let path = relative(path);
        let handle = self.root.handle(path)?;
        let stat = fstat(&handle).map_err(|error| self.root.unknown(path, error))?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFDIR {
            let why = format!("{} is no directory", self.root.name(path));
            return Err(Unknown::new(Cause::WrongType, why));
        }
        let number = |part: u64| u32::try_from(part).unwrap_or(u32::MAX);
        Ok((handle, DevId { major: number(major(stat.st_dev)), minor: number(minor(stat.st_dev)) }))
    }

    fn usage(&self, path: &str, instead_of: Option<String>) -> Result<DiskUsage, Unknown> {
        let usage = match &self.captured {
            Some(captured) => {
                let usage = captured.get(path).cloned().ok_or_else(|| {
                    let why = format!("{} has no figures of {path}", self.root.name(SIDE_FILE));
                    Unknown::new(Cause::Unsupported, why)
                })?;
                let usage = DiskUsage { path: path.to_owned(), instead_of: instead_of.or(usage.instead_of), ..usage };
                // What was captured does not say which type it is.
                if usage.dev.major == 0 { self.by_superblock(usage)? } else { usage }
            }
            None => self.live(path, instead_of)?,
        };
        with_size(usage)
    }

    fn live(&self, path: &str, instead_of: Option<String>) -> Result<DiskUsage, Unknown> {
        let (handle, dev) = self.directory(path)?;
        let failed = |error| self.root.unknown(relative(path), error);
        let is_btrfs = fstatfs(&handle).map_err(failed)?.filesystem_type() == BTRFS_SUPER_MAGIC;
        let usage = usage_of(&handle, path, instead_of, dev).map_err(failed)?;
        if is_btrfs { self.by_superblock(usage) } else { Ok(usage) }
    }

    /// Files of btrfs have the device number of their subvolume, each another one. What distinguishes filesystems is the one that the
    /// mount table has.
    fn by_superblock(&self, usage: DiskUsage) -> Result<DiskUsage, Unknown> {
        let not_known = |why: &str| {
            let why = format!("{} may be on a subvolume of btrfs (device {}), and {why}", usage.path, usage.dev);
            Unknown::new(Cause::Incomplete, why)
        };
        let host = self.host.ok_or_else(|| not_known("the host's mount table is not known"))?;
        if host.of_device(usage.dev).next().is_some() {
            return Ok(usage);
        }
        if let Some(why) = host.incomplete() {
            return Err(not_known(&why.why));
        }
        match mount_at(host, &usage.path).filter(|mount| &*mount.fstype == "btrfs") {
            Some(mount) => Ok(DiskUsage { dev: mount.dev, ..usage }),
            None => Ok(usage),
        }
    }
}

fn usage_of(handle: &OwnedFd, path: &str, instead_of: Option<String>, dev: DevId) -> Result<DiskUsage, Errno> {
    let fs = fstatvfs(handle)?;
    // Some filesystems leave f_frsize at zero and count in f_bsize.
    let unit = if fs.fragment_size() == 0 { fs.block_size() } else { fs.fragment_size() };
    Ok(DiskUsage {
        path: path.to_owned(),
        instead_of,
        assumed: None,
        dev,
        capacity: fs.blocks().saturating_mul(unit),
        available: fs.blocks_available().saturating_mul(unit),
        inodes: fs.files(),
        inodes_free: fs.files_free(),
    })
}

/// The side file of a copied tree.
///
/// # Errors
/// When it is not an object from path to usage.
pub fn parse_captured(bytes: &[u8]) -> Result<BTreeMap<String, DiskUsage>, String> {
    serde_json::from_slice(bytes).map_err(|error| {
        format!("expected an object from path to usage (line {}, column {})", error.line(), error.column())
    })
}

super::read_from_host! {
    OtherFilesystems: |host, _| others(&host.root, host.mounts.mounts());
    NodeFs: |host, _| nodefs(&host.root, &host.settings, host.mounts.mounts());
    ImageFs: |host, _| {
        let used = host.mounts.image_dirs().map(super::mountinfo::ImageDirs::of_the_runtime);
        imagefs(&host.root, &host.settings, host.mounts.mounts(), used.as_deref())
    };
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::collect::host::root::tree_of;

    const STATFS: &str = r#"{
        "/var/lib/kubelet": {"path": "/var/lib/kubelet", "dev": "259:0", "capacity": 85886742528,
            "available": 7372800000, "inodes": 41932800, "inodes_free": 2000000},
        "/var/lib/containerd": {"path": "/var/lib/containerd", "dev": "259:3", "capacity": 0,
            "available": 0, "inodes": 0, "inodes_free": 0},
        "/": {"path": "/", "dev": "259:1", "capacity": 21474836480, "available": 1, "inodes": 2, "inodes_free": 1}
    }"#;

    fn settings(kubelet_root: &str) -> HostSettings {
        HostSettings::new(kubelet_root)
    }

    fn copy(statfs: Option<&str>) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        if let Some(text) = statfs {
            fs::create_dir_all(dir.path().join("captured")).unwrap();
            fs::write(dir.path().join(SIDE_FILE), text).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    /// A running machine with these directories.
    fn machine(dirs: &[&str]) -> (tempfile::TempDir, Root) {
        let (dir, root) = tree_of(&[]);
        dirs.iter().for_each(|path| fs::create_dir_all(dir.path().join(path)).unwrap());
        (dir, root.into_machine())
    }

    #[test]
    fn a_live_directory_is_asked_itself() {
        const PATH: &str = "/var/lib/kubelet";
        let (_dir, root) = machine(&["var/lib/kubelet"]);
        let usage = nodefs(&root, &settings(&format!("{PATH}/")), None).unwrap();
        assert_eq!((usage.path.as_str(), usage.instead_of.as_deref()), (PATH, None));
        assert!(usage.capacity >= usage.available && usage.capacity > 0);
        let images =
            imagefs(&root, &HostSettings { image_root: Some(PATH.into()), ..settings("/") }, None, Some(&[])).unwrap();
        // Another process may write to it between the two.
        let still = DiskUsage { available: usage.available, inodes_free: usage.inodes_free, ..images };
        assert_eq!(still, usage);
    }

    #[test]
    fn the_nearest_directory_above_answers_for_one_that_is_not_there() {
        let (dir, root) = machine(&["var"]);
        fs::write(dir.path().join("var/file"), "").unwrap();
        for below in ["lib/kubelet", "file"] {
            let usage = nodefs(&root, &settings(&format!("/var/{below}")), None).unwrap();
            assert_eq!(usage.path, "/var");
            assert!(usage.instead_of.unwrap().contains("is not there; this is the filesystem it would be on"));
        }
        assert_eq!(nodefs(&root, &settings("/no-such-place"), None).unwrap().path, "/");
        fs::create_dir_all(dir.path().join(KUBEPODS[0])).unwrap();
        let hidden = nodefs(&root, &settings("/var/file"), None).unwrap_err();
        assert!(hidden.why.contains("although pods run here"), "{hidden}");
    }

    #[test]
    fn a_state_directory_below_it_answers_for_the_kubelets_directory() {
        let kubelet = "/var/lib/kubelet";
        let (dir, root) = machine(&["var/lib/kubelet"]);
        let state = format!("{kubelet}/plugins/barnacle");
        let with = |state: &str| HostSettings { state_dir: Some(state.into()), ..settings(kubelet) };
        assert_eq!(nodefs(&root, &with(&state), None).unwrap().path, kubelet, "not made yet");
        fs::create_dir_all(dir.path().join("var/lib/kubelet/plugins/barnacle")).unwrap();
        let usage = nodefs(&root, &with(&state), None).unwrap();
        assert_eq!(usage.path, state);
        assert!(usage.instead_of.unwrap().contains(kubelet));
        assert_eq!(nodefs(&root, &with(&format!("{kubelet}-other")), None).unwrap().path, kubelet, "not below it");
    }

    #[test]
    fn no_images_directory_is_said_with_the_places() {
        let (_dir, root) = copy(Some("{}"));
        let unknown = imagefs(&root, &settings("/var/lib/kubelet"), None, Some(&[])).unwrap_err();
        assert_eq!(unknown.cause, Cause::Missing);
        assert!(unknown.why.contains("var/lib/containers/storage") && unknown.why.contains("set container-image-root"));
        let given = HostSettings { image_root: Some("/no-such-place".into()), ..settings("/") };
        assert_eq!(imagefs(&machine(&[]).1, &given, None, Some(&[])).unwrap_err().cause, Cause::Missing);
    }

    #[test]
    fn a_copy_answers_with_what_was_captured() {
        let (_dir, root) = copy(Some(STATFS));
        let usage = nodefs(&root, &settings("/var/lib/kubelet"), None).unwrap();
        assert_eq!((usage.capacity, usage.available, usage.dev.major), (85_886_742_528, 7_372_800_000, 259));
        let usage = nodefs(&root, &settings("/data/kubelet"), None).unwrap();
        assert_eq!((usage.path.as_str(), usage.instead_of.is_some()), ("/", true));
    }

    #[test]
    fn a_directory_of_which_nothing_was_captured_is_unknown() {
        let (dir, root) = copy(Some(STATFS));
        fs::create_dir_all(dir.path().join("data/kubelet")).unwrap();
        let unknown = nodefs(&root, &settings("/data/kubelet"), None).unwrap_err();
        assert_eq!(unknown.cause, Cause::Unsupported);
        assert!(unknown.why.contains("has no figures of /data/kubelet"), "{}", unknown.why);
    }

    #[test]
    fn a_copy_without_a_side_file_is_not_asked_for_this_machines_disks() {
        let (_dir, root) = copy(None);
        let unknown = nodefs(&root, &settings("/var/lib/kubelet"), None).unwrap_err();
        assert_eq!(unknown.cause, Cause::Unsupported);
        assert!(unknown.why.contains("is a copy of a machine") && unknown.why.contains("captured/statfs.json"));
        let (_dir, root) = copy(Some("[]"));
        assert_eq!(nodefs(&root, &settings("/x"), None).unwrap_err().cause, Cause::Malformed);
    }

    #[test]
    fn a_filesystem_without_size_is_malformed() {
        let (_dir, root) = copy(Some(STATFS));
        let unknown = imagefs(&root, &settings("/var/lib/kubelet"), None, Some(&[])).unwrap_err();
        assert_eq!(unknown.cause, Cause::Malformed);
        assert!(unknown.why.contains("var/lib/containerd"));
    }

    #[test]
    fn the_images_of_running_containers_are_their_filesystem_whatever_lies_about() {
        let usage = |path: &str, dev: &str, available: u64| {
            format!(
                r#""{path}": {{"path": "{path}", "dev": "{dev}", "capacity": 1000, "available": {available}, "inodes": 9, "inodes_free": 9}}"#
            )
        };
        let places = [
            usage("/var/lib/containerd", "259:1", 900),
            usage("/data/containerd", "259:9", 20),
            usage("/same/overlayfs", "259:9", 20),
        ];
        let (dir, root) = copy(Some(&format!("{{{}}}", places.join(","))));
        let found = |used: &[&str]| imagefs(&root, &settings("/var/lib/kubelet"), None, Some(used));
        let guess = found(&[]).unwrap();
        assert_eq!((guess.path.as_str(), guess.available), ("/var/lib/containerd", 900));
        assert!(guess.assumed.unwrap().contains("/var/lib/containerd is assumed, as by default"));
        let used = "/data/containerd/io.containerd.snapshotter.v1.overlayfs";
        let sure = found(&[used]).unwrap();
        assert_eq!((sure.path.as_str(), sure.available, sure.assumed), ("/data/containerd", 20, None));
        assert_eq!(found(&[used, "/same/overlayfs"]).unwrap().assumed, None, "one filesystem, whichever it is");
        let torn = found(&[used, "/var/lib/containerd/x"]).unwrap();
        assert!(torn.assumed.unwrap().contains("/data/containerd is assumed to be the kubelet's imagefs"));
        let unseen = found(&["/mnt/k3s/overlayfs"]).unwrap_err();
        assert!(unseen.cause == Cause::Missing && unseen.why.contains("/mnt/k3s/overlayfs"), "{unseen}");
        // Without a container the configuration is the better guess.
        let config = dir.path().join("etc/containerd/config.toml");
        fs::create_dir_all(config.parent().unwrap()).unwrap();
        fs::write(&config, "version = 2\nroot = \"/data/containerd/\"\n[plugins]\nroot = \"/other\"\n").unwrap();
        let configured = found(&[]).unwrap();
        assert_eq!(configured.path, "/data/containerd");
        assert!(configured.assumed.unwrap().contains("as etc/containerd/config.toml says"));
        fs::remove_file(&config).unwrap();
        fs::create_dir(&config).unwrap();
        let guess = found(&[]).unwrap();
        assert_eq!(guess.path, "/var/lib/containerd");
        assert!(guess.assumed.unwrap().contains("config.toml is a directory"), "what it would say is not known");
    }

    #[test]
    fn a_path_in_a_configuration_is_found_in_its_table_alone() {
        let text = b"# root = \"/a\"\nversion = 2\n  root='/b' # c\n[storage]\ndriver = \"overlay\"\ngraphroot = \"/d\"\n[storage.options]\ngraphroot = \"/e\"\n";
        assert_eq!(toml_string(text, "", "root"), Ok(Some("/b".to_owned())));
        assert_eq!(toml_string(text, "storage", "graphroot"), Ok(Some("/d".to_owned())));
        for bad in [&b"root = 5\n"[..], b"root =\n", b"root = \"/a\n", b"\xff"] {
            assert!(toml_string(bad, "", "root").is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(toml_string(b"rootx = \"/a\"\n", "", "root"), Ok(None));
    }

    #[test]
    fn a_torn_configuration_is_said_and_a_root_that_is_not_seen_is_unknown() {
        let statfs = r#"{"/var/lib/docker": {"path": "/var/lib/docker", "dev": "259:1", "capacity": 1000, "available": 900,
            "inodes": 9, "inodes_free": 9}}"#;
        let (dir, root) = copy(Some(statfs));
        let found = || imagefs(&root, &settings("/var/lib/kubelet"), None, Some(&[]));
        let write = |path: &str, text: &str| {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        for torn in ["{\"data-root\": \"/da", "[]", "{\"data-root\": 5}", "{\"data-root\": \"data\"}"] {
            write("etc/docker/daemon.json", torn);
            let guess = found().unwrap();
            assert_eq!(guess.path, "/var/lib/docker");
            let why = guess.assumed.unwrap();
            assert!(why.contains("as by default: ") && why.contains("etc/docker/daemon.json: expected"), "{why}");
        }
        for fine in ["", "{}", "{\"data-root\": \"\"}"] {
            write("etc/docker/daemon.json", fine);
            assert!(found().unwrap().assumed.unwrap().ends_with("as by default"), "{fine}");
        }
        // What another runtime would use by default is not where this one has its images.
        write("etc/containerd/config.toml", "root = \"/data/containerd\"\n");
        let unknown = found().unwrap_err();
        assert_eq!(unknown.cause, Cause::Missing);
        for part in ["etc/containerd/config.toml", "/data/containerd", "image-root"] {
            assert!(unknown.why.contains(part), "{part}: {unknown}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_configuration_panic(bytes: Vec<u8>, text in "(\\[?(storage|root|graphroot)\\]?[ =\"'/a\n]{0,4}){0,6}") {
            let _ = toml_string(&bytes, "", "root");
            let _ = toml_string(text.as_bytes(), "storage", "graphroot");
        }

        #[test]
        fn no_bytes_make_the_side_files_parser_panic(bytes: Vec<u8>) {
            let _ = parse_captured(&bytes);
        }
    }
}
