//! Block devices and partitions, from sysfs alone: no device node is ever opened.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{BlockDevice, BlockDevices, Cause, DevId, DeviceName, IoStat, Part, Unknown, VolumeId};

use super::failures::Failures;
use super::mountinfo::decode;
use super::root::{Folder, Root, below, quote};

const DEVICES: &str = "sys/dev/block";

/// The model of every EBS volume.
pub(super) const EBS_MODEL: &str = "Amazon Elastic Block Store";

/// What changes rarely is read again after so many looks: once a minute.
const STATIC_EVERY: u32 = 6;

/// The block devices, with what need not be read on every look.
#[derive(Debug, Default)]
pub struct BlockTable {
    looks: u32,
    known: BTreeMap<DevId, Known>,
}

/// A device as it was read at leisure.
#[derive(Clone, Debug)]
struct Known {
    link: String,
    place: Place,
    device: BlockDevice,
    /// Whether all of it could be read: what could not is tried, and missed, on every look.
    whole: bool,
}

/// Where a device stands in sysfs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    dir: String,
    name: String,
    /// The directory's name where it is that of the disk.
    disk: Option<String>,
}

impl BlockTable {
    /// Reads all devices that have a device number.
    ///
    /// What stands on a disk, its counters and its sequence number are read on every look; the serial and the
    /// rest when the sequence number is new, and now and then. Kernels without one (before 5.15) have all read.
    ///
    /// # Errors
    /// When the devices cannot be listed.
    pub fn read(&mut self, root: &Root) -> Result<BlockDevices, Unknown> {
        let listed = root.links(DEVICES)?;
        let mut look =
            Look { root, failures: Failures::default(), full_refresh: self.looks.is_multiple_of(STATIC_EVERY) };
        self.looks = self.looks.wrapping_add(1);
        let swaps = look.swaps();
        let mut before = std::mem::take(&mut self.known);
        for (number, link) in listed {
            let Ok(dev) = number.parse::<DevId>() else {
                look.failures.note(root.malformed(&below(DEVICES, &number), "expected a device number like 259:1"));
                continue;
            };
            if let Some(known) = look.device(&number, link, before.remove(&dev)) {
                self.known.insert(dev, known);
            }
        }
        let devices = self.known.iter().map(|(dev, known)| {
            let swap = swaps.contains(&known.device.name);
            (*dev, BlockDevice { swap, ..known.device.clone() })
        });
        Ok(BlockDevices::with_incomplete(devices, look.failures.into_incomplete()))
    }
}

impl BlockTable {
    /// Where the devices of the latest read stand in sysfs.
    pub fn directories(&self) -> impl Iterator<Item = &str> {
        self.known.values().map(|known| known.place.dir.as_str())
    }
}

/// One pass over all devices.
struct Look<'a> {
    root: &'a Root,
    failures: Failures,
    full_refresh: bool,
}

