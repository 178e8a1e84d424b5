//! StuckMounting: does a pod wait for a volume that is attached and here, and why is it not mounted?

use std::collections::BTreeMap;

use jiff::SignedDuration;

use crate::detect::causes::OldestFirst;
use crate::detect::failing_pod::FailingPod;
use crate::detect::{Around, DetectVolumes, Detector, Evaluation, Raised};
use crate::facts::{
    KernelEvent, KernelLog, KernelRecord, Lookup, MountEntry, NotAbsent, Pod, PodPhase, PodUid, Pods, Tri, VolumePath,
    pod_uid_of,
};
use crate::finding::{Above, Evidence, Finding, FindingKey, Kind, Object, ObjectType, Severity};
use crate::view::input::{BesideDisks, Cited, Cites, Context, Input, LogBesideDisks, Required};
use crate::view::{Seen, sources};

use super::causes::Causes;
use super::state::attachment::{AttachmentState, Mounted};
use super::state::parts::{ApiSays, DeviceSays, Driver, DriverPod, Listed, Named, OnMachine, PodLife};
use super::state::{DriverTrouble, Volume, Volumes};

const KIND: Kind = Kind::StuckMounting;
const STATES: &[AttachmentState] = &[AttachmentState::NotMounted];

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<StuckMounting>();

struct StuckMounting;

impl DetectVolumes for StuckMounting {
    const KINDS: &'static [Kind] = &[KIND];
    const STATES: &'static [AttachmentState] = STATES;
    type In = (Context<sources::KernelLog>, LogBesideDisks, Causes<'static>);
    type Asks = (
        Required<sources::Node>,
        Required<sources::Mounts>,
        Required<sources::BlockDevices>,
        Listed,
        OnMachine,
        Cites<Driver>,
        Cites<DriverPod>,
        PodLife,
        Named,
        ApiSays,
        DeviceSays,
    );

    fn evaluate(
        (log, disks, causes): <Self::In as Input>::Of<'_>,
        volumes: &Volumes<'_>,
        _: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let mut all = Vec::new();
        for volume in volumes.iter() {
            let not_mounted = volume.decide(out, KIND, STATES).map(|()| {
                volume.ask_all(out, KIND);
                out.ask(KIND, Lookup::CsiNode);
                not_mounted(volume, volumes, &log, disks, &causes)
            });
            all.push((volume, not_mounted, out.take_asked(KIND)));
        }
        // A driver or kubelet that hangs keeps all volumes waiting: the one whose pod has waited the longest is shown.
        let mut shared: BTreeMap<Explained<'_>, Vec<_>> = BTreeMap::new();
        for (volume, stuck, _) in &all {
            if let Tri::Yes((_, explained @ (Explained::ByDriverPod(_) | Explained::No))) = stuck {
                let since = volume.waits_long().and_then(Pod::here_since);
                shared.entry(*explained).or_default().push((since, volume.object()));
            }
        }
        let firsts = shared.into_iter().map(|(why, all)| (why, OldestFirst::of(KIND, all.into_iter())));
        let firsts: BTreeMap<_, _> = firsts.collect();
        for (volume, not_mounted, asked) in all {
            out.put_asked(KIND, asked);
            let not_mounted = not_mounted.map(|(mut raised, explained)| {
                raised.follows.extend(firsts.get(&explained).and_then(|first| first.above(&volume.object())));
                raised
            });
            let decision = not_mounted.or_else(|| changes_files(volume).map(Raised::from));
            out.decide(KIND, || volume.object(), decision);
        }
    }
}

/// Whether this node shows why a volume is not mounted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Explained<'v> {
    /// For a reason of its own.
    Yes,
    /// This pod of its driver does not run.
    ByDriverPod(&'v PodUid),
    No,
}

/// What keeps the kubelet from mounting it, as far as this node shows that.
fn not_mounted<'v>(
    volume: &Volume<'v>,
    volumes: &Volumes<'v>,
    log: &Cited<'_, KernelLog>,
    disks: BesideDisks<'_>,
    causes: &Causes<'_>,
) -> (Raised, Explained<'v>) {
    let pod = volume.waits_long();
    let DriverTrouble { missing: driver, failing } = volumes.driver_trouble(&volume.id);
    let mut evidence = volume.evidence();
    evidence.extend(volume.device_says());
    let refused = log.name(|log| refused(log, disks, volume, pod));
    let stalled = stalled(volume, causes);
    let killed = log.name(|log| killed(log, volume, pod));
    let mut follows = Vec::new();
    let mut explained = Explained::Yes;
    let mut advice = crate::catalogue::row(KIND).remediation.to_owned();
    let mut because_of = |pod: &FailingPod<'v>, evidence: &mut Vec<Evidence>, whose: &str| {
        evidence.push(pod.evidence());
        advice = format!("{} Once it runs, the kubelet mounts the volume by itself.", pod.advice());
        pod.words(whose)
    };
    let why = match (&driver, &refused) {
        (Tri::Yes(driver), _) => {
            evidence.push(driver.evidence.clone());
            let why = match &failing {
                Tri::Yes(pod) => format!(": {}", because_of(pod, &mut evidence, "its")),
                Tri::No(()) | Tri::Unknown(_) => String::new(),
            };
            format!("{} is not registered on this node{why}", driver.driver())
        }
        (_, Some((why, says))) => {
            evidence.push(says.clone());
            format!("the kernel refuses to mount it: {why}")
        }
        _ if let Tri::Yes(above) = &stalled => {
            format!("{} has requests in flight and completes none", above.object.id)
        }
        _ if let Some((command, above, says)) = killed => {
            evidence.push(says);
            follows.push(above);
            format!("{command} of its driver's pod was killed at a memory limit, which is too low for this filesystem")
        }
        _ if let Tri::Yes(pod) = &failing => {
            explained = Explained::ByDriverPod(pod.uid());
            because_of(pod, &mut evidence, "its driver's")
        }
        _ => match volume.built_on() {
            Some(built) => format!("{built}, and a disk that is in use cannot be mounted"),
            None => {
                explained = Explained::No;
                "this node does not show why; the kubelet's events on the pod may".to_owned()
            }
        },
    };
    let (id, who) = (volume.id.as_str(), who(volume, pod));
    let name = volume.device().map(|(_, disk)| format!(" as {}", disk.name)).unwrap_or_default();
    let is = match volume.mounted() {
        Ok(Mounted::StagingOnly) => "staged, but not mounted for the pod",
        _ => "not mounted",
    };
    let finding = Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: Object { pod: pod.map(|pod| pod.node_uid().clone()), ..volume.object() },
        message: format!("{id} is attached and here{name}, and is {is}: {why}{who}"),
        evidence,
        advice,
    };
    let shown_under = driver.map(|driver| driver.finding()).or_else(|| stalled);
    (Raised { shown_under, follows, ..finding.into() }, explained)
}

