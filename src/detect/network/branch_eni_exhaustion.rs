//! BranchEniExhaustion: must pods wait for a branch ENI?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{Cause, FieldWriter, Lookup, POD_ENI, Tri, Unknown};
use crate::finding::{Evidence, Finding, FindingKey, Kind, Object, Severity};
use crate::view::input::{Asked, Cites, Input};
use crate::view::sources;

use super::branch::{Count, Inputs, cannot_trunk};
use super::subnets::{self, SubnetAnswers};

const KIND: Kind = Kind::BranchEniExhaustion;

/// The trunk of a new node is attached within minutes.
const TRUNK_WITHIN: Duration = Duration::from_secs(600);

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<BranchEniExhaustion>();

struct BranchEniExhaustion;

impl Detect for BranchEniExhaustion {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Inputs, Cites<Asked<sources::Ec2Subnets>>);

    fn evaluate((input, subnets): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        match Count::of(input, around.now) {
            Ok(count) => {
                let decision = decide(&count);
                let waits_too_long =
                    count.capacity.is_some_and(|enis| enis > 0) && matches!(count.overdue(), Ok(Some(_)));
                // What cools down explains a shorter wait.
                if waits_too_long && matches!(decision, Tri::Yes(_)) {
                    out.ask(KIND, Lookup::Ec2Subnets);
                }
                out.decide(KIND, Object::node, decision.map(|raised| with_subnet(raised, &count, &subnets)));
            }
            Err(why) => out.nothing(KIND, &why),
        }
    }
}

/// With the subnet, where that has no address left for the pods that wait.
fn with_subnet<'v>(mut raised: Raised, count: &Count<'v>, subnets: &SubnetAnswers<'v>) -> Raised {
    let longest = count.waiting.first().filter(|_| count.capacity.is_some_and(|enis| enis > 0));
    let exhausted = longest.map(|longest| subnets::of_branch_enis(count, subnets, longest.waited));
    if let Some(Tri::Yes(exhausted)) = exhausted {
        raised.finding.message.push_str(&format!("; {}, so the controller can make none", exhausted.words()));
        raised.finding.evidence.push(exhausted.evidence());
    }
    raised
}

/// The finding that others follow from, where it is raised.
pub(super) fn above(count: &Count<'_>) -> Tri<FindingKey, ()> {
    match decide(count) {
        Tri::Yes(_) => Tri::Yes(FindingKey { kind: KIND, object: Object::node() }),
        Tri::No(_) => Tri::No(()),
        Tri::Unknown(why) => Tri::Unknown(why),
    }
}

fn decide(count: &Count<'_>) -> Tri<Raised> {
    match (count.capacity, count.allocatable) {
        (None, _) => without_capacity(count),
        (Some(0), _) | (_, Some(0)) => Tri::Yes(at_zero(count).into()),
        (Some(capacity), _) => shortage(count, capacity),
    }
}

/// The VPC CNI asked for branch ENIs, and the Node offers none.
fn without_capacity(count: &Count<'_>) -> Tri<Raised> {
    if cannot_trunk(count.node.value) {
        return Tri::No(count.node.no());
    }
    let age = count.node.value.created.and_then(|at| Duration::try_from(count.now.wall.duration_since(at)).ok());
    match age {
        Some(age) if age >= TRUNK_WITHIN => {
            let message = format!(
                "the CNINode asks for security groups for pods, and the Node does not offer {POD_ENI}, so such pods are not placed \
                 here: the controller attaches a trunk where there is a free place for an interface, an address in the subnet, \
                 the right to do so, and a type that can"
            );
            let evidence = vec![count.node.says(format!("its capacity lacks {POD_ENI}"))];
            Tri::Yes(finding(Severity::Info, message, evidence).into())
        }
        Some(_) => Tri::No(count.node.no()),
        None => Tri::Unknown(Unknown::new(Cause::Missing, "the Node does not say when it was created")),
    }
}

fn at_zero(count: &Count<'_>) -> Finding {
    let amount = |of: Option<u64>| of.map_or("absent".to_owned(), |enis| enis.to_string());
    let (capacity, allocatable) = (amount(count.capacity), amount(count.allocatable));
    let running = match count.held {
        0 => String::new(),
        held => format!("; a restart of the kubelet before it is back fails the pods that run with {held} branch ENIs"),
    };
    // What the kubelet copies to allocatable says nothing of the capacity.
    let (written, of_writer) = if count.capacity == Some(0) { writer(count) } else { Default::default() };
    let message = format!(
        "{POD_ENI} is 0 on the Node (capacity {capacity}, allocatable {allocatable}){written}: a pod that requests one fails \
         as OutOf{POD_ENI} when it reaches the kubelet{running}"
    );
    let mut evidence = vec![count.node.says(format!("{POD_ENI}: capacity {capacity}, allocatable {allocatable}"))];
    evidence.extend(of_writer);
    finding(Severity::Warning, message, evidence)
}

