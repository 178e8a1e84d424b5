//! The finding of a device that those of its mounts and of its volume follow from: it is gone, or it completes nothing.

use std::cell::OnceCell;

use crate::facts::{BlockDevice, MountEntry, Mounts, NvmeControllers, Tri};
use crate::finding::FindingKey;
use crate::view::input::{Compound, Input, Known, Maybe, MaybePair};
use crate::view::sources;

use super::dead_mount::DeadDevices;
use super::{device_of, stalled_io};

/// What devices do to what stands on them.
pub(super) struct Causes<'v> {
    mounts: Known<'v, Mounts>,
    block: <MaybePair<sources::BlockDevices> as Input>::Of<'v>,
    nvme: Known<'v, NvmeControllers>,
    dead: OnceCell<Option<DeadDevices<'v>>>,
}

impl Compound for Causes<'_> {
    type Of<'v> = Causes<'v>;
    type Read = (Maybe<sources::Mounts>, MaybePair<sources::BlockDevices>, Maybe<sources::NvmeControllers>);

    fn of<'v>((mounts, block, nvme): <Self::Read as Input>::Of<'v>) -> Causes<'v> {
        Causes { mounts, block, nvme, dead: OnceCell::new() }
    }
}

impl<'v> Causes<'v> {
    /// Of a healthy node nothing is asked of it.
    fn dead(&self) -> Option<&DeadDevices<'v>> {
        let find = || {
            let mounts = self.mounts.seen().ok()?;
            Some(DeadDevices::of(&mounts, self.block.seen().map(|block| block.now), self.nvme))
        };
        self.dead.get_or_init(find).as_ref()
    }

    /// The finding that one about a mount follows from.
    pub(super) fn of_mount(&self, mount: &MountEntry) -> Tri<FindingKey, ()> {
        let dead = self.dead().map_or(Tri::No(()), |dead| dead.finding_of_mount(mount));
        dead.or_else(|| match self.block.seen() {
            Err(why) => Tri::Unknown(why.clone()),
            Ok(block) => device_of(block.now.value, mount).map_or(Tri::No(()), |device| self.of_device(device)),
        })
    }

    /// The finding that a volume is gone of which only the PersistentVolume is known.
    pub(super) fn of_gone(&self, pv: &str) -> Tri<FindingKey, ()> {
        self.dead().map_or(Tri::No(()), |dead| dead.finding_of_pv(pv))
    }

    /// The finding that one about a device follows from.
    pub(super) fn of_device(&self, device: &BlockDevice) -> Tri<FindingKey, ()> {
        match self.block.seen() {
            Err(why) => Tri::Unknown(why.clone()),
            Ok(block) => stalled_io::finding_of(block, device),
        }
    }
}
