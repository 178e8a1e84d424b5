//! DeadMount: is there a mount whose device is gone?

use std::cell::LazyCell;
use std::collections::BTreeMap;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{
    Absent, AttachableName, BlockDevice, BlockDevices, Cause, DevId, DiskUsage, Filesystems, KubeletConfig,
    KubeletDirs, MountEntry, MountId, Mounts, Node, NotAbsent, NvmeController, NvmeControllers, Source, Tri, Unknown,
    VolumeId, VolumePath, is_at_or_below, is_hash_of,
};
use crate::finding::{Evidence, Finding, FindingKey, Kind, Object, ObjectType, Severity};
use crate::view::input::{Cited, Context, Input, Known, Maybe, Required};
use crate::view::{Seen, sources};

use super::stack::{self, Below};
use super::{PodNames, describe, pv_of};

const KIND: Kind = Kind::DeadMount;

/// The state of an NVMe controller that the kernel could not reset: it fails every request from then on.
const DEAD: &str = "dead";

/// Mounts of one device that are named in the evidence.
const MAX_NAMED: usize = 10;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<DeadMount>();

struct DeadMount;

impl Detect for DeadMount {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        Required<sources::Mounts>,
        Required<sources::BlockDevices>,
        Maybe<sources::NvmeControllers>,
        Maybe<sources::Filesystems>,
        Maybe<sources::KubeletConfig>,
        Maybe<sources::ImageFs>,
        Context<sources::KubeletDirs>,
        Context<sources::Node>,
        PodNames<'static>,
    );

    fn evaluate(
        (mounts, block, nvme, filesystems, config, images, dirs, node, pods): <Self::In as Input>::Of<'_>,
        _: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let (mut decisions, mut on_one_disk) = (Vec::new(), BTreeMap::<_, OnOneDisk>::new());
        // On a healthy node nothing is dead, and all mounts need not be looked through for it.
        let of_node = LazyCell::new(|| OfTheNode::of(&mounts, &config, &images));
        for (device, on_it) in by_device(&mounts) {
            let object = object(&device, &on_it, &dirs, &node);
            let fate = fate(&device, &on_it, &block, &nvme).or_else(|| of_btrfs(&on_it, &block, &filesystems));
            let decision = fate.map(|fate| {
                let raised = finding(&device, &fate, (&on_it, pods), object.clone(), (&mounts, &block), &of_node);
                let below = fate.disk_below(name_of(&device, &on_it));
                if let Some(below) = below {
                    let is = best(&on_it).map(|best| describe(best, pods));
                    on_one_disk.entry(below).or_default().add(&raised.finding, is);
                }
                (raised, below)
            });
            decisions.push((object, decision));
        }
        for (object, decision) in decisions {
            let decision = match decision {
                Tri::No(()) => Tri::No(block.no()),
                Tri::Unknown(why) => Tri::Unknown(why),
                Tri::Yes((raised, below)) => Tri::Yes(match below.and_then(|below| on_one_disk.get(below)) {
                    Some(together) => together.with(raised),
                    None => raised,
                }),
            };
            out.decide::<Raised>(KIND, || object, decision);
        }
        // A mount that was not read may be dead.
        out.listed(KIND, mounts.value.incomplete().or(block.value.incomplete()));
    }
}

/// What is built on one disk that is gone: the finding of the first of the most severe names all of it, and the others are shown under it.
#[derive(Default)]
struct OnOneDisk {
    /// Their objects, how severe each is, and what it is to people.
    all: Vec<(Object, Severity, String)>,
}

impl OnOneDisk {
    fn add(&mut self, finding: &Finding, is: Option<String>) {
        let id = &finding.object.id;
        let is = is.map_or_else(|| id.clone(), |is| format!("{id} ({is})"));
        self.all.push((finding.object.clone(), finding.severity, is));
    }

