//! Small files of the kernel that stay open from one read to the next.
//!
//! A read at the beginning of an open file gives its value as it is now, for a fifth to a half of what opening it costs. A file of
//! a device or group that is gone fails to be read (ENODEV, of a process ESRCH), whatever took its name: then the name is opened.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::sys::resource::{Resource, getrlimit};

/// Each costs some 5 KiB of the kernel's memory, which counts as ours.
pub(super) const MAX_HELD: usize = 256;

/// Longer files are not held: reading them costs more than opening.
pub(super) const LONGEST: usize = 1 << 10;

/// After so many reads the name is opened again: a mount over it would not be noticed.
const MAX_READS: u32 = 30;

/// What was not read within so many reads of others is gone.
const FORGOTTEN_AFTER: u64 = 64 * MAX_HELD as u64;

/// The files that are open, by their paths.
#[derive(Debug, Default)]
pub(super) struct Held {
    files: HashMap<String, HeldFile>,
    reads: u64,
    /// How many there may be, once one was to be kept.
    most: Option<usize>,
}

/// A quarter of what this process may open: connections and all else have the rest.
fn most_of(limit: u64) -> usize {
    usize::try_from(limit / 4).unwrap_or(MAX_HELD).min(MAX_HELD)
}

/// A file that is open.
#[derive(Debug)]
pub(super) struct HeldFile {
    file: File,
    reads: u32,
    last: u64,
}

impl HeldFile {
    /// Just opened.
    pub(super) fn new(file: File) -> Self {
        Self { file, reads: 0, last: 0 }
    }

    /// How many bytes it has now; none on any error, after too many reads, and where it is longer than the room.
    pub(super) fn read(&mut self, room: &mut [u8; LONGEST]) -> Option<usize> {
        self.reads = self.reads.saturating_add(1);
        if self.reads > MAX_READS { None } else { whole(&self.file, room) }
    }
}

impl Held {
    /// Takes a file out to be read: a read that hangs must not hold up who reads another.
    pub(super) fn take(&mut self, path: &str) -> Option<(String, HeldFile)> {
        self.reads = self.reads.wrapping_add(1);
        if self.reads.is_multiple_of(FORGOTTEN_AFTER) {
            let reads = self.reads;
            self.files.retain(|_, file| reads.saturating_sub(file.last) < FORGOTTEN_AFTER);
        }
        self.files.remove_entry(path)
    }

    /// Keeps a file until it is read again, where there is room.
    pub(super) fn keep(&mut self, path: String, file: HeldFile) {
        let limit = || getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        let most = *self.most.get_or_insert_with(|| most_of(limit()));
        if self.files.len() < most {
            self.files.insert(path, HeldFile { last: self.reads, ..file });
        }
    }

    #[cfg(test)]
    pub(super) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }
}

/// The bytes of a file from its beginning; none on any error, and where it is longer than the room.
fn whole(file: &File, room: &mut [u8; LONGEST]) -> Option<usize> {
    let mut length = 0;
    while let Some(rest) = room.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, length as u64) {
            Ok(0) => return Some(length),
            Ok(more) => length = length.saturating_add(more),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::mpsc;

    use super::super::Root;
    use super::super::text::whole_text;
    use super::*;
    use crate::facts::Cause;

    fn live() -> Root {
        Root::open(Path::new("/")).unwrap()
    }

    fn is_held(root: &Root, path: &str) -> bool {
        root.held.lock().unwrap().has(path)
    }

    #[test]
    fn a_held_file_says_what_is_so_now() {
        let root = live();
        let uptime = || root.read_again("proc/uptime", whole_text).unwrap();
        let first = uptime();
        assert!(is_held(&root, "proc/uptime"));
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert_ne!(first, uptime());
    }

    #[test]
    fn a_file_whose_owner_is_gone_is_not_read_from_what_is_held() {
        let root = live();
        let ((tell, path), (end, ended)) = (mpsc::channel(), mpsc::channel::<()>());
        let thread = std::thread::spawn(move || {
            tell.send(format!("proc/self/task/{}/comm", nix::unistd::gettid())).unwrap();
            let _ = ended.recv();
        });
        let path = path.recv().unwrap();
        root.read_again(&path, whole_text).unwrap();
        assert!(is_held(&root, &path));
        drop(end);
        thread.join().unwrap();
        // The thread is gone a moment after it was joined.
        let gone = (0..500).find_map(|_| {
            let gone = root.read_again(&path, whole_text).err();
            if gone.is_none() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            gone
        });
        assert_eq!(gone.map(|why| why.cause), Some(Cause::Missing));
        assert!(!is_held(&root, &path));
    }

    /// Where this machine lets us make a control group.
    #[test]
    fn a_group_that_was_made_again_under_its_name_is_another() {
        let root = live();
        let group = format!("sys/fs/cgroup/barnacle-held-{}", std::process::id());
        let (dir, path) = (Path::new("/").join(&group), format!("{group}/cgroup.events"));
        if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() || fs::create_dir(&dir).is_err() {
            return;
        }
        root.read_again(&path, whole_text).unwrap();
        let held = is_held(&root, &path);
        fs::remove_dir(&dir).unwrap();
        let gone = root.read_again(&path, whole_text).unwrap_err().cause;
        fs::create_dir(&dir).unwrap();
        let again = root.read_again(&path, whole_text);
        fs::remove_dir(&dir).unwrap();
        assert!(held && again.is_ok(), "{again:?}");
        assert_eq!(gone, Cause::Missing);
    }

    #[test]
    fn of_a_copy_nothing_is_held() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc")).unwrap();
        let path = dir.path().join("proc/loadavg");
        fs::write(&path, "1\n").unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(root.read_again("proc/loadavg", whole_text).unwrap(), "1");
        fs::remove_file(&path).unwrap();
        assert_eq!(root.read_again("proc/loadavg", whole_text).unwrap_err().cause, Cause::Missing);
    }

    #[test]
    fn no_more_are_held_than_the_bound_and_each_is_opened_again_in_time() {
        assert_eq!([0, 28, 1024, 1 << 20, u64::MAX].map(most_of), [0, 7, MAX_HELD, MAX_HELD, MAX_HELD]);
        let mut held = Held { most: Some(MAX_HELD), ..Held::default() };
        let open = || HeldFile::new(File::open("/proc/uptime").unwrap());
        for number in 0..MAX_HELD + 9 {
            held.keep(number.to_string(), open());
        }
        assert_eq!(held.files.len(), MAX_HELD);
        let (mut room, mut file) = ([0; LONGEST], open());
        let reads = std::iter::from_fn(|| file.read(&mut room)).count();
        assert_eq!(reads, MAX_READS as usize);
    }

    #[test]
    fn what_is_not_read_any_more_is_closed() {
        let mut held = Held::default();
        held.keep("gone".into(), HeldFile::new(File::open("/proc/uptime").unwrap()));
        for _ in 0..2 * FORGOTTEN_AFTER {
            held.take("another");
        }
        assert!(!held.has("gone"));
    }
}
