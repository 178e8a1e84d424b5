//! The host's mount table, `/proc/1/mountinfo`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Seek, SeekFrom};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::facts::{Cause, DevId, MountEntry, MountId, Mounts, Unknown};

use super::root::{Root, TABLE, quote};
use crate::collect::kubelet::place::{KubeletPaths, looks_like_a_volume, not_recognized};

/// The first process's table is the host's.
const PATH: &str = "proc/1/mountinfo";

/// Reads before a table that never holds still is given up.
const TRIES: usize = 3;

/// The mount table with its descriptor, and what it last was.
#[derive(Debug, Default)]
pub struct MountTable {
    file: Option<File>,
    /// Another one in each process, so that nobody can make two tables that look alike.
    hashes: RandomState,
    parsed: Option<Parsed>,
}

#[derive(Debug)]
struct Parsed {
    mounts: Mounts,
    images: ImageDirs,
    /// The kubelet's directories by which paths were read.
    paths: KubeletPaths,
    /// Of the text, which a busy node has megabytes of.
    hash: u64,
}

impl MountTable {
    /// Reads the table while nothing changes in it.
    ///
    /// # Errors
    /// When it cannot be read, changed during each of three reads, or is no mount table.
    pub fn read(&mut self, root: &Root, paths: &KubeletPaths) -> Result<Mounts, Unknown> {
        // Who lists directories by an old table may list a volume that was mounted since: gone until all is read.
        // What was parsed rests on the kubelet's directory as well as on the text.
        let before = self.parsed.take().filter(|parsed| parsed.paths == *paths);
        let other = self.text(root, before.as_ref().map(|parsed| parsed.hash))?;
        let parsed = match (before, other) {
            // Most of a cycle would go into parsing what the last one parsed.
            (Some(parsed), None) => parsed,
            (_, text) => self.parse(root, &text.unwrap_or_default(), paths)?,
        };
        Ok(self.parsed.insert(parsed).mounts.clone())
    }

    /// Mount points below the kubelet's directory, as the latest read saw them; `None` where that was not whole.
    #[must_use]
    pub fn points_below(&self, paths: &KubeletPaths) -> Option<Vec<&str>> {
        let whole = self.mounts().filter(|mounts| mounts.incomplete().is_none())?;
        Some(whole.values().map(|mount| &*mount.point).filter(|point| paths.has(point)).collect())
    }

    /// All mounts, as the latest read saw them.
    #[must_use]
    pub fn mounts(&self) -> Option<&Mounts> {
        self.parsed.as_ref().map(|parsed| &parsed.mounts)
    }

    /// The directories of the images of which containers run, as the latest read saw them.
    #[must_use]
    pub fn image_dirs(&self) -> Option<&ImageDirs> {
        self.parsed.as_ref().map(|parsed| &parsed.images)
    }

    /// The text where it is not the one of this hash.
    fn text(&mut self, root: &Root, known: Option<u64>) -> Result<Option<Vec<u8>>, Unknown> {
        if !root.is_live() {
            return self.text_of(root, &root.file(PATH)?, known);
        }
        let kept = self.file.is_some();
        match self.text_while_still(root, known) {
            Err(why) if kept && why.cause != Cause::Torn => self.text_while_still(root, known),
            done => done,
        }
    }

    /// Lets go of the descriptor on any error.
    fn text_while_still(&mut self, root: &Root, known: Option<u64>) -> Result<Option<Vec<u8>>, Unknown> {
        let file = match self.file.take() {
            Some(file) => file,
            None => root.file(PATH)?,
        };
        let mut text = None;
        let read = || {
            text = self.text_of(root, &file, known)?;
            Ok(())
        };
        if !read_while_still(read, || changed(&file).map_err(|e| root.unknown(PATH, e)))? {
            let why = format!("{} changed during each of {TRIES} reads", root.name(PATH));
            return Err(Unknown::new(Cause::Torn, why));
        }
        self.file = Some(file);
        Ok(text)
    }

    /// A table that did not change is never held.
    fn text_of(&self, root: &Root, file: &File, known: Option<u64>) -> Result<Option<Vec<u8>>, Unknown> {
        let rewind = || {
            let mut file = file;
            file.seek(SeekFrom::Start(0)).map_err(|e| root.unknown(PATH, errno(&e)))
        };
        if known.is_some() {
            rewind()?;
            let mut hasher = self.hashes.build_hasher();
            root.digest(PATH, file, TABLE, &mut hasher)?;
            if known == Some(hasher.finish()) {
                return Ok(None);
            }
        }
        rewind()?;
        let mut text = Vec::new();
        root.drain(PATH, file, TABLE, &mut text)?;
        Ok(Some(text))
    }

