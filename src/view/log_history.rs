//! Between which looks each record of the kernel's log came, and what else was so then: a line of the log alone proves nothing, as a
//! process may have made the kernel write it.

use std::borrow::Borrow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::facts::{
    BlockDevices, BootId, CpuTimes, DevId, DeviceName, FilesystemKey, Filesystems, FsType, HungTaskCount, KernelEvent,
    KernelLog, KernelRecord, MountId, Mounts, NodeTime, Part, VmStat, XfsProbes, XfsState,
};

/// A node has fewer mounts of xfs and btrfs; of more than these it is not known when they came.
const MAX_MOUNTS: usize = 4_096;
/// A machine has fewer disks; of more than these it is not known when they came.
const MAX_DEVICES: usize = 1_024;
/// How many changes of the count of kills are remembered.
const MAX_COUNTS: usize = 64;
/// Printk's clock and that of the boot drift apart by this at most, beside a part in a thousand.
const CLOCKS_APART: Duration = Duration::from_secs(60);
/// The kernel writes its line before it counts the kill.
const COUNTED_WITHIN: Duration = Duration::from_secs(1);

/// When something came, as time since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Came {
    /// It was not there then; absent where nothing is known of the time before.
    pub after: Option<Duration>,
    /// It was there then.
    pub by: Duration,
}

/// What the mounts of a filesystem show of a line about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountsSince {
    /// One of them was there before the line came, and still is.
    Same,
    /// All of them came after it.
    New,
    /// Neither is known.
    Unclear,
}

/// What a count of the kernel's own shows of a line about what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It grew by as many as there are lines.
    Yes,
    /// It was read before and after the line, and did not grow.
    No,
    /// It grew by fewer than there are lines.
    Fewer,
    /// It was not read before, or not since.
    Unknown,
}

/// A count, and between which readings it was that.
#[derive(Clone, Copy, Debug)]
struct Count {
    so_many: u64,
    first: Duration,
    last: Duration,
}

/// What a count was lately.
#[derive(Clone, Debug, Default)]
struct Counts(VecDeque<Count>);

impl Counts {
    fn follow(&mut self, so_many: u64, up: Duration) {
        match self.0.back_mut() {
            Some(last) if last.so_many == so_many => last.last = up,
            Some(last) if last.so_many > so_many => self.0.clear(),
            _ => {}
        }
        if self.0.back().is_none_or(|last| last.so_many != so_many) {
            if self.0.len() >= MAX_COUNTS {
                self.0.pop_front();
            }
            self.0.push_back(Count { so_many, first: up, last: up });
        }
    }

    /// Whether it grew by as many as there are lines that came then.
    fn counted(&self, came: Came, lines: usize) -> Counted {
        // The count begins at zero with the boot.
        let before = match came.after {
            Some(after) => self.0.iter().rev().find(|count| count.first <= after).map(|count| count.so_many),
            None => Some(0),
        };
        let Some(before) = before else { return Counted::Unknown };
        let settled = came.by.saturating_add(COUNTED_WITHIN);
        // The count as it was soon after; the one now where it was not read since.
        let after = self.0.iter().find(|count| count.last >= settled).or(self.0.back());
        let Some(after) = after else { return Counted::Unknown };
        match after.so_many.saturating_sub(before) {
            grown if grown >= u64::try_from(lines).unwrap_or(u64::MAX) => Counted::Yes,
            _ if after.last < settled => Counted::Unknown,
            0 => Counted::No,
            _ => Counted::Fewer,
        }
    }
}

/// What has a name that may be another one's by then: the number of what has it now, and when that came.
#[derive(Clone, Debug)]
struct Dated<K> {
    read: Option<Duration>,
    came: BTreeMap<K, (Option<u64>, Came)>,
}

impl<K> Default for Dated<K> {
    fn default() -> Self {
        Self { read: None, came: BTreeMap::new() }
    }
}

impl<K: Ord> Dated<K> {
    /// Takes in what there is now; where that is the whole of it, what is not in it is gone.
    fn follow<Q>(&mut self, now: &BTreeMap<&Q, Option<u64>>, is_whole: bool, at: &NodeTime)
    where
        K: Borrow<Q>,
        Q: Ord + ToOwned<Owned = K> + ?Sized,
    {
        let came = Came { after: self.read, by: at.up };
        if is_whole {
            self.came.retain(|name, _| now.contains_key(<K as Borrow<Q>>::borrow(name)));
            self.read = Some(at.up);
        }
        for (name, number) in now {
            let has_room = self.came.len() < MAX_DEVICES;
            match self.came.get_mut(*name) {
                Some((known, _)) if known == number => {}
                Some(entry) => *entry = (*number, came),
                None if has_room => drop(self.came.insert((*name).to_owned(), (*number, came))),
                None => {}
            }
        }
    }

