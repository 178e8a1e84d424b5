//! What each source says of a volume, for messages and evidence.

use super::attachment::{Beneath, Mounted};
use super::{Ec2Word, Volume};
use crate::facts::{
    BlockDevice, Ec2Attached, Ec2Attachment, Ec2Volume, FilesystemKey, Lookup, NotAbsent, PodPhase, Tri, Unknown,
};
use crate::finding::Evidence;
use crate::view::Seen;

/// Where EC2 has a volume: `in-use in eu-west-1a, attached at i-0a as /dev/xvdaa since 2026-11-20T10:00:00Z`.
pub fn whereabouts(volume: &Ec2Volume) -> String {
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

impl<'v> Volume<'v> {
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
        let node = self.parts.node.seen().ok()?;
        let words = match (self.in_use, self.attached) {
            (true, true) => "is in volumesInUse and in volumesAttached",
            (true, false) => "is in volumesInUse (the kubelet wants it) and not in volumesAttached",
            (false, true) => "is in volumesAttached and not in volumesInUse",
            (false, false) => "is neither in volumesInUse nor in volumesAttached",
        };
        Some(node.says(format!("{} {words}", self.id.as_str())))
    }

    /// What is known of its VolumeAttachment, as evidence.
    pub fn attachment_says(&self) -> Option<Evidence> {
        let answers = self.parts.attachments.seen().ok()?;
        let attachment = match self.attachment().ok()? {
            None => {
                return Some(
                    answers.says("the API server answers that its VolumeAttachment for this node does not exist (404)"),
                );
            }
            Some(attachment) => attachment.value,
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
        let block = self.parts.block.seen().ok()?;
        let by = if disk.volume.is_none() { ", by the name that it was attached by" } else { "" };
        Some(block.says(format!("{} ({dev}) is {}{by}", disk.name, self.id.as_str())))
    }

    /// That no disk of this machine is it.
    pub fn absence_says(&self) -> Option<Evidence> {
        match self.absence() {
            Tri::Yes(says) => Some(says),
            _ => None,
        }
    }

    /// That nothing on this machine uses it, as far as that was seen.
    pub fn unused(&self) -> String {
        super::parts::note::<super::parts::Busy>();
        match (&self.facts.mounts, &self.facts.beneath) {
            (Ok(_), Ok(_)) => "nothing on this machine uses it".to_owned(),
            (Err(missing), _) | (_, Err(missing)) => format!("what uses it here is not known ({})", missing.why),
        }
    }

    /// The same as evidence, where all of it was seen.
    pub fn unused_says(&self) -> Option<Evidence> {
        super::parts::note::<super::parts::Busy>();
        let unused = self.facts.mounts == Ok(Mounted::Unmounted) && self.facts.beneath == Ok(Beneath::Unused);
        let says = "the host has no mount of it, and no live filesystem, swap or device is on it";
        Some(self.parts.mounts.seen().ok().filter(|_| unused)?.says(says))
    }

    /// Whether a loop device's file is its disk's node, or the kubelet's bind of it.
    pub(super) fn is_loop_over_it(&self, device: &BlockDevice, disk: &BlockDevice) -> bool {
        device.loop_file.as_deref().is_some_and(|file| self.is_its_node(file, disk))
    }

    fn live_filesystem(&self) -> Option<&'v FilesystemKey> {
        self.parts.index.filesystem_on(&self.disk_and_partitions())
    }

    /// What the API server says of it, where that is known.
    pub fn evidence(&self) -> Vec<Evidence> {
        self.node_says().into_iter().chain(self.attachment_says()).collect()
    }

    /// What EC2 says of it, twice and a minute apart: how it is attached to this instance, or that it is not.
    ///
    /// # Errors
    /// Why neither is known.
    pub fn ec2(&self) -> Result<Option<Ec2Word<'v>>, Unknown> {
        let (now, before) = self.parts.ec2_twice()?;
        let word = |read: &'v Ec2Attached| match read.volumes.lacks(&self.id) {
            Ok(_) => Ok(None),
            Err(NotAbsent::Unknown(why)) => Err(why.clone()),
            Err(NotAbsent::Present(volume)) => {
                Ok(volume.attachment(&read.instance).map(|attachment| Ec2Word { volume, attachment }))
            }
        };
        let (last, first) = (word(now.value)?, word(before)?);
        if last.map(|word| word.attachment.state) != first.map(|word| word.attachment.state) {
            return Err(Unknown::baseline("EC2's answer, which changed,"));
        }
        Ok(last)
    }

    /// The same as evidence.
    pub fn ec2_says(&self) -> Option<Evidence> {
        let (now, _) = self.parts.ec2_twice().ok()?;
        let volume = self.id.as_str();
        Some(match self.ec2().ok()? {
            None => now.says(format!("EC2 says that {volume} is not attached to this instance (twice)")),
            Some(Ec2Word { attachment, volume: object }) => {
                let tags: Vec<String> = object.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let tags = match tags.is_empty() {
                    true => "without a tag that names an owner".to_owned(),
                    false => format!("with {}", tags.join(", ")),
                };
                let (state, device) = (attachment.state.name(), &attachment.device);
                now.says(format!("EC2 says that {volume} is {state} here as {device} (twice), {tags}"))
            }
        })
    }

    /// What asks EC2 for it by its id, wherever it is.
    pub fn ask_ec2(&self) -> Lookup {
        Lookup::Ec2Volume(self.id.clone())
    }

    /// The volume as EC2 last had it by its id.
    pub fn ec2_last(&self) -> Option<&'v Ec2Volume> {
        self.parts.ec2_volumes.last()?.get(self.id.as_str()).ok()?
    }

    /// What EC2 has of it by its id, twice and a minute apart, or that it has no such volume.
    ///
    /// # Errors
    /// Why neither is known.
    pub fn ec2_by_id(&self) -> Result<Option<Seen<'v, Ec2Volume>>, Unknown> {
        let (now, before, over) = self.parts.ec2_volumes.pair()?;
        let (last, first) = (now.value.get(self.id.as_str())?, before.get(self.id.as_str())?);
        if over < crate::detect::volumes::EC2_APART
            || last.map(|volume| volume.state) != first.map(|volume| volume.state)
        {
            return Err(Unknown::baseline("EC2's answer about a volume"));
        }
        Ok(last.map(|volume| now.with(volume)))
    }

    /// The same as evidence.
    pub fn ec2_by_id_says(&self) -> Option<Evidence> {
        let volume = self.id.as_str();
        Some(match self.ec2_by_id().ok()? {
            None => self.parts.ec2_volumes.seen().ok()?.says(format!("EC2 says that {volume} does not exist (twice)")),
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
        if let Some(mount) = self.mounts().iter().max_by_key(|mount| crate::detect::volumes::specificity(mount)) {
            return Some(format!("it is mounted at {}", mount.point));
        }
        let (_, disk) = self.device()?;
        let block = self.parts.block.seen().ok()?.value;
        let parts = self.disk_and_partitions();
        if let Some(part) = parts.iter().find(|part| part.swap) {
            return Some(format!("{} is swap space", part.name));
        }
        if let Some(built) = self.built_on() {
            return Some(built);
        }
        let file = |device: &&BlockDevice| device.loop_file.as_deref().is_some_and(|file| self.is_its_node(file, disk));
        if let Some(device) = block.values().find(file) {
            return Some(format!("{} is a loop device over it", device.name));
        }
        let alive = self.live_filesystem()?;
        Some(format!("its {} filesystem is still active although the host does not mount it", alive.fstype))
    }

    /// What device mapper or md builds on it, for a message.
    pub fn built_on(&self) -> Option<String> {
        let block = self.parts.block.seen().ok()?.value;
        let holder = self.disk_and_partitions().into_iter().find_map(|part| part.holders.first())?;
        let mapped = block.named(holder).and_then(|(_, device)| device.mapped.as_ref());
        Some(match mapped {
            Some(mapped) if mapped.is_multipath() => {
                format!("multipathd has taken it for {} ({holder})", mapped.name)
            }
            Some(mapped) => format!("{holder} ({}) is built on it", mapped.name),
            None => format!("{holder} is built on it"),
        })
    }

    /// A loop device's file that is this disk's node, or the kubelet's bind of it.
    fn is_its_node(&self, file: &str, disk: &BlockDevice) -> bool {
        let bind = || self.pv().is_some_and(|pv| file.contains("/volumeDevices/") && file.contains(&format!("/{pv}/")));
        file.strip_prefix("/dev/") == Some(&disk.name) || bind()
    }
}
