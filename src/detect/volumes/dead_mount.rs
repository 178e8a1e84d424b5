//! DeadMount: is there a mount whose device is gone?

use std::collections::BTreeMap;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{
    Absent, BlockDevice, BlockDevices, DevId, KubeletDirs, MountEntry, Mounts, NotAbsent, Tri, Unknown, VolumeId,
    VolumePath,
};
use crate::finding::{Finding, FindingKey, Kind, Object, ObjectType, Severity};
use crate::view::input::{Cited, Context, Input, Known, Required};
use crate::view::{Seen, sources};

use super::stack::{self, Below};
use super::{PodNames, describe, pv_of};

const KIND: Kind = Kind::DeadMount;

/// Mounts of one device that are named in the evidence.
const MAX_NAMED: usize = 10;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<DeadMount>();

struct DeadMount;

impl Detect for DeadMount {
    const KINDS: &'static [Kind] = &[KIND];
    type In =
        (Required<sources::Mounts>, Required<sources::BlockDevices>, Context<sources::KubeletDirs>, PodNames<'static>);

    fn evaluate((mounts, block, dirs, pods): <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        let names = stack::names(&block);
        for (device, on_it) in by_device(&mounts) {
            let object = || object(&device, &on_it, &dirs);
            let decision = match fate(&device, &on_it, &block, &names) {
                Tri::No(()) => Tri::No(block.no()),
                Tri::Unknown(why) => Tri::Unknown(why),
                Tri::Yes(fate) => Tri::Yes(finding(&device, &fate, (&on_it, pods), object(), &mounts, &block)),
            };
            out.decide(KIND, object, decision);
        }
        // A mount that was not read may be dead.
        if let Some(why) = mounts.value.incomplete().or(block.value.incomplete()) {
            out.rest(KIND, why);
        }
    }
}

/// A device as its mounts know it: by number, or for raw-block binds by name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Device<'a> {
    Number(crate::facts::DevId),
    Name(&'a str),
}

/// The mounts of each device.
fn by_device<'v>(mounts: &Seen<'v, Mounts>) -> BTreeMap<Device<'v>, Vec<&'v MountEntry>> {
    let mut by_device: BTreeMap<Device<'_>, Vec<&MountEntry>> = BTreeMap::new();
    for mount in mounts.value.values() {
        // Any device node may be bound somewhere (/dev/null, /dev/kvm): only the kubelet's raw-block volumes are disks.
        let raw = matches!(mount.volume, Some(VolumePath::RawBlock { .. })).then(|| mount.raw_block_device()).flatten();
        let device = match raw {
            Some(name) => Device::Name(name),
            None if mount.has_device() => Device::Number(mount.dev),
            None => continue,
        };
        by_device.entry(device).or_default().push(mount);
    }
    by_device
}

/// What became of a device under its mounts.
enum Fate<'v> {
    /// This machine does not have it.
    Gone(Absent),
    /// It is there, and what it stands on is not: some disks below it, of so many.
    StandsOnGone { gone: Vec<&'v str>, of: usize, absent: Absent },
    /// The kernel gave its disk up, and keeps it with a size of 0.
    GivenUp(&'v str),
    /// Its device node was deleted; what opens that node reaches this device, which has its number by now.
    NameTaken(&'v BlockDevice),
}

/// What became of a device, if anything did.
fn fate<'v>(
    device: &Device<'v>,
    on_it: &[&MountEntry],
    block: &Seen<'v, BlockDevices>,
    names: &stack::Names<'v>,
) -> Tri<Fate<'v>, ()> {
    let found = match device {
        Device::Number(dev) => block.value.lacks(dev),
        Device::Name(name) => match names.get(name) {
            Some(device) => Err(NotAbsent::Present(*device)),
            None => block.value.lacks_any(|device| device.name == *name),
        },
    };
    let found = match found {
        Err(NotAbsent::Present(found)) => found,
        Ok(absent) => return Tri::Yes(Fate::Gone(absent)),
        Err(NotAbsent::Unknown(why)) => return Tri::Unknown(why.clone()),
    };
    if on_it.iter().any(|mount| mount.shows_deleted_node()) {
        return Tri::Yes(Fate::NameTaken(found));
    }
    let below = Below::of(names, found);
    if let [first, ..] = below.gone.as_slice() {
        // A device that is missing from a list that is not whole may be there.
        return match block.value.lacks_any(|device| device.name == **first) {
            Err(NotAbsent::Unknown(why)) => Tri::Unknown(why.clone()),
            Err(NotAbsent::Present(_)) => Tri::No(()),
            Ok(absent) => {
                Tri::Yes(Fate::StandsOnGone { of: below.gone.len() + below.here.len(), gone: below.gone, absent })
            }
        };
    }
    match below.here.iter().find(|disk| disk.size == 0 && disk.loop_file.is_none()) {
        Some(disk) => Tri::Yes(Fate::GivenUp(&disk.name)),
        None => Tri::No(()),
    }
}

