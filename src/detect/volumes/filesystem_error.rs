//! FilesystemError: has a filesystem found errors, or stopped accepting writes?

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::slice;

use jiff::Timestamp;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{
    BlockDevices, Cause, DevId, DeviceName, Filesystem, FilesystemKey, Filesystems, FsType, KernelEvent, KernelLog,
    KernelRecord, MountEntry, MountId, Mounts, NodeTime, Part, Tri, Unknown, XfsProbes, XfsState,
};
use crate::finding::{Evidence, Finding, FindingKey, Kind, Object, ObjectType, Severity};
use crate::view::input::{
    BesideDisks, BesideFilesystems, BesideMounts, BesideProbes, Input, Known, LogBesideDisks, LogBesideFilesystems,
    LogBesideMounts, LogBesideProbes, Maybe, MaybePair, Paired,
};
use crate::view::{MountsSince, Seen, sources};

use super::Names;
use super::dead_mount::DeadDevices;

const KIND: Kind = Kind::FilesystemError;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<FilesystemError>();

struct FilesystemError;

impl Detect for FilesystemError {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        MaybePair<sources::Filesystems>,
        Maybe<sources::Mounts>,
        Maybe<sources::BlockDevices>,
        Maybe<sources::KernelLog>,
        Maybe<sources::XfsProbe>,
        Maybe<sources::NvmeControllers>,
        LogBesideMounts,
        LogBesideDisks,
        LogBesideFilesystems,
        LogBesideProbes,
        Names<'static>,
    );

    fn evaluate(
        (filesystems, mounts, block, kmsg, probes, nvme, history, disks, superblocks, answers, names): <Self::In as Input>::Of<
            '_,
        >,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let mut mounted = mounts.seen().map(|mounts| Mounted::of(&mounts)).unwrap_or_default();
        let sources = Sources { mounts, block, kmsg, probes, history, disks, superblocks, answers, now: around.now };
        let dead = LazyCell::new(|| mounts.seen().ok().map(|mounts| DeadDevices::of(&mounts, block.seen(), nvme)));
        // A device that is gone takes its filesystem with it: that finding has the cause and what to do.
        let follows = |dev: Option<DevId>| match dev.and_then(|dev| Some((dead.as_ref()?, dev))) {
            Some((dead, dev)) => dead.finding_of(dev),
            None => Tri::No(()),
        };
        let both = filesystems.seen();
        let filesystems = both.map(|both| both.now);
        match both {
            Ok(both) => {
                for (key, entry) in both.now.value {
                    let entry = both.now.with(entry);
                    let mount = match key.fstype {
                        FsType::Ext4 | FsType::Xfs => sources.mount_of(&mut mounted, key),
                        FsType::Btrfs => sources.mount_of_btrfs(&mut mounted, entry.value),
                    };
                    let dev = match &mount {
                        Tri::Yes(of) if of.first.has_device() => Some(of.first.dev),
                        _ => None,
                    };
                    let decision = match key.fstype {
                        FsType::Ext4 => sources.ext4_and_lost(key, Entry::Seen(entry), mount),
                        FsType::Xfs => sources.xfs(key, mount),
                        FsType::Btrfs => sources.btrfs((key, entry), &both, mount),
                    };
                    decide(key, decision, || follows(dev), names, out);
                }
            }
            Err(why) => out.rest(KIND, why),
        }
        // A filesystem that is mounted is alive: a list that lacks it is not whole, whatever it says of itself.
        let incomplete = filesystems.map_or_else(Some, |seen| seen.value.incomplete());
        for (dev, of) in mounted.by_dev.iter().filter(|(_, of)| !of.listed) {
            let key = of.key(sources.name(*dev, of));
            let why = || incomplete.cloned().unwrap_or_else(|| unlisted(&key));
            let decision = match key.fstype {
                FsType::Ext4 => sources.ext4_and_lost(&key, Entry::Unknown(why()), Tri::Yes(of.clone())),
                FsType::Xfs => sources.xfs(&key, Tri::Yes(of.clone())),
                // A link to a device of device mapper is not the name that /sys/fs has.
                FsType::Btrfs if key.device.contains('/') => continue,
                FsType::Btrfs => Tri::Unknown(why()),
            };
            let decision = match decision {
                Tri::No(_) => Tri::Unknown(why()),
                other => other,
            };
            decide(&key, decision, || follows(Some(*dev)), names, out);
        }
        // A filesystem that /sys/fs does not list is known by its mount alone.
        let unmounted = || mounts.seen().map_or_else(Some, |mounts| mounts.value.incomplete());
        out.listed(KIND, incomplete.or_else(unmounted));
    }
}

