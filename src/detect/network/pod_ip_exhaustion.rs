//! PodIpExhaustion: does a pod wait for its network while the VPC CNI has no free address?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Cause, Lookup, Mounts, NodeTime, Pod, PodAddresses, PodPhase, Pods, Tri, Unknown};
use crate::finding::{Finding, FindingKey, Kind, Object, Severity};
use crate::view::input::{Asked, Cites, Input, Known, Maybe, Required};
use crate::view::{Seen, sources};
use crate::wording;

use super::branch::waited;
use super::subnets::{self, Exhausted, SubnetAnswers};
use super::waiting::has_volumes;

const KIND: Kind = Kind::PodIpExhaustion;

/// The CNI gives an address within seconds; a pod that has no sandbox for longer may wait for one, or for its volumes.
const SOON: Duration = Duration::from_secs(60);

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<PodIpExhaustion>();

struct PodIpExhaustion;

impl Detect for PodIpExhaustion {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        Required<sources::Pods>,
        Maybe<sources::PodAddresses>,
        Maybe<sources::Mounts>,
        Cites<Asked<sources::Ec2Subnets>>,
    );

    fn evaluate(
        (pods, addresses, mounts, subnets): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let (mut waiting, unread) = waiting(&pods, &mounts, around.now);
        if !waiting.is_empty() {
            out.ask(KIND, Lookup::PodAddresses);
            // Where the CNI names the pod, the pod has its address, and waits for its first image.
            let named = addresses.seen().ok().map(|seen| &seen.value.pods);
            waiting.retain(|pod| named.is_none_or(|named| !named.contains(&pod.full_name())));
        }
        let decision = match (waiting.first(), unread) {
            (Some(longest), _) => {
                let lacks = lacks(&addresses);
                if let Tri::Yes(_) = lacks {
                    out.ask(KIND, Lookup::Ec2Subnets);
                }
                let exhausted = exhausted(&addresses, &subnets, (waited(longest, around.now), around.now));
                lacks.map(|seen| finding(&pods, &seen, (longest, waiting.len() as u64), around.now, exhausted))
            }
            (None, Some(why)) => Tri::Unknown(why),
            (None, None) => Tri::No(pods.no()),
        };
        out.decide(KIND, Object::node, decision);
    }
}

/// Pods that may wait for an address, the longest wait first, and why there may be others. One that requests a branch ENI waits for that,
/// and one whose volumes are not mounted yet does not ask for an address.
fn waiting<'v>(pods: &Seen<'v, Pods>, mounts: &Known<'_, Mounts>, now: NodeTime) -> (Vec<&'v Pod>, Option<Unknown>) {
    let mut unread = pods.value.incomplete().cloned();
    let mut waiting = Vec::new();
    for pod in pods.value.values().filter(|pod| may_wait(pod) && waited(pod, now) >= SOON) {
        match pod.network.requests.seen() {
            Ok(Some(_)) => {}
            Ok(None) => match has_volumes(pod, mounts, pod.as_ref()) {
                Tri::Yes(pod) => waiting.push(pod),
                Tri::No(_) => {}
                Tri::Unknown(why) => unread = unread.or(Some(why)),
            },
            Err(why) => unread = unread.or_else(|| Some(why.clone())),
        }
    }
    waiting.sort_by_key(|pod| std::cmp::Reverse(waited(pod, now)));
    (waiting, unread)
}

/// Kubelets before 1.29 do not say whether a sandbox is ready.
fn may_wait(pod: &Pod) -> bool {
    let is_ready = pod.network.sandbox.as_ref().is_some_and(|sandbox| sandbox.ready == Some(true));
    let needs_one = !pod.network.has_address && !pod.network.of_host;
    pod.phase == PodPhase::Pending && pod.deleting.is_none() && !is_ready && needs_one
}

/// Yes where the CNI has not one address to give.
fn lacks<'v>(addresses: &Known<'v, PodAddresses>) -> Tri<Seen<'v, PodAddresses>> {
    match addresses.seen() {
        Err(why) => Tri::Unknown(why.clone()),
        Ok(seen) if seen.value.free() == 0 => Tri::Yes(seen),
        Ok(seen) => Tri::No(seen.no()),
    }
}

/// The finding that a pod's wait follows from, where it is raised.
pub(super) fn above(addresses: &Known<'_, PodAddresses>, waited: Duration) -> Tri<FindingKey, ()> {
    match lacks(addresses) {
        Tri::Yes(_) if waited >= SOON => Tri::Yes(FindingKey { kind: KIND, object: Object::node() }),
        Tri::Yes(_) | Tri::No(_) => Tri::No(()),
        // Where it cannot be known it explains nothing.
        Tri::Unknown(why) if why.cause == Cause::Unsupported => Tri::No(()),
        Tri::Unknown(why) => Tri::Unknown(why),
    }
}

/// The subnets, where these keep the CNI from more addresses.
pub(super) fn exhausted<'v>(
    addresses: &Known<'v, PodAddresses>,
    subnets: &SubnetAnswers<'v>,
    at: (Duration, NodeTime),
) -> Option<Exhausted<'v>> {
    let Tri::Yes(addresses) = lacks(addresses) else { return None };
    match subnets::of_cni(addresses.value, subnets, at) {
        Tri::Yes(exhausted) => Some(exhausted),
        Tri::No(_) | Tri::Unknown(_) => None,
    }
}

fn finding(
    pods: &Seen<'_, Pods>,
    addresses: &Seen<'_, PodAddresses>,
    (longest, count): (&Pod, u64),
    now: NodeTime,
    exhausted: Option<Exhausted<'_>>,
) -> Finding {
    let PodAddresses { total, assigned, cooling, interfaces, .. } = *addresses.value;
    let (pod, wait) = (longest.full_name(), wording::duration(waited(longest, now)));
    // A pod without claims may also wait for a ConfigMap or an image volume: its status does not say.
    let waits = wording::of(count, "pod may wait", "pods may wait");
    let of = format!("of {total} addresses on {} {assigned} are assigned", wording::number(interfaces, "interface"));
    let cause = exhausted.as_ref().map(|exhausted| format!("; {}, which keeps it from more", exhausted.words()));
    let message = format!(
        "{waits} for an address ({pod} for {wait}), and the VPC CNI has none to give: {of}, {}{}",
        wording::of(cooling, "cools down", "cool down"),
        cause.unwrap_or_default()
    );
    let object = Object { pod: Some(longest.node_uid().clone()), ..Object::node() };
    let mut evidence = vec![
        addresses.says(format!("ipamd: {of}, and {cooling} were given back within 30 s")),
        pods.says(format!("pod {pod} is Pending, and its sandbox is not ready")),
    ];
    evidence.extend(exhausted.map(|exhausted| exhausted.evidence()));
    let advice = crate::catalogue::row(KIND).remediation.clone();
    Finding { kind: KIND, severity: Severity::Warning, object, message, evidence, advice }
}
