//! Deleted files that processes have open, of filesystems that are asked about: what they occupy, and who has them.
//!
//! A link in `/proc/PID/fd` ends in ` (deleted)` where its file has lost that name; that it has no other says `st_nlink`. Following such a
//! link may wait for a server, so the filesystem is known before: `mnt_id` of the descriptor, by the process's own mount table. What has no
//! mount there is no file of a disk (memfd, sockets, System V memory), or is on a mount that was detached lazily.
//!
//! What a container writes is on an overlay, and occupies the filesystem of its upper directory. Whose that is says the host's mount table
//! alone: in a namespace of its own a process may mount an overlay and call its upper directory what it likes. A file of a lower layer that
//! was deleted keeps its name there, and is not counted.
//!
//! Which descriptors other processes have takes CAP_SYS_PTRACE (the component `holders`). A mapped file that is no longer open is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Seek, SeekFrom};

use super::files::{FILES_A_LOOK, MAX_FILES, PROCESS_COST, mount_of};
use super::mounts::{HOST_BYTES, LARGE_BYTES, LINE_BYTES};
use super::process::holder;
use super::turns::Turns;
use super::{MAX_TIME, Search, later, now, processes};
use crate::collect::host::failures::Failures;
use crate::collect::host::mountinfo::{FIRST, Line};
use crate::collect::host::root::{Bounds, End, Root, TextLine};
use crate::facts::{
    Cause, Component, DeletedFiles, DevId, FilesHolder, HeldBy, HeldFiles, Lookup, MAX_HOLDERS, MountId, OpenFile,
    Unknown,
};

/// How the kernel marks a file that has lost the name that it was opened by.
const GONE: &str = " (deleted)";
/// What a deleted file costs beside its link, as files.
const FILE_COST: usize = 3;
/// Descriptors of one process that are read before it is another's turn.
const SLICE: usize = 1_024;
/// Mounts of the filesystems that are asked about, in all namespaces.
const MAX_MOUNTS: usize = 65_536;
/// Overlays of the host: a node has one for each container.
const MAX_OVERLAYS: usize = 8_192;
/// What a copy of a machine has instead of its files.
const SIDE_FILE: &str = "captured/open-files.json";
/// More than any side file of ours.
const MAX_SIDE_FILES: usize = 10_000;

/// Looks for deleted files that are open, of the filesystems that are asked about.
///
/// # Errors
/// When nothing was asked, the host's mounts or processes cannot be listed, or other processes' descriptors may not be read.
pub(super) fn find(root: &Root, lookups: &[Lookup]) -> Result<DeletedFiles, Unknown> {
    let asked = lookups.iter().filter_map(|ask| match ask {
        Lookup::DeletedFiles(dev) => Some((*dev, Sum::default())),
        _ => None,
    });
    let sums: BTreeMap<DevId, Sum> = asked.collect();
    if sums.is_empty() {
        return Err(Unknown::not_asked());
    }
    let mut failures = Failures::default();
    let mut open = OpenFiles::new(root, sums)?;
    open.hosts_mounts(&mut failures)?;
    let pids = processes(root, &mut failures)?;
    open.search.until = later(MAX_TIME);
    open.processes(&pids, &mut failures);
    open.into_answer(failures)
}

/// What is held of one filesystem.
#[derive(Default)]
struct Sum {
    bytes: u64,
    /// Each file that was counted, with the process that it was counted for.
    counted: BTreeMap<(DevId, u64), u32>,
    by_process: BTreeMap<u32, Held>,
}

/// What one process holds of it.
#[derive(Default)]
struct Held {
    bytes: u64,
    files: u64,
    others: u64,
    largest: Option<(u64, u32, String)>,
}

/// A mount of a filesystem that is asked about, or an overlay that writes to it.
#[derive(Clone, Copy)]
struct Carrier {
    /// The filesystem that is asked about.
    dev: DevId,
    /// The mount's own.
    own: DevId,
}

