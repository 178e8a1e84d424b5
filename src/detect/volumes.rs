//! EBS volumes, mounts and filesystems.

mod all_of_ebs;
pub mod attachment_limit;
mod burst_bucket;
pub mod burst_forecast;
pub(super) mod causes;
pub mod dead_mount;
pub mod device_error;
pub(super) mod ebs_type;
mod elsewhere;
pub mod filesystem_error;
mod holders;
mod instance_burst;
pub mod instance_throttled;
pub mod missing_device;
pub mod mounted_at_shutdown;
pub mod orphaned_pod_directory;
pub mod orphaned_staging_mount;
pub mod orphaned_volume;
pub mod pinned_filesystem;
pub(super) mod stack;
pub mod stacked_mounts;
pub mod stale_attachment;
pub mod stalled_io;
pub mod state;
pub mod stuck_attaching;
pub mod stuck_detaching;
pub mod stuck_mounting;
pub mod stuck_unmount;
pub mod swapped_volume;
pub mod throttled;
pub mod unmounted_volume_path;
pub mod untagged_volume;
pub mod volume_driver_missing;
pub mod volume_throttled;
pub mod wanted_elsewhere;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::detect::Settings as All;
use crate::facts::{
    Absent, BlockDevice, BlockDevices, Cause, CsiDriver, DevId, ImdsInstance, MountEntry, Mounts, Node,
    NvmeControllers, Pod, PodUid, Pods, Unknown, VolumeId, VolumePath, is_at_or_below,
};
use crate::finding::{Evidence, Object, ObjectType};
use crate::setting::{Group, value};
use crate::view::input::{Cites, Compound, Input, Known, Maybe, NamingPods, PodsLately};
use crate::view::{RecentPods, Seen, sources};

/// Which volumes are EBS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// CSI drivers whose volume handles are EBS volume ids.
    pub drivers: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { drivers: vec!["ebs.csi.aws.com".to_owned(), "ebs.csi.eks.amazonaws.com".to_owned()] }
    }
}

impl Settings {
    /// Whether a driver that is registered here may attach EBS volumes: by its name, or since it counts how many of its volumes this
    /// instance takes. A driver of EBS under another name does that; one that attaches nothing (EFS, S3, secrets) has no reason to.
    fn may_attach(&self, name: &String, driver: &CsiDriver) -> bool {
        self.drivers.contains(name) || driver.allocatable.is_some()
    }
}

/// Settings of several kinds.
pub(super) const SETTINGS: &[Group<All>] = &[Group {
    name: "volumes",
    keys: &[value!(
        All,
        "ebs-drivers",
        "ebs-drivers",
        "CSI drivers whose volume handles are EBS volume ids",
        "names of drivers, with commas between",
        |settings| settings.ebs.drivers.join(","),
        |settings, text| drivers(text).map(|names| settings.ebs.drivers = names)
    )],
}];

fn drivers(text: &str) -> Result<Vec<String>, String> {
    let names = text.split(',').map(|name| {
        let name = name.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        match name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
            true => Err(format!("{name:?} is not a CSI driver name")),
            false => Ok(name.to_owned()),
        }
    });
    names.collect()
}

/// A mount point as an object, with the pod and volume that its path or device names.
fn mount_object(mount: &MountEntry, block: Option<&BlockDevices>) -> Object {
    let mut object = Object::new(ObjectType::Mount, &*mount.point);
    if let Some(path) = &mount.volume {
        object.pod = path.pod().cloned();
        object.pv = pv_of(path).map(str::to_owned);
    }
    object.volume = block.and_then(|block| volume_of(block, device_of(block, mount)?));
    object
}

/// The device of a mount. Those of btrfs have a number that no device has.
fn device_of<'v>(block: &'v BlockDevices, mount: &MountEntry) -> Option<&'v BlockDevice> {
    match mount.raw_block_device().or_else(|| dead_mount::btrfs_source(mount)) {
        Some(name) => named(block, name),
        None => block.get(&mount.dev),
    }
}

/// The EBS volume that a device is, or the only one that it stands on: a partition has no serial of its own, nor has what device mapper
/// and md build.
fn volume_of(block: &BlockDevices, device: &BlockDevice) -> Option<VolumeId> {
    let disk = device.disk.as_ref().and_then(|disk| named(block, disk)).unwrap_or(device);
    if disk.volume.is_some() || disk.slaves.is_empty() {
        return disk.volume.clone();
    }
    let below = stack::Below::of(block, device);
    match below.here.as_slice() {
        [disk] if below.gone.is_empty() => disk.volume.clone(),
        _ => None,
    }
}