impl Look<'_> {
    /// One device; `None` where it is gone or cannot be distinguished from another.
    fn device(&mut self, number: &str, link: Result<String, Unknown>, before: Option<Known>) -> Option<Known> {
        let link = self.failures.optional(link)?;
        if let Some(known) = before.filter(|known| known.link == link) {
            return self.again(known);
        }
        let Some(place) = Place::of(&link) else {
            let why = format_args!("expected a link to ../../devices/…, found one to {}", quote(&link));
            self.failures.note(self.root.malformed(&below(DEVICES, number), why));
            return None;
        };
        self.first(link, place)
    }

    fn first(&mut self, link: String, mut place: Place) -> Option<Known> {
        // A disk's directory may stand in one whose name begins its own (nvme0/nvme0n1), as a partition's does.
        if place.disk.is_some() && !self.root.exists(&below(&place.dir, "partition")) {
            place.disk = None;
        }
        let before = self.failures.count();
        let device = self.fill(&place)?;
        Some(Known { link, place, device, whole: self.failures.count() == before })
    }

    fn again(&mut self, mut known: Known) -> Option<Known> {
        let Known { place, device, whole, .. } = &mut known;
        // Only the sequence number shows that this is still the disk whose serial was read. It also shows when a
        // loop device gets or loses its file, but nothing of the kind for zram or nbd.
        let numbered = !is_often_unused(&place.name) || (is_loop(&place.name) && device.size > 0);
        let settled = *whole && numbered && place.disk.is_none() && !self.full_refresh;
        if settled && device.diskseq.is_some() && self.sequence(place) == device.diskseq {
            self.refresh_counters(place, device)?;
        } else {
            let before = self.failures.count();
            *device = self.fill(place)?;
            *whole = self.failures.count() == before;
        }
        Some(known)
    }

    /// Everything of a device; `None` where it went away under the look.
    fn fill(&mut self, place: &Place) -> Option<BlockDevice> {
        let size = match self.root.number(&below(&place.dir, "size")) {
            Ok(sectors) => sectors.saturating_mul(SECTOR),
            Err(why) => return self.unless_gone(place, why).flatten(),
        };
        let disk = place.disk.as_deref().map(plain_name);
        let mut device = BlockDevice { name: plain_name(&place.name), disk, size, ..BlockDevice::default() };
        if size == 0 && is_often_unused(&place.name) {
            return Some(device);
        }
        if device.disk.is_some() {
            device.holders = self.names(place, "holders");
            return Some(device);
        }
        // Before the serial: if another disk takes this one's place in between, the next look sees a new number.
        device.diskseq = self.sequence(place);
        device.slaves = self.names(place, "slaves");
        device.io_timeout_ms = self.number(place, "queue/io_timeout");
        if is_loop(&place.name) {
            device.loop_file = self.text(place, "loop/backing_file");
        }
        if place.name.starts_with("nvme") {
            device.volume = self.volume(place)?;
        }
        self.refresh_counters(place, &mut device)?;
        Some(device)
    }

    /// What changes from look to look.
    fn refresh_counters(&mut self, place: &Place, device: &mut BlockDevice) -> Option<()> {
        device.io = self.stat(place)?;
        device.holders = self.names(place, "holders");
        Some(())
    }

    /// `None` where the device went away.
    fn stat(&self, place: &Place) -> Option<Part<IoStat>> {
        match self.root.read_again(&below(&place.dir, "stat"), parse_stat) {
            Err(why) if why.cause == Cause::Missing && !self.root.exists(&place.dir) => None,
            read => Some(read.into()),
        }
    }

    /// A file that every device has cannot be read: `None` where the device went with it, else the list is incomplete. A directory that may not
    /// be looked into is there.
    fn unless_gone<T>(&mut self, place: &Place, why: Unknown) -> Option<Option<T>> {
        if why.cause == Cause::Missing && !self.root.exists(&place.dir) {
            return None;
        }
        self.failures.note(why);
        Some(None)
    }

    /// The EBS volume of an NVMe disk; `None` where the disk went away.
    fn volume(&mut self, place: &Place) -> Option<Option<VolumeId>> {
        let controller = self.root.folder(&below(&place.dir, "device"));
        let read = controller.and_then(|controller| ebs_volume(&controller));
        match read {
            Ok(volume) => Some(volume),
            // A volume that cannot be named must not count as absent.
            Err(why) => self.unless_gone(place, why),
        }
    }

    fn number(&mut self, place: &Place, file: &str) -> Option<u64> {
        let read = self.root.number(&below(&place.dir, file));
        self.failures.optional(read)
    }

    fn sequence(&mut self, place: &Place) -> Option<u64> {
        let read = self.root.number_again(&below(&place.dir, "diskseq"));
        self.failures.optional(read)
    }

    fn text(&mut self, place: &Place, file: &str) -> Option<String> {
        let read = self.root.text(&below(&place.dir, file));
        self.failures.optional(read).filter(|text| !text.is_empty())
    }

    fn names(&mut self, place: &Place, dir: &str) -> Vec<DeviceName> {
        let mut names = Vec::new();
        let read = self.root.each(&below(&place.dir, dir), |name, _| names.push(plain_name(name)));
        if self.failures.optional(read).is_none() {
            return Vec::new();
        }
        names.sort_unstable();
        names
    }

    /// Devices in use as swap space; a kernel without swap has no such file.
    fn swaps(&mut self) -> BTreeSet<DeviceName> {
        let swaps = self.failures.optional(self.root.read("proc/swaps", parse_swaps)).unwrap_or_default();
        swaps.iter().filter_map(|path| path.strip_prefix("/dev/")).map(str::to_owned).collect()
    }
}

