//! VolumeDriverMissing: is a CSI driver not registered on this node that should mount or unmount volumes here?

use std::collections::{BTreeMap, BTreeSet};

use crate::detect::failing_pod::daemon_set_of;
use crate::detect::{Around, DetectVolumes, Detector, Evaluation, Raised};
use crate::facts::{
    AttachableName, KubeletDirs, Lookup, MountEntry, Mounts, Node, NotAbsent, Pod, PodPhase, PodUid, Pods, Tri,
    VolumeDir, VolumePath, is_hash_of,
};
use crate::finding::{Above, Evidence, Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Known, Maybe, Required};
use crate::view::{Seen, sources};

use super::state::parts::{Driver, Named};
use super::state::{Volume, Volumes, driver_object};

const KIND: Kind = Kind::VolumeDriverMissing;

/// Mounts and volumes that are named in the evidence.
const MAX_NAMED: usize = 5;

/// The detector.
pub const DETECTOR: Detector = Detector::of_volumes::<VolumeDriverMissing>();

struct VolumeDriverMissing;

impl DetectVolumes for VolumeDriverMissing {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        Required<sources::CsiNode>,
        Required<sources::Mounts>,
        Maybe<sources::Node>,
        Maybe<sources::Pods>,
        Maybe<sources::KubeletDirs>,
    );
    type Asks = (Driver, Named);

    fn evaluate(
        (_, mounts, node, pods, dirs): <Self::In as Input>::Of<'_>,
        volumes: &Volumes<'_>,
        _: &Around<'_>,
        out: &mut Evaluation,
    ) {
        for (driver, uses) in uses(&mounts, &node, &pods, &dirs) {
            let decision = match volumes.parts().lacks_driver(driver) {
                Tri::No(no) => Tri::No(no),
                lacks => {
                    out.ask(KIND, Lookup::CsiNode);
                    lacks.map(|says| Raised {
                        follows: daemon_set_of(driver).map(rejected).into_iter().collect(),
                        ..finding(driver, says, &uses, volumes, out).into()
                    })
                }
            };
            out.decide(KIND, || driver_object(driver), decision);
        }
        let unread = [
            mounts.value.incomplete(),
            node.seen().err(),
            pods.seen().map_or_else(Some, |pods| pods.value.incomplete()),
            // Without the directories volumes that are neither attached nor staged are not seen, which the text for people says.
            dirs.seen().map_or_else(
                |why| Some(why).filter(|why| !why.is_not_installed()),
                |dirs| dirs.value.pods.incomplete(),
            ),
        ];
        for why in unread.into_iter().flatten() {
            out.rest(KIND, why);
        }
    }
}

/// The finding that the kubelet does not admit its pod.
fn rejected(daemon_set: &str) -> Above {
    Above::of(Kind::SystemPodRejected, Object::new(ObjectType::Pod, format!("kube-system/{daemon_set}")))
}

/// What of one driver is here.
#[derive(Default)]
struct Uses<'v> {
    /// Its staging mounts.
    staged: Vec<&'v MountEntry>,
    /// Handles of its volumes that the kubelet has (`status.volumesInUse`).
    in_use: Vec<&'v str>,
    /// Volumes that it neither attaches nor stages, by the pods that have them.
    of_pods: Vec<OfPod<'v>>,
    evidence: Vec<Evidence>,
}

/// A volume that only its pod shows.
struct OfPod<'v> {
    uid: &'v PodUid,
    /// Its name in the kubelet's directories; absent where only the pod's `spec` shows it.
    name: Option<&'v str>,
    /// The pod that waits for it; absent where it is mounted.
    waits: Option<&'v Pod>,
}

impl<'v> Uses<'v> {
    fn add(&mut self, volume: OfPod<'v>, says: impl FnOnce() -> Evidence) {
        self.of_pods.push(volume);
        if self.of_pods.len() <= MAX_NAMED {
            self.evidence.push(says());
        }
    }

