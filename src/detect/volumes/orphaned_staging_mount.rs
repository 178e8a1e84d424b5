//! OrphanedStagingMount: is a volume staged that no pod has and that the kubelet has forgotten?

use std::cell::LazyCell;
use std::collections::BTreeSet;

use crate::detect::{Around, DetectVolumes, Detector, Evaluation, Raised};
use crate::facts::{
    AttachableName, BlockDevices, Cause, DevId, IN_TREE_EBS, KubeletDirs, Lookup, MountEntry, Mounts, Node, Tri,
    VolumePath, is_hash_of,
};
use crate::finding::{Evidence, Finding, Kind, Severity};
use crate::view::input::{Cited, Cites, Context, Input, Known, Maybe, Required};
use crate::view::{Seen, sources};

use super::dead_mount::{DeadDevices, btrfs_source};
use super::holders::Holders;
use super::state::completion::Fact;
use super::state::mount::{Device, Facts, KubeletHas, MountState, PodPaths};
use super::state::parts::DriverPod;
use super::state::{DriverPart, DriverTrouble, Volumes};
use super::{Settings, describe_without_pod, is_of_a_pod, mount_object, wanted_elsewhere};

const KIND: Kind = Kind::OrphanedStagingMount;

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<OrphanedStagingMount>();

struct OrphanedStagingMount;

impl DetectVolumes for OrphanedStagingMount {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        Required<sources::Mounts>,
        Maybe<sources::BlockDevices>,
        Maybe<sources::NvmeControllers>,
        Maybe<sources::Node>,
        Maybe<sources::CsiNode>,
        Context<sources::KubeletDirs>,
        Holders<'static>,
    );
    type Asks = (Cites<DriverPod>, wanted_elsewhere::Above);

    fn evaluate(input: <Self::In as Input>::Of<'_>, volumes: &Volumes<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let (mounts, block, nvme, node, _, dirs, holders) = input;
        // Of a healthy node nothing is asked of it.
        let dead = LazyCell::new(|| DeadDevices::of(&mounts, block.seen(), nvme));
        let devices = block.seen().ok().map(|block| block.value);
        let with_pods: BTreeSet<DevId> =
            mounts.value.values().filter(|mount| is_of_a_pod(mount)).map(|mount| mount.dev).collect();
        for mount in mounts.value.values().filter(|mount| is_staging(mount) && is_of_a_disk(mount)) {
            let facts = Facts::of_staging(
                device(&block, mount),
                pods(&mounts, &with_pods, mount),
                kubelet(&node, &around.settings.ebs, mount),
            );
            let decision = match facts.state() {
                Err(missing) => Tri::Unknown(missing.why),
                Ok(state) if state.kind() != Some(KIND) => Tri::No(mounts.no()),
                Ok(state) => {
                    out.ask(KIND, Lookup::MountHolders(mount.dev));
                    let forgotten = node.seen().ok().filter(|_| state == MountState::Forgotten);
                    let mut finding = finding(&mounts, mount, devices, forgotten, &dirs, holders);
                    let part = DriverPart::from(driver_trouble(mount, volumes));
                    finding.message.push_str(&part.cause);
                    finding.evidence.extend(part.evidence);
                    finding.advice = part.advice.unwrap_or(finding.advice);
                    let volume = finding.object.volume.as_ref().and_then(|id| volumes.get(id));
                    let wanted = || volume.map_or(Tri::No(()), wanted_elsewhere::finding_of);
                    // A device mapper or md device stays when the disk below it is gone.
                    let shown_under = match dead.finding_of_mount(mount) {
                        Tri::No(()) => part.shown_under.or_else(wanted),
                        dead => dead,
                    };
                    Tri::Yes(Raised { shown_under, ..finding.into() })
                }
            };
            out.decide(KIND, || mount_object(mount, devices), decision);
        }
        out.listed(KIND, mounts.value.incomplete());
    }
}

fn is_of_a_disk(mount: &MountEntry) -> bool {
    mount.has_device() || btrfs_source(mount).is_some()
}

fn device(block: &Known<'_, BlockDevices>, mount: &MountEntry) -> Fact<Device> {
    // Mounts of btrfs have a number that no device has.
    let here = block.ask(|block| match btrfs_source(mount) {
        Some(name) => block.has(block.value.named(name)).map(drop),
        None => block.find(&mount.dev).map(drop),
    });
    match here {
        Tri::Yes(()) => Ok(Device::Here),
        Tri::No(_) => Ok(Device::Gone),
        Tri::Unknown(why) => Err(why.into()),
    }
}