fn decide(
    key: &FilesystemKey,
    decision: Tri<Signs>,
    follows: impl Fn() -> Tri<FindingKey, ()>,
    names: Names<'_>,
    out: &mut Evaluation,
) {
    let object = || Object {
        volume: names.volume(&key.device),
        ..Object::new(ObjectType::Filesystem, format!("{}/{}", key.fstype, key.device))
    };
    let decision = decision.map(|signs| Raised { shown_under: follows(), ..raised(key, object(), signs, names) });
    out.decide(KIND, object, decision);
}

fn unlisted(key: &FilesystemKey) -> Unknown {
    let FilesystemKey { fstype, device } = key;
    let why =
        format!("{fstype} is mounted from {device}, and /sys/fs/{fstype} does not have it: its state is not known");
    Unknown::new(Cause::Missing, why)
}

/// How bad one sign is, what it is, and which source shows it.
type Sign = (Severity, String, Evidence);

/// What shows that something is wrong, and why it may be worse.
struct Signs {
    signs: Vec<Sign>,
    more_unknown: Option<Unknown>,
}

impl From<Sign> for Signs {
    fn from(sign: Sign) -> Self {
        Self { signs: vec![sign], more_unknown: None }
    }
}

fn raised(key: &FilesystemKey, mut object: Object, signs: Signs, names: Names<'_>) -> Raised {
    let Signs { signs, more_unknown } = signs;
    let severity = signs.iter().map(|(severity, ..)| *severity).max().unwrap_or(Severity::Info);
    let (mut texts, evidence): (Vec<String>, Vec<Evidence>) =
        signs.into_iter().map(|(_, text, seen)| (text, seen)).unzip();
    // Two sources may say the same.
    texts.dedup();
    let what = match &object.volume {
        Some(volume) => format!("{} on {} ({})", key.fstype, volume.as_str(), key.device),
        None => format!("{} on {}", key.fstype, key.device),
    };
    let user = names.name_user(&mut object, &key.device);
    let finding = Finding {
        kind: KIND,
        severity,
        object,
        message: format!("{what} {}{user}", texts.join("; ")),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    };
    Raised { severity_unknown: more_unknown.filter(|_| severity < Severity::Critical), ..finding.into() }
}

/// The mounts of one filesystem.
#[derive(Clone)]
struct OnDevice<'v> {
    fstype: FsType,
    first: &'v MountEntry,
    /// A mount that is not read-only by its own options: it was meant for writing.
    writable: Option<&'v MountEntry>,
    /// All of them, by their numbers.
    ids: Vec<MountId>,
    /// Whether `/sys/fs` lists it.
    listed: bool,
}

impl OnDevice<'_> {
    fn key(&self, device: &str) -> FilesystemKey {
        FilesystemKey { fstype: self.fstype, device: device.to_owned() }
    }
}

/// The filesystems of these types that are mounted, by device: of thousands of mounts most are of other types.
#[derive(Default)]
struct Mounted<'v> {
    by_dev: BTreeMap<DevId, OnDevice<'v>>,
    /// The lowest of the devices that were mounted by a name.
    by_source: BTreeMap<(FsType, &'v str), DevId>,
}

impl<'v> Mounted<'v> {
    fn of(mounts: &Seen<'v, Mounts>) -> Self {
        let mut mounted: BTreeMap<DevId, OnDevice<'v>> = BTreeMap::new();
        for (id, mount) in mounts.value {
            let Some(fstype) = FsType::of_mount(&mount.fstype) else { continue };
            // Mounts of btrfs have a number that no device has.
            if !mount.has_device() && (fstype != FsType::Btrfs || !mount.source.starts_with("/dev/")) {
                continue;
            }
            let of = mounted.entry(mount.dev);
            let of = of.or_insert(OnDevice { fstype, first: mount, writable: None, ids: Vec::new(), listed: false });
            of.ids.push(*id);
            if mount.options.split(',').any(|option| option == "rw") {
                of.writable.get_or_insert(mount);
            }
        }
        let mut by_source = BTreeMap::new();
        for (dev, of) in &mounted {
            by_source.entry((of.fstype, &*of.first.source)).or_insert(*dev);
        }
        Self { by_dev: mounted, by_source }
    }

