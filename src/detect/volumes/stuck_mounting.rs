//! StuckMounting: does a pod wait for a volume that is attached and here, and why is it not mounted?

use jiff::SignedDuration;

use crate::detect::{Around, DetectVolumes, Detector, Evaluation, Raised};
use crate::facts::{KernelEvent, KernelLog, KernelRecord, Lookup, NotAbsent, Pod, PodPhase, Tri, VolumePath};
use crate::finding::{Evidence, Finding, Kind, Object, Severity};
use crate::view::input::{Cited, Context, Input, Maybe, Required};
use crate::view::{Seen, sources};

use super::state::attachment::{Mounted, State};
use super::state::{Volume, Volumes};

const KIND: Kind = Kind::StuckMounting;
const STATES: &[State] = &[State::NotMounted];

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<StuckMounting>();

struct StuckMounting;

impl DetectVolumes for StuckMounting {
    const KINDS: &'static [Kind] = &[KIND];
    type In = Context<sources::KernelLog>;
    type By = (
        Required<sources::Node>,
        Required<sources::Mounts>,
        Required<sources::BlockDevices>,
        Maybe<sources::Filesystems>,
        Maybe<sources::VolumeAttachments>,
        Maybe<sources::PersistentVolumes>,
        Maybe<sources::Pods>,
        Maybe<sources::PodCgroups>,
        Maybe<sources::MountHolders>,
        Context<sources::CsiNode>,
    );

    fn evaluate(log: <Self::In as Input>::Of<'_>, volumes: &Volumes<'_>, _: &Around<'_>, out: &mut Evaluation) {
        for volume in volumes.iter() {
            let not_mounted = volume.decide(out, KIND, STATES).map(|()| {
                volume.ask_all(out, KIND);
                out.ask(KIND, Lookup::CsiNode);
                not_mounted(volume, volumes, &log)
            });
            let decision = not_mounted.or_else(|| changes_owner(volume).map(Raised::from));
            out.decide(KIND, || volume.object(), decision);
        }
    }
}

/// What keeps the kubelet from mounting it, as far as this node shows that.
fn not_mounted(volume: &Volume<'_>, volumes: &Volumes<'_>, log: &Cited<'_, KernelLog>) -> Raised {
    let pod = volume.waits_long();
    let driver = volumes.missing_driver(&volume.id);
    let mut evidence = volume.evidence();
    evidence.extend(volume.device_says());
    let refused = log.name(|log| refused(log, volume, pod));
    let why = match (&driver, &refused) {
        (Tri::Yes(driver), _) => {
            evidence.push(driver.evidence.clone());
            format!("{} is not registered on this node", driver.driver())
        }
        (_, Some((why, says))) => {
            evidence.push(says.clone());
            format!("the kernel refuses to mount it: {why}")
        }
        _ => "this node does not show why; the kubelet's events on the pod may".to_owned(),
    };
    let (id, who) = (volume.id.as_str(), who(volume, pod));
    let name = volume.device().map(|(_, disk)| format!(" as {}", disk.name)).unwrap_or_default();
    let is = match volume.facts.mounts {
        Ok(Mounted::StagingOnly) => "staged, but not mounted for the pod",
        _ => "not mounted",
    };
    let finding = Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: Object { pod: pod.map(|pod| pod.node_uid().clone()), ..volume.object() },
        message: format!("{id} is attached and here{name}, and is {is}: {why}{who}"),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    };
    Raised { shown_under: driver.map(|driver| driver.finding()), ..finding.into() }
}

fn who(volume: &Volume<'_>, pod: Option<&Pod>) -> String {
    let Some(pod) = pod else { return String::new() };
    let since = pod.created.map(|created| format!(" since {created}")).unwrap_or_default();
    let pv = volume.pv().map(|pv| format!(" for {pv}")).unwrap_or_default();
    format!("; pod {} waits{pv}{since}", pod.full_name())
}

/// The kernel's last refusal to mount its disk, or a partition of it, since the pod was created. A device's name may have been
/// another volume's before.
fn refused(log: Seen<'_, KernelLog>, volume: &Volume<'_>, pod: Option<&Pod>) -> Option<(String, Evidence)> {
    let parts = volume.disk_and_partitions();
    let of_it = |name: &str| parts.iter().any(|part| part.name == name);
    let recent = |record: &KernelRecord| {
        let ago = log.at.up.checked_sub(record.up).and_then(|ago| SignedDuration::try_from(ago).ok());
        let at = ago.and_then(|ago| log.at.wall.checked_sub(ago).ok());
        at.zip(pod.and_then(|pod| pod.created)).is_some_and(|(at, created)| at >= created)
    };
    let mut last = None;
    for record in log.value.records.iter().filter(|record| recent(record)) {
        if let KernelEvent::MountRefused { device, why } = &record.event
            && of_it(device)
        {
            last = Some((why.clone(), log.says(format!("{device}: {why}"))));
        }
    }
    last
}

/// It is mounted for a pod that does not start, and whose files the kubelet gives to the pod's group first (`fsGroup`).
fn changes_owner(volume: &Volume<'_>) -> Tri<Finding> {
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
        let Some(group) = pod.fs_group.filter(|_| pod.phase == PodPhase::Pending && pod.deleting.is_none()) else {
            continue;
        };
        if !volume.has_waited_long(pod) {
            continue;
        }
        let next = match parts.processes(uid) {
            Err(why) => Tri::Unknown(why),
            Ok(Some(1..)) => continue,
            Ok(None | Some(0)) => {
                let mut evidence =
                    vec![pods.says(format!("pod {} is Pending, and has fsGroup {group}", pod.full_name()))];
                let says = || format!("{} is mounted at {}", volume.id.as_str(), mount.point);
                evidence.extend(parts.mounts.seen().ok().map(|mounts| mounts.says(says())));
                Tri::Yes(Finding {
                    kind: KIND,
                    severity: Severity::Info,
                    object: Object { pod: Some(uid.clone()), ..volume.object() },
                    message: format!(
                        "{} is mounted, and its pod has not started: the kubelet may still be changing the owner of its \
                         files (fsGroup {group}){}",
                        volume.id.as_str(),
                        who(volume, Some(pod))
                    ),
                    evidence,
                    advice: crate::catalogue::row(KIND).remediation.to_owned(),
                })
            }
        };
        answer = answer.or_else(|| next);
    }
    answer
}
