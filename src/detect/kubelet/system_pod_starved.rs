//! SystemPodStarved: does a pod of the system wait for a node?

use std::sync::Arc;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Pod, PodUid, Pods, Tri};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Required};
use crate::view::{Seen, sources};

const KIND: Kind = Kind::SystemPodStarved;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<SystemPodStarved>();

struct SystemPodStarved;

impl Detect for SystemPodStarved {
    const KINDS: &'static [Kind] = &[KIND];
    type In = Required<sources::PendingPods>;

    fn evaluate(pods: <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        let object = |_: &PodUid, pod: &Arc<Pod>| object(pod);
        out.each(KIND, &pods, object, |_, pod| decide(&pods, pod));
    }
}

fn object(pod: &Pod) -> Object {
    Object { pod: Some(pod.uid.clone()), ..Object::new(ObjectType::Pod, pod.full_name()) }
}

fn decide(pods: &Seen<'_, Pods>, pod: &Pod) -> Tri<Finding> {
    if !pod.is_of_the_system() || pod.deleting.is_some() {
        return Tri::No(pods.no());
    }
    let (name, why) = (pod.full_name(), pod.unscheduled.as_deref().unwrap_or("the scheduler does not say why"));
    let place = pod.wants.as_ref().map_or("a node".to_owned(), |node| format!("node {node}"));
    let owner = pod.owner.as_ref().map_or(String::new(), |owner| format!(" of {owner}"));
    Tri::Yes(Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: object(pod),
        message: format!("{name}{owner} waits for {place}: {why}"),
        evidence: vec![
            pods.says(format!("{name} is Pending, priority {}, and its spec.nodeName is empty", pod.priority)),
        ],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    })
}