fn named<'a>(block: &'a BlockDevices, name: &str) -> Option<&'a BlockDevice> {
    block.named(name).map(|(_, device)| device)
}

/// The names of the disks that what the machine itself has mounted stands on: the root, the kubelet's directory, the images.
pub(super) fn disks_of_the_machine<'v>(mounts: &Mounts, block: &'v BlockDevices) -> BTreeSet<&'v str> {
    let own = mounts.values().filter(|mount| mount.volume.is_none());
    let devices = own.filter_map(|mount| device_of(block, mount));
    devices.flat_map(|device| stack::Below::of(block, device).here).map(|disk| disk.name.as_str()).collect()
}

/// The first mount of each block device: of thousands of mounts most have none.
fn mounted_devices(mounts: &Mounts) -> BTreeMap<DevId, &MountEntry> {
    let mut devices = BTreeMap::new();
    for mount in mounts.values().filter(|mount| mount.has_device()) {
        devices.entry(mount.dev).or_insert(mount);
    }
    devices
}

fn pv_of(path: &VolumePath) -> Option<&str> {
    match path {
        VolumePath::LegacyStaging { pv } | VolumePath::RawBlock { pv, .. } | VolumePath::LocalBlock { pv, .. } => {
            Some(pv)
        }
        VolumePath::Pod { name, .. } | VolumePath::Subpath { name, .. } => Some(name),
        VolumePath::Staging { .. } | VolumePath::InTree { .. } => None,
    }
}

/// Whether its path names a pod.
fn is_of_a_pod(mount: &MountEntry) -> bool {
    mount.volume.as_ref().is_some_and(|path| path.pod().is_some())
}

/// Whether a path of a pod only shows a directory of a disk that the node itself has mounted: of a hostPath, of an emptyDir, or of a
/// local PersistentVolume. Kubernetes did not attach that disk.
fn is_of_the_nodes_disk(mounts: &Mounts, mount: &MountEntry) -> bool {
    let is_attached = |path: &VolumePath| match path {
        VolumePath::Pod { plugin, .. } => ["kubernetes.io~csi", "kubernetes.io~aws-ebs"].contains(&plugin.as_str()),
        VolumePath::Subpath { .. } | VolumePath::LocalBlock { .. } => false,
        _ => true,
    };
    let may_be = mount.has_device() && mount.volume.as_ref().is_some_and(|path| !is_attached(path));
    let of_it = || mounts.of_device(mount.dev).map(|(_, other)| other);
    may_be
        && of_it().any(|other| other.volume.is_none() && is_at_or_below(&mount.root, &other.root))
        && !of_it().any(|other| other.volume.as_ref().is_some_and(is_attached))
}

/// Proof that no pod's path has a filesystem.
fn without_pod(mounts: &Mounts, dev: DevId) -> Option<Absent> {
    let of_a_pod = mounts.of_device(dev).map(|(_, mount)| mount).find(|mount| is_of_a_pod(mount));
    mounts.lacks_found(of_a_pod).ok()
}

/// How much a mount says about who uses the volume.
fn specificity(mount: &MountEntry) -> u8 {
    match &mount.volume {
        Some(VolumePath::Pod { .. } | VolumePath::RawBlock { pod: Some(_), .. } | VolumePath::LocalBlock { .. }) => 2,
        Some(VolumePath::Subpath { .. }) => 1,
        _ => 0,
    }
}

/// What pods are called. It only names: nothing is decided by it.
#[derive(Clone, Copy)]
pub(super) struct PodNames<'v> {
    pods: Known<'v, Pods>,
    recent_pods: &'v RecentPods,
}

impl Compound for PodNames<'_> {
    type Of<'v> = PodNames<'v>;
    type Read = (NamingPods, Cites<PodsLately>);

    fn of<'v>((pods, recent_pods): <Self::Read as Input>::Of<'v>) -> PodNames<'v> {
        PodNames { pods, recent_pods }
    }
}

impl<'v> PodNames<'v> {
    /// The pod as the API server has it, else the kubelet.
    fn pod(self, uid: &PodUid) -> Option<&'v Pod> {
        self.pods.seen().ok()?.value.get(uid).map(AsRef::as_ref)
    }

    /// A pod's namespace and name, and its UID where these are not known.
    fn of(self, uid: &PodUid) -> String {
        match (self.pod(uid), self.recent_pods.name(uid)) {
            (Some(pod), _) => pod.full_name(),
            (None, Some((namespace, name))) => format!("{namespace}/{name}"),
            (None, None) => uid.clone(),
        }
    }
}

