//! PodIdentityAgentDown: is the Pod Identity agent of EKS meant to run here, and does not listen?

use jiff::SignedDuration;

use crate::detect::causes::oom_of_pod;
use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{Cause, NodeTime, Pod, PodPhase, Tri, Unknown};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Maybe, Required};
use crate::view::sources;

const KIND: Kind = Kind::PodIdentityAgentDown;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<PodIdentityAgentDown>();

struct PodIdentityAgentDown;

impl Detect for PodIdentityAgentDown {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Required<sources::Pods>, Maybe<sources::PodIdentityAgent>);

    fn evaluate((pods, agent): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let object = || Object::new(ObjectType::Resource, "pod-identity-agent");
        let decision = pods.find_any(|pod| is_agent(pod)).and_then(|pod| {
            agent.ask(|agent| {
                if agent.value.listens {
                    return Tri::No(agent.no());
                }
                if pod.phase == PodPhase::Pending && is_young(pod, around.now) {
                    return Tri::Unknown(Unknown::new(Cause::Baseline, "the agent's pod was created only minutes ago"));
                }
                let says =
                    "the kernel's table of sockets was read, and 169.254.170.23:80 is not among those that listen";
                let finding = Finding {
                    kind: KIND,
                    severity: Severity::Warning,
                    object: Object { pod: Some(pod.uid.clone()), ..object() },
                    message: format!(
                        "the EKS Pod Identity agent ({}) does not listen at 169.254.170.23:80",
                        pod.full_name()
                    ),
                    evidence: vec![agent.says(says), pods.says(format!("{} is {:?}", pod.full_name(), pod.phase))],
                    advice: crate::catalogue::row(KIND).remediation.to_owned(),
                };
                Tri::Yes(Raised { follows: vec![oom_of_pod(pod.node_uid())], ..finding.into() })
            })
        });
        out.decide(KIND, object, decision);
    }
}

/// Images are pulled and init containers run.
const STARTS_WITHIN: SignedDuration = SignedDuration::from_mins(5);

fn is_young(pod: &Pod, now: NodeTime) -> bool {
    pod.created.is_some_and(|created| now.wall.duration_since(created) < STARTS_WITHIN)
}

/// The pod of the add-on's DaemonSet, where it is not on its way out.
fn is_agent(pod: &Pod) -> bool {
    pod.namespace == "kube-system"
        && pod.owner.as_deref() == Some("DaemonSet/eks-pod-identity-agent")
        && pod.deleting.is_none()
        && matches!(pod.phase, PodPhase::Running | PodPhase::Pending)
}
