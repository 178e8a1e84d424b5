//! Which EBS volumes there are, and which disk and which mounts are each one's.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::attachment::Facts;
use super::{Drivers, Parts, Volume, facts, xen};
use crate::detect::volumes::dead_mount::btrfs_source;
use crate::detect::volumes::stack::Below;
use crate::detect::volumes::{Settings, is_of_the_nodes_disk};
use crate::facts::{AttachableName, BlockDevice, BlockDevices, DevId, MountEntry, Unknown, VolumeId};

/// Every volume that the Node names, and every EBS device that is here.
pub(super) fn volumes<'v>(parts: &Rc<Parts<'v>>, settings: &'v Settings) -> Vec<Volume<'v>> {
    let mut all: BTreeMap<VolumeId, Volume<'v>> = BTreeMap::new();
    if let Ok(node) = parts.node.seen() {
        let names = node.value.volumes_in_use.iter().map(|name| (name, None));
        let attached = node.value.volumes_attached.iter().map(|(name, path)| (name, Some(path.as_str())));
        for (name, attached_as) in names.chain(attached) {
            let Some(name) = AttachableName::parse(name) else { continue };
            let Some(id) = name.ebs_volume() else { continue };
            let drivers = Drivers { names: name.driver().into_iter().collect(), unknown: None };
            let volume = all.entry(id.clone()).or_insert_with(|| Volume::new(parts, id, drivers));
            volume.in_use |= attached_as.is_none();
            volume.attached |= attached_as.is_some();
            volume.node_path = attached_as.or(volume.node_path);
        }
    }
    if let Ok(block) = parts.block.seen() {
        let drivers = registered_drivers(parts, settings);
        for (dev, disk) in block.value {
            let Some(id) = &disk.volume else { continue };
            let new = || Volume::new(parts, id.clone(), drivers.clone());
            all.entry(id.clone()).or_insert_with(new).device = Some((*dev, disk));
        }
        if xen::is_xen(block.value) {
            xen::name_devices(parts, &drivers, &mut all);
        }
    }
    let mut all: Vec<Volume<'v>> = all.into_values().collect();
    find_mounts(parts, &mut all);
    let all_pods_have_theirs = facts::all_pods_have_theirs(parts);
    for volume in &mut all {
        volume.users = volume.find_users();
        volume.facts = facts::of(volume, all_pods_have_theirs);
    }
    facts::find_places(&mut all);
    all.iter_mut().for_each(Volume::find_states);
    all
}

impl<'v> Volume<'v> {
    pub(super) fn new(parts: &Rc<Parts<'v>>, id: VolumeId, drivers: Drivers<'v>) -> Self {
        Self {
            parts: Rc::clone(parts),
            id,
            drivers,
            in_use: false,
            attached: false,
            node_path: None,
            device: None,
            is_on_xen: false,
            mounts: Vec::new(),
            names: OnceCell::new(),
            users: Err(Unknown::not_asked()),
            facts: Facts::unknown(),
            states: super::StateSet::NONE,
            before_lookups: [super::StateSet::NONE; 3],
        }
    }

    fn find_states(&mut self) {
        self.states = self.facts.states();
        let mut facts = self.facts.clone();
        let mut set = self.states;
        // What is unknown already allows no other states when it is erased.
        let known = facts.pod.is_ok();
        facts.pod = Err(Unknown::not_asked().into());
        set = if known { facts.states() } else { set };
        let without_holders = set;
        let known = facts.users.is_ok();
        facts.users = Err(Unknown::not_asked().into());
        set = if known { facts.states() } else { set };
        let without_users = set;
        let known = facts.order.is_ok();
        facts.order = Err(Unknown::not_asked().into());
        set = if known { facts.states() } else { set };
        self.before_lookups = [set, without_users, without_holders];
    }

    /// Where the kubelet's directory is a bind of another, each mount below it shows below the other as well.
    fn forget_mirrors(&mut self) {
        let begin = |point: &str| PARTS.iter().find_map(|part| point.find(part));
        let own = self.mounts.iter().filter(|mount| mount.volume.is_some());
        let tails: BTreeSet<&str> = own.filter_map(|mount| mount.point.get(begin(&mount.point)?..)).collect();
        let is_mirror = |point: &str| {
            let mut begins = PARTS.iter().flat_map(|part| point.match_indices(part));
            begins.any(|(at, _)| point.get(at..).is_some_and(|tail| tails.contains(tail)))
        };
        self.mounts.retain(|mount| mount.volume.is_some() || !is_mirror(&mount.point));
    }
}

