//! Filesystems: whether they are alive and well, and how full the kubelet's own ones are.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DevId, DeviceName, Inventory, Part, Unknown};

/// A filesystem type that shows its life in `/sys/fs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FsType {
    /// `/sys/fs/ext4`
    Ext4,
    /// `/sys/fs/xfs`
    Xfs,
    /// `/sys/fs/btrfs`
    Btrfs,
}

impl FsType {
    /// Whether the mount table has the number of its device, so that one without a mount is known to be without: mounts of btrfs
    /// have numbers of their own.
    #[must_use]
    pub fn is_mounted_by_number(self) -> bool {
        self != Self::Btrfs
    }

    /// The type of a mount, as the mount table writes it.
    #[must_use]
    pub fn of_mount(fstype: &str) -> Option<Self> {
        match fstype {
            // One module mounts all three.
            "ext2" | "ext3" | "ext4" => Some(Self::Ext4),
            "xfs" => Some(Self::Xfs),
            "btrfs" => Some(Self::Btrfs),
            _ => None,
        }
    }
}

impl fmt::Display for FsType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        })
    }
}

/// `/sys/fs/TYPE/DEVICE`, or of btrfs `/sys/fs/btrfs/UUID`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FilesystemKey {
    /// Its type.
    pub fstype: FsType,
    /// The device's name when it was mounted; of btrfs the first of its devices by name.
    pub device: DeviceName,
}

/// A filesystem that is alive: some mount, in some namespace, or an open file holds it.
///
/// The directory goes with the last holder, so its presence is the proof of life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// ext4: errors since the last e2fsck, kept in the superblock over mounts. btrfs: errors of its devices since the counters were set
    /// to zero, kept in the filesystem (5.14 and later).
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub errors: Part<u64>,
    /// ext4: when the last of them happened, in seconds since 1970 on the node's clock of that time.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub last_error: Part<i64>,
    /// ext4: the kernel function that reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_function: Option<String>,
    /// btrfs: its devices, by their names now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceName>,
    /// Another number for each time that the kernel made its directory: one that was unmounted and mounted has another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<u64>,
}

/// All live ext4, xfs and btrfs filesystems.
pub type Filesystems = Inventory<FilesystemKey, Filesystem>;

/// What an xfs filesystem says when something on it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum XfsState {
    /// It answers.
    Answers,
    /// It fails every access: it has shut down.
    ShutDown,
}

/// The xfs filesystems that were asked, which need not be all.
pub type XfsProbes = Inventory<DevId, XfsState>;

/// Filesystems that the kubelet does not measure unless they are one of its own, by the directory that was asked.
pub type OtherFilesystems = Inventory<String, DiskUsage>;

/// `statfs` of the filesystem that holds one directory of the kubelet's or the runtime's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUsage {
    /// The directory that was asked.
    pub path: String,
    /// Why this directory stands for the one the kubelet watches, where it is not that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
    /// Why it is only assumed that this is the directory, where nothing showed which one it is: what follows from it is
    /// no more certain than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assumed: Option<String>,
    /// Device number, which distinguishes filesystems.
    pub dev: DevId,
    /// f_blocks × f_frsize, in bytes.
    pub capacity: u64,
    /// f_bavail × f_frsize, in bytes: what an unprivileged process can still write.
    pub available: u64,
    /// f_files.
    pub inodes: u64,
    /// f_ffree.
    pub inodes_free: u64,
}

super::partial::read_whole!(DiskUsage);
super::partial::entries_read_whole!(XfsState, DiskUsage);

impl super::partial::ListEntry for Filesystem {
    fn unread(&self) -> Option<&Unknown> {
        self.errors.unread()
    }
}
