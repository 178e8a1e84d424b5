//! DeviceError: does a disk return I/O errors?

use std::collections::BTreeSet;
use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{
    BlockDevice, BlockDevices, DevId, FsType, KernelEvent, KernelLog, KernelRecord, Mapped, MountEntry, Mounts,
    NvmeControllers, Tri, Unknown,
};
use crate::finding::{Above, Finding, FindingKey, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Known, LogBesideDisks, Maybe, Required};
use crate::view::{Seen, sources};
use crate::wording;

use super::all_of_ebs::{AllOfEbs, disks};
use super::dead_mount::{DeadDevices, btrfs_disk, nearest_above};
use super::stack::Below;
use super::{Names, stack};

const KIND: Kind = Kind::DeviceError;

/// An error is news for so long.
const NEWS_FOR: Duration = Duration::from_secs(900);

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<DeviceError>();

struct DeviceError;

impl Detect for DeviceError {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        Required<sources::BlockDevices>,
        Required<sources::KernelLog>,
        Maybe<sources::Mounts>,
        Maybe<sources::NvmeControllers>,
        LogBesideDisks,
        Names<'static>,
    );

    fn evaluate(
        (block, log, mounts, nvme, disks, names): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let is_news = |record: &&KernelRecord| around.now.up.saturating_sub(record.up) <= NEWS_FOR;
        let recent: Vec<&KernelRecord> = log.value.records.iter().filter(is_news).collect();
        let errors_of = |device: &BlockDevice| -> Vec<&KernelRecord> {
            let about = |record: &&KernelRecord| match &record.event {
                KernelEvent::IoError { device: name, operation } => {
                    *name == device.name && !disks.is_of_another_disk(record, name) && is_of_data(operation)
                }
                KernelEvent::VerityCorruption { device: read } => is_verified(block.value, device, read),
                _ => false,
            };
            recent.iter().copied().filter(about).collect()
        };
        let all = all_of_ebs(block.value, |device| !errors_of(device).is_empty());
        out.each(KIND, &block, object, |dev, device| {
            let errors = errors_of(device);
            match errors.last() {
                None => Tri::No(log.no()),
                Some(last) => {
                    let on_it = filesystem(&mounts, &block, *dev, &device.name);
                    if is_of_no_disk(&device.name) {
                        match &on_it {
                            Ok(Some(on_it)) if on_it.mount.volume.is_some() => {}
                            Ok(_) => return Tri::No(log.no()),
                            Err(why) => return Tri::Unknown(why.clone()),
                        }
                    }
                    let below = block.value.iter().find(|(_, below)| {
                        below.name != device.name
                            && multipath(block.value, below).is_none()
                            && !errors_of(below).is_empty()
                            && stack::on_top_of(block.value, &below.name).contains(dev)
                    });
                    let shown_under = match (below, &on_it) {
                        (Some((dev, below)), _) => Tri::Yes(FindingKey { kind: KIND, object: object(dev, below) }),
                        (None, Ok(None)) => Tri::No(()),
                        (None, Ok(Some(on_it))) => follows(on_it, &mounts, &block, nvme),
                        (None, Err(why)) => Tri::Unknown(why.clone()),
                    };
                    let mount = on_it.ok().flatten().map(|on_it| on_it.mount);
                    let mut finding = finding((device, mount), object(dev, device), &errors, last, log, names);
                    if let Some(of) = multipath(block.value, device) {
                        finding.severity = Severity::Info;
                        finding.message =
                            format!("{}; it is a path of {of}, and another path is tried", finding.message);
                    }
                    let mut raised = Raised { shown_under, ..finding.into() };
                    raised.follows.extend(disk_of_file(device, &block, &mounts, |disk| !errors_of(disk).is_empty()));
                    if let Some(all) = all {
                        all.note(&mut raised, KIND, device, "");
                    }
                    Tri::Yes(raised)
                }
            }
        });
        // What was lost may have been an error.
        out.incomplete(KIND, log.value.incomplete.as_ref());
    }
}

/// The finding of the disk that has the file of a loop device, where that disk has errors, too. The path is as the program saw it that
/// made the device, which may be a container's: it only decides under which finding this one is shown.
fn disk_of_file(
    device: &BlockDevice,
    block: &Seen<'_, BlockDevices>,
    mounts: &Known<'_, Mounts>,
    has_errors: impl Fn(&BlockDevice) -> bool,
) -> Option<Above> {
    let (file, mounts) = (device.loop_file.as_deref()?, mounts.seen().ok()?);
    let mount = nearest_above(mounts.value, file)?;
    let carrier = block.value.get(&mount.dev)?;
    let below = Below::of(block.value, carrier).here;
    let disk = below.into_iter().chain([carrier]).find(|disk| disk.name != device.name && has_errors(disk))?;
    Some(Above::of(KIND, object(&mount.dev, disk)))
}

/// The EBS disks, where all have errors.
fn all_of_ebs(block: &BlockDevices, has_errors: impl Fn(&BlockDevice) -> bool) -> Option<AllOfEbs<'_>> {
    let all_have = block.incomplete().is_none() && disks(block).all(|(_, disk)| has_errors(disk));
    let names: Vec<&str> = disks(block).map(|(_, disk)| disk.name.as_str()).collect();
    AllOfEbs::of(&names).filter(|_| all_have)
}

/// Whether data may be lost by the error. A discard only marks what is free, and the kernel writes zeroes itself where the device
/// does not.
fn is_of_data(operation: &str) -> bool {
    !matches!(operation, "DISCARD" | "SECURE_ERASE" | "WRITE_ZEROES")
}

