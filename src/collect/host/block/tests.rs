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
        assert_eq!(volume(&machine.read(&mut table)), Some(id.as_str()), "without the number nothing is remembered");
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
        assert!(devices.len() == 1 && devices.incomplete().unwrap().why.contains(number), "{:?}", devices.incomplete());
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
fn an_array_of_md_has_its_level() {
    let machine = Machine::new();
    let link = "../../devices/virtual/block/md0";
    machine.disk("9:0", link, &[("md/level", "raid0\n")]);
    let level = || machine.first().get(&dev("9:0")).unwrap().level.clone();
    assert_eq!(level(), Part::Known("raid0".to_owned()));
    machine.write("sys/devices/virtual/block/md0/md/level", "\n");
    assert_eq!(level(), Part::Absent);
    fs::remove_file(machine.0.path().join("sys/devices/virtual/block/md0/md/level")).unwrap();
    assert!(level().unread().unwrap().why.contains("md/level"), "each has the file");
    assert_eq!(machine.first().incomplete(), None);
}

#[test]
fn swap_is_marked_on_its_device() {
    let machine = Machine::new();
    machine.disk("253:0", "../../devices/virtual/block/dm-0", &[]);
    machine.disk("253:1", "../../devices/virtual/block/dm-1", &[]);
    machine.write("proc/swaps", include_str!("../../../../tests/fuzz/seeds/swaps/two"));
    let devices = machine.first();
    let swap = |number| devices.get(&dev(number)).unwrap().swap;
    assert_eq!((swap("253:0"), swap("253:1"), devices.incomplete()), (true, false, None));
    machine.write("proc/swaps", "");
    assert!(machine.first().incomplete().unwrap().why.contains("proc/swaps: ends before the end"));
}

#[test]
fn swaps_are_paths_with_escapes_undone() {
    let two = parse_swaps(include_bytes!("../../../../tests/fuzz/seeds/swaps/two")).unwrap();
    assert_eq!(two, ["/dev/dm-0", "/swap file"]);
    assert_eq!(parse_swaps(b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"), Ok(vec![]));
    assert!(parse_swaps(b"Filename Type\n partition\n").is_err());
    assert!(parse_swaps(b"").is_err());
    assert!(parse_swaps(b"Filename Type\n/dev/dm-").unwrap_err().contains("ends before the end"));
}

#[test]
fn counters_of_every_kernel_are_read() {
    let virtio = parse_stat(include_bytes!("../../../../tests/fuzz/seeds/block_stat/virtio-6.18")).unwrap();
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
