//! The facts of a volume, each by the sources that show it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::attachment::{
    Beneath, Controller, Device, Facts, Kubelet, Mounted, Order, Past, Place, PodSide, Staging, Users,
};
use super::completion::{Fact, Missing};
use super::mount::MountState;
use super::pod::PodFacts;
use super::{Parts, Volume, csi, find, xen};
use crate::facts::{
    Cause, Ec2VolumeState, MAX_HOLDERS, MountEntry, Mounts, NotAbsent, Pod, PodPhase, PodUid, Tri, Unknown,
    VolumeAttachment, VolumePath, handle_hash,
};
use crate::finding::Evidence;
use crate::view::input::{Input, reads_of};
use crate::view::reads;

/// An attachment takes seconds; a pod that has waited so long waits for something else.
const LONG_WAIT: SignedDuration = SignedDuration::from_secs(120);

/// All of them but the place, which is found over all volumes.
pub(super) fn of(volume: &Volume<'_>, all_pods_have_theirs: bool) -> Facts {
    let device = by_its_sources(|| device(volume));
    let mounts = match &device {
        Ok(_) => by_its_sources(|| mounts(volume)),
        // Whose mounts they are is not known where the disk is not, unless a pod's path was found to be its.
        Err(why) => by_its_sources(|| mounts(volume)).and(Err(why.clone())),
    };
    let users = by_its_sources(|| users(volume));
    Facts {
        kubelet: by_its_sources(|| node(volume, volume.in_use, Kubelet::Wants, Kubelet::LetGo)),
        controller: by_its_sources(|| node(volume, volume.attached, Controller::Attached, Controller::NotAttached)),
        staging: by_its_sources(|| staging(volume)),
        beneath: device.clone().and_then(|_| by_its_sources(|| beneath(volume))),
        order: by_its_sources(|| order(volume)),
        pod: by_its_sources(|| pod_side(volume, &users, all_pods_have_theirs)),
        place: Ok(Place::Own),
        past: by_its_sources(|| past(volume)),
        device,
        mounts,
        users,
    }
}

/// Finds a fact by the sources that its type says it rests on.
fn by_its_sources<T: Input>(find: impl FnOnce() -> Fact<T>) -> Fact<T> {
    reads::only(reads_of::<T>(), find)
}

fn node<T>(volume: &Volume<'_>, listed: bool, yes: T, no: T) -> Fact<T> {
    volume.parts.node.seen()?;
    Ok(if listed { yes } else { no })
}

/// What was seen once stays so; what was not seen may have been while the Node was not.
fn past(volume: &Volume<'_>) -> Fact<Past> {
    if volume.attached || volume.parts.had_attached(&volume.id) {
        return Ok(Past::Kubernetes);
    }
    volume.parts.node.seen()?;
    Ok(Past::Unseen)
}

fn device(volume: &Volume<'_>) -> Fact<Device> {
    match volume.absence() {
        Tri::Yes(_) => Ok(Device::Absent),
        Tri::No(()) => Ok(Device::Here),
        // What its staging directory has mounted is here, whatever it is called.
        Tri::Unknown(why) => Err(Box::new(Missing { why, lookup: volume.ask().into_iter().next() })),
    }
}

fn staging(volume: &Volume<'_>) -> Fact<Staging> {
    let mounts = volume.parts.mounts.seen()?.value;
    if volume.parts.index.is_staged(&volume.id, &handle_hash(volume.id.as_str())) {
        return Ok(Staging::Staged);
    }
    if volume.parts.index.has_legacy_staging() {
        match (volume.pv(), volume.attachment()) {
            (Some(pv), _) if volume.parts.index.is_staged_as(pv) => return Ok(Staging::Staged),
            // What is staged by the name of a PersistentVolume may be this one.
            (None, Err(why)) => {
                return Err(Box::new(Missing { why, lookup: volume.ask().into_iter().next() }));
            }
            _ => {}
        }
    }
    mounts.incomplete().map_or(Ok(Staging::Unstaged), |why| Err(why.into()))
}