    fn with(&self, mut raised: Raised) -> Raised {
        let finding = &mut raised.finding;
        let worst = self.all.iter().map(|(_, severity, _)| *severity).max();
        let Some((first, ..)) = self.all.iter().find(|(_, severity, _)| Some(*severity) == worst) else {
            return raised;
        };
        if *first != finding.object {
            let above = FindingKey { kind: KIND, object: first.clone() };
            return Raised { shown_under: Tri::Yes(above), ..raised };
        }
        let others: Vec<&str> =
            self.all.iter().filter(|(object, ..)| object != first).map(|(.., is)| is.as_str()).collect();
        if !others.is_empty() {
            let more = match others.len().saturating_sub(MAX_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let names = others.into_iter().take(MAX_NAMED).collect::<Vec<_>>().join(", ");
            finding.message.push_str(&format!("; built on it, too: {names}{more}"));
        }
        raised
    }
}

/// The mounts that carry what the node itself cannot do without: the kubelet's directory, and that of the container images.
struct OfTheNode<'v> {
    carried: Vec<Carried<'v>>,
    /// Why there may be more.
    unknown: Option<Unknown>,
}

/// What a mount carries of it.
struct Carried<'v> {
    mount: &'v MountEntry,
    what: String,
    says: Evidence,
    /// Why it is not known whether that is what the node needs.
    assumed: Option<Unknown>,
}

impl<'v> OfTheNode<'v> {
    fn of(mounts: &Seen<'v, Mounts>, config: &Known<'v, KubeletConfig>, images: &Known<'v, DiskUsage>) -> Self {
        let mut of_node = Self { carried: Vec::new(), unknown: mounts.value.incomplete().cloned() };
        match config.seen() {
            Ok(config) => {
                let root = &config.value.root_dir;
                let says = config.says(format!("the kubelet's directory is {root}"));
                of_node.add(mounts.value, root, (format!("the kubelet's directory ({root})"), says), None);
            }
            Err(why) => of_node.lacks(why),
        }
        match images.seen() {
            Ok(images) => {
                let path = &images.value.path;
                let says = images.says(format!("the container images are in {path}"));
                let assumed = images.value.assumed.as_ref().map(|why| Unknown::new(Cause::Missing, why.as_str()));
                of_node.add(
                    mounts.value,
                    path,
                    (format!("the directory of the container images ({path})"), says),
                    assumed,
                );
            }
            Err(why) => of_node.lacks(why),
        }
        of_node
    }

    fn add(&mut self, mounts: &'v Mounts, path: &str, (what, says): (String, Evidence), assumed: Option<Unknown>) {
        self.carried.extend(nearest_above(mounts, path).map(|mount| Carried { mount, what, says, assumed }));
    }

    fn lacks(&mut self, why: &Unknown) {
        if !why.is_not_installed() {
            self.unknown.get_or_insert_with(|| why.clone());
        }
    }

    /// What a device carries of it, by its mounts.
    fn on<'a>(&'a self, on_it: &'a [&MountEntry]) -> impl Iterator<Item = &'a Carried<'v>> {
        self.carried.iter().filter(|carried| on_it.iter().any(|mount| std::ptr::eq(*mount, carried.mount)))
    }

    /// Whether a device carries any of it; adds to the message and the evidence.
    fn is_on(&self, on_it: &[&MountEntry], message: &mut String, evidence: &mut Vec<Evidence>) -> Tri<(), ()> {
        let mut is_on = self.unknown.clone().map_or(Tri::No(()), Tri::Unknown);
        for carried in self.on(on_it) {
            let this = match &carried.assumed {
                Some(why) => Tri::Unknown(why.clone()),
                None => {
                    message.push_str(&format!("; {} is on it", carried.what));
                    evidence.push(carried.says.clone());
                    Tri::Yes(())
                }
            };
            is_on = is_on.or_else(|| this);
        }
        is_on
    }
}

/// The mount that a path is below: the uppermost one at the longest point.
pub(super) fn nearest_above<'v>(mounts: &'v Mounts, path: &str) -> Option<&'v MountEntry> {
    let above = || mounts.iter().filter(|(_, mount)| is_at_or_below(path, &mount.point));
    let longest = above().map(|(_, mount)| mount.point.len()).max()?;
    let at_it: Vec<_> = above().filter(|(_, mount)| mount.point.len() == longest).collect();
    let is_covered = |id: &MountId| at_it.iter().any(|(other, mount)| mount.parent == *id && *other != id);
    let top = at_it.iter().find(|(id, _)| !is_covered(id)).or(at_it.first());
    top.map(|(_, mount)| *mount)
}

