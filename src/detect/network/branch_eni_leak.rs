//! BranchEniLeak: are there branch ENIs on this node's trunk that no pod has and no cool-down explains?

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{Cause, Lookup, POD_ENI, Pod, Tri, Unknown};
use crate::finding::{Evidence, Finding, FindingKey, Kind, Object, ObjectType, Severity};
use crate::view::input::{Asked, Input};
use crate::view::{enis_of, sources};
use crate::wording;

use super::branch::{Count, Ec2Answers, Inputs, Leaked, Waiting, longest_wait, named, time};
use super::branch_eni_exhaustion;
use super::subnets::{self, SubnetAnswers};

const KIND: Kind = Kind::BranchEniLeak;

/// Branch ENIs that are evidence.
const NAMED: usize = 5;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<BranchEniLeak>();

struct BranchEniLeak;

/// What EC2 answers about interfaces and about subnets.
pub(super) type FromEc2<'v> = (Ec2Answers<'v>, SubnetAnswers<'v>);

impl Detect for BranchEniLeak {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Inputs, (Asked<sources::Ec2Interfaces>, Asked<sources::Ec2Subnets>));

    fn evaluate((input, ec2): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let count = match Count::of(input, around.now) {
            Ok(count) => count,
            Err(why) => return out.nothing(KIND, &why),
        };
        let (of_cni, overdue) = (of_cni(&count), overdue(&count));
        let waits_too_long = matches!(overdue, Tri::Yes(_));
        // CNINode may settle now what the hour's reading of it or a wait shows.
        if matches!(of_cni, Tri::Yes(_)) || waits_too_long {
            out.ask(KIND, Lookup::CniNode);
        }
        if let (false, true, Ok(apart)) = (matches!(of_cni, Tri::Yes(_)), waits_too_long, count.apart()) {
            out.ask(KIND, Lookup::Ec2Interfaces { apart_seconds: apart.as_secs() });
        }
        if waits_too_long {
            out.ask(KIND, Lookup::Ec2Subnets);
        }
        let above = || branch_eni_exhaustion::above(&count);
        let of_list = listed(&count, &ec2.0).map(|finding| Raised { shown_under: above(), ..finding.into() });
        let is_listed = matches!(of_list, Tri::Yes(_));
        out.decide(KIND, Object::node, of_list);
        let of_wait = suspected(&count, &ec2).map(|(finding, awaited)| {
            let shown_under = if is_listed { Tri::Yes(key(Object::node())) } else { above() };
            Raised { awaited: Some(awaited), shown_under, ..finding.into() }
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
pub(super) fn above<'v>(count: &Count<'v>, ec2: &FromEc2<'v>) -> Tri<FindingKey, ()> {
    let raised = |decision: Tri<Finding>| match decision {
        Tri::Yes(finding) => Tri::Yes(key(finding.object)),
        // What is not determinable explains nothing.
        Tri::No(_) => Tri::No(()),
        Tri::Unknown(why) if why.cause.is_not_offered() => Tri::No(()),
        Tri::Unknown(why) => Tri::Unknown(why),
    };
    raised(listed(count, &ec2.0)).or_else(|| raised(suspected(count, ec2).map(|(finding, _)| finding)))
}

/// By the CNINode where it lists the branch ENIs of the trunk, else by EC2. What the controller has forgotten its CNINode lacks as well,
/// so that EC2's yes counts in either case.
fn listed<'v>(count: &Count<'v>, ec2: &Ec2Answers<'v>) -> Tri<Finding> {
    let of_cni = of_cni(count);
    if matches!(of_cni, Tri::Yes(_)) {
        return of_cni;
    }
    match (count.leaked_by_ec2(ec2), of_cni) {
        (Tri::Yes(leaked), _) => Tri::Yes(of_ec2(count, &leaked)),
        (Tri::No(no), Tri::Unknown(_)) => Tri::No(no),
        (Tri::Unknown(why), Tri::Unknown(cni)) if cni.cause == Cause::Unsupported => {
            let waits_too_long = matches!(overdue(count), Tri::Yes(_)) || !why.cause.is_not_offered();
            Tri::Unknown(if waits_too_long { why } else { cni })
        }
        (_, of_cni) => of_cni,
    }
}

/// By the CNINode, where it lists the branch ENIs of the trunk.
fn of_cni(count: &Count<'_>) -> Tri<Finding> {
    let (cni, enis) = match count.unexplained() {
        Err(why) => return Tri::Unknown(why),
        Ok(None) => {
            let why = "not determinable without EC2 unless a pod waits: the CNINode does not list branch ENIs";
            return Tri::Unknown(Unknown::new(Cause::Unsupported, why));
        }
        Ok(Some((cni, enis))) if enis.is_empty() => return Tri::No(cni.no()),
        Ok(Some(listed)) => listed,
    };
    let listed = enis.iter().take(NAMED).map(|id| cni.says(format!("the trunk has {id}"))).collect();
    Tri::Yes(leak(count, &enis, listed))
}

/// By two answers of EC2.
fn of_ec2(count: &Count<'_>, leaked: &Leaked<'_>) -> Finding {
    let over = wording::duration(leaked.over);
    let says = |id: &&str| leaked.ec2.says(format!("EC2 lists {id} as a branch of this instance, twice within {over}"));
    leak(count, &leaked.ids, leaked.ids.iter().take(NAMED).map(says).collect())
}

/// What the trunk has and no pod, by this evidence of the trunk.
fn leak(count: &Count<'_>, enis: &[&str], mut evidence: Vec<Evidence>) -> Finding {
    let have = wording::of(
        enis.len() as u64,
        "branch ENI of this node does not belong to a pod and does not cool down",
        "branch ENIs of this node do not belong to a pod and do not cool down",
    );
    evidence.extend(enis.iter().take(NAMED).filter_map(|id| {
        let named = |pod: &std::sync::Arc<Pod>| enis_of(pod).iter().any(|eni| eni.id == *id);
        let absent = count.pods.value.lacks_any(named).ok()?;
        Some(count.pods.says_absent(absent, format!("no pod of this node names {id}")))
    }));
    finding(Object::node(), format!("{have}: {}", named(enis)), evidence)
}

/// The pod that waits for longer than a cool-down explains, although there is room; and how many the node has.
fn overdue<'c, 'v>(count: &'c Count<'v>) -> Tri<(u64, &'c Waiting<'v>)> {
    let capacity = count.capacity.unwrap_or_default();
    match count.overdue() {
        Err(why) => Tri::Unknown(why),
        Ok(Some(longest)) if capacity > 0 => count.had_room(capacity).map(|()| (capacity, longest)),
        Ok(_) => Tri::No(count.pods.no()),
    }
}

/// By such a pod, unless EC2 shows that its wait has another cause, such as a full subnet; and what would confirm it.
fn suspected<'v>(count: &Count<'v>, (ec2, subnets): &FromEc2<'v>) -> Tri<(Finding, Unknown)> {
    overdue(count).and_then(|(capacity, longest)| {
        if let Some(ec2) = count.ec2_explains_all(ec2, longest.waited) {
            return Tri::No(ec2.no());
        }
        if let Tri::Yes(exhausted) = subnets::of_branch_enis(count, subnets, longest.waited) {
            return Tri::No(exhausted.no());
        }
        let of_ec2 = count.leaked_by_ec2(ec2);
        let words = match (&of_ec2, of_cni(count)) {
            (_, Tri::Yes(_)) => String::new(),
            (Tri::Unknown(why), _) => format!("; EC2 can confirm a leak: {}", why.why),
            (Tri::Yes(leaked), _) => format!("; EC2 confirms a leak: {}", named(&leaked.ids)),
            (Tri::No(no), _) => format!("; EC2 listed no leaked ENI at {}", time(no.at().wall)),
        };
        let why = "only EC2, or a CNINode that lists branch ENIs, can confirm it";
        Tri::Yes((suspicion(count, capacity, longest, &words), Unknown::new(Cause::NotAsked, why)))
    })
}

fn suspicion(count: &Count<'_>, capacity: u64, longest: &Waiting<'_>, of_ec2: &str) -> Finding {
    let (pod, waited) = (longest.pod.full_name(), wording::duration(longest.waited));
    let explained = count.cooldown.as_ref().map_or_else(|_| String::new(), |c| wording::duration(longest_wait(*c)));
    let message = format!(
        "pod {pod} has waited {waited} for a branch ENI, longer than a cool-down explains ({explained}), although there is room; {}; \
         possible causes: the VPC resource controller has forgotten the pod, it counts leaked ENIs, or EC2 refuses the request{of_ec2}",
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
