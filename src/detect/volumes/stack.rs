//! What a device stands on.

use std::collections::BTreeSet;

use crate::facts::{BlockDevice, BlockDevices, DevId};

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
                Some(device) => open.extend(device.slaves.iter().map(String::as_str)),
            }
        }
        below.gone.sort_unstable();
        below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
