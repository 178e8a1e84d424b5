//! What the kubelet counts of its own work, by its answer to `GET /metrics`, and the lease by which it shows that it lives.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Part;

/// A kind of work: how often it was done, and how long that took together, since the kubelet was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// How often.
    pub count: u64,
    /// How long together, in seconds.
    pub seconds: f64,
}

impl Timing {
    /// What came since an earlier sample of the same process; none where a counter went backwards.
    #[must_use]
    pub fn since(&self, before: &Self) -> Option<Self> {
        let count = self.count.checked_sub(before.count)?;
        let seconds = self.seconds - before.seconds;
        (seconds >= 0.0).then_some(Self { count, seconds })
    }

    /// The average, in seconds; none of no work.
    #[must_use]
    pub fn average(&self) -> Option<f64> {
        (self.count > 0).then(|| self.seconds / self.count as f64)
    }

    /// Both together.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self { count: self.count.saturating_add(other.count), seconds: self.seconds + other.seconds }
    }
}

/// Calls of one sort to the container runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeCalls {
    /// Those that were answered (`kubelet_runtime_operations_duration_seconds`).
    pub answered: Timing,
    /// Those that failed (`kubelet_runtime_operations_errors_total`).
    pub failed: u64,
}

/// What is read of the kubelet's own metrics. No label but the names of the runtime's operations is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KubeletMetrics {
    /// When its process was started (`process_start_time_seconds`).
    pub started: Timestamp,
    /// Bytes of memory of its process (`process_resident_memory_bytes`).
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub resident: Part<u64>,
    /// `git_version` of `kubernetes_build_info`.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub version: Part<String>,
    /// When PLEG last had the whole list of containers (`kubelet_pleg_last_seen_seconds`).
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub pleg_seen: Part<Timestamp>,
    /// Relists of PLEG (`kubelet_pleg_relist_duration_seconds`).
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub relists: Part<Timing>,
    /// Updates of the statuses of pods (`kubelet_pod_status_sync_duration_seconds`).
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub status_updates: Part<Timing>,
    /// Requests that waited for the limit of the kubelet's own client (`rest_client_rate_limiter_duration_seconds`).
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub client_waits: Part<Timing>,
    /// Calls to the container runtime, by operation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runtime: BTreeMap<String, RuntimeCalls>,
}

/// A Lease in `kube-node-lease`: the kubelet renews it each 10 s.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLease {
    /// `spec.renewTime`, by the node's own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed: Option<Timestamp>,
    /// `spec.leaseDurationSeconds`, above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<u32>,
}

super::partial::read_whole!(KubeletMetrics);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_between_two_samples_and_not_over_a_restart() {
        let before = Timing { count: 10, seconds: 2.0 };
        let now = Timing { count: 14, seconds: 4.0 };
        let between = now.since(&before).unwrap();
        assert_eq!((between, between.average()), (Timing { count: 4, seconds: 2.0 }, Some(0.5)));
        assert_eq!((before.since(&now), Timing::default().average()), (None, None));
        assert_eq!(before.with(&now), Timing { count: 24, seconds: 6.0 });
        assert_eq!(Timing { count: 11, seconds: 1.0 }.since(&before), None);
    }
}