/// Who wrote the capacity and when, in words; and as evidence, or why that is not known.
fn writer(count: &Count<'_>) -> (String, Option<Evidence>) {
    match count.node.value.pod_eni_writer.seen() {
        Err(why) => (String::new(), Some(count.node.says(format!("who wrote the capacity is not known: {}", why.why)))),
        Ok(None) => (String::new(), None),
        Ok(Some(writer)) => {
            let FieldWriter { manager, at, is_only } = &**writer;
            let when = at.map(|at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
            let when = match (when, is_only) {
                (Some(when), true) => format!(" at {when}"),
                (Some(when), false) => format!(" at {when} or before"),
                (None, _) => String::new(),
            };
            let says = count.node.says(format!("managedFields: {manager} wrote the capacity{when}"));
            (format!(", as {manager} wrote{when}"), Some(says))
        }
    }
}

fn shortage(count: &Count<'_>, capacity: u64) -> Tri<Raised> {
    if count.waiting.is_empty() {
        return before_pods_wait(count, capacity);
    }
    count.lacks_some(capacity).map(|()| waiting(count, capacity))
}

/// Whether the scheduler may place pods here that would have to wait.
fn before_pods_wait(count: &Count<'_>, capacity: u64) -> Tri<Raised> {
    let (least, most) = count.free(capacity);
    let may_come = count.allocatable.unwrap_or(capacity).saturating_sub(count.requested);
    if may_come == 0 || least > 0 {
        return count.unread.clone().map_or(Tri::No(count.pods.no()), Tri::Unknown);
    }
    if most > 0 {
        // What finished pods may hold is said once a pod waits.
        return count.others.clone().map_or(Tri::No(count.pods.no()), Tri::Unknown);
    }
    let message = format!(
        "the next pod that requests a branch ENI waits, and the scheduler may place {may_come} here; {}",
        count.words(capacity)
    );
    Tri::Yes(finding(Severity::Info, message, evidence(count, capacity)).into())
}

fn waiting(count: &Count<'_>, capacity: u64) -> Raised {
    let served = count
        .served_by(capacity)
        .map(|by| format!("; ENIs that cool down are free for them by {by}"))
        .unwrap_or_default();
    let cause = cause(count, capacity);
    let (severity, severity_unknown, words) = match cause {
        Tri::Yes(words) => (Severity::Warning, None, words),
        Tri::No(()) => (Severity::Info, None, ""),
        Tri::Unknown(why) => (Severity::Info, Some(why), ""),
    };
    let message = format!("{}; {}{served}{words}", count.waiting_words(), count.words(capacity));
    let mut finding = finding(severity, message, evidence(count, capacity));
    // Its owner gets an event, too: the controller writes none.
    finding.object.pod = count.waiting.first().map(|longest| longest.pod.node_uid().clone());
    Raised { severity_unknown, ..finding.into() }
}

/// What holds the ENIs, where pods have waited for longer than a cool-down explains. What it explains is information, however
/// long it goes on.
fn cause(count: &Count<'_>, capacity: u64) -> Tri<&'static str, ()> {
    match count.overdue() {
        Err(why) => return Tri::Unknown(why),
        Ok(None) => return Tri::No(()),
        Ok(Some(_)) => {}
    }
    if count.held >= capacity {
        return Tri::Yes("; running pods hold all of them");
    }
    if count.possible() == 0 {
        return Tri::No(());
    }
    match count.had_room(capacity) {
        Tri::Yes(()) => Tri::Yes(
            "; a cool-down does not explain it: a controller before 1.1 keeps the ENIs of completed pods until these are deleted",
        ),
        Tri::No(_) => Tri::No(()),
        Tri::Unknown(why) => Tri::Unknown(why),
    }
}

fn evidence(count: &Count<'_>, capacity: u64) -> Vec<Evidence> {
    const NAMED: usize = 4;
    let mut evidence = vec![
        count.node.says(format!("{POD_ENI}: capacity {capacity}")),
        count.pods.says(format!("running pods name {} branch ENIs, pods request {}", count.held, count.requested)),
    ];
    for finished in count.finished.iter().take(NAMED) {
        let (pod, enis) = (finished.pod.full_name(), finished.enis.join(", "));
        evidence.push(count.pods.says(format!("pod {pod} has finished, and its annotation names {enis}")));
    }
    evidence.extend(count.others.as_ref().map(|why| count.pods.says(why.why.clone())));
    evidence
}

fn finding(severity: Severity, message: String, evidence: Vec<Evidence>) -> Finding {
    let advice = crate::catalogue::row(KIND).remediation.clone();
    Finding { kind: KIND, severity, object: Object::node(), message, evidence, advice }
}
