//! FilesystemError: has a filesystem found errors, or stopped accepting writes?

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{
    DevId, Filesystem, FilesystemKey, FsType, KernelEvent, MountEntry, Mounts, Source, SourceSet, VolumeId, XfsState,
};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::{Seen, View};

const KIND: Kind = Kind::FilesystemError;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Filesystems]),
    parts: SourceSet::of(&[Source::Mounts]),
    decides: SourceSet::NONE,
    uses: SourceSet::of(&[Source::BlockDevices, Source::KernelLog, Source::XfsProbe]),
    judge: Judge::OfView(judge),
};

/// How bad one sign is, what it is, and who says so.
type Sign = (Severity, String, Evidence);

fn judge(view: &View, _: &Settings) -> Vec<Judgement> {
    let filesystems = match view.filesystems.known() {
        Ok(filesystems) => filesystems,
        Err(why) => return vec![Judgement::blind(KIND, why)],
    };
    let mut judgement = Judgement::new(KIND);
    let shut = shut_down(view);
    let mounted = view.mounts.known().map(|mounts| super::mounted_devices(mounts.value)).unwrap_or_default();
    for (key, filesystem) in filesystems.value {
        let mut signs: Vec<Sign> = Vec::new();
        let errors = counted(view, &filesystems.says(""), key, filesystem);
        signs.extend(options(view, &mounted, key, errors.is_some()));
        signs.extend(errors.is_some().then(|| made_read_only(view, key)).flatten());
        signs.extend(errors);
        let asked = if key.fstype == FsType::Xfs { asked(view, key) } else { None };
        let logged = shut.get(key.device.as_str()).filter(|_| key.fstype == FsType::Xfs);
        // Who answers has not shut down, or is another filesystem by now.
        let answers = asked.as_ref().is_some_and(|(state, evidence)| {
            *state == XfsState::Answers && logged.is_none_or(|(_, _, logged)| logged.at <= evidence.at)
        });
        signs.extend(logged.filter(|_| !answers).cloned());
        signs.extend(
            asked.filter(|(state, _)| *state == XfsState::ShutDown).map(|(_, evidence)| shut_down_by(evidence)),
        );
        let blind = view.kmsg.known().err().filter(|_| key.fstype == FsType::Xfs && !answers);
        if signs.is_empty() && blind.is_none() {
            continue;
        }
        let subject = Subject {
            volume: volume_of(view, &key.device),
            ..Subject::new(SubjectType::Filesystem, format!("{}/{}", key.fstype, key.device))
        };
        let Some(finding) = finding(key, subject.clone(), signs) else {
            if let Some(why) = blind {
                judgement.blind_to(subject, why);
            }
            continue;
        };
        let mut finding = finding;
        let user = super::Names::of(view).name_user(&mut finding.subject, &key.device);
        finding.message.push_str(&user);
        judgement.raised.push(finding);
    }
    vec![judgement]
}

fn finding(key: &FilesystemKey, subject: Subject, signs: Vec<Sign>) -> Option<Finding> {
    let severity = signs.iter().map(|(severity, ..)| *severity).max()?;
    let (mut texts, evidence): (Vec<String>, Vec<Evidence>) =
        signs.into_iter().map(|(_, text, seen)| (text, seen)).unzip();
    // Two witnesses may say the same.
    texts.dedup();
    let what = match &subject.volume {
        Some(volume) => format!("{} on {} ({})", key.fstype, volume.as_str(), key.device),
        None => format!("{} on {}", key.fstype, key.device),
    };
    Some(Finding {
        kind: KIND,
        severity,
        subject,
        message: format!("{what} {}", texts.join("; ")),
        evidence,
        advice: crate::catalogue::row(KIND).act.to_owned(),
    })
}

/// ext4's own count, which the superblock keeps until e2fsck runs.
fn counted(view: &View, witness: &Evidence, key: &FilesystemKey, filesystem: &Filesystem) -> Option<Sign> {
    let errors = filesystem.errors.filter(|errors| *errors > 0)?;
    let last = filesystem.last_error.and_then(|s| Timestamp::from_second(s).ok());
    let booted = view.now.wall.checked_sub(view.now.up).ok();
    let this_boot = last.zip(booted).is_some_and(|(last, booted)| last >= booted);
    let when = last.map(|last| format!(", the last at {last:.0}")).unwrap_or_default();
    let place = filesystem.last_error_function.as_ref().map(|f| format!(" in {f}")).unwrap_or_default();
    let fact = format!("errors_count of {} is {errors}{when}{place}", key.device);
    // Errors of an earlier boot stand in the superblock until e2fsck runs: worth knowing, no news.
    let (severity, text) = match this_boot {
        true => (Severity::Warning, format!("has found {}{when}", counted_errors(errors))),
        false => (
            Severity::Info,
            format!("found {} before this boot{when}, and e2fsck has not run since", counted_errors(errors)),
        ),
    };
    Some((severity, text, Evidence { fact, ..witness.clone() }))
}

