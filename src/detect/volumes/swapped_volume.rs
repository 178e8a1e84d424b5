//! SwappedVolume: is what is mounted as a volume that volume?

use jiff::SignedDuration;

use crate::detect::{Detector, Judge, Settings as All};
use crate::facts::{
    BlockDevice, BlockDevices, Cause, DevId, IN_TREE_EBS, MountEntry, Mounts, Pod, PodPhase, Question, Source,
    SourceSet, Unknown, VolumeId, VolumePath, is_hash_of,
};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity, Subject};
use crate::view::{Seen, View};

use super::standing::Standing;
use super::{mount_subject, named, pv_of, stale_attachment, volume_of};

const KIND: Kind = Kind::SwappedVolume;

/// An attachment takes seconds; a pod that has waited so long waits for something else.
const LONG_WAIT: SignedDuration = SignedDuration::from_secs(120);

/// What handles of volumes that belong to the node itself begin with: a device's name follows, and not a volume's id.
const NODE_LOCAL: &str = "local-ebs://";

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Mounts, Source::BlockDevices]),
    parts: SourceSet::NONE,
    decides: SourceSet::NONE,
    uses: SourceSet::of(&[
        Source::KubeletDirs,
        Source::Node,
        Source::Pods,
        Source::Filesystems,
        Source::VolumeAttachments,
        Source::PersistentVolumes,
    ]),
    judge: Judge::OfVolumes(judge),
};

/// What a mount point promises to be.
enum Promise<'a> {
    /// The volume whose handle has this hash.
    Hash { driver: &'a str, hash: &'a str },
    /// This volume.
    Volume(VolumeId),
}

fn judge(view: &View, settings: &All, all: &[Standing<'_>]) -> Vec<Judgement> {
    let (mounts, block) = match (view.mounts.known(), view.block.known()) {
        (Ok(mounts), Ok(block)) => (mounts, block),
        (Err(why), _) | (_, Err(why)) => return vec![Judgement::blind(KIND, why)],
    };
    let mut judgement = Judgement::new(KIND);
    for mount in mounts.value.values() {
        let Some(promise) = promise(mount, &settings.ebs) else { continue };
        // One that is gone is a dead mount.
        let Some(device) = block.value.get(&mount.dev) else { continue };
        let Some(found) = carried(block.value, device) else {
            let why = format!("{} tells no EBS volume id: which volume it is cannot be known here", device.name);
            let subject = mount_subject(mount, Some(block.value));
            judgement.blind_to(subject, &Unknown::new(Cause::Unsupported, why));
            continue;
        };
        if promise.is_kept_by(&found) {
            continue;
        }
        let pv = pv_at(mounts.value, mount.dev);
        judgement.asks.extend(pv.map(|pv| Question::PersistentVolume(pv.to_owned())));
        judgement.raised.push(finding(view, mount, &promise, (device, &found), pv, (&mounts, &block)));
    }
    // Where the cluster is not asked, nobody says what should be here.
    in_each_others_place(view, all, &mut judgement);
    vec![judgement]
}

/// Nothing is staged yet: a pod waits for a volume that is said to be attached and is not here, and what is here is one
/// that nobody here asked for.
fn in_each_others_place(view: &View, all: &[Standing<'_>], judgement: &mut Judgement) {
    for wanted in all.iter().filter(|standing| is_missed(standing)) {
        judgement.asks.extend(wanted.ask_all());
        judgement.asks.extend(all.iter().filter(|other| stale_attachment::is_left(other)).filter_map(Standing::ask));
        if let Err(why) = wanted.attachment().map(drop).and(wanted.users().map(drop)) {
            judgement.blind_to(wanted.subject(), &why);
            continue;
        }
        for other in all.iter().filter(|other| stale_attachment::is_left(other)) {
            if let Err(why) = other.attachment() {
                judgement.blind_to(wanted.subject(), &why);
            }
        }
        let Some(volume) = stands_in(view, all, wanted) else { continue };
        let Some(other) = all.iter().find(|other| other.volume == *volume) else { continue };
        let Some(pod) = waited(view, wanted) else { continue };
        let mut evidence = wanted.evidence();
        evidence.extend(wanted.device_is_absent().ok());
        evidence.extend(other.device_says());
        evidence.extend(other.evidence());
        let name = other.device().map(|(_, disk)| format!(" ({})", disk.name)).unwrap_or_default();
        let (volume, missed) = (volume.as_str(), wanted.volume.as_str());
        judgement.raised.push(Finding {
            kind: KIND,
            severity: Severity::Warning,
            subject: Subject { pod: Some(pod.node_uid().clone()), ..wanted.subject() },
            message: format!(
                "{volume}{name} is attached here and nothing here asked for it, while pod {} waits for {missed}, which \
                 is said to be attached and is not here",
                pod.full_name()
            ),
            evidence,
            advice: crate::catalogue::row(KIND).act.to_owned(),
        });
    }
}

/// Wanted by the kubelet, attached as the controller says, and no device.
fn is_missed(standing: &Standing<'_>) -> bool {
    standing.in_use && standing.attached && standing.device_is_absent().is_ok() && !standing.is_staged()
}

/// The volume that is here in this one's place: it has no VolumeAttachment for this node, and nothing here uses it.
pub(super) fn stands_in<'a>(view: &View, all: &'a [Standing<'_>], wanted: &Standing<'_>) -> Option<&'a VolumeId> {
    if !is_missed(wanted) || !matches!(wanted.attachment(), Ok(Some(attachment)) if attachment.value.attached) {
        return None;
    }
    waited(view, wanted)?;
    let nobodys = |other: &&Standing<'_>| stale_attachment::is_left(other) && matches!(other.attachment(), Ok(None));
    all.iter().find(nobodys).map(|other| &other.volume)
}

/// A pod that has waited for it for long enough that an attachment would be done.
fn waited<'a>(view: &View, wanted: &Standing<'a>) -> Option<&'a Pod> {
    let long = |pod: &&Pod| pod.created.is_some_and(|created| view.now.wall.duration_since(created) >= LONG_WAIT);
    wanted.users().ok()?.into_iter().filter(|pod| pod.phase == PodPhase::Pending).find(long)
}