    fn parse(&self, root: &Root, text: &[u8], paths: &KubeletPaths) -> Result<Parsed, Unknown> {
        let mut table = Table::scan(text, paths).map_err(|reason| root.malformed(PATH, reason))?;
        let images = std::mem::take(&mut table.images);
        let mounts = table.into_mounts(&root.name(PATH));
        let mut hasher = self.hashes.build_hasher();
        hasher.write(text);
        Ok(Parsed { mounts, images, paths: paths.clone(), hash: hasher.finish() })
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// Whether the table changed since this descriptor was opened or last asked, which the kernel tells once.
fn changed(file: &File) -> Result<bool, Errno> {
    let mut asked = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
    poll(&mut asked, PollTimeout::ZERO)?;
    let given = asked.iter().find_map(|fd| fd.revents()).unwrap_or(PollFlags::empty());
    Ok(given.intersects(PollFlags::POLLPRI | PollFlags::POLLERR))
}

/// Reads until nothing changed meanwhile; `false` where it never held still.
fn read_while_still(
    mut read: impl FnMut() -> Result<(), Unknown>,
    mut changed: impl FnMut() -> Result<bool, Unknown>,
) -> Result<bool, Unknown> {
    changed()?;
    for _ in 0..TRIES {
        read()?;
        if !changed()? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads a mount table. Lines that cannot be understood make it incomplete.
///
/// # Errors
/// The reason, where this is no mount table at all: it has no line for `/`.
pub fn parse(bytes: &[u8], kubelet_root: &str) -> Result<Mounts, String> {
    Table::scan(bytes, &KubeletPaths::plain(kubelet_root)).map(|table| table.into_mounts("the mount table"))
}

/// A table with what was wrong in it.
struct Table {
    entries: Vec<(MountId, MountEntry)>,
    images: ImageDirs,
    bad: Option<(usize, String)>,
    bad_count: usize,
    /// Volumes are mounted, and not one below the kubelet's directory.
    elsewhere: Option<Unknown>,
}

impl Table {
    fn scan(bytes: &[u8], paths: &KubeletPaths) -> Result<Self, String> {
        let images = ImageDirs::default();
        let mut table = Self { entries: Vec::new(), images, bad: None, bad_count: 0, elsewhere: None };
        for (index, text) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            match Line::whole(text) {
                Ok(line) => {
                    table.images.note(&line);
                    table.entries.push((line.id, line.entry(paths)));
                }
                Err(reason) => table.note(index.saturating_add(1), text, reason),
            }
        }
        if !table.entries.iter().any(|(_, mount)| &*mount.point == "/") {
            let lines = table.entries.len();
            return Err(format!("expected a mount table, found no line for / among {lines} mounts"));
        }
        table.note_twins();
        table.note_elsewhere(paths);
        Ok(table)
    }

    fn note(&mut self, number: usize, text: &[u8], reason: &str) {
        self.bad_count = self.bad_count.saturating_add(1);
        if self.bad.is_none() {
            self.bad = Some((number, format!("{reason} in {}", quote(&String::from_utf8_lossy(text)))));
        }
    }

    /// Kernels before 5.8 can give a mount twice and leave out another when the table changes under a read.
    fn note_twins(&mut self) {
        self.entries.sort_by_key(|(id, _)| *id);
        let twins = self.entries.array_windows().filter(|[(one, _), (two, _)]| one == two).count();
        if twins > 0 {
            self.bad_count = self.bad_count.saturating_add(twins);
            self.bad.get_or_insert_with(|| (0, "a mount is in it twice".into()));
        }
    }

    /// That nothing was recognized does not say that nothing is there.
    fn note_elsewhere(&mut self, paths: &KubeletPaths) {
        if self.entries.iter().any(|(_, mount)| mount.volume.is_some()) {
            return;
        }
        let aliases = self.aliases_of(&paths.root);
        let is_alias = |point: &str| {
            let below = |alias: &String| point.strip_prefix(alias.as_str()).is_some_and(|rest| rest.starts_with('/'));
            aliases.iter().any(below)
        };
        let points = self.entries.iter().map(|(_, mount)| &*mount.point);
        let point = points.filter(|point| !is_alias(point)).find(|point| looks_like_a_volume(point));
        self.elsewhere = point.map(|point| not_recognized(paths, point));
    }

    /// Other paths by which the kubelet's directory is reached, where it is a bind of one of them.
    fn aliases_of(&self, dir: &str) -> Vec<String> {
        let mut aliases = Vec::new();
        for (_, own) in self.entries.iter().filter(|(_, mount)| &*mount.point == dir) {
            for (_, mount) in self.entries.iter().filter(|(_, mount)| mount.dev == own.dev) {
                let root = if &*mount.root == "/" { "" } else { &*mount.root };
                let rest = own.root.strip_prefix(root).filter(|rest| rest.starts_with('/'));
                aliases.extend(rest.map(|rest| format!("{}{rest}", mount.point.trim_end_matches('/'))));
            }
        }
        aliases
    }

    fn into_mounts(self, name: &str) -> Mounts {
        let count = self.bad_count;
        let elsewhere = self.elsewhere;
        let incomplete = self.bad.map(|(line, reason)| {
            let place = if line == 0 { String::new() } else { format!(" line {line}") };
            Unknown::new(Cause::Incomplete, format!("{name}{place}: {reason}; {count} such lines in all"))
        });
        Mounts::with_incomplete(self.entries, incomplete.or(elsewhere))
    }
}

/// Where the images stand of which containers run: their overlays name it, whatever the runtime's configuration says.
/// Layers themselves are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageDirs {
    /// How many containers each runtime has of each directory.
    dirs: BTreeMap<(Runtime, String), usize>,
}

/// More directories than this no node has; who runs a container does not choose them.
const MAX_IMAGE_DIRS: usize = 8;

/// Who mounts a container's root. One before another where several are on a node: the kubelet's is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Runtime {
    /// containerd, for Kubernetes.
    Containerd,
    /// CRI-O, or Podman, which keeps its images the same way.
    Crio,
    /// Docker.
    Docker,
}

impl ImageDirs {
    /// The directories of the runtime that comes first, the most used one before the others.
    #[must_use]
    pub fn of_the_runtime(&self) -> Vec<&str> {
        let Some(first) = self.dirs.keys().map(|(runtime, _)| *runtime).min() else { return Vec::new() };
        let of_it = self.dirs.iter().filter(|((runtime, _), _)| *runtime == first);
        let mut dirs: Vec<_> = of_it.map(|((_, dir), count)| (*count, dir.as_str())).collect();
        dirs.sort_by(|one, two| two.0.cmp(&one.0).then(one.1.cmp(two.1)));
        dirs.into_iter().map(|(_, dir)| dir).collect()
    }