fn finding(
    device: &Device<'_>,
    fate: &Fate<'_>,
    (on_it, pods): (&[&MountEntry], PodNames<'_>),
    object: Object,
    mounts: &Seen<'_, Mounts>,
    block: &Seen<'_, BlockDevices>,
) -> Finding {
    let number = match device {
        Device::Number(dev) => dev.to_string(),
        Device::Name(name) => (*name).to_owned(),
    };
    let mut evidence = vec![match fate {
        Fate::Gone(absent) => block.says_absent(*absent, format!("there is no block device {number}")),
        Fate::StandsOnGone { gone, absent, .. } => block.says_absent(
            *absent,
            format!("{number} is built on {}, and there is no such block device", gone.join(", ")),
        ),
        Fate::GivenUp(disk) => block.says(format!("{disk} has size 0: the kernel gave it up")),
        Fate::NameTaken(taken) => {
            block.says(format!("{} is {}, of disk sequence {}", taken.name, carried(taken), sequence(taken)))
        }
    }];
    evidence.extend(on_it.iter().take(MAX_NAMED).map(|mount| {
        mounts.says(format!("{number} is mounted at {} as {}: {}", mount.point, mount.fstype, describe(mount, pods)))
    }));
    let what = match &object.volume {
        Some(volume) => format!("{} ({})", volume.as_str(), object.id),
        None => object.id.clone(),
    };
    // The pod's own mount says more than the staging that every volume has.
    let best = on_it.iter().rev().max_by_key(|mount| super::specificity(mount));
    let whose = best.map(|mount| match &mount.volume {
        Some(_) => describe(mount, pods),
        None => format!("{} at {}", describe(mount, pods), mount.point),
    });
    let whose = whose.unwrap_or_default();
    let more = match on_it.len() {
        0 | 1 => String::new(),
        2 => ", and 1 more mount".to_owned(),
        n => format!(", and {} more mounts", n - 1),
    };
    let is = match fate {
        Fate::Gone(_) => format!("{what} disappeared while still mounted"),
        Fate::StandsOnGone { gone, of, .. } if gone.len() < *of => {
            format!("{what} is built on {of} disks, of which {} disappeared", gone.join(", "))
        }
        Fate::StandsOnGone { gone, .. } => format!("{what} is built on {}, which disappeared", gone.join(", ")),
        Fate::GivenUp(_) => format!("the kernel gave {what} up under its mounts: every access fails"),
        Fate::NameTaken(taken) => {
            format!(
                "{what} disappeared while still mounted, and programs that open its paths now reach {}",
                carried(taken)
            )
        }
    };
    // What remains of a mirror may serve all of it.
    let partly = matches!(fate, Fate::StandsOnGone { gone, of, .. } if gone.len() < *of);
    let volumes = on_it.iter().any(|mount| mount.volume.is_some()) && !partly;
    Finding {
        kind: KIND,
        severity: if volumes { Severity::Critical } else { Severity::Warning },
        object,
        message: format!("{is}: {whose}{more}"),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}

/// A device by the EBS volume that it is, where it shows one.
fn carried(device: &BlockDevice) -> &str {
    device.volume.as_ref().map_or(&device.name, VolumeId::as_str)
}

fn sequence(device: &BlockDevice) -> String {
    device.diskseq.map_or_else(|| "unknown".to_owned(), |sequence| sequence.to_string())
}

/// The device by the name that it had, with the pod and volume that its mounts name.
fn object(device: &Device<'_>, on_it: &[&MountEntry], dirs: &Cited<'_, KubeletDirs>) -> Object {
    let mut object = Object::new(ObjectType::Device, name_of(device, on_it));
    let paths = || on_it.iter().filter_map(|mount| mount.volume.as_ref());
    object.pod = paths().find_map(VolumePath::pod).cloned();
    object.pv = paths().find_map(pv_of).map(str::to_owned);
    object.volume = dirs.name(|dirs| paths().find_map(|path| recorded_volume(dirs.value, path)));
    object
}

/// The name that a device had when it was mounted.
fn name_of<'a>(device: &Device<'a>, on_it: &[&'a MountEntry]) -> &'a str {
    let source = on_it.first().map_or("", |first| &first.source);
    match device {
        Device::Name(name) => name,
        Device::Number(_) => source.strip_prefix("/dev/").unwrap_or(source),
    }
}

/// The findings of this kind, for those that follow from them.
pub(super) struct DeadDevices<'v> {
    by_device: BTreeMap<Device<'v>, Vec<&'v MountEntry>>,
    block: Result<(Seen<'v, BlockDevices>, stack::Names<'v>), &'v Unknown>,
}

impl<'v> DeadDevices<'v> {
    pub(super) fn of(mounts: &Seen<'v, Mounts>, block: &Known<'v, BlockDevices>) -> Self {
        let block = block.seen().map(|block| (block, stack::names(block.value)));
        Self { by_device: by_device(mounts), block }
    }

    /// The finding of a filesystem's device, where that is dead: what is found of its mounts follows from it.
    pub(super) fn finding_of(&self, dev: DevId) -> Tri<FindingKey, ()> {
        let (block, names) = match &self.block {
            Ok((block, names)) => (block, names),
            Err(why) => return Tri::Unknown(Unknown::clone(why)),
        };
        let device = Device::Number(dev);
        let on_it = self.by_device.get(&device).map_or(&[][..], Vec::as_slice);
        let key = || FindingKey { kind: KIND, object: Object::new(ObjectType::Device, name_of(&device, on_it)) };
        fate(&device, on_it, block, names).map(|_| key())
    }
}

/// The volume id that the kubelet wrote beside the mount: the device that had it is gone.
fn recorded_volume(dirs: &KubeletDirs, path: &VolumePath) -> Option<VolumeId> {
    let data = match path {
        VolumePath::Staging { handle_hash, .. } => dirs.staging.get(handle_hash)?.data.as_ref()?,
        VolumePath::Pod { pod, name, .. } => {
            dirs.pods.get(pod)?.volumes.iter().find(|volume| volume.name == *name)?.data.as_ref()?
        }
        _ => return None,
    };
    VolumeId::from_serial(&data.handle)
}
