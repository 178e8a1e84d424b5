//! SwappedVolume: is what is mounted as a volume that volume?

use std::collections::BTreeMap;

use crate::detect::{Around, DetectVolumes, Detector, Evaluation, Raised, Settings as All};
use crate::facts::{
    Answers, BlockDevice, BlockDevices, Cause, DevId, IN_TREE_EBS, KubeletDirs, Lookup, MountEntry, Mounts, Node,
    PersistentVolume, Tri, Unknown, VolumeId, VolumePath, is_hash_of,
};
use crate::finding::{Evidence, Finding, FindingKey, Kind, Object, Severity};
use crate::view::input::{Cited, Context, Input, Known, Maybe, Required};
use crate::view::{Seen, sources};

use super::dead_mount::btrfs_disk;
use super::state::attachment::{AttachmentState, Kubelet, Staging};
use super::state::parts::{ApiSays, Cluster, Listed, Named, OnMachine, RawHandle};
use super::state::{Volume, Volumes};
use super::{PodNames, mount_object, named, pv_of, volume_of};

const KIND: Kind = Kind::SwappedVolume;

/// What to do while neither volume is mounted in the other's place.
const NOT_STAGED_YET: &str = "Do not format or mount either volume. Compare aws ec2 describe-volumes of both ids with \
     kubectl get volumeattachment and kubectl get pv, and look in CloudTrail (AttachVolume, DetachVolume) for who attached the one and detached \
     the other. Detach the volume that Kubernetes did not ask for after its pods have ended. Then delete the waiting pod, so that Kubernetes \
     attaches its own volume again.";
const STATES: &[AttachmentState] = &[AttachmentState::Replaced];

/// What handles of volumes that belong to the node itself begin with: a device's name follows, and not a volume's id.
const NODE_LOCAL: &str = "local-ebs://";

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<SwappedVolume>();

struct SwappedVolume;

/// What a mount point promises to be.
enum ExpectedVolume<'a> {
    /// The volume whose handle has this hash.
    Hash { driver: &'a str, hash: &'a str },
    /// This volume.
    Volume(VolumeId),
    /// The volume of this PersistentVolume, shown as a device node.
    RawBlock { pv: &'a str, device: &'a str },
    /// The volume of this PersistentVolume, as a pod has it.
    OfPod { pv: &'a str },
}

