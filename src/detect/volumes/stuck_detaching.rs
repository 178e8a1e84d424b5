//! StuckDetaching, UndeletableAttachment: has Kubernetes asked for a volume back that is still here, and why?

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{Question, Source, SourceSet, VolumeAttachment};
use crate::finding::{Blind, Finding, Judgement, Kind, Severity};
use crate::view::View;

use super::standing::{Standing, nameless_disks};
use super::wanted_elsewhere;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[Kind::StuckDetaching, Kind::UndeletableAttachment],
    needs: SourceSet::of(&[Source::Node, Source::BlockDevices, Source::Mounts]),
    parts: SourceSet::NONE,
    decides: SourceSet::NONE,
    uses: SourceSet::of(&[
        Source::Filesystems,
        Source::Ec2Attached,
        Source::PodCgroups,
        Source::Pods,
        Source::VolumeAttachments,
        Source::PersistentVolumes,
    ]),
    judge: Judge::OfVolumes(judge),
};

fn judge(view: &View, _: &Settings, all: &[Standing<'_>]) -> Vec<Judgement> {
    let (mut stuck, mut undeletable) =
        (Judgement::new(Kind::StuckDetaching), Judgement::new(Kind::UndeletableAttachment));
    // The controller takes a volume off the Node before it deletes the VolumeAttachment.
    for standing in all.iter().filter(|standing| !standing.attached && standing.device().is_some()) {
        if standing.is_the_machines_own() {
            continue;
        }
        stuck.asks.extend(standing.ask());
        let attachment = match standing.attachment() {
            Ok(Some(attachment)) if attachment.value.deleting.is_some() => attachment,
            Ok(_) => continue,
            Err(why) => {
                stuck.blind_to(standing.subject(), &why);
                undeletable.blind_to(standing.subject(), &why);
                continue;
            }
        };
        if lacks_its_volume(attachment.value) {
            stuck.asks.extend(standing.ask_users());
            let gone = matches!(standing.pv_object(), Ok(None));
            undeletable.raised.push(undeletable_finding(standing, gone));
        } else if wanted_elsewhere::hold(view, standing).is_none() {
            // What holds it here is found by its own name.
            stuck.asks.push(Question::Ec2Attached);
            stuck.raised.push(finding(standing, attachment.value));
        }
    }
    if let Some(why) = nameless_disks(view, all) {
        stuck.asks.push(Question::Ec2Attached);
        stuck.blind = Blind::Rest(why.clone());
        undeletable.blind = Blind::Rest(why);
    }
    vec![stuck, undeletable]
}

/// The attacher looks its PersistentVolume up before it detaches, and never gets further where that is gone.
fn lacks_its_volume(attachment: &VolumeAttachment) -> bool {
    let says = |error: &str| error.contains("persistentvolume") && error.contains("not found");
    attachment.detach_error.as_deref().is_some_and(says)
}

fn finding(standing: &Standing<'_>, attachment: &VolumeAttachment) -> Finding {
    let volume = standing.volume.as_str();
    let since = attachment.deleting.map(|since| format!(" since {since}")).unwrap_or_default();
    let busy = standing.busy_with();
    let why = match (&busy, &attachment.detach_error) {
        (Some(busy), _) => busy.clone(),
        (None, Some(error)) => format!("the driver says: {error}"),
        (None, None) => "nothing on this machine uses it".to_owned(),
    };
    let ec2 = standing.ec2().ok().and_then(|word| Some(word?.attachment.state.name()));
    let ec2 = ec2.map(|state| format!(" (EC2 says {state})")).unwrap_or_default();
    Finding {
        kind: Kind::StuckDetaching,
        severity: Severity::Warning,
        subject: standing.subject(),
        message: format!("{volume} is to be detached{since}, and is still here{ec2}: {why}"),
        evidence: standing.all_evidence(),
        advice: crate::catalogue::row(Kind::StuckDetaching).act.to_owned(),
    }
}

fn undeletable_finding(standing: &Standing<'_>, gone: bool) -> Finding {
    let volume = standing.volume.as_str();
    let pv = standing.pv().unwrap_or("its PersistentVolume");
    let known = if gone { "which is gone" } else { "which the attacher does not find" };
    Finding {
        kind: Kind::UndeletableAttachment,
        severity: Severity::Warning,
        subject: standing.subject(),
        message: format!("{volume} cannot be detached: its VolumeAttachment wants {pv}, {known}"),
        evidence: standing.all_evidence(),
        advice: crate::catalogue::row(Kind::UndeletableAttachment).act.to_owned(),
    }
}
