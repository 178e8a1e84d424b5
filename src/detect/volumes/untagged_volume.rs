//! UntaggedVolume: did Kubernetes attach a volume that no tag says whose it is?

use crate::detect::volumes::ec2_twice;
use crate::detect::{Detector, Judge, Settings};
use crate::facts::{Ec2Attached, Ec2AttachmentState, Source, SourceSet, VolumeId};
use crate::finding::{Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::View;

use super::standing::Standing;

const KIND: Kind = Kind::UntaggedVolume;

/// The judge. It never asks: who else had a reason to ask EC2 has asked for it as well.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Ec2Attached, Source::Node]),
    parts: SourceSet::NONE,
    decides: SourceSet::NONE,
    uses: SourceSet::NONE,
    judge: Judge::OfVolumes(judge),
};

fn judge(view: &View, _: &Settings, all: &[Standing<'_>]) -> Vec<Judgement> {
    let ((now, before), node) = match (ec2_twice(view), view.node.known()) {
        (Ok(reads), Ok(node)) => (reads, node),
        (Err(why), _) => return vec![Judgement::blind(KIND, &why)],
        (_, Err(why)) => return vec![Judgement::blind(KIND, why)],
    };
    let mut judgement = Judgement::new(KIND);
    let is_kubernetes = |id: &VolumeId| all.iter().any(|standing| standing.volume == *id && standing.is_wanted());
    for (id, volume) in &now.value.volumes {
        let is_attached =
            volume.attachment(&now.value.instance).is_some_and(|here| here.state == Ec2AttachmentState::Attached);
        let is_untagged = |read: &Ec2Attached| read.volumes.get(id).is_some_and(|volume| !volume.has_owner_tag());
        if !is_attached || !is_kubernetes(id) || !is_untagged(now.value) || !is_untagged(before) {
            continue;
        }
        let name =
            volume.tags.get("Name").map_or("no tag at all".to_owned(), |name| format!("no tag but Name={name:?}"));
        let volume_id = id.as_str();
        judgement.raised.push(Finding {
            kind: KIND,
            severity: Severity::Info,
            subject: Subject { volume: Some(id.clone()), ..Subject::new(SubjectType::Volume, volume_id) },
            message: format!(
                "no tag says that {volume_id} ({} GiB {}) belongs to a cluster",
                volume.size_gib, volume.of
            ),
            evidence: vec![
                now.says(format!("{volume_id} is attached to {} and has {name}", now.value.instance)),
                node.says(format!("{volume_id} is in volumesAttached or volumesInUse of {}", node.value.name)),
            ],
            advice: crate::catalogue::row(KIND).act.to_owned(),
        });
    }
    vec![judgement]
}
