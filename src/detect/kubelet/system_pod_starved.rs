//! SystemPodStarved: does a pod of the system wait for a node?

use std::collections::BTreeMap;

use crate::detect::causes::OldestFirst;
use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{Pod, Pods, Tri};
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
        let decided: Vec<_> = pods.value.values().map(|pod| (pod, decide(&pods, pod))).collect();
        // A DaemonSet has such a pod for each node that it does not fit on.
        let mut waiting: BTreeMap<(&str, &str), Vec<_>> = BTreeMap::new();
        for (pod, decision) in &decided {
            if let (Tri::Yes(_), Some(owner)) = (decision, owner(pod)) {
                waiting.entry(owner).or_default().push((pod.created, object(pod)));
            }
        }
        let first = waiting.into_iter().map(|(owner, of_one)| (owner, OldestFirst::of(KIND, of_one.into_iter())));
        let first: BTreeMap<_, _> = first.collect();
        for (pod, decision) in decided {
            let above = owner(pod).and_then(|owner| first.get(&owner)?.above(&object(pod)));
            let decision = decision.map(|raised| Raised { follows: above.into_iter().collect(), ..raised });
            out.decide(KIND, || object(pod), decision);
        }
        out.listed(KIND, pods.value.incomplete());
    }
}

/// Namespace, kind and name of what makes the pod.
fn owner(pod: &Pod) -> Option<(&str, &str)> {
    Some((&pod.namespace, pod.owner.as_deref()?))
}

fn object(pod: &Pod) -> Object {
    Object { pod: Some(pod.uid.clone()), ..Object::new(ObjectType::Pod, pod.full_name()) }
}

/// How the scheduler says that a pod's own rules about other pods that run keep it from a node.
const OF_REPLICAS: [&str; 3] = [
    "didn't match pod anti-affinity rules",
    "didn't match pod affinity/anti-affinity",
    "didn't match pod topology spread constraints",
];

/// How the scheduler says that it does not try a pod, as its `spec.schedulingGates` ask.
const GATED: &str = "due to non-empty scheduling gates";

fn decide(pods: &Seen<'_, Pods>, pod: &Pod) -> Tri<Raised> {
    let is_gated = pod.unscheduled.as_deref().is_some_and(|why| why.contains(GATED));
    if !pod.is_of_the_system() || pod.deleting.is_some() || is_gated {
        return Tri::No(pods.no());
    }
    let (name, why) = (pod.full_name(), pod.unscheduled.as_deref().unwrap_or("the scheduler does not say why"));
    let place = pod.wants.as_ref().map_or("a node".to_owned(), |node| format!("node {node}"));
    let owner = pod.owner.as_ref().map_or(String::new(), |owner| format!(" of {owner}"));
    // A pod that its own rules keep away from its replicas waits where one of them runs: the system has what it needs.
    let beside_another =
        pod.unscheduled.as_deref().is_some_and(|why| OF_REPLICAS.iter().any(|rule| why.contains(rule)));
    let others = if beside_another { "; the rule is about pods that run, such as its other replicas" } else { "" };
    let finding = Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: object(pod),
        message: format!("{name}{owner} waits for {place}: {why}{others}"),
        evidence: vec![
            pods.says(format!("{name} is Pending, priority {}, and its spec.nodeName is empty", pod.priority)),
        ],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    };
    Tri::Yes(Raised { stays_as_severe: beside_another, ..finding.into() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::detect::Settings;
    use crate::facts::{BootId, NodeTime, Observation, PodPhase, Reading, Source, SourceSet};
    use crate::view::View;

    /// The objects that wait, and those of them that do not become critical.
    fn evaluated(reasons: &[Option<&str>]) -> (usize, usize) {
        let now = NodeTime { boot: BootId::default(), up: Duration::from_secs(60), wall: Timestamp::UNIX_EPOCH };
        let pods = reasons.iter().zip(0..).map(|(why, number)| {
            let pod = Pod {
                namespace: "kube-system".to_owned(),
                name: format!("coredns-{number}"),
                uid: format!("{number}"),
                phase: PodPhase::Pending,
                priority: 2_000_000_000,
                unscheduled: why.map(str::to_owned),
                ..Pod::default()
            };
            (pod.uid.clone(), Arc::new(pod))
        });
        let mut view = View::new(now);
        view.take(now, vec![Observation::PendingPods(Reading::Known { value: Pods::whole(pods), at: now })]);
        let all = SourceSet::of(&[Source::PendingPods]);
        let evaluated = crate::detect::evaluate(&view, &Settings::default(), all, &mut |_, _| {});
        let evaluation = evaluated.into_iter().find(|evaluation| evaluation.kind == KIND).unwrap();
        (evaluation.raised.len(), evaluation.stays_as_severe.len())
    }

    #[test]
    fn a_pod_that_its_own_rules_keep_from_a_node_stays_a_warning() {
        for why in OF_REPLICAS {
            let why = format!("0/3 nodes are available: 3 node(s) {why}.");
            assert_eq!(evaluated(&[Some(&why)]), (1, 1), "{why}");
        }
        assert_eq!(evaluated(&[Some("0/3 nodes are available: 3 Insufficient memory.")]), (1, 0));
        assert_eq!(evaluated(&[None]), (1, 0), "the scheduler does not say why");
    }
}
