//! PodOverprovisioned: which pods request far more memory or CPU than they used in a day?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Cause, Cgroups, NodeTime, Pod, Tri, Unknown};
use crate::finding::Kind;
use crate::view::input::{Context, CpuSeen, Input};
use crate::view::{CpuPeak, Peak, PodMemory, sources};
use crate::wording::{bytes, cpus, duration};

use super::pod_remarks::{self, Found, Remarked, is_settled, used, whole};
use super::pod_waste::{LEAST_WATCHED, Reads, Sources, day, percent, price};
use super::victims::resources;

const KIND: Kind = Kind::PodOverprovisioned;

/// From so much memory on that was never used a request is far over use.
const LEAST_UNUSED: u64 = 256 << 20;
/// The same of CPU, in thousandths of one.
const LEAST_UNUSED_CPU: u64 = 250;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<PodOverprovisioned>();

struct PodOverprovisioned;

impl Detect for PodOverprovisioned {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Sources, Context<sources::Cgroups>, Context<sources::Node>);

    fn evaluate((read, cgroups, node): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let reads = Reads::of(read, around.now);
        let remarked = Remarked::of(reads.pods.value, |pod| decide(pod, &reads));
        remarked.decide(KIND, reads.groups.no(), out, |remarked| {
            let those = pod_remarks::pods(remarked.count(), "requests", "request");
            let day = day(&reads, node.name(|node| Some(node.value)));
            let message = format!(
                "{those} far more memory or CPU than any hour of a day shows in use: {}; {}",
                remarked.named(),
                day.words()
            );
            let groups = &reads.groups;
            let mut evidence = Remarked::of(reads.pods.value, |pod| of_memory(pod, &reads)).evidence(groups);
            if let Ok(cpu) = reads.cpu {
                evidence.extend(Remarked::of(reads.pods.value, |pod| of_cpu(pod, &reads)).evidence(&cpu.counts));
            }
            evidence.push(groups.says(watched(reads.memory, around.now)));
            evidence.extend(cgroups.evidence(|cgroups| {
                let limit = limit(cgroups.value)?;
                let share = percent(day.never_used.into(), limit.into());
                let all = format!("that is {share} % of the {} that pods may have together on this node", bytes(limit));
                Some(cgroups.says(all))
            }));
            evidence.push(groups.says(day.of_node()));
            evidence.extend(day.most().map(|most| groups.says(most)));
            (message, evidence)
        });
    }
}

/// What pods may have together.
fn limit(cgroups: &Cgroups) -> Option<u64> {
    cgroups.kubepods.as_ref()?.memory_max.seen().ok()?.copied()
}

fn watched(memory: &PodMemory, now: NodeTime) -> String {
    let since = memory.since().and_then(|since| now.since(&since)).unwrap_or_default();
    format!("pods have been watched for {} (their peak in each of the last 24 hours)", duration(since))
}

/// Whether a pod requests twice what it used at its peak, and much more than that: of memory or of CPU.
pub(super) fn decide(pod: &Pod, reads: &Reads<'_>) -> Tri<Found> {
    match (of_memory(pod, reads), of_cpu(pod, reads)) {
        (Tri::Yes(memory), Tri::Yes(cpu)) => Tri::Yes(Found {
            weight: memory.weight.saturating_add(cpu.weight),
            figures: format!("{}; {}", memory.figures, cpu.figures),
            texts: memory.texts.into_iter().chain(cpu.texts).collect(),
        }),
        (memory, cpu) => memory.or_else(|| cpu),
    }
}

fn of_memory(pod: &Pod, reads: &Reads<'_>) -> Tri<Found> {
    match far_over(pod, reads) {
        Ok(None) => Tri::No(reads.pods.no()),
        Ok(Some((request, peak))) if is_far(request, peak.bytes, LEAST_UNUSED) => {
            let unused = request.saturating_sub(peak.bytes);
            let watched = duration(peak.watched.min(LONGEST));
            Tri::Yes(Found {
                weight: unused,
                texts: vec![format!("{} of its request was never used in the last {watched}", bytes(unused)).into()],
                figures: format!("{} of {} requested", bytes(peak.bytes), bytes(request)),
            })
        }
        Ok(Some(_)) => Tri::No(reads.groups.no()),
        Err(why) => Tri::Unknown(why),
    }
}

