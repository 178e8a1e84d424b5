//! Xen, where a device shows nothing of its volume: it goes by the name that it was attached by. That is in the
//! VolumeAttachment, of in-tree volumes on the Node, and in EC2's own list.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::find::{disk_named, is_part_of, names_no_volume};
use super::{Drivers, Parts, Volume, Volumes};
use crate::facts::{BlockDevice, BlockDevices, Cause, DevId, Ec2Volume, Unknown, VolumeId};

/// What the kernel calls block devices of Xen.
const PREFIX: &str = "xvd";

/// Whether this machine is one of Xen.
pub(super) fn is_xen(block: &BlockDevices) -> bool {
    names_no_volume(block) && block.values().any(|device| device.name.starts_with(PREFIX))
}

/// Gives each volume the disk that has its name, and adds those that EC2 alone knows of.
pub(super) fn name_devices<'v>(parts: &Rc<Parts<'v>>, drivers: &Drivers<'v>, all: &mut BTreeMap<VolumeId, Volume<'v>>) {
    let Ok(block) = parts.block.seen() else { return };
    // A name does not change while a volume is attached, so an old answer is as good as a new one.
    if let Some(ec2) = parts.ec2_attached.last() {
        let here = |volume: &Ec2Volume| volume.attachment(&ec2.instance).is_some();
        for (id, _) in ec2.volumes.iter().filter(|(_, volume)| here(volume)) {
            all.entry(id.clone()).or_insert_with(|| Volume::new(parts, id.clone(), drivers.clone()));
        }
    }
    // A name may have gone to another volume since EC2 was asked, or since a VolumeAttachment was to be deleted: what the controller
    // has attached comes first, then what the kubelet wants.
    let rank = |volume: &Volume<'_>| {
        let is_deleting = || volume.attachment().ok().flatten().is_some_and(|seen| seen.value.deleting.is_some());
        match (volume.attached, volume.in_use) {
            (true, _) if !is_deleting() => 0,
            (true, _) => 1,
            (false, true) => 2,
            (false, false) => 3,
        }
    };
    let mut ranked: Vec<_> = all.values_mut().map(|volume| (rank(volume), volume)).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut taken = BTreeSet::new();
    for (_, volume) in ranked {
        volume.is_on_xen = true;
        let Some(name) = name_of(volume) else { continue };
        volume.device = disk_named(block.value, &name).filter(|(dev, _)| taken.insert(*dev));
    }
}

/// The name of the disk that a volume was attached as, by the first source that has it.
pub(super) fn name_of(volume: &Volume<'_>) -> Option<String> {
    let of_attachment = || {
        let attachment = volume.attachment().ok()??.value;
        attachment.device_path.as_deref().filter(|_| attachment.attached).and_then(disk_name)
    };
    super::parts::note::<super::parts::OnXen>();
    let of_ec2 = || {
        let ec2 = volume.parts.ec2_attached.last()?;
        disk_name(&ec2.volumes.get(&volume.id)?.attachment(&ec2.instance)?.device)
    };
    of_attachment().or_else(|| disk_name(volume.node_path?)).or_else(of_ec2)
}

/// The kernel's name of what EC2 calls `/dev/xvdf` or, as one may as well, `/dev/sdf`.
fn disk_name(path: &str) -> Option<String> {
    let name = path.strip_prefix("/dev/").unwrap_or(path);
    let letters = name.strip_prefix(PREFIX).or_else(|| name.strip_prefix("sd"))?;
    let good = !letters.is_empty() && letters.bytes().all(|byte| byte.is_ascii_lowercase());
    good.then(|| format!("{PREFIX}{letters}"))
}

/// Why a volume's device cannot be known.
pub(super) fn unnamed(volume: &VolumeId) -> Unknown {
    let volume = volume.as_str();
    let why = format!(
        "Xen devices do not show EBS volume ids, and the sources that were read do not name the device of {volume}"
    );
    Unknown::new(Cause::Unsupported, why)
}

