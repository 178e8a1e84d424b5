//! StuckUnmount: is a pod gone whose mounts are left?

use std::collections::BTreeMap;

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{
    MountEntry, MountId, Mounts, NotAbsent, Part, PodPhase, PodUid, Question, Source, SourceSet, Unknown,
};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity, Subject};
use crate::view::{Seen, View};

use super::holders::{self, pod_name};
use super::standing::Standing;
use super::{describe_without_pod, mount_subject, pv_of};

const KIND: Kind = Kind::StuckUnmount;

/// Mounts of one volume that are named in the evidence.
const MOST_NAMED: usize = 5;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Mounts]),
    parts: SourceSet::NONE,
    decides: SourceSet::NONE,
    uses: SourceSet::of(&[
        Source::PodCgroups,
        Source::Pods,
        Source::BlockDevices,
        Source::Node,
        Source::MountHolders,
        Source::FormerPods,
        Source::VolumeAttachments,
        Source::PersistentVolumes,
    ]),
    judge: Judge::OfVolumes(judge),
};

/// What shows that nothing of a pod runs here any more.
pub(super) struct Gone {
    evidence: Vec<Evidence>,
    /// Whether the API server says so, too. Without its word a pod may only be waiting for its start.
    certain: bool,
}

fn judge(view: &View, _: &Settings, all: &[Standing<'_>]) -> Vec<Judgement> {
    let mounts = match (view.mounts.known(), view.pod_cgroups.known()) {
        (Ok(mounts), Ok(_)) => mounts,
        (Err(why), _) | (_, Err(why)) => return vec![Judgement::blind(KIND, why)],
    };
    // A subpath belongs to its volume, and goes with it.
    let mut left: BTreeMap<(&PodUid, &str), Vec<(MountId, &MountEntry)>> = BTreeMap::new();
    for (id, mount) in mounts.value {
        let Some(path) = &mount.volume else { continue };
        let Some(pod) = path.pod() else { continue };
        left.entry((pod, pv_of(path).unwrap_or_default())).or_default().push((*id, mount));
    }
    let mut judgement = Judgement::new(KIND);
    for ((pod, _), of_volume) in left {
        of_a_pod(view, &mounts, pod, &of_volume, &mut judgement);
    }
    // Where the cluster is not asked, nobody says what the kubelet still wants.
    for standing in all {
        staged_for_nobody(view, &mounts, standing, &mut judgement);
    }
    vec![judgement]
}

/// What is left of one volume of a pod.
fn of_a_pod(
    view: &View,
    mounts: &Seen<'_, Mounts>,
    pod: &PodUid,
    left: &[(MountId, &MountEntry)],
    judgement: &mut Judgement,
) {
    // The volume's own path says more than a subpath.
    let Some((id, first)) = left.iter().max_by_key(|(_, mount)| super::closeness(mount)) else { return };
    let subject = || mount_subject(first, view.block.known().ok().map(|block| block.value));
    let gone = match is_gone(view, pod) {
        Ok(gone) => gone,
        Err(Some(why)) => return judgement.blind_to(subject(), &why),
        Err(None) => return,
    };
    let subject = subject();
    // A pod that was started just now has mounts before the list of groups is read again.
    judgement.asks.push(Question::PodCgroups);
    judgement.asks.extend(first.has_device().then_some(Question::MountHolders(first.dev)));
    judgement.asks.extend(former(view, pod));
    let mut evidence = gone.evidence;
    let says = |(_, mount): &(MountId, &MountEntry)| mounts.says(format!("{} is mounted", mount.point));
    evidence.extend(left.iter().take(MOST_NAMED).map(says));
    let held = below(mounts, *id).or_else(|| elsewhere(view, first, pod, &mut evidence)).unwrap_or_default();
    let waits = waits_elsewhere(view, pod, &mut evidence).ok().flatten();
    let waits = waits.map(|waits| format!("; {waits}")).unwrap_or_default();
    let volume = subject.volume.as_ref().map(|volume| format!(" ({})", volume.as_str())).unwrap_or_default();
    let why = if gone.certain { "is gone" } else { "runs nothing here" };
    let (what, name) = (describe_without_pod(first), pod_name(view, pod));
    judgement.raised.push(Finding {
        kind: KIND,
        // A pod may wait for its start: only the API server knows.
        severity: if gone.certain { Severity::Warning } else { Severity::Info },
        message: format!("pod {name} {why}, but {what}{volume} of it is still mounted{held}{waits}"),
        subject,
        evidence,
        advice: crate::catalogue::row(KIND).act.to_owned(),
    });
}

/// The kubelet does not let a volume go that no pod here has any more: it tries to unmount it, and cannot.
fn staged_for_nobody(view: &View, mounts: &Seen<'_, Mounts>, standing: &Standing<'_>, judgement: &mut Judgement) {
    let on_it = standing.mounts();
    let staged = |mount: &&MountEntry| mount.volume.as_ref().is_some_and(|path| path.pod().is_none());
    let Some(first) = on_it.first().filter(|_| standing.in_use && on_it.iter().all(staged)) else {
        return;
    };
    judgement.asks.extend(standing.ask_users());
    let block = view.block.known().ok().map(|block| block.value);
    match standing.users() {
        Ok(users) if users.is_empty() && mounts.value.gap().is_none() => {}
        Ok(_) => return,
        Err(why) => return judgement.blind_to(mount_subject(first, block), &why),
    }
    judgement.asks.extend(first.has_device().then_some(Question::MountHolders(first.dev)));
    let mut evidence = standing.evidence();
    evidence.push(mounts.says(format!("{} is mounted, and no pod's path of the same device", first.point)));
    if let (Ok(pods), Some(pv)) = (view.pods.known(), standing.pv()) {
        evidence.push(pods.says(format!("no pod of this node has the claim of {pv}")));
    }
    let held = elsewhere(view, first, "", &mut evidence).unwrap_or_default();
    let volume = standing.volume.as_str();
    judgement.raised.push(Finding {
        kind: KIND,
        severity: Severity::Warning,
        message: format!("{volume} is still staged here although no pod of this node uses it any more{held}"),
        subject: Subject { pod: None, ..mount_subject(first, block) },
        evidence,
        advice: crate::catalogue::row(KIND).act.to_owned(),
    });
}

/// What is mounted below it: nothing can be unmounted before that.
fn below(mounts: &Seen<'_, Mounts>, id: MountId) -> Option<String> {
    let child = mounts.value.values().find(|mount| mount.parent == id)?;
    Some(format!(": {} is mounted below it", child.point))
}

/// Who has the same filesystem in another mount namespace, but for the pod itself.
fn elsewhere(view: &View, mount: &MountEntry, pod: &str, evidence: &mut Vec<Evidence>) -> Option<String> {
    let holders = mount.has_device().then(|| holders::of(view, mount.dev, evidence))??;
    let other = holders.iter().find(|holder| holder.pod.as_deref() != Some(pod))?;
    Some(format!("; {}", holders::also(view, other)))
}

/// Whether a pod is over: the API server has it no more, or is deleting it, or says that it ended; and no process of it
/// is left.
///
/// # Errors
/// Nothing where it is not, and otherwise why that is not known.
pub(super) fn is_gone(view: &View, uid: &PodUid) -> Result<Gone, Option<Unknown>> {
    let cgroups = view.pod_cgroups.known().map_err(|why| Some(why.clone()))?;
    // The kubelet keeps the group of a pod whose volumes are not unmounted: an empty one is a sign, too.
    let (runs, empty) = match cgroups.value.lacks(uid) {
        Ok(_) => (format!("no kubepods group of pod {uid}"), false),
        Err(NotAbsent::Present(group)) if group.cgroup.pids == Part::Known(0) => {
            (format!("no process is left in the kubepods group of pod {uid}"), true)
        }
        Err(NotAbsent::Present(_)) => return Err(None),
        Err(NotAbsent::Unknown(why)) => return Err(Some(why.clone())),
    };
    let mut evidence = vec![cgroups.says(runs)];
    let Ok(pods) = view.pods.known() else {
        // A pod that waits for its start has an empty group.
        return if empty { Err(None) } else { Ok(Gone { evidence, certain: false }) };
    };
    match pods.value.lacks(uid) {
        Ok(_) => evidence.push(pods.says("the API server has no such pod on this node")),
        Err(NotAbsent::Present(pod)) if pod.is_over() => {
            evidence.push(pods.says(format!("the API server says that pod {} has ended", pod.full_name())));
        }
        Err(NotAbsent::Present(pod)) => match pod.deleting {
            // The time is that of the request and the grace that it gave.
            Some(due) => evidence.push(pods.says(format!("pod {} is being deleted, due by {due}", pod.full_name()))),
            None => return Err(None),
        },
        Err(NotAbsent::Unknown(why)) => return Err(Some(why.clone())),
    }
    Ok(Gone { evidence, certain: true })
}

/// What asks where the pod is now.
pub(super) fn former(view: &View, uid: &PodUid) -> Option<Question> {
    let (namespace, name) = view.former.name(uid)?;
    Some(Question::FormerPod { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// The pod of the same name that was made elsewhere and does not run, and where: it may wait for what is held here. None
/// also where nobody knows the name.
///
/// # Errors
/// Why it is not known where the pod of this name is now.
pub(super) fn waits_elsewhere(
    view: &View,
    uid: &PodUid,
    evidence: &mut Vec<Evidence>,
) -> Result<Option<String>, Unknown> {
    let Some((namespace, name)) = view.former.name(uid) else { return Ok(None) };
    let full = format!("{namespace}/{name}");
    let answers = view.former_pods.known().map_err(Clone::clone)?;
    let Some(pod) = answers.value.get(&full)? else { return Ok(None) };
    let here = view.node.known().ok().map(|node| node.value.name.as_str());
    if pod.uid == *uid || pod.node.as_deref() == here || pod.phase != PodPhase::Pending {
        return Ok(None);
    }
    let place = pod.node.as_deref().map_or("no node yet".to_owned(), |node| format!("node {node}"));
    evidence.push(answers.says(format!("pod {full} was made anew (UID {}), is on {place} and Pending", pod.uid)));
    Ok(Some(format!("{full} waits on {place}")))
}
