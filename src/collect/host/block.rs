//! Block devices and partitions, from sysfs alone: no device node is ever opened.

mod files;

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{BlockDevice, BlockDevices, Cause, DevId, DeviceName, IoStat, Mapped, Part, Unknown, VolumeId};

use super::failures::Failures;
use super::root::{Folder, Root, below, quote};
use files::SECTOR;
pub use files::{parse_stat, parse_swaps};

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
        if place.name.starts_with("dm-") {
            let uuid = self.text(place, "dm/uuid").unwrap_or_default();
            device.mapped = self.text(place, "dm/name").map(|name| Mapped { name, uuid });
        }
        if place.name.starts_with("md") {
            device.level = self.level(place);
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

    /// The level of an array of md. One that does not run has none.
    fn level(&self, place: &Place) -> Part<String> {
        let level = self.root.text(&below(&place.dir, "md/level"));
        level.map(|level| (!level.is_empty()).then_some(level)).into()
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

super::read_from_host! { BlockDevices: |host, _| host.block.read(&host.root); }

#[cfg(test)]
mod tests;
