//! Between which looks each record of the kernel's log came, and what else was so then: a line of the log alone proves nothing, as a
//! process may have made the kernel write it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::facts::{
    BlockDevices, BootId, CpuTimes, DeviceName, KernelEvent, KernelLog, KernelRecord, Mounts, NodeTime, VmStat,
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

/// What the kernel's own count of kills shows of a line about one.
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

/// The count of kills, and between which readings it stood there.
#[derive(Clone, Copy, Debug)]
struct Count {
    kills: u64,
    first: Duration,
    last: Duration,
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
    mounts: BTreeMap<u32, Came>,
    counts: VecDeque<Count>,
    devices_read: Option<Duration>,
    /// By name: the disk's number and when it came.
    devices: BTreeMap<DeviceName, (Option<u64>, Came)>,
    blocked_since: Option<Duration>,
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
        for record in log.records.iter() {
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
        for (id, _) in now.iter().filter(|(_, mount)| is_dated(&mount.fstype, mount.has_device())) {
            if self.mounts.len() < MAX_MOUNTS {
                self.mounts.entry(*id).or_insert(Came { after, by: at.up });
            }
        }
    }

    /// Takes in which disks there are now: a name may be another disk's by then.
    pub fn follow_devices(&mut self, now: &BlockDevices, at: &NodeTime) {
        self.of_boot(at);
        let after = self.devices_read;
        let current: BTreeMap<&str, Option<u64>> =
            now.values().map(|device| (device.name.as_str(), device.diskseq)).collect();
        if now.incomplete().is_none() {
            self.devices.retain(|name, (seq, _)| current.get(name.as_str()) == Some(seq));
            self.devices_read = Some(at.up);
        }
        for (name, seq) in current {
            let has_room = self.devices.len() < MAX_DEVICES;
            let came = Came { after, by: at.up };
            match self.devices.get_mut(name) {
                Some((known, _)) if *known == seq => {}
                Some(entry) => *entry = (seq, came),
                None if has_room => drop(self.devices.insert(name.to_owned(), (seq, came))),
                None => {}
            }
        }
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

    /// Whether a disk of this name came after the record, so that the record is of another one.
    #[must_use]
    pub fn is_of_another_disk(&self, record: &KernelRecord, name: &str) -> bool {
        let device = self.devices.get(name).and_then(|(_, came)| came.after);
        device.zip(self.came(record)).is_some_and(|(after, came)| after >= came.by)
    }

    /// Takes in how many processes the kernel has killed by now.
    pub fn follow_count(&mut self, now: &VmStat, at: &NodeTime) {
        self.of_boot(at);
        let Some(kills) = now.oom_kill else { return };
        match self.counts.back_mut() {
            Some(last) if last.kills == kills => last.last = at.up,
            Some(last) if last.kills > kills => self.counts.clear(),
            _ => {}
        }
        if self.counts.back().is_none_or(|last| last.kills != kills) {
            if self.counts.len() >= MAX_COUNTS {
                self.counts.pop_front();
            }
            self.counts.push_back(Count { kills, first: at.up, last: at.up });
        }
    }

    /// When a record came.
    fn came(&self, record: &KernelRecord) -> Option<Came> {
        self.records.get(&record.up).copied()
    }

    /// Whether these mounts are those that there were when the record came.
    pub fn mounts_since(&self, record: &KernelRecord, ids: impl Iterator<Item = u32>) -> MountsSince {
        self.came(record).map_or(MountsSince::Unclear, |came| self.mounts_since_time(came, ids))
    }

    /// Whether these mounts came after the last loss of records.
    pub fn mounts_since_loss(&self, ids: impl Iterator<Item = u32>) -> MountsSince {
        let lost = self.lost_by.map(|by| Came { after: None, by });
        lost.map_or(MountsSince::Unclear, |came| self.mounts_since_time(came, ids))
    }

    fn mounts_since_time(&self, came: Came, ids: impl Iterator<Item = u32>) -> MountsSince {
        let mut new = false;
        let mut unclear = false;
        for mount in ids.map(|id| self.mounts.get(&id)) {
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
        let Some(came) = self.came(record) else { return Counted::Unknown };
        // The count begins at zero with the boot.
        let before = match came.after {
            Some(after) => self.counts.iter().rev().find(|count| count.first <= after).map(|count| count.kills),
            None => Some(0),
        };
        let Some(before) = before else { return Counted::Unknown };
        let settled = came.by.saturating_add(COUNTED_WITHIN);
        // The count as it stood soon after; the one now where it was not read since.
        let after = self.counts.iter().find(|count| count.last >= settled).or(self.counts.back());
        let Some(after) = after else { return Counted::Unknown };
        let is_kill = |record: &&KernelRecord| {
            matches!(record.event, KernelEvent::OomKill { .. } | KernelEvent::OomKilled { .. })
        };
        let of_that_look = |record: &&KernelRecord| self.came(record).is_some_and(|other| other.after == came.after);
        let lines = self.shared.iter().flat_map(|shared| shared.iter()).filter(is_kill).filter(of_that_look).count();
        match after.kills.saturating_sub(before) {
            grown if grown >= u64::try_from(lines).unwrap_or(u64::MAX) => Counted::Yes,
            _ if after.last < settled => Counted::Unknown,
            0 => Counted::No,
            _ => Counted::Fewer,
        }
    }
}
