//! StaleAttachment: is a volume attached here that nothing of Kubernetes and nothing of this machine uses?

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{Question, Source, SourceSet};
use crate::finding::{Blind, Finding, Judgement, Kind, Severity};
use crate::view::View;

use super::standing::{Ec2Word, Standing, nameless_disks};
use super::swapped_volume;

const KIND: Kind = Kind::StaleAttachment;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Node, Source::BlockDevices, Source::Mounts, Source::Filesystems]),
    parts: SourceSet::NONE,
    decides: SourceSet::NONE,
    uses: SourceSet::of(&[Source::Ec2Attached, Source::Pods, Source::VolumeAttachments, Source::PersistentVolumes]),
    judge: Judge::OfVolumes(judge),
};

fn judge(view: &View, _: &Settings, all: &[Standing<'_>]) -> Vec<Judgement> {
    let mut judgement = Judgement::new(KIND);
    for standing in all.iter().filter(|standing| is_left(standing)) {
        judgement.asks.extend(standing.ask());
        match standing.attachment() {
            Ok(None) => {}
            Ok(Some(_)) => continue,
            Err(why) => {
                judgement.blind_to(standing.subject(), &why);
                continue;
            }
        }
        if all.iter().any(|other| swapped_volume::stands_in(view, all, other) == Some(&standing.volume)) {
            continue;
        }
        judgement.asks.push(Question::Ec2Attached);
        let word = standing.ec2().ok().flatten();
        // What goes with the instance came with it.
        if word.is_some_and(|word| word.attachment.delete_on_termination) {
            continue;
        }
        judgement.raised.push(finding(view, standing, word));
    }
    if let Some(why) = nameless_disks(view, all) {
        judgement.asks.push(Question::Ec2Attached);
        judgement.blind = Blind::Rest(why);
    }
    vec![judgement]
}

/// It is here, nobody says that it should be, and nothing of it is in use.
pub(super) fn is_left(standing: &Standing<'_>) -> bool {
    !standing.is_wanted() && standing.device().is_some() && standing.sees_all_mounts() && standing.busy_with().is_none()
}

fn finding(view: &View, standing: &Standing<'_>, word: Option<Ec2Word<'_>>) -> Finding {
    let mut evidence = standing.all_evidence();
    if let Ok(mounts) = view.mounts.known() {
        evidence.push(mounts.says("the host has no mount of it, and no live filesystem, swap or device is on it"));
    }
    Finding {
        kind: KIND,
        // That it is no disk of the instance's own, and nobody's by hand, only EC2 can say.
        severity: if word.is_some_and(|word| word.volume.has_owner_tag()) { Severity::Warning } else { Severity::Info },
        subject: standing.subject(),
        message: format!(
            "{} is attached here, but no VolumeAttachment asks for it and nothing on this machine uses it",
            standing.volume.as_str()
        ),
        evidence,
        advice: crate::catalogue::row(KIND).act.to_owned(),
    }
}
