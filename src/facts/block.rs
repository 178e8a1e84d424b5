//! Block devices and NVMe controllers.

use serde::{Deserialize, Serialize};

use super::{Absent, DevId, Inventory, NotAbsent, Part, Unknown};

/// A name below `/sys/block` or `/sys/class/block`, such as `nvme1n1p1`. It may name another device tomorrow.
pub type DeviceName = String;

/// An EBS volume id with its dash, such as `vol-0123456789abcdef0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VolumeId(String);

impl VolumeId {
    /// Reads an NVMe serial (`vol0123…`, blank-padded, no dash) or a volume id. `None` for anything else.
    #[must_use]
    pub fn from_serial(serial: &str) -> Option<Self> {
        let serial = serial.trim_matches(|c: char| c == ' ' || c == '\0' || c == '\n');
        let digits = serial.strip_prefix("vol")?;
        let digits = digits.strip_prefix('-').unwrap_or(digits);
        let hex = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (hex && matches!(digits.len(), 8 | 17)).then(|| Self(["vol-", digits].concat()))
    }

    /// Reads a PersistentVolume's handle: the id itself, or of an in-tree volume the zone before it
    /// (`aws://eu-west-1a/vol-0123…`). `None` for anything else.
    #[must_use]
    pub fn of_handle(handle: &str) -> Option<Self> {
        Self::from_serial(handle.strip_prefix("aws://").and_then(|rest| rest.rsplit('/').next()).unwrap_or(handle))
    }

    /// The id as EC2 writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `/sys/block/X/stat`. Counters since the device appeared; absent fields (old kernels) are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoStat {
    /// Reads completed.
    pub reads: u64,
    /// Writes completed.
    pub writes: u64,
    /// Discards completed (4.18 and later).
    pub discards: u64,
    /// Flushes completed (5.5 and later).
    pub flushes: u64,
    /// Requests that the driver has and has not completed.
    pub in_flight: u64,
    /// Bytes read and written; absent in recordings of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl IoStat {
    /// All requests completed.
    #[must_use]
    pub fn completed(&self) -> u64 {
        [self.reads, self.writes, self.discards, self.flushes].iter().fold(0, |sum, n| sum.saturating_add(*n))
    }
}

/// What device mapper has of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapped {
    /// `dm/name`, below `/dev/mapper`.
    pub name: String,
    /// `dm/uuid`, which begins with who made it (`LVM-`, `CRYPT-`, `mpath-`); empty where that has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uuid: String,
}

impl Mapped {
    /// Whether it is several paths to one disk.
    #[must_use]
    pub fn is_multipath(&self) -> bool {
        self.uuid.starts_with("mpath-")
    }
}

/// A block device or partition that has a device number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockDevice {
    /// Its name now.
    pub name: DeviceName,
    /// For a partition, the disk that it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DeviceName>,
    /// The kernel's sequence number of this disk, new for each hot-plug (5.15 and later).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diskseq: Option<u64>,
    /// Size in bytes.
    pub size: u64,
    /// I/O counters; absent for partitions and for devices that nothing stands behind.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub io: Part<IoStat>,
    /// The EBS volume, where the serial is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeId>,
    /// Devices stacked on this one (device mapper, md).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<DeviceName>,
    /// Devices that this one is stacked on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slaves: Vec<DeviceName>,
    /// For a loop device, the file behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loop_file: Option<String>,
    /// For one of device mapper, what it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped: Option<Mapped>,
    /// For one of md, its level: `raid0`, `linear`, `raid1` and so on.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub level: Part<String>,
    /// `queue/io_timeout` in milliseconds; 4294967288 and above means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_timeout_ms: Option<u64>,
    /// Whether it is in use as swap space.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub swap: bool,
}

impl BlockDevice {
    /// Whether nothing of it is served without any one of the devices that it is built on: of device mapper that is not known by
    /// its files, and taken for a mirror.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn needs_all(&self) -> Result<bool, &Unknown> {
        Ok(self.level.seen()?.is_some_and(|level| matches!(level.as_str(), "raid0" | "linear")))
    }
}

/// All block devices and partitions by device number, from `/sys/dev/block`.
pub type BlockDevices = Inventory<DevId, BlockDevice>;

