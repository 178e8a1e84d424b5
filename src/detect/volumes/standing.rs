//! Each EBS volume as the witnesses have it that need no question: the Node's status, the devices, the mounts.
//!
//! What the API server says of it by name (its VolumeAttachment, the PersistentVolume, the pods that use its claim) is
//! found from here, and asked for by the judge that wants it.

mod xen;

use std::collections::BTreeMap;

use crate::facts::{
    AttachableName, BlockDevice, BlockDevices, Cause, DevId, Ec2Attached, Ec2Attachment, Ec2Volume, FilesystemKey,
    MountEntry, NotAbsent, PersistentVolume, Pod, PodPhase, Question, Unknown, VolumeAttachment, VolumeId, VolumePath,
    attachment_name, is_hash_of,
};
use crate::finding::{Evidence, Subject, SubjectType};
use crate::view::{Seen, View};

use super::Settings;

/// One volume.
pub struct Standing<'a> {
    view: &'a View,
    /// Which.
    pub volume: VolumeId,
    driver: Option<&'a str>,
    /// The kubelet says that it may be in use: wanted here, or not yet let go (`status.volumesInUse`).
    pub in_use: bool,
    /// The attach/detach controller says that it is attached here (`status.volumesAttached`).
    pub attached: bool,
    /// The path that the controller says it was attached as: of an in-tree volume; of one of CSI it is empty.
    node_path: Option<&'a str>,
    /// The disk that carries it, by its serial or, on Xen, by the name that it was attached by.
    device: Option<(DevId, &'a BlockDevice)>,
    /// Mounts of it in the host's table: of its disk, of a partition, of its device node.
    mounts: Vec<&'a MountEntry>,
}

/// How EC2 has a volume attached to this instance.
#[derive(Clone, Copy)]
pub struct Ec2Word<'a> {
    /// The volume.
    pub volume: &'a Ec2Volume,
    /// What it is to this instance.
    pub attachment: &'a Ec2Attachment,
}

/// What this node's Node names, and every EBS device that is here.
///
/// # Errors
/// When the Node is not known.
pub fn standings<'a>(view: &'a View, settings: &'a Settings) -> Result<Vec<Standing<'a>>, Unknown> {
    let node = view.node.known().map_err(Clone::clone)?.value;
    let mut all: BTreeMap<VolumeId, Standing<'a>> = BTreeMap::new();
    let names = node.volumes_in_use.iter().map(|name| (name, None));
    let names = names.chain(node.volumes_attached.iter().map(|(name, path)| (name, Some(path.as_str()))));
    for (name, attached_as) in names {
        let Some(name) = AttachableName::parse(name) else { continue };
        let Some(volume) = name.ebs_volume(&settings.drivers) else { continue };
        let standing = all.entry(volume.clone()).or_insert_with(|| Standing::new(view, volume, name.driver()));
        standing.in_use |= attached_as.is_none();
        standing.attached |= attached_as.is_some();
        standing.node_path = attached_as.or(standing.node_path);
    }
    let Ok(block) = view.block.known() else { return Ok(all.into_values().collect()) };
    let driver = usual_driver(view, settings);
    for (dev, disk) in block.value {
        let Some(volume) = &disk.volume else { continue };
        // Most stand there by their names already.
        if !all.contains_key(volume) {
            all.insert(volume.clone(), Standing::new(view, volume.clone(), driver));
        }
        if let Some(standing) = all.get_mut(volume) {
            standing.device = Some((*dev, disk));
        }
    }
    if xen::is_xen(block.value) {
        xen::name_devices(view, driver, &mut all);
    }
    let mut all: Vec<Standing<'a>> = all.into_values().collect();
    find_mounts(view, block.value, &mut all);
    Ok(all)
}

/// Gives each volume the mounts of its disk, of that disk's partitions, and of its device node.
fn find_mounts<'a>(view: &'a View, block: &'a BlockDevices, all: &mut [Standing<'a>]) {
    let Ok(mounts) = view.mounts.known() else { return };
    let disks = all.iter().enumerate().filter_map(|(place, standing)| Some((standing.device?, place)));
    let disks: BTreeMap<&str, usize> = disks.map(|((_, disk), place)| (disk.name.as_str(), place)).collect();
    let (mut by_name, mut by_dev) = (BTreeMap::new(), BTreeMap::new());
    for (dev, device) in block {
        if let Some(place) = disks.get(device.disk.as_ref().unwrap_or(&device.name).as_str()) {
            by_name.insert(device.name.as_str(), *place);
            by_dev.insert(*dev, *place);
        }
    }
    for mount in mounts.value.values() {
        let place = match mount.raw_block_device() {
            Some(name) => by_name.get(name),
            None => by_dev.get(&mount.dev),
        };
        if let Some(standing) = place.and_then(|place| all.get_mut(*place)) {
            standing.mounts.push(mount);
        }
    }
    all.iter_mut().for_each(Standing::forget_mirrors);
}

