//! Mounts of the devices that are asked about, in the mount namespaces of all processes.
//!
//! A process without privileges can make a table of its own as large as it likes, so tables are read line by line, and
//! what is read of one, of all, and for how long is bounded. The pod of which least was read comes next, and of its
//! tables those that are small: large ones displace only those of their own pod.
//!
//! A container that has a directory of the host with mount propagation gets a copy of each mount below it. The kernel unmounts such a
//! copy together with the host's mount, so it is no holder. It is known by its parent: that is a peer or a slave of the parent of the
//! host's mount (`propagate_umount` in fs/pnode.c goes by the parents), and has the copy at the same directory. The mount's own peer
//! group says nothing: a container's volume is a slave of the host's mount, too, and stays when that is unmounted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use nix::errno::Errno;

use super::process::holder;
use super::turns::Turns;
use super::{MAX_TIME, Search, later, now};
use crate::collect::host::failures::Failures;
use crate::collect::host::mountinfo::Line;
use crate::collect::host::root::{Bounds, End, Root, TextLine};
use crate::facts::{Cause, DevId, HeldBy, MAX_HOLDERS, MountId, Unknown};

/// Enough to hold the number of the first mount; the kernel then writes but one line.
pub(super) const HEAD: u64 = 64;
/// Bytes of the host's table, and of a line of any.
pub(super) const HOST_BYTES: usize = 128 << 20;
pub(super) const LINE_BYTES: usize = 256 << 10;
/// Bytes of a namespace's table: at first, at the end, and by how much the bound grows between.
const SMALL_BYTES: usize = 64 << 10;
const GROWTH: usize = 4;
/// What opening a table costs beside its bytes, as bytes of its owner.
const TABLE_COST: usize = 4 << 10;
pub(super) const LARGE_BYTES: usize = 16 << 20;
/// Mounts of the host.
const MAX_NUMBERS: usize = 200_000;
/// Mounts of the devices that are asked about.
const MAX_MOUNTS: usize = 16_384;
/// Lines between two looks at the clock.
const LINES_A_LOOK: usize = 256;
/// What one kept path takes beside its bytes.
const POINT_BYTES: usize = 64;

/// The table of one namespace.
#[derive(Debug)]
pub(super) struct Table {
    first: MountId,
    /// The processes in it, the lowest number first: each may end before it is read.
    pids: VecDeque<u32>,
    /// How much of it is read.
    bytes: usize,
}

/// A mount point, and what is mounted there.
pub(super) type Point = (String, DevId);

/// What one table has of the devices that are asked about.
struct Found {
    mounts: Vec<(MountId, DevId)>,
    /// The first of these, up to a bound.
    points: Vec<FoundMount>,
    max_points: usize,
    malformed: Option<&'static str>,
}

impl Found {
    fn up_to(max_points: usize) -> Self {
        Self { mounts: Vec::new(), points: Vec::new(), max_points, malformed: None }
    }
}

/// A mount of a device that is asked about. Bytes are as the table has them, escapes and all.
struct FoundMount {
    dev: DevId,
    at: String,
    point: Vec<u8>,
    root: Vec<u8>,
    parent: MountId,
}

/// A mount that another one is mounted on.
struct Parent {
    dev: DevId,
    point: Vec<u8>,
    root: Vec<u8>,
    shared: Option<u32>,
    master: Option<u32>,
}

/// Where a mount is, in words that are the same in each mount namespace.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The peer group of the parent.
    group: u32,
    /// The directory, within the filesystem of the parent.
    parent: DevId,
    directory: Vec<u8>,
    /// What is mounted there.
    dev: DevId,
    root: Vec<u8>,
}

impl FoundMount {
    /// Its place, given its parent; none where that is in no peer group of the host.
    fn place(&self, parent: &Parent, group: u32) -> Option<Place> {
        let below = match parent.point.as_slice() {
            b"/" => self.point.as_slice(),
            point => self.point.strip_prefix(point).filter(|below| below.starts_with(b"/"))?,
        };
        let mut directory = if parent.root == b"/" { Vec::new() } else { parent.root.clone() };
        directory.extend_from_slice(below);
        Some(Place { group, parent: parent.dev, directory, dev: self.dev, root: self.root.clone() })
    }
}