impl BlockDevices {
    /// The device of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<(DevId, &BlockDevice)> {
        let mut found = self.found(&self.orders.first, name_of, |other| (*other).cmp(name));
        found.next().map(|(dev, device)| (*dev, device))
    }

    /// Evidence that no device has this name.
    ///
    /// # Errors
    /// The device that has it, and what could not be read where the list is not whole.
    pub fn lacks_named(&self, name: &str) -> Result<Absent, NotAbsent<'_, BlockDevice>> {
        self.lacks_found(self.named(name).map(|(_, device)| device))
    }

    /// The devices that stand on the one of this name, without one in between: its partitions, and what device mapper and md build.
    pub fn standing_on(&self, name: &str) -> impl Iterator<Item = (DevId, &BlockDevice)> {
        let found = self.found(&self.orders.second, below, move |other| (*other).cmp(name));
        found.map(|(dev, device)| (*dev, device))
    }
}

fn name_of(device: &BlockDevice, number: usize) -> Option<&str> {
    (number == 0).then_some(&device.name)
}

/// What a device stands on, by number.
fn below(device: &BlockDevice, number: usize) -> Option<&str> {
    let slave = match (&device.disk, number.checked_sub(1)) {
        (Some(disk), None) => return Some(disk),
        (Some(_), Some(number)) => number,
        (None, _) => number,
    };
    device.slaves.get(slave).map(String::as_str)
}

/// `/sys/class/nvme/nvmeN`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvmeController {
    /// Model, trimmed: `Amazon Elastic Block Store` or `Amazon EC2 NVMe Instance Storage` on EC2.
    pub model: String,
    /// The EBS volume, where the serial is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeId>,
    /// live, resetting, connecting, deleting, dead, …
    pub state: String,
    /// pcie on EC2, tcp in the lab.
    pub transport: String,
    /// Block devices of its namespaces: multipath heads where there are such, never their hidden paths.
    pub namespaces: Vec<DeviceName>,
}

/// All NVMe controllers by name (`nvme0`).
pub type NvmeControllers = Inventory<DeviceName, NvmeController>;

super::partial::entries_read_whole!(NvmeController);

impl super::partial::ListEntry for BlockDevice {
    fn unread(&self) -> Option<&Unknown> {
        self.io.unread()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_a_volume_only_in_its_exact_form() {
        let id = |serial| VolumeId::from_serial(serial).map(|v| v.as_str().to_string());
        assert_eq!(id("vol0123456789abcdef0"), Some("vol-0123456789abcdef0".into()));
        assert_eq!(id("vol-0123456789abcdef0"), Some("vol-0123456789abcdef0".into()));
        assert_eq!(id("vol1234abcd         \n"), Some("vol-1234abcd".into()));
        for not in
            ["", "vol", "vol-", "AWSBA029A3CE993A5ED5", "vol0123456789abcdeg0", "vol0123456789ABCDEF0", "vol0123"]
        {
            assert_eq!(id(not), None, "{not}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_handle_is_an_id_has_its_form(handle in "(aws://)?[a-z0-9/-]{0,12}(vol-)?[0-9a-f]{0,18}.{0,4}") {
            if let Some(id) = VolumeId::of_handle(&handle) {
                let digits = id.as_str().strip_prefix("vol-").unwrap();
                proptest::prop_assert!(matches!(digits.len(), 8 | 17) && digits.bytes().all(|b| b.is_ascii_hexdigit()));
            }
        }
    }

    #[test]
    fn a_handle_is_an_id_with_or_without_its_zone() {
        let id = |handle| VolumeId::of_handle(handle).map(|volume| volume.as_str().to_owned());
        for handle in
            ["vol-0123456789abcdef0", "aws://eu-west-1a/vol-0123456789abcdef0", "aws:///vol-0123456789abcdef0"]
        {
            assert_eq!(id(handle).as_deref(), Some("vol-0123456789abcdef0"), "{handle}");
        }
        for not in ["", "aws://", "aws://eu-west-1a/", "local-ebs://dev/xvdbz", "x/vol-0123456789abcdef0"] {
            assert_eq!(id(not), None, "{not}");
        }
    }
}
