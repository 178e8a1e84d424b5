//! MissingDevice: is a volume said to be attached here that this machine does not have?

use crate::detect::{Detector, Judge, Settings};
use crate::facts::{Question, Source, SourceSet};
use crate::finding::{Finding, Judgement, Kind, Severity};
use crate::view::View;

use super::standing::Standing;
use super::swapped_volume;

const KIND: Kind = Kind::MissingDevice;

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Node, Source::BlockDevices, Source::Mounts]),
    parts: SourceSet::NONE,
    decides: SourceSet::NONE,
    uses: SourceSet::of(&[
        Source::Filesystems,
        Source::Ec2Attached,
        Source::Pods,
        Source::VolumeAttachments,
        Source::PersistentVolumes,
    ]),
    judge: Judge::OfVolumes(judge),
};

fn judge(view: &View, _: &Settings, all: &[Standing<'_>]) -> Vec<Judgement> {
    let mut judgement = Judgement::new(KIND);
    for standing in all.iter().filter(|standing| standing.attached) {
        let absent = match standing.device_is_absent() {
            Ok(absent) => absent,
            // What a staging directory has mounted is here, whatever it is called.
            Err(Some(_)) if standing.is_staged() => continue,
            Err(Some(why)) => {
                judgement.asks.extend(standing.ask());
                judgement.blind_to(standing.subject(), &why);
                continue;
            }
            Err(None) => continue,
        };
        // A mount whose device is gone is a dead mount, or another volume's.
        if standing.is_staged() {
            continue;
        }
        judgement.asks.extend(standing.ask_all());
        // The controller has let it go meanwhile, or stands behind what it said on the Node.
        if let Ok(attachment) = standing.attachment()
            && attachment.is_none_or(|attachment| !attachment.value.attached || attachment.value.deleting.is_some())
        {
            continue;
        }
        if swapped_volume::stands_in(view, all, standing).is_some() {
            continue;
        }
        judgement.asks.push(Question::Ec2Attached);
        judgement.raised.push(finding(standing, absent));
    }
    vec![judgement]
}

fn finding(standing: &Standing<'_>, absent: crate::finding::Evidence) -> Finding {
    let mut evidence = vec![absent];
    evidence.extend(standing.evidence());
    evidence.extend(standing.ec2_says());
    let ec2 = match standing.ec2().map(|word| word.is_some()) {
        Ok(true) => ": by EC2's word it is attached, and this machine did not find it",
        Ok(false) => ": by EC2's word it is not, and was detached behind Kubernetes' back",
        Err(_) => "",
    };
    let volume = standing.volume.as_str();
    let path = standing.attachment().ok().flatten().and_then(|attachment| attachment.value.device_path.clone());
    let path = path.map(|path| format!(" as {path}")).unwrap_or_default();
    Finding {
        kind: KIND,
        severity: Severity::Warning,
        message: format!(
            "{volume} is said to be attached here{path}, but no device here is it{ec2}{}",
            standing.waiting()
        ),
        subject: standing.subject(),
        evidence,
        advice: crate::catalogue::row(KIND).act.to_owned(),
    }
}