/// What the mount table calls the user of a device. It only names: nothing is decided by it.
#[derive(Clone, Copy)]
pub(super) struct Names<'v> {
    block: Option<&'v BlockDevices>,
    mounts: Option<&'v Mounts>,
    pods: PodNames<'v>,
}

impl Compound for Names<'_> {
    type Of<'v> = Names<'v>;
    type Read = (Cites<(Maybe<sources::BlockDevices>, Maybe<sources::Mounts>)>, PodNames<'static>);

    fn of<'v>(((block, mounts), pods): <Self::Read as Input>::Of<'v>) -> Names<'v> {
        let (block, mounts) = (block.seen().ok(), mounts.seen().ok());
        Names { block: block.map(|seen| seen.value), mounts: mounts.map(|seen| seen.value), pods }
    }
}

impl<'v> Names<'v> {
    /// The EBS volume that a device is, by its name.
    fn volume(self, device: &str) -> Option<VolumeId> {
        let block = self.block?;
        volume_of(block, named(block, device)?)
    }

    /// Mounts of a device by its name, and of what is built on it: of filesystems and of device nodes.
    fn mounts_of<'a>(self, device: &'a str) -> Vec<&'a MountEntry>
    where
        'v: 'a,
    {
        let (Some(block), Some(mounts)) = (self.block, self.mounts) else { return Vec::new() };
        let devs = stack::on_top_of(block, device);
        let is_of_filesystem = |mount: &MountEntry| mount.has_device() && mount.raw_block_device().is_none();
        let of_filesystems = devs.iter().flat_map(|dev| mounts.of_device(*dev));
        let of_filesystems = of_filesystems.filter(|(_, mount)| is_of_filesystem(mount));
        let on_it = devs.iter().filter_map(|dev| block.get(dev)).map(|on_it| on_it.name.as_str());
        let names: BTreeSet<&str> = on_it.chain([device]).collect();
        let of_nodes = names.iter().flat_map(|name| mounts.of_node(name));
        let is_of_btrfs = |mount: &MountEntry| dead_mount::btrfs_disk(mount).is_some_and(|disk| names.contains(disk));
        let of_btrfs = mounts.iter().filter(|(_, mount)| is_of_btrfs(mount));
        let mut all: Vec<_> = of_filesystems.chain(of_nodes).chain(of_btrfs).collect();
        all.sort_unstable_by_key(|(id, _)| **id);
        all.into_iter().map(|(_, mount)| mount).collect()
    }

    /// Adds to an object the pod and volume that mounts of its device name; says which for the message.
    fn name_user(self, object: &mut Object, device: &str) -> String {
        let volumes = self.mounts_of(device).into_iter().filter(|mount| mount.volume.is_some());
        // The pod's own mount says more than the staging that every volume has.
        let Some(best) = volumes.max_by_key(|mount| specificity(mount)) else { return String::new() };
        object.pod = best.volume.as_ref().and_then(VolumePath::pod).cloned();
        object.pv = best.volume.as_ref().and_then(pv_of).map(str::to_owned);
        format!(" ({})", describe(best, self.pods))
    }
}

/// The instance's type, and what says so: the Node's label where it is the same. None where neither it nor IMDS has one.
fn instance_type<'v>(node: Option<Seen<'v, Node>>, imds: Known<'v, ImdsInstance>) -> Option<(&'v str, Evidence)> {
    let imds = imds.seen().ok();
    let name = crate::facts::instance_type(node.map(|node| node.value), imds.map(|imds| imds.value))?;
    let by_label = node.filter(|node| node.value.instance_type() == Some(name));
    let by_label = by_label.map(|node| node.says(format!("the Node's instance type is {name}")));
    let says = by_label.or_else(|| Some(imds?.says(format!("the instance type is {name}"))))?;
    Some((name, says))
}

/// What a mount point is to people: the part of the pod or of the staging that it plays.
fn describe(mount: &MountEntry, pods: PodNames<'_>) -> String {
    let part = describe_without_pod(mount);
    match mount.volume.as_ref().and_then(VolumePath::pod) {
        Some(pod) => format!("{part} of pod {}", pods.of(pod)),
        None => part,
    }
}

