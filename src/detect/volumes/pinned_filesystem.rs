//! PinnedFilesystem: is a filesystem alive that the host no longer mounts, and who holds it?

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{
    BlockDevice, BlockDevices, Cause, DevId, FilesystemKey, Mounts, NotAbsent, Question, Source, SourceSet, Unknown,
};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::View;

use super::holders::Holders;

const KIND: Kind = Kind::PinnedFilesystem;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Mounts, Source::Filesystems]),
    parts: SourceSet::of(&[Source::BlockDevices]),
    decides: SourceSet::NONE,
    uses: SourceSet::of(&[Source::MountHolders, Source::Pods, Source::KubeletConfig]),
    judge: Judge::OfView(judge),
};

fn judge(view: &View, _: &Settings) -> Vec<Judgement> {
    let (mounts, filesystems) = match (view.mounts.known(), view.filesystems.known()) {
        (Ok(mounts), Ok(filesystems)) => (mounts, filesystems),
        (Err(why), _) | (_, Err(why)) => return vec![Judgement::blind(KIND, why)],
    };
    let block = view.block.known().ok().map(|block| block.value);
    let mounted = super::mounted_devices(mounts.value);
    let mut judgement = Judgement::new(KIND);
    for key in filesystems.value.iter().map(|(key, _)| key) {
        let found = block.and_then(|block| device(block, &key.device));
        if found.is_some_and(|(dev, _)| mounted.contains_key(&dev)) {
            continue;
        }
        let subject = Subject {
            volume: found.and_then(|(_, device)| super::volume_of(block?, device)),
            ..Subject::new(SubjectType::Filesystem, format!("{}/{}", key.fstype, key.device))
        };
        let dev = found.map(|(dev, _)| dev);
        let unmounted = match not_mounted(&mounts, block.is_some(), dev, key) {
            Ok(evidence) => mounts.says(evidence),
            Err(Some(why)) => {
                judgement.blind_to(subject, &why);
                continue;
            }
            Err(None) => continue,
        };
        judgement.asks.extend(dev.map(Question::MountHolders));
        let alive = filesystems.says(format!("the {} filesystem on {} is alive", key.fstype, key.device));
        judgement.raised.push(finding(view, key, subject, found, vec![alive, unmounted]));
    }
    vec![judgement]
}

/// What shows that the host does not mount this filesystem; otherwise why that is not known, if it is not.
fn not_mounted(
    mounts: &Mounts,
    devices_known: bool,
    dev: Option<DevId>,
    key: &FilesystemKey,
) -> Result<String, Option<Unknown>> {
    let source = format!("/dev/{}", key.device);
    let is_it = |mount: &crate::facts::MountEntry| match dev {
        Some(dev) => mount.dev == dev,
        // The device is gone, and its number with it: only the name at mount time is left to go by.
        None => *mount.source == *source,
    };
    match mounts.lacks_any(is_it) {
        Ok(_) if !devices_known => Err(Some(Unknown::new(Cause::Incomplete, "the block devices are not known"))),
        Ok(_) => Ok(format!("the host has no mount of {}", key.device)),
        Err(NotAbsent::Present(_)) => Err(None),
        Err(NotAbsent::Unknown(why)) => Err(Some(why.clone())),
    }
}

fn device<'a>(block: &'a BlockDevices, name: &str) -> Option<(DevId, &'a BlockDevice)> {
    block.iter().find(|(_, device)| device.name == name).map(|(dev, device)| (*dev, device))
}

fn finding(
    view: &View,
    key: &FilesystemKey,
    subject: Subject,
    device: Option<(DevId, &BlockDevice)>,
    mut seen: Vec<Evidence>,
) -> Finding {
    let used_by = device.map(|(_, d)| d.holders.join(", ")).filter(|h| !h.is_empty());
    let holders = device.and_then(|(dev, _)| Holders::of_view(view).of(dev, &mut seen));
    let who = match holders.as_deref() {
        Some([]) => "no other mount namespace has it: an open file or a lazy unmount keeps it".to_owned(),
        Some([first, rest @ ..]) => {
            let copy = Holders::of_view(view).copy_of_the_host(first);
            let copy = copy.map(|at| format!(" in a copy of the host's tree at {at}")).unwrap_or_default();
            format!("{}{}{copy}", Holders::of_view(view).name(first), more(rest.len()))
        }
        None => {
            used_by.map_or_else(|| "who holds it is not known yet".to_owned(), |used| format!("{used} is built on it"))
        }
    };
    let what = match &subject.volume {
        Some(volume) => format!("{} ({})", volume.as_str(), key.device),
        None => key.device.clone(),
    };
    // A container may mount a device for itself alone, and rightly; a volume that came from EBS was the host's.
    let severity = if subject.volume.is_some() { Severity::Warning } else { Severity::Info };
    Finding {
        kind: KIND,
        severity,
        message: format!("the {} filesystem on {what} is alive although the host does not mount it: {who}", key.fstype),
        subject,
        evidence: seen,
        advice: crate::catalogue::row(KIND).act.to_owned(),
    }
}

fn more(n: usize) -> String {
    if n == 0 { " holds it".to_owned() } else { format!(" and {n} more hold it") }
}