    fn note(&mut self, line: &Line<'_>) {
        let Some(found) = image_dir(line) else { return };
        let room = self.dirs.len() < MAX_IMAGE_DIRS;
        match self.dirs.get_mut(&found) {
            Some(count) => *count = count.saturating_add(1),
            None if room => drop(self.dirs.insert(found, 1)),
            None => {}
        }
    }
}

/// The directory of the images that a container's overlay is made of.
fn image_dir(line: &Line<'_>) -> Option<(Runtime, String)> {
    if line.fstype != b"overlay" {
        return None;
    }
    let upper = line.super_options.split(|byte| *byte == b',').find_map(|option| option.strip_prefix(b"upperdir="))?;
    let (point, upper) = (decode(line.point), decode(upper));
    if point.contains("/io.containerd.runtime.v") {
        // ROOT/io.containerd.snapshotter.v1.overlayfs/snapshots/13/fs
        let (dir, _) = upper.rsplit_once("/snapshots/").filter(|_| point.contains("/k8s.io/"))?;
        return dir.starts_with('/').then(|| (Runtime::Containerd, dir.to_owned()));
    }
    // ROOT/overlay/ID/diff, mounted at ROOT/overlay/ID/merged
    let layer = upper.strip_suffix("/diff").filter(|layer| point.strip_suffix("/merged") == Some(layer))?;
    let (dir, _) = layer.rsplit_once('/')?;
    let (root, runtime) = match dir.strip_suffix("/overlay2") {
        Some(root) => (root, Runtime::Docker),
        None => (dir.strip_suffix("/overlay")?, Runtime::Crio),
    };
    root.starts_with('/').then(|| (runtime, root.to_owned()))
}

/// One line as it stands, escapes and all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) id: MountId,
    parent: MountId,
    pub(super) dev: DevId,
    root: &'a [u8],
    pub(super) point: &'a [u8],
    /// It receives mounts and unmounts of another one.
    pub(super) follows: bool,
    options: &'a [u8],
    fstype: &'a [u8],
    source: &'a [u8],
    super_options: &'a [u8],
}

