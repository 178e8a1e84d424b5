//! UntaggedVolume: did Kubernetes attach a volume that no tag says whose it is?

use std::collections::BTreeSet;

use crate::detect::volumes::ec2_twice;
use crate::detect::{Detector, Judge, Settings};
use crate::facts::{Ec2Attached, Ec2AttachmentState, Node, Source, SourceSet, VolumeId};
use crate::finding::{Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::View;

const KIND: Kind = Kind::UntaggedVolume;

/// The judge. It never asks: who else had a reason to ask EC2 has asked for it as well.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::of(&[Source::Ec2Attached, Source::Node]),
    parts: SourceSet::NONE,
    uses: SourceSet::NONE,
    judge: Judge::OfView(judge),
};

fn judge(view: &View, _: &Settings) -> Vec<Judgement> {
    let ((now, before), node) = match (ec2_twice(view), view.node.known()) {
        (Ok(reads), Ok(node)) => (reads, node),
        (Err(why), _) => return vec![Judgement::blind(KIND, &why)],
        (_, Err(why)) => return vec![Judgement::blind(KIND, why)],
    };
    let wanted = of_kubernetes(node.value);
    let mut judgement = Judgement::new(KIND);
    for (id, volume) in &now.value.volumes {
        let is_attached =
            volume.attachment(&now.value.instance).is_some_and(|here| here.state == Ec2AttachmentState::Attached);
        let is_untagged = |read: &Ec2Attached| read.volumes.get(id).is_some_and(|volume| !volume.has_owner_tag());
        if !is_attached || !wanted.contains(id) || !is_untagged(now.value) || !is_untagged(before) {
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

/// The volumes that Kubernetes has attached here: `PLUGIN/DRIVER^vol-…`, or `…/vol-…` of the in-tree plugin.
fn of_kubernetes(node: &Node) -> BTreeSet<VolumeId> {
    let names = node.volumes_in_use.iter().chain(node.volumes_attached.keys());
    names.filter_map(|name| VolumeId::from_serial(name.rsplit(['^', '/']).next()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volumes_id_stands_at_the_end_of_its_name() {
        let node = Node {
            volumes_in_use: vec![
                "kubernetes.io/csi/ebs.csi.aws.com^vol-0123456789abcdef0".into(),
                "kubernetes.io/csi/efs.csi.aws.com^fs-0123".into(),
            ],
            volumes_attached: [("kubernetes.io/aws-ebs/aws://eu-west-1a/vol-0a0b0c0d".into(), String::new())].into(),
            ..Node::default()
        };
        let ids: Vec<String> = of_kubernetes(&node).into_iter().map(|id| id.as_str().to_owned()).collect();
        assert_eq!(ids, ["vol-0123456789abcdef0", "vol-0a0b0c0d"]);
    }
}
