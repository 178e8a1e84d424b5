//! All EBS disks of the instance with the same trouble at once: that is no volume's fault.

use crate::detect::Raised;
use crate::facts::{BlockDevice, BlockDevices, DevId};
use crate::finding::{Above, Kind, Object, ObjectType};

/// The EBS disks themselves, without what stands on them.
pub(super) fn disks(block: &BlockDevices) -> impl Iterator<Item = (&DevId, &BlockDevice)> {
    block.iter().filter(|(_, device)| device.volume.is_some() && device.disk.is_none())
}

/// The first of the disks, and their number.
#[derive(Clone, Copy)]
pub(super) struct AllOfEbs<'v> {
    first: &'v str,
    count: usize,
}

impl<'v> AllOfEbs<'v> {
    /// Of disks that have the trouble, where there are several.
    pub(super) fn of(names: &[&'v str]) -> Option<Self> {
        names.first().filter(|_| names.len() > 1).map(|first| Self { first, count: names.len() })
    }

    /// The finding of the first disk says so, and those of the others are shown under it. `which` says of which volumes that is so.
    pub(super) fn note(self, raised: &mut Raised, kind: Kind, device: &BlockDevice, which: &str) {
        let Self { first, count } = self;
        if device.volume.is_none() {
            return;
        }
        if first == device.name.as_str() {
            raised.finding.message.push_str(&format!(
                "; so do all {count} EBS volumes here{which}: EBS, or this instance's way to it, is at fault, and not a volume"
            ));
        } else {
            raised.follows.push(Above::of(kind, Object::new(ObjectType::Device, first)));
        }
    }
}
