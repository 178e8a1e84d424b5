//! What a device stands on.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{BlockDevice, BlockDevices};

/// Block devices by name.
pub(super) type Names<'v> = BTreeMap<&'v str, &'v BlockDevice>;

/// The devices of a list by name.
pub(super) fn names(block: &BlockDevices) -> Names<'_> {
    block.values().map(|device| (device.name.as_str(), device)).collect()
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