/// What a driver checks, makes, grows and mounts a filesystem with, as the kernel has their names.
const HELPERS: [&str; 10] =
    ["e2fsck", "fsck", "fsck.ext4", "fsck.xfs", "mke2fs", "mkfs.ext4", "mkfs.xfs", "mount", "resize2fs", "xfs_repair"];

/// The last of these that the kernel killed at the limit of a pod of kube-system, since the pod was bound to this node: its name, the
/// finding of the kill, and the line. An ordinary pod may call a program as it likes.
fn killed(log: Seen<'_, KernelLog>, volume: &Volume<'_>, pod: Option<&Pod>) -> Option<(String, Above, Evidence)> {
    let pods = volume.parts().pods.seen().ok()?;
    let is_of_the_system =
        |uid: &PodUid| matches!(pods.value.lacks(uid), Err(NotAbsent::Present(pod)) if pod.namespace == "kube-system");
    log.value.records.iter().rev().filter(|record| is_since(&log, record, pod)).find_map(|record| match &record.event {
        KernelEvent::OomKill { limit: Some(_), victim, command, pid, .. } if HELPERS.contains(&command.as_str()) => {
            let uid = pod_uid_of(victim).filter(is_of_the_system)?;
            let above = Above::of(Kind::OomKill, Object::new(ObjectType::Cgroup, format!("pod/{uid}")));
            let says = log.reports(record, format!("the kernel killed {command} (process {pid}) at a memory limit"));
            Some((command.clone(), above, says))
        }
        _ => None,
    })
}

/// Whether a record of the kernel's log is of the time since a pod was bound to this node.
fn is_since(log: &Seen<'_, KernelLog>, record: &KernelRecord, pod: Option<&Pod>) -> bool {
    let ago = log.at.up.checked_sub(record.up).and_then(|ago| SignedDuration::try_from(ago).ok());
    let at = ago.and_then(|ago| log.at.wall.checked_sub(ago).ok());
    at.zip(pod.and_then(Pod::here_since)).is_some_and(|(at, since)| at >= since)
}

/// The finding that its disk, or a partition of it, completes nothing: the kernel waits for the superblock then.
fn stalled(volume: &Volume<'_>, causes: &Causes<'_>) -> Tri<FindingKey, ()> {
    volume.disk_and_partitions().into_iter().fold(Tri::No(()), |so_far, part| so_far.or_else(|| causes.of_device(part)))
}

