//! The floor: what it costs only to open and read what a pass reads.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

use crate::CYCLE;

/// What is done with a path, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    /// Open, though it is not there.
    Miss,
    /// Look at it without opening.
    Look,
    ReadLink,
    List,
    Read,
}

/// Every path that one pass touches, in no order.
#[derive(Debug, Default)]
pub struct Floor(Vec<(String, Act)>);

impl Floor {
    pub fn files(&self) -> usize {
        self.0.iter().filter(|(_, act)| *act == Act::Read).count()
    }

    pub fn directories(&self) -> usize {
        self.0.iter().filter(|(_, act)| *act == Act::List).count()
    }

    /// Opens, reads and closes each once.
    #[inline(never)]
    pub fn read(&self, root: &Path, buffer: &mut [u8]) {
        let root = open(root, OFlag::O_PATH).unwrap();
        for (path, act) in &self.0 {
            let plain = |flags| openat(root.as_fd(), path.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty());
            match act {
                Act::Miss => drop(plain(OFlag::O_RDONLY)),
                Act::Look => drop(plain(OFlag::O_PATH)),
                Act::ReadLink => drop(readlinkat(root.as_fd(), path.as_str())),
                Act::List => drop(plain(OFlag::O_RDONLY | OFlag::O_DIRECTORY).map(|dir| list(&dir, buffer))),
                Act::Read => drop(plain(OFlag::O_RDONLY).map(|file| drain(&file, buffer))),
            }
        }
    }
}

fn open(path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    nix::fcntl::open(path, flags | OFlag::O_CLOEXEC, Mode::empty())
}

fn drain(file: &OwnedFd, buffer: &mut [u8]) {
    while nix::unistd::read(file, buffer).is_ok_and(|length| length > 0) {}
}

fn list(dir: &OwnedFd, buffer: &mut [u8]) {
    loop {
        // SAFETY: the call writes at most the length that it is given to the buffer, which outlives it.
        let length = unsafe {
            libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len().min(32 << 10))
        };
        if length <= 0 {
            return;
        }
    }
}

/// Tells whoever traces us that the next pass begins.
pub fn mark(pass: usize) {
    let _ = nix::unistd::access(format!("/barnacle-pass/{pass}").as_str(), nix::unistd::AccessFlags::F_OK);
}

/// The floors of one cycle of passes, as `strace` saw this program make them.
pub fn record(root: &Path) -> Option<Vec<Floor>> {
    let log = tempfile::NamedTempFile::new().unwrap();
    let calls = "trace=openat,openat2,read,access,faccessat,faccessat2";
    let status = Command::new("strace")
        .args(["-qq", "-y", "-s", "4096", "-e", calls, "-o"])
        .arg(log.path())
        .arg(std::env::current_exe().unwrap())
        .arg("passes")
        .arg(root)
        .arg((2 * CYCLE).to_string())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        return None;
    }
    let text = String::from_utf8_lossy(&std::fs::read(log.path()).unwrap()).into_owned();
    // The first cycle is a warm-up.
    let floors: Vec<Floor> = parse(&text, root).into_iter().skip(CYCLE).take(CYCLE).collect();
    Some(floors).filter(|floors| floors.len() == CYCLE)
}

fn parse(log: &str, root: &Path) -> Vec<Floor> {
    let mut passes: Vec<BTreeMap<String, Act>> = Vec::new();
    let mut opened: BTreeSet<&str> = BTreeSet::new();
    let root = format!("{}/", root.display().to_string().trim_end_matches('/'));
    for line in log.lines() {
        if line.contains("\"/barnacle-pass/") {
            passes.push(BTreeMap::new());
            opened.clear();
            continue;
        }
        // What is read without having been opened in this pass is held open, and part of the floor all the same.
        let known = line.starts_with("read(") && resolved(line).is_some_and(|path| opened.contains(path));
        opened.extend(line.rsplit_once(" = ").and_then(|(_, result)| resolved(result)));
        if known {
            continue;
        }
        if let (Some(pass), Some((path, act))) = (passes.last_mut(), touched(line, &root)) {
            let before = pass.entry(path).or_insert(act);
            *before = act.max(*before);
        }
    }
    passes.into_iter().map(|pass| Floor(pass.into_iter().collect())).collect()
}

/// The path that strace gives behind a descriptor.
fn resolved(text: &str) -> Option<&str> {
    Some(text.split_once('<')?.1.split_once('>')?.0)
}

fn touched(line: &str, root: &str) -> Option<(String, Act)> {
    if line.starts_with("read(") {
        let path = resolved(line)?.strip_prefix(root)?;
        return (path != "dev/kmsg").then(|| (path.to_owned(), Act::Read));
    }
    if !line.starts_with("openat") {
        return None;
    }
    // openat2(4</tree/sys/fs/cgroup>, "memory.stat", …: a name may be relative to a directory that is open.
    let (before, after) = line.split_once(">, \"")?;
    let dir = format!("{}/", before.split_once('<')?.1.trim_end_matches('/'));
    let path = format!("{}{}", dir.strip_prefix(root)?, after.split('"').next()?);
    let act = match line {
        _ if line.contains(") = -1 ") => Act::Miss,
        _ if line.contains("O_PATH|O_NOFOLLOW") || line.contains("O_NOFOLLOW|O_CLOEXEC|O_PATH") => Act::ReadLink,
        _ if line.contains("O_PATH") => Act::Look,
        _ if line.contains("O_DIRECTORY") => Act::List,
        _ => Act::Read,
    };
    Some((path, act))
}

/// What one small file of this tree costs.
pub fn one_file(root: &Path) -> Duration {
    let floor = Floor(vec![("proc/loadavg".to_owned(), Act::Read); 1000]);
    let mut buffer = vec![0; 4096];
    let times = (0..11).map(|_| crate::timed(|| floor.read(root, &mut buffer)).0 / 1000);
    crate::median(times.collect())
}