/// Descriptors of a process that wait to be read.
struct Turn {
    pid: u32,
    /// The first one that was not read.
    next: u32,
    /// How many were.
    read: usize,
}

/// How far a process was read.
enum Slice {
    /// To its end.
    Whole,
    /// There are more.
    More(Turn),
    /// Not to the end of the slice.
    Cut,
}

/// A descriptor that was closed meanwhile is none; any other that could not be read may hold what is asked for.
fn note_unless_closed(why: Unknown, failures: &mut Failures) {
    if why.cause != Cause::Missing {
        failures.note(why);
    }
}

/// Each mount of the host's table, from its beginning.
fn each_mount(
    root: &Root,
    path: &str,
    file: &mut File,
    mut on: impl FnMut(Result<Line<'_>, &'static str>),
) -> Result<End, Unknown> {
    file.seek(SeekFrom::Start(0)).map_err(|error| root.unknown(path, super::mounts::errno(&error)))?;
    let bounds = Bounds { bytes: HOST_BYTES, line: LINE_BYTES };
    let on_line = |line: TextLine<'_>| {
        if let Some(line) = whole(line) {
            on(Line::parse(line));
        }
        true
    };
    root.each_line(path, &*file, bounds, |_| {}, on_line)
}

struct OpenFiles<'a> {
    search: Search<'a>,
    sums: BTreeMap<DevId, Sum>,
    /// The filesystems that the host's overlays write to, as far as they are asked about.
    overlays: BTreeMap<DevId, DevId>,
    mounts: BTreeMap<MountId, Carrier>,
    /// Namespaces that were read, by their first mount.
    read: BTreeSet<MountId>,
    denied: u64,
    /// On a copy of a machine, what its files are.
    captured: Option<BTreeMap<String, OpenFile>>,
}

impl<'a> OpenFiles<'a> {
    fn new(root: &'a Root, sums: BTreeMap<DevId, Sum>) -> Result<Self, Unknown> {
        let captured = if root.is_live() { None } else { Some(captured(root)?) };
        Ok(Self {
            search: Search::new(root, BTreeMap::new()),
            sums,
            overlays: BTreeMap::new(),
            mounts: BTreeMap::new(),
            read: BTreeSet::new(),
            denied: 0,
            captured,
        })
    }

    /// Notes the host's mounts of the filesystems, and its overlays that write to them.
    fn hosts_mounts(&mut self, failures: &mut Failures) -> Result<(), Unknown> {
        let (path, mut file, first) = self.search.first_mount_of(FIRST)?;
        let mut uppers: BTreeMap<DevId, String> = BTreeMap::new();
        let (mut is_cut, mut malformed) = (false, None);
        let root = self.search.root;
        let end = each_mount(root, &path, &mut file, |line| match line {
            Ok(line) => {
                if let Some(upper) = line.upper_directory() {
                    is_cut |= uppers.len() >= MAX_OVERLAYS;
                    if uppers.len() < MAX_OVERLAYS {
                        uppers.entry(line.dev).or_insert_with(|| upper.into_owned());
                    }
                }
            }
            Err(reason) => malformed = Some(reason),
        })?;
        if let Some(reason) = malformed {
            return Err(root.malformed(&path, reason));
        }
        if end != End::Whole || is_cut {
            let why = format!("{} has more mounts than are looked at for deleted files", root.name(&path));
            failures.note(Unknown::new(Cause::TooLarge, why));
        }
        // The filesystem of each directory above an upper one.
        let mut places: BTreeMap<String, Option<DevId>> =
            uppers.values().flat_map(|upper| above(upper)).map(|place| (place.to_owned(), None)).collect();
        each_mount(root, &path, &mut file, |line| {
            if let Ok(line) = line {
                // Of mounts on one point the last covers the others.
                if let Some(place) = places.get_mut(&*line.mount_point().0) {
                    *place = Some(line.dev);
                }
                self.keep(&line);
            }
        })?;
        let carrier = |upper: &str| above(upper).filter_map(|place| *places.get(place)?).last();
        let of_asked = uppers.iter().filter_map(|(own, upper)| Some((*own, carrier(upper)?)));
        self.overlays = of_asked.filter(|(_, dev)| self.sums.contains_key(dev)).collect();
        for dev in self.sums.keys() {
            if !self.mounts.values().any(|carrier| carrier.dev == *dev) {
                // The files of btrfs have other device numbers than its mounts.
                let why = format!("{} has no mount of device {dev}", root.name(&path));
                failures.note(Unknown::new(Cause::Unsupported, why));
            }
        }
        // The overlays, which are known only now.
        each_mount(root, &path, &mut file, |line| {
            if let Ok(line) = line {
                self.keep(&line);
            }
        })?;
        self.read.insert(first);
        Ok(())
    }

