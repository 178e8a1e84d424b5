//! The finding of a device that those of its mounts and of its volume follow from: it is gone, or it completes nothing.

use std::cell::OnceCell;

use crate::facts::{BlockDevice, MountEntry, Mounts, NvmeControllers, Tri};
use crate::finding::FindingKey;
use crate::view::input::{Compound, Input, Known, Maybe, MaybePair};
use crate::view::sources;

use super::dead_mount::{DeadDevices, nearest_above};
use super::{device_of, stalled_io};

/// What devices do to what stands on them.
pub(in crate::detect) struct Causes<'v> {
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

    /// The finding of the device that a directory of the node is on, where that is gone: of the mount that is nearest above it.
    pub(in crate::detect) fn gone_below(&self, directory: &str) -> Tri<FindingKey, ()> {
        let mounts = match self.mounts.seen() {
            Ok(mounts) => mounts.value,
            Err(why) => return Tri::Unknown(why.clone()),
        };
        let mount = nearest_above(mounts, directory);
        mount.zip(self.dead()).map_or(Tri::No(()), |(mount, dead)| dead.finding_of_mount(mount))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::{
        BlockDevices, BootId, Cause, DevId, IoStat, NodeTime, Observation, Part, Reading, Unknown, VolumePath,
    };
    use crate::finding::{Kind, Object, ObjectType};
    use crate::view::View;

    const MOUNTED: DevId = DevId { major: 259, minor: 2 };
    const MAPPED: DevId = DevId { major: 253, minor: 0 };
    const RAW: &str =
        "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/pv-b/dev/74dcc96c-be53-45c4-a46f-3809d56e9a65";

    fn at(up: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH }
    }

    fn mount(dev: DevId, source: &str, point: &str) -> MountEntry {
        MountEntry {
            parent: 1,
            dev,
            root: "/".into(),
            point: point.into(),
            options: "rw".into(),
            fstype: "ext4".into(),
            source: source.into(),
            super_options: "rw".into(),
            deleted: false,
            volume: VolumePath::parse("/var/lib/kubelet", point),
            left_out: 0,
        }
    }

    fn filesystem() -> MountEntry {
        mount(
            MOUNTED,
            "/dev/sdb",
            "/var/lib/kubelet/pods/74dcc96c-be53-45c4-a46f-3809d56e9a65/volumes/kubernetes.io~csi/pv-a/mount",
        )
    }

    fn on_lvm() -> MountEntry {
        mount(MAPPED, "/dev/mapper/fast-a", "/mnt/fast")
    }

    fn raw() -> MountEntry {
        let bind = mount(DevId { major: 0, minor: 5 }, "devtmpfs", RAW);
        MountEntry { root: "/sdc".into(), fstype: "devtmpfs".into(), ..bind }
    }

    fn disk(name: &str, in_flight: u64) -> BlockDevice {
        let io = IoStat { reads: 7, in_flight, ..IoStat::default() };
        BlockDevice { name: name.to_owned(), size: 8, diskseq: Some(1), io: Part::Known(io), ..BlockDevice::default() }
    }

    fn mapped() -> BlockDevice {
        BlockDevice { slaves: vec!["sdb".to_owned()], ..disk("dm-0", 1) }
    }

    /// What is seen in two samples: the requests that wait at sdb, or that there is no such device.
    fn view(samples: &[Result<Option<u64>, Unknown>]) -> View {
        let mut view = View::new(at(0));
        for (number, sample) in (1..).zip(samples) {
            let at = at(number * 10);
            let block = match sample {
                Ok(waiting) => {
                    let disk = waiting.map(|waiting| (MOUNTED, disk("sdb", waiting)));
                    let devices = disk.into_iter().chain([(MAPPED, mapped())]);
                    Reading::Known { value: BlockDevices::whole(devices), at }
                }
                Err(why) => Reading::Unknown(why.clone()),
            };
            let mounts = [filesystem(), on_lvm(), raw()].into_iter().zip(40u32..).map(|(mount, id)| (id, mount));
            let controllers = NvmeControllers::whole([]);
            view.take(
                at,
                vec![
                    Observation::BlockDevices(block),
                    Observation::Mounts(Reading::Known { value: Mounts::whole(mounts), at }),
                    Observation::NvmeControllers(Reading::Known { value: controllers, at }),
                ],
            );
        }
        view
    }

    fn key(kind: Kind, device: &str) -> Tri<FindingKey, ()> {
        Tri::Yes(FindingKey { kind, object: Object::new(ObjectType::Device, device) })
    }

    #[test]
    fn what_is_found_of_a_mount_follows_from_its_device_that_is_gone() {
        let view = view(&[Ok(Some(0)), Ok(None)]);
        let causes = Causes::extract(&view).unwrap();
        assert_eq!(causes.of_mount(&filesystem()), key(Kind::DeadMount, "sdb"));
        assert_eq!(causes.of_mount(&on_lvm()), key(Kind::DeadMount, "mapper/fast-a"), "the disk below it is gone");
        assert_eq!(causes.of_gone("pv-b"), key(Kind::DeadMount, "sdc"), "a raw block volume, by its name alone");
        assert_eq!(causes.of_gone("pv-z"), Tri::No(()));
    }

    #[test]
    fn what_is_found_of_a_mount_follows_from_a_disk_that_completes_nothing() {
        let view = view(&[Ok(Some(3)), Ok(Some(3))]);
        let causes = Causes::extract(&view).unwrap();
        for mount in [filesystem(), on_lvm()] {
            assert_eq!(causes.of_mount(&mount), key(Kind::StalledIo, "sdb"), "{}", mount.point);
        }
        assert_eq!(
            causes.of_device(&mapped()),
            key(Kind::StalledIo, "sdb"),
            "the disk is named, not what stands on it"
        );
        assert_eq!(causes.of_gone("pv-a"), Tri::No(()), "its device is here");
    }

    #[test]
    fn of_a_device_that_works_nothing_follows() {
        let view = view(&[Ok(Some(0)), Ok(Some(0))]);
        let causes = Causes::extract(&view).unwrap();
        assert_eq!(causes.of_mount(&filesystem()), Tri::No(()));
        assert_eq!(causes.of_device(&disk("sdb", 0)), Tri::No(()));
    }

    #[test]
    fn a_list_that_is_unknown_and_a_first_sample_leave_it_unknown() {
        let denied = Unknown::new(Cause::Denied, "not allowed");
        let why = |answer| match answer {
            Tri::Unknown(Unknown { cause, .. }) => Some(cause),
            Tri::Yes(_) | Tri::No(()) => None,
        };
        let unread = view(&[Ok(Some(0)), Err(denied)]);
        let causes = Causes::extract(&unread).unwrap();
        assert_eq!(why(causes.of_mount(&filesystem())), Some(Cause::Denied));
        assert_eq!(why(causes.of_device(&disk("sdb", 3))), Some(Cause::Denied));
        assert_eq!(why(causes.of_gone("pv-b")), Some(Cause::Denied));
        let first = view(&[Ok(Some(3))]);
        let causes = Causes::extract(&first).unwrap();
        assert_eq!(why(causes.of_mount(&filesystem())), Some(Cause::Baseline));
    }
}
