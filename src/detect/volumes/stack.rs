//! What a device stands on.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{BlockDevice, BlockDevices, DevId, Tri};

/// A device and all that stand on it: partitions, and any depth of device mapper and md.
pub(super) fn on_top_of(block: &BlockDevices, name: &str) -> BTreeSet<DevId> {
    let mut found: BTreeSet<DevId> = block.named(name).map(|(dev, _)| dev).into_iter().collect();
    let mut open = vec![name];
    while let Some(name) = open.pop() {
        let new = block.standing_on(name).filter(|(dev, _)| found.insert(*dev));
        open.extend(new.map(|(_, device)| device.name.as_str()));
    }
    found
}

/// The disks that a device stands on.
#[derive(Default)]
pub(in crate::detect) struct Below<'v> {
    /// Those that this machine has.
    pub here: Vec<&'v BlockDevice>,
    /// Names of devices that it has not.
    pub gone: Vec<&'v str>,
    /// Arrays of md in between that serve nothing without any one of their disks.
    pub needs_all: Vec<&'v BlockDevice>,
}

impl<'v> Below<'v> {
    /// Through partitions and any depth of device mapper and md. The kernel keeps a link to a device that went away below it.
    pub fn of(block: &'v BlockDevices, device: &'v BlockDevice) -> Self {
        let (mut below, mut seen, mut open) = (Self::default(), BTreeSet::new(), vec![device.name.as_str()]);
        while let Some(name) = open.pop() {
            if !seen.insert(name) {
                continue;
            }
            match block.named(name).map(|(_, device)| device) {
                None => below.gone.push(name),
                Some(BlockDevice { disk: Some(disk), .. }) => open.push(disk),
                Some(device) if device.slaves.is_empty() => below.here.push(device),
                Some(device) => {
                    if device.needs_all() == Ok(true) {
                        below.needs_all.push(device);
                    }
                    open.extend(device.slaves.iter().map(String::as_str));
                }
            }
        }
        below.gone.sort_unstable();
        below
    }
}

/// Whether nothing of a device is served, where these devices below it are dead: what is built of several parts serves while one is left, but
/// for arrays of md that need all of them.
pub(super) fn is_lost(block: &BlockDevices, name: &str, dead: &[&str]) -> Tri<(), ()> {
    Lost { block, dead, known: BTreeMap::new() }.at(name)
}

struct Lost<'v> {
    block: &'v BlockDevices,
    dead: &'v [&'v str],
    known: BTreeMap<&'v str, Tri<(), ()>>,
}

impl<'v> Lost<'v> {
    fn at(&mut self, name: &str) -> Tri<(), ()> {
        if self.dead.contains(&name) {
            return Tri::Yes(());
        }
        let Some((_, device)) = self.block.named(name) else { return Tri::No(()) };
        if let Some(known) = self.known.get(device.name.as_str()) {
            return known.clone();
        }
        // No device stands on itself.
        self.known.insert(&device.name, Tri::No(()));
        let lost = match &device.disk {
            Some(disk) => self.at(disk),
            None => self.of_parts(device),
        };
        self.known.insert(&device.name, lost.clone());
        lost
    }