fn mounts(volume: &Volume<'_>) -> Fact<Mounted> {
    let (table, block) = (volume.parts.mounts.seen()?, volume.parts.block.seen()?);
    let swap = volume.disk_and_partitions().iter().any(|part| part.swap);
    if swap || volume.mounts().iter().any(|mount| find::is_of_the_system(mount)) {
        return Ok(Mounted::System);
    }
    let mut missing = table.value.incomplete().or(block.value.incomplete()).map(Box::<Missing>::from);
    let (mut gone, mut runs) = (false, false);
    // A local PersistentVolume is a disk of the node's own.
    let attached = |mount: &MountEntry| !matches!(mount.volume, None | Some(VolumePath::LocalBlock { .. }));
    let of_kubernetes = || volume.mounts().iter().filter(|mount| attached(mount));
    for pod in of_kubernetes().filter_map(|mount| mount.volume.as_ref()?.pod()) {
        match PodFacts::of(&volume.parts, pod).mount() {
            // One pod that lives is reason enough.
            Ok(MountState::InUse) => return Ok(Mounted::LivePod),
            Ok(MountState::OfGonePodThatRuns) => runs = true,
            Ok(_) => gone = true,
            Err(why) => missing = missing.or(Some(why)),
        }
    }
    if let Some(missing) = missing {
        return Err(missing);
    }
    let staged = || of_kubernetes().next().is_some();
    Ok(match volume.mounts().is_empty() {
        _ if runs => Mounted::GonePodThatRuns,
        _ if gone => Mounted::GonePod,
        true => Mounted::Unmounted,
        false if staged() => Mounted::StagingOnly,
        false => Mounted::Elsewhere,
    })
}

fn beneath(volume: &Volume<'_>) -> Fact<Beneath> {
    let Some((_, disk)) = volume.device() else { return Ok(Beneath::Unused) };
    let block = volume.parts.block.seen()?.value;
    let parts = volume.disk_and_partitions();
    let filesystems = volume.parts.filesystems.seen()?.value;
    if volume.parts.index.filesystem_on(&parts).is_some() {
        return Ok(Beneath::Filesystem);
    }
    if let Some(incomplete) = filesystems.incomplete() {
        return Err(incomplete.into());
    }
    let holder = parts.iter().any(|part| !part.holders.is_empty());
    if volume.parts.mounts.seen().is_ok_and(|mounts| parts.iter().any(|part| is_log_of_one(mounts.value, &part.name))) {
        return Ok(Beneath::BuiltOn);
    }
    if holder || volume.parts.index.loops().iter().any(|device| volume.is_loop_over_it(device, disk)) {
        return Ok(Beneath::BuiltOn);
    }
    if let Some(why) = link_of_a_log(&volume.parts).or_else(|| in_a_pool(&volume.parts)) {
        return Err(why.into());
    }
    block.incomplete().map_or(Ok(Beneath::Unused), |incomplete| Err(incomplete.into()))
}

