//! SystemPodRejected: does the kubelet reject a pod of the system because other pods have the node's capacity?

use std::collections::BTreeMap;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{NodeTime, Pod, Pods, Tri};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Required};
use crate::view::{Seen, sources};
use crate::wording::duration;

const KIND: Kind = Kind::SystemPodRejected;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<SystemPodRejected>();

struct SystemPodRejected;

impl Detect for SystemPodRejected {
    const KINDS: &'static [Kind] = &[KIND];
    type In = Required<sources::Pods>;

    fn evaluate(pods: <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        for (name, of) in workloads(pods.value) {
            let object = || Object::new(ObjectType::Pod, name.clone());
            out.decide(KIND, object, decide(&pods, &of, object(), around.now));
        }
        out.incomplete(KIND, pods.value.incomplete());
    }
}

/// The system's pods on this node by their owner, of which the rejected one and its replacement are two. A pod without one is its own.
fn workloads(pods: &Pods) -> BTreeMap<String, Vec<&Pod>> {
    let mut all: BTreeMap<String, Vec<&Pod>> = BTreeMap::new();
    for pod in pods.values().filter(|pod| pod.is_of_the_system()) {
        let owner = pod.owner.as_deref().filter(|_| pod.mirrors.is_none());
        let name = owner.and_then(|owner| Some(owner.split_once('/')?.1)).unwrap_or(&pod.name);
        all.entry(format!("{}/{name}", pod.namespace)).or_default().push(pod);
    }
    all
}

/// Whether a pod is for this node alone: one of a DaemonSet, a static one, and one that nothing replaces.
fn is_bound(pod: &Pod) -> bool {
    pod.mirrors.is_some() || pod.owner.as_deref().is_none_or(|owner| owner.starts_with("DaemonSet/"))
}

fn decide(pods: &Seen<'_, Pods>, of: &[&Pod], object: Object, now: NodeTime) -> Tri<Finding> {
    // Of other owners the replacement may run on another node, of which this one's pods show nothing.
    if !of.iter().any(|pod| is_bound(pod)) {
        return Tri::No(pods.no());
    }
    // A pod that takes its place is here, whether or not it runs yet.
    if of.iter().any(|pod| !pod.is_over() && pod.deleting.is_none()) {
        return Tri::No(pods.no());
    }
    let rejected = of.iter().filter_map(|pod| Some((pod, pod.rejected.as_ref()?)));
    let Some((pod, why)) = rejected.max_by_key(|(pod, _)| pod.created) else {
        return Tri::No(pods.no());
    };
    let owner = pod.owner.as_ref().map_or(String::new(), |owner| format!(" of {owner}"));
    let since = pod.created.and_then(|created| u64::try_from(now.wall.as_second() - created.as_second()).ok());
    let ago =
        since.map_or(String::new(), |ago| format!(", created {} ago", duration(std::time::Duration::from_secs(ago))));
    let name = pod.full_name();
    Tri::Yes(Finding {
        kind: KIND,
        severity: Severity::Warning,
        object,
        message: format!("the kubelet rejected {name}{owner}{ago}: {why}"),
        evidence: vec![pods.says(format!("{name} is Failed, priority {}; {why}", pod.priority))],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    })
}
