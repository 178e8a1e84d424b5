//! DeadMount: is there a mount whose device is gone?

use std::collections::BTreeMap;

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{
    BlockDevices, Cause, KubeletDirs, MountEntry, Mounts, NotAbsent, Source, SourceSet, Unknown, VolumeId, VolumePath,
};
use crate::finding::{Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::{Seen, View};

use super::{describe, pv_of};

const KIND: Kind = Kind::DeadMount;

/// Mounts of one device that are named in the evidence.
const MOST_NAMED: usize = 10;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Mounts, Source::BlockDevices]),
    parts: SourceSet::NONE,
    uses: SourceSet::of(&[Source::KubeletDirs]),
    judge: Judge::OfView(judge),
};

/// A device as its mounts know it: by number, or for raw-block binds by name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Device<'a> {
    Number(crate::facts::DevId),
    Name(&'a str),
}

fn judge(view: &View, _: &Settings) -> Vec<Judgement> {
    let (mounts, block) = match (view.mounts.known(), view.block.known()) {
        (Ok(mounts), Ok(block)) => (mounts, block),
        (Err(why), _) | (_, Err(why)) => return vec![Judgement::blind(KIND, why)],
    };
    // A list of devices without the one that carries `/` is not whole, whatever it says of itself.
    if let Some(why) = lacks_root_device(&mounts, &block) {
        return vec![Judgement::blind(KIND, &why)];
    }
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
    let mut judgement = Judgement::new(KIND);
    for (device, on_it) in by_device {
        let absent = match device {
            Device::Number(dev) => block.value.lacks(&dev),
            Device::Name(name) => block.value.lacks_any(|device| device.name == name),
        };
        if matches!(absent, Err(NotAbsent::Present(_))) {
            continue;
        }
        let Some(subject) = subject(&device, &on_it, view) else { continue };
        match absent {
            Err(NotAbsent::Unknown(why)) => judgement.blind_to(subject, why),
            _ => judgement.raised.push(finding(&device, &on_it, subject, &mounts, &block)),
        }
    }
    vec![judgement]
}

fn finding(
    device: &Device<'_>,
    on_it: &[&MountEntry],
    subject: Subject,
    mounts: &Seen<'_, Mounts>,
    block: &Seen<'_, BlockDevices>,
) -> Finding {
    let number = match device {
        Device::Number(dev) => dev.to_string(),
        Device::Name(name) => (*name).to_owned(),
    };
    let mut evidence = vec![block.says(format!("there is no block device {number}"))];
    evidence.extend(on_it.iter().take(MOST_NAMED).map(|mount| {
        mounts.says(format!("{number} is mounted at {} as {}: {}", mount.point, mount.fstype, describe(mount)))
    }));
    let what = match &subject.volume {
        Some(volume) => format!("{} ({})", volume.as_str(), subject.id),
        None => subject.id.clone(),
    };
    // The pod's own mount says more than the staging that every volume has.
    let best = on_it.iter().rev().max_by_key(|mount| super::closeness(mount));
    let whose = best.map(|mount| match &mount.volume {
        Some(_) => describe(mount),
        None => format!("{} at {}", describe(mount), mount.point),
    });
    let whose = whose.unwrap_or_default();
    let more = match on_it.len() {
        0 | 1 => String::new(),
        2 => ", and 1 more mount".to_owned(),
        n => format!(", and {} more mounts", n - 1),
    };
    let volumes = on_it.iter().any(|mount| mount.volume.is_some());
    Finding {
        kind: KIND,
        severity: if volumes { Severity::Critical } else { Severity::Warning },
        subject,
        message: format!("{what} is gone under its mounts: {whose}{more}"),
        evidence,
        advice: crate::catalogue::row(KIND).act.to_owned(),
    }
}

/// The device by the name that it had, with the pod and volume that its mounts name.
fn subject(device: &Device<'_>, on_it: &[&MountEntry], view: &View) -> Option<Subject> {
    let first = on_it.first()?;
    let name = match device {
        Device::Name(name) => name,
        Device::Number(_) => first.source.strip_prefix("/dev/").unwrap_or(&first.source),
    };
    let mut subject = Subject::new(SubjectType::Device, name);
    let paths = || on_it.iter().filter_map(|mount| mount.volume.as_ref());
    subject.pod = paths().find_map(VolumePath::pod).cloned();
    subject.pv = paths().find_map(pv_of).map(str::to_owned);
    let dirs = view.kubelet_dirs.known().ok();
    subject.volume = dirs.and_then(|dirs| paths().find_map(|path| recorded_volume(dirs.value, path)));
    Some(subject)
}

/// The volume id that the kubelet wrote beside the mount: the device that could tell it is gone.
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

fn lacks_root_device(mounts: &Mounts, block: &BlockDevices) -> Option<Unknown> {
    let root = mounts.values().find(|mount| &*mount.point == "/" && mount.has_device())?;
    block.lacks(&root.dev).ok()?;
    let why = format!("the list of block devices lacks {}, which carries /", root.dev);
    Some(Unknown::new(Cause::Incomplete, why))
}