impl Search<'_> {
    /// Notes every mount of the host, given its first process, and not its first mount alone: a process in a chroot sees the host's table
    /// from some later line on.
    pub(super) fn pass_over(&mut self, pid: u32) -> Result<(), Unknown> {
        let path = format!("proc/{pid}/mountinfo");
        let path = path.as_str();
        let file = self.root.file(path)?;
        let mut numbers = Vec::new();
        let mut found = Found::up_to(MAX_POINTS_OF_HOST);
        let bounds = Bounds { bytes: HOST_BYTES, line: LINE_BYTES };
        let end = self.root.each_line(
            path,
            &file,
            bounds,
            |_| {},
            |line| {
                self.note(line, &mut found, |number| numbers.push(number));
                found.malformed.is_none() && numbers.len() <= MAX_NUMBERS
            },
        )?;
        if let Some(reason) = found.malformed {
            return Err(self.root.malformed(path, reason));
        }
        if end != End::Whole {
            let why = format!(
                "{} has more mounts than can be distinguished from those of other processes",
                self.root.name(path)
            );
            return Err(Unknown::new(Cause::TooLarge, why));
        }
        let first = numbers.first().copied();
        let first = first.ok_or_else(|| self.root.malformed(path, "expected a mount table, found nothing"))?;
        self.seen.extend(numbers);
        let parents = self.keep(first, (path, &file), HOST_BYTES, &found)?;
        for mount in &found.points {
            let parent = parents.get(&mount.parent);
            let Some(place) = parent.and_then(|parent| mount.place(parent, parent.shared?)) else { continue };
            // One that does not fit has holders where it has copies, which permits less.
            let bytes = place.directory.len().saturating_add(place.root.len()).saturating_add(POINT_BYTES);
            let Some(left) = self.points_left.checked_sub(bytes) else { continue };
            self.points_left = left;
            self.places.insert(place);
        }
        Ok(())
    }

    /// Reads the table of each namespace: as long as there is room, in turns of the owners and with growing bounds.
    pub(super) fn mounts(&mut self, pids: &[u32], failures: &mut Failures) {
        let mut turns = self.namespaces(pids, failures);
        self.until = later(MAX_TIME);
        while let Some((owner, table)) = turns.pop() {
            let pid = table.pids.front().copied().unwrap_or_default();
            let name = || self.root.name(&format!("proc/{pid}/mountinfo"));
            let why = if self.bytes_left == 0 {
                format!("no more mount tables are read at once than up to {}", name())
            } else if now() >= self.until {
                format!("{} was not read to its end in time", name())
            } else {
                let before = self.bytes_left;
                if let Some(larger) = self.read_table(table, failures) {
                    turns.push(owner, larger);
                }
                turns.spend(owner, before.saturating_sub(self.bytes_left).saturating_add(TABLE_COST));
                continue;
            };
            failures.note(Unknown::new(Cause::TooLarge, format!("{why}, and {} others wait", turns.len())));
            return;
        }
    }

    /// Finds the namespaces that were not read yet, each by its first process.
    pub(super) fn namespaces(&mut self, pids: &[u32], failures: &mut Failures) -> Turns<Table> {
        let mut tables: BTreeMap<MountId, VecDeque<u32>> = BTreeMap::new();
        self.until = later(MAX_TIME);
        for pid in pids {
            if now() >= self.until {
                let why = format!("the mount namespace of process {pid} and of those after it was not found in time");
                failures.note(Unknown::new(Cause::TooLarge, why));
                break;
            }
            let first = match self.first_mount_of(*pid) {
                Ok((_, _, first)) => first,
                // It ended meanwhile.
                Err(why) if why.cause == Cause::Missing => continue,
                Err(why) => {
                    failures.note(why);
                    continue;
                }
            };
            if !self.seen.contains(&first) {
                tables.entry(first).or_default().push_back(*pid);
            }
        }
        let mut turns = Turns::default();
        for (first, pids) in tables {
            let owner = self.owner(pids.front().copied().unwrap_or_default());
            turns.push(owner, Table { first, pids, bytes: SMALL_BYTES });
        }
        turns
    }

    /// Opens a table by the first of its processes that has it still; none where all have ended, and the namespace with them.
    fn open_table(&self, table: &mut Table, failures: &mut Failures) -> Option<(u32, String, File)> {
        while let Some(pid) = table.pids.front().copied() {
            match self.first_mount_of(pid) {
                Ok((path, file, first)) if first == table.first => return Some((pid, path, file)),
                Err(why) if why.cause != Cause::Missing => failures.note(why),
                Ok(_) | Err(_) => {}
            }
            table.pids.pop_front();
        }
        None
    }

    /// Opens a process's mount table, and reads the number of its first mount.
    pub(super) fn first_mount_of(&self, pid: u32) -> Result<(String, File, MountId), Unknown> {
        let (path, mut file) = open(self.root, pid)?;
        let failed = |e: std::io::Error| self.root.unknown(&path, errno(&e));
        let mut head = Vec::new();
        (&file).take(HEAD).read_to_end(&mut head).map_err(failed)?;
        let first = first_mount(&head).map_err(|reason| self.root.malformed(&path, reason))?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        Ok((path, file, first))
    }

    /// Reads a table up to its bound, and notes a holder for each device that is asked about and mounted there. Returns the table
    /// with a larger bound where there is more of it.
    pub(super) fn read_table(&mut self, mut table: Table, failures: &mut Failures) -> Option<Table> {
        let (pid, path, file) = self.open_table(&mut table, failures)?;
        let (first, bytes) = (table.first, table.bytes);
        let bound = bytes.min(self.bytes_left);
        let (mut read, mut lines, mut found) = (0usize, 0usize, Found::up_to(MAX_POINTS));
        let (until, bounds) = (self.until, Bounds { bytes: bound, line: LINE_BYTES });
        let end = self.root.each_line(
            &path,
            &file,
            bounds,
            |bytes| read = read.saturating_add(bytes.len()),
            |line| {
                self.note(line, &mut found, |_| {});
                lines = lines.saturating_add(1);
                !lines.is_multiple_of(LINES_A_LOOK) || now() < until
            },
        );
        // What does not fit counts as well: it was read.
        self.bytes_left = self.bytes_left.saturating_sub(read.max(if end == Ok(End::TooLarge) { bound } else { 0 }));
        let name = self.root.name(&path);
        let mut larger = None;
        match end {
            Err(why) if why.cause == Cause::Missing => return None,
            Err(why) => {
                failures.note(why);
                return None;
            }
            Ok(End::TooLarge) if bytes < LARGE_BYTES => {
                larger = Some(Table { bytes: bytes.saturating_mul(GROWTH).min(LARGE_BYTES), ..table });
            }
            Ok(End::TooLarge) if bound < bytes => {
                failures.note(Unknown::new(
                    Cause::TooLarge,
                    format!("no more mount tables are read at once than up to {name}"),
                ));
            }
            Ok(End::TooLarge) => {
                let why = format!("{name} holds more than {bytes} bytes, and was read in part");
                failures.note(Unknown::new(Cause::TooLarge, why));
            }
            Ok(End::Stopped) => {
                failures.note(Unknown::new(Cause::TooLarge, format!("{name} was not read to its end in time")));
            }
            Ok(End::Whole) => {}
        }
        if let Some(reason) = found.malformed {
            failures.note(self.root.malformed(&path, reason));
        }
        let parents = self.keep(first, (&path, &file), bytes.min(self.bytes_left), &found).unwrap_or_else(|why| {
            // Where the table is read again, what is missing now may come then.
            if larger.is_none() {
                failures.note(why);
            }
            BTreeMap::new()
        });
        let mut points: BTreeMap<DevId, &String> = BTreeMap::new();
        for mount in found.points.iter().filter(|mount| !self.goes_with_the_hosts(mount, &parents)) {
            points.entry(mount.dev).or_insert(&mount.at);
        }
        for holders in self.held.values_mut() {
            // What was found when less of the table was read: its parent may be known only now.
            holders.retain(|holder| holder.pid != pid);
        }
        for (dev, point) in points {
            if let Some(holders) = self.held.get_mut(&dev).filter(|holders| holders.len() < MAX_HOLDERS) {
                holders.push(holder(self.root, &self.first, pid, point.clone(), HeldBy::Mount));
            }
        }
        larger
    }

    /// Notes a line where it is a mount of a device that is asked about.
    fn note(&self, line: TextLine<'_>, found: &mut Found, mut on_number: impl FnMut(MountId)) {
        let text = match line {
            TextLine::Whole(text) | TextLine::Cut(text) if !text.is_empty() => text,
            TextLine::Whole(_) | TextLine::Cut(_) => return,
            TextLine::TooLong(_) => {
                found.malformed.get_or_insert("a line is too long");
                return;
            }
        };
        match Line::parse(text) {
            Ok(line) => {
                on_number(line.id);
                if self.held.contains_key(&line.dev) {
                    found.mounts.push((line.id, line.dev));
                    if found.points.len() < found.max_points {
                        found.points.push(FoundMount {
                            dev: line.dev,
                            at: line.mount_point().0.into_owned(),
                            point: line.point.to_owned(),
                            root: line.root.to_owned(),
                            parent: line.parent,
                        });
                    }
                }
            }
            Err(reason) => drop(found.malformed.get_or_insert(reason)),
        }
    }

    /// Whether the kernel unmounts it when it unmounts the host's.
    fn goes_with_the_hosts(&self, mount: &FoundMount, parents: &BTreeMap<MountId, Parent>) -> bool {
        let Some(parent) = parents.get(&mount.parent) else { return false };
        let mut groups = parent.shared.into_iter().chain(parent.master);
        groups.any(|group| mount.place(parent, group).is_some_and(|place| self.places.contains(&place)))
    }

    /// Keeps where a namespace has the devices that are asked about, and what stands on these, for which up to so many bytes of its
    /// table are read again. Returns the mounts that these are mounted on.
    fn keep(
        &mut self,
        first: MountId,
        (path, mut file): (&str, &File),
        bytes: usize,
        found: &Found,
    ) -> Result<BTreeMap<MountId, Parent>, Unknown> {
        let mut parents = BTreeMap::new();
        if found.mounts.is_empty() {
            return Ok(parents);
        }
        let mut is_cut = found.mounts.len() > found.points.len();
        for (number, dev) in &found.mounts {
            if self.mounts.len() < MAX_MOUNTS {
                self.mounts.insert(*number, *dev);
            } else {
                is_cut |= !self.mounts.contains_key(number);
            }
        }
        // Of a table that was read in part before.
        for (point, _) in self.points.remove(&first).unwrap_or_default() {
            self.points_left = self.points_left.saturating_add(point.len().saturating_add(POINT_BYTES));
        }
        let own: BTreeSet<&str> = found.points.iter().map(|mount| &*mount.at).collect();
        let asked: BTreeSet<MountId> = found.points.iter().map(|mount| mount.parent).collect();
        let (until, mut room, mut read) = (self.until, self.points_left, 0usize);
        let mut points = Vec::new();
        file.seek(SeekFrom::Start(0)).map_err(|e| self.root.unknown(path, errno(&e)))?;
        let bounds = Bounds { bytes, line: LINE_BYTES };
        let end = self.root.each_line(
            path,
            file,
            bounds,
            |bytes| read = read.saturating_add(bytes.len()),
            |line| {
                let (TextLine::Whole(text) | TextLine::Cut(text)) = line else { return true };
                let Ok(line) = Line::parse(text) else { return true };
                if asked.contains(&line.id) {
                    let Line { dev, shared, master, .. } = line;
                    let (point, root) = (line.point.to_owned(), line.root.to_owned());
                    parents.insert(line.id, Parent { dev, point, root, shared, master });
                }
                let (point, _) = line.mount_point();
                if is_at_or_below_one(&point, &own) {
                    match room.checked_sub(point.len().saturating_add(POINT_BYTES)) {
                        Some(less) => room = less,
                        None => return false,
                    }
                    points.push((point.into_owned(), line.dev));
                }
                now() < until
            },
        )?;
        is_cut |= end != End::Whole;
        if bytes < HOST_BYTES {
            self.bytes_left = self.bytes_left.saturating_sub(read);
        }
        self.points_left = room;
        self.points.insert(first, points);
        if is_cut {
            let why = format!("{} has more mounts of what is asked about than are looked at", self.root.name(path));
            return Err(Unknown::new(Cause::TooLarge, why));
        }
        Ok(parents)
    }
}

