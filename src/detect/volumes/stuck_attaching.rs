//! StuckAttaching, VolumeNotFound: does the kubelet wait for a volume that is not attached, and why?

use crate::detect::{Detector, Settings};
use crate::facts::{Source, SourceSet, VolumeAttachment};
use crate::finding::{Finding, Judgement, Kind, Severity};
use crate::view::View;

use super::standing::{Standing, standings};

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[Kind::StuckAttaching, Kind::VolumeNotFound],
    needs: SourceSet::of(&[Source::Node, Source::Mounts]),
    parts: SourceSet::NONE,
    uses: SourceSet::of(&[Source::BlockDevices, Source::Pods, Source::VolumeAttachments, Source::PersistentVolumes]),
    judge,
};

fn judge(view: &View, settings: &Settings) -> Vec<Judgement> {
    let all = match standings(view, &settings.ebs) {
        Ok(all) => all,
        Err(why) => return DETECTOR.kinds.iter().map(|kind| Judgement::blind(*kind, &why)).collect(),
    };
    let (mut stuck, mut not_found) = (Judgement::new(Kind::StuckAttaching), Judgement::new(Kind::VolumeNotFound));
    for standing in all.iter().filter(|standing| standing.in_use && !standing.attached) {
        // What is mounted was attached, and is on its way out or was taken away.
        if !standing.mounts().is_empty() || standing.is_staged() {
            continue;
        }
        stuck.asks.extend(standing.ask_all());
        let attachment = standing.attachment();
        let (of, why) = match &attachment {
            // The Node will say so in a moment.
            Ok(Some(attachment)) if attachment.value.attached && attachment.value.deleting.is_none() => continue,
            Ok(Some(attachment)) => {
                let why = why(attachment.value);
                (if is_unknown_to_ec2(attachment.value) { &mut not_found } else { &mut stuck }, why)
            }
            Ok(None) => {
                (&mut stuck, "it has no VolumeAttachment, as when another node still has the volume".to_owned())
            }
            Err(why) => {
                not_found.blind_to(standing.subject(), why);
                (&mut stuck, "what the controller makes of it is not known".to_owned())
            }
        };
        let kind = of.kind;
        of.raised.push(finding(kind, standing, &why));
    }
    vec![stuck, not_found]
}

/// In the words of the driver, which has them from EC2.
fn is_unknown_to_ec2(attachment: &VolumeAttachment) -> bool {
    attachment.attach_error.as_deref().is_some_and(|error| error.contains("InvalidVolume.NotFound"))
}

fn why(attachment: &VolumeAttachment) -> String {
    if let Some(since) = attachment.deleting {
        return format!("its VolumeAttachment from before is still being deleted, since {since}");
    }
    match attachment.attach_error.as_deref() {
        Some(error) if is_unknown_to_ec2(attachment) => format!("EC2 does not know the volume: {error}"),
        Some(error) if is_over_the_limit(error) => format!("this instance takes no more volumes: {error}"),
        Some(error) => format!("the driver says: {error}"),
        None => "the driver has not answered yet".to_owned(),
    }
}

pub(super) fn is_over_the_limit(error: &str) -> bool {
    error.contains("AttachmentLimitExceeded") || error.contains("VolumeLimit")
}

fn finding(kind: Kind, standing: &Standing<'_>, why: &str) -> Finding {
    let volume = standing.volume.as_str();
    let (severity, what) = match kind {
        Kind::VolumeNotFound => (Severity::Critical, "cannot be attached"),
        _ => (Severity::Warning, "is wanted here and not attached"),
    };
    Finding {
        kind,
        severity,
        subject: standing.subject(),
        message: format!("{volume} {what}: {why}{}", standing.waiting()),
        evidence: standing.evidence(),
        advice: crate::catalogue::row(kind).act.to_owned(),
    }
}
