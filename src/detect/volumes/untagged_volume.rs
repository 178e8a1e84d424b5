//! UntaggedVolume: did Kubernetes attach a volume that no tag says whose it is?

use std::collections::BTreeSet;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{AttachableName, Ec2Attached, Ec2AttachmentState, Ec2Volume, Node, NotAbsent, Tri, VolumeId};
use crate::finding::{Finding, Kind, Severity, Subject, SubjectType};
use crate::view::input::{Input, Maybe, Pair, Required};
use crate::view::{Seen, sources};

use super::both_reads;

const KIND: Kind = Kind::UntaggedVolume;

/// The detector. It never asks: who else had a reason to ask EC2 has asked for it as well.
pub const DETECTOR: Detector = Detector::typed::<UntaggedVolume>();

struct UntaggedVolume;

impl Detect for UntaggedVolume {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Pair<sources::Ec2Attached>, Required<sources::Node>, Maybe<sources::BlockDevices>);

    fn evaluate((attached, node, block): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let before = match attached.before().and_then(|pair| both_reads(&attached.now, pair, block.seen())) {
            Ok(before) => before,
            Err(why) => return out.nothing(KIND, &why),
        };
        let now = attached.now;
        let named = named_by_kubernetes(node.value, &around.settings.ebs.drivers);
        let subject =
            |id: &VolumeId| Subject { volume: Some(id.clone()), ..Subject::new(SubjectType::Volume, id.as_str()) };
        out.each(
            KIND,
            &now.with(&now.value.volumes),
            |id, _| subject(id),
            |id, volume| {
                let here = volume.attachment(&now.value.instance);
                let is_attached = here.is_some_and(|here| here.state == Ec2AttachmentState::Attached);
                if !named.contains(id) {
                    return Tri::No(node.no());
                }
                if !is_attached || volume.has_owner_tag() {
                    return Tri::No(now.no());
                }
                // EC2's answers disagree for seconds: one that was tagged, or not listed, a minute ago may be so again.
                match before.volumes.lacks(id) {
                    Err(NotAbsent::Present(before)) if !before.has_owner_tag() => {
                        Tri::Yes(finding(id, volume, &now, &node, subject(id)))
                    }
                    Err(NotAbsent::Present(_)) | Ok(_) => Tri::No(now.no()),
                    Err(NotAbsent::Unknown(why)) => Tri::Unknown(why.clone()),
                }
            },
        );
    }
}

/// The EBS volumes that the kubelet uses or the controller has attached here.
fn named_by_kubernetes(node: &Node, drivers: &[String]) -> BTreeSet<VolumeId> {
    let names = node.volumes_in_use.iter().chain(node.volumes_attached.keys());
    names.filter_map(|name| AttachableName::parse(name)?.ebs_volume(drivers)).collect()
}

fn finding(
    id: &VolumeId,
    volume: &Ec2Volume,
    now: &Seen<'_, Ec2Attached>,
    node: &Seen<'_, Node>,
    subject: Subject,
) -> Finding {
    let name = volume.tags.get("Name").map_or("no tag at all".to_owned(), |name| format!("no tag but Name={name:?}"));
    let id = id.as_str();
    Finding {
        kind: KIND,
        severity: Severity::Info,
        subject,
        message: format!("no tag says that {id} ({} GiB {}) belongs to a cluster", volume.size_gib, volume.of),
        evidence: vec![
            now.says(format!("{id} is attached to {} and has {name}", now.value.instance)),
            node.says(format!("{id} is in volumesAttached or volumesInUse of {}", node.value.name)),
        ],
        advice: crate::catalogue::row(KIND).act.to_owned(),
    }
}