impl<'a> Line<'a> {
    /// A line must end: one that does not may be cut anywhere.
    fn whole(text: &'a [u8]) -> Result<Self, &'static str> {
        Self::parse(text.strip_suffix(b"\n").ok_or("the line does not end")?)
    }

    /// `id parent major:minor root point options [tag…] - fstype source super-options`
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, &'static str> {
        // The last field takes the rest: some filesystems do not escape blanks in their options.
        let mut rest = line;
        let mut word = || {
            let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
            let (word, after) = rest.split_at_checked(end)?;
            rest = after.get(1..).unwrap_or_default();
            Some(word)
        };
        let id = word().and_then(decimal).ok_or("expected a mount number")?;
        let parent = word().and_then(decimal).ok_or("expected the number of a parent mount")?;
        let dev = word().and_then(device).ok_or("expected a device number like 259:1")?;
        let path = "expected an absolute path";
        let root = word().filter(|word| !word.is_empty()).ok_or(path)?;
        let point = word().filter(|word| word.starts_with(b"/")).ok_or(path)?;
        let options = word().ok_or("expected options")?;
        let mut follows = false;
        loop {
            match word().filter(|tag| !tag.is_empty()).ok_or("expected a lone dash")? {
                b"-" => break,
                tag => follows |= tag.starts_with(b"master:"),
            }
        }
        let fstype = word().filter(|word| !word.is_empty()).ok_or("expected a filesystem type")?;
        let source = word().unwrap_or_default();
        // A table whose line end was lost would hide the mount behind it in this one's options.
        if rest.windows(3).any(|three| three == b" - ") {
            return Err("two lines run together");
        }
        Ok(Self { id, parent, dev, root, point, follows, options, fstype, source, super_options: rest })
    }

    fn entry(&self, paths: &KubeletPaths) -> MountEntry {
        let root = decode(self.root);
        let source = decode(self.source);
        let (point, point_deleted) = self.mount_point();
        let deleted = point_deleted || root.ends_with(GONE_ROOT) || source.ends_with(GONE);
        MountEntry {
            parent: self.parent,
            dev: self.dev,
            volume: paths.volume(&point),
            root: root.into(),
            point: point.into(),
            options: decode(self.options).into(),
            fstype: decode(self.fstype).into(),
            source: source.into(),
            super_options: decode(if self.fstype == b"overlay" { b"" } else { self.super_options }).into(),
            deleted,
        }
    }

    /// Where it is mounted, and whether that was deleted underneath.
    pub(super) fn mount_point(&self) -> (Cow<'a, str>, bool) {
        let point = decode(self.point);
        let bare = point.strip_suffix(GONE_ROOT).or_else(|| point.strip_suffix(GONE));
        match bare.filter(|bare| !bare.is_empty()).map(str::to_owned) {
            Some(bare) => (bare.into(), true),
            None => (point, false),
        }
    }
}

/// How the kernel marks a deleted directory within a filesystem.
const GONE_ROOT: &str = "//deleted";
/// How it marks a deleted path.
const GONE: &str = " (deleted)";

fn decimal(word: &[u8]) -> Option<u32> {
    let digits = word.first().is_some_and(u8::is_ascii_digit);
    std::str::from_utf8(word).ok().filter(|_| digits)?.parse().ok()
}

fn device(word: &[u8]) -> Option<DevId> {
    let colon = word.iter().position(|byte| *byte == b':')?;
    let (major, minor) = word.split_at_checked(colon)?;
    Some(DevId { major: decimal(major)?, minor: decimal(minor.strip_prefix(b":")?)? })
}

