//! BranchEniLeak: are there branch ENIs on this node's trunk that no pod has and no cool-down explains?

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{Cause, Lookup, POD_ENI, Pod, Tri, Unknown};
use crate::finding::{Evidence, Finding, FindingKey, Kind, Object, ObjectType, Severity};
use crate::view::enis_of;
use crate::view::input::Input;
use crate::wording;

use super::branch::{Count, Inputs, Waiting, longest_wait};
use super::branch_eni_exhaustion;

const KIND: Kind = Kind::BranchEniLeak;

/// Branch ENIs that are named.
const NAMED: usize = 5;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<BranchEniLeak>();

struct BranchEniLeak;

impl Detect for BranchEniLeak {
    const KINDS: &'static [Kind] = &[KIND];
    type In = Inputs;

    fn evaluate(input: <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let count = match Count::of(input, around.now) {
            Ok(count) => count,
            Err(why) => return out.nothing(KIND, &why),
        };
        let (listed, suspected) = (listed(&count), suspected(&count));
        // CNINode may settle now what the hour's reading of it or a wait shows.
        if matches!(listed, Tri::Yes(_)) || matches!(suspected, Tri::Yes(_)) {
            out.ask(KIND, Lookup::CniNode);
        }
        let above = || branch_eni_exhaustion::above(&count);
        let of_list = listed.map(|finding| Raised { shown_under: above(), ..finding.into() });
        let is_listed = matches!(of_list, Tri::Yes(_));
        out.decide(KIND, Object::node, of_list);
        let of_wait = suspected.map(|finding| {
            let shown_under = if is_listed { Tri::Yes(key(Object::node())) } else { above() };
            Raised { awaited: Some(awaited()), shown_under, ..finding.into() }
        });
        out.decide(KIND, waits, of_wait);
    }
}

/// What is suspected where a pod waits although there is room.
fn waits() -> Object {
    Object::new(ObjectType::Resource, POD_ENI)
}

fn key(object: Object) -> FindingKey {
    FindingKey { kind: KIND, object }
}

/// The finding that others follow from, where one is raised.
pub(super) fn above(count: &Count<'_>) -> Tri<FindingKey, ()> {
    let raised = |decision: Tri<Finding>| match decision {
        Tri::Yes(finding) => Tri::Yes(key(finding.object)),
        // What is not determinable explains nothing.
        Tri::No(_) => Tri::No(()),
        Tri::Unknown(why) if why.cause == Cause::Unsupported => Tri::No(()),
        Tri::Unknown(why) => Tri::Unknown(why),
    };
    raised(listed(count)).or_else(|| raised(suspected(count)))
}

/// By the CNINode, where it lists the branch ENIs of the trunk.
fn listed(count: &Count<'_>) -> Tri<Finding> {
    let (cni, enis) = match count.unexplained() {
        Err(why) => return Tri::Unknown(why),
        Ok(None) => {
            let why = "not determinable without EC2 unless a pod waits: the CNINode does not list branch ENIs";
            return Tri::Unknown(Unknown::new(Cause::Unsupported, why));
        }
        Ok(Some((cni, enis))) if enis.is_empty() => return Tri::No(cni.no()),
        Ok(Some(listed)) => listed,
    };
    let named = enis.get(..NAMED).unwrap_or(&enis).join(", ");
    let more = if enis.len() > NAMED { ", …" } else { "" };
    let have = wording::of(
        enis.len() as u64,
        "branch ENI of this node does not belong to a pod and does not cool down",
        "branch ENIs of this node do not belong to a pod and do not cool down",
    );
    let evidence = enis.iter().take(NAMED).flat_map(|id| {
        let named = |pod: &std::sync::Arc<Pod>| enis_of(pod).iter().any(|eni| eni.id == *id);
        let absent = count.pods.value.lacks_any(named).ok();
        let of_pods = absent.map(|absent| count.pods.says_absent(absent, format!("no pod of this node names {id}")));
        [Some(cni.says(format!("the trunk has {id}"))), of_pods]
    });
    let evidence = evidence.flatten();
    Tri::Yes(finding(Object::node(), format!("{have}: {named}{more}"), evidence.collect()))
}

/// By a pod that waits for longer than a cool-down explains, although there is room.
fn suspected(count: &Count<'_>) -> Tri<Finding> {
    let capacity = count.capacity.unwrap_or_default();
    match count.overdue() {
        Err(why) => Tri::Unknown(why),
        Ok(Some(longest)) if capacity > 0 => count.had_room(capacity).map(|()| suspicion(count, capacity, longest)),
        Ok(_) => Tri::No(count.pods.no()),
    }
}

fn awaited() -> Unknown {
    Unknown::new(Cause::NotAsked, "only EC2, or a CNINode that lists branch ENIs, can confirm it")
}

fn suspicion(count: &Count<'_>, capacity: u64, longest: &Waiting<'_>) -> Finding {
    let (pod, waited) = (longest.pod.full_name(), wording::duration(longest.waited));
    let explained = count.cooldown.as_ref().map_or_else(|_| String::new(), |c| wording::duration(longest_wait(*c)));
    let message = format!(
        "pod {pod} has waited {waited} for a branch ENI, longer than a cool-down explains ({explained}), although there is room: {}; \
         possible causes: the VPC resource controller has forgotten the pod, it counts leaked ENIs, or EC2 refuses the request",
        count.words(capacity)
    );
    let evidence = vec![
        count.pods.says(format!("pod {pod} requests a branch ENI, and lacks the annotation that names one")),
        count.node.says(format!("the Node offers {capacity}")),
    ];
    finding(waits(), message, evidence)
}

fn finding(object: Object, message: String, evidence: Vec<Evidence>) -> Finding {
    let advice = crate::catalogue::row(KIND).remediation.clone();
    Finding { kind: KIND, severity: Severity::Warning, object, message, evidence, advice }
}
