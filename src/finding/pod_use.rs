//! The pods that run here with what they request and use, for `check --pods`, the page, JSON and metrics.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Kind;

/// The pods that run here, with what they use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodUse {
    /// The worst first, then by name.
    pub pods: Vec<PodRow>,
    /// What the pods that were watched for a day requested and never used; absent where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<PodDay>,
    /// Since when their use is watched without a gap; it begins again with the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched_since: Option<Timestamp>,
    /// Why nothing is known of the CPU that any of them uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_unknown: Option<String>,
    /// Pods that are not listed, as there are too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

impl PodUse {
    /// How many pods there are of which both is known, and what these request and use together, in bytes.
    #[must_use]
    pub fn totals(&self) -> (u64, u64, u64) {
        sums(self.pods.iter().map(|row| (row.request, row.used)))
    }

    /// The same of CPU, in thousandths of one. A pod that requests none requests 0.
    #[must_use]
    pub fn cpu_totals(&self) -> (u64, u64, u64) {
        sums(self.pods.iter().map(|row| (row.cpu_request_millis, row.cpu_used_millis)))
    }

    /// How many pods have a remark of each kind that any has.
    #[must_use]
    pub fn remarked(&self) -> BTreeMap<Kind, u64> {
        let mut counts: BTreeMap<Kind, u64> = BTreeMap::new();
        for row in &self.pods {
            let kinds: BTreeSet<Kind> = row.remarks.iter().map(|remark| remark.kind).collect();
            kinds.into_iter().for_each(|kind| *counts.entry(kind).or_default() += 1);
        }
        counts
    }
}

fn sums(pods: impl Iterator<Item = (Option<u64>, Option<u64>)>) -> (u64, u64, u64) {
    pods.filter_map(|(request, used)| request.zip(used)).fold((0, 0, 0), |(pods, requested, used), (request, use_)| {
        (pods.saturating_add(1), requested.saturating_add(request), used.saturating_add(use_))
    })
}

/// What the pods that were watched for a day requested and never used. Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodDay {
    /// How many there are.
    pub pods: u64,
    /// What they request together.
    pub requested: u64,
    /// What of that none of them used in any of the last 24 hours.
    pub never_used: u64,
    /// The same of CPU; absent where no pod's CPU was watched for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuDay>,
    /// What that is of the node; absent where `node_unknown` says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeWaste>,
    /// Why that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_unknown: Option<String>,
    /// The pods with the most that was never used, by its share of the price: five at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<PodWaste>,
}

/// CPU of the pods that were watched for a day, in thousandths of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuDay {
    /// How many there are.
    pub pods: u64,
    /// What they request together.
    pub requested_millis: u64,
    /// What of that none of them used in any minute of the last 24 hours.
    pub never_used_millis: u64,
}

/// What was never used, as a share of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeWaste {
    /// What the node has for pods: its allocatable memory, in bytes.
    pub memory_allocatable: u64,
    /// And its allocatable CPU, in thousandths of one.
    pub cpu_allocatable_millis: u64,
    /// What of that memory was never used although it is requested, in hundredths.
    pub memory_percent: u64,
    /// The same of CPU; absent where no pod's CPU was watched for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u64>,
    /// What both come to of the node's price, estimated, in hundredths; absent where that of CPU is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_percent: Option<u64>,
}

/// What one pod requested for a day and never used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodWaste {
    /// `namespace/name`
    pub name: String,
    /// Memory, in bytes; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// CPU, in thousandths of one; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
}

/// One pod: its memory in bytes, its CPU in thousandths of one, and what is worth knowing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRow {
    /// `namespace/name`
    pub name: String,
    /// What it requests, by the kubelet's sum; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
    /// Its working set; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// The limit of which least is left, that of the pod or of a container; absent where there is none or it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// What is left of that limit, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headroom: Option<u64>,
    /// The CPU that it requests, 0 where none; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_request_millis: Option<u64>,
    /// What it used between the last two samples; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_used_millis: Option<u64>,
    /// The limit that holds it back most, that of the pod or of a container; absent where there is none or it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_limit_millis: Option<u64>,
    /// In how many hundredths of the periods of the last hour that limit made it wait; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_throttled_percent: Option<u64>,
    /// What is worth knowing, the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<PodRemark>,
    /// Why it was not evaluated, or not wholly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// A remark on a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRemark {
    /// The kind that it is of.
    pub kind: Kind,
    /// What is so.
    pub text: Cow<'static, str>,
    /// By how much, for the order of pods.
    #[serde(skip)]
    pub weight: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}
