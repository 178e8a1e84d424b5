//! Mounts of the devices that are asked about, in the mount namespaces of all processes.
//!
//! A process without privileges can make a table of its own as large as it likes, so tables are read line by line, and
//! what is read of one, of all, and for how long is bounded. Those that are small come first.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use nix::errno::Errno;

use super::process::holder;
use super::{Search, now};
use crate::collect::host::failures::Failures;
use crate::collect::host::mountinfo::Line;
use crate::collect::host::root::{Bounds, End, Root, TextLine};
use crate::facts::{Cause, DevId, HeldBy, MAX_HOLDERS, MountId, Unknown};

/// Enough to hold the number of the first mount; the kernel then writes but one line.
pub(super) const HEAD: u64 = 64;
/// Bytes of the host's table, and of a line of any.
const HOST_BYTES: usize = 128 << 20;
const LINE_BYTES: usize = 256 << 10;
/// Bytes of a namespace's table: at first, when all are looked at, and then of those that have more.
const SMALL_BYTES: usize = 1 << 20;
pub(super) const LARGE_BYTES: usize = 16 << 20;
/// Mounts of the host.
const MAX_NUMBERS: usize = 200_000;
/// Mounts of the devices that are asked about.
const MAX_MOUNTS: usize = 16_384;
/// Lines between two looks at the clock.
const LINES_A_LOOK: usize = 256;
/// What one kept path takes beside its bytes.
const POINT_BYTES: usize = 64;

/// A mount point, and what is mounted there.
pub(super) type Point = (String, DevId);

/// What one table has of the devices that are asked about.
#[derive(Default)]
struct Found {
    mounts: Vec<(MountId, DevId)>,
    points: Vec<Point>,
    malformed: Option<&'static str>,
}

impl Search<'_> {
    /// Notes every mount of the host and not its first alone: a process in a chroot sees the host's table from
    /// some later line on.
    pub(super) fn pass_over_the_host(&mut self) -> Result<(), Unknown> {
        let path = "proc/1/mountinfo";
        let file = self.root.file(path)?;
        let mut numbers = Vec::new();
        let mut found = Found::default();
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
        self.keep(first, (path, &file), HOST_BYTES, found)
    }

    /// Looks at the namespace of each process; at those with large tables last.
    pub(super) fn mounts(&mut self, pids: &[u32], failures: &mut Failures) {
        let mut large = Vec::new();
        for pid in pids {
            match self.namespace(*pid) {
                Ok(Some((path, file, first))) => {
                    if self.read(*pid, first, (&path, &file), SMALL_BYTES, failures) == End::TooLarge {
                        large.push((*pid, first));
                    }
                }
                Ok(None) => {}
                // It ended meanwhile.
                Err(why) if why.cause == Cause::Missing => {}
                Err(why) => failures.note(why),
            }
        }
        for (pid, first) in large {
            let Ok((path, file)) = open(self.root, pid) else { continue };
            self.read(pid, first, (&path, &file), LARGE_BYTES, failures);
        }
    }

    /// Opens a process's mount table; none where its namespace has been looked at.
    fn namespace(&mut self, pid: u32) -> Result<Option<(String, File, MountId)>, Unknown> {
        let (path, mut file) = open(self.root, pid)?;
        let failed = |e: std::io::Error| self.root.unknown(&path, errno(&e));
        let mut head = Vec::new();
        (&file).take(HEAD).read_to_end(&mut head).map_err(failed)?;
        let first = first_mount(&head).map_err(|reason| self.root.malformed(&path, reason))?;
        if !self.seen.insert(first) {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        Ok(Some((path, file, first)))
    }

    /// Reads a table up to a bound, and notes a holder for each device that is asked about and mounted there. `TooLarge` says that
    /// there is more of it, which a larger bound would give.
    fn read(
        &mut self,
        pid: u32,
        first: MountId,
        (path, file): (&str, &File),
        bytes: usize,
        failures: &mut Failures,
    ) -> End {
        let bound = bytes.min(self.bytes_left);
        let (mut read, mut lines, mut found) = (0usize, 0usize, Found::default());
        let (until, bounds) = (self.until, Bounds { bytes: bound, line: LINE_BYTES });
        let end = self.root.each_line(
            path,
            file,
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
        let name = self.root.name(path);
        match end {
            Err(why) if why.cause == Cause::Missing => return End::Whole,
            Err(why) => {
                failures.note(why);
                return End::Whole;
            }
            Ok(End::TooLarge) if bound == SMALL_BYTES => return End::TooLarge,
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
            failures.note(self.root.malformed(path, reason));
        }
        let mut points: BTreeMap<DevId, &String> = BTreeMap::new();
        for (point, dev) in &found.points {
            points.entry(*dev).or_insert(point);
        }
        for (dev, point) in points {
            if let Some(holders) = self.held.get_mut(&dev).filter(|holders| holders.len() < MAX_HOLDERS) {
                holders.push(holder(self.root, &self.first, pid, point.clone(), HeldBy::Mount));
            }
        }
        if let Err(why) = self.keep(first, (path, file), LARGE_BYTES.min(self.bytes_left), found) {
            failures.note(why);
        }
        End::Whole
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
                    if found.mounts.len() <= MAX_ALIKE {
                        found.points.push((line.mount_point().0.into_owned(), line.dev));
                    }
                }
            }
            Err(reason) => drop(found.malformed.get_or_insert(reason)),
        }
    }

    /// Keeps where a namespace has the devices that are asked about, and what stands on these, for which up to so many bytes of its
    /// table are read again.
    fn keep(
        &mut self,
        first: MountId,
        (path, mut file): (&str, &File),
        bytes: usize,
        found: Found,
    ) -> Result<(), Unknown> {
        if found.mounts.is_empty() {
            return Ok(());
        }
        let room = MAX_MOUNTS.saturating_sub(self.mounts.len());
        let mut is_cut = found.mounts.len() > found.points.len().min(room);
        self.mounts.extend(found.mounts.into_iter().take(room));
        let (own, until, mut room, mut read) = (found.points, self.until, self.points_left, 0usize);
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
                let (point, _) = line.mount_point();
                if own.iter().any(|(own, _)| is_below(&point, own)) {
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
        Ok(())
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// Mount points of one namespace that are asked about: of more, none is compared with links.
const MAX_ALIKE: usize = 64;

/// Whether a path is a directory, or is in it.
pub(super) fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || dir == "/")
}

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