    /// Whether a volume with this handle is attached or staged.
    fn has(&self, handle: &str) -> bool {
        let staged = |mount: &&MountEntry| matches!(&mount.volume, Some(VolumePath::Staging { handle_hash, .. }) if is_hash_of(handle_hash, handle));
        self.in_use.contains(&handle) || self.staged.iter().any(staged)
    }
}

/// The drivers of volumes that are staged here, that the kubelet wants, or that a pod has by itself.
fn uses<'v>(
    mounts: &Seen<'v, Mounts>,
    node: &Known<'v, Node>,
    pods: &Known<'v, Pods>,
    dirs: &Known<'v, KubeletDirs>,
) -> BTreeMap<&'v str, Uses<'v>> {
    let mut all: BTreeMap<&str, Uses<'_>> = BTreeMap::new();
    for mount in mounts.value.values() {
        // What a driver mounts in a directory of its own there, its pods show.
        if let Some(VolumePath::Staging { driver, .. }) = &mount.volume
            && mount.point.ends_with("/globalmount")
        {
            let uses = all.entry(driver).or_default();
            uses.staged.push(mount);
            if uses.staged.len() <= MAX_NAMED {
                uses.evidence.push(mounts.says(format!("{} is mounted", mount.point)));
            }
        }
    }
    for (node, name) in
        node.seen().into_iter().flat_map(|node| node.value.volumes_in_use.iter().map(move |n| (node, n)))
    {
        if let Some(AttachableName::Csi { driver, handle }) = AttachableName::parse(name) {
            let uses = all.entry(driver).or_default();
            uses.in_use.push(handle);
            if uses.in_use.len() <= MAX_NAMED {
                uses.evidence.push(node.says(format!("{handle} is in volumesInUse")));
            }
        }
    }
    let pods = pods.seen().ok();
    if let Ok(dirs) = dirs.seen() {
        recorded(&mut all, mounts, pods, dirs);
    }
    if let Some(pods) = pods {
        inline(&mut all, pods);
    }
    all
}

/// Volumes of which the kubelet wrote down the driver before it mounted them: mounted, or waited for.
fn recorded<'v>(
    all: &mut BTreeMap<&'v str, Uses<'v>>,
    mounts: &Seen<'v, Mounts>,
    pods: Option<Seen<'v, Pods>>,
    dirs: Seen<'v, KubeletDirs>,
) {
    let at = |mount: &'v MountEntry| match &mount.volume {
        Some(VolumePath::Pod { pod, name, .. }) => Some((pod.as_str(), name.as_str())),
        _ => None,
    };
    let mounted: BTreeSet<(&str, &str)> = mounts.value.values().filter_map(at).collect();
    for (uid, VolumeDir { name, data, .. }) in
        dirs.value.pods.iter().flat_map(|(uid, dir)| dir.volumes.iter().map(move |volume| (uid, volume)))
    {
        let Some(data) = data else { continue };
        let waits = match mounted.contains(&(uid.as_str(), name.as_str())) {
            true => None,
            false => match pods.and_then(|pods| waiting(pods, uid)) {
                Some(pod) => Some(pod),
                None => continue,
            },
        };
        let uses = all.entry(&data.driver).or_default();
        if !uses.has(&data.handle) {
            let is = if waits.is_some() { "is not mounted" } else { "is mounted" };
            let says = || dirs.says(format!("volume {name} of pod {uid} {is}, and is one of {}", data.driver));
            uses.add(OfPod { uid, name: Some(name), waits }, says);
        }
    }
}

/// Volumes that are written in the `spec` of a pod that waits, unless the directories show it.
fn inline<'v>(all: &mut BTreeMap<&'v str, Uses<'v>>, pods: Seen<'v, Pods>) {
    for pod in pods.value.values().map(AsRef::as_ref).filter(|pod| is_waiting(pod)) {
        for driver in &pod.inline_drivers {
            let uses = all.entry(driver).or_default();
            let uid = pod.node_uid();
            if uses.of_pods.iter().all(|volume| volume.uid != uid) {
                let says = || pods.says(format!("pod {} has a volume of {driver} in its spec", pod.full_name()));
                uses.add(OfPod { uid, name: None, waits: Some(pod) }, says);
            }
        }
    }
}