fn counted_errors(n: u64) -> String {
    if n == 1 { "1 error".to_owned() } else { format!("{n} errors") }
}

/// What the mount table's own options say. `ro` alone may be meant, so it only adds to a count of errors.
fn options(view: &View, mounted: &Mounted<'_>, key: &FilesystemKey, errors: bool) -> Option<Sign> {
    let mounts = view.mounts.known().ok()?;
    let block = view.block.known().ok().map(|block| block.value);
    let dev = block.and_then(|block| block.iter().find(|(_, d)| d.name == key.device)).map(|(dev, _)| *dev);
    let mount = match dev {
        Some(dev) => *mounted.get(&dev)?,
        None => by_source(&mounts, &key.device)?,
    };
    let mut words = ["shutdown", "emergency_ro", "ro"].into_iter().filter(|word| errors || *word != "ro");
    let word = words.find(|word| mount.has_super_option(word))?;
    let text = match word {
        "shutdown" => "has shut down: every access fails",
        _ => "has stopped accepting writes after an error",
    };
    let fact = format!("{} has the option {word} at {}", key.device, mount.point);
    Some((Severity::Critical, text.to_owned(), mounts.says(fact)))
}

/// Kernels from 6.12 until emergency_ro show a remount after an error in the log alone. The count of errors, which
/// e2fsck clears, keeps an old line from speaking of a filesystem that was mended since.
fn made_read_only(view: &View, key: &FilesystemKey) -> Option<Sign> {
    let kmsg = view.kmsg.known().ok()?;
    let about = |event: &KernelEvent| match event {
        KernelEvent::RemountedReadOnly { device } => *device == key.device,
        _ => false,
    };
    let record = kmsg.value.records.iter().rev().find(|record| about(&record.event))?;
    let mut evidence = kmsg.says(format!("EXT4-fs ({}) was remounted read-only", key.device));
    evidence.at = kmsg.at.wall_at(record.up);
    Some((Severity::Critical, "was made read-only by the kernel".to_owned(), evidence))
}

/// The first mount of each block device.
type Mounted<'a> = BTreeMap<DevId, &'a MountEntry>;

fn by_source<'a>(mounts: &Seen<'a, Mounts>, device: &str) -> Option<&'a MountEntry> {
    let source = format!("/dev/{device}");
    mounts.value.values().find(|mount| *mount.source == *source)
}

/// What the filesystem said when it was asked, by the device that stands under its name now.
fn asked(view: &View, key: &FilesystemKey) -> Option<(XfsState, Evidence)> {
    let probes = view.xfs_probe.known().ok()?;
    let block = view.block.known().ok()?.value;
    let dev = block.iter().find(|(_, device)| device.name == key.device).map(|(dev, _)| *dev)?;
    let state = *probes.value.get(&dev)?;
    let fact = match state {
        XfsState::Answers => format!("XFS ({}) answers", key.device),
        XfsState::ShutDown => format!("XFS ({}) fails every access (EIO)", key.device),
    };
    Some((state, probes.says(fact)))
}

fn shut_down_by(evidence: Evidence) -> Sign {
    (Severity::Critical, "has shut down: every access fails".to_owned(), evidence)
}

/// XFS filesystems that shut down and were not mounted or unmounted since, by device.
fn shut_down(view: &View) -> BTreeMap<&str, Sign> {
    let Ok(kmsg) = view.kmsg.known() else { return BTreeMap::new() };
    let mut shut = BTreeMap::new();
    for record in kmsg.value.records.iter() {
        match &record.event {
            KernelEvent::XfsShutdown { device } => {
                let when = kmsg.at.wall_at(record.up);
                let mut evidence = kmsg.says(format!("XFS ({device}) shut down"));
                evidence.at = when;
                let text = "has shut down: every access fails".to_owned();
                shut.insert(device.as_str(), (Severity::Critical, text, evidence));
            }
            KernelEvent::XfsMountChanged { device } => {
                shut.remove(device.as_str());
            }
            _ => {}
        }
    }
    shut
}

fn volume_of(view: &View, device: &str) -> Option<VolumeId> {
    let block = view.block.known().ok()?.value;
    super::volume_of(block, super::named(block, device)?)
}