    /// Whether a btrfs is mounted by a name that is no device's own.
    fn has_btrfs_by_a_link(&self) -> bool {
        let is_link = |source: &str| source.strip_prefix("/dev/").is_some_and(|name| name.contains('/'));
        self.by_source.keys().any(|(fstype, source)| *fstype == FsType::Btrfs && is_link(source))
    }
}

/// What `/sys/fs` has of an ext4 filesystem.
enum Entry<'v> {
    Seen(Seen<'v, Filesystem>),
    Unknown(Unknown),
}

struct Sources<'v> {
    mounts: Known<'v, Mounts>,
    block: Known<'v, BlockDevices>,
    kmsg: Known<'v, KernelLog>,
    probes: Known<'v, XfsProbes>,
    history: BesideMounts<'v>,
    disks: BesideDisks<'v>,
    superblocks: BesideFilesystems<'v>,
    answers: BesideProbes<'v>,
    now: NodeTime,
}

/// What the numbers of its mounts say of a filesystem, which are given again, and its directory below `/sys/fs`.
fn both(mounts: MountsSince, superblock: Option<MountsSince>) -> MountsSince {
    match (superblock, mounts) {
        (Some(MountsSince::New), _) => MountsSince::New,
        (Some(MountsSince::Unclear), MountsSince::Same) => MountsSince::Unclear,
        (_, mounts) => mounts,
    }
}

impl<'v> Sources<'v> {
    /// Whether a filesystem, given the numbers of its mounts, is the one that there was when the record came.
    fn since(
        &self,
        record: &KernelRecord,
        (key, instance): (&FilesystemKey, Option<u64>),
        ids: &[MountId],
    ) -> MountsSince {
        both(self.history.since(record, ids.iter().copied()), self.superblocks.since(record, key, instance))
    }

    /// The same of the last loss of records.
    fn since_loss(&self, key: &FilesystemKey, ids: &[MountId]) -> MountsSince {
        both(self.history.since_loss(ids.iter().copied()), self.superblocks.since_loss(key, None))
    }

    /// The mounts of a filesystem that is on these devices; those that were last seen where they cannot be read now.
    fn ids(&self, devices: &[DeviceName], mount: &Tri<OnDevice<'v>>) -> Vec<MountId> {
        match mount {
            Tri::Yes(of) => of.ids.clone(),
            Tri::No(_) => Vec::new(),
            Tri::Unknown(_) => devices.iter().flat_map(|device| self.history.last(device)).collect(),
        }
    }

    /// The device that has this name now.
    fn dev(&self, name: &str) -> Tri<DevId> {
        self.block.ask(|block| block.has(block.value.named(name)).map(|(dev, _)| dev))
    }