    fn of_parts(&mut self, device: &'v BlockDevice) -> Tri<(), ()> {
        let parts: Vec<_> = device.slaves.iter().map(|slave| self.at(slave)).collect();
        let Some(first) = parts.first().cloned() else { return Tri::No(()) };
        let all = parts.iter().cloned().fold(first, |all, part| all.and(|| part).map(|_| ()));
        let any = parts.into_iter().fold(Tri::No(()), |any, part| any.or_else(|| part));
        let needs_all = || match device.needs_all() {
            Ok(true) => Tri::Yes(()),
            Ok(false) => Tri::No(()),
            Err(why) => Tri::Unknown(why.clone()),
        };
        all.or_else(|| any.and(needs_all).map(|_| ()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Cause, Part, Unknown};

    fn device(name: &str, disk: Option<&str>, slaves: &[&str]) -> BlockDevice {
        let slaves = slaves.iter().map(|slave| (*slave).to_owned()).collect();
        BlockDevice { name: name.to_owned(), disk: disk.map(str::to_owned), slaves, ..BlockDevice::default() }
    }

    fn dev(minor: u32) -> DevId {
        DevId { major: 259, minor }
    }

    /// dm-crypt on LVM on a RAID of a partition and a disk.
    fn tower(gone: &[u32]) -> BlockDevices {
        let all = [
            (dev(1), device("nvme1n1", None, &[])),
            (dev(2), device("nvme1n1p1", Some("nvme1n1"), &[])),
            (dev(3), device("nvme2n1", None, &[])),
            (dev(4), device("md7", None, &["nvme1n1p1", "nvme2n1"])),
            (dev(5), device("dm-0", None, &["md7"])),
            (dev(6), device("dm-1", None, &["dm-0"])),
            (dev(7), device("nvme3n1", None, &[])),
        ];
        BlockDevices::whole(all.into_iter().filter(|(dev, _)| !gone.contains(&dev.minor)))
    }

    #[test]
    fn what_needs_all_of_its_parts_is_lost_with_one() {
        let of_level = |level: Part<String>| {
            let all = [
                (dev(1), device("a", None, &[])),
                (dev(2), device("b", None, &[])),
                (dev(3), device("c", None, &[])),
                (dev(4), BlockDevice { level, ..device("md0", None, &["a", "b"]) }),
                (dev(5), device("md0p1", Some("md0"), &[])),
                (dev(6), device("dm-0", None, &["md0p1"])),
                (dev(7), device("dm-1", None, &["md0", "c"])),
                (dev(8), device("dm-2", None, &["dm-3"])),
                (dev(9), device("dm-3", None, &["dm-2"])),
            ];
            BlockDevices::whole(all)
        };
        let unread = Unknown::new(Cause::Denied, "no");
        let known = |level: &str| of_level(Part::Known(level.to_owned()));
        let (raid0, raid1) = (known("raid0"), known("raid1"));
        let unknown = of_level(Part::Unknown(Box::new(unread.clone())));
        for (block, name, dead, expected) in [
            (&raid0, "md0", &["a"][..], Tri::Yes(())),
            (&known("linear"), "md0", &["b"], Tri::Yes(())),
            (&raid0, "dm-0", &["a"], Tri::Yes(())),
            (&raid0, "dm-1", &["a"], Tri::No(())),
            (&raid0, "dm-1", &["a", "c"], Tri::Yes(())),
            (&raid0, "md0", &["c"], Tri::No(())),
            (&raid0, "md0", &[], Tri::No(())),
            (&raid1, "md0", &["a"], Tri::No(())),
            (&raid1, "md0", &["a", "b"], Tri::Yes(())),
            (&of_level(Part::Absent), "md0", &["a"], Tri::No(())),
            (&unknown, "md0", &["a"], Tri::Unknown(unread.clone())),
            (&unknown, "md0", &["a", "b"], Tri::Yes(())),
            (&unknown, "md0", &["c"], Tri::No(())),
            (&unknown, "dm-0", &["a"], Tri::Unknown(unread.clone())),
            (&raid0, "dm-2", &["a"], Tri::No(())),
            (&raid0, "x", &["a"], Tri::No(())),
        ] {
            assert_eq!(is_lost(block, name, dead), expected, "{name} without {dead:?}");
        }
        let below = |block: &BlockDevices| {
            let below = Below::of(block, block.named("dm-0").unwrap().1);
            below.needs_all.iter().map(|device| device.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!((below(&raid0), below(&raid1)), (vec!["md0".to_owned()], vec![]));
    }

    #[test]
    fn what_stands_on_a_disk_is_found_at_any_depth() {
        let found = |name: &str| on_top_of(&tower(&[]), name).into_iter().map(|dev| dev.minor).collect::<Vec<_>>();
        assert_eq!(found("nvme1n1"), [1, 2, 4, 5, 6]);
        assert_eq!(found("nvme2n1"), [3, 4, 5, 6]);
        assert_eq!((found("dm-1"), found("nvme3n1"), found("nvme9n1")), (vec![6], vec![7], vec![]));
    }

    #[test]
    fn the_disks_below_are_found_at_any_depth_and_so_is_what_is_gone() {
        let below = |gone: &[u32]| {
            let block = tower(gone);
            let below = Below::of(&block, block.get(&dev(6)).unwrap());
            let mut here: Vec<_> = below.here.iter().map(|disk| disk.name.clone()).collect();
            here.sort_unstable();
            (here, below.gone.into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        let names = |of: &[&str]| of.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(below(&[]), (names(&["nvme1n1", "nvme2n1"]), names(&[])));
        assert_eq!(below(&[3]), (names(&["nvme1n1"]), names(&["nvme2n1"])));
        assert_eq!(below(&[1, 2, 3]), (names(&[]), names(&["nvme1n1p1", "nvme2n1"])));
        assert_eq!(below(&[4]), (names(&[]), names(&["md7"])));
    }
}