/// Whether a device is the one of device mapper that checks what is read of another.
fn is_verified(block: &BlockDevices, device: &BlockDevice, read: &DevId) -> bool {
    let is_below = || block.get(read).is_some_and(|read| device.slaves.contains(&read.name));
    let may_verify = |mapped: &Mapped| mapped.uuid.is_empty() || mapped.uuid.contains("VERITY");
    device.mapped.as_ref().is_some_and(may_verify)
        && (is_below() || block.named(&device.name).is_some_and(|(dev, _)| dev == *read))
}

/// Loop devices and their like come and go with what reads them. An error of a disk below one is reported of the disk, unless a pod has
/// the loop device as a volume: the file may be what fails (a sparse file on a full disk).
fn is_of_no_disk(name: &str) -> bool {
    ["loop", "zram", "ram", "sr", "fd"].iter().any(|begin| {
        name.strip_prefix(begin).is_some_and(|rest| rest.bytes().next().is_some_and(|byte| byte.is_ascii_digit()))
    })
}

/// The multipath device of which it is a path: device mapper sends a request that failed again over another one.
fn multipath(block: &BlockDevices, path: &BlockDevice) -> Option<String> {
    path.holders.iter().find_map(|holder| {
        let mapped = block.named(holder)?.1.mapped.as_ref()?;
        mapped.is_multipath().then(|| format!("{} ({holder})", mapped.name))
    })
}

fn object(_: &DevId, device: &BlockDevice) -> Object {
    Object { volume: device.volume.clone(), ..Object::new(ObjectType::Device, &*device.name) }
}

/// A filesystem that is mounted from a disk, or from what stands on it.
struct OnDisk<'v> {
    dev: DevId,
    /// The name that the device has in `/sys/fs`.
    device: String,
    mount: &'v MountEntry,
}

/// A filesystem that stands on the disk, its partitions, or what device mapper and md build on it.
fn filesystem<'v>(
    mounts: &Known<'v, Mounts>,
    block: &Seen<'_, BlockDevices>,
    dev: DevId,
    name: &str,
) -> Result<Option<OnDisk<'v>>, Unknown> {
    let mounts = mounts.seen()?;
    let mut devs = stack::on_top_of(block.value, name);
    devs.insert(dev);
    let found = devs.into_iter().find_map(|dev| {
        let (_, mount) = mounts.value.of_device(dev).find(|(_, mount)| mount.has_device())?;
        let device = block.value.get(&dev).map_or_else(|| name.to_owned(), |device| device.name.clone());
        Some(OnDisk { dev, device, mount })
    });
    let of_btrfs = || mounts.value.values().find(|mount| btrfs_disk(mount) == Some(name));
    let found = found.or_else(|| of_btrfs().map(|mount| OnDisk { dev: mount.dev, device: name.to_owned(), mount }));
    match mounts.value.incomplete().or(block.value.incomplete()) {
        Some(why) if found.is_none() => Err(why.clone()),
        _ => Ok(found),
    }
}

/// What the errors follow from, where that is found: a dead device under its mounts, else what the filesystem itself has noticed.
fn follows(
    on_it: &OnDisk<'_>,
    mounts: &Known<'_, Mounts>,
    block: &Seen<'_, BlockDevices>,
    nvme: Known<'_, NvmeControllers>,
) -> Tri<FindingKey, ()> {
    let Ok(seen) = mounts.seen() else { return Tri::No(()) };
    let noticed = || {
        let id = format!("{}/{}", FsType::of_mount(&on_it.mount.fstype)?, on_it.device);
        Some(FindingKey { kind: Kind::FilesystemError, object: Object::new(ObjectType::Filesystem, id) })
    };
    let dead = match btrfs_disk(on_it.mount) {
        Some(_) => Tri::No(()),
        None => DeadDevices::of(&seen, Ok(*block), nvme).finding_of(on_it.dev),
    };
    match dead {
        Tri::No(()) => noticed().map_or(Tri::No(()), Tri::Yes),
        dead => dead,
    }
}

fn finding(
    (device, mount): (&BlockDevice, Option<&MountEntry>),
    mut object: Object,
    errors: &[&KernelRecord],
    last: &KernelRecord,
    log: Seen<'_, KernelLog>,
    names: Names<'_>,
) -> Finding {
    let user = names.name_user(&mut object, &device.name);
    let operations: BTreeSet<&str> = errors
        .iter()
        .filter_map(|record| match &record.event {
            KernelEvent::IoError { operation, .. } if !operation.is_empty() => Some(operation.as_str()),
            _ => None,
        })
        .collect();
    let of = match operations.len() {
        0 => String::new(),
        _ => format!(" ({})", operations.into_iter().collect::<Vec<_>>().join(", ")),
    };
    let is_corrupted = |record: &&KernelRecord| matches!(record.event, KernelEvent::VerityCorruption { .. });
    let corrupted = match errors.iter().any(is_corrupted) {
        true => "; what was read does not match its hash (dm-verity): the data below it was changed or is damaged",
        false => "",
    };
    let count = wording::number(errors.len() as u64, "I/O error");
    let what = match &device.volume {
        Some(volume) => format!("{} ({})", volume.as_str(), device.name),
        None => device.name.clone(),
    };
    let unseen = match mount {
        // It counts them itself.
        Some(mount) if &*mount.fstype == "btrfs" => String::new(),
        Some(mount) => format!("; {} on it does not count errors of file data", mount.fstype),
        None => String::new(),
    };
    let when = log.at.wall_at(last.up);
    let fact = format!("{count} of {}{of} in the kernel's log, the last at {when:.0}", device.name);
    Finding {
        kind: KIND,
        severity: Severity::Warning,
        object,
        message: format!("{what} returns I/O errors: {count}{of}, the last at {when:.0}{user}{corrupted}{unseen}"),
        evidence: vec![log.reports(last, fact)],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}
