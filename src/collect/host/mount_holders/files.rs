//! What processes use of a filesystem: their directories, programs and open files.

use std::collections::BTreeMap;

use super::process::holder;
use super::turns::Turns;
use super::{Point, Search, now};
use crate::collect::host::failures::Failures;
use crate::facts::{Cause, DevId, HeldBy, MAX_HOLDERS, MountHolder, MountId, Unknown, is_at_or_below};

/// More open files than this are not looked at: of one process, and of all together.
pub(super) const MAX_FILES: usize = 16_384;
pub(super) const MAX_FILES_OF_ALL: usize = 100_000;
/// Files between two looks at the clock.
pub(super) const FILES_A_LOOK: usize = 64;
/// What a process costs beside its files, as files of its owner.
pub(super) const PROCESS_COST: usize = 8;
/// What a process uses, by the links of `/proc/PID`.
const LINKS: [(&str, HeldBy); 3] =
    [("cwd", HeldBy::WorkingDirectory), ("root", HeldBy::RootDirectory), ("exe", HeldBy::Program)];

impl Search<'_> {
    /// What processes use of the devices that are asked about, as far as the kernel shows it: in turns of the owners.
    pub(super) fn files(&mut self, pids: &[u32], failures: &mut Failures) {
        if self.mounts.is_empty() {
            return;
        }
        let mut turns = Turns::default();
        for pid in pids {
            if now() >= self.until {
                break;
            }
            turns.push(self.owner(*pid), *pid);
        }
        let mut unread = pids.len().saturating_sub(turns.len());
        while let Some((owner, pid)) = turns.pop() {
            if self.files_left == 0 || now() >= self.until {
                unread = unread.saturating_add(turns.len()).saturating_add(1);
                break;
            }
            let before = self.files_left;
            if !self.files_of(pid) {
                unread = unread.saturating_add(1);
            }
            turns.spend(owner, before.saturating_sub(self.files_left).saturating_add(PROCESS_COST));
        }
        if unread > 0 {
            let why = format!(
                "the open files of {unread} processes were not all read: more files are open than {MAX_FILES} of one process or \
                 {MAX_FILES_OF_ALL} of all, or can be read in time"
            );
            failures.note(Unknown::new(Cause::TooLarge, why));
        }
    }

    /// What one process uses; says whether all its files were read.
    fn files_of(&mut self, pid: u32) -> bool {
        let mut used: BTreeMap<DevId, (HeldBy, String)> = BTreeMap::new();
        if let Some(table) = self.table(pid) {
            for (link, by) in LINKS {
                let Ok(path) = self.root.link(&format!("proc/{pid}/{link}")) else { continue };
                if let Some(dev) = carrier(table, &path).filter(|dev| self.held.contains_key(dev)) {
                    used.entry(dev).or_insert((by, path));
                }
            }
        }
        let room = self.files_left.min(MAX_FILES);
        let mut files = Vec::new();
        // Who may not look is refused here, and a process that ended is gone.
        let _ = self.root.each(&format!("proc/{pid}/fdinfo"), |name, _| {
            if files.len() <= room {
                files.extend(name.parse::<u32>());
            }
        });
        let mut is_whole = files.len() <= room;
        files.truncate(room);
        self.files_left = self.files_left.saturating_sub(files.len());
        for (count, file) in files.into_iter().enumerate() {
            if count.is_multiple_of(FILES_A_LOOK) && now() >= self.until {
                is_whole = false;
                break;
            }
            let Ok(info) = self.root.bytes(&format!("proc/{pid}/fdinfo/{file}")) else { continue };
            let Some(dev) = mount_of(&info).and_then(|id| self.mounts.get(&id)).copied() else { continue };
            let path =
                self.root.link(&format!("proc/{pid}/fd/{file}")).unwrap_or_else(|_| format!("descriptor {file}"));
            used.entry(dev).or_insert((HeldBy::OpenFile, path));
        }
        for (dev, (by, path)) in used {
            let room = |holders: &&mut Vec<MountHolder>| {
                holders.len() < MAX_HOLDERS && holders.iter().all(|holder| holder.pid != pid)
            };
            if let Some(holders) = self.held.get_mut(&dev).filter(room) {
                holders.push(holder(self.root, &self.first, pid, path, by));
            }
        }
        is_whole
    }

    /// The points of a process's namespace that are asked about, and what stands on them.
    fn table(&self, pid: u32) -> Option<&Vec<Point>> {
        let (_, _, first) = self.first_mount_of(pid).ok()?;
        self.points.get(&first)
    }
}

/// The device that has this path, by a table of mounts.
fn carrier(table: &[Point], path: &str) -> Option<DevId> {
    // Of mounts on one point the last covers the others.
    let (_, dev) =
        table.iter().filter(|(point, _)| is_at_or_below(path, point)).max_by_key(|(point, _)| point.len())?;
    Some(*dev)
}

/// The mount that an open file is on, as `/proc/PID/fdinfo/N` has it (`mnt_id`).
#[must_use]
pub fn mount_of(info: &[u8]) -> Option<MountId> {
    let mut lines = info.split(|byte| *byte == b'\n');
    let id = lines.find_map(|line| line.strip_prefix(b"mnt_id:"))?;
    std::str::from_utf8(id).ok()?.trim().parse().ok()
}