    /// Keeps a mount where it is of a filesystem that is asked about.
    fn keep(&mut self, line: &Line<'_>) -> bool {
        let dev =
            if self.sums.contains_key(&line.dev) { Some(line.dev) } else { self.overlays.get(&line.dev).copied() };
        let Some(dev) = dev else { return true };
        let has_room = self.mounts.len() < MAX_MOUNTS;
        if has_room {
            self.mounts.insert(line.id, Carrier { dev, own: line.dev });
        }
        has_room
    }

    /// The descriptors of all processes, in turns of their owners.
    fn processes(&mut self, pids: &[u32], failures: &mut Failures) {
        let mut turns = Turns::default();
        for pid in pids {
            if now() >= self.search.until {
                break;
            }
            turns.push(self.search.owner(*pid), Turn { pid: *pid, next: 0, read: 0 });
        }
        let mut unread = pids.len().saturating_sub(turns.len());
        while let Some((owner, turn)) = turns.pop() {
            if self.search.files_left == 0 || now() >= self.search.until {
                unread = unread.saturating_add(turns.len()).saturating_add(1);
                break;
            }
            let before = self.search.files_left;
            match self.slice(turn, failures) {
                Slice::Whole => {}
                Slice::More(rest) if rest.read < MAX_FILES => turns.push(owner, rest),
                Slice::More(_) | Slice::Cut => unread = unread.saturating_add(1),
            }
            turns.spend(owner, before.saturating_sub(self.search.files_left).saturating_add(PROCESS_COST));
        }
        if unread > 0 {
            let why = format!("the open files of {unread} processes were not all read: they are too many");
            failures.note(Unknown::new(Cause::TooLarge, why));
        }
    }

    /// Some descriptors of one process, from a number on.
    fn slice(&mut self, turn: Turn, failures: &mut Failures) -> Slice {
        let Turn { pid, next, read } = turn;
        let mut descriptors: Vec<u32> = Vec::new();
        let listed = self.search.root.each(&format!("proc/{pid}/fd"), |name, _| {
            // The kernel gives them in order.
            if descriptors.len() <= MAX_FILES {
                descriptors.extend(name.parse::<u32>().ok().filter(|number| *number >= next));
            }
        });
        match listed {
            Err(why) if why.cause == Cause::Denied => self.denied = self.denied.saturating_add(1),
            // A process that has ended.
            Err(why) if why.cause != Cause::Missing => failures.note(why),
            Ok(()) | Err(_) => {}
        }
        descriptors.sort_unstable();
        let rest = descriptors.get(SLICE).map(|next| Turn { pid, next: *next, read: read.saturating_add(SLICE) });
        descriptors.truncate(SLICE);
        // Read once, and only where something was deleted.
        let mut table_is_read = false;
        for (count, descriptor) in descriptors.into_iter().enumerate() {
            if count.is_multiple_of(FILES_A_LOOK) && now() >= self.search.until || self.search.files_left == 0 {
                return Slice::Cut;
            }
            self.search.files_left = self.search.files_left.saturating_sub(1);
            let path = match self.search.root.link(&format!("proc/{pid}/fd/{descriptor}")) {
                Ok(path) => path,
                Err(why) if why.cause == Cause::Denied => {
                    self.denied = self.denied.saturating_add(1);
                    return Slice::Whole;
                }
                Err(why) => {
                    note_unless_closed(why, failures);
                    continue;
                }
            };
            let Some(path) = path.strip_suffix(GONE) else { continue };
            self.search.files_left = self.search.files_left.saturating_sub(FILE_COST);
            let info = format!("proc/{pid}/fdinfo/{descriptor}");
            let mount = self.search.root.bytes(&info).and_then(|bytes| {
                let malformed = || self.search.root.malformed(&info, "expected a line mnt_id:".to_owned());
                mount_of(&bytes).ok_or_else(malformed)
            });
            let mount = match mount {
                Ok(mount) => mount,
                Err(why) => {
                    note_unless_closed(why, failures);
                    continue;
                }
            };
            if !self.mounts.contains_key(&mount) && !table_is_read {
                table_is_read = true;
                if let Err(why) = self.namespace(pid)
                    && why.cause != Cause::Missing
                {
                    failures.note(why);
                }
            }
            let Some(carrier) = self.mounts.get(&mount).copied() else { continue };
            match self.file(pid, descriptor) {
                Ok(file) => self.count(carrier, file, pid, (descriptor, path)),
                Err(why) => note_unless_closed(why, failures),
            }
        }
        rest.map_or(Slice::Whole, Slice::More)
    }