/// Disks of Xen that hold nothing of the machine's own and that no source names a volume of: whether they should be here
/// cannot be known, nor which was found before. `None` where there are none.
pub fn nameless_disks(all: &Volumes<'_>) -> Option<Unknown> {
    super::parts::note::<super::parts::NamelessDisks>();
    let parts = all.parts();
    let (block, mounts) = (parts.block.seen().ok()?.value, parts.mounts.seen().ok()?.value);
    // What EC2 does not list is none of EBS's: an instance store.
    let is_listed = parts.ec2_attached.last().is_some_and(|ec2| ec2.volumes.incomplete().is_none());
    if !is_xen(block) || is_listed {
        return None;
    }
    let in_use = |(dev, device): (DevId, &BlockDevice)| {
        let mounted = || mounts.of_device(dev).next().or_else(|| mounts.of_node(&device.name).next()).is_some();
        device.swap || !device.holders.is_empty() || mounted()
    };
    let disks = block.values().filter(|device| device.disk.is_none() && disk_name(&device.name).is_some());
    let named: BTreeSet<&str> = all.all.iter().filter_map(|volume| Some(volume.device?.1.name.as_str())).collect();
    let nameless = disks.filter(|disk| {
        let parts = block.standing_on(&disk.name).filter(|(_, device)| is_part_of(device, disk));
        !named.contains(disk.name.as_str()) && !block.named(&disk.name).into_iter().chain(parts).any(in_use)
    });
    let names: Vec<&str> = nameless.map(|disk| disk.name.as_str()).collect();
    let why = format!(
        "Xen devices do not show EBS volume ids, and neither a VolumeAttachment nor the Node names the volume of {}",
        names.join(", ")
    );
    (!names.is_empty()).then(|| Unknown::new(Cause::Unsupported, why))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::detect::volumes::Settings;
    use crate::facts::{
        Answer, Answers, BootId, Ec2Attached, Ec2Attachment, Ec2AttachmentState, Inventory, Node, NodeTime,
        Observation, Reading, VolumeAttachment, attachment_name,
    };
    use crate::view::View;
    use crate::view::input::Input;

    const DRIVER: &str = "ebs.csi.aws.com";
    const NODE: &str = "ip-10-0-0-1";

    fn id(letter: char) -> VolumeId {
        VolumeId::from_serial(&format!("vol-0123456789abcde0{letter}")).unwrap()
    }

    /// What claims the name of one disk.
    #[derive(Clone, Copy, Debug)]
    enum Claims {
        Attached,
        AttachedAndDeleted,
        InUse,
        Ec2,
    }

    /// The volumes that claim the name `xvdba`, and which of them gets the disk.
    fn holder(claims: &[(char, Claims)]) -> Option<char> {
        let at = NodeTime { boot: BootId::default(), up: Duration::from_secs(60), wall: Timestamp::UNIX_EPOCH };
        let mut node = Node { name: NODE.to_owned(), ..Node::default() };
        let (mut attachments, mut ec2) = (Answers(BTreeMap::new()), Vec::new());
        for (letter, claims) in claims {
            let (id, name) = (id(*letter), format!("kubernetes.io/csi/{DRIVER}^{}", id(*letter).as_str()));
            let attachment = |deleting| {
                let device_path = Some("/dev/xvdba".to_owned());
                let attachment =
                    VolumeAttachment { attached: true, device_path, deleting, ..VolumeAttachment::default() };
                (attachment_name(id.as_str(), DRIVER, NODE), Answer::Found(attachment))
            };
            match claims {
                Claims::Attached => {
                    node.volumes_attached.insert(name, String::new());
                    attachments.0.extend([attachment(None)]);
                }
                Claims::AttachedAndDeleted => {
                    node.volumes_attached.insert(name, String::new());
                    attachments.0.extend([attachment(Some(Timestamp::UNIX_EPOCH))]);
                }
                Claims::InUse => {
                    node.volumes_in_use.push(name);
                    attachments.0.extend([attachment(None)]);
                }
                Claims::Ec2 => {
                    let attachment = Ec2Attachment {
                        instance: "i-0a".to_owned(),
                        device: "/dev/sdba".to_owned(),
                        state: Ec2AttachmentState::Attached,
                        attached_at: None,
                        delete_on_termination: false,
                    };
                    ec2.push((id, Ec2Volume { attachments: vec![attachment], ..Ec2Volume::default() }));
                }
            }
        }
        let disk = |name: &str| BlockDevice { name: name.to_owned(), size: 8, ..BlockDevice::default() };
        let disks = [(DevId { major: 202, minor: 0 }, disk("xvda")), (DevId { major: 202, minor: 1 }, disk("xvdba"))];
        let attached = Ec2Attached { instance: "i-0a".to_owned(), volumes: Inventory::whole(ec2) };
        let mut view = View::new(at);
        view.take(
            at,
            vec![
                Observation::Node(Reading::Known { value: node, at }),
                Observation::BlockDevices(Reading::Known { value: BlockDevices::whole(disks), at }),
                Observation::VolumeAttachments(Reading::Known { value: attachments, at }),
                Observation::Ec2Attached(Reading::Known { value: attached, at }),
            ],
        );
        let settings = Settings::default();
        let volumes = Volumes::of(Parts::extract(&view).unwrap(), &settings);
        let with_disk: Vec<char> = claims
            .iter()
            .map(|(letter, _)| *letter)
            .filter(|letter| volumes.get(&id(*letter)).is_some_and(|volume| volume.device().is_some()))
            .collect();
        assert!(with_disk.len() <= 1, "one disk is one volume: {with_disk:?} of {claims:?}");
        with_disk.first().copied()
    }

    #[test]
    fn a_name_that_several_volumes_claim_is_that_of_the_one_that_is_most_surely_here() {
        use Claims::{Attached, AttachedAndDeleted, Ec2, InUse};
        let by_rank = [Attached, AttachedAndDeleted, InUse, Ec2];
        for (rank, claims) in by_rank.iter().enumerate() {
            assert_eq!(holder(&[('a', *claims)]), Some('a'), "{claims:?} alone");
            for less in &by_rank[rank + 1..] {
                // Whatever the order of their ids.
                assert_eq!(holder(&[('a', *claims), ('b', *less)]), Some('a'), "{claims:?} before {less:?}");
                assert_eq!(holder(&[('a', *less), ('b', *claims)]), Some('b'), "{claims:?} before {less:?}");
            }
        }
        assert_eq!(holder(&[]), None);
    }

    #[test]
    fn a_path_is_the_kernels_name_or_none() {
        for (path, name) in [
            ("/dev/xvdaa", Some("xvdaa")),
            ("/dev/sdf", Some("xvdf")),
            ("xvdba", Some("xvdba")),
            ("/dev/sda2", None),
            ("/dev/nvme1n1", None),
            ("/dev/xvd", None),
            ("", None),
        ] {
            assert_eq!(disk_name(path).as_deref(), name, "{path}");
        }
    }
}