fn who(volume: &Volume<'_>, pod: Option<&Pod>) -> String {
    let Some(pod) = pod else { return String::new() };
    let since = pod.here_since().map(|since| format!(" since {since}")).unwrap_or_default();
    let pv = volume.pv().map(|pv| format!(" for {pv}")).unwrap_or_default();
    format!("; pod {} waits{pv}{since}", pod.full_name())
}

/// The kernel's last refusal to mount its disk, or a partition of it, since the pod was bound to this node. A device's name may have been
/// another volume's before.
fn refused(
    log: Seen<'_, KernelLog>,
    disks: BesideDisks<'_>,
    volume: &Volume<'_>,
    pod: Option<&Pod>,
) -> Option<(String, Evidence)> {
    let parts = volume.disk_and_partitions();
    let of_it = |name: &str| parts.iter().any(|part| part.name == name);
    let mut last = None;
    for record in log.value.records.iter().filter(|record| is_since(&log, record, pod)) {
        if let KernelEvent::MountRefused { device, why } = &record.event
            && of_it(device)
            && !disks.is_of_another_disk(record, device)
        {
            last = Some((why.clone(), log.says(format!("{device}: {why}"))));
        }
    }
    last
}

/// It is mounted for a pod of which no container was started: first the kubelet gives its files to the pod's group (`fsGroup`), then
/// the container runtime labels them for SELinux.
fn changes_files(volume: &Volume<'_>) -> Tri<Finding> {
    let parts = volume.parts();
    let pods = match parts.pods.seen() {
        Ok(pods) => pods,
        Err(why) => return Tri::Unknown(why.clone()),
    };
    let mut answer = Tri::No(volume.no());
    for mount in volume.mounts() {
        let Some(VolumePath::Pod { pod: uid, .. }) = &mount.volume else { continue };
        let pod = match pods.value.lacks(uid) {
            Err(NotAbsent::Present(pod)) => pod,
            Err(NotAbsent::Unknown(why)) => {
                answer = answer.or_else(|| Tri::Unknown(why.clone()));
                continue;
            }
            Ok(_) => continue,
        };
        // A mount with `context=` has its label from that, and does not show this option.
        let labels = mount.has_super_option("seclabel") && pod.containers.is_empty();
        let waits = pod.phase == PodPhase::Pending && pod.deleting.is_none() && volume.has_waited_long(pod);
        if !waits || !labels && pod.fs_group.is_none() {
            continue;
        }
        let next = match parts.processes(uid) {
            Err(why) => Tri::Unknown(why),
            Ok(processes) => match what_may_run(processes.unwrap_or(0), pod.fs_group, labels) {
                None => continue,
                Some(what) => Tri::Yes(files_change(volume, (pods, pod), mount, &what)),
            },
        };
        answer = answer.or_else(|| next);
    }
    answer
}

/// What may still be done with the files. The group's turn is before the pod's sandbox has a process; the label's is beside that one
/// process, or before it where the runtime makes none.
fn what_may_run(processes: u64, group: Option<i64>, labels: bool) -> Option<String> {
    let owner = group.filter(|_| processes == 0);
    let label = labels && processes <= 1;
    match (owner, label) {
        (None, false) => None,
        (Some(group), false) => {
            Some(format!("the kubelet may still be changing the owner of its files (fsGroup {group})"))
        }
        (Some(group), true) => Some(format!(
            "the kubelet may still be changing the owner of its files (fsGroup {group}), or the container runtime may be \
             relabeling them for SELinux"
        )),
        (None, true) => {
            Some("the container runtime may still be relabeling its files for SELinux, or pulling an image".to_owned())
        }
    }
}

fn files_change(volume: &Volume<'_>, (pods, pod): (Seen<'_, Pods>, &Pod), mount: &MountEntry, what: &str) -> Finding {
    let (id, group) = (volume.id.as_str(), pod.fs_group.map(|group| format!(", and has fsGroup {group}")));
    let mut evidence = vec![pods.says(format!("pod {} is Pending{}", pod.full_name(), group.unwrap_or_default()))];
    let label = if mount.has_super_option("seclabel") { " with seclabel" } else { "" };
    let says = || format!("{id} is mounted at {}{label}", mount.point);
    evidence.extend(volume.parts().mounts.seen().ok().map(|mounts| mounts.says(says())));
    Finding {
        kind: KIND,
        severity: Severity::Info,
        object: Object { pod: Some(pod.node_uid().clone()), ..volume.object() },
        message: format!("{id} is mounted, and its pod has not started: {what}{}", who(volume, Some(pod))),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}