/// A device as its mounts know it: by number, or for raw-block binds and btrfs by name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Device<'a> {
    Number(crate::facts::DevId),
    Name(&'a str),
}

/// The mounts of each device.
fn by_device<'v>(mounts: &Seen<'v, Mounts>) -> BTreeMap<Device<'v>, Vec<&'v MountEntry>> {
    let mut by_device: BTreeMap<Device<'_>, Vec<&MountEntry>> = BTreeMap::new();
    for mount in mounts.value.values() {
        if let Some(device) = device_of(mount) {
            by_device.entry(device).or_default().push(mount);
        }
    }
    by_device
}

fn device_of(mount: &MountEntry) -> Option<Device<'_>> {
    // Any device node may be bound somewhere (/dev/null, /dev/kvm): only the kubelet's raw-block volumes are disks.
    let is_raw = matches!(mount.volume, Some(VolumePath::RawBlock { .. } | VolumePath::LocalBlock { .. }));
    let raw = is_raw.then(|| mount.raw_block_device()).flatten();
    match raw.or_else(|| btrfs_disk(mount)) {
        Some(name) => Some(Device::Name(name)),
        None => mount.has_device().then_some(Device::Number(mount.dev)),
    }
}

/// The disk of a btrfs volume.
pub(super) fn btrfs_disk(mount: &MountEntry) -> Option<&str> {
    btrfs_source(mount).filter(|_| mount.volume.is_some())
}

/// The device that a btrfs was mounted by: its mounts have a number that no device has. A name with a slash is a link, or of device mapper.
pub(super) fn btrfs_source(mount: &MountEntry) -> Option<&str> {
    let is_one = &*mount.fstype == "btrfs" && !mount.has_device();
    is_one.then(|| mount.source.strip_prefix("/dev/")).flatten().filter(|name| !name.contains('/'))
}

/// What became of a device under its mounts.
enum Fate<'v> {
    /// This machine does not have it.
    Gone(Absent),
    /// It is there, and what it stands on is not: some disks below it, of so many.
    StandsOnGone { gone: Vec<&'v str>, of: usize, absent: Absent, lost: Lost<'v> },
    /// The kernel keeps disks below it, of so many, that no request reaches any more; with what shows that of the first.
    GivenUp { disks: Vec<&'v str>, of: usize, says: Evidence, lost: Lost<'v> },
    /// Its device node was deleted; what opens that node reaches this device, which has its number by now.
    NameTaken(&'v BlockDevice),
}

/// Whether nothing is left of what stands on several disks, and the arrays of md that serve nothing without any one of theirs.
struct Lost<'v> {
    is: Tri<(), ()>,
    needs_all: Vec<&'v BlockDevice>,
}

impl Lost<'_> {
    /// What the message says of why a part of the disks is all that it takes.
    fn why(&self) -> String {
        let level = |array: &&&BlockDevice| array.level.seen().ok().flatten().cloned().unwrap_or_default();
        let name = |array: &&BlockDevice| format!("{} is {}", array.name, level(&array));
        let arrays: Vec<String> = self.needs_all.iter().take(MAX_NAMED).map(name).collect();
        match self.is {
            Tri::Yes(()) if !arrays.is_empty() => format!(" ({}, which needs all of its disks)", arrays.join(", ")),
            _ => String::new(),
        }
    }
}

impl<'v> Fate<'v> {
    /// Whether nothing of it is served any more.
    fn is_whole(&self) -> Tri<(), ()> {
        match self {
            Self::Gone(_) | Self::NameTaken(_) => Tri::Yes(()),
            Self::StandsOnGone { lost, .. } | Self::GivenUp { lost, .. } => lost.is.clone(),
        }
    }

    /// The disk below a device of this name that is gone or given up, by the first name where there are several.
    fn disk_below(&self, name: &str) -> Option<&'v str> {
        let disks = match self {
            Self::StandsOnGone { gone, .. } => gone,
            Self::GivenUp { disks, .. } => disks,
            Self::Gone(_) | Self::NameTaken(_) => return None,
        };
        disks.first().copied().filter(|disk| *disk != name)
    }
}

/// The mount that says most: the pod's own says more than the staging that every volume has.
fn best<'v>(on_it: &[&'v MountEntry]) -> Option<&'v MountEntry> {
    on_it.iter().rev().max_by_key(|mount| super::specificity(mount)).copied()
}

