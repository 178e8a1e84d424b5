//! UnmountedVolumePath: does a pod run whose volume is not mounted, so that it writes to the node's disk?

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{
    MOST_HOLDERS, MountEntry, NotAbsent, Pod, PodPhase, Question, Source, SourceSet, Unknown, VolumePath,
};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity};
use crate::view::View;
use crate::wording;

use super::is_of_a_pod;
use super::standing::Standing;

const KIND: Kind = Kind::UnmountedVolumePath;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Node, Source::Pods, Source::BlockDevices, Source::Mounts]),
    parts: SourceSet::NONE,
    decides: SourceSet::NONE,
    uses: SourceSet::of(&[
        Source::MountHolders,
        Source::PodCgroups,
        Source::VolumeAttachments,
        Source::PersistentVolumes,
    ]),
    judge: Judge::OfVolumes(judge),
};

fn judge(view: &View, _: &Settings, all: &[Standing<'_>]) -> Vec<Judgement> {
    let mut judgement = Judgement::new(KIND);
    for standing in all.iter().filter(|standing| standing.in_use && standing.attached) {
        let Some((dev, _)) = standing.device() else { continue };
        // A pod that has it is how it should be. Of several pods that share it, one without is not noticed here.
        if standing.mounts().iter().any(|mount| is_of_a_pod(mount)) {
            continue;
        }
        judgement.asks.extend(standing.ask_all());
        let users = match standing.users() {
            Ok(users) => users,
            Err(why) => {
                judgement.blind_to(standing.subject(), &why);
                continue;
            }
        };
        let Some(pv) = standing.pv() else { continue };
        for pod in users.into_iter().filter(|pod| pod.phase == PodPhase::Running && pod.deleting.is_none()) {
            // What its containers were given before is theirs for as long as they live.
            judgement.asks.push(Question::MountHolders(dev));
            match writes_to_the_node(view, standing, pod, pv) {
                Ok(mut evidence) => {
                    evidence.extend(standing.evidence());
                    judgement.raised.push(finding(standing, pod, pv, evidence));
                }
                Err(Some(why)) => judgement.blind_to(standing.subject(), &why),
                Err(None) => {}
            }
        }
    }
    vec![judgement]
}

/// That neither the host nor a process of the pod has the volume mounted, while the pod runs.
fn writes_to_the_node(
    view: &View,
    standing: &Standing<'_>,
    pod: &Pod,
    pv: &str,
) -> Result<Vec<Evidence>, Option<Unknown>> {
    let uid = pod.node_uid();
    let cgroups = view.pod_cgroups.known().map_err(|why| Some(why.clone()))?;
    let runs = cgroups
        .value
        .get(uid)
        .and_then(|group| group.cgroup.pids.seen().ok().flatten().copied())
        .filter(|pids| *pids > 0);
    let Some(pids) = runs else { return Err(None) };
    let mounts = view.mounts.known().map_err(|why| Some(why.clone()))?;
    let here = |mount: &MountEntry| match &mount.volume {
        Some(VolumePath::Pod { pod, name, .. }) => pod == uid && name == pv,
        // Older kubelets have one bind for all pods.
        Some(VolumePath::RawBlock { pod, pv: name }) => name == pv && pod.as_ref().is_none_or(|pod| pod == uid),
        _ => false,
    };
    match mounts.value.lacks_any(here) {
        Ok(_) => {}
        Err(NotAbsent::Present(_)) => return Err(None),
        Err(NotAbsent::Unknown(why)) => return Err(Some(why.clone())),
    }
    let Some((dev, disk)) = standing.device() else { return Err(None) };
    // Of a disk with partitions it is one of these that is mounted.
    if standing.has_partitions() {
        return Err(None);
    }
    let holders = view.mount_holders.known().map_err(|why| Some(why.clone()))?;
    match (holders.value.get(&dev), holders.value.gap()) {
        (Some(list), _) if list.iter().any(|holder| holder.pod.as_ref() == Some(uid)) => return Err(None),
        (_, Some(gap)) => return Err(Some(gap.clone())),
        (None, None) => return Err(Some(Unknown::not_asked())),
        // The list ends somewhere, and the pod may come after that.
        (Some(list), None) if list.len() >= MOST_HOLDERS => return Err(Some(Unknown::not_asked())),
        (Some(_), None) => {}
    }
    Ok(vec![
        cgroups.says(format!("{} in pod {}", wording::of(pids, "task runs", "tasks run"), pod.full_name())),
        mounts.says(format!("no mount of {pv} for pod {uid}")),
        holders.says(format!("no mount namespace of the pod has {}", disk.name)),
    ])
}

fn finding(standing: &Standing<'_>, pod: &Pod, pv: &str, evidence: Vec<Evidence>) -> Finding {
    let mut subject = standing.subject();
    subject.pod = Some(pod.node_uid().clone());
    Finding {
        kind: KIND,
        severity: Severity::Critical,
        subject,
        message: format!(
            "pod {} runs without its volume {pv} ({}): what it writes there goes to the node's own disk",
            pod.full_name(),
            standing.volume.as_str()
        ),
        evidence,
        advice: crate::catalogue::row(KIND).act.to_owned(),
    }
}