fn promise<'a>(mount: &'a MountEntry, settings: &super::Settings) -> Option<Promise<'a>> {
    match mount.volume.as_ref()? {
        // One of another name was not made by the kubelet, and promises nothing.
        VolumePath::Staging { driver, handle_hash } if settings.drivers.contains(driver) => {
            is_hash(handle_hash).then_some(Promise::Hash { driver, hash: handle_hash })
        }
        VolumePath::InTree { plugin, volume } if plugin == IN_TREE_EBS => {
            VolumeId::from_serial(volume).map(Promise::Volume)
        }
        _ => None,
    }
}

impl Promise<'_> {
    fn is_kept_by(&self, found: &VolumeId) -> bool {
        match self {
            Self::Volume(volume) => volume == found,
            Self::Hash { hash, .. } => is_hash_of(hash, found.as_str()) || is_node_local(hash),
        }
    }
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

/// The EBS volume below a mounted device: the device's own, its disk's, or that of the one device that it is mapped to.
fn carried(block: &BlockDevices, device: &BlockDevice) -> Option<VolumeId> {
    let mut device = device;
    // Deeper than anybody stacks them.
    for _ in 0..4 {
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
    mounts.values().filter(|mount| mount.dev == dev).find_map(|mount| pv_of(mount.volume.as_ref()?))
}

fn finding(
    view: &View,
    mount: &MountEntry,
    promise: &Promise<'_>,
    (device, found): (&BlockDevice, &VolumeId),
    pv: Option<&str>,
    (mounts, block): (&Seen<'_, Mounts>, &Seen<'_, BlockDevices>),
) -> Finding {
    let (name, found) = (&device.name, found.as_str());
    let mut evidence = vec![
        mounts.says(format!("{} ({name}) is mounted at {}", mount.dev, mount.point)),
        block.says(format!("{name} is {found}")),
    ];
    let wanted = match promise {
        Promise::Volume(volume) => Some(volume.as_str().to_owned()),
        Promise::Hash { driver, hash } => promised(view, driver, hash, pv, &mut evidence),
    };
    // Who uses it is named by a pod's mount of the same device.
    let user = mounts.value.values().find(|other| other.dev == mount.dev && super::closeness(other) == 2);
    let mut subject = mount_subject(mount, Some(block.value));
    subject.pod = user.and_then(|user| user.volume.as_ref()?.pod().cloned());
    subject.pv = pv.map(str::to_owned);
    let wanted = wanted.unwrap_or_else(|| "another volume, by the name of its directory,".to_owned());
    let whose = user.map_or(String::new(), |user| format!(" ({})", super::describe(user)));
    Finding {
        kind: KIND,
        severity: Severity::Critical,
        subject,
        message: format!("{found} ({name}) is mounted where {wanted} belongs{whose}"),
        evidence,
        advice: crate::catalogue::row(KIND).act.to_owned(),
    }
}

/// The handle whose hash the directory is called by, from whoever knows it; what they say is evidence.
fn promised(view: &View, driver: &str, hash: &str, pv: Option<&str>, evidence: &mut Vec<Evidence>) -> Option<String> {
    let mut handles = Vec::new();
    if let Ok(dirs) = view.kubelet_dirs.known()
        && let Some(data) = dirs.value.staging.get(&hash.to_owned()).and_then(|staged| staged.data.as_ref())
    {
        evidence.push(dirs.says(format!("vol_data.json beside it says {}", data.handle)));
        handles.push(data.handle.clone());
    }
    if let (Some(pv), Ok(answers)) = (pv, view.pvs.known())
        && let Ok(Some(object)) = answers.value.get(pv)
        && let Some(handle) = &object.handle
    {
        evidence.push(answers.says(format!("PersistentVolume {pv} is {handle}")));
        handles.push(handle.clone());
    }
    if let Ok(node) = view.node.known() {
        let of_driver = format!("kubernetes.io/csi/{driver}^");
        let names = node.value.volumes_in_use.iter().chain(node.value.volumes_attached.keys());
        handles.extend(names.filter_map(|name| name.strip_prefix(&of_driver)).map(str::to_owned));
    }
    if let Ok(block) = view.block.known() {
        let volumes = block.value.values().filter_map(|device| device.volume.as_ref());
        handles.extend(volumes.map(|volume| volume.as_str().to_owned()));
    }
    handles.into_iter().find(|handle| is_hash_of(hash, handle))
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
