//! The host's mount table, `/proc/1/mountinfo`, and that of a kubelet in a mount namespace of its own.

mod images;
mod kept;
mod kubelets;
mod line;
mod strings;
mod table;

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Seek, SeekFrom};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::facts::{Cause, Mounts, Unknown};

use super::root::Root;
use crate::collect::kubelet::place::KubeletPaths;
pub use images::ImageDirs;
pub use kubelets::{HostMounts, first_mount_of};
pub(super) use line::Line;
pub use line::decode;
use table::{BOUNDS, Table};
pub use table::{parse, parse_from};

/// The process that has the host's table.
pub(super) const FIRST: u32 = 1;
#[cfg(test)]
const PATH: &str = "proc/1/mountinfo";

/// Mount points below the kubelet's directory; `None` where the table is not whole.
fn points_below<'m>(mounts: &'m Mounts, paths: &KubeletPaths) -> Option<Vec<&'m str>> {
    let whole = Some(mounts).filter(|mounts| mounts.incomplete().is_none())?;
    Some(whole.values().map(|mount| &*mount.point).filter(|point| paths.has(point)).collect())
}

/// Reads before a table that never holds still is given up.
const TRIES: usize = 3;

/// The mount table of one process with its descriptor, and what it last was.
#[derive(Debug, Default)]
pub struct MountTable {
    /// The first process, unless it is another.
    pid: Option<u32>,
    file: Option<File>,
    /// Another one in each process, so that no user can make two tables that look alike.
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
    /// The table of a process.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        Self { pid: Some(pid), ..Self::default() }
    }

    /// The process that has the table.
    fn pid(&self) -> u32 {
        self.pid.unwrap_or(FIRST)
    }

    fn path(&self) -> String {
        format!("proc/{}/mountinfo", self.pid())
    }

    /// Reads the table while nothing changes in it.
    ///
    /// # Errors
    /// When it cannot be read, changed during each of three reads, or is no mount table.
    pub fn read(&mut self, root: &Root, paths: &KubeletPaths) -> Result<Mounts, Unknown> {
        // Who lists directories by an old table may list a volume that was mounted since: gone until all is read.
        // What was parsed rests on the kubelet's directory as well as on the text.
        let before = self.parsed.take().filter(|parsed| parsed.paths == *paths);
        let other = self.read_other(root, paths, before.as_ref().map(|parsed| parsed.hash))?;
        // Most of a cycle would go into parsing what the last one parsed.
        let parsed = other.or(before).ok_or_else(|| root.malformed(&self.path(), "expected a mount table"))?;
        Ok(self.parsed.insert(parsed).mounts.clone())
    }

    /// The directories of the images of which containers run, as the latest read saw them.
    #[must_use]
    pub fn image_dirs(&self) -> Option<&ImageDirs> {
        self.parsed.as_ref().map(|parsed| &parsed.images)
    }

    /// The table where it is not the one of this hash.
    fn read_other(&mut self, root: &Root, paths: &KubeletPaths, known: Option<u64>) -> Result<Option<Parsed>, Unknown> {
        if !root.is_live() {
            return self.parse_other(root, &root.file(&self.path())?, paths, known);
        }
        let kept = self.file.is_some();
        match self.read_while_still(root, paths, known) {
            Err(why) if kept && why.cause != Cause::Torn => self.read_while_still(root, paths, known),
            done => done,
        }
    }

    /// Lets go of the descriptor on any error.
    fn read_while_still(
        &mut self,
        root: &Root,
        paths: &KubeletPaths,
        known: Option<u64>,
    ) -> Result<Option<Parsed>, Unknown> {
        let path = self.path();
        let file = match self.file.take() {
            Some(file) => file,
            None => root.file(&path)?,
        };
        let mut parsed = None;
        let read = || {
            // One that is of no use is not held beside the next.
            parsed = None;
            parsed = self.parse_other(root, &file, paths, known)?;
            Ok(())
        };
        if !read_while_still(read, || changed(&file).map_err(|e| root.unknown(&path, e)))? {
            let why = format!("{} changed during each of {TRIES} reads", root.name(&path));
            return Err(Unknown::new(Cause::Torn, why));
        }
        self.file = Some(file);
        Ok(parsed)
    }

    /// A table that did not change is not parsed, and none is ever held as text.
    fn parse_other(
        &self,
        root: &Root,
        file: &File,
        paths: &KubeletPaths,
        known: Option<u64>,
    ) -> Result<Option<Parsed>, Unknown> {
        let path = self.path();
        let rewind = || {
            let mut file = file;
            file.seek(SeekFrom::Start(0)).map_err(|e| root.unknown(&path, errno(&e)))
        };
        if known.is_some() {
            rewind()?;
            let mut hasher = self.hashes.build_hasher();
            match root.digest(&path, file, BOUNDS.bytes, &mut hasher) {
                Ok(()) if known == Some(hasher.finish()) => return Ok(None),
                Ok(()) => {}
                // The parser says how much of it was read.
                Err(why) if why.cause == Cause::TooLarge => {}
                Err(why) => return Err(why),
            }
        }
        rewind()?;
        let mut hasher = self.hashes.build_hasher();
        let mut table = Table::new(paths);
        let end = root.each_line(&path, file, BOUNDS, |bytes| hasher.write(bytes), |line| table.line(line))?;
        let (mounts, images) = table.finish(end, &root.name(&path)).map_err(|reason| root.malformed(&path, reason))?;
        Ok(Some(Parsed { mounts, images, paths: paths.clone(), hash: hasher.finish() }))
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// Whether the table changed since this descriptor was opened or last asked, which the kernel reports once.
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

super::read_from_host! {
    Mounts: |host, _| {
        let kubelet = host.kubelet.running(&host.root, &host.set_root, host.mounts.is_apart());
        host.mounts.read(&host.root, &host.paths, kubelet)
    };
}

#[cfg(test)]
mod tests {

    use proptest::prelude::*;

    use super::super::root::each_line;
    use super::images::MAX_IMAGE_DIRS;
    use super::*;
    use crate::collect::host::root::tree_of;
    use crate::facts::{DevId, MountEntry, NotAbsent, VolumePath};

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
        assert_eq!(&*mounts.get(&55).unwrap().super_options, "ro");
    }

    #[test]
    fn the_layers_of_an_overlay_are_not_kept() {
        let overlay =
            mount("60 29 0:70 / /run/rootfs rw - overlay overlay rw,lowerdir=/a/1/fs:/a/2/fs,upperdir=/a/3/fs");
        assert_eq!((&*overlay.fstype, &*overlay.options, &*overlay.super_options), ("overlay", "rw", ""));
    }

    fn image_dirs(lines: &str) -> Vec<String> {
        let (text, paths) = (format!("{ROOT}{lines}"), KubeletPaths::plain(KUBELET));
        let mut table = Table::new(&paths);
        let end = each_line(text.as_bytes(), BOUNDS, |_| {}, |line| table.line(line)).ok().unwrap();
        let (_, images) = table.finish(end, "x").unwrap();
        images.of_the_runtime().into_iter().map(str::to_owned).collect()
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
        for tags in ["", "shared:1 ", "shared:1 master:2 propagate_from:3 unbindable "] {
            assert_eq!(&*mount(&format!("38 34 259:1 / /x rw {tags}- xfs /dev/b rw")).fstype, "xfs", "{tags}");
        }
        // The first lone dash is the one: no tag is called that.
        assert_eq!(&*mount("38 34 259:1 / /x rw new:1 - - /dev/b rw").fstype, "-");
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
        for cut in ["ex", "ext4 /dev/nvme1n", "ext4 /dev/nvme1n1 ", "ext4 /dev/nvme1n1 r"] {
            let line = format!("1 2 3:4 / /x rw - {cut}\n");
            assert!(incomplete(&line).contains("expected the filesystem's options"), "{cut}");
        }
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
        let mut table = HostMounts::default();
        assert_eq!(table.points_below(&KubeletPaths::plain(KUBELET)), None);
        write(NODE);
        table.read(&root, &KubeletPaths::plain(KUBELET), Ok(None)).unwrap();
        let points = table.points_below(&KubeletPaths::plain(KUBELET)).unwrap();
        assert_eq!(points.len(), 5, "{points:?}");
        assert!(points.iter().all(|point| point.starts_with("/var/lib/kubelet/p")));
        write(&[NODE, b"torn"].concat());
        table.read(&root, &KubeletPaths::plain(KUBELET), Ok(None)).unwrap();
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
        // An option changes in place and wakes no reader.
        let read_only = ROOT.replace("rw", "ro");
        let second = read(&read_only).unwrap();
        assert_eq!(second, parse(read_only.as_bytes(), KUBELET).unwrap());
        assert_ne!(second, first);
        assert!(read("").is_err() && read("").is_err(), "no table is not the table before it");
        assert_eq!(read(ROOT).unwrap(), first);
    }

    #[test]
    fn of_a_hundred_thousand_mounts_those_are_kept_that_findings_rest_on() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc/1")).unwrap();
        let mut text = ROOT.to_owned();
        for id in 100..100_100 {
            text.push_str(&format!("{id} 29 0:{id} / /run/netns/{id} rw shared:{id} - tmpfs tmpfs rw,size=65536k\n"));
        }
        text.push_str("100100 29 259:1 / /mnt/data rw shared:9 - xfs /dev/nvme1n1 rw\n");
        std::fs::write(dir.path().join(PATH), &text).unwrap();
        let mut table = MountTable::default();
        let mounts = table.read(&Root::open(dir.path()).unwrap(), &KubeletPaths::plain(KUBELET)).unwrap();
        assert!(mounts.len() < 3000 && mounts.incomplete().is_none());
        assert_eq!(&*mounts.get(&100_100).unwrap().point, "/mnt/data");
    }

    #[test]
    fn a_table_above_its_bounds_is_incomplete_and_says_how() {
        let pod = |id: u32| {
            format!("{id} 29 0:{id} / {KUBELET}/pods/u/volumes/kubernetes.io~csi/v{id}/mount rw - tmpfs tmpfs rw\n")
        };
        let why = incomplete(&(20_000..50_000).map(pod).collect::<String>());
        assert!(why.contains("has 30001 mounts that findings rest on, and there is room for "), "{why}");
        let long = format!(
            "38 29 259:1 / /x rw - ext4 /dev/b rw,{}\n39 29 259:2 / /y rw - ext4 /dev/c rw\n",
            "x".repeat(BOUNDS.line)
        );
        let why = incomplete(&long);
        assert!(why.contains("line 2: the line is too long in \"38 29 259:1"), "{why}");
        assert!(table(&long).get(&39).is_some());
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
    fn a_running_machines_table_is_read_again_through_the_same_descriptor() {
        let table = b"20 29 0:5 / /proc rw - proc proc rw\n29 1 259:1 / / rw - ext4 /dev/nvme1n1 rw\n";
        let (_dir, root) = tree_of(&[(PATH, table)]);
        let root = root.into_machine();
        let mut table = MountTable::default();
        let first = table.read(&root, &KubeletPaths::plain("/proc")).unwrap();
        assert!(table.file.is_some());
        let again = table.read(&root, &KubeletPaths::plain("/proc")).unwrap();
        assert_eq!((first.incomplete(), again.incomplete()), (None, None));
        assert!(first.values().any(|mount| &*mount.fstype == "proc"));
        assert!(points_below(&again, &KubeletPaths::plain(KUBELET)).is_some());
    }

    #[test]
    fn a_descriptor_that_fails_is_opened_again() {
        let (dir, root) = tree_of(&[(PATH, b"29 1 259:1 / / rw - ext4 /dev/nvme1n1 rw\n")]);
        let root = root.into_machine();
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
            prop_assert_eq!(Line::parse(line.as_bytes()).unwrap().id, id);
            let entry = mount(&line.replacen(&format!("{id} "), "77 ", 1));
            prop_assert_eq!(entry.dev, DevId { major, minor });
            prop_assert_eq!((&*entry.point, &*entry.source, &*entry.super_options), (&*point, &*source, "rw,x"));
        }
    }
}