    /// Notes the mounts of a process's namespace, where that was not read yet.
    fn namespace(&mut self, pid: u32) -> Result<(), Unknown> {
        let (path, file, first) = self.search.first_mount_of(pid)?;
        if !self.read.insert(first) {
            return Ok(());
        }
        let bytes = LARGE_BYTES.min(self.search.bytes_left);
        let (mut read, mut is_cut) = (0usize, false);
        let (root, until) = (self.search.root, self.search.until);
        let end = root.each_line(
            &path,
            &file,
            Bounds { bytes, line: LINE_BYTES },
            |bytes| read = read.saturating_add(bytes.len()),
            |line| {
                match whole(line).map(Line::parse) {
                    Some(Ok(line)) => is_cut |= !self.keep(&line),
                    Some(Err(_)) => is_cut = true,
                    None => {}
                }
                now() < until
            },
        )?;
        self.search.bytes_left = self.search.bytes_left.saturating_sub(read);
        if end != End::Whole || is_cut {
            return Err(Unknown::new(Cause::TooLarge, format!("{} was read in part", root.name(&path))));
        }
        Ok(())
    }

    fn file(&self, pid: u32, descriptor: u32) -> Result<OpenFile, Unknown> {
        match &self.captured {
            None => self.search.root.open_file(pid, descriptor),
            Some(captured) => captured.get(&format!("{pid}/{descriptor}")).copied().ok_or_else(|| {
                let why = format!("{} has nothing of {pid}/{descriptor}", self.search.root.name(SIDE_FILE));
                Unknown::new(Cause::Failed, why)
            }),
        }
    }

    /// Counts a file once, for the first process that has it.
    fn count(&mut self, carrier: Carrier, file: OpenFile, pid: u32, (descriptor, path): (u32, &str)) {
        // A descriptor may have become another file meanwhile.
        let is_there = file.dev == carrier.dev || file.dev == carrier.own;
        let Some(sum) = self.sums.get_mut(&carrier.dev).filter(|_| is_there && file.links == 0) else { return };
        let bytes = file.blocks.saturating_mul(512);
        if let Some(first) = sum.counted.get(&(file.dev, file.inode)) {
            if *first != pid
                && let Some(held) = sum.by_process.get_mut(first)
            {
                held.others = held.others.saturating_add(1);
            }
            return;
        }
        sum.counted.insert((file.dev, file.inode), pid);
        sum.bytes = sum.bytes.saturating_add(bytes);
        let held = sum.by_process.entry(pid).or_default();
        held.bytes = held.bytes.saturating_add(bytes);
        held.files = held.files.saturating_add(1);
        if held.largest.as_ref().is_none_or(|(largest, ..)| bytes > *largest) {
            held.largest = Some((bytes, descriptor, path.to_owned()));
        }
    }