/// Undoes the kernel's octal escapes (`\040` for a blank), then makes text of it.
#[must_use]
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    if !bytes.contains(&b'\\') {
        return String::from_utf8_lossy(bytes);
    }
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        let escape = (*first == b'\\').then(|| after.split_first_chunk::<3>()).flatten();
        let escape = escape.and_then(|(digits, after)| Some((octal(*digits)?, after)));
        let (byte, after) = escape.unwrap_or((*first, after));
        plain.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&plain).into_owned().into()
}

fn octal(digits: [u8; 3]) -> Option<u8> {
    digits.iter().try_fold(0u8, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::facts::NotAbsent;
    use crate::facts::VolumePath;

    const KUBELET: &str = "/var/lib/kubelet";
    const NODE: &[u8] = include_bytes!("../../../tests/fuzz/seeds/mountinfo/ebs-node");
    const ODD: &[u8] = include_bytes!("../../../tests/fuzz/seeds/mountinfo/odd");
    const ROOT: &str = "29 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n";

    fn table(lines: &str) -> Mounts {
        parse(format!("{ROOT}{lines}").as_bytes(), KUBELET).unwrap()
    }

    fn mount(line: &str) -> MountEntry {
        let mounts = table(&format!("{line}\n"));
        assert_eq!(mounts.incomplete(), None, "{line}");
        mounts.values().last().unwrap().clone()
    }

    fn incomplete(lines: &str) -> String {
        let mounts = table(lines);
        assert_eq!(mounts.lacks(&9999), Err(NotAbsent::Unknown(mounts.incomplete().unwrap())));
        mounts.incomplete().unwrap().why.clone()
    }

    #[test]
    fn a_real_nodes_table_is_read_whole() {
        let mounts = parse(NODE, KUBELET).unwrap();
        assert_eq!((mounts.len(), mounts.incomplete()), (7, None));
        let staging = mounts.get(&38).unwrap();
        assert_eq!((staging.parent, staging.dev), (34, DevId { major: 259, minor: 1 }));
        assert_eq!((&*staging.root, &*staging.options, &*staging.super_options), ("/", "rw,relatime", "rw"));
        assert_eq!((&*staging.fstype, &*staging.source), ("ext4", "/dev/nvme1n1"));
        assert!(matches!(staging.volume, Some(VolumePath::Staging { .. })), "{staging:?}");
        assert_eq!(&*mounts.get(&46).unwrap().root, "/inner");
        assert_eq!(mounts.get(&37).unwrap().raw_block_device(), Some("nvme2n1"));
        assert_eq!(mounts.values().filter(|mount| mount.volume.is_some()).count(), 5);
    }

    #[test]
    fn what_kernels_write_besides_is_read_too() {
        let mounts = parse(ODD, KUBELET).unwrap();
        assert_eq!(mounts.incomplete(), None);
        assert_eq!(&*mounts.get(&50).unwrap().point, "/mnt/a b\tc\nd\\e");
        assert_eq!(&*mounts.get(&51).unwrap().point, "/mnt/\u{fffd}x");
        assert_eq!((&*mounts.get(&52).unwrap().source, &*mounts.get(&52).unwrap().super_options), ("", "rw"));
        assert_eq!(&*mounts.get(&53).unwrap().root, "net:[4026532281]");
        assert_eq!(&*mounts.get(&54).unwrap().super_options, "ro,name=two words");
        assert_eq!(&*mounts.get(&55).unwrap().super_options, "");
    }

    #[test]
    fn the_layers_of_an_overlay_are_not_kept() {
        let overlay =
            mount("60 29 0:70 / /run/rootfs rw - overlay overlay rw,lowerdir=/a/1/fs:/a/2/fs,upperdir=/a/3/fs");
        assert_eq!((&*overlay.fstype, &*overlay.options, &*overlay.super_options), ("overlay", "rw", ""));
    }

    fn image_dirs(lines: &str) -> Vec<String> {
        let table = Table::scan(format!("{ROOT}{lines}").as_bytes(), &KubeletPaths::plain(KUBELET)).unwrap();
        table.images.of_the_runtime().into_iter().map(str::to_owned).collect()
    }

    fn container(id: u32, dir: &str) -> String {
        let task = format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id:064x}/rootfs");
        format!(
            "{id} 29 0:{id} / {task} rw - overlay overlay rw,lowerdir={dir}/snapshots/1/fs,upperdir={dir}/snapshots/{id}/fs,workdir={dir}/snapshots/{id}/work\n"
        )
    }

    #[test]
    fn running_containers_show_where_their_images_are() {
        assert_eq!(image_dirs(""), [""; 0]);
        let (old, new) = ("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs", "/data/c\\040d/overlayfs");
        let lines = [container(60, old), container(61, new), container(62, new)].concat();
        assert_eq!(image_dirs(&lines), ["/data/c d/overlayfs", old], "the one that more containers use comes first");
        let docker = "70 29 0:70 / /srv/docker/overlay2/aa/merged rw - overlay overlay rw,lowerdir=/srv/docker/overlay2/l/X,upperdir=/srv/docker/overlay2/aa/diff,workdir=/srv/docker/overlay2/aa/work\n";
        assert_eq!(image_dirs(docker), ["/srv/docker"]);
        let crio =
            docker.replace("/srv/docker/overlay2", "/srv/containers/overlay").replace("70 29 0:70", "71 29 0:71");
        assert_eq!(image_dirs(&format!("{docker}{crio}")), ["/srv/containers"]);
        assert_eq!(image_dirs(&format!("{docker}{lines}")).len(), 2, "Docker beside containerd is not the kubelet's");
    }

    #[test]
    fn other_overlays_show_nothing_of_the_images() {
        for line in [
            "60 29 0:60 / /mnt/live rw - overlay overlay rw,lowerdir=/ro,upperdir=/rw/up,workdir=/rw/work\n",
            "60 29 0:60 / /etc/merged rw - overlay overlay rw,lowerdir=/ro,upperdir=/etc/diff,workdir=/rw/work\n",
            "60 29 0:60 / /x/overlay/aa/merged ro - overlay overlay ro,lowerdir=/x/overlay/l/A:/x/overlay/l/B\n",
            "60 29 0:60 / /run/containerd/io.containerd.runtime.v2.task/moby/aa/rootfs rw - overlay overlay rw,upperdir=/d/snapshots/1/fs\n",
            "60 29 0:60 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/aa/rootfs rw - overlay overlay rw,upperdir=snapshots/1/fs\n",
        ] {
            assert_eq!(image_dirs(line), [""; 0], "{line}");
        }
        let many: String = (0..100).map(|id| container(100 + id, &format!("/d{id}"))).collect();
        assert_eq!(image_dirs(&many).len(), MAX_IMAGE_DIRS);
    }

    #[test]
    fn what_was_deleted_underneath_is_marked_and_keeps_its_name() {
        let raw = mount("37 34 0:5 /nvme2n1//deleted /x rw - devtmpfs dev rw");
        assert_eq!((raw.deleted, &*raw.root), (true, "/nvme2n1//deleted"));
        assert_eq!(raw.raw_block_device(), Some("nvme2n1"));
        for point in
            ["/var/lib/kubelet/pods/u/volumes/p/n//deleted", "/var/lib/kubelet/pods/u/volumes/p/n\\040(deleted)"]
        {
            let gone = mount(&format!("38 34 259:1 / {point} rw - ext4 /dev/nvme1n1 rw"));
            assert_eq!((gone.deleted, &*gone.point), (true, "/var/lib/kubelet/pods/u/volumes/p/n"));
            assert!(gone.volume.is_some());
        }
        assert!(mount("39 34 0:9 / /x rw - fuse /srv/a\\040(deleted) rw").deleted);
        assert!(!mount("40 34 0:9 / /x rw - fuse /srv/deleted rw").deleted);
    }

    #[test]
    fn any_number_of_tags_stands_before_the_dash() {
        for tags in ["", "shared:1 ", "shared:1 master:2 propagate_from:3 unbindable ", "new:1 - "] {
            let line = format!("38 34 259:1 / /x rw {tags}- xfs /dev/b rw");
            let fstype = mount(&line).fstype;
            // The first lone dash is the one: no tag is called that.
            assert_eq!(&*fstype, if tags.contains('-') { "-" } else { "xfs" }, "{line}");
        }
    }

    #[test]
    fn a_line_that_is_none_leaves_a_gap_that_names_it() {
        let why = incomplete("38 34 259:1 / /x rw - ext4 /dev/b rw\n39 34 259 / /y rw - ext4 /dev/b rw\n\nx\n");
        assert!(why.contains("line 3: expected a device number") && why.contains("3 such lines"), "{why}");
        for line in ["x", "1", "1 2", "1 2 3:4", "1 2 3:4 /", "1 2 3:4 / x rw - t s", "1 2 3:4 / /x", "1 2 3:4 / /x rw"]
        {
            incomplete(&format!("{line}\n"));
        }
        assert!(incomplete("1 2 3:4 / /x rw shared:1\n").contains("expected a lone dash"));
        assert!(incomplete("1 2 3:4 / /x rw - \n").contains("expected a filesystem type"));
        assert!(incomplete("+1 2 3:4 / /x rw - t s o\n").contains("expected a mount number"));
        assert!(incomplete("1 2 3:4 / /x rw - ext4 /dev/nv").contains("line 2: the line does not end"));
    }

    #[test]
    fn a_mount_that_stands_there_twice_is_a_torn_read() {
        let line = "38 34 259:1 / /x rw - ext4 /dev/b rw\n";
        assert!(incomplete(&format!("{line}{line}")).contains("twice"));
    }

    #[test]
    fn a_table_without_a_root_is_no_table() {
        for text in ["", "\n", "38 34 259:1 / /x rw - ext4 /dev/b rw\n", "MemTotal: 1 kB\n"] {
            assert!(parse(text.as_bytes(), KUBELET).unwrap_err().contains("no line for /"), "{text}");
        }
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut table = MountTable::default();
        assert_eq!(table.read(&root, &KubeletPaths::plain(KUBELET)).unwrap_err().cause, Cause::Missing);
        std::fs::create_dir_all(dir.path().join("proc/1")).unwrap();
        std::fs::write(dir.path().join(PATH), "").unwrap();
        let unknown = table.read(&root, &KubeletPaths::plain(KUBELET)).unwrap_err();
        assert!(unknown.cause == Cause::Malformed && unknown.why.contains("proc/1/mountinfo: expected"), "{unknown}");
    }

    #[test]
    fn the_last_points_are_those_of_the_latest_whole_table_below_the_kubelet() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc/1")).unwrap();
        let write = |bytes: &[u8]| std::fs::write(dir.path().join(PATH), bytes).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut table = MountTable::default();
        assert_eq!(table.points_below(&KubeletPaths::plain(KUBELET)), None);
        write(NODE);
        table.read(&root, &KubeletPaths::plain(KUBELET)).unwrap();
        let points = table.points_below(&KubeletPaths::plain(KUBELET)).unwrap();
        assert_eq!(points.len(), 5, "{points:?}");
        assert!(points.iter().all(|point| point.starts_with("/var/lib/kubelet/p")));
        write(&[NODE, b"torn"].concat());
        table.read(&root, &KubeletPaths::plain(KUBELET)).unwrap();
        assert_eq!(table.points_below(&KubeletPaths::plain(KUBELET)), None, "an incomplete table may lack a volume");
    }

    #[test]
    fn a_table_that_did_not_change_is_the_same_table_and_one_that_did_is_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc/1")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut table = MountTable::default();
        let mut read = |text: &str| {
            std::fs::write(dir.path().join(PATH), text).unwrap();
            table.read(&root, &KubeletPaths::plain(KUBELET))
        };
        let place = |mounts: &Mounts| std::ptr::from_ref(mounts.values().next().unwrap());
        let first = read(ROOT).unwrap();
        assert_eq!(place(&first), place(&read(ROOT).unwrap()));
        // An option changes in place and wakes nobody.
        let read_only = ROOT.replace("rw", "ro");
        let second = read(&read_only).unwrap();
        assert_eq!(second, parse(read_only.as_bytes(), KUBELET).unwrap());
        assert_ne!(second, first);
        assert!(read("").is_err() && read("").is_err(), "no table is not the table before it");
        assert_eq!(read(ROOT).unwrap(), first);
    }

    #[test]
    fn a_hundred_thousand_mounts_are_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc/1")).unwrap();
        let mut text = ROOT.to_owned();
        for id in 100..100_100 {
            text.push_str(&format!("{id} 29 0:{id} / /run/netns/{id} rw shared:{id} - tmpfs tmpfs rw,size=65536k\n"));
        }
        std::fs::write(dir.path().join(PATH), &text).unwrap();
        let mut table = MountTable::default();
        let mounts = table.read(&Root::open(dir.path()).unwrap(), &KubeletPaths::plain(KUBELET)).unwrap();
        assert_eq!((mounts.len(), mounts.incomplete()), (100_001, None));
    }

    #[test]
    fn a_table_that_never_holds_still_is_given_up() {
        let still = |changes: &[bool]| {
            let (mut reads, mut answers) = (0, changes.iter().copied());
            let read = || {
                reads += 1;
                Ok(())
            };
            let held = read_while_still(read, || Ok(answers.next().unwrap())).unwrap();
            (reads, held)
        };
        assert_eq!(still(&[true, false]), (1, true), "what changed before the read is old news");
        assert_eq!(still(&[false, true, false]), (2, true));
        assert_eq!(still(&[false, true, true, true]), (3, false));
    }

    #[test]
    fn this_machines_table_is_read_again_through_the_same_descriptor() {
        let root = Root::open(Path::new("/")).unwrap();
        let mut table = MountTable::default();
        let first = table.read(&root, &KubeletPaths::plain("/proc")).unwrap();
        assert!(table.file.is_some());
        let again = table.read(&root, &KubeletPaths::plain("/proc")).unwrap();
        assert_eq!((first.incomplete(), again.incomplete()), (None, None));
        assert!(first.values().any(|mount| &*mount.fstype == "proc"));
        assert!(table.points_below(&KubeletPaths::plain(KUBELET)).is_some());
    }

    #[test]
    fn a_descriptor_that_fails_is_opened_anew() {
        let root = Root::open(Path::new("/")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut table = MountTable { file: Some(File::open(dir.path()).unwrap()), ..MountTable::default() };
        assert!(table.read(&root, &KubeletPaths::plain(KUBELET)).is_ok());
    }

    #[test]
    fn octal_escapes_are_undone_and_other_backslashes_stay() {
        for (raw, plain) in [
            (r"a\040b", "a b"),
            (r"\134040", r"\040"),
            (r"\04", r"\04"),
            (r"\400", r"\400"),
            (r"\089", r"\089"),
            ("\\", "\\"),
        ] {
            assert_eq!(decode(raw.as_bytes()), plain);
        }
        assert_eq!(decode(br"\303\251"), "é");
    }

    /// Writes a path as the kernel does.
    fn encode(text: &str) -> String {
        text.bytes()
            .map(|b| if b" \t\n\\".contains(&b) { format!("\\{b:03o}") } else { char::from(b).into() })
            .collect()
    }

    proptest! {
        #[test]
        fn no_bytes_upset_it(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes, KUBELET);
            let _ = parse(&[ROOT.as_bytes(), &bytes, b"\n"].concat(), KUBELET);
            prop_assert!(decode(&bytes).len() <= bytes.len().saturating_mul(3));
        }

        #[test]
        fn a_table_with_one_byte_changed_is_read_or_refused(at in 0..NODE.len(), byte: u8) {
            let mut bytes = NODE.to_vec();
            bytes[at] = byte;
            if let Ok(mounts) = parse(&bytes, KUBELET) {
                prop_assert!(mounts.len() <= 8);
                prop_assert!(mounts.values().all(|mount| mount.point.starts_with('/') && !mount.fstype.is_empty()));
                // Without the end of a line, the next one is taken for the options that the first one ends with.
                prop_assert!(mounts.len() >= 7 || mounts.incomplete().is_some() || NODE[at] == b'\n');
            }
        }

        #[test]
        fn a_table_cut_anywhere_says_so(cut in 0..NODE.len()) {
            match parse(&NODE[..cut], KUBELET) {
                Ok(mounts) => prop_assert!(mounts.incomplete().is_some() || NODE[..cut].ends_with(b"\n")),
                Err(reason) => prop_assert!(reason.contains("no line for /")),
            }
        }

        #[test]
        fn what_the_kernel_escapes_comes_back(id: u32, major: u32, minor: u32, point in "[ -~\t\n]{0,40}", source in "[ -~\t\n]{0,20}") {
            let (point, source) = (format!("/{point}."), format!("{source}."));
            let line = format!("{id} 0 {major}:{minor} / {} rw - t {} rw,x", encode(&point), encode(&source));
            let line = Line::parse(line.as_bytes()).unwrap();
            let entry = line.entry(&KubeletPaths::plain(KUBELET));
            prop_assert_eq!(line.id, id);
            prop_assert_eq!(entry.dev, DevId { major, minor });
            prop_assert_eq!((&*entry.point, &*entry.source, &*entry.super_options), (&*point, &*source, "rw,x"));
        }
    }
}