impl DetectVolumes for SwappedVolume {
    const KINDS: &'static [Kind] = &[KIND];
    const STATES: &'static [AttachmentState] = &[AttachmentState::Replaced, AttachmentState::Replaces];
    type In = (
        Required<sources::Mounts>,
        Required<sources::BlockDevices>,
        Maybe<sources::PersistentVolumes>,
        Context<sources::KubeletDirs>,
        Context<sources::Node>,
    );
    type Asks = (Listed, Cluster, RawHandle, Kubelet, Staging, OnMachine, Named, ApiSays, PodNames<'static>);

    fn evaluate(input: <Self::In as Input>::Of<'_>, volumes: &Volumes<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let (mounts, block, pvs, dirs, node) = input;
        let only_for_raw = the_only_one_for_raw(volumes);
        let look = Look { mounts, block, pvs, dirs, node, volumes, settings: around.settings, only_for_raw };
        let mut raw = BTreeMap::new();
        for mount in mounts.value.values() {
            look.at(mount, &mut raw, out);
        }
        // Where the cluster is not asked, nothing says what should be here; where it does not answer, what it named before is not known.
        if let Err(why) = volumes.parts().node.seen()
            && !volumes.parts().is_without_cluster()
        {
            out.rest(KIND, why);
        }
        let in_place = volumes.iter().find(|other| matches!(other.is(&[AttachmentState::Replaces]), Tri::Yes(())));
        for volume in volumes.iter() {
            in_its_place(in_place, volume, out);
        }
        out.listed(KIND, mounts.value.incomplete().or(block.value.incomplete()));
    }
}

struct Look<'v, 'a> {
    mounts: Seen<'v, Mounts>,
    block: Seen<'v, BlockDevices>,
    pvs: Known<'v, Answers<PersistentVolume>>,
    dirs: Cited<'v, KubeletDirs>,
    node: Cited<'v, Node>,
    volumes: &'a Volumes<'v>,
    settings: &'a All,
    only_for_raw: Option<&'a VolumeId>,
}

/// The one volume that a raw block bind can show, where there is one. The bind does not name it; where the kubelet wants one volume
/// that is not staged under its own name, that is the one. A lookup for each volume of a healthy node would cost more than all else.
fn the_only_one_for_raw<'a>(volumes: &'a Volumes<'_>) -> Option<&'a VolumeId> {
    let may_be_raw =
        |volume: &&Volume<'_>| volume.kubelet() == &Ok(Kubelet::Wants) && volume.staging() != &Ok(Staging::Staged);
    let mut candidates = volumes.iter().filter(may_be_raw);
    let first = candidates.next();
    first.filter(|_| candidates.next().is_none()).map(|volume| &volume.id)
}

impl<'v> Look<'v, '_> {
    fn expected_volume(&self, mount: &'v MountEntry) -> Option<ExpectedVolume<'v>> {
        match mount.volume.as_ref()? {
            // One of another name was not made by the kubelet, and promises nothing.
            VolumePath::Staging { driver, handle_hash } if self.is_ebs(driver, handle_hash) => {
                is_hash(handle_hash).then_some(ExpectedVolume::Hash { driver, hash: handle_hash })
            }
            VolumePath::InTree { plugin, volume } if plugin == IN_TREE_EBS => {
                VolumeId::from_serial(volume).map(ExpectedVolume::Volume)
            }
            VolumePath::Pod { name, .. } => Some(ExpectedVolume::OfPod { pv: name }),
            VolumePath::RawBlock { pv, .. } if !mount.shows_deleted_node() => {
                Some(ExpectedVolume::RawBlock { pv, device: mount.raw_block_device()? })
            }
            _ => None,
        }
    }

    /// Whether a staging directory is for an EBS volume: its driver is EBS's, or the Node names such a volume by this driver.
    fn is_ebs(&self, driver: &String, hash: &str) -> bool {
        let is_it = |volume: &Volume<'_>| volume.is_named_by(driver) && is_hash_of(hash, volume.id.as_str());
        self.settings.ebs.drivers.contains(driver) || self.volumes.iter().any(is_it)
    }

    /// A raw block volume has two binds: the finding of the second is shown under that of the first.
    fn at(&self, mount: &'v MountEntry, raw: &mut BTreeMap<&'v str, Object>, out: &mut Evaluation) {
        let block = self.block.value;
        let Some(expected_volume) = self.expected_volume(mount) else { return };
        // One that is gone is a dead mount.
        let device = match &expected_volume {
            ExpectedVolume::RawBlock { device, .. } => named(block, device),
            ExpectedVolume::Hash { .. } | ExpectedVolume::Volume(_) | ExpectedVolume::OfPod { .. } => {
                block.get(&mount.dev).or_else(|| named(block, btrfs_disk(mount)?))
            }
        };
        let Some(device) = device else { return };
        let object = || mount_object(mount, Some(block));
        if let ExpectedVolume::OfPod { pv } = &expected_volume {
            // What lies over another mount is a stack; the node's own disk at the path is no volume.
            let is_over_one = self.mounts.value.get(&mount.parent).is_some_and(|below| below.volume.is_some());
            if is_over_one || self.mounts.value.is_bind_of_own_disk(mount) {
                return;
            }
            // Where its device is staged, that mount is looked at: to look up the PersistentVolume of each volume of a healthy node is too much.
            if self.is_staged(mount) {
                return out.decide::<Finding>(KIND, object, Tri::No(self.mounts.no()));
            }
            // Of what is built on a disk (LVM, a file) the PersistentVolume does not name the disk.
            if volume_of(block, device).filter(|_| device.slaves.is_empty()).is_none() {
                return;
            }
            out.ask(KIND, Lookup::PersistentVolume((*pv).to_owned()));
        }
        let Some(found) = carried(block, device) else {
            let why = format!("{} does not show an EBS volume id, so its volume is not known", device.name);
            return out.decide::<Finding>(KIND, object, Tri::Unknown(Unknown::new(Cause::Unsupported, why)));
        };
        if let ExpectedVolume::RawBlock { pv, .. } = &expected_volume
            && self.raw_handle(pv).is_none()
        {
            if self.only_for_raw == Some(&found) {
                return out.decide::<Finding>(KIND, object, Tri::No(self.mounts.no()));
            }
            out.ask(KIND, Lookup::PersistentVolume((*pv).to_owned()));
        }
        let decision = match self.is_kept(&expected_volume, &found) {
            Tri::Yes(()) => Tri::No(self.mounts.no()),
            Tri::Unknown(why) => Tri::Unknown(why),
            Tri::No(()) => {
                let pv = pv_at(self.mounts.value, mount.dev);
                pv.into_iter().for_each(|pv| out.ask(KIND, Lookup::PersistentVolume(pv.to_owned())));
                let finding = self.finding(mount, &expected_volume, (device, &found), pv);
                let first = match &expected_volume {
                    ExpectedVolume::RawBlock { pv, .. } => raw.get(pv).cloned(),
                    _ => None,
                };
                if let (ExpectedVolume::RawBlock { pv, .. }, None) = (&expected_volume, &first) {
                    raw.insert(*pv, finding.object.clone());
                }
                let above = first.map(|object| FindingKey { kind: KIND, object });
                Tri::Yes(Raised { shown_under: above.map_or(Tri::No(()), Tri::Yes), ..finding.into() })
            }
        };
        out.decide(KIND, object, decision);
    }

    /// The handle of the volume that is to be shown, where it was asked for.
    fn raw_handle(&self, pv: &str) -> Option<&'v str> {
        self.volumes.parts().raw_handle(pv)
    }