/// Where EC2 has a volume: `in-use in eu-west-1a, attached at i-0a as /dev/xvdaa since 2026-11-20T10:00:00Z`.
pub(super) fn whereabouts(volume: &Ec2Volume) -> String {
    let mut words = volume.state.name().to_owned();
    if volume.multi_attach {
        words.push_str(" (multi-attach)");
    }
    if !volume.zone.is_empty() {
        words.push_str(&format!(" in {}", volume.zone));
    }
    for Ec2Attachment { instance, device, state, attached_at, .. } in &volume.attachments {
        let since = attached_at.map(|at| format!(" since {at}")).unwrap_or_default();
        words.push_str(&format!(", {} at {instance} as {device}{since}", state.name()));
    }
    words
}

pub(super) use xen::nameless_disks;

/// Whether a device is this disk, or a partition of it.
fn is_part_of(device: &BlockDevice, disk: &BlockDevice) -> bool {
    device.name == disk.name || device.disk.as_deref() == Some(&disk.name)
}

/// Whether no device of this machine tells the volume that it is.
fn tells_no_volume(block: &BlockDevices) -> bool {
    !block.values().any(|device| device.volume.is_some())
}

/// Of a volume that the Node does not name: the driver that is registered here.
fn usual_driver<'a>(view: &'a View, settings: &'a Settings) -> Option<&'a str> {
    let known = view.csi_node.known().ok();
    let registered = |name: &&String| known.is_none_or(|csi| csi.value.drivers.contains_key(name.as_str()));
    settings.drivers.iter().find(registered).or(settings.drivers.first()).map(String::as_str)
}

impl<'a> Standing<'a> {
    fn new(view: &'a View, volume: VolumeId, driver: Option<&'a str>) -> Self {
        Self { view, volume, driver, in_use: false, attached: false, node_path: None, device: None, mounts: Vec::new() }
    }