    fn get<Q: Ord + ?Sized>(&self, name: &Q) -> Option<Came>
    where
        K: Borrow<Q>,
    {
        self.came.get(name).map(|(_, came)| *came)
    }
}

/// A mount of a filesystem whose lines are settled by that it came later.
#[derive(Clone, Debug)]
struct DatedMount {
    came: Came,
    dev: DevId,
    source: Arc<str>,
}

/// What is remembered beside the log.
#[derive(Clone, Debug, Default)]
pub struct LogHistory {
    boot: BootId,
    read: Option<Duration>,
    shared: Option<Arc<[KernelRecord]>>,
    /// By the time that the kernel wrote on them.
    records: BTreeMap<Duration, Came>,
    lost: u64,
    lost_by: Option<Duration>,
    mounts_read: Option<Duration>,
    mounts: BTreeMap<MountId, DatedMount>,
    kills: Counts,
    hung: Counts,
    /// By the name of a controller or disk: when the kernel last found one under it, by its log.
    found: BTreeMap<DeviceName, Duration>,
    /// By the numbers of disks.
    devices: Dated<DeviceName>,
    /// Which device had a name when that was last read.
    numbers: BTreeMap<DeviceName, DevId>,
    /// When an xfs filesystem last answered, by its device.
    answered: BTreeMap<DevId, Duration>,
    /// By the numbers of their directories.
    filesystems: Dated<FilesystemName>,
    blocked_since: Option<Duration>,
}

/// What a filesystem keeps while it is mounted: of btrfs, whose first device may be taken out, the number of its directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum FilesystemName {
    Device(FsType, DeviceName),
    Btrfs(u64),
}

impl FilesystemName {
    fn of(key: &FilesystemKey, instance: Option<u64>) -> Self {
        match (key.fstype, instance) {
            (FsType::Btrfs, Some(instance)) => Self::Btrfs(instance),
            (fstype, _) => Self::Device(fstype, key.device.clone()),
        }
    }
}

/// Under which name the kernel reports that it found the disk of a device: `nvme1` of `nvme1n1p1`, `xvdf` of `xvdf1`.
fn found_as(name: &str) -> &str {
    match name.strip_prefix("nvme") {
        Some(rest) => name.strip_suffix(rest.trim_start_matches(|c: char| c.is_ascii_digit())).unwrap_or(name),
        None if name.starts_with("xvd") => name.trim_end_matches(|c: char| c.is_ascii_digit()),
        None => name,
    }
}

impl LogHistory {
    fn of_boot(&mut self, at: &NodeTime) {
        if self.boot != at.boot {
            *self = Self { boot: at.boot, ..Self::default() };
        }
    }

    /// Takes in what the log says now.
    pub fn follow_log(&mut self, log: &KernelLog, at: &NodeTime) {
        self.of_boot(at);
        let after = self.read.replace(at.up);
        if log.lost > self.lost {
            self.lost_by = Some(at.up);
        }
        self.lost = log.lost;
        if self.shared.as_ref().is_some_and(|shared| Arc::ptr_eq(shared, &log.records)) {
            return;
        }
        let mut records = BTreeMap::new();
        self.found.clear();
        for record in log.records.iter() {
            if let KernelEvent::DiskFound { name } = &record.event {
                self.found.insert(name.clone(), record.up);
            }
            // What was there at the first look is as old as it says.
            let dated = record.up.saturating_add(CLOCKS_APART).saturating_add(record.up / 1_000);
            let new = Came { after, by: if after.is_none() { dated.min(at.up) } else { at.up } };
            records.insert(record.up, self.records.get(&record.up).copied().unwrap_or(new));
        }
        self.records = records;
        self.shared = Some(Arc::clone(&log.records));
    }