/// That ZFS is in use: it leaves no holder on its disks.
fn in_a_pool(parts: &Parts<'_>) -> Option<Unknown> {
    let mounted = parts.mounts.seen().is_ok_and(|mounts| mounts.value.values().any(|mount| &*mount.fstype == "zfs"));
    let is_zvol = |name: &str| {
        name.strip_prefix("zd").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let has_zvol = || parts.block.seen().is_ok_and(|block| block.value.values().any(|device| is_zvol(&device.name)));
    let why = "ZFS is in use here, and which disks its pools stand on is not visible";
    (mounted || has_zvol()).then(|| Unknown::new(Cause::Unsupported, why))
}

/// Options of an xfs that name a second device: of its log, and of its real-time part. It has no mount of its own.
const SECOND_DEVICES: [&str; 2] = ["logdev=", "rtdev="];

fn second_devices(mount: &MountEntry) -> impl Iterator<Item = &str> {
    let of_xfs = (&*mount.fstype == "xfs").then_some(&*mount.super_options);
    let options = of_xfs.into_iter().flat_map(|options| options.split(','));
    options.filter_map(|option| SECOND_DEVICES.iter().find_map(|name| option.strip_prefix(name)))
}

fn is_log_of_one(mounts: &Mounts, device: &str) -> bool {
    mounts.values().flat_map(second_devices).any(|path| path.strip_prefix("/dev/") == Some(device))
}

/// That the log of an xfs is on a device that is named by a link: it may be any.
fn link_of_a_log(parts: &Parts<'_>) -> Option<Unknown> {
    let (mounts, block) = (parts.mounts.seen().ok()?, parts.block.seen().ok()?);
    let is_known = |path: &&str| path.strip_prefix("/dev/").is_some_and(|name| block.value.named(name).is_some());
    let path = mounts.value.values().flat_map(second_devices).find(|path| !is_known(path))?;
    let why = format!("an xfs has its log or its real-time part on {path}, and which disk that is is not known");
    Some(Unknown::new(Cause::Incomplete, why))
}

fn order(volume: &Volume<'_>) -> Fact<Order> {
    let ask = |why| Box::new(Missing { why, lookup: volume.ask().into_iter().next() });
    let Some(attachment) = volume.attachment().map_err(ask)? else { return Ok(Order::None) };
    let order = order_of(volume, attachment.value);
    // The driver may learn of a volume late: where EC2 itself was asked and did not answer, it may have the volume.
    match volume.parts.ec2_by_id_failed(&volume.id).filter(|_| order == Order::NotFound) {
        Some(why) => Err(Box::new(Missing { why, lookup: Some(volume.ask_ec2()) })),
        None => Ok(order),
    }
}

fn order_of(volume: &Volume<'_>, attachment: &VolumeAttachment) -> Order {
    match (&attachment.attach_error, &attachment.detach_error) {
        (_, Some(error)) if attachment.deleting.is_some() && csi::lacks_persistent_volume(error) => Order::Undeletable,
        _ if attachment.deleting.is_some() => Order::Detaching,
        _ if attachment.attached => Order::Attached,
        (Some(error), _) if csi::is_unknown_to_ec2(error, &volume.id) && !is_there_by_now(volume) => Order::NotFound,
        (Some(_), _) => Order::Refused,
        (None, _) => Order::Pending,
    }
}

/// EC2's own answer is newer than what the driver was given: it may learn of a volume late, and does not forget it. So the last one
/// counts also when it is old: until EC2 is asked again nothing says otherwise.
fn is_there_by_now(volume: &Volume<'_>) -> bool {
    let gone = |state| matches!(state, Ec2VolumeState::Deleting | Ec2VolumeState::Deleted);
    volume.ec2_last().is_some_and(|volume| !gone(volume.state))
}

fn users(volume: &Volume<'_>) -> Fact<Users> {
    let ask = |why| Box::new(Missing { why, lookup: volume.ask_users().into_iter().next() });
    let users = volume.users().map_err(ask)?;
    Ok(if users.is_empty() {
        Users::None
    } else if users.iter().any(|pod| pod.phase == PodPhase::Running) {
        Users::Run
    } else if volume.waits_long().is_some() {
        Users::WaitLong
    } else {
        Users::Wait
    })
}

impl<'v> Volume<'v> {
    /// Whether an attachment would be done by now for a pod that waits.
    pub fn has_waited_long(&self, pod: &Pod) -> bool {
        pod.here_since().is_some_and(|since| self.parts.now.wall.duration_since(since) >= LONG_WAIT)
    }

    /// A pod that has waited for it for long.
    pub fn waits_long(&self) -> Option<&'v Pod> {
        let users = self.users().ok()?;
        users.into_iter().filter(|pod| pod.phase == PodPhase::Pending).find(|pod| self.has_waited_long(pod))
    }

    /// Pods that run with its claim, and are to go on.
    fn running(&self) -> impl Iterator<Item = &'v Pod> {
        let users = self.users().unwrap_or_default();
        users.into_iter().filter(|pod| may_run_without(pod))
    }

    /// The first pod that runs without it, with what shows that.
    pub fn runs_without(&self) -> Option<(&'v Pod, Vec<Evidence>)> {
        self.running().find_map(|pod| match self.is_without(pod) {
            Tri::Yes(evidence) => Some((pod, evidence)),
            _ => None,
        })
    }

    /// That neither the host nor a process of the pod has it mounted, while the pod runs.
    fn is_without(&self, pod: &Pod) -> Tri<Vec<Evidence>, ()> {
        let uid = pod.node_uid();
        let (Some(pv), cgroups) = (self.name_for(uid), self.parts.cgroups.seen()) else {
            return Tri::Unknown(Unknown::not_asked());
        };
        let (cgroups, pids) = match (cgroups, self.parts.processes(uid)) {
            (Ok(cgroups), Ok(Some(pids @ 1..))) => (cgroups, pids),
            (_, Ok(_)) => return Tri::No(()),
            (_, Err(why)) => return Tri::Unknown(why),
        };
        let mounts = match self.parts.mounts.seen() {
            Ok(mounts) => mounts,
            Err(why) => return Tri::Unknown(why.clone()),
        };
        let running =
            cgroups.says(format!("{} in pod {}", crate::wording::of(pids, "task runs", "tasks run"), pod.full_name()));
        let absent = match mounts.value.lacks_found(self.parts.index.mount_for(uid, pv)) {
            Ok(absent) => absent,
            // What the container has is known then, and its own mounts need not be looked through.
            Err(NotAbsent::Present(mount)) if mounts.value.is_bind_of_own_disk(mount) => {
                let (point, root) = (&mount.point, &mount.root);
                let is_bind =
                    format!("{point} is {root} of the disk that the kubelet's directory is on ({})", mount.dev);
                return Tri::Yes(vec![running, mounts.says(is_bind)]);
            }
            Err(NotAbsent::Present(_)) => return Tri::No(()),
            Err(NotAbsent::Unknown(why)) => return Tri::Unknown(why.clone()),
        };
        let mut evidence = vec![running, mounts.says_absent(absent, format!("no mount of {pv} for pod {uid}"))];
        let Some((dev, disk)) = self.device() else { return Tri::Yes(evidence) };
        // The runtime makes a device node of its own for the container, which is no mount and outlives the kubelet's.
        if matches!(self.pv_object(), Ok(Some(pv)) if pv.is_block) {
            let why = "whether a container has a device node of a raw block volume is not visible from this node";
            return Tri::Unknown(Unknown::new(Cause::Unsupported, why));
        }
        // Of a disk with partitions it is one of these that is mounted.
        if self.disk_and_partitions().len() > 1 {
            return Tri::No(());
        }
        let holders = match self.parts.holders.seen() {
            Ok(holders) => holders,
            Err(why) => return Tri::Unknown(why.clone()),
        };
        match (holders.value.get(&dev), holders.value.incomplete()) {
            (Some(list), _) if list.iter().any(|holder| holder.pod.as_ref() == Some(uid)) => return Tri::No(()),
            (_, Some(incomplete)) => return Tri::Unknown(incomplete.clone()),
            (None, None) => return Tri::Unknown(Unknown::not_asked()),
            // The list ends somewhere, and the pod may come after that.
            (Some(list), None) if list.len() >= MAX_HOLDERS => return Tri::Unknown(Unknown::not_asked()),
            (Some(_), None) => {}
        }
        evidence.push(holders.says(format!("the pod's mount namespaces are without {}", disk.name)));
        Tri::Yes(evidence)
    }

    /// Whether no disk of this machine is this volume, with what shows that.
    pub fn absence(&self) -> Tri<Evidence, ()> {
        if self.device().is_some() {
            return Tri::No(());
        }
        let block = match self.parts.block.seen() {
            Ok(block) => block,
            Err(why) => return Tri::Unknown(why.clone()),
        };
        let absent = match block.value.lacks_any(|device| device.volume.as_ref() == Some(&self.id)) {
            Ok(absent) => absent,
            Err(NotAbsent::Present(_)) => return Tri::No(()),
            Err(NotAbsent::Unknown(why)) => return Tri::Unknown(why.clone()),
        };
        if !find::names_no_volume(block.value) {
            return Tri::Yes(block.says_absent(absent, format!("no device here is {}", self.id.as_str())));
        }
        if !xen::is_xen(block.value) {
            let why = "the devices of this machine do not show EBS volume ids, so which volumes are here is not known";
            return Tri::Unknown(Unknown::new(Cause::Unsupported, why));
        }
        match xen::name_of(self) {
            Some(name) if find::disk_named(block.value, &name).is_some() => {
                let volume = self.id.as_str();
                Tri::Yes(block.says(format!("{volume} was attached as {name}, which is another volume's name now")))
            }
            Some(name) => {
                let volume = self.id.as_str();
                Tri::Yes(
                    block.says_absent(absent, format!("{volume} was attached as {name}, and no device here is that")),
                )
            }
            None => Tri::Unknown(xen::unnamed(&self.id)),
        }
    }
}