    /// Whether the device of a pod's mount is staged as a volume, too.
    fn is_staged(&self, mount: &MountEntry) -> bool {
        self.mounts.value.of_device(mount.dev).any(|(_, other)| {
            use VolumePath::{InTree, LegacyStaging, Staging};
            matches!(&other.volume, Some(Staging { .. } | LegacyStaging { .. } | InTree { .. }))
        })
    }

    fn is_kept(&self, expected_volume: &ExpectedVolume<'_>, found: &VolumeId) -> Tri<(), ()> {
        let is_so = |kept: bool| if kept { Tri::Yes(()) } else { Tri::No(()) };
        match expected_volume {
            ExpectedVolume::Volume(volume) => is_so(volume == found),
            ExpectedVolume::Hash { hash, .. } => is_so(is_hash_of(hash, found.as_str()) || is_node_local(hash)),
            ExpectedVolume::RawBlock { pv, .. } => match self.raw_handle(pv) {
                Some(handle) => is_so(VolumeId::of_handle(handle).is_none_or(|volume| volume == *found)),
                None => self.is_of_pv(pv, found),
            },
            ExpectedVolume::OfPod { pv } => self.is_of_pv(pv, found),
        }
    }

    fn is_of_pv(&self, pv: &str, found: &VolumeId) -> Tri<(), ()> {
        let object = match self.pvs.seen().map_err(Clone::clone).and_then(|pvs| pvs.value.get(pv)) {
            Ok(object) => object,
            Err(why) => return Tri::Unknown(why),
        };
        match object.and_then(|object| VolumeId::of_handle(object.handle.as_deref()?)) {
            Some(volume) if volume != *found => Tri::No(()),
            // A PersistentVolume that is gone, or of another driver, promises nothing of this kind.
            Some(_) | None => Tri::Yes(()),
        }
    }
}

/// The finding that pods have another volume as a device node where this one belongs: that of the first bind. What pods have so is not
/// staged.
pub(super) fn finding_of_raw(volume: &Volume<'_>, pv: &str) -> Tri<FindingKey, ()> {
    let parts = volume.parts();
    let (mounts, block) = match (parts.mounts.seen(), parts.block.seen()) {
        (Ok(mounts), Ok(block)) => (mounts.value, block.value),
        (Err(why), _) | (_, Err(why)) => return Tri::Unknown(why.clone()),
    };
    let shows_another = |mount: &&MountEntry| {
        let is_its_bind = matches!(&mount.volume, Some(VolumePath::RawBlock { pv: of, .. }) if of == pv);
        let shown = || carried(block, named(block, mount.raw_block_device()?)?);
        is_its_bind && !mount.shows_deleted_node() && shown().is_some_and(|shown| shown != volume.id)
    };
    match mounts.values().find(shows_another) {
        Some(mount) => Tri::Yes(FindingKey { kind: KIND, object: mount_object(mount, Some(block)) }),
        None => Tri::No(()),
    }
}