/// The EBS volume behind an NVMe controller's or subsystem's directory; `None` where it is another disk.
///
/// # Errors
/// When the serial cannot be read, or is no volume id though the model is that of EBS.
pub(super) fn ebs_volume(controller: &Folder<'_>) -> Result<Option<VolumeId>, Unknown> {
    let serial = controller.text("serial")?;
    let volume = VolumeId::from_serial(&serial);
    if volume.is_none() && controller.text("model")? == EBS_MODEL {
        let why = format_args!("expected vol and 17 hexadecimal digits, found {}", quote(&serial));
        return Err(controller.malformed("serial", why));
    }
    Ok(volume)
}

/// The unit of `size`, whatever the device's own block size is.
const SECTOR: u64 = 512;

/// Kinds of which there are many that are not in use: their size is 0.
fn is_often_unused(name: &str) -> bool {
    ["loop", "ram", "zram", "nbd", "fd"]
        .iter()
        .any(|kind| name.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())))
}

fn is_loop(name: &str) -> bool {
    name.strip_prefix("loop").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// A name as it stands below `/dev`: sysfs writes an exclamation mark for a slash (`cciss!c0d0`).
pub(super) fn plain_name(name: &str) -> DeviceName {
    name.replace('!', "/")
}

impl Place {
    /// Reads the link `../../devices/…/NAME`. Whether the disk in it is one remains to be seen.
    fn of(link: &str) -> Option<Self> {
        let below = link.strip_prefix("../../").filter(|below| below.starts_with("devices/"))?;
        let (above, name) = below.rsplit_once('/').filter(|(_, name)| !name.is_empty())?;
        let parent = above.rsplit('/').next().unwrap_or_default();
        let disk =
            (!parent.is_empty() && parent.len() < name.len() && name.starts_with(parent)).then(|| parent.to_owned());
        Some(Self { dir: format!("sys/{below}"), name: name.to_owned(), disk })
    }
}

/// Reads `/sys/block/X/stat`: 11 numbers, 15 since 4.18, 17 since 5.5, more some day.
///
/// # Errors
/// What was expected.
pub fn parse_stat(bytes: &[u8]) -> Result<IoStat, String> {
    // A number that is cut off is another number.
    let whole = bytes.strip_suffix(b"\n").ok_or("ends before the end of the line, expected at least 11 numbers")?;
    let text = std::str::from_utf8(whole).map_err(|_| "expected numbers, found other bytes")?;
    let mut io = IoStat::default();
    let (mut fields, mut sectors) = (0usize, 0u64);
    for (index, word) in text.split_ascii_whitespace().enumerate() {
        let value: u64 = word.parse().map_err(|_| format!("expected a number, found {}", quote(word)))?;
        match index {
            0 => io.reads = value,
            2 | 6 => sectors = sectors.saturating_add(value),
            4 => io.writes = value,
            8 => io.in_flight = value,
            11 => io.discards = value,
            15 => io.flushes = value,
            _ => {}
        }
        fields = index.saturating_add(1);
    }
    if fields < 11 {
        return Err(format!("expected at least 11 numbers, found {fields}"));
    }
    io.bytes = Some(sectors.saturating_mul(SECTOR));
    Ok(io)
}

/// Reads `/proc/swaps`: the paths in use as swap space, escapes decoded.
///
/// # Errors
/// What was expected.
pub fn parse_swaps(bytes: &[u8]) -> Result<Vec<String>, String> {
    let whole = bytes.strip_suffix(b"\n").ok_or("ends before the end of a line, expected a table")?;
    let mut lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    if !lines.next().is_some_and(|header| header.starts_with(b"Filename")) {
        return Err("expected a header that begins with Filename".into());
    }
    let path = |line: &[u8]| {
        let word = line.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
        if word.is_empty() { Err("expected a path".into()) } else { Ok(decode(word).into_owned()) }
    };
    lines.map(path).collect()
}

super::read_from_host! { BlockDevices: |host, _| host.block.read(&host.root); }

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;
    use crate::collect::host::mountinfo::MountTable;

    const STAT: &str = "    1000        0     8000      120      500       30     4000       55        3       20       90        7        0        0        0       11        4\n";
    const PCI: &str = "../../devices/pci0000:00/0000:00:1f.0/nvme/nvme1";

    struct Machine(tempfile::TempDir, Root);

    impl Machine {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join(DEVICES)).unwrap();
            let root = Root::open(dir.path()).unwrap();
            Self(dir, root)
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn device(&self, number: &str, link: &str, files: &[(&str, &str)]) {
            let dir = link.replacen("../..", "sys", 1);
            for (file, text) in [("size", "2097152\n")].iter().chain(files) {
                self.write(&format!("{dir}/{file}"), text);
            }
            let number = self.0.path().join(DEVICES).join(number);
            let _ = fs::remove_file(&number);
            symlink(link, number).unwrap();
        }

        fn disk(&self, number: &str, link: &str, files: &[(&str, &str)]) {
            self.device(number, link, &[&[("stat", STAT), ("diskseq", "21\n")], files].concat());
        }

        fn ebs(&self, serial: &str, diskseq: &str) {
            let device = [("device/serial", serial), ("device/model", EBS_MODEL), ("diskseq", diskseq)];
            self.disk("259:1", &format!("{PCI}/nvme1n1"), &device);
        }

        fn read(&self, table: &mut BlockTable) -> BlockDevices {
            table.read(&self.1).unwrap()
        }

        fn first(&self) -> BlockDevices {
            self.read(&mut BlockTable::default())
        }
    }

    fn dev(text: &str) -> DevId {
        text.parse().unwrap()
    }

    fn volume(devices: &BlockDevices) -> Option<&str> {
        devices.get(&dev("259:1")).unwrap().volume.as_ref().map(VolumeId::as_str)
    }

    #[test]
    fn an_ebs_disk_is_known_by_its_serial() {
        let machine = Machine::new();
        machine.ebs("vol0123456789abcdef0\n", "21\n");
        machine.write("sys/devices/pci0000:00/0000:00:1f.0/nvme/nvme1/nvme1n1/queue/io_timeout", "4294967295\n");
        machine.write("sys/devices/pci0000:00/0000:00:1f.0/nvme/nvme1/nvme1n1/holders/dm-0", "");
        machine.device("259:2", &format!("{PCI}/nvme1n1/nvme1n1p1"), &[("partition", "1\n"), ("stat", STAT)]);
        let devices = machine.first();
        assert_eq!(devices.incomplete(), None);
        let io = IoStat { reads: 1000, writes: 500, discards: 7, flushes: 11, in_flight: 3, bytes: Some(12_000 * 512) };
        let disk = BlockDevice {
            name: "nvme1n1".into(),
            diskseq: Some(21),
            size: 1 << 30,
            io: Part::Known(io),
            volume: VolumeId::from_serial("vol0123456789abcdef0"),
            holders: vec!["dm-0".into()],
            io_timeout_ms: Some(4_294_967_295),
            ..BlockDevice::default()
        };
        assert_eq!(devices.get(&dev("259:1")), Some(&disk));
        let part = devices.get(&dev("259:2")).unwrap();
        assert_eq!(
            (&*part.name, part.disk.as_deref(), part.size, &part.io),
            ("nvme1n1p1", Some("nvme1n1"), 1 << 30, &Part::Absent)
        );
    }

    #[test]
    fn a_disk_wherever_it_stands_is_no_partition() {
        let machine = Machine::new();
        let fabrics = "../../devices/virtual/nvme-fabrics/ctl/nvme0/nvme0n1";
        let head = "../../devices/virtual/nvme-subsystem/nvme-subsys2/nvme2n1";
        let serial = [("device/serial", "AWSBA029A3CE993A5ED5"), ("device/model", "Amazon EC2 NVMe Instance Storage")];
        machine.disk("259:0", fabrics, &serial);
        machine.disk("259:5", head, &serial);
        machine.disk("104:0", "../../devices/pci0000:00/cciss0/block/cciss!c0d0", &[]);
        machine.device("104:1", "../../devices/pci0000:00/cciss0/block/cciss!c0d0/cciss!c0d0p1", &[("partition", "1")]);
        let devices = machine.first();
        assert_eq!(devices.incomplete(), None);
        for (number, name, disk) in [
            ("259:0", "nvme0n1", None),
            ("259:5", "nvme2n1", None),
            ("104:0", "cciss/c0d0", None),
            ("104:1", "cciss/c0d0p1", Some("cciss/c0d0")),
        ] {
            let device = devices.get(&dev(number)).unwrap();
            assert_eq!((&*device.name, device.disk.as_deref(), &device.volume), (name, disk, &None));
        }
    }

    #[test]
    fn another_disk_in_the_same_place_is_seen_at_once() {
        let machine = Machine::new();
        let mut table = BlockTable::default();
        machine.ebs("vol0123456789abcdef0", "21\n");
        assert_eq!(volume(&machine.read(&mut table)), Some("vol-0123456789abcdef0"));
        machine.ebs("vol0123456789abcdef1", "21\n");
        assert_eq!(volume(&machine.read(&mut table)), Some("vol-0123456789abcdef0"), "one sequence number, one disk");
        machine.ebs("vol0123456789abcdef2", "22\n");
        assert_eq!(volume(&machine.read(&mut table)), Some("vol-0123456789abcdef2"));
        let seq = machine.0.path().join("sys/devices/pci0000:00/0000:00:1f.0/nvme/nvme1/nvme1n1/diskseq");
        fs::remove_file(&seq).unwrap();
        machine.read(&mut table);
        for serial in ["vol0123456789abcdef3", "vol0123456789abcdef4"] {
            machine.write("sys/devices/pci0000:00/0000:00:1f.0/nvme/nvme1/nvme1n1/device/serial", serial);
            let id = VolumeId::from_serial(serial).unwrap();
            assert_eq!(
                volume(&machine.read(&mut table)),
                Some(id.as_str()),
                "without the number nothing is remembered"
            );
        }
    }

    #[test]
    fn what_changes_rarely_is_read_again_within_a_minute() {
        let machine = Machine::new();
        let mut table = BlockTable::default();
        machine.ebs("vol0123456789abcdef0", "21\n");
        machine.read(&mut table);
        machine.write("sys/devices/pci0000:00/0000:00:1f.0/nvme/nvme1/nvme1n1/size", "4194304\n");
        let sizes: Vec<_> = (0..6).map(|_| machine.read(&mut table).get(&dev("259:1")).unwrap().size >> 30).collect();
        assert_eq!(sizes, [1, 1, 1, 1, 1, 2]);
    }

    #[test]
    fn a_disk_that_goes_is_gone_and_one_that_cannot_be_named_is_a_gap() {
        let machine = Machine::new();
        let mut table = BlockTable::default();
        machine.ebs("vol0123456789abcdef0", "21\n");
        machine.read(&mut table);
        let dir = machine.0.path().join("sys/devices/pci0000:00/0000:00:1f.0/nvme/nvme1/nvme1n1");
        fs::remove_dir_all(&dir).unwrap();
        let devices = machine.read(&mut table);
        assert_eq!((devices.len(), devices.incomplete()), (0, None), "listed, but gone before it was read");
        for broken in ["vol", "", "vol0123456789abcdeg0"] {
            machine.ebs(broken, "21\n");
            let mut table = BlockTable::default();
            for _ in 0..3 {
                let devices = machine.read(&mut table);
                assert!(devices.incomplete().unwrap().why.contains("device/serial"), "{broken}");
                assert_eq!(volume(&devices), None);
            }
        }
        machine.ebs("vol0123456789abcdef0", "21\n");
        for file in ["device/serial", "size"] {
            machine.ebs("vol0123456789abcdef0", "21\n");
            fs::remove_file(dir.join(file)).unwrap();
            assert!(machine.first().incomplete().unwrap().why.contains(file), "{file}");
        }
        // Counters that cannot be read are not known of this disk alone.
        machine.ebs("vol0123456789abcdef0", "21\n");
        fs::remove_file(dir.join("stat")).unwrap();
        let devices = machine.first();
        let io = &devices.values().next().unwrap().io;
        assert!(io.unread().unwrap().why.contains("stat") && devices.incomplete().is_none(), "{devices:?}");
    }

    #[test]
    fn broken_files_leave_gaps_that_name_them() {
        let machine = Machine::new();
        machine.disk("7:0", "../../devices/virtual/block/loop0", &[("stat", "1 2 3\n")]);
        let devices = machine.first();
        let io = &devices.get(&dev("7:0")).unwrap().io;
        assert!(io.unread().unwrap().why.contains("loop0/stat: expected at least 11 numbers"), "{io:?}");
        assert_eq!(devices.incomplete(), None);
        for (number, link) in [("8:1", "../../../etc/passwd"), ("8:x", "../../devices/virtual/block/loop1")] {
            let machine = Machine::new();
            machine.disk("7:0", "../../devices/virtual/block/loop0", &[]);
            symlink(link, machine.0.path().join(DEVICES).join(number)).unwrap();
            let devices = machine.first();
            assert!(
                devices.len() == 1 && devices.incomplete().unwrap().why.contains(number),
                "{:?}",
                devices.incomplete()
            );
        }
        let none = tempfile::tempdir().unwrap();
        let unknown = BlockTable::default().read(&Root::open(none.path()).unwrap()).unwrap_err();
        assert_eq!(unknown.cause, Cause::Missing);
    }

    #[test]
    fn a_loop_device_has_its_file_and_an_unused_one_its_number() {
        let machine = Machine::new();
        let mut table = BlockTable::default();
        let link = "../../devices/virtual/block/loop0";
        machine.disk("7:0", link, &[("size", "0\n")]);
        let unused = BlockDevice { name: "loop0".into(), ..BlockDevice::default() };
        assert_eq!(machine.read(&mut table).get(&dev("7:0")), Some(&unused));
        machine.disk("7:0", link, &[("size", "2048\n"), ("loop/backing_file", "/var/lib/kubelet/x\n")]);
        for _ in 0..3 {
            let devices = machine.read(&mut table);
            let used = devices.get(&dev("7:0")).unwrap();
            assert_eq!((used.size, used.loop_file.as_deref()), (1 << 20, Some("/var/lib/kubelet/x")));
            assert_eq!(used.diskseq, Some(21));
        }
    }

    #[test]
    fn swap_is_marked_on_its_device() {
        let machine = Machine::new();
        machine.disk("253:0", "../../devices/virtual/block/dm-0", &[]);
        machine.disk("253:1", "../../devices/virtual/block/dm-1", &[]);
        machine.write("proc/swaps", include_str!("../../../tests/fuzz/seeds/swaps/two"));
        let devices = machine.first();
        let swap = |number| devices.get(&dev(number)).unwrap().swap;
        assert_eq!((swap("253:0"), swap("253:1"), devices.incomplete()), (true, false, None));
        machine.write("proc/swaps", "");
        assert!(machine.first().incomplete().unwrap().why.contains("proc/swaps: ends before the end"));
    }

    #[test]
    fn swaps_are_paths_with_escapes_undone() {
        let two = parse_swaps(include_bytes!("../../../tests/fuzz/seeds/swaps/two")).unwrap();
        assert_eq!(two, ["/dev/dm-0", "/swap file"]);
        assert_eq!(parse_swaps(b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"), Ok(vec![]));
        assert!(parse_swaps(b"Filename Type\n partition\n").is_err());
        assert!(parse_swaps(b"").is_err());
        assert!(parse_swaps(b"Filename Type\n/dev/dm-").unwrap_err().contains("ends before the end"));
    }

    #[test]
    fn counters_of_every_kernel_are_read() {
        let virtio = parse_stat(include_bytes!("../../../tests/fuzz/seeds/block_stat/virtio-6.18")).unwrap();
        let expected = IoStat {
            reads: 39431,
            writes: 9456,
            discards: 4542,
            flushes: 270,
            in_flight: 0,
            bytes: Some(512 * (7_796_386 + 12_644_696)),
        };
        assert_eq!(virtio, expected);
        let old = parse_stat(b"1 2 3 4 5 6 7 8 9 10 11\n").unwrap();
        assert_eq!(old, IoStat { reads: 1, writes: 5, in_flight: 9, bytes: Some(10 * 512), ..IoStat::default() });
        assert_eq!(parse_stat(b"1 2 3 4 5 6 7 8 9 10 11 12 13 14 15\n").unwrap().discards, 12);
        for bad in
            ["", "1 2 3 4 5 6 7 8 9 10", "1 2 3 4 5 6 7 8 -9 10 11", "a b", "1 2 3 4 5 6 7 8 9 10 18446744073709551616"]
        {
            assert!(parse_stat(format!("{bad}\n").as_bytes()).is_err(), "{bad}");
        }
        assert!(parse_stat(b"1 2 3 4 5 6 7 8 9 10 11").is_err(), "the last may have had more digits");
        assert!(parse_stat(&[0xff; 40]).is_err());
    }

    #[test]
    fn the_device_of_a_mount_is_among_the_devices() {
        let machine = Machine::new();
        machine.ebs("vol0123456789abcdef0\n", "21\n");
        machine.write("proc/1/mountinfo", "29 1 259:1 / / rw - ext4 /dev/nvme1n1 rw\n");
        let mut table = BlockTable::default();
        let (first, again) = (machine.read(&mut table), machine.read(&mut table));
        assert_eq!((first.incomplete(), first.len()), (again.incomplete(), again.len()));
        let mounts = MountTable::default()
            .read(&machine.1, &crate::collect::kubelet::place::KubeletPaths::plain("/var/lib/kubelet"))
            .unwrap();
        let system = mounts.values().rfind(|mount| &*mount.point == "/").unwrap();
        let device = again.get(&system.dev).unwrap();
        assert!(device.size > 0 && !device.io.is_absent(), "{device:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_upset_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (parse_stat(&bytes), parse_swaps(&bytes));
            let swaps = parse_swaps(&[b"Filename\n", &*bytes].concat());
            prop_assert!(swaps.is_err() || swaps.unwrap().iter().all(|path| !path.is_empty()));
            let _ = Place::of(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn counters_come_back(fields in prop::collection::vec(any::<u64>(), 11..20)) {
            let text: Vec<_> = fields.iter().map(|n| format!("{n:8}")).collect();
            let io = parse_stat((text.join(" ") + "\n").as_bytes()).unwrap();
            prop_assert_eq!((io.reads, io.writes, io.in_flight), (fields[0], fields[4], fields[8]));
            prop_assert_eq!(io.flushes, fields.get(15).copied().unwrap_or(0));
            prop_assert!(io.completed() >= io.reads);
        }

        #[test]
        fn a_disks_name_begins_its_partitions_name(link in "\\.\\./\\.\\./devices(/[a-z0-9]{0,4}){0,4}") {
            if let Some(place) = Place::of(&link) {
                prop_assert!(place.dir.starts_with("sys/devices/") && !place.name.is_empty());
                prop_assert!(place.disk.is_none_or(|disk| place.name.starts_with(&disk) && disk != place.name));
            }
        }
    }
}