/// Whether a path is one of these or below one: each directory above it is looked up.
fn is_at_or_below_one(path: &str, those: &BTreeSet<&str>) -> bool {
    let above = path.match_indices('/').filter_map(|(end, _)| path.get(..end));
    above.chain([path]).any(|at| those.contains(if at.is_empty() { "/" } else { at }))
}

pub(super) fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// Mount points of one namespace that are asked about: of more, none is compared with links.
const MAX_POINTS: usize = 64;
/// Those of the host, which has three of each volume.
const MAX_POINTS_OF_HOST: usize = 1024;

/// Opens a process's mount table, or that of its first living thread where the main one has ended.
pub(super) fn open(root: &Root, pid: u32) -> Result<(String, File), Unknown> {
    let path = format!("proc/{pid}/mountinfo");
    let why = match root.file(&path) {
        Ok(file) => return Ok((path, file)),
        Err(why) => why,
    };
    // A zombie has no namespace (EINVAL); most have no thread left either, and hold nothing.
    if why.cause != Cause::Failed {
        return Err(why);
    }
    let threads = root.list(&format!("proc/{pid}/task"))?;
    let open = |(thread, _): &(String, _)| {
        let path = format!("proc/{pid}/task/{thread}/mountinfo");
        root.file(&path).ok().map(|file| (path, file))
    };
    threads.iter().find_map(open).ok_or_else(|| root.unknown(&path, Errno::ESRCH))
}

/// The number of the first mount, by the beginning of a table.
pub(super) fn first_mount(head: &[u8]) -> Result<MountId, &'static str> {
    let number = head.split(|byte| *byte == b' ').next().unwrap_or_default();
    let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
    number.ok_or("expected a mount table, found none that begins with a mount number")
}
