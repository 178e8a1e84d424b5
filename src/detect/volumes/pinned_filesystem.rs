//! PinnedFilesystem: is a filesystem alive that the host no longer mounts, and who holds it?

use std::collections::BTreeMap;

use crate::detect::{Around, DetectVolumes, Detector, Evaluation, Raised};
use crate::facts::{
    BlockDevice, BlockDevices, Cause, DevId, FilesystemKey, Lookup, MountEntry, Mounts, NotAbsent, Tri, Unknown,
    VolumePath,
};
use crate::finding::{Evidence, Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Maybe, Required};
use crate::view::{Seen, sources};

use super::holders::Holders;
use super::state::Volumes;
use super::wanted_elsewhere;

const KIND: Kind = Kind::PinnedFilesystem;

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<PinnedFilesystem>();

struct PinnedFilesystem;

impl DetectVolumes for PinnedFilesystem {
    const KINDS: &'static [Kind] = &[KIND];
    type In =
        (Required<sources::Mounts>, Required<sources::Filesystems>, Maybe<sources::BlockDevices>, Holders<'static>);
    type Asks = wanted_elsewhere::Above;

    fn evaluate(
        (mounts, filesystems, block, holders): <Self::In as Input>::Of<'_>,
        volumes: &Volumes<'_>,
        _: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let mounted = super::mounted_devices(mounts.value);
        let mut by_source = None;
        let keys = filesystems.value.iter().map(|(key, _)| key);
        for key in keys.filter(|key| key.fstype.is_mounted_by_number()) {
            let found = block.ask(|block| device(&block, &key.device));
            let dev = match &found {
                Tri::Yes((dev, ..)) if mounted.contains_key(dev) => {
                    out.decide(KIND, || object(key), Tri::<Finding>::No(mounts.no()));
                    continue;
                }
                Tri::Yes((dev, ..)) => Some(*dev),
                Tri::No(_) | Tri::Unknown(_) => None,
            };
            let mount = match dev {
                Some(dev) => mounts.value.of_device(dev).next().map(|(_, mount)| mount),
                // The device is gone, and its number with it: only the name at mount time is left to go by.
                None => {
                    let by_source = by_source.get_or_insert_with(|| sources_of(mounts.value));
                    by_source.get(format!("/dev/{}", key.device).as_str()).copied()
                }
            };
            let volume = match &found {
                Tri::Yes((_, device, block)) => super::volume_of(block, device),
                Tri::No(_) | Tri::Unknown(_) => None,
            };
            let object = || Object { volume: volume.clone(), ..object(key) };
            let decision = match (mounts.value.lacks_found(mount), &found) {
                (Err(NotAbsent::Present(_)), _) => Tri::No(mounts.no()),
                (Err(NotAbsent::Unknown(why)), _) => Tri::Unknown(why.clone()),
                // A pod that has the disk as a raw block volume may make a filesystem on it and mount that itself.
                (Ok(_), _) if is_raw_block(mounts.value, &key.device) => Tri::No(mounts.no()),
                // By another name it may be mounted.
                (Ok(_), Tri::Unknown(why)) => Tri::Unknown(why.clone()),
                (Ok(absent), Tri::Yes(_) | Tri::No(_)) => {
                    dev.into_iter().for_each(|dev| out.ask(KIND, Lookup::MountHolders(dev)));
                    let alive = filesystems.says(format!("the {} filesystem on {} is alive", key.fstype, key.device));
                    let unmounted = mounts.says_absent(absent, format!("the host has no mount of {}", key.device));
                    let device = match &found {
                        Tri::Yes((dev, device, _)) => Some((*dev, *device)),
                        Tri::No(_) | Tri::Unknown(_) => None,
                    };
                    let finding = finding(holders, key, object(), device, vec![alive, unmounted]);
                    // A device that is gone cannot say whether it was an EBS volume.
                    let unknown = device.is_none().then(|| {
                        let why = format!(
                            "{} is not among the block devices: whether it is an EBS volume is not known",
                            key.device
                        );
                        Unknown::new(Cause::Missing, why)
                    });
                    let held = volume.as_ref().and_then(|id| volumes.get(id));
                    let shown_under = held.map_or(Tri::No(()), wanted_elsewhere::finding_of);
                    Tri::Yes(Raised { severity_unknown: unknown, shown_under, ..finding.into() })
                }
            };
            out.decide(KIND, object, decision);
        }
        out.listed(KIND, filesystems.value.incomplete());
    }
}

/// Whether the kubelet gave a device to a pod as a raw block volume.
fn is_raw_block(mounts: &Mounts, device: &str) -> bool {
    let is_raw =
        |mount: &MountEntry| matches!(mount.volume, Some(VolumePath::RawBlock { .. } | VolumePath::LocalBlock { .. }));
    mounts.of_node(device).any(|(_, mount)| is_raw(mount))
}

/// A mount of each source, as it was named at mount time.
fn sources_of(mounts: &Mounts) -> BTreeMap<&str, &MountEntry> {
    mounts.values().map(|mount| (&*mount.source, mount)).collect()
}

fn object(key: &FilesystemKey) -> Object {
    Object::new(ObjectType::Filesystem, format!("{}/{}", key.fstype, key.device))
}

/// The device that has this name now.
fn device<'v>(block: &Seen<'v, BlockDevices>, name: &str) -> Tri<(DevId, &'v BlockDevice, &'v BlockDevices)> {
    block.has(block.value.named(name)).map(|(dev, device)| (dev, device, block.value))
}

fn finding(
    holders: Holders<'_>,
    key: &FilesystemKey,
    object: Object,
    device: Option<(DevId, &BlockDevice)>,
    mut seen: Vec<Evidence>,
) -> Finding {
    let used_by = device.map(|(_, d)| d.holders.join(", ")).filter(|h| !h.is_empty());
    let held_by = device.and_then(|(dev, _)| holders.of(dev, &mut seen));
    let who = match held_by.as_deref() {
        Some([]) => {
            "it is mounted in none of the other mount namespaces: an open file or a lazy unmount keeps it".to_owned()
        }
        Some([first, rest @ ..]) => {
            let copy = holders.copy_of_the_host(first);
            let copy =
                copy.map(|at| format!(" through its own mount of the host's filesystem at {at}")).unwrap_or_default();
            format!("{}{}{copy}", holders.name(first), more(rest.len()))
        }
        None => {
            used_by.map_or_else(|| "its holder is not known yet".to_owned(), |used| format!("{used} is built on it"))
        }
    };
    let what = match &object.volume {
        Some(volume) => format!("{} ({})", volume.as_str(), key.device),
        None => key.device.clone(),
    };
    // A container may mount a device for itself alone, and rightly; a volume that came from EBS was the host's.
    let severity = if object.volume.is_some() { Severity::Warning } else { Severity::Info };
    Finding {
        kind: KIND,
        severity,
        message: format!(
            "the {} filesystem on {what} is still active although the host does not mount it: {who}",
            key.fstype
        ),
        object,
        evidence: seen,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}

fn more(n: usize) -> String {
    if n == 0 { " holds it".to_owned() } else { format!(" and {n} more hold it") }
}