/// Nothing is staged yet: a pod waits for a volume that Kubernetes reports as attached and is not here, and what is here is one
/// that nothing here asked for.
fn in_its_place(other: Option<&Volume<'_>>, wanted: &Volume<'_>, out: &mut Evaluation) {
    let decision = wanted.decide(out, KIND, STATES).map(|()| {
        wanted.ask_all(out, KIND);
        other.into_iter().flat_map(Volume::ask).for_each(|lookup| out.ask(KIND, lookup));
        let pod = wanted.waits_long();
        let mut evidence = wanted.evidence();
        evidence.extend(wanted.absence_says());
        evidence.extend(other.and_then(Volume::device_says));
        evidence.extend(other.map(Volume::evidence).unwrap_or_default());
        let name = other.and_then(Volume::device).map(|(_, disk)| format!(" ({})", disk.name)).unwrap_or_default();
        let id = other.map_or("another volume", |other| other.id.as_str());
        Finding {
            kind: KIND,
            severity: Severity::Warning,
            object: Object { pod: pod.map(|pod| pod.node_uid().clone()), ..wanted.object() },
            message: format!(
                "{id}{name} is attached here, and Kubernetes did not ask for it; pod {} waits for {}, which Kubernetes reports as \
                 attached and which is not on this machine",
                pod.map(crate::facts::Pod::full_name).unwrap_or_default(),
                wanted.id.as_str()
            ),
            evidence,
            advice: NOT_STAGED_YET.to_owned(),
        }
    });
    out.decide(KIND, || wanted.object(), decision);
}

