//! UntaggedVolume: did Kubernetes attach a volume that no tag says whose it is?

use crate::detect::{Around, DetectVolumes, Detector, Evaluation};
use crate::facts::{Ec2Attached, Ec2AttachmentState, Ec2Volume, Node, Tri};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Required};
use crate::view::{Seen, sources};

use super::state::parts::Ec2Here;
use super::state::{Volume, Volumes};

const KIND: Kind = Kind::UntaggedVolume;

/// The detector. It never asks: EC2 was asked for another reason.
pub const DETECTOR: Detector = Detector::of_volumes::<UntaggedVolume>();

struct UntaggedVolume;

impl DetectVolumes for UntaggedVolume {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Required<sources::Ec2Attached>, Required<sources::Node>);
    type Asks = Ec2Here;

    fn evaluate((_, node): <Self::In as Input>::Of<'_>, volumes: &Volumes<'_>, _: &Around<'_>, out: &mut Evaluation) {
        let (now, before) = match volumes.parts().ec2_twice() {
            Ok(reads) => reads,
            Err(why) => return out.nothing(KIND, &why),
        };
        for volume in volumes.wanted() {
            out.decide(KIND, || object(volume), decide(volume, &now, before, &node));
        }
    }
}

fn object(volume: &Volume<'_>) -> Object {
    Object { volume: Some(volume.id.clone()), ..Object::new(ObjectType::Volume, volume.id.as_str()) }
}

fn decide(
    volume: &Volume<'_>,
    now: &Seen<'_, Ec2Attached>,
    before: &Ec2Attached,
    node: &Seen<'_, Node>,
) -> Tri<Finding> {
    let (is, was) = (now.with(&now.value.volumes).find(&volume.id), now.with(&before.volumes).find(&volume.id));
    is.and(|| was).and_then(|(is, was)| {
        let here = is.attachment(&now.value.instance).map(|here| here.state);
        if here != Some(Ec2AttachmentState::Attached) || is.has_owner_tag() || was.has_owner_tag() {
            return Tri::No(now.no());
        }
        Tri::Yes(finding(volume, is, now, node))
    })
}

fn finding(volume: &Volume<'_>, read: &Ec2Volume, now: &Seen<'_, Ec2Attached>, node: &Seen<'_, Node>) -> Finding {
    let name =
        read.tags.get("Name").map_or("an empty list of tags".to_owned(), |name| format!("only the tag Name={name:?}"));
    let id = volume.id.as_str();
    Finding {
        kind: KIND,
        severity: Severity::Info,
        object: object(volume),
        message: format!("{id} ({} GiB {}) lacks the tags of a cluster", read.size_gib, read.volume_type),
        evidence: vec![
            now.says(format!("{id} is attached to {} and has {name}", now.value.instance)),
            node.says(format!("{id} is in volumesAttached or volumesInUse of {}", node.value.name)),
        ],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}