    fn into_answer(self, mut failures: Failures) -> Result<DeletedFiles, Unknown> {
        let Self { search, sums, denied, .. } = self;
        if denied > 0 {
            let fd = search.root.name("proc/PID/fd");
            let why = format!(
                "{fd} of other processes may not be read: permission denied (CAP_SYS_PTRACE, the component holders)"
            );
            let why = Unknown::new(Cause::Denied, why).in_component(Component::Holders);
            if sums.values().all(|sum| sum.bytes == 0) {
                return Err(why);
            }
            failures.note(why);
        }
        let held = sums.into_iter().map(|(dev, sum)| (dev, sum.held(&search)));
        let held: Vec<_> = held.collect();
        let incomplete = failures.into_incomplete().map(|incomplete| {
            Unknown::new(incomplete.cause, format!("not every open file could be looked at: {}", incomplete.why))
        });
        Ok(DeletedFiles::with_incomplete(held, incomplete))
    }
}

impl Sum {
    fn held(self, search: &Search<'_>) -> HeldFiles {
        let files = u64::try_from(self.counted.len()).unwrap_or(u64::MAX);
        let mut most: Vec<(u32, Held)> = self.by_process.into_iter().collect();
        most.sort_by_key(|(pid, held)| (std::cmp::Reverse(held.bytes), *pid));
        let of = |(pid, held): (u32, Held)| {
            let (largest, descriptor, path) = held.largest?;
            let process = holder(search.root, &search.first, pid, path, HeldBy::OpenFile);
            Some(FilesHolder {
                pid,
                command: process.command,
                cgroup: process.cgroup,
                pod: process.pod,
                bytes: held.bytes,
                files: held.files,
                descriptor,
                path: process.point,
                largest,
                others: held.others,
            })
        };
        HeldFiles { bytes: self.bytes, files, holders: most.into_iter().take(MAX_HOLDERS).filter_map(of).collect() }
    }
}

/// A line as far as it is one.
fn whole(line: TextLine<'_>) -> Option<&[u8]> {
    match line {
        TextLine::Whole(text) | TextLine::Cut(text) => Some(text).filter(|text| !text.is_empty()),
        TextLine::TooLong(_) => None,
    }
}

/// A path and the directories above it, the root first.
fn above(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('/').filter_map(|(end, _)| path.get(..end)).filter(|above| !above.is_empty());
    std::iter::once("/").chain(ends).chain(Some(path).filter(|path| path.len() > 1))
}

fn captured(root: &Root) -> Result<BTreeMap<String, OpenFile>, Unknown> {
    match root.read(SIDE_FILE, parse_captured) {
        Err(why) if why.cause == Cause::Missing => Ok(BTreeMap::new()),
        read => read,
    }
}

/// What the side file of a copy says of its open files, by `PID/DESCRIPTOR`.
///
/// # Errors
/// Says what was expected.
pub fn parse_captured(bytes: &[u8]) -> Result<BTreeMap<String, OpenFile>, String> {
    let files: BTreeMap<String, OpenFile> = serde_json::from_slice(bytes)
        .map_err(|e| format!("expected open files by PID/DESCRIPTOR, with dev, inode, links and blocks: {e}"))?;
    if files.len() > MAX_SIDE_FILES {
        return Err(format!("expected at most {MAX_SIDE_FILES} files, found {}", files.len()));
    }
    Ok(files)
}

