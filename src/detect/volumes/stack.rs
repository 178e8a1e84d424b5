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
pub(super) struct Below<'v> {
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