/// What became of a device, if anything did.
fn fate<'v>(
    device: &Device<'v>,
    on_it: &[&MountEntry],
    block: &Seen<'v, BlockDevices>,
    nvme: &Known<'v, NvmeControllers>,
) -> Tri<Fate<'v>, ()> {
    let found = match device {
        Device::Number(dev) => block.value.lacks(dev),
        Device::Name(name) => block.value.lacks_named(name),
    };
    let found = match found {
        Err(NotAbsent::Present(found)) => found,
        Ok(absent) => return Tri::Yes(Fate::Gone(absent)),
        Err(NotAbsent::Unknown(why)) => return Tri::Unknown(why.clone()),
    };
    if on_it.iter().any(|mount| mount.shows_deleted_node()) {
        return Tri::Yes(Fate::NameTaken(found));
    }
    let below = Below::of(block.value, found);
    if let [first, ..] = below.gone.as_slice() {
        // A device that is missing from a list that is not whole may be there.
        return match block.value.lacks_named(first) {
            Err(NotAbsent::Unknown(why)) => Tri::Unknown(why.clone()),
            Err(NotAbsent::Present(_)) => Tri::No(()),
            Ok(absent) => {
                let is = stack::is_lost(block.value, &found.name, &below.gone);
                let (of, lost) = (below.gone.len() + below.here.len(), Lost { is, needs_all: below.needs_all });
                Tri::Yes(Fate::StandsOnGone { of, gone: below.gone, absent, lost })
            }
        };
    }
    let (mut disks, mut first, mut unclear) = (Vec::new(), None, None);
    for disk in &below.here {
        match given_up(disk, block, nvme) {
            Tri::Yes(says) => {
                disks.push(disk.name.as_str());
                first.get_or_insert(says);
            }
            Tri::No(()) => {}
            Tri::Unknown(why) => unclear = unclear.or(Some(why)),
        }
    }
    match (first, unclear) {
        (Some(says), _) => {
            let lost = Lost { is: stack::is_lost(block.value, &found.name, &disks), needs_all: below.needs_all };
            Tri::Yes(Fate::GivenUp { disks, of: below.here.len(), says, lost })
        }
        (None, Some(why)) => Tri::Unknown(why),
        (None, None) => Tri::No(()),
    }
}

/// What became of the other disks of a btrfs: its mounts name one of them.
fn of_btrfs<'v>(
    on_it: &[&MountEntry],
    block: &Seen<'v, BlockDevices>,
    filesystems: &Known<'v, Filesystems>,
) -> Tri<Fate<'v>, ()> {
    let Some(source) = on_it.iter().find_map(|mount| btrfs_disk(mount)) else { return Tri::No(()) };
    let filesystems = match filesystems.seen() {
        Ok(filesystems) => filesystems,
        // Where it is never read, its other disks are not known of.
        Err(why) if why.cause.is_not_offered() => return Tri::No(()),
        Err(why) => return Tri::Unknown(why.clone()),
    };
    let mut all = filesystems.value.values();
    let Some(found) = all.find(|found| found.devices.iter().any(|device| device == source)) else {
        return filesystems.value.incomplete().map_or(Tri::No(()), |why| Tri::Unknown(why.clone()));
    };
    let (mut gone, mut proof, mut unclear) = (Vec::new(), None, None);
    for name in &found.devices {
        match block.value.lacks_named(name) {
            Ok(absent) => {
                gone.push(name.as_str());
                proof = Some(absent);
            }
            Err(NotAbsent::Present(_)) => {}
            Err(NotAbsent::Unknown(why)) => unclear = Some(why.clone()),
        }
    }
    match (proof, unclear) {
        (Some(absent), _) => {
            let is = if gone.len() < found.devices.len() { Tri::No(()) } else { Tri::Yes(()) };
            let lost = Lost { is, needs_all: Vec::new() };
            Tri::Yes(Fate::StandsOnGone { gone, of: found.devices.len(), absent, lost })
        }
        (None, Some(why)) => Tri::Unknown(why),
        (None, None) => Tri::No(()),
    }
}

