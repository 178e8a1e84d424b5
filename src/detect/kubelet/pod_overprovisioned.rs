//! PodOverprovisioned: which pods request far more memory than they used in a day?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Cause, Cgroups, NodeTime, Pod, PodCgroups, Pods, Tri, Unknown};
use crate::finding::{Kind, PodDay};
use crate::view::input::{Context, Input, PeakMemory};
use crate::view::{Peak, PodMemory, Seen, sources};
use crate::wording::{bytes, duration};

use super::pod_remarks::{self, Found, Remarked, is_settled, used};
use super::victims::resources;

const KIND: Kind = Kind::PodOverprovisioned;

/// So long a pod must have been watched: the load of a day.
const LEAST_WATCHED: Duration = Duration::from_secs(24 * 3600);
/// From so much on that was never used a request is far over use.
const LEAST_UNUSED: u64 = 256 << 20;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<PodOverprovisioned>();

struct PodOverprovisioned;

impl Detect for PodOverprovisioned {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (pod_remarks::Sources, PeakMemory, Context<sources::Cgroups>);

    fn evaluate(
        ((pods, groups), memory, cgroups): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let remarked = Remarked::of(pods.value, |pod| decide(pod, &pods, &groups, memory, around.now));
        let day = day(pods.value, memory, around.now);
        remarked.decide(KIND, groups.no(), out, |remarked| {
            let those = pod_remarks::pods(remarked.count(), "requests", "request");
            let message = format!(
                "{those} far more memory than any hour of a day shows in use: {}; {}",
                remarked.named(),
                day.words()
            );
            let mut evidence = remarked.evidence(&groups);
            evidence.push(groups.says(watched(memory, around.now)));
            evidence.extend(cgroups.evidence(|cgroups| {
                let limit = limit(cgroups.value)?;
                let share = percent(day.never_used, limit);
                let all = format!("that is {share} % of the {} that pods may have together on this node", bytes(limit));
                Some(cgroups.says(all))
            }));
            (message, evidence)
        });
    }
}

/// What pods may have together.
fn limit(cgroups: &Cgroups) -> Option<u64> {
    cgroups.kubepods.as_ref()?.memory_max.seen().ok()?.copied()
}

/// What all pods that were watched for a day request and never used.
pub(super) fn day(pods: &Pods, memory: &PodMemory, now: NodeTime) -> PodDay {
    let mut day = PodDay::default();
    for pod in pods.values() {
        let (Ok(true), Ok(resources)) = (is_settled(pod, now), resources(pod)) else { continue };
        let Some(peak) = memory.of(pod.node_uid()).filter(|peak| peak.watched >= LEAST_WATCHED) else { continue };
        day.pods = day.pods.saturating_add(1);
        day.requested = day.requested.saturating_add(resources.memory);
        day.never_used = day.never_used.saturating_add(resources.memory.saturating_sub(peak.bytes));
    }
    day
}

impl PodDay {
    /// The same in words.
    #[must_use]
    pub fn words(&self) -> String {
        let pods = crate::wording::of(self.pods, "pod that was", "pods that were");
        let share = percent(self.never_used, self.requested);
        let (requested, never_used) = (bytes(self.requested), bytes(self.never_used));
        format!("of the {requested} that {pods} watched for a day requested, {never_used} was never used ({share} %)")
    }
}

fn watched(memory: &PodMemory, now: NodeTime) -> String {
    let since = memory.since().and_then(|since| now.since(&since)).unwrap_or_default();
    format!(
        "pods have been watched for {} (their peak in each of the last 24 hours); the price of the node is not known",
        duration(since)
    )
}

fn percent(part: u64, whole: u64) -> u64 {
    let share = u128::from(part).saturating_mul(100).checked_div(u128::from(whole)).unwrap_or_default();
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// Whether a pod requests twice what it used at its peak, and much in bytes.
pub(super) fn decide(
    pod: &Pod,
    pods: &Seen<'_, Pods>,
    groups: &Seen<'_, PodCgroups>,
    memory: &PodMemory,
    now: NodeTime,
) -> Tri<Found> {
    match far_over(pod, groups.value, memory, now) {
        Ok(None) => Tri::No(pods.no()),
        Ok(Some((request, peak))) if is_far(request, peak.bytes) => {
            let unused = request.saturating_sub(peak.bytes);
            let watched = duration(peak.watched.min(Duration::from_secs(25 * 3600)));
            Tri::Yes(Found {
                weight: unused,
                texts: vec![format!("{} of its request was never used in the last {watched}", bytes(unused)).into()],
                figures: format!("{} of {} requested", bytes(peak.bytes), bytes(request)),
            })
        }
        Ok(Some(_)) => Tri::No(groups.no()),
        Err(why) => Tri::Unknown(why),
    }
}

fn is_far(request: u64, peak: u64) -> bool {
    request / 2 >= peak && request.saturating_sub(peak) >= LEAST_UNUSED
}

/// What a pod that has run for a day requests, and the most that it used.
fn far_over(pod: &Pod, groups: &PodCgroups, memory: &PodMemory, now: NodeTime) -> Result<Option<(u64, Peak)>, Unknown> {
    let request = resources(pod)?.memory;
    if !is_settled(pod, now)? || request < LEAST_UNUSED {
        return Ok(None);
    }
    // A younger pod has not shown the load of a day, whatever was watched.
    let is_young = pod.here_since().is_some_and(|since| {
        now.wall.as_second().saturating_sub(since.as_second()) < LEAST_WATCHED.as_secs().cast_signed()
    });
    if is_young {
        return Ok(None);
    }
    let now_used = used(pod, groups)?;
    // What it uses now is no more than its peak: no day is needed to see that its request is not far over that.
    if !is_far(request, now_used) {
        return Ok(None);
    }
    match memory.of(pod.node_uid()) {
        Some(peak) if !is_far(request, peak.bytes) => Ok(Some((request, peak))),
        Some(peak) if peak.watched >= LEAST_WATCHED => Ok(Some((request, peak))),
        peak => {
            let watched = peak.map_or(Duration::ZERO, |peak| peak.watched);
            let why = format!(
                "{} has been watched for {}, and a day is needed to say what it needs (it begins again where the agent is restarted)",
                pod.full_name(),
                duration(watched)
            );
            // No second sample of a check helps: this is none of those that wait for one.
            Err(Unknown::new(Cause::Unsupported, why))
        }
    }
}
