//! Deleted files that processes have open: room on a disk that no directory shows.

use serde::{Deserialize, Serialize};

use super::{DevId, Inventory, PodUid};

/// For each filesystem that was asked about, what deleted files hold of it. Incomplete: more may be held than was found.
pub type DeletedFiles = Inventory<DevId, HeldFiles>;

/// The deleted files of one filesystem that are open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldFiles {
    /// What they occupy in bytes (`st_blocks`), each file once.
    pub bytes: u64,
    /// How many they are.
    pub files: u64,
    /// The processes that hold most of it, the first one before the others: at most [`super::MAX_HOLDERS`].
    pub holders: Vec<FilesHolder>,
}

/// A process that has deleted files open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesHolder {
    /// Process id, in the pid namespace of the `/proc` that was read.
    pub pid: u32,
    /// Its command name.
    pub command: String,
    /// Its cgroup path, if readable.
    pub cgroup: Option<String>,
    /// The pod, as far as the cgroup path names one.
    pub pod: Option<PodUid>,
    /// What its files occupy, but for those that were counted for another process.
    pub bytes: u64,
    /// How many they are.
    pub files: u64,
    /// The descriptor of the largest one.
    pub descriptor: u32,
    /// What the largest one was called, in the process's own mount namespace.
    pub path: String,
    /// What the largest one occupies.
    pub largest: u64,
    /// Other processes that have some of these files open, too.
    pub others: u64,
}

/// What a file is, by its descriptor in a process: of a copied machine, `captured/open-files.json` has it by `PID/DESCRIPTOR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFile {
    /// `st_dev`
    pub dev: DevId,
    /// `st_ino`
    pub inode: u64,
    /// `st_nlink`: names that it has.
    pub links: u64,
    /// `st_blocks`, of 512 bytes each.
    pub blocks: u64,
}

super::partial::entries_read_whole!(HeldFiles);