/// What shows that the kernel gave a disk up and keeps it: its controller's state, or a size of 0.
fn given_up(
    disk: &BlockDevice,
    block: &Seen<'_, BlockDevices>,
    nvme: &Known<'_, NvmeControllers>,
) -> Tri<Evidence, ()> {
    dead_controller(disk, nvme).or_else(|| {
        if disk.size == 0 && disk.loop_file.is_none() {
            Tri::Yes(block.says(format!("{} has size 0: the kernel gave it up", disk.name)))
        } else {
            Tri::No(())
        }
    })
}

/// Whether each NVMe controller that reaches a disk is in state `dead`: a multipath disk keeps its size then.
fn dead_controller(disk: &BlockDevice, nvme: &Known<'_, NvmeControllers>) -> Tri<Evidence, ()> {
    if !disk.name.starts_with("nvme") {
        return Tri::No(());
    }
    let nvme = match nvme.seen() {
        Ok(nvme) => nvme,
        Err(why) => return Tri::Unknown(why.clone()),
    };
    let mut dead = Vec::new();
    let reach =
        |controller: &NvmeController| controller.namespaces.contains(&disk.name) && controller.volume == disk.volume;
    for (name, controller) in nvme.value.iter().filter(|(_, controller)| reach(controller)) {
        match controller.state.as_str() {
            DEAD => dead.push(name.as_str()),
            // It could not be read, and the list says why.
            "" => {}
            _ => return Tri::No(()),
        }
    }
    match (dead.is_empty(), nvme.value.incomplete()) {
        (_, Some(why)) => Tri::Unknown(why.clone()),
        // Each NVMe disk has a controller: this list lacks it.
        (true, None) => {
            let why = format!("{} lacks the NVMe controller of {}", Source::NvmeControllers.place(), disk.name);
            Tri::Unknown(Unknown::new(Cause::Incomplete, why))
        }
        (false, None) => Tri::Yes(nvme.says(format!(
            "each NVMe controller of {} is in state {DEAD}: {}",
            disk.name,
            dead.join(", ")
        ))),
    }
}

