//! The container runtime, as the kubelet's calls find it.

use std::time::Duration;

use crate::facts::{KubeletMetrics, RuntimeCalls, Timing, Tri, Unknown};
use crate::finding::{Finding, Severity};
use crate::view::input::{KnownPair, Paired};
use crate::wording::number;

use super::{before, finding, seconds};

/// Calls that only look: a healthy runtime answers them within some milliseconds. The kubelet makes some each second.
const QUICK: [&str; 8] = [
    "container_status",
    "image_status",
    "list_containers",
    "list_images",
    "list_podsandbox",
    "podsandbox_status",
    "status",
    "version",
];
/// An average of so many seconds is slow.
const SLOW: f64 = 1.0;
/// After so long without an answer the kubelet waits for one.
const SILENT: Duration = Duration::from_secs(50);
/// So many failures are no accident.
const FAILURES: u64 = 3;

pub(super) fn decide(metrics: &KnownPair<'_, KubeletMetrics>) -> Tri<Finding> {
    let metrics = metrics.seen().map_err(Clone::clone);
    metrics.and_then(|metrics| measured(&metrics)).unwrap_or_else(Tri::Unknown)
}

/// What quick calls came to between two samples, and in which time.
pub(super) fn quick(metrics: &Paired<'_, KubeletMetrics>) -> Result<(RuntimeCalls, Duration), Unknown> {
    let (before, over) = before(metrics)?;
    let mut all = RuntimeCalls::default();
    for name in QUICK {
        // An operation has series from its first call on.
        let Some(now) = metrics.now.value.runtime.get(name) else { continue };
        let earlier = before.runtime.get(name).copied().unwrap_or_default();
        let baseline = || Unknown::baseline("kubelet_runtime_operations_duration_seconds");
        let answered = now.answered.since(&earlier.answered).ok_or_else(baseline)?;
        let failed = now.failed.checked_sub(earlier.failed).ok_or_else(baseline)?;
        all = RuntimeCalls { answered: all.answered.with(&answered), failed: all.failed.saturating_add(failed) };
    }
    Ok((all, over))
}

/// The average of them, where that is slow.
pub(super) fn slow(answered: &Timing) -> Option<f64> {
    answered.average().filter(|average| *average >= SLOW)
}

fn measured(metrics: &Paired<'_, KubeletMetrics>) -> Result<Tri<Finding>, Unknown> {
    let (RuntimeCalls { answered, failed }, over) = quick(metrics)?;
    let over = (over, crate::wording::duration(over));
    let message = match slow(&answered) {
        Some(average) => format!(
            "the container runtime takes {} to answer the kubelet's calls that only look: pods start, end and are listed that slowly",
            seconds(average)
        ),
        None if answered.count == 0 && over.0 >= SILENT => {
            format!("the container runtime has answered none of the kubelet's calls for {}", over.1)
        }
        None if failed >= FAILURES && failed >= answered.count / 2 => format!(
            "the container runtime fails the kubelet's calls that only look: {failed} of {} in {}",
            answered.count, over.1
        ),
        None => return Ok(Tri::No(metrics.now.no())),
    };
    let evidence = metrics.now.says(format!(
        "{} of list, status and version took {} together in {}; {failed} failed",
        number(answered.count, "call"),
        seconds(answered.seconds),
        over.1
    ));
    Ok(Tri::Yes(finding("runtime", Severity::Warning, message, vec![evidence])))
}