/// Whether each pod that runs here has a volume mounted for each of its claims: then none runs without one, whatever the
/// PersistentVolumes are called and whether or not they can be asked for.
pub(super) fn all_pods_have_theirs(parts: &Parts<'_>) -> bool {
    let (Ok(pods), Ok(mounts)) = (parts.pods.seen(), parts.mounts.seen()) else { return false };
    if pods.value.incomplete().is_some() {
        return false;
    }
    let mut mounted: BTreeMap<&PodUid, BTreeSet<&str>> = BTreeMap::new();
    // A volume that is made for the pod alone is a tmpfs, or a bind of the node's own disk.
    let is_own = |mount: &MountEntry| &*mount.fstype == "tmpfs" || mounts.value.is_bind_of_own_disk(mount);
    for mount in mounts.value.values().filter(|mount| mount.volume.is_some() && !is_own(mount)) {
        match &mount.volume {
            Some(VolumePath::Pod { pod, plugin, name }) if PERSISTENT.contains(&plugin.as_str()) => {
                mounted.entry(pod).or_default().insert(name);
            }
            Some(VolumePath::RawBlock { pod: Some(pod), pv }) => {
                mounted.entry(pod).or_default().insert(pv);
            }
            _ => {}
        }
    }
    let mut running = pods.value.values().filter(|pod| may_run_without(pod) && !pod.claims.is_empty());
    running.all(|pod| {
        let claims: BTreeSet<&String> = pod.claims.iter().collect();
        mounted.get(pod.node_uid()).is_some_and(|mounted| mounted.len() >= claims.len())
    })
}