fn waiting<'v>(pods: Seen<'v, Pods>, uid: &PodUid) -> Option<&'v Pod> {
    match pods.value.lacks(uid) {
        Err(NotAbsent::Present(pod)) => Some(pod.as_ref()).filter(|pod| is_waiting(pod)),
        Ok(_) | Err(NotAbsent::Unknown(_)) => None,
    }
}

/// Whether the kubelet has its volumes to mount.
fn is_waiting(pod: &Pod) -> bool {
    pod.phase == PodPhase::Pending && pod.deleting.is_none() && pod.node.is_some()
}

fn finding(driver: &str, says: Evidence, uses: &Uses<'_>, volumes: &Volumes<'_>, out: &mut Evaluation) -> Finding {
    let of_driver: Vec<_> = volumes.wanted().filter(|volume| uses.in_use.contains(&volume.id.as_str())).collect();
    of_driver.iter().for_each(|volume| volume.ask_all(out, KIND));
    let mut waits: Vec<(String, Object)> = of_driver.iter().filter_map(|volume| waits(volume)).collect();
    waits.extend(uses.of_pods.iter().filter_map(pod_waits));
    // What is in use is staged, too.
    let attached = if uses.in_use.is_empty() { uses.staged.len() } else { uses.in_use.len() };
    let count = crate::wording::of((attached + uses.of_pods.len()) as u64, "volume", "volumes");
    let mounted = uses.of_pods.iter().any(|volume| volume.waits.is_none()) || attached > 0;
    let wanted = uses.of_pods.iter().any(|volume| volume.waits.is_some()) || !uses.in_use.is_empty();
    let what = match (wanted, mounted) {
        (true, true) => format!("mount or unmount {count}"),
        (true, false) => format!("mount {count}"),
        (false, _) => format!("unmount {count}"),
    };
    let (who, object) = match waits.as_slice() {
        [] => (String::new(), None),
        [(who, object)] => (format!(": {who}"), Some(object)),
        [(who, object), rest @ ..] => (format!(": {who}, and {} more", rest.len()), Some(object)),
    };
    let mut evidence = vec![says];
    let (mut why, mut advice) = (String::new(), crate::catalogue::row(KIND).remediation.to_owned());
    if let Tri::Yes(pod) = volumes.parts().failing_driver(driver) {
        evidence.push(pod.evidence());
        why = format!("; {}", pod.words("its"));
        advice =
            format!("{} Once it runs, the kubelet registers the driver, mounts and unmounts by itself.", pod.advice());
    }
    evidence.extend(uses.evidence.iter().cloned());
    Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: Object {
            pod: object.and_then(|object| object.pod.clone()),
            pv: object.and_then(|object| object.pv.clone()),
            ..driver_object(driver)
        },
        message: format!("{driver} is not registered on this node, so the kubelet cannot {what} of it here{who}{why}"),
        evidence,
        advice,
    }
}

/// The same of a volume that only its pod shows.
fn pod_waits(volume: &OfPod<'_>) -> Option<(String, Object)> {
    let pod = volume.waits?;
    let name = volume.name.map_or_else(|| "a volume of its own spec".to_owned(), |name| format!("volume {name}"));
    let object = Object { pod: Some(volume.uid.clone()), ..Object::node() };
    Some((format!("pod {} waits for {name}", pod.full_name()), object))
}

/// The pod that waits for a volume, for a message, and as an object.
fn waits(volume: &Volume<'_>) -> Option<(String, Object)> {
    let users = volume.users().ok()?;
    let pod = users.into_iter().find(|pod| pod.phase == PodPhase::Pending)?;
    let pv = volume.pv().unwrap_or("a volume");
    let who = format!("pod {} waits for {pv} ({})", pod.full_name(), volume.id.as_str());
    Some((who, Object { pod: Some(pod.node_uid().clone()), ..volume.object() }))
}
