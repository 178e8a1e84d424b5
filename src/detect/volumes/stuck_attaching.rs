//! StuckAttaching, VolumeNotFound: does the kubelet wait for a volume that is not attached, and why?

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{Ec2VolumeState, Source, SourceSet, VolumeAttachment};
use crate::finding::{Finding, Judgement, Kind, Severity};
use crate::view::View;

use super::standing::{Standing, whereabouts};

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[Kind::StuckAttaching, Kind::VolumeNotFound],
    needs: SourceSet::of(&[Source::Node, Source::Mounts]),
    parts: SourceSet::NONE,
    decides: SourceSet::NONE,
    uses: SourceSet::of(&[
        Source::BlockDevices,
        Source::Pods,
        Source::VolumeAttachments,
        Source::PersistentVolumes,
        Source::Ec2Volumes,
    ]),
    judge: Judge::OfVolumes(judge),
};

fn judge(_: &View, _: &Settings, all: &[Standing<'_>]) -> Vec<Judgement> {
    let (mut stuck, mut not_found) = (Judgement::new(Kind::StuckAttaching), Judgement::new(Kind::VolumeNotFound));
    for standing in all.iter().filter(|standing| standing.in_use && (!standing.attached || is_refused(standing))) {
        // What is mounted was attached, and is on its way out or was taken away.
        if !standing.mounts().is_empty() || standing.is_staged() {
            continue;
        }
        stuck.asks.extend(standing.ask_all());
        let attachment = standing.attachment();
        // One that has not answered yet may be on its way.
        if attachment.as_ref().is_ok_and(|known| known.is_none_or(|known| known.value.attach_error.is_some())) {
            stuck.asks.push(standing.ask_ec2());
        }
        let (of, why) = match &attachment {
            // The Node will say so in a moment.
            Ok(Some(attachment)) if attachment.value.attached && attachment.value.deleting.is_none() => continue,
            Ok(Some(attachment)) => {
                let gone = is_unknown_to_ec2(attachment.value) && !is_there_by_now(standing);
                (if gone { &mut not_found } else { &mut stuck }, why(attachment.value))
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

/// The Node says that it is attached, and its VolumeAttachment that this failed: which MissingDevice asks for.
fn is_refused(standing: &Standing<'_>) -> bool {
    let refused = |attachment: &VolumeAttachment| !attachment.attached && attachment.attach_error.is_some();
    let is_refused = standing.attachment().is_ok_and(|known| known.is_some_and(|known| refused(known.value)));
    is_refused && standing.device_is_absent().is_ok()
}

/// EC2's own word, which is newer than what the driver was told: it may learn of a volume late, and does not forget it. So
/// the last one counts also when it is old: until EC2 is asked again nobody says otherwise.
fn is_there_by_now(standing: &Standing<'_>) -> bool {
    let gone = |state| matches!(state, Ec2VolumeState::Deleting | Ec2VolumeState::Deleted);
    standing.ec2_last().is_some_and(|volume| !gone(volume.state))
}

fn why(attachment: &VolumeAttachment) -> String {
    if let Some(since) = attachment.deleting {
        return format!("its VolumeAttachment from before is still being deleted, since {since}");
    }
    match attachment.attach_error.as_deref() {
        Some(error) if is_unknown_to_ec2(attachment) => format!("by the driver's word EC2 does not know it: {error}"),
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
    let ec2 = match standing.ec2_by_id() {
        Ok(None) => "; EC2 itself has no such volume".to_owned(),
        Ok(Some(known)) => format!("; EC2 has it: {}", whereabouts(known.value)),
        Err(_) => String::new(),
    };
    let mut evidence = standing.evidence();
    evidence.extend(standing.ec2_by_id_says());
    Finding {
        kind,
        severity,
        subject: standing.subject(),
        message: format!("{volume} {what}: {why}{ec2}{}", standing.waiting()),
        evidence,
        advice: crate::catalogue::row(kind).act.to_owned(),
    }
}
