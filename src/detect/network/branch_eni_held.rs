//! BranchEniHeldByCompletedPod: may a completed pod hold a branch ENI for which another pod waits?

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Part, Tri};
use crate::finding::{Evidence, Finding, Kind, Severity};
use crate::view::input::{Asked, Input};
use crate::view::sources;

use super::branch::{Count, Ec2Answers, Finished, Inputs, frees_completed, pod_object};

const KIND: Kind = Kind::BranchEniHeldByCompletedPod;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<BranchEniHeldByCompletedPod>();

struct BranchEniHeldByCompletedPod;

impl Detect for BranchEniHeldByCompletedPod {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Inputs, Asked<sources::Ec2Interfaces>);

    fn evaluate((input, ec2): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let count = match Count::of(input, around.now) {
            Ok(count) => count,
            Err(why) => return out.nothing(KIND, &why),
        };
        for finished in &count.finished {
            out.decide(KIND, || pod_object(finished.pod), decide(&count, finished, &ec2));
        }
        // What cools down by now is not known without the cool-down.
        out.incomplete(KIND, count.finished_unread.as_ref());
        out.listed(KIND, count.pods.value.incomplete());
    }
}

fn decide<'v>(count: &Count<'v>, finished: &Finished<'v>, ec2: &Ec2Answers<'v>) -> Tri<Finding> {
    // Where no pod lacks one it does no harm.
    let lacks = count.lacks_some(count.capacity.unwrap_or_default());
    let pod = count.waiting.first().map(|longest| longest.pod.full_name()).unwrap_or_default();
    let holds = || match count.cni.seen() {
        Err(why) => Tri::Unknown(why.clone()),
        Ok(cni) => match &cni.value.branches {
            Part::Known(ids) if ids.iter().any(|id| finished.enis.contains(id)) => {
                Tri::Yes(("holds", Some(cni.says("the CNINode lists its branch ENI"))))
            }
            _ if frees_completed(cni.value) => Tri::No(cni.no()),
            _ => match count.is_still_there(ec2, finished) {
                Some(Tri::Yes(ec2)) => Tri::Yes(("holds", Some(ec2.says("EC2 lists its branch ENI on this node")))),
                Some(Tri::No(no)) => Tri::No(no),
                Some(Tri::Unknown(_)) | None => Tri::Yes(("may hold", None)),
            },
        },
    };
    lacks.and(holds).map(|((), (known, more))| finding(count, finished, known, &pod, more))
}

fn finding(count: &Count<'_>, finished: &Finished<'_>, known: &str, waits: &str, more: Option<Evidence>) -> Finding {
    let (name, enis) = (finished.pod.full_name(), finished.enis.join(", "));
    let mut evidence = vec![count.pods.says(format!("pod {name} has finished, and its annotation names {enis}"))];
    evidence.extend(more);
    Finding {
        kind: KIND,
        severity: Severity::Info,
        object: pod_object(finished.pod),
        message: format!("completed pod {name} {known} branch ENI {enis}, for which pod {waits} waits"),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.clone(),
    }
}