/// Of a volume that the Node does not name: the drivers registered here that may be EBS's. Where none of them is, those that usually are
/// may have been before; where that is not known, others may be here as well.
fn registered_drivers<'v>(parts: &Parts<'v>, settings: &'v Settings) -> Drivers<'v> {
    let usual = || settings.drivers.iter().map(String::as_str).collect();
    let registered = match parts.csi_node.seen() {
        Ok(csi) if csi.value.exists => &csi.value.drivers,
        Ok(_) => return Drivers { names: usual(), unknown: Some(super::no_csi_node()) },
        Err(why) => return Drivers { names: usual(), unknown: Some(why.clone()) },
    };
    let may_be = registered.iter().filter(|(name, driver)| settings.may_attach(name, driver));
    let here: Vec<&str> = may_be.map(|(name, _)| name.as_str()).collect();
    Drivers { names: if here.is_empty() { usual() } else { here }, unknown: None }
}

/// The directories in the kubelet's below which volumes are mounted.
const PARTS: [&str; 2] = ["/pods/", "/plugins/kubernetes.io/"];

/// Gives each volume the mounts of its disk, of that disk's partitions, of its device node, and of what is stacked on these.
fn find_mounts<'v>(parts: &Parts<'v>, all: &mut [Volume<'v>]) {
    let (Ok(mounts), Ok(block)) = (parts.mounts.seen(), parts.block.seen()) else { return };
    let disks = all.iter().enumerate().filter_map(|(place, volume)| Some((volume.device?.1.name.as_str(), place)));
    let disks: BTreeMap<&str, usize> = disks.collect();
    let (mut by_name, mut by_dev) = (BTreeMap::new(), BTreeMap::new());
    for (dev, device) in block.value {
        let below =
            Below::of(block.value, device).here.into_iter().filter_map(|disk| disks.get(disk.name.as_str()).copied());
        let places: Vec<usize> = below.collect();
        if !places.is_empty() {
            by_name.insert(device.name.as_str(), places.clone());
            by_dev.insert(*dev, places);
        }
    }
    for mount in mounts.value.values() {
        let places = match mount.raw_block_device() {
            Some(name) => by_name.get(name),
            // Mounts of btrfs have a number that no device has.
            None => by_dev.get(&mount.dev).or_else(|| by_name.get(btrfs_source(mount)?)),
        };
        for place in places.into_iter().flatten() {
            if let Some(volume) = all.get_mut(*place) {
                volume.mounts.push(mount);
            }
        }
    }
    all.iter_mut().for_each(Volume::forget_mirrors);
    for volume in all.iter_mut().filter(|volume| !volume.in_use && !volume.attached) {
        volume.mounts.retain(|mount| !is_of_the_nodes_disk(mounts.value, mount));
    }
}

/// Whether a device is this disk, or a partition of it.
pub(super) fn is_part_of(device: &BlockDevice, disk: &BlockDevice) -> bool {
    device.name == disk.name || device.disk.as_deref() == Some(&disk.name)
}

/// Whether a mount is of something that the machine itself runs from: never a volume of Kubernetes.
pub(super) fn is_of_the_system(mount: &MountEntry) -> bool {
    let point = &*mount.point;
    let of_the_kubelet = matches!(point, "/var/lib" | "/var/lib/kubelet" | "/var/lib/containerd");
    of_the_kubelet || matches!(point, "/" | "/usr" | "/var") || point == "/boot" || point.starts_with("/boot/")
}

/// Whether no device of this machine shows the volume that it is.
pub(super) fn names_no_volume(block: &BlockDevices) -> bool {
    !block.values().any(|device| device.volume.is_some())
}

/// The disk of this name, with its number.
pub(super) fn disk_named<'v>(block: &'v BlockDevices, name: &str) -> Option<(DevId, &'v BlockDevice)> {
    block.named(name).filter(|(_, device)| device.disk.is_none())
}