fn of_cpu(pod: &Pod, reads: &Reads<'_>) -> Tri<Found> {
    match far_over_cpu(pod, reads) {
        Ok(Some((request, peak, _))) if is_far(request, peak.millis, LEAST_UNUSED_CPU) => {
            let unused = request.saturating_sub(peak.millis);
            let watched = duration(peak.watched.min(LONGEST));
            Tri::Yes(Found {
                weight: u64::try_from(price(0, unused)).unwrap_or(u64::MAX),
                texts: vec![format!("{} CPU of its request was never used in the last {watched}", cpus(unused)).into()],
                figures: format!("{} of {} CPU requested", cpus(peak.millis), cpus(request)),
            })
        }
        Ok(Some((_, _, cpu))) => Tri::No(cpu.counts.no()),
        Ok(None) => Tri::No(reads.pods.no()),
        Err(why) => Tri::Unknown(why),
    }
}

/// The hours that are kept.
const LONGEST: Duration = Duration::from_secs(25 * 3600);

fn is_far(request: u64, peak: u64, least: u64) -> bool {
    request / 2 >= peak && request.saturating_sub(peak) >= least
}

/// Whether a pod has run here for a day: a younger one has not shown the load of a day, whatever was watched.
fn has_shown_a_day(pod: &Pod, now: NodeTime) -> Result<bool, Unknown> {
    let is_young = pod.here_since().is_some_and(|since| {
        now.wall.as_second().saturating_sub(since.as_second()) < LEAST_WATCHED.as_secs().cast_signed()
    });
    Ok(is_settled(pod, now)? && !is_young)
}

fn unwatched(pod: &Pod, watched: Option<Duration>) -> Unknown {
    let why = format!(
        "{} has been watched for {}, and a day is needed to say what it needs (it begins again where the agent is restarted)",
        pod.full_name(),
        duration(watched.unwrap_or_default())
    );
    // No second sample of a check helps: this is none of those that wait for one.
    Unknown::new(Cause::Unsupported, why)
}

/// What memory a pod that has run for a day requests, and the most that it used.
fn far_over(pod: &Pod, reads: &Reads<'_>) -> Result<Option<(u64, Peak)>, Unknown> {
    let request = resources(pod)?.memory;
    if request < LEAST_UNUSED || !has_shown_a_day(pod, reads.now)? {
        return Ok(None);
    }
    let now_used = used(pod, reads.groups.value)?;
    // What it uses now is no more than its peak: no day is needed to see that its request is not far over that.
    if !is_far(request, now_used, LEAST_UNUSED) {
        return Ok(None);
    }
    match reads.memory.of(pod.node_uid()) {
        Some(peak) if peak.watched >= LEAST_WATCHED || !is_far(request, peak.bytes, LEAST_UNUSED) => {
            Ok(Some((request, peak)))
        }
        peak => Err(unwatched(pod, peak.map(|peak| peak.watched))),
    }
}

/// The same of CPU, with the counters that show it.
fn far_over_cpu<'v>(pod: &Pod, reads: &Reads<'v>) -> Result<Option<(u64, CpuPeak, CpuSeen<'v>)>, Unknown> {
    let request = pod.requested_cpu()?.unwrap_or_default();
    if request < LEAST_UNUSED_CPU || !has_shown_a_day(pod, reads.now)? {
        return Ok(None);
    }
    whole(pod, reads.groups.value)?;
    let cpu = reads.cpu.map_err(Clone::clone)?;
    match cpu.uses.of(pod.node_uid()) {
        Some(peak) if peak.watched >= LEAST_WATCHED || !is_far(request, peak.millis, LEAST_UNUSED_CPU) => {
            Ok(Some((request, peak, cpu)))
        }
        peak => Err(unwatched(pod, peak.map(|peak| peak.watched))),
    }
}
