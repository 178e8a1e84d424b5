//! What changes on a generated node between two passes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How much of a node changes from pass to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Not one byte.
    Nothing,
    /// What counts and what measures: the usual node.
    Counters,
    /// The mount table, the Node and its pods as well.
    All,
}

impl Change {
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Counters, Self::All];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Counters => "counters",
            Self::All => "all",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|change| change.name() == name)
    }
}

/// Files with counters of one level, by their names.
const COUNTERS: [&str; 6] = ["stat", "memory.current", "memory.stat", "memory.pressure", "pids.current", "cpu.stat"];
/// Files with counters at one place.
const PLACES: [&str; 10] = [
    "proc/meminfo",
    "proc/vmstat",
    "proc/stat",
    "proc/loadavg",
    "proc/pressure/cpu",
    "proc/pressure/memory",
    "proc/pressure/io",
    "proc/sys/fs/file-nr",
    "proc/sys/net/netfilter/nf_conntrack_count",
    "proc/1/net/stat/nf_conntrack",
];

/// Rewrites files in place, as a kernel's are.
pub struct Changes {
    counters: Vec<(PathBuf, String)>,
    mountinfo: Option<(PathBuf, [String; 2])>,
    round: u64,
}

impl Changes {
    pub fn of(root: &Path, change: Change) -> Self {
        let mut changes = Self { counters: Vec::new(), mountinfo: None, round: 0 };
        if change == Change::Nothing {
            return changes;
        }
        let mut paths: Vec<PathBuf> = PLACES.iter().map(|place| root.join(place)).collect();
        find(&root.join("sys/fs/cgroup"), &mut paths);
        find(&root.join("sys/devices"), &mut paths);
        // Equal files of a tree are one file with many names.
        let mut seen = BTreeSet::new();
        paths.retain(|path| fs::metadata(path).is_ok_and(|file| seen.insert(file.ino())));
        changes.counters = paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect();
        if change == Change::All {
            let path = root.join("proc/1/mountinfo");
            let text = fs::read_to_string(&path).unwrap();
            // The last mount was made again: another id, and all else as before.
            let (rest, last) = text.trim_end().rsplit_once('\n').unwrap();
            let (id, mount) = last.split_once(' ').unwrap();
            let other = format!("{rest}\n{} {mount}\n", id.parse::<u32>().unwrap() + 1);
            changes.mountinfo = Some((path, [text, other]));
        }
        changes
    }

    /// One pass further. What must be sent again by the API server is `round % 2`.
    pub fn next(&mut self) -> u64 {
        self.round += 1;
        for (path, text) in &self.counters {
            fs::write(path, counted(text, self.round)).unwrap();
        }
        if let Some((path, texts)) = &self.mountinfo {
            fs::write(path, &texts[(self.round % 2) as usize]).unwrap();
        }
        self.round
    }
}

fn find(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            find(&entry.path(), found);
        } else if kind.is_file() && COUNTERS.iter().any(|name| entry.file_name() == *name) {
            found.push(entry.path());
        }
    }
}

/// Numbers of four digits and more grow with each round; one that stands alone in its file goes up and down.
fn counted(text: &str, round: u64) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        // The time of the boot is no counter.
        if line.starts_with("btime") {
            out.push_str(line);
            continue;
        }
        for word in line.split_inclusive([' ', '\n', '=', '\t']) {
            let digits = word.trim_end_matches([' ', '\n', '=', '\t']);
            match digits.parse::<u64>() {
                Ok(number) if digits.len() >= 4 => {
                    out.push_str(&format!("{:0width$}", number + round, width = digits.len()));
                    out.push_str(&word[digits.len()..]);
                }
                Ok(number) if text.trim_end() == digits => {
                    out.push_str(&(number + round % 2).to_string());
                    out.push_str(&word[digits.len()..]);
                }
                _ => out.push_str(word),
            }
        }
    }
    out
}