fn finding(
    device: &Device<'_>,
    fate: &Fate<'_>,
    (on_it, pods): (&[&MountEntry], PodNames<'_>),
    object: Object,
    (mounts, block): (&Seen<'_, Mounts>, &Seen<'_, BlockDevices>),
    of_node: &OfTheNode<'_>,
) -> Raised {
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
        Fate::GivenUp { says, .. } => says.clone(),
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
    let whose = best(on_it).map(|mount| match &mount.volume {
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
        Fate::StandsOnGone { gone, of, lost, .. } if gone.len() < *of => {
            format!("{what} is built on {of} disks, of which {} disappeared{}", gone.join(", "), lost.why())
        }
        Fate::StandsOnGone { gone, .. } => format!("{what} is built on {}, which disappeared", gone.join(", ")),
        Fate::GivenUp { disks, of, lost, .. } if disks.len() < *of => {
            format!("{what} is built on {of} disks, of which the kernel gave {} up{}", disks.join(", "), lost.why())
        }
        Fate::GivenUp { .. } => format!("the kernel gave {what} up under its mounts: every access fails"),
        Fate::NameTaken(taken) => {
            format!(
                "{what} disappeared while still mounted, and programs that open its paths now reach {}",
                carried(taken)
            )
        }
    };
    let mut also = String::new();
    let of_the_node = of_node.is_on(on_it, &mut also, &mut evidence);
    let carries = match on_it.iter().any(|mount| mount.volume.is_some()) {
        true => Tri::Yes(()),
        false => of_the_node,
    };
    // What remains of a mirror may serve all of it.
    let (severity, severity_unknown) = match carries.and(|| fate.is_whole()) {
        Tri::Yes(_) => (Severity::Critical, None),
        Tri::No(()) => (Severity::Warning, None),
        Tri::Unknown(why) => (Severity::Warning, Some(why)),
    };
    let finding = Finding {
        kind: KIND,
        severity,
        object,
        message: format!("{is}: {whose}{more}{also}"),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    };
    Raised { severity_unknown, ..finding.into() }
}

/// A device by the EBS volume that it is, where it shows one.
fn carried(device: &BlockDevice) -> &str {
    device.volume.as_ref().map_or(&device.name, VolumeId::as_str)
}

fn sequence(device: &BlockDevice) -> String {
    device.diskseq.map_or_else(|| "unknown".to_owned(), |sequence| sequence.to_string())
}

/// The device by the name that it had, with the pod and volume that its mounts name.
fn object(device: &Device<'_>, on_it: &[&MountEntry], dirs: &Cited<'_, KubeletDirs>, node: &Cited<'_, Node>) -> Object {
    let mut object = Object::new(ObjectType::Device, name_of(device, on_it));
    let paths = || on_it.iter().filter_map(|mount| mount.volume.as_ref());
    object.pod = paths().find_map(VolumePath::pod).cloned();
    object.pv = paths().find_map(pv_of).map(str::to_owned);
    // The device that had it is gone: the kubelet wrote the volume's id beside the mount, a path of an in-tree plugin ends with it,
    // and the name of a staging directory is the hash of one that the Node has.
    let recorded = || dirs.name(|dirs| paths().find_map(|path| recorded_volume(dirs.value, path)));
    let by_node = || node.name(|node| paths().find_map(|path| volume_of_node(node.value, path)));
    object.volume = recorded().or_else(|| paths().find_map(in_tree_volume)).or_else(by_node);
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
    block: Result<Seen<'v, BlockDevices>, &'v Unknown>,
    nvme: Known<'v, NvmeControllers>,
}

impl<'v> DeadDevices<'v> {
    pub(super) fn of(
        mounts: &Seen<'v, Mounts>,
        block: Result<Seen<'v, BlockDevices>, &'v Unknown>,
        nvme: Known<'v, NvmeControllers>,
    ) -> Self {
        Self { by_device: by_device(mounts), block, nvme }
    }

    /// The finding of a filesystem's device, where that is dead: what is found of its mounts follows from it.
    pub(super) fn finding_of(&self, dev: DevId) -> Tri<FindingKey, ()> {
        self.finding_of_device(&Device::Number(dev))
    }

    /// The same of the device of a mount: of a filesystem, or of a raw-block volume.
    pub(super) fn finding_of_mount(&self, mount: &MountEntry) -> Tri<FindingKey, ()> {
        device_of(mount).map_or(Tri::No(()), |device| self.finding_of_device(&device))
    }

    /// The same of the device that pods have as a PersistentVolume.
    pub(super) fn finding_of_pv(&self, pv: &str) -> Tri<FindingKey, ()> {
        let of_it = |mount: &&MountEntry| mount.volume.as_ref().and_then(pv_of) == Some(pv);
        let devices = self.by_device.iter().filter(|(_, on_it)| on_it.iter().any(&of_it));
        let mut answer = Tri::No(());
        for (device, _) in devices {
            answer = answer.or_else(|| self.finding_of_device(device));
        }
        answer
    }

    fn finding_of_device(&self, device: &Device<'_>) -> Tri<FindingKey, ()> {
        let block = match &self.block {
            Ok(block) => block,
            Err(why) => return Tri::Unknown(Unknown::clone(why)),
        };
        let on_it = self.by_device.get(device).map_or(&[][..], Vec::as_slice);
        let key = || FindingKey { kind: KIND, object: Object::new(ObjectType::Device, name_of(device, on_it)) };
        fate(device, on_it, block, &self.nvme).map(|_| key())
    }
}

/// The volume that a path of an in-tree plugin ends with.
fn in_tree_volume(path: &VolumePath) -> Option<VolumeId> {
    let VolumePath::InTree { volume, .. } = path else { return None };
    VolumeId::of_handle(volume)
}

/// The volume of the Node that a staging directory is named for.
fn volume_of_node(node: &Node, path: &VolumePath) -> Option<VolumeId> {
    let VolumePath::Staging { driver: ours, handle_hash } = path else { return None };
    let names = node.volumes_in_use.iter().chain(node.volumes_attached.keys());
    names.filter_map(|name| AttachableName::parse(name)).find_map(|name| match name {
        AttachableName::Csi { driver, handle } if driver == ours && is_hash_of(handle_hash, handle) => {
            VolumeId::from_serial(handle)
        }
        _ => None,
    })
}

/// The volume id that the kubelet wrote beside the mount.
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
