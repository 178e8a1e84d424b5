//! CPU time of the pods, as their control groups count it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Inventory, Part, PodUid, Unknown};

/// What the limit of a group did since the group was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuLimit {
    /// The limit in force, in thousandths of a CPU (`cpu.max`; v1 `cpu.cfs_quota_us` and `cpu.cfs_period_us`).
    pub millis: u64,
    /// Periods (of 100 ms, as the kubelet sets them) in which the group had something to run (`nr_periods`).
    pub periods: u64,
    /// Of these, periods in which it had used up its limit and had to wait (`nr_throttled`).
    pub throttled: u64,
}

/// CPU time of one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodCpu {
    /// CPU time that it used since its group was made, in µs (`usage_usec` of `cpu.stat`; v1 `cpuacct.usage`).
    pub used_us: Part<u64>,
    /// Its own limit; absent where it has none.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub limit: Part<CpuLimit>,
    /// The limits of its containers by id, of those that have one or of which that could not be read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub containers: BTreeMap<String, Part<CpuLimit>>,
}

/// CPU time of all pods that have a group below `kubepods`.
pub type PodCpus = Inventory<PodUid, PodCpu>;

impl super::partial::ListEntry for PodCpu {
    fn unread(&self) -> Option<&Unknown> {
        let containers = || self.containers.values().find_map(Part::unread);
        self.used_us.unread().or_else(|| self.limit.unread()).or_else(containers)
    }
}