/// Plugins of the kubelet's that PersistentVolumes on EC2 have.
const PERSISTENT: [&str; 4] =
    ["kubernetes.io~csi", "kubernetes.io~aws-ebs", "kubernetes.io~nfs", "kubernetes.io~local-volume"];

/// Whether it runs, and is to go on.
fn may_run_without(pod: &Pod) -> bool {
    pod.phase == PodPhase::Running && pod.deleting.is_none()
}

fn pod_side(volume: &Volume<'_>, users: &Fact<Users>, all_pods_have_theirs: bool) -> Fact<PodSide> {
    if let Err(why) = users {
        return if all_pods_have_theirs { Ok(PodSide::Has) } else { Err(why.clone()) };
    }
    let mut missing = None;
    for pod in volume.running() {
        match volume.is_without(pod) {
            Tri::Yes(_) => return Ok(PodSide::Without),
            Tri::No(()) => {}
            Tri::Unknown(why) => {
                missing = Some(Box::new(Missing { why, lookup: volume.ask_holders().into_iter().next() }))
            }
        }
    }
    missing.map_or(Ok(PodSide::Has), Err)
}

/// Whether a volume is missing that a pod waits for, and is here although nothing asked for it.
pub(super) fn find_places(all: &mut [Volume<'_>]) {
    let missed = |facts: &Facts| {
        certainty([
            is(&facts.kubelet, Kubelet::Wants),
            is(&facts.controller, Controller::Attached),
            is(&facts.device, Device::Absent),
            is(&facts.staging, Staging::Unstaged),
            is(&facts.order, Order::Attached),
            is(&facts.users, Users::WaitLong),
        ])
    };
    let left = |facts: &Facts| {
        certainty([
            is(&facts.kubelet, Kubelet::LetGo),
            is(&facts.controller, Controller::NotAttached),
            is(&facts.device, Device::Here),
            is(&facts.mounts, Mounted::Unmounted),
            is(&facts.beneath, Beneath::Unused),
            is(&facts.order, Order::None),
        ])
    };
    let missed: Vec<_> = all.iter().map(|volume| missed(&volume.facts)).collect();
    let left: Vec<_> = all.iter().map(|volume| left(&volume.facts)).collect();
    let any = |list: &[Tri<(), ()>]| {
        let mut unknown = None;
        for item in list {
            match item {
                Tri::Yes(()) => return Tri::Yes(()),
                Tri::Unknown(why) => unknown = Some(why.clone()),
                Tri::No(()) => {}
            }
        }
        unknown.map_or(Tri::No(()), Tri::Unknown)
    };
    let (any_missed, any_left) = (any(&missed), any(&left));
    for ((volume, missed), left) in all.iter_mut().zip(&missed).zip(&left) {
        let place = match (missed, left) {
            (Tri::No(()), Tri::No(())) => continue,
            (Tri::No(()), _) => left.clone().and(|| any_missed.clone()).map(|_| Place::Anothers),
            _ => missed.clone().and(|| any_left.clone()).map(|_| Place::TakenByAnother),
        };
        volume.facts.place = match place {
            Tri::Yes(place) => Ok(place),
            Tri::No(()) => Ok(Place::Own),
            Tri::Unknown(why) => Err(why.into()),
        };
    }
}

fn is<T: PartialEq>(fact: &Fact<T>, value: T) -> Tri<(), ()> {
    match fact {
        Ok(known) if *known == value => Tri::Yes(()),
        Ok(_) => Tri::No(()),
        Err(missing) => Tri::Unknown(missing.why.clone()),
    }
}

fn certainty<const N: usize>(all: [Tri<(), ()>; N]) -> Tri<(), ()> {
    all.into_iter().fold(Tri::Yes(()), |so_far, one| so_far.and(|| one).map(drop))
}