crate::collect::host::read_from_host! {
    DeletedFiles: |host, look| {
        let (there, asked) = (std::sync::Arc::clone(&host.root), look.lookups.to_vec());
        let find = move || find(&there, &asked);
        match &host.settings.unrestricted_thread {
            Some(unrestricted_thread) => unrestricted_thread
                .run(find)
                .unwrap_or_else(|| Err(Unknown::new(Cause::Failed, "the thread that looks at open files has ended"))),
            None => find(),
        }
    };
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";
    const DISK: DevId = DevId { major: 259, minor: 1 };
    const IMAGES: DevId = DevId { major: 259, minor: 7 };
    const HOST: &str = "29 1 259:1 / / rw - xfs /dev/nvme0n1p1 rw\n30 29 259:7 / /var/lib/containerd rw - xfs /dev/nvme1n1 rw\n\
        31 29 0:81 / /run/c/rootfs rw - overlay overlay rw,lowerdir=/a:/b,upperdir=/var/lib/containerd/snapshots/12/fs,workdir=/w\n\
        32 29 0:82 / /run/d/rootfs rw - overlay overlay rw,lowerdir=/a,upperdir=/var/lib/other/12/fs,workdir=/w\n\
        33 29 0:25 / /dev/shm rw - tmpfs tmpfs rw\n";

    struct Machine {
        dir: tempfile::TempDir,
        files: BTreeMap<String, OpenFile>,
    }

    impl Machine {
        fn new() -> Self {
            let machine = Self { dir: tempfile::tempdir().unwrap(), files: BTreeMap::new() };
            machine.process(1, HOST, "0::/init.scope\n");
            machine
        }

        fn path(&self, below: &str) -> std::path::PathBuf {
            self.dir.path().join(below)
        }

        fn process(&self, pid: u32, mountinfo: &str, cgroup: &str) {
            let dir = self.path(&format!("proc/{pid}"));
            fs::create_dir_all(dir.join("fd")).unwrap();
            fs::create_dir_all(dir.join("fdinfo")).unwrap();
            fs::write(dir.join("mountinfo"), mountinfo).unwrap();
            fs::write(dir.join("comm"), format!("c{pid}\n")).unwrap();
            fs::write(dir.join("cgroup"), cgroup).unwrap();
        }

        /// A descriptor: where its link leads, its mount, and what it is.
        fn open(&mut self, pid: u32, fd: u32, (to, mount): (&str, u32), file: (DevId, u64, u64, u64)) {
            symlink(to, self.path(&format!("proc/{pid}/fd/{fd}"))).unwrap();
            let info = format!("pos:\t0\nflags:\t02\nmnt_id:\t{mount}\nino:\t{}\n", file.1);
            fs::write(self.path(&format!("proc/{pid}/fdinfo/{fd}")), info).unwrap();
            let (dev, inode, links, blocks) = file;
            self.files.insert(format!("{pid}/{fd}"), OpenFile { dev, inode, links, blocks });
        }

        fn find(&self, devs: &[DevId]) -> Result<DeletedFiles, Unknown> {
            fs::create_dir_all(self.path("captured")).unwrap();
            fs::write(self.path(SIDE_FILE), serde_json::to_vec(&self.files).unwrap()).unwrap();
            let asked: Vec<_> = devs.iter().map(|dev| Lookup::DeletedFiles(*dev)).collect();
            find(&Root::open(self.dir.path()).unwrap(), &asked)
        }
    }

    #[test]
    fn each_deleted_file_of_the_disk_is_counted_once() {
        let mut machine = Machine::new();
        for pid in [700, 701] {
            machine.process(pid, HOST, &format!("0::/kubepods/pod{UID}/aaaabbbbccccddddeeee\n"));
        }
        machine.open(700, 3, ("/var/log/a.log (deleted)", 29), (DISK, 11, 0, 2048));
        machine.open(700, 4, ("/var/log/b.log (deleted)", 29), (DISK, 12, 0, 8));
        machine.open(700, 5, ("/var/log/a.log (deleted)", 29), (DISK, 11, 0, 2048));
        machine.open(701, 3, ("/var/log/a.log (deleted)", 29), (DISK, 11, 0, 2048));
        machine.open(701, 4, ("/var/log/c.log", 29), (DISK, 13, 1, 4096));
        let found = machine.find(&[DISK]).unwrap();
        assert_eq!(found.incomplete(), None);
        let held = found.get(&DISK).unwrap();
        assert_eq!((held.bytes, held.files), (2056 * 512, 2));
        let expected = FilesHolder {
            pid: 700,
            command: "c700".into(),
            cgroup: Some(format!("/kubepods/pod{UID}/aaaabbbbccccddddeeee")),
            pod: Some(UID.into()),
            bytes: 2056 * 512,
            files: 2,
            descriptor: 3,
            path: "/var/log/a.log".into(),
            largest: 2048 * 512,
            others: 1,
        };
        assert_eq!(held.holders, [expected]);
    }

    #[test]
    fn what_is_no_deleted_file_of_the_disk_is_not_counted() {
        let mut machine = Machine::new();
        machine.process(700, HOST, "0::/\n");
        let tmpfs = DevId { major: 0, minor: 25 };
        machine.open(700, 1, ("/memfd:x (deleted)", 900), (DevId { major: 0, minor: 1 }, 1, 0, 4096));
        machine.open(700, 2, ("/dev/shm/x (deleted)", 33), (tmpfs, 2, 0, 4096));
        machine.open(700, 3, ("socket:[1234]", 9), (DISK, 3, 0, 4096));
        // Another name of it is left.
        machine.open(700, 4, ("/tmp/one-of-two (deleted)", 29), (DISK, 4, 1, 4096));
        // Called so, and there.
        machine.open(700, 5, ("/tmp/x (deleted)", 29), (DISK, 5, 1, 4096));
        // The descriptor has become another file.
        machine.open(700, 6, ("/tmp/y (deleted)", 29), (tmpfs, 6, 0, 4096));
        let found = machine.find(&[DISK]).unwrap();
        assert_eq!((found.get(&DISK), found.incomplete()), (Some(&HeldFiles::default()), None));
    }

    #[test]
    fn what_a_container_writes_counts_to_the_filesystem_of_its_upper_directory() {
        let mut machine = Machine::new();
        let overlay = DevId { major: 0, minor: 81 };
        let own = "901 900 0:81 / / rw - overlay overlay rw,lowerdir=/a:/b,upperdir=/var/lib/containerd/snapshots/12/fs,workdir=/w\n\
            902 901 259:1 /var/lib/kubelet/pods/x /cache rw - xfs /dev/nvme0n1p1 rw\n";
        machine.process(700, own, "0::/\n");
        machine.open(700, 3, ("/app.log (deleted)", 901), (overlay, 21, 0, 1024));
        machine.open(700, 4, ("/cache/x (deleted)", 902), (DISK, 22, 0, 16));
        // Of a lower layer, which keeps it.
        machine.open(700, 5, ("/bin/old (deleted)", 901), (overlay, 23, 1, 1024));
        let found = machine.find(&[IMAGES, DISK]).unwrap();
        let bytes = |dev: &DevId| found.get(dev).map(|held| held.bytes);
        assert_eq!((bytes(&IMAGES), bytes(&DISK), found.incomplete()), (Some(1024 * 512), Some(16 * 512), None));
    }

    #[test]
    fn an_overlay_that_only_a_process_itself_has_mounted_counts_to_no_disk() {
        let mut machine = Machine::new();
        let own = DevId { major: 0, minor: 99 };
        let table = "901 900 0:99 / / rw - overlay overlay rw,lowerdir=/a,upperdir=/var/lib/containerd/snapshots/12/fs,workdir=/w\n";
        machine.process(700, table, "0::/\n");
        machine.open(700, 3, ("/big (deleted)", 901), (own, 21, 0, 1 << 30));
        let found = machine.find(&[IMAGES]).unwrap();
        assert_eq!(found.get(&IMAGES), Some(&HeldFiles::default()));
    }

    #[test]
    fn a_disk_without_a_mount_of_its_number_is_not_known() {
        let machine = Machine::new();
        let other = DevId { major: 0, minor: 44 };
        let why = machine.find(&[DISK, other]).unwrap().incomplete().cloned().unwrap();
        assert!(why.why.contains("has no mount of device 0:44"), "{why}");
    }

    #[test]
    fn a_process_with_very_many_descriptors_hides_no_other_and_leaves_a_gap() {
        let mut machine = Machine::new();
        machine.process(600, HOST, &format!("0::/kubepods/pod{UID}/aaaabbbbccccddddeeee\n"));
        machine.process(700, HOST, "0::/system.slice/db.service\n");
        machine.open(700, 3, ("/var/log/a.log (deleted)", 29), (DISK, 11, 0, 2048));
        for fd in 0..=MAX_FILES {
            symlink("/x", machine.path(&format!("proc/600/fd/{fd}"))).unwrap();
        }
        let found = machine.find(&[DISK]).unwrap();
        assert_eq!(found.get(&DISK).unwrap().bytes, 2048 * 512);
        assert!(found.incomplete().unwrap().why.contains("the open files of 1 processes were not all read"));
    }

    #[test]
    fn nothing_is_said_where_nothing_was_asked_or_the_hosts_mounts_are_not_known() {
        let machine = Machine::new();
        assert_eq!(machine.find(&[]).unwrap_err().cause, Cause::NotAsked);
        fs::write(machine.path("proc/1/mountinfo"), "29 1 259:1 / / rw - xfs /dev/nvme0n1p1 rw\n30 x\n").unwrap();
        assert_eq!(machine.find(&[DISK]).unwrap_err().cause, Cause::Malformed);
    }

    /// A file whose name is gone, on this machine's own disk.
    #[test]
    fn on_this_machine_a_deleted_file_is_found() {
        let root = Root::open(Path::new("/")).unwrap();
        let mut file = tempfile::tempfile_in("/tmp").unwrap();
        file.write_all(&[7; 1 << 20]).unwrap();
        let dev = file.metadata().unwrap().dev();
        let dev = DevId {
            major: u32::try_from(nix::sys::stat::major(dev)).unwrap(),
            minor: u32::try_from(nix::sys::stat::minor(dev)).unwrap(),
        };
        match find(&root, &[Lookup::DeletedFiles(dev)]) {
            Ok(found) => {
                let held = found.get(&dev).unwrap();
                let ours = held.holders.iter().find(|holder| holder.pid == std::process::id()).unwrap();
                assert!(ours.bytes >= 1 << 20 && held.bytes >= ours.bytes, "{held:?}");
            }
            Err(why) => panic!("{why}"),
        }
    }

    #[test]
    fn a_user_without_the_right_is_denied_and_the_component_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let mut machine = Machine::new();
        machine.process(700, HOST, "0::/\n");
        machine.process(701, HOST, "0::/\n");
        let mode =
            |path: &str, mode| fs::set_permissions(machine.path(path), fs::Permissions::from_mode(mode)).unwrap();
        mode("", 0o755);
        mode("proc/700/fd", 0o000);
        let _ = machine.find(&[DISK]);
        let find = |machine: &Machine| {
            let path = machine.path("");
            crate::collect::host::root::as_another_user(move || {
                find(&Root::open(&path).unwrap(), &[Lookup::DeletedFiles(DISK)])
            })
        };
        let why = find(&machine).unwrap_err();
        assert_eq!((why.cause, why.component), (Cause::Denied, Some(Component::Holders)), "{why}");
        // What was found all the same is no less.
        machine.open(701, 3, ("/var/log/a.log (deleted)", 29), (DISK, 11, 0, 2048));
        let _ = machine.find(&[DISK]);
        let found = find(&machine).unwrap();
        assert_eq!(found.get(&DISK).unwrap().bytes, 2048 * 512);
        assert!(found.incomplete().unwrap().why.contains("component holders"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, path in "(/[a-z]{0,3}){0,5}") {
            let _ = parse_captured(&bytes);
            let places: Vec<_> = above(&path).collect();
            prop_assert!(places.first() == Some(&"/"));
        }
    }
}