    /// Takes in which mounts there are now.
    pub fn follow_mounts(&mut self, now: &Mounts, at: &NodeTime) {
        self.of_boot(at);
        let after = self.mounts_read;
        let whole = now.incomplete().is_none();
        if whole {
            self.mounts.retain(|id, _| now.get(id).is_some());
            self.mounts_read = Some(at.up);
        }
        let is_dated = |fstype: &str, has_device: bool| fstype == "btrfs" || fstype == "xfs" && has_device;
        for (id, mount) in now.iter().filter(|(_, mount)| is_dated(&mount.fstype, mount.has_device())) {
            if self.mounts.len() < MAX_MOUNTS {
                let came = Came { after, by: at.up };
                let new = || DatedMount { came, dev: mount.dev, source: Arc::clone(&mount.source) };
                self.mounts.entry(*id).or_insert_with(new);
            }
        }
    }

    /// Takes in which xfs filesystems answer now.
    pub fn follow_probes(&mut self, now: &XfsProbes, at: &NodeTime) {
        self.of_boot(at);
        if now.incomplete().is_none() {
            self.answered.retain(|dev, _| now.get(dev).is_some());
        }
        for (dev, state) in now {
            match state {
                XfsState::ShutDown => drop(self.answered.remove(dev)),
                XfsState::Answers if self.answered.len() < MAX_MOUNTS => drop(self.answered.insert(*dev, at.up)),
                XfsState::Answers => {}
            }
        }
    }

    /// Takes in which disks there are now: a name may be another disk's by then.
    pub fn follow_devices(&mut self, now: &BlockDevices, at: &NodeTime) {
        self.of_boot(at);
        let current = now.values().map(|device| (device.name.as_str(), device.diskseq)).collect();
        self.devices.follow(&current, now.incomplete().is_none(), at);
        if now.incomplete().is_none() {
            self.numbers.clear();
        }
        for (dev, device) in now.iter().take(MAX_DEVICES) {
            self.numbers.insert(device.name.clone(), *dev);
        }
    }

    /// Takes in which filesystems are alive now.
    pub fn follow_filesystems(&mut self, now: &Filesystems, at: &NodeTime) {
        self.of_boot(at);
        let named: Vec<(FilesystemName, Option<u64>)> =
            now.iter().map(|(key, found)| (FilesystemName::of(key, found.instance), found.instance)).collect();
        let current = named.iter().map(|(name, instance)| (name, *instance)).collect();
        self.filesystems.follow(&current, now.incomplete().is_none(), at);
    }

    /// Takes in how many tasks wait for I/O now.
    pub fn follow_blocked(&mut self, now: &CpuTimes, at: &NodeTime) {
        self.of_boot(at);
        self.blocked_since = match (now.blocked, self.blocked_since) {
            (0, _) => None,
            (_, Some(since)) => Some(since),
            (_, None) => Some(at.up),
        };
    }

    /// Since when tasks waited for I/O at each reading; absent where none does now.
    #[must_use]
    pub fn blocked_since(&self) -> Option<Duration> {
        self.blocked_since
    }

    /// Whether a disk of this name came after the record, so that the record is of another one: by the block devices that were seen
    /// since, or by the log itself. A process that can write to the log can hide what is older by that, and nothing else.
    #[must_use]
    pub fn is_of_another_disk(&self, record: &KernelRecord, name: &str) -> bool {
        if self.found.get(found_as(name)).is_some_and(|found| *found > record.up) {
            return true;
        }
        let device = self.devices.get(name).and_then(|came| came.after);
        device.zip(self.came(record)).is_some_and(|(after, came)| after >= came.by)
    }

    /// Takes in how many processes the kernel has killed by now.
    pub fn follow_count(&mut self, now: &VmStat, at: &NodeTime) {
        self.of_boot(at);
        if let Some(kills) = now.oom_kill {
            self.kills.follow(kills, at.up);
        }
    }

    /// Takes in how many tasks the kernel has found blocked by now.
    pub fn follow_hung(&mut self, now: &HungTaskCount, at: &NodeTime) {
        self.of_boot(at);
        if let Part::Known(detected) = now.detected {
            self.hung.follow(detected, at.up);
        }
    }

    /// When a record came.
    fn came(&self, record: &KernelRecord) -> Option<Came> {
        self.records.get(&record.up).copied()
    }

    /// The mounts of a device as they were last read: what was true of them then stays true of older lines, whatever becomes of the
    /// mount table.
    pub fn last_mounts(&self, device: &str) -> Vec<MountId> {
        let dev = self.numbers.get(device);
        let is_its = |mount: &DatedMount| {
            Some(&mount.dev) == dev || mount.source.strip_prefix("/dev/").is_some_and(|name| name == device)
        };
        self.mounts.iter().filter(|(_, mount)| is_its(mount)).map(|(id, _)| *id).collect()
    }