/// Why the CSI driver that staged it cannot unmount it here.
fn driver_trouble<'v>(mount: &'v MountEntry, volumes: &Volumes<'v>) -> DriverTrouble<'v> {
    match &mount.volume {
        Some(VolumePath::Staging { driver, .. }) => volumes.parts().driver_trouble(driver),
        _ => DriverTrouble::NONE,
    }
}

fn pods(mounts: &Seen<'_, Mounts>, with_pods: &BTreeSet<DevId>, mount: &MountEntry) -> Fact<PodPaths> {
    match mounts.value.incomplete() {
        _ if with_pods.contains(&mount.dev) => Ok(PodPaths::Some),
        Some(why) => Err(why.into()),
        None => Ok(PodPaths::None),
    }
}

fn is_staging(mount: &MountEntry) -> bool {
    matches!(
        mount.volume,
        Some(VolumePath::Staging { .. } | VolumePath::LegacyStaging { .. } | VolumePath::InTree { .. })
    )
}

fn kubelet(node: &Known<'_, Node>, settings: &Settings, mount: &MountEntry) -> Fact<KubeletHas> {
    // A name of this form has no handle: which of the volumes in use it is cannot be known.
    if matches!(mount.volume, Some(VolumePath::LegacyStaging { .. })) {
        return Ok(KubeletHas::NeverSays);
    }
    let node = match node.seen() {
        Ok(node) => node.value,
        Err(why) if why.cause == Cause::NotAsked => return Ok(KubeletHas::NeverSays),
        Err(why) => return Err(why.into()),
    };
    let is_it = |name: &String| match (AttachableName::parse(name), &mount.volume) {
        (Some(AttachableName::Csi { driver, handle }), Some(VolumePath::Staging { driver: ours, handle_hash })) => {
            driver == ours && is_hash_of(handle_hash, handle)
        }
        (Some(AttachableName::InTree { plugin, volume: named }), Some(VolumePath::InTree { plugin: ours, volume })) => {
            plugin == ours && named.rsplit('/').next() == Some(volume)
        }
        _ => false,
    };
    if node.volumes_in_use.iter().any(is_it) {
        return Ok(KubeletHas::It);
    }
    // A driver that attaches nothing is never named there.
    let names = node.volumes_in_use.iter().chain(node.volumes_attached.keys());
    let named = |driver: &str| names.clone().any(|n| AttachableName::parse(n).and_then(|n| n.driver()) == Some(driver));
    let attaches = match &mount.volume {
        Some(VolumePath::Staging { driver, .. }) => settings.drivers.contains(driver) || named(driver),
        Some(VolumePath::InTree { plugin, .. }) => plugin == IN_TREE_EBS,
        _ => false,
    };
    Ok(if attaches { KubeletHas::Not } else { KubeletHas::NeverSays })
}

fn finding(
    mounts: &Seen<'_, Mounts>,
    mount: &MountEntry,
    block: Option<&BlockDevices>,
    forgotten: Option<Seen<'_, Node>>,
    dirs: &Cited<'_, KubeletDirs>,
    holders: Holders<'_>,
) -> Finding {
    let mut evidence = vec![mounts.says(format!("{} ({}) is mounted at {}", mount.source, mount.dev, mount.point))];
    let without_pod = super::without_pod(mounts.value, mount.dev);
    evidence.extend(without_pod.map(|absent| mounts.says_absent(absent, format!("no pod's path has {}", mount.dev))));
    evidence.extend(
        forgotten.map(|node| node.says("volumesInUse does not have it: the kubelet does not know of it any more")),
    );
    evidence.extend(dirs.evidence(|dirs| recorded(dirs, mount)));
    let held = holders.of(mount.dev, &mut evidence).and_then(|holders| holders.into_iter().next());
    let held = held.map(|holder| format!("; {}", holders.also(&holder))).unwrap_or_default();
    let object = mount_object(mount, block);
    let what = object.volume.as_ref().map_or_else(|| describe_without_pod(mount), |volume| volume.as_str().to_owned());
    Finding {
        kind: KIND,
        severity: if forgotten.is_some() { Severity::Warning } else { Severity::Info },
        message: format!("{what} is staged ({}), but without a mount of a pod{held}", mount.source),
        object,
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}

/// What the kubelet wrote beside it.
fn recorded(dirs: Seen<'_, KubeletDirs>, mount: &MountEntry) -> Option<Evidence> {
    let Some(VolumePath::Staging { handle_hash, .. }) = &mount.volume else { return None };
    let data = dirs.value.staging.get(handle_hash)?.data.as_ref()?;
    Some(dirs.says(format!("the vol_data.json next to it names {}", data.handle)))
}
