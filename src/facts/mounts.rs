//! The mount table of the host.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Inventory, PodUid, VolumePath};

/// A device number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DevId {
    /// Major number; 0 is a filesystem without a device of its own (tmpfs, overlay, btrfs, NFS).
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl fmt::Display for DevId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// The text was not `MAJOR:MINOR`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected a device number like 259:1")]
pub struct NotADevId;

impl FromStr for DevId {
    type Err = NotADevId;

    fn from_str(text: &str) -> Result<Self, NotADevId> {
        let (major, minor) = text.split_once(':').ok_or(NotADevId)?;
        Ok(Self { major: major.parse().map_err(|_| NotADevId)?, minor: minor.parse().map_err(|_| NotADevId)? })
    }
}

impl Serialize for DevId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DevId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The kernel's number of a mount, unique while the mount lives.
pub type MountId = u32;

/// One line of `/proc/PID/mountinfo`, escapes decoded. Bytes that are not UTF-8 become U+FFFD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountEntry {
    /// Number of the mount this one is on.
    pub parent: MountId,
    /// Device number of the filesystem (`st_dev` of its files).
    pub dev: DevId,
    /// What of the filesystem is mounted: `/` or a directory or file in it.
    pub root: Arc<str>,
    /// Where it is mounted.
    pub point: Box<str>,
    /// Options of this mount.
    pub options: Arc<str>,
    /// Filesystem type.
    pub fstype: Arc<str>,
    /// What was named as the source when it was mounted; a device may have another name by now.
    pub source: Arc<str>,
    /// Options of the filesystem, shared by all its mounts. Not kept of an overlay, where they name the layers of an
    /// image: no detector reads those, and a large node has megabytes of them.
    pub super_options: Arc<str>,
    /// Whether the mount point or root was deleted underneath.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// What the mount point says about a volume of the kubelet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumePath>,
    /// More mounts like it, of the same pod, volume and device, that were counted and not kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u32,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl MountEntry {
    /// Whether a block device carries this filesystem, as far as the device number shows.
    #[must_use]
    pub fn has_device(&self) -> bool {
        self.dev.major != 0
    }

    /// The device that a raw-block bind shows (`/nvme1n1` of a devtmpfs), without a leading slash.
    #[must_use]
    pub fn raw_block_device(&self) -> Option<&str> {
        if &*self.fstype != "devtmpfs" {
            return None;
        }
        let name = self.root.strip_prefix('/')?;
        let name = name.strip_suffix("//deleted").unwrap_or(name);
        (!name.is_empty()).then_some(name)
    }

    /// Whether a raw-block bind shows a device node that was deleted: its device is gone, and what opens the node reaches whatever
    /// device has its number by now.
    #[must_use]
    pub fn shows_deleted_node(&self) -> bool {
        self.raw_block_device().is_some() && self.root.ends_with("//deleted")
    }

    /// Whether the filesystem's own options hold this word.
    #[must_use]
    pub fn has_super_option(&self, word: &str) -> bool {
        self.super_options.split(',').any(|option| option == word)
    }
}

fn node_of(mount: &MountEntry, number: usize) -> Option<&str> {
    mount.raw_block_device().filter(|_| number == 0)
}

/// The mount table of the host's first process, whole or incomplete.
pub type Mounts = Inventory<MountId, MountEntry>;

impl Mounts {
    /// The mounts of a filesystem, by its device number.
    pub fn of_device(&self, dev: DevId) -> impl Iterator<Item = (&MountId, &MountEntry)> {
        let key = |mount: &MountEntry, number: usize| (number == 0).then_some(mount.dev);
        self.found(&self.orders.first, key, move |other| other.cmp(&dev))
    }

    /// The mounts that show a device's node, by the device's name.
    pub fn of_node(&self, name: &str) -> impl Iterator<Item = (&MountId, &MountEntry)> {
        self.found(&self.orders.second, node_of, move |other| (*other).cmp(name))
    }

    /// Whether a volume's path has a part of the filesystem on which that path is: a bind of the node's own disk, and no volume. A volume
    /// that is mounted twice at its path is below a volume, and not below the node's disk.
    #[must_use]
    pub fn is_bind_of_own_disk(&self, mount: &MountEntry) -> bool {
        let below = self.get(&mount.parent);
        mount.has_device() && below.is_some_and(|below| below.volume.is_none() && below.dev == mount.dev)
    }

    /// Whether both have the same mounts of block devices and of device nodes, and lack the same: other sources that are compared
    /// with the one are compared with the other as well.
    #[must_use]
    pub fn has_same_devices(&self, other: &Self) -> bool {
        let of_devices = |mount: &MountEntry| mount.has_device() || mount.raw_block_device().is_some();
        let ours = self.iter().filter(|(_, mount)| of_devices(mount));
        self.incomplete() == other.incomplete() && ours.eq(other.iter().filter(|(_, mount)| of_devices(mount)))
    }
}

/// A process that holds a filesystem: by a mount of its own namespace or, where that may be seen, by what it uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountHolder {
    /// Process id, in the pid namespace of the `/proc` that was read.
    pub pid: u32,
    /// Its command name.
    pub command: String,
    /// Its cgroup path, if readable.
    pub cgroup: Option<String>,
    /// The pod, as far as the cgroup path names one.
    pub pod: Option<PodUid>,
    /// Where the namespace has it mounted, or what of it the process uses.
    pub point: String,
    /// How it is held.
    #[serde(default)]
    pub by: HeldBy,
}

/// How a process holds a filesystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldBy {
    /// Its mount namespace, another one than the host's, has it mounted.
    #[default]
    Mount,
    /// It is its working directory, or above that.
    WorkingDirectory,
    /// It is its root directory, or above that.
    RootDirectory,
    /// Its program is a file there.
    Program,
    /// It has a file open there.
    OpenFile,
}

/// Holders of one device that are listed: more of them show no more, and a list that is as long may lack some.
pub const MAX_HOLDERS: usize = 20;

/// For each device that was asked about, who holds it mounted in another namespace.
pub type MountHolders = Inventory<DevId, Vec<MountHolder>>;

super::partial::entries_read_whole!(MountEntry, Vec<MountHolder>);

#[cfg(test)]
mod tests {
    use super::*;

    fn devtmpfs(root: &str) -> MountEntry {
        MountEntry {
            parent: 34,
            dev: DevId { major: 0, minor: 5 },
            root: root.into(),
            point: "/x".into(),
            options: "rw".into(),
            fstype: "devtmpfs".into(),
            source: "dev".into(),
            super_options: "rw".into(),
            deleted: false,
            volume: None,
            left_out: 0,
        }
    }

    #[test]
    fn a_device_number_reads_back() {
        assert_eq!("259:1".parse::<DevId>().unwrap().to_string(), "259:1");
        for bad in ["", "259", "259:", ":1", "a:1", "4294967296:1", "1:-1"] {
            assert_eq!(bad.parse::<DevId>(), Err(NotADevId), "{bad}");
        }
    }

    #[test]
    fn a_raw_block_bind_names_its_device() {
        assert_eq!(devtmpfs("/nvme2n1").raw_block_device(), Some("nvme2n1"));
        assert_eq!(devtmpfs("/nvme2n1//deleted").raw_block_device(), Some("nvme2n1"));
        assert_eq!(devtmpfs("/").raw_block_device(), None);
    }
}