    /// Where the kubelet's directory is a bind of another, each mount below the one shows below the other as well.
    fn forget_mirrors(&mut self) {
        let tail = |point: &'a str| {
            let begin = point.find("/pods/").or_else(|| point.find("/plugins/kubernetes.io/"))?;
            point.get(begin..)
        };
        let own = self.mounts.iter().filter(|mount| mount.volume.is_some());
        let tails: Vec<&str> = own.filter_map(|mount| tail(&mount.point)).collect();
        self.mounts.retain(|mount| mount.volume.is_some() || !tails.iter().any(|tail| mount.point.ends_with(tail)));
    }

    /// The disk that carries it.
    pub fn device(&self) -> Option<(DevId, &'a BlockDevice)> {
        self.device
    }

    /// That no device of this machine is this volume.
    ///
    /// # Errors
    /// Nothing where one is, and otherwise why that cannot be known.
    pub fn device_is_absent(&self) -> Result<Evidence, Option<Unknown>> {
        let block = self.view.block.known().map_err(|why| Some(why.clone()))?;
        match block.value.lacks_any(|device| device.volume.as_ref() == Some(&self.volume)) {
            Err(NotAbsent::Present(_)) => return Err(None),
            Err(NotAbsent::Unknown(why)) => return Err(Some(why.clone())),
            Ok(_) => {}
        }
        if !tells_no_volume(block.value) {
            return Ok(block.says(format!("no device here is {}", self.volume.as_str())));
        }
        if !xen::is_xen(block.value) {
            let why = "no device of this machine tells an EBS volume id: which are here cannot be known";
            return Err(Some(Unknown::new(Cause::Unsupported, why)));
        }
        // That no device tells this volume is no sign there; that none has its name is one.
        if self.device.is_some() {
            return Err(None);
        }
        let Some(name) = xen::name_of(self) else { return Err(Some(xen::unnamed(&self.volume))) };
        Ok(block.says(format!("no device here is {name}, as which {} was attached", self.volume.as_str())))
    }

    /// Mounts of it in the host's table: of its disk, of a partition, of its device node.
    pub fn mounts(&self) -> &[&'a MountEntry] {
        &self.mounts
    }

    /// Whether a staging directory of it has something mounted, of whatever device.
    pub fn is_staged(&self) -> bool {
        let ours = |mount: &MountEntry| match &mount.volume {
            Some(VolumePath::Staging { handle_hash, .. }) => is_hash_of(handle_hash, self.volume.as_str()),
            Some(VolumePath::InTree { volume, .. }) => VolumeId::from_serial(volume).as_ref() == Some(&self.volume),
            _ => false,
        };
        self.view.mounts.known().is_ok_and(|mounts| mounts.value.values().any(ours))
    }

    /// The name of its VolumeAttachment here; of an in-tree volume there is none.
    fn attachment_name(&self) -> Option<String> {
        let node = self.view.node.known().ok()?.value;
        Some(attachment_name(self.volume.as_str(), self.driver?, &node.name))
    }

    /// What asks for its VolumeAttachment.
    pub fn ask(&self) -> Option<Question> {
        self.attachment_name().map(Question::VolumeAttachment)
    }

    /// Its VolumeAttachment, or that there is none.
    ///
    /// # Errors
    /// Why neither is known.
    pub fn attachment(&self) -> Result<Option<Seen<'a, VolumeAttachment>>, Unknown> {
        let name = self.attachment_name().ok_or_else(Unknown::not_asked)?;
        let answers = self.view.attachments.known().map_err(Clone::clone)?;
        Ok(answers.value.get(&name)?.map(|attachment| answers.with(attachment)))
    }

    /// The PersistentVolume by which pods know it: of a pod's mount, else of its VolumeAttachment.
    pub fn pv(&self) -> Option<&'a str> {
        let mounted = self.mounts.iter().find_map(|mount| super::pv_of(mount.volume.as_ref()?));
        mounted.or_else(|| self.attachment().ok()??.value.pv.as_deref())
    }

    /// What asks who uses it: its PersistentVolume once that is known, its VolumeAttachment before.
    pub fn ask_users(&self) -> Option<Question> {
        self.pv().map(|pv| Question::PersistentVolume(pv.to_owned())).or_else(|| self.ask())
    }

    /// What asks for its VolumeAttachment and, by and by, for who uses it.
    pub fn ask_all(&self) -> impl Iterator<Item = Question> + use<> {
        self.ask().into_iter().chain(self.ask_users())
    }

    /// Its PersistentVolume's object, or that there is none.
    ///
    /// # Errors
    /// Why neither is known.
    pub fn pv_object(&self) -> Result<Option<&'a PersistentVolume>, Unknown> {
        let answers = self.view.pvs.known().map_err(Clone::clone)?;
        answers.value.get(self.pv().ok_or_else(Unknown::not_asked)?)
    }

    /// The pods of this node that have its claim and have not ended.
    ///
    /// # Errors
    /// When its claim or the node's pods are not known.
    pub fn users(&self) -> Result<Vec<&'a Pod>, Unknown> {
        let pods = self.view.pods.known().map_err(Clone::clone)?.value;
        if let Some(gap) = pods.gap() {
            return Err(gap.clone());
        }
        let Some(pv) = self.pv_object()? else { return Ok(Vec::new()) };
        let Some((namespace, claim)) = pv.claim.as_deref().and_then(|claim| claim.split_once('/')) else {
            return Ok(Vec::new());
        };
        let uses = |pod: &&Pod| pod.namespace == namespace && pod.claims.iter().any(|name| name == claim);
        Ok(pods.values().map(AsRef::as_ref).filter(|pod| !pod.is_over()).filter(uses).collect())
    }

    /// It as a subject, with the pod that uses it or waits for it, where that is known.
    pub fn subject(&self) -> Subject {
        let pod = self.users().ok().and_then(|users| users.first().map(|pod| pod.node_uid().clone()));
        let mounted = || self.mounts.iter().find_map(|mount| mount.volume.as_ref()?.pod().cloned());
        Subject {
            pod: pod.or_else(mounted),
            pv: self.pv().map(str::to_owned),
            volume: Some(self.volume.clone()),
            ..Subject::new(SubjectType::Volume, self.volume.as_str())
        }
    }

    /// The pods that wait for it, for a message: `; web/db-0 waits for it`, or nothing.
    pub fn waiting(&self) -> String {
        let users = self.users().unwrap_or_default();
        let waiting: Vec<_> = users.into_iter().filter(|pod| pod.phase == PodPhase::Pending).collect();
        match waiting.as_slice() {
            [] => String::new(),
            [pod] => format!("; pod {} waits for it", pod.full_name()),
            [pod, rest @ ..] => format!("; pod {} and {} more wait for it", pod.full_name(), rest.len()),
        }
    }

    /// What the Node says of it, as evidence.
    pub fn node_says(&self) -> Option<Evidence> {
        let node = self.view.node.known().ok()?;
        let words = match (self.in_use, self.attached) {
            (true, true) => "is in volumesInUse and in volumesAttached",
            (true, false) => "is in volumesInUse (the kubelet wants it) and not in volumesAttached",
            (false, true) => "is in volumesAttached and not in volumesInUse",
            (false, false) => "is neither in volumesInUse nor in volumesAttached",
        };
        Some(node.says(format!("{} {words}", self.volume.as_str())))
    }

    /// What is known of its VolumeAttachment, as evidence.
    pub fn attachment_says(&self) -> Option<Evidence> {
        let answers = self.view.attachments.known().ok()?;
        let attachment = match answers.value.get(&self.attachment_name()?).ok()? {
            None => return Some(answers.says("it has no VolumeAttachment for this node (404)")),
            Some(attachment) => attachment,
        };
        let mut words = format!("its VolumeAttachment says attached: {}", attachment.attached);
        if let Some(path) = &attachment.device_path {
            words.push_str(&format!(", devicePath {path}"));
        }
        if let Some(since) = attachment.deleting {
            words.push_str(&format!(", being deleted since {since}"));
        }
        for (what, error) in [("attachError", &attachment.attach_error), ("detachError", &attachment.detach_error)] {
            if let Some(error) = error {
                words.push_str(&format!(", {what}: {error}"));
            }
        }
        Some(answers.says(words))
    }

    /// What the machine says of its disk, as evidence.
    pub fn device_says(&self) -> Option<Evidence> {
        let (dev, disk) = self.device()?;
        let block = self.view.block.known().ok()?;
        let by = if disk.volume.is_none() { ", by the name that it was attached by" } else { "" };
        Some(block.says(format!("{} ({dev}) is {}{by}", disk.name, self.volume.as_str())))
    }

    /// Whether a filesystem of it is alive, mounted here or not.
    pub fn is_alive(&self) -> bool {
        self.live_filesystem().is_some()
    }

    fn live_filesystem(&self) -> Option<&'a FilesystemKey> {
        let (parts, filesystems) = (self.parts(), self.view.filesystems.known().ok()?.value);
        let on_it = |key: &&FilesystemKey| parts.iter().any(|part| part.name == key.device);
        filesystems.iter().map(|(key, _)| key).find(on_it)
    }

    /// Whether the kubelet wants it here or the controller has it here.
    pub fn is_wanted(&self) -> bool {
        self.in_use || self.attached
    }

    /// What the API server says of it, where that is known.
    pub fn evidence(&self) -> Vec<Evidence> {
        self.node_says().into_iter().chain(self.attachment_says()).collect()
    }

    /// What EC2 says of it, twice and a minute apart: how it is attached to this instance, or that it is not.
    ///
    /// # Errors
    /// Why neither is known.
    pub fn ec2(&self) -> Result<Option<Ec2Word<'a>>, Unknown> {
        let (now, before) = super::ec2_twice(self.view)?;
        let word = |read: &'a Ec2Attached| match read.volumes.lacks(&self.volume) {
            Ok(_) => Ok(None),
            Err(NotAbsent::Unknown(why)) => Err(why.clone()),
            Err(NotAbsent::Present(volume)) => {
                Ok(volume.attachment(&read.instance).map(|attachment| Ec2Word { volume, attachment }))
            }
        };
        let (last, first) = (word(now.value)?, word(before)?);
        if last.map(|word| word.attachment.state) != first.map(|word| word.attachment.state) {
            return Err(Unknown::baseline("EC2's word, which changed,"));
        }
        Ok(last)
    }

    /// The same as evidence.
    pub fn ec2_says(&self) -> Option<Evidence> {
        let (now, _) = super::ec2_twice(self.view).ok()?;
        let volume = self.volume.as_str();
        Some(match self.ec2().ok()? {
            None => now.says(format!("EC2 says that {volume} is not attached to this instance (twice)")),
            Some(Ec2Word { attachment, volume: object }) => {
                let tags: Vec<String> = object.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let tags = if tags.is_empty() { "no tag of an owner".to_owned() } else { tags.join(", ") };
                let (state, device) = (attachment.state.name(), &attachment.device);
                now.says(format!("EC2 says that {volume} is {state} here as {device} (twice), with {tags}"))
            }
        })
    }

    /// What asks EC2 for it by its id, wherever it is.
    pub fn ask_ec2(&self) -> Question {
        Question::Ec2Volume(self.volume.clone())
    }

    /// The volume as EC2 last had it by its id.
    pub fn ec2_last(&self) -> Option<&'a Ec2Volume> {
        self.view.ec2_volumes.last()?.get(self.volume.as_str()).ok()?
    }

    /// What EC2 has of it by its id, twice and a minute apart, or that it has no such volume.
    ///
    /// # Errors
    /// Why neither is known.
    pub fn ec2_by_id(&self) -> Result<Option<Seen<'a, Ec2Volume>>, Unknown> {
        let (now, before, over) = self.view.ec2_volumes.pair()?;
        let (last, first) = (now.value.get(self.volume.as_str())?, before.get(self.volume.as_str())?);
        if over < super::EC2_APART || last.map(|volume| volume.state) != first.map(|volume| volume.state) {
            return Err(Unknown::baseline("EC2's word of a volume"));
        }
        Ok(last.map(|volume| now.with(volume)))
    }

    /// The same as evidence.
    pub fn ec2_by_id_says(&self) -> Option<Evidence> {
        let volume = self.volume.as_str();
        Some(match self.ec2_by_id().ok()? {
            None => self.view.ec2_volumes.known().ok()?.says(format!("EC2 says that there is no {volume} (twice)")),
            Some(known) => known.says(format!("EC2 says that {volume} is {} (twice)", whereabouts(known.value))),
        })
    }

    /// Everything that is said of a volume that is here, as evidence.
    pub fn all_evidence(&self) -> Vec<Evidence> {
        let mut evidence = self.evidence();
        evidence.extend(self.device_says());
        evidence.extend(self.ec2_says());
        evidence
    }

    /// What keeps it busy on this machine, for a message; nothing where nothing is seen.
    pub fn busy_with(&self) -> Option<String> {
        if let Some(mount) = self.mounts.iter().max_by_key(|mount| super::closeness(mount)) {
            return Some(format!("it is mounted at {}", mount.point));
        }
        let (_, disk) = self.device()?;
        let block = self.view.block.known().ok()?.value;
        let parts = self.parts();
        if let Some(part) = parts.iter().find(|part| part.swap) {
            return Some(format!("{} is swap space", part.name));
        }
        if let Some(holder) = parts.iter().find_map(|part| part.holders.first()) {
            return Some(format!("{holder} is built on it"));
        }
        let file = |device: &&BlockDevice| device.loop_file.as_deref().is_some_and(|file| self.is_its_node(file, disk));
        if let Some(device) = block.values().find(file) {
            return Some(format!("{} is a loop device over it", device.name));
        }
        let alive = self.live_filesystem()?;
        Some(format!("its {} filesystem is alive although the host does not mount it", alive.fstype))
    }

    /// A loop device's file that is this disk's node, or the kubelet's bind of it.
    fn is_its_node(&self, file: &str, disk: &BlockDevice) -> bool {
        let bind = || self.pv().is_some_and(|pv| file.contains("/volumeDevices/") && file.contains(&format!("/{pv}/")));
        file.strip_prefix("/dev/") == Some(&disk.name) || bind()
    }

    /// Whether its disk carries what this machine itself runs on: never a leftover of Kubernetes.
    pub fn is_the_machines_own(&self) -> bool {
        if self.mounts.iter().any(|mount| mount.volume.is_none()) {
            return true;
        }
        self.parts().iter().any(|part| part.swap || !part.holders.is_empty())
    }

    /// Its disk, and the partitions of that.
    fn parts(&self) -> Vec<&'a BlockDevice> {
        let (Some((_, disk)), Ok(block)) = (self.device, self.view.block.known()) else { return Vec::new() };
        block.value.values().filter(|device| is_part_of(device, disk)).collect()
    }

    /// Whether its disk is parted.
    pub fn has_partitions(&self) -> bool {
        self.parts().len() > 1
    }

    /// Whether the mounts of this machine were seen wholly: without that no mount of it may be missed.
    pub fn sees_all_mounts(&self) -> bool {
        self.view.mounts.known().is_ok_and(|mounts| mounts.value.gap().is_none())
    }
}