    /// Whether the xfs filesystem of a device answered after the record came.
    pub fn answered_since(&self, record: &KernelRecord, device: &str) -> bool {
        let answered = self.numbers.get(device).and_then(|dev| self.answered.get(dev));
        answered.zip(self.came(record)).is_some_and(|(answered, came)| *answered > came.by)
    }

    /// Whether these mounts are those that there were when the record came.
    pub fn mounts_since(&self, record: &KernelRecord, ids: impl Iterator<Item = MountId>) -> MountsSince {
        self.came(record).map_or(MountsSince::Unclear, |came| self.mounts_since_time(came, ids))
    }

    /// Whether these mounts came after the last loss of records.
    pub fn mounts_since_loss(&self, ids: impl Iterator<Item = MountId>) -> MountsSince {
        let lost = self.lost_by.map(|by| Came { after: None, by });
        lost.map_or(MountsSince::Unclear, |came| self.mounts_since_time(came, ids))
    }

    /// Whether a filesystem is the one that was mounted when the record came, by its directory below `/sys/fs`; `None` where nothing
    /// is known of it. Numbers of mounts are given again.
    pub fn filesystem_since(
        &self,
        record: &KernelRecord,
        key: &FilesystemKey,
        instance: Option<u64>,
    ) -> Option<MountsSince> {
        self.filesystem_since_time(self.came(record)?, key, instance)
    }

    /// Whether a filesystem was mounted after the last loss of records, by its directory below `/sys/fs`.
    pub fn filesystem_since_loss(&self, key: &FilesystemKey, instance: Option<u64>) -> Option<MountsSince> {
        self.filesystem_since_time(Came { after: None, by: self.lost_by? }, key, instance)
    }

    fn filesystem_since_time(&self, came: Came, key: &FilesystemKey, instance: Option<u64>) -> Option<MountsSince> {
        let mounted = self.filesystems.get(&FilesystemName::of(key, instance))?;
        match mounted.after {
            Some(after) if after >= came.by => Some(MountsSince::New),
            _ if came.after.is_some_and(|after| mounted.by <= after) => Some(MountsSince::Same),
            // It was not there at an earlier look, and whether it came before the record is not known.
            Some(_) => Some(MountsSince::Unclear),
            None => None,
        }
    }

    fn mounts_since_time(&self, came: Came, ids: impl Iterator<Item = MountId>) -> MountsSince {
        let mut new = false;
        let mut unclear = false;
        for mount in ids.map(|id| self.mounts.get(&id).map(|mount| mount.came)) {
            match mount {
                Some(mount) if came.after.is_some_and(|after| mount.by <= after) => return MountsSince::Same,
                Some(mount) if mount.after.is_some_and(|after| after >= came.by) => new = true,
                _ => unclear = true,
            }
        }
        if new && !unclear { MountsSince::New } else { MountsSince::Unclear }
    }

    /// Whether the kernel counted a kill when this record of one came.
    pub fn counted(&self, record: &KernelRecord) -> Counted {
        self.counted_by(&self.kills, record, |event| {
            matches!(event, KernelEvent::OomKill { .. } | KernelEvent::OomKilled { .. })
        })
    }

    /// Whether the kernel counted a blocked task when this record of one came.
    pub fn counted_hung(&self, record: &KernelRecord) -> Counted {
        self.counted_by(&self.hung, record, |event| matches!(event, KernelEvent::HungTask { .. }))
    }

    /// Whether the kernel has a count of blocked tasks that was read before this record of one and was not read since.
    pub fn awaits_hung(&self, record: &KernelRecord) -> bool {
        let settled = self.came(record).map(|came| came.by.saturating_add(COUNTED_WITHIN));
        let last = self.hung.0.back().map(|count| count.last);
        last.zip(settled).is_some_and(|(last, settled)| last < settled)
    }

    fn counted_by(&self, counts: &Counts, record: &KernelRecord, is_counted: impl Fn(&KernelEvent) -> bool) -> Counted {
        let Some(came) = self.came(record) else { return Counted::Unknown };
        let of_that_look = |record: &&KernelRecord| self.came(record).is_some_and(|other| other.after == came.after);
        let lines = self.shared.iter().flat_map(|shared| shared.iter()).filter(|record| is_counted(&record.event));
        counts.counted(came, lines.filter(of_that_look).count())
    }
}