    /// The device's name now or, where that is not known, when it was mounted.
    fn name<'a>(&self, dev: DevId, of: &OnDevice<'a>) -> &'a str
    where
        'v: 'a,
    {
        let now = self.block.seen().ok().and_then(|block| block.value.get(&dev)).map(|device| device.name.as_str());
        now.unwrap_or_else(|| of.first.source.strip_prefix("/dev/").unwrap_or(&of.first.source))
    }

    /// The mounts of a filesystem that `/sys/fs` lists, which are marked so.
    fn mount_of(&self, mounted: &mut Mounted<'v>, key: &FilesystemKey) -> Tri<OnDevice<'v>> {
        let mut by_source = || {
            let source = format!("/dev/{}", key.device);
            let dev = mounted.by_source.get(&(key.fstype, source.as_str()))?;
            mounted.by_dev.get_mut(dev).map(|of| {
                of.listed = true;
                of.clone()
            })
        };
        let found = match self.dev(&key.device) {
            Tri::Yes(dev) => mounted.by_dev.get_mut(&dev).filter(|of| of.fstype == key.fstype).map(|of| {
                of.listed = true;
                of.clone()
            }),
            // The device is gone, and its number with it: only the name at mount time is left to go by.
            Tri::No(_) => by_source(),
            Tri::Unknown(why) => return by_source().map_or(Tri::Unknown(why), Tri::Yes),
        };
        self.mounts.ask(|mounts| match (found, mounts.value.incomplete()) {
            (Some(found), _) => Tri::Yes(found),
            (None, Some(why)) => Tri::Unknown(why.clone()),
            (None, None) => Tri::No(mounts.no()),
        })
    }

    /// The same of btrfs, by the names of its devices: the first of them that was mounted.
    fn mount_of_btrfs(&self, mounted: &mut Mounted<'v>, entry: &Filesystem) -> Tri<OnDevice<'v>> {
        let mut found = None;
        for device in &entry.devices {
            let source = format!("/dev/{device}");
            let of =
                mounted.by_source.get(&(FsType::Btrfs, source.as_str())).and_then(|dev| mounted.by_dev.get_mut(dev));
            if let Some(of) = of {
                of.listed = true;
                found.get_or_insert(of.clone());
            }
        }
        self.mounts.ask(|mounts| match (found, mounts.value.incomplete()) {
            (Some(found), _) => Tri::Yes(found),
            (None, Some(why)) => Tri::Unknown(why.clone()),
            // The kernel lists dm-0 where the mount table has /dev/mapper/NAME.
            (None, None) if mounted.has_btrfs_by_a_link() => {
                let why = "btrfs is mounted by a link below /dev: which filesystem that is is not known";
                Tri::Unknown(Unknown::new(Cause::Missing, why))
            }
            (None, None) => Tri::No(mounts.no()),
        })
    }

    /// btrfs: that it was made read-only, by the options of its mounts or by the log; what the log reports of it; and what it counts
    /// of its devices, which no time is kept of.
    fn btrfs(
        &self,
        (key, entry): (&FilesystemKey, Seen<'v, Filesystem>),
        both: &Paired<'v, Filesystems>,
        mount: Tri<OnDevice<'v>>,
    ) -> Tri<Signs> {
        // A filesystem that is meant to be read-only is mounted so: below a writable mount an error made it read-only.
        let writable = mount.clone().and_then(|of| match of.writable {
            Some(writable) => self.option(key, writable, &["ro"]),
            None => self.mounts.ask(|mounts| Tri::No(mounts.no())),
        });
        let ids = self.ids(&entry.value.devices, &mount);
        let logged =
            [true, false].map(|made_read_only| match self.btrfs_logged((key, entry.value), made_read_only, &ids) {
                // Where there is no log, the other signs are all there are.
                Tri::Unknown(why) if why.cause.is_not_offered() => self.mounts.ask(|mounts| Tri::No(mounts.no())),
                logged => logged,
            });
        let [read_only, reported] = logged;
        let (counted, mut unknown) = match btrfs_counted(key, entry, both) {
            Tri::Yes((sign, unknown)) => (Tri::Yes(sign), unknown),
            Tri::No(no) => (Tri::No(no), None),
            Tri::Unknown(why) => (Tri::Unknown(why), None),
        };
        let all = [writable, read_only, reported, counted];
        let (mut signs, mut no) = (Vec::new(), None);
        for sign in all {
            match sign {
                Tri::Yes(sign) => signs.push(sign),
                Tri::No(by) => no = no.or(Some(by)),
                Tri::Unknown(why) => unknown = unknown.or(Some(why)),
            }
        }
        match (signs.is_empty(), unknown, no) {
            (false, more_unknown, _) => Tri::Yes(Signs { signs, more_unknown }),
            (true, Some(why), _) => Tri::Unknown(why),
            (true, None, no) => Tri::No(no.unwrap_or_else(|| entry.no())),
        }
    }

    /// What the log reports of a btrfs filesystem since it was mounted.
    fn btrfs_logged(
        &self,
        (key, of): (&FilesystemKey, &Filesystem),
        made_read_only: bool,
        ids: &[MountId],
    ) -> Tri<Sign> {
        self.kmsg.ask(|kmsg| {
            let about = |record: &&KernelRecord| match &record.event {
                KernelEvent::RemountedReadOnly { device } if made_read_only => of.devices.contains(device),
                KernelEvent::BtrfsError { device } if !made_read_only => of.devices.contains(device),
                _ => false,
            };
            let about = |record: &&KernelRecord| {
                about(record) && !of.devices.iter().any(|device| self.disks.is_of_another_disk(record, device))
            };
            let Some(record) = kmsg.value.records.iter().rev().find(about) else { return not_logged(&kmsg) };
            if self.since(record, (key, of.instance), ids) == MountsSince::New {
                return self.no_by_mounts();
            }
            let (severity, text, fact) = match made_read_only {
                true => (Severity::Critical, "was made read-only by the kernel", "btrfs was forced read-only"),
                false => (Severity::Warning, "has reported errors", "btrfs reported an error"),
            };
            Tri::Yes((severity, text.to_owned(), kmsg.reports(record, fact)))
        })
    }

    /// ext4: what it shows itself, and data that it lost without an error of its metadata, which the log alone shows.
    fn ext4_and_lost(&self, key: &FilesystemKey, entry: Entry<'v>, mount: Tri<OnDevice<'v>>) -> Tri<Signs> {
        let lost = self.lost(key, &mount);
        self.with_logged(self.ext4(key, entry, mount), lost)
    }

    /// What a filesystem shows itself, with a sign that the log alone has.
    fn with_logged(&self, shown: Tri<Signs>, logged: Tri<Sign>) -> Tri<Signs> {
        match (shown, logged) {
            (Tri::Yes(mut signs), Tri::Yes(sign)) => {
                signs.signs.push(sign);
                Tri::Yes(signs)
            }
            (Tri::Unknown(why), Tri::Yes(sign)) => Tri::Yes(Signs { more_unknown: Some(why), signs: vec![sign] }),
            (Tri::No(_), Tri::Yes(sign)) => Tri::Yes(sign.into()),
            // Where there is no log, the other signs are all there are.
            (Tri::No(_), Tri::Unknown(why)) if !why.cause.is_not_offered() => Tri::Unknown(why),
            (shown, Tri::No(_) | Tri::Unknown(_)) => shown,
        }
    }

    /// Whether the log reports that data of this filesystem was lost since it was mounted.
    fn lost(&self, key: &FilesystemKey, mount: &Tri<OnDevice<'v>>) -> Tri<Sign> {
        let name = key.device.as_str();
        let ids = self.ids(slice::from_ref(&key.device), mount);
        let ids = ids.as_slice();
        self.kmsg.ask(|kmsg| {
            let about = |record: &&KernelRecord| {
                matches!(&record.event, KernelEvent::Ext4DataLost { device } if device == name)
                    && !self.disks.is_of_another_disk(record, name)
            };
            match kmsg.value.records.iter().rev().find(about) {
                Some(record) if self.since(record, (key, None), ids) == MountsSince::New => self.no_by_mounts(),
                Some(record) => {
                    let fact = format!(
                        "EXT4-fs ({name}) could not allocate blocks for data that was written, or not record them"
                    );
                    let text =
                        "has lost data that was written, as it could not allocate blocks for it or not record them";
                    let text = text.to_owned();
                    Tri::Yes((Severity::Warning, text, kmsg.reports(record, fact)))
                }
                None if self.since_loss(key, ids) == MountsSince::New => self.no_by_mounts(),
                None => not_logged(&kmsg),
            }
        })
    }

    /// ext4: its own count of errors, and what the options of its mounts show.
    fn ext4(&self, key: &FilesystemKey, entry: Entry<'v>, mount: Tri<OnDevice<'v>>) -> Tri<Signs> {
        let stopped = mount.clone().and_then(|of| self.option(key, of.first, &["shutdown", "emergency_ro"]));
        let count = match &entry {
            Entry::Seen(entry) => counted(self.now, key, *entry),
            Entry::Unknown(why) => Tri::Unknown(why.clone()),
        };
        match (count, stopped) {
            (Tri::Yes((count, unknown)), stopped) => {
                // `ro` alone may be meant, so it only adds to a count of errors, below a mount that was meant for writing.
                let read_only = |of: OnDevice<'v>| match of.writable {
                    Some(writable) => self.option(key, writable, &["ro"]),
                    None => self.mounts.ask(|mounts| Tri::No(mounts.no())),
                };
                let stopped = stopped.or_else(|| mount.and_then(read_only));
                let last_error = match &entry {
                    Entry::Seen(entry) => last_error(entry.value).ok().flatten(),
                    Entry::Unknown(_) => None,
                };
                let logged = self.made_read_only(key, last_error);
                let mut more_unknown = unknown;
                let mut signs = Vec::new();
                for sign in [stopped, logged] {
                    match sign {
                        Tri::Yes(sign) => signs.push(sign),
                        Tri::No(_) => {}
                        Tri::Unknown(why) => more_unknown = more_unknown.or(Some(why)),
                    }
                }
                signs.push(count);
                Tri::Yes(Signs { signs, more_unknown })
            }
            (_, Tri::Yes(stopped)) => Tri::Yes(stopped.into()),
            // A filesystem that is meant to be read-only is mounted so: below a writable mount an error made it read-only.
            (Tri::Unknown(why), Tri::No(_)) => {
                let made = mount.and_then(|of| match of.writable {
                    Some(writable) => self.option(key, writable, &["ro"]),
                    None => Tri::Unknown(why.clone()),
                });
                match made {
                    Tri::Yes(made) => Tri::Yes(made.into()),
                    Tri::No(_) | Tri::Unknown(_) => Tri::Unknown(why),
                }
            }
            (Tri::No(_), Tri::Unknown(why)) | (Tri::Unknown(why), Tri::Unknown(_)) => Tri::Unknown(why),
            (Tri::No(no), Tri::No(_)) => Tri::No(no),
        }
    }

    /// The first of these words that is among the filesystem's own options.
    fn option(&self, key: &FilesystemKey, mount: &MountEntry, words: &[&str]) -> Tri<Sign> {
        self.mounts.ask(|mounts| {
            let Some(word) = words.iter().find(|word| mount.has_super_option(word)) else {
                return Tri::No(mounts.no());
            };
            let text = match *word {
                "shutdown" => SHUT_DOWN,
                _ => "has stopped accepting writes after an error",
            };
            let fact = format!("{} has the option {word} at {}", key.device, mount.point);
            Tri::Yes((Severity::Critical, text.to_owned(), mounts.says(fact)))
        })
    }

    /// Kernels from 6.12 until emergency_ro show a remount after an error in the log alone. The count of errors, which
    /// e2fsck clears, keeps an old line from speaking of a filesystem that was mended since; that the kernel dates an error before it
    /// writes the line, one from speaking of another filesystem.
    fn made_read_only(&self, key: &FilesystemKey, last_error: Option<Timestamp>) -> Tri<Sign> {
        let found = self.kmsg.ask(|kmsg| {
            let latest = last_error.and_then(|last| last.checked_add(CLOCKS_APART).ok());
            let about = |record: &&KernelRecord| {
                matches!(&record.event, KernelEvent::RemountedReadOnly { device } if *device == key.device)
                    && !self.disks.is_of_another_disk(record, &key.device)
                    && latest.is_none_or(|latest| kmsg.at.wall_at(record.up) <= latest)
            };
            match kmsg.value.records.iter().rev().find(about) {
                Some(record) if self.superblocks.since(record, key, None) == Some(MountsSince::New) => {
                    Tri::No(kmsg.no())
                }
                None if self.superblocks.since_loss(key, None) == Some(MountsSince::New) => Tri::No(kmsg.no()),
                Some(record) => {
                    let evidence = kmsg.reports(record, format!("EXT4-fs ({}) was remounted read-only", key.device));
                    Tri::Yes((Severity::Critical, "was made read-only by the kernel".to_owned(), evidence))
                }
                None => not_logged(&kmsg),
            }
        });
        match found {
            // Where there is no log, the other signs are all there are.
            Tri::Unknown(why) if why.cause.is_not_offered() => self.mounts.ask(|mounts| Tri::No(mounts.no())),
            found => found,
        }
    }

    /// xfs: what it says when it is asked, and what the log says. The options of its mounts never show it.
    fn xfs(&self, key: &FilesystemKey, mount: Tri<OnDevice<'v>>) -> Tri<Signs> {
        // Corruption that it survives shows in the log alone.
        let corrupt = self.corrupt(key, &mount);
        self.with_logged(self.alive(key, mount), corrupt)
    }

    /// Whether the log reports corruption of this filesystem since it was mounted.
    fn corrupt(&self, key: &FilesystemKey, mount: &Tri<OnDevice<'v>>) -> Tri<Sign> {
        let name = key.device.as_str();
        self.kmsg.ask(|kmsg| {
            let about = |record: &&KernelRecord| {
                matches!(&record.event, KernelEvent::XfsCorruption { device } if device == name)
                    && !self.disks.is_of_another_disk(record, name)
            };
            let Some(record) = kmsg.value.records.iter().rev().find(about) else { return not_logged(&kmsg) };
            let ids = self.ids(slice::from_ref(&key.device), mount);
            let mounted = |later: &KernelRecord| {
                later.up > record.up
                    && matches!(&later.event, KernelEvent::XfsMountChanged { device } if device == name)
            };
            match self.since(record, (key, None), &ids) {
                MountsSince::New => return self.no_by_mounts(),
                // Another filesystem may have the name by then.
                MountsSince::Unclear if kmsg.value.records.iter().any(mounted) => {
                    let why = format!(
                        "the kernel's log reports corruption of {name} and that it was mounted or unmounted afterwards, which the mount \
                         table does not confirm"
                    );
                    return Tri::Unknown(Unknown::new(Cause::Unsupported, why));
                }
                MountsSince::Same | MountsSince::Unclear => {}
            }
            let evidence = kmsg.reports(record, format!("XFS ({name}) detected corruption"));
            Tri::Yes((Severity::Warning, "has found corruption in its metadata".to_owned(), evidence))
        })
    }

    /// Whether an xfs filesystem shut down, by what it answers and by the log.
    fn alive(&self, key: &FilesystemKey, mount: Tri<OnDevice<'v>>) -> Tri<Signs> {
        let logged = self.shut_down(key, mount);
        match (self.asked(key), logged) {
            (Some(Tri::Yes((XfsState::ShutDown, evidence))), logged) => {
                let mut signs = match logged {
                    Tri::Yes(logged) => vec![logged],
                    Tri::No(_) | Tri::Unknown(_) => Vec::new(),
                };
                signs.push((Severity::Critical, SHUT_DOWN.to_owned(), evidence));
                Tri::Yes(Signs { signs, more_unknown: None })
            }
            (Some(Tri::Yes((XfsState::Answers, evidence))), Tri::Yes(logged)) if logged.2.at > evidence.at => {
                Tri::Yes(logged.into())
            }
            // What answers has not shut down, or is another filesystem by now.
            (Some(Tri::Yes((XfsState::Answers, _))), _) => self.probes.ask(|probes| Tri::No(probes.no())),
            (Some(Tri::No(_)) | None, logged) => logged.map(Signs::from),
            (Some(Tri::Unknown(why)), _) => Tri::Unknown(why),
        }
    }

    /// What the filesystem said when it was asked, by the device that stands under its name now; a no where this one is not
    /// asked, `None` where none is.
    fn asked(&self, key: &FilesystemKey) -> Option<Tri<(XfsState, Evidence)>> {
        let probes = match self.probes.seen() {
            Ok(probes) => probes,
            Err(why) if why.cause.is_not_offered() => return None,
            Err(why) => return Some(Tri::Unknown(why.clone())),
        };
        let state = self.dev(&key.device).and_then(|dev| probes.find(&dev));
        Some(state.map(|state| {
            let fact = match state {
                XfsState::Answers => format!("XFS ({}) answers", key.device),
                XfsState::ShutDown => format!("XFS ({}) fails every access (EIO)", key.device),
            };
            (*state, probes.says(fact))
        }))
    }

    /// Whether an xfs filesystem shut down by the log. That it was mounted since is shown by the mount table, never by a line of the
    /// log alone.
    fn shut_down(&self, key: &FilesystemKey, mount: Tri<OnDevice<'v>>) -> Tri<Sign> {
        let name = key.device.as_str();
        self.kmsg.ask(|kmsg| {
            let ids = self.ids(slice::from_ref(&key.device), &mount);
            let ids = ids.as_slice();
            let is_about = |record: &&KernelRecord| match &record.event {
                KernelEvent::XfsShutdown { device } | KernelEvent::XfsMountChanged { device } => {
                    device == name
                        && !self.disks.is_of_another_disk(record, name)
                        && !self.answers.answered_since(record, name)
                }
                _ => false,
            };
            let mut about = kmsg.value.records.iter().rev().filter(is_about).peekable();
            let is_mounted_by_the_log =
                matches!(about.peek(), Some(KernelRecord { event: KernelEvent::XfsMountChanged { .. }, .. }));
            let is_shutdown = |record: &&KernelRecord| matches!(record.event, KernelEvent::XfsShutdown { .. });
            let Some(record) = about.find(is_shutdown) else {
                let mounted_since = self.since_loss(key, ids) == MountsSince::New;
                return if mounted_since { self.no_by_mounts() } else { not_logged(&kmsg) };
            };
            match self.since(record, (key, None), ids) {
                MountsSince::New => self.no_by_mounts(),
                MountsSince::Unclear if is_mounted_by_the_log => {
                    let why = format!(
                        "the kernel's log reports that {name} shut down and was mounted or unmounted afterwards, which neither the \
                         mount table nor the filesystem itself confirms"
                    );
                    Tri::Unknown(Unknown::new(Cause::Unsupported, why))
                }
                MountsSince::Same | MountsSince::Unclear => {
                    let evidence = kmsg.reports(record, format!("XFS ({name}) shut down"));
                    Tri::Yes((Severity::Critical, SHUT_DOWN.to_owned(), evidence))
                }
            }
        })
    }

    /// No, as all mounts of the filesystem came afterwards.
    fn no_by_mounts<Y>(&self) -> Tri<Y> {
        self.mounts.ask(|mounts| match mounts.value.incomplete() {
            Some(why) => Tri::Unknown(why.clone()),
            None => Tri::No(mounts.no()),
        })
    }
}

const SHUT_DOWN: &str = "has shut down: every access fails";

/// That the log has no such event, where all of it was read: what began in a lost part goes on.
fn not_logged<Y>(kmsg: &Seen<'_, KernelLog>) -> Tri<Y> {
    match &kmsg.value.loss {
        Some(why) => Tri::Unknown(why.clone()),
        None => Tri::No(kmsg.no()),
    }
}

/// The machine's clock may have been set between an error and now by so much.
const CLOCKS_APART: std::time::Duration = std::time::Duration::from_secs(600);

/// When ext4 found its last error, where its superblock dates that.
fn last_error(of: &Filesystem) -> Result<Option<Timestamp>, &Unknown> {
    Ok(of.last_error.seen()?.and_then(|last| Timestamp::from_second(*last).ok()))
}

/// ext4's own count, which the superblock keeps until e2fsck runs; and why it may be news, where that is not known.
fn counted(now: NodeTime, key: &FilesystemKey, entry: Seen<'_, Filesystem>) -> Tri<(Sign, Option<Unknown>)> {
    let errors = match &entry.value.errors {
        Part::Known(0) => return Tri::No(entry.no()),
        Part::Known(errors) => *errors,
        Part::Absent => {
            let why = format!("the kernel does not count the errors of {}", key.device);
            return Tri::Unknown(Unknown::new(Cause::Unsupported, why));
        }
        Part::Unknown(why) => return Tri::Unknown(Unknown::clone(why)),
    };
    let undated = || Unknown::new(Cause::Missing, format!("the kernel does not date the errors of {}", key.device));
    let (last, unknown) = match last_error(entry.value) {
        Ok(Some(last)) => (Some(last), None),
        Ok(None) => (None, Some(undated())),
        Err(why) => (None, Some(why.clone())),
    };
    let booted = now.wall.checked_sub(now.up).ok();
    let this_boot = last.zip(booted).is_some_and(|(last, booted)| last >= booted);
    let when = last.map(|last| format!(", the last at {last:.0}")).unwrap_or_default();
    let place = entry.value.last_error_function.as_ref().map(|f| format!(" in {f}")).unwrap_or_default();
    let fact = format!("errors_count of {} is {errors}{when}{place}", key.device);
    // Errors of an earlier boot stand in the superblock until e2fsck runs: worth knowing, no news.
    let (severity, text) = match (this_boot, &unknown) {
        (true, _) => (Severity::Warning, format!("has found {}{when}", counted_errors(errors))),
        (false, None) => (
            Severity::Info,
            format!("found {} before this boot{when}, and e2fsck has not run since", counted_errors(errors)),
        ),
        (false, Some(_)) => (Severity::Info, format!("has found {}, and when is not known", counted_errors(errors))),
    };
    Tri::Yes(((severity, text, entry.says(fact)), unknown))
}

/// What btrfs counts of its devices' errors: news where the count grew, and else of any time.
fn btrfs_counted(
    key: &FilesystemKey,
    entry: Seen<'_, Filesystem>,
    both: &Paired<'_, Filesystems>,
) -> Tri<(Sign, Option<Unknown>)> {
    let errors = match &entry.value.errors {
        Part::Known(0) => return Tri::No(entry.no()),
        Part::Known(errors) => *errors,
        // Kernels before 5.14 do not show it, so the other signs are all there are.
        Part::Absent => return Tri::No(entry.no()),
        Part::Unknown(why) => return Tri::Unknown(Unknown::clone(why)),
    };
    let before = both.before().ok().and_then(|(before, _)| before.get(key)?.errors.seen().ok()?.copied());
    let fact = entry.says(format!("error_stats of the devices add up to {errors}"));
    Tri::Yes(match before {
        Some(before) if before < errors => {
            let new = counted_errors(errors.saturating_sub(before));
            ((Severity::Warning, format!("has counted {new} of its devices since the previous sample"), fact), None)
        }
        _ => {
            let text = format!("counts {} of its devices, and when is not known", counted_errors(errors));
            let undated = Unknown::new(Cause::Missing, format!("btrfs does not date the errors of {}", key.device));
            ((Severity::Info, text, fact), Some(undated))
        }
    })
}

fn counted_errors(n: u64) -> String {
    if n == 1 { "1 error".to_owned() } else { format!("{n} errors") }
}
