//! The floor: what it costs only to open and read what a pass reads.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

use crate::CYCLE;
use crate::change::Change;

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

/// A page at first, and all there is room for where that was not enough: for a file of `/proc/sys` the kernel clears
/// as much memory as is asked for.
fn drain(file: &OwnedFd, buffer: &mut [u8]) {
    let mut room = 4096;
    while let Ok(length @ 1..) = nix::unistd::read(file, &mut buffer[..room]) {
        if length == room {
            room = buffer.len();
        }
    }
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

/// Marks for a tracer that the next part begins.
pub fn mark(part: usize) {
    let _ = nix::unistd::access(format!("{MARK}{part}").as_str(), nix::unistd::AccessFlags::F_OK);
}

const MARK: &str = "/barnacle-part/";

/// The part between two passes, which is not measured.
pub const BETWEEN: usize = 1_000_000;

/// The floors of one cycle of passes.
pub fn of_passes(root: &Path, change: Change) -> Option<Vec<Floor>> {
    // The first cycle is a warm-up.
    let (dir, count) = (root.display().to_string(), (2 * CYCLE).to_string());
    let floors = record(root, &["passes", &dir, &count, change.name()])?;
    let floors = floors.into_iter().filter(|(part, _)| *part != BETWEEN);
    let floors: Vec<Floor> = floors.map(|(_, floor)| floor).skip(CYCLE).take(CYCLE).collect();
    Some(floors).filter(|floors| floors.len() == CYCLE)
}

/// The floor of each source alone, by its number.
pub fn of_sources(root: &Path) -> Option<BTreeMap<usize, Floor>> {
    Some(record(root, &["sources", &root.display().to_string()])?.into_iter().collect())
}

/// What `strace` sees this program read in each of its parts.
fn record(root: &Path, arguments: &[&str]) -> Option<Vec<(usize, Floor)>> {
    let log = tempfile::NamedTempFile::new().unwrap();
    let calls = "trace=openat,openat2,read,readlinkat,getdents64,access,faccessat,faccessat2";
    let status = Command::new("strace")
        .args(["-qq", "-y", "-s", "4096", "-e", calls, "-o"])
        .arg(log.path())
        .arg(std::env::current_exe().unwrap())
        .args(arguments)
        .status();
    if !status.is_ok_and(|status| status.success()) {
        return None;
    }
    let text = String::from_utf8_lossy(&std::fs::read(log.path()).unwrap()).into_owned();
    Some(parse(&text, root))
}

/// By what was touched: the way to it, and the most that was done with it.
type Touched<'a> = BTreeMap<&'a str, (String, Act)>;

fn parse(log: &str, root: &Path) -> Vec<(usize, Floor)> {
    let mut parts: Vec<(usize, Touched<'_>)> = Vec::new();
    let root = format!("{}/", root.display().to_string().trim_end_matches('/'));
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once(MARK) {
            parts.push((rest.split('"').next().unwrap().parse().unwrap(), BTreeMap::new()));
            continue;
        }
        let touched =
            touched(line).and_then(|(what, path, act)| Some((what, path.strip_prefix(&root)?.to_owned(), act)));
        if let (Some((_, seen)), Some((what, path, act))) = (parts.last_mut(), touched) {
            let before = seen.entry(what).or_insert((path, act));
            before.1 = act.max(before.1);
        }
    }
    parts.into_iter().map(|(part, seen)| (part, Floor(seen.into_values().collect()))).collect()
}

/// The path that strace gives behind a descriptor.
fn resolved(text: &str) -> Option<&str> {
    Some(text.split_once('<')?.1.split_once('>')?.0)
}

/// What one system call touches, by what way, and what it does with it. What is the same counts once, whatever way
/// leads to it; a directory that is only opened, as a handle, does not count.
fn touched(line: &str) -> Option<(&str, String, Act)> {
    let (call, arguments) = line.split_once('(')?;
    let first = resolved(arguments)?;
    let itself = |act| Some((first, first.to_owned(), act));
    match call {
        // What is held open is part of the floor as well.
        "read" if !first.ends_with("/dev/kmsg") => itself(Act::Read),
        "getdents64" => itself(Act::List),
        "readlinkat" if arguments.contains(">, \"\"") => itself(Act::ReadLink),
        "readlinkat" => Some((line.split_once(" = ")?.0, named(first, arguments)?, Act::ReadLink)),
        "openat" | "openat2" => opened(line, named(first, arguments)?),
        _ => None,
    }
}

/// openat2(4</tree/sys/fs/cgroup>, "memory.stat", …: a name is relative to a directory that is open.
fn named(dir: &str, arguments: &str) -> Option<String> {
    Some(format!("{}/{}", dir.trim_end_matches('/'), arguments.split('"').nth(1)?))
}

fn opened(line: &str, path: String) -> Option<(&str, String, Act)> {
    let (call, result) = line.rsplit_once(" = ")?;
    if result.starts_with('-') {
        return Some((call, path, Act::Miss));
    }
    let act = match call {
        _ if call.contains("O_PATH") => Act::Look,
        _ if call.contains("O_DIRECTORY") => return None,
        _ => Act::Read,
    };
    Some((resolved(result)?, path, act))
}

/// What one small file of this tree costs.
pub fn one_file(root: &Path) -> Duration {
    let floor = Floor(vec![("proc/loadavg".to_owned(), Act::Read); 1000]);
    let mut buffer = vec![0; 4096];
    let times = (0..11).map(|_| crate::timed(|| floor.read(root, &mut buffer)).0 / 1000);
    crate::median(times.collect())
}
