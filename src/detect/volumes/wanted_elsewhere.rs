//! VolumeWantedElsewhere: does somebody wait for a volume that this node holds for nothing?

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{MountEntry, PodUid, Source, SourceSet};
use crate::finding::{Finding, Judgement, Kind, Severity};
use crate::view::View;

use super::standing::Standing;
use super::{holders, stuck_unmount};

const KIND: Kind = Kind::VolumeWantedElsewhere;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Node, Source::BlockDevices, Source::Mounts]),
    parts: SourceSet::NONE,
    decides: SourceSet::NONE,
    uses: SourceSet::of(&[
        Source::Filesystems,
        Source::PodCgroups,
        Source::Pods,
        Source::MountHolders,
        Source::VolumeAttachments,
        Source::PersistentVolumes,
        Source::FormerPods,
    ]),
    judge: Judge::OfVolumes(judge),
};

/// What holds a volume on this machine although no pod of it needs it.
pub(super) enum Hold<'a> {
    /// A mount of a pod that is gone.
    Pod(&'a PodUid, &'a MountEntry),
    /// A staging mount that no pod has.
    Staging(&'a MountEntry),
    /// A filesystem that the host does not mount.
    Pinned,
}

fn judge(view: &View, _: &Settings, all: &[Standing<'_>]) -> Vec<Judgement> {
    let mut judgement = Judgement::new(KIND);
    for standing in all {
        let Some(hold) = hold(view, standing) else { continue };
        judgement.asks.extend(standing.ask_all());
        // Others may have it at the same time, so whoever waits does not wait for this node.
        if matches!(standing.pv_object(), Ok(Some(pv)) if pv.shared) {
            continue;
        }
        let mut evidence = standing.evidence();
        let attachment = standing.attachment();
        // The controller takes it off the Node before it deletes the VolumeAttachment: an answer of an earlier time says more.
        let deleting = attachment.as_ref().ok().filter(|_| !standing.attached);
        let deleting = deleting.and_then(|attachment| attachment.as_ref()?.value.deleting);
        let pod = match &hold {
            Hold::Pod(pod, _) => Some(*pod),
            _ => None,
        };
        judgement.asks.extend(pod.and_then(|pod| stuck_unmount::former(view, pod)));
        let waits = pod.map_or(Ok(None), |pod| stuck_unmount::waits_elsewhere(view, pod, &mut evidence));
        let who = match (deleting, waits) {
            (_, Ok(Some(waits))) => waits,
            (Some(since), _) => {
                format!("Kubernetes wants it back since {since}; which pod waits is not visible from this node")
            }
            (None, waits) => {
                if let Err(why) = attachment.map(drop).and(waits.map(drop)) {
                    judgement.blind_to(standing.subject(), &why);
                }
                continue;
            }
        };
        let held = words(view, standing, &hold, &mut evidence);
        judgement.raised.push(Finding {
            kind: KIND,
            severity: Severity::Critical,
            subject: standing.subject(),
            message: format!(
                "{} is wanted elsewhere ({who}), and this node holds it: {held}",
                standing.volume.as_str()
            ),
            evidence,
            advice: crate::catalogue::row(KIND).act.to_owned(),
        });
    }
    vec![judgement]
}

/// What holds a volume here for nothing, if anything does.
pub(super) fn hold<'a>(view: &View, standing: &Standing<'a>) -> Option<Hold<'a>> {
    let mounts = standing.mounts();
    let pods = || mounts.iter().filter_map(|mount| Some((mount.volume.as_ref()?.pod()?, *mount)));
    for (pod, _) in pods() {
        // One pod that lives is reason enough.
        stuck_unmount::is_gone(view, pod).ok()?;
    }
    match (pods().max_by_key(|(_, mount)| super::closeness(mount)), mounts.first()) {
        (Some((pod, mount)), _) => Some(Hold::Pod(pod, mount)),
        (None, Some(first)) => {
            let staged = mounts.iter().all(|mount| mount.volume.is_some());
            (staged && !standing.in_use && standing.sees_all_mounts()).then_some(Hold::Staging(first))
        }
        (None, None) => (standing.is_alive() && standing.sees_all_mounts()).then_some(Hold::Pinned),
    }
}

fn words(
    view: &View,
    standing: &Standing<'_>,
    hold: &Hold<'_>,
    evidence: &mut Vec<crate::finding::Evidence>,
) -> String {
    match hold {
        Hold::Pod(pod, mount) => format!("{}, of pod {}, which is gone", mount.point, holders::pod_name(view, pod)),
        Hold::Staging(mount) => format!("{} is mounted, and no pod has it", mount.point),
        Hold::Pinned => {
            let holders = standing.device().and_then(|(dev, _)| holders::of(view, dev, evidence));
            let first = holders.and_then(|holders| Some(holders::name(view, holders.first()?)));
            let who = first.map(|who| format!(", by {who}")).unwrap_or_default();
            format!("its filesystem is alive although the host does not mount it{who}")
        }
    }
}