fn describe_without_pod(mount: &MountEntry) -> String {
    match &mount.volume {
        Some(VolumePath::Pod { name, .. }) => format!("volume {name}"),
        Some(VolumePath::Subpath { name, container, .. }) => {
            format!("a subpath of volume {name} in container {container}")
        }
        Some(VolumePath::RawBlock { pv, .. } | VolumePath::LocalBlock { pv, .. }) => format!("raw block volume {pv}"),
        Some(VolumePath::Staging { driver, .. }) => format!("a staged volume of {driver}"),
        Some(VolumePath::LegacyStaging { pv }) => format!("the staged volume {pv}"),
        Some(VolumePath::InTree { plugin, volume }) => format!("the {plugin} volume {volume}"),
        None => "a filesystem".to_owned(),
    }
}

/// Devices of NVMe controllers that the list of block devices lacks, whatever it says of itself: each is there, and nothing is
/// known of it.
fn unlisted<'v>(
    nvme: &Known<'v, NvmeControllers>,
    block: Seen<'v, BlockDevices>,
) -> impl Iterator<Item = (Object, Unknown)> + use<'v> {
    let controllers = nvme.seen().ok().into_iter().flat_map(|nvme| nvme.value.iter());
    let devices =
        controllers.flat_map(|(name, controller)| controller.namespaces.iter().map(move |of| (name, controller, of)));
    devices.filter(move |(.., device)| named(block.value, device).is_none()).map(|(name, controller, device)| {
        let why = format!("controller {name} has {device}, which is not among the block devices that were read");
        let volume = controller.volume.clone();
        let object = Object { volume, ..Object::new(ObjectType::Device, device.as_str()) };
        (object, Unknown::new(Cause::Incomplete, why))
    })
}

/// EC2's answers disagree for seconds after a change: one alone proves nothing.
const EC2_APART: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "/var/lib/kubelet/pods/74dcc96c-be53-45c4-a46f-3809d56e9a65/volumes";
    const STAGING: &str = "/var/lib/kubelet/plugins/kubernetes.io/csi/ebs.csi.aws.com/\
                           0716741166d0850117b90c3d6688532ba1540f0e1a0a88abb39e4599625e4fb7/globalmount";

    fn mount(minor: u32, root: &str, point: &str) -> MountEntry {
        MountEntry {
            parent: 1,
            dev: DevId { major: if minor == 0 { 0 } else { 259 }, minor },
            root: root.into(),
            point: point.into(),
            options: "rw".into(),
            fstype: "ext4".into(),
            source: "/dev/nvme1n1".into(),
            super_options: "rw".into(),
            deleted: false,
            volume: VolumePath::parse("/var/lib/kubelet", point),
            left_out: 0,
        }
    }

    #[test]
    fn a_directory_of_the_nodes_own_disk_is_no_volume_that_kubernetes_attached() {
        let local = |name: &str| format!("{POD}/kubernetes.io~local-volume/{name}");
        let csi = |name: &str| format!("{POD}/kubernetes.io~csi/{name}/mount");
        let table = [
            (mount(1, "/", "/"), None),
            (mount(2, "/", "/mnt/disks/a"), None),
            (mount(6, "/data", "/mnt/disks/b"), None),
            (mount(4, "/", STAGING), Some(false)),
            (mount(1, "/srv/cache", &local("of-the-root")), Some(true)),
            (mount(2, "/", &local("of-a-disk")), Some(true)),
            (mount(6, "/data/one", &local("below-what-is-mounted")), Some(true)),
            (mount(6, "/other", &local("beside-what-is-mounted")), Some(false)),
            (mount(3, "/", &local("not-mounted-elsewhere")), Some(false)),
            (mount(4, "/", &local("of-a-staged-disk")), Some(false)),
            (mount(7, "/", "/mnt/disks/c"), None),
            (mount(7, "/srv/csi", &csi("by-a-driver")), Some(false)),
            (mount(7, "/srv/in-tree", &format!("{POD}/kubernetes.io~aws-ebs/pv-a")), Some(false)),
            (mount(0, "/", &local("without-a-disk")), Some(false)),
        ];
        let numbered = (10u32..).zip(&table).map(|(id, (mount, _))| (id, mount.clone()));
        let mounts = Mounts::whole(numbered);
        for (mount, expected) in &table {
            let Some(expected) = expected else { continue };
            assert!(mount.volume.is_some(), "{}", mount.point);
            assert_eq!(is_of_the_nodes_disk(&mounts, mount), *expected, "{}", mount.point);
        }
    }
}
