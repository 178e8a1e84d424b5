//! BranchLinkMismatch: does a pod run whose branch ENI the host does not lead to it?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{BranchLinks, Cause, Lookup, Pod, PodPhase, PodVlan, Pods, Tri, Unknown};
use crate::finding::{Above, Finding, Kind, Severity};
use crate::view::Seen;
use crate::view::input::Input;

use super::branch::pod_object;
use super::vlan::{Damage, Here, Inputs, damage, here, vlan_of};

const KIND: Kind = Kind::BranchLinkMismatch;

/// Things that are named.
const NAMED: usize = 4;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<BranchLinkMismatch>();

struct BranchLinkMismatch;

impl Detect for BranchLinkMismatch {
    const KINDS: &'static [Kind] = &[KIND];
    type In = Inputs;

    fn evaluate(input: <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        let Here { pods, links, .. } = match here(input) {
            Ok(here) => here,
            Err(why) => return out.nothing(KIND, &why),
        };
        for pod in pods.value.values() {
            let decision = match vlan_of(pod) {
                Ok(None) => continue,
                Err(why) => Tri::Unknown(why.clone()),
                Ok(Some(_)) if !has_network(pod) => Tri::No(pods.no()),
                Ok(Some(vlan)) => {
                    out.ask(KIND, Lookup::BranchLinks);
                    decide(pod, vlan, &pods, links.seen())
                }
            };
            out.decide(KIND, || pod_object(pod), decision);
        }
        out.listed(KIND, pods.value.incomplete());
    }
}

/// Whether the CNI has made its network, and does not take it away.
fn has_network(pod: &Pod) -> bool {
    let is_taken_down = pod.network.sandbox.as_ref().is_some_and(|sandbox| sandbox.ready == Some(false));
    pod.phase == PodPhase::Running && pod.deleting.is_none() && !is_taken_down
}

fn decide(
    pod: &Pod,
    vlan: &PodVlan,
    pods: &Seen<'_, Pods>,
    links: Result<Seen<'_, BranchLinks>, &Unknown>,
) -> Tri<Raised> {
    // A kubelet that has not come up after a reboot leaves the status of before.
    let booted = pods.at.wall_at(Duration::ZERO);
    if pod.changed.is_some_and(|changed| changed < booted) {
        let why = format!(
            "the status of pod {} is of an earlier boot: its containers were started before this one",
            pod.full_name()
        );
        return Tri::Unknown(Unknown::new(Cause::Stale, why));
    }
    let has_same = |other: &Pod| {
        let other_vlan = vlan_of(other).ok().flatten();
        other.uid != pod.uid && has_network(other) && other_vlan.is_some_and(|other| other.vlan == vlan.vlan)
    };
    let other = pods.value.values().find(|other| has_same(other));
    // Of two pods with one VLAN each has the other's trouble.
    let first = other.filter(|other| other.full_name() < pod.full_name());
    let follows = first.map(|first| Above::of(KIND, pod_object(first)));
    let double = other.map(|other| {
        let what = format!("pod {} has the same VLAN", other.full_name());
        Damage { evidence: pods.says(format!("pod {} names VLAN {}", other.full_name(), vlan.vlan)), what }
    });
    let damaged = match links {
        Err(why) => Tri::Unknown(why.clone()),
        Ok(links) => damage(pod, vlan, &links),
    };
    let decision = match (double, damaged) {
        (Some(double), Tri::Yes(all)) => {
            Tri::Yes(finding(pod, vlan, pods, std::iter::once(double).chain(all).collect()))
        }
        (Some(double), _) => Tri::Yes(finding(pod, vlan, pods, vec![double])),
        (None, damaged) => damaged.map(|all| finding(pod, vlan, pods, all)),
    };
    decision.map(|finding| Raised { follows: follows.into_iter().collect(), ..finding.into() })
}

fn finding(pod: &Pod, vlan: &PodVlan, pods: &Seen<'_, Pods>, all: Vec<Damage>) -> Finding {
    let named: Vec<&str> = all.iter().take(NAMED).map(|damage| damage.what.as_str()).collect();
    let more = if all.len() > NAMED { ", …" } else { "" };
    let name = pod.full_name();
    let expected = format!("pod {name} names VLAN {} with the MAC address {}", vlan.vlan, vlan.mac);
    let message = format!(
        "pod {name} runs, and its branch ENI (VLAN {}) does not reach it as it should: {}{more}",
        vlan.vlan,
        named.join(", ")
    );
    let evidence =
        std::iter::once(pods.says(expected)).chain(all.into_iter().take(NAMED).map(|damage| damage.evidence));
    Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: pod_object(pod),
        message,
        evidence: evidence.collect(),
        advice: crate::catalogue::row(KIND).remediation.clone(),
    }
}