fn is_hash(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a hash is of a handle that names a device of the node itself: `local-ebs://dev/xvdbz`. Only a volume that is
/// not what its directory promises is looked at so closely.
fn is_node_local(hash: &str) -> bool {
    let letters = || (b'a'..=b'z').map(char::from);
    let ends = || letters().map(String::from).chain(letters().flat_map(|a| letters().map(move |b| format!("{a}{b}"))));
    let of_disk = |disk: &str| ends().any(|end| is_hash_of(hash, &format!("{NODE_LOCAL}dev/{disk}{end}")));
    of_disk("xvd") || of_disk("sd")
}

/// The EBS volume below a mounted device: the device's own, its disk's, or that of the one device that it is mapped to, at any depth.
fn carried(block: &BlockDevices, device: &BlockDevice) -> Option<VolumeId> {
    let mut device = device;
    let mut seen = std::collections::BTreeSet::new();
    while seen.insert(device.name.as_str()) {
        if let Some(volume) = volume_of(block, device) {
            return Some(volume);
        }
        let [slave] = device.slaves.as_slice() else { return None };
        device = named(block, slave)?;
    }
    None
}

/// The PersistentVolume by which pods have this device.
fn pv_at(mounts: &Mounts, dev: DevId) -> Option<&str> {
    mounts.of_device(dev).find_map(|(_, mount)| pv_of(mount.volume.as_ref()?))
}

impl<'v> Look<'v, '_> {
    fn finding(
        &self,
        mount: &MountEntry,
        expected_volume: &ExpectedVolume<'_>,
        (device, found): (&BlockDevice, &VolumeId),
        pv: Option<&str>,
    ) -> Finding {
        let (name, found) = (&device.name, found.as_str());
        let mut evidence = vec![
            self.mounts.says(match expected_volume {
                ExpectedVolume::RawBlock { .. } => format!("{name} is shown at {}", mount.point),
                _ => format!("{} ({name}) is mounted at {}", mount.dev, mount.point),
            }),
            self.block.says(format!("{name} is {found}")),
        ];
        let mut object = mount_object(mount, Some(self.block.value));
        // Who uses it is named by a pod's mount of the same device.
        let user = match expected_volume {
            ExpectedVolume::RawBlock { .. } | ExpectedVolume::OfPod { .. } => {
                Some(mount).filter(|mount| super::is_of_a_pod(mount))
            }
            _ => {
                let mut others = self.mounts.value.of_device(mount.dev).map(|(_, other)| other);
                others.find(|other| super::specificity(other) == 2)
            }
        };
        let wanted = match expected_volume {
            ExpectedVolume::Volume(volume) => Some(volume.as_str().to_owned()),
            ExpectedVolume::Hash { driver, hash } => self.expected_id(driver, hash, pv, &mut evidence),
            ExpectedVolume::RawBlock { pv, .. } => {
                self.handle_of(pv, &mut evidence).or_else(|| self.raw_handle(pv).map(str::to_owned))
            }
            ExpectedVolume::OfPod { pv } => self.handle_of(pv, &mut evidence),
        };
        object.pod = user.and_then(|user| user.volume.as_ref()?.pod().cloned());
        if let ExpectedVolume::Hash { .. } | ExpectedVolume::Volume(_) = expected_volume {
            object.pv = pv.map(str::to_owned);
        }
        let wanted = wanted.unwrap_or_else(|| "another volume, by the name of its directory,".to_owned());
        let whose = user
            .map_or(String::new(), |user| format!(" ({})", super::describe(user, self.volumes.parts().pod_names())));
        let is = match expected_volume {
            ExpectedVolume::RawBlock { .. } => "shown",
            _ => "mounted",
        };
        Finding {
            kind: KIND,
            severity: Severity::Critical,
            object,
            message: format!("{found} ({name}) is {is} where {wanted} belongs{whose}"),
            evidence,
            advice: crate::catalogue::row(KIND).remediation.to_owned(),
        }
    }

    /// The handle of a PersistentVolume, as evidence and for the message.
    fn handle_of(&self, pv: &str, evidence: &mut Vec<Evidence>) -> Option<String> {
        let pvs = self.pvs.seen().ok()?;
        let handle = pvs.value.get(pv).ok()??.handle.clone()?;
        evidence.push(pvs.says(format!("PersistentVolume {pv} is {handle}")));
        Some(handle)
    }

    /// The handle whose hash the directory is called by, from whatever source knows it; what they say is evidence.
    fn expected_id(&self, driver: &str, hash: &str, pv: Option<&str>, evidence: &mut Vec<Evidence>) -> Option<String> {
        let mut handles = Vec::new();
        let recorded = self.dirs.name(|dirs| {
            let data = dirs.value.staging.get(&hash.to_owned())?.data.as_ref()?;
            evidence.push(dirs.says(format!("the vol_data.json next to it names {}", data.handle)));
            Some(data.handle.clone())
        });
        handles.extend(recorded);
        handles.extend(pv.and_then(|pv| self.handle_of(pv, evidence)));
        let of_driver = format!("kubernetes.io/csi/{driver}^");
        let named = self.node.name(|node| {
            let names = node.value.volumes_in_use.iter().chain(node.value.volumes_attached.keys());
            names.filter_map(|name| name.strip_prefix(&of_driver)).find(|handle| is_hash_of(hash, handle))
        });
        handles.extend(named.map(str::to_owned));
        let volumes = self.block.value.values().filter_map(|device| device.volume.as_ref());
        handles.extend(volumes.map(|volume| volume.as_str().to_owned()));
        handles.into_iter().find(|handle| is_hash_of(hash, handle))
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    const HASH: &str = "7f0b2e31ddb1b3a849f76dd4a2ae35279a9d823391976605d7dcd0e593f57812";

    #[test]
    fn a_device_of_the_node_itself_is_called_by_its_name() {
        let hash = |handle: &str| -> String {
            Sha256::digest(handle.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
        };
        for local in ["local-ebs://dev/xvdbz", "local-ebs://dev/sdf", "local-ebs://dev/xvdc"] {
            assert!(is_node_local(&hash(local)), "{local}");
        }
        assert!(!is_node_local(HASH) && !is_node_local(&hash("local-ebs://dev/nvme1n1")) && !is_node_local(""));
    }
}
