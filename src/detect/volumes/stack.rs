//! What a device stands on.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{BlockDevice, BlockDevices, DevId};

/// Block devices by name.
pub(super) type Names<'v> = BTreeMap<&'v str, &'v BlockDevice>;

/// The devices of a list by name.
pub(super) fn names(block: &BlockDevices) -> Names<'_> {
    block.values().map(|device| (device.name.as_str(), device)).collect()
}

/// A device and all that stand on it: partitions, and any depth of device mapper and md.
pub(super) fn on_top_of(block: &BlockDevices, name: &str) -> BTreeSet<DevId> {
    let (mut names, mut found) = (BTreeSet::from([name]), BTreeSet::new());
    loop {
        let before = found.len();
        for (dev, device) in block.iter().filter(|(_, device)| device.name != name) {
            let mut below = device.disk.iter().chain(&device.slaves);
            if !found.contains(dev) && below.any(|below| names.contains(below.as_str())) {
                found.insert(*dev);
                names.insert(&device.name);
            }
        }
        if found.len() == before {
            break;
        }
    }
    found.extend(block.iter().filter(|(_, device)| device.name == name).map(|(dev, _)| *dev));
    found
}

/// The disks that a device stands on.
#[derive(Default)]
pub(super) struct Below<'v> {
    /// Those that this machine has.
    pub here: Vec<&'v BlockDevice>,
    /// Names of devices that it has not.
    pub gone: Vec<&'v str>,
}

impl<'v> Below<'v> {
    /// Through partitions and any depth of device mapper and md. The kernel keeps a link to a device that went away below it.
    pub fn of(names: &Names<'v>, device: &'v BlockDevice) -> Self {
        let (mut below, mut seen, mut open) = (Self::default(), BTreeSet::new(), vec![device.name.as_str()]);
        while let Some(name) = open.pop() {
            if !seen.insert(name) {
                continue;
            }
            match names.get(name) {
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
