//! What pods request and never used in a day, and what that is of the node.

use std::cmp::Reverse;
use std::time::Duration;

use crate::facts::{Cause, Node, NodeTime, Pod, PodCgroups, Pods, Unknown};
use crate::finding::{CpuDay, NodeWaste, PodDay, PodWaste};
use crate::view::input::{CpuSeen, CpuUse, Input, PeakMemory};
use crate::view::{CpuPeak, Peak, PodMemory, Seen};
use crate::wording::{bytes, cpus};

use super::pod_remarks::{self, is_settled, whole};
use super::victims::resources;

/// What decides.
pub type Sources = (pod_remarks::Sources, PeakMemory, CpuUse);

/// The same, as it was read.
#[derive(Clone, Copy)]
pub(super) struct Reads<'v> {
    pub pods: Seen<'v, Pods>,
    pub groups: Seen<'v, PodCgroups>,
    pub memory: &'v PodMemory,
    pub cpu: Result<CpuSeen<'v>, &'v Unknown>,
    pub now: NodeTime,
}

impl<'v> Reads<'v> {
    pub(super) fn of(((pods, groups), memory, cpu): <Sources as Input>::Of<'v>, now: NodeTime) -> Self {
        Self { pods, groups, memory, cpu, now }
    }
}

/// So long a pod must have been watched: the load of a day.
pub(super) const LEAST_WATCHED: Duration = Duration::from_secs(24 * 3600);
/// So much memory costs as much as one CPU: the ratio of what AWS asks for either in Fargate (Linux on x86 in us-east-1: 0.04048 USD for a vCPU and
/// 0.004445 USD for a GB, an hour each). EC2 has no price for either alone.
const MEMORY_OF_A_CPU: u64 = 9 << 30;
/// So many pods are named.
const MAX_NAMED: usize = 5;

/// What memory and CPU cost, in bytes of memory.
pub(super) fn price(memory: u64, cpu_millis: u64) -> u128 {
    let cpu = u128::from(cpu_millis).saturating_mul(u128::from(MEMORY_OF_A_CPU)) / 1000;
    cpu.saturating_add(u128::from(memory))
}

/// In hundredths, rounded down.
pub(super) fn percent(part: u128, whole: u128) -> u64 {
    let share = part.saturating_mul(100).checked_div(whole).unwrap_or_default();
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// What one pod requests and the most that it used, each where it was watched for a day.
struct Watched {
    memory: Option<(u64, Peak)>,
    cpu: Option<(u64, CpuPeak)>,
}

fn watched(pod: &Pod, reads: &Reads<'_>) -> Watched {
    let memory = || {
        let peak = reads.memory.of(pod.node_uid()).filter(|peak| peak.watched >= LEAST_WATCHED)?;
        Some((resources(pod).ok()?.memory, peak))
    };
    let cpu = || {
        let peak = reads.cpu.ok()?.uses.of(pod.node_uid()).filter(|peak| peak.watched >= LEAST_WATCHED)?;
        whole(pod, reads.groups.value).ok()?;
        Some((pod.requested_cpu().ok()?.unwrap_or_default(), peak))
    };
    if is_settled(pod, reads.now) != Ok(true) {
        return Watched { memory: None, cpu: None };
    }
    Watched { memory: memory(), cpu: cpu() }
}

/// What all pods that were watched for a day request and never used.
///
/// It is so much at least: pods that were not watched for so long are not in it, and the peaks of two pods need not come at the same time.
pub(super) fn day(reads: &Reads<'_>, node: Option<&Node>) -> PodDay {
    let (mut day, mut of_cpu, mut top) = (PodDay::default(), CpuDay::default(), Vec::new());
    for pod in reads.pods.value.values() {
        let Watched { memory, cpu } = watched(pod, reads);
        let unused_memory = memory.map(|(requested, peak)| {
            let unused = requested.saturating_sub(peak.bytes);
            day.pods = day.pods.saturating_add(1);
            day.requested = day.requested.saturating_add(requested);
            day.never_used = day.never_used.saturating_add(unused);
            unused
        });
        let unused_cpu = cpu.map(|(requested, peak)| {
            let unused = requested.saturating_sub(peak.millis);
            of_cpu.pods = of_cpu.pods.saturating_add(1);
            of_cpu.requested_millis = of_cpu.requested_millis.saturating_add(requested);
            of_cpu.never_used_millis = of_cpu.never_used_millis.saturating_add(unused);
            unused
        });
        let price = price(unused_memory.unwrap_or_default(), unused_cpu.unwrap_or_default());
        if price > 0 {
            let name = pod.full_name();
            top.push((Reverse(price), PodWaste { name, memory: unused_memory, cpu_millis: unused_cpu }));
        }
    }
    top.sort_by(|(a, of_a), (b, of_b)| (a, &of_a.name).cmp(&(b, &of_b.name)));
    day.top = top.into_iter().take(MAX_NAMED).map(|(_, waste)| waste).collect();
    day.cpu = Some(of_cpu).filter(|cpu| cpu.pods > 0);
    match of_node(&day, node) {
        Ok(waste) => day.node = Some(waste),
        Err(why) => day.node_unknown = Some(why.why),
    }
    if day.cpu.is_none() && day.node_unknown.is_none() {
        let why = match reads.cpu {
            Ok(_) => "a day is needed to say what CPU pods need",
            Err(why) => &why.why,
        };
        day.node_unknown = Some(why.to_owned());
    }
    day
}

/// What that is of the node.
fn of_node(day: &PodDay, node: Option<&Node>) -> Result<NodeWaste, Unknown> {
    let missing = |why: &str| Unknown::new(Cause::Missing, why);
    let node = node.ok_or_else(|| missing("this machine's Node was not read"))?;
    let all = *node.for_pods.needed(|| missing("the Node does not say how much memory and CPU it has for pods"))?;
    let cpu = day.cpu.map(|cpu| cpu.never_used_millis);
    Ok(NodeWaste {
        memory_allocatable: all.memory,
        cpu_allocatable_millis: all.cpu_millis,
        memory_percent: percent(day.never_used.into(), all.memory.into()),
        cpu_percent: cpu.map(|unused| percent(unused.into(), all.cpu_millis.into())),
        price_percent: cpu.map(|unused| percent(price(day.never_used, unused), price(all.memory, all.cpu_millis))),
    })
}

impl PodDay {
    /// The same in words.
    #[must_use]
    pub fn words(&self) -> String {
        let pods = crate::wording::of(self.pods, "pod that was", "pods that were");
        let share = percent(self.never_used.into(), self.requested.into());
        let (requested, never_used) = (bytes(self.requested), bytes(self.never_used));
        let memory = format!(
            "of the {requested} that {pods} watched for a day requested, {never_used} was never used ({share} %)"
        );
        let Some(CpuDay { requested_millis, never_used_millis, .. }) = self.cpu else { return memory };
        let share = percent(never_used_millis.into(), requested_millis.into());
        format!("{memory}, and of {} CPU {} ({share} %)", cpus(requested_millis), cpus(never_used_millis))
    }

    /// What that is of the node, in words.
    #[must_use]
    pub fn of_node(&self) -> String {
        let unknown = || self.node_unknown.as_deref().unwrap_or("it was not looked for");
        let Some(node) = self.node else { return format!("what that is of the node is not known: {}", unknown()) };
        let (memory, cpu) = (bytes(node.memory_allocatable), cpus(node.cpu_allocatable_millis));
        match (node.cpu_percent, node.price_percent) {
            (Some(of_cpu), Some(of_price)) => format!(
                "that is at least {} % of the {memory} and {of_cpu} % of the {cpu} CPU that the node has for pods, and about {of_price} % of its price \
                 (estimated: one CPU costs as much as {})",
                node.memory_percent,
                bytes(MEMORY_OF_A_CPU)
            ),
            _ => format!(
                "that is at least {} % of the {memory} that the node has for pods; what it is of its price is not known: {}",
                node.memory_percent,
                unknown()
            ),
        }
    }

    /// The pods with the most of it, in words; none where there is none.
    #[must_use]
    pub fn most(&self) -> Option<String> {
        let one = |waste: &PodWaste| {
            let memory = waste.memory.filter(|unused| *unused > 0).map(bytes);
            let cpu = waste.cpu_millis.filter(|unused| *unused > 0).map(|unused| format!("{} CPU", cpus(unused)));
            let both: Vec<_> = memory.into_iter().chain(cpu).collect();
            format!("{} ({})", waste.name, both.join(", "))
        };
        let named: Vec<_> = self.top.iter().map(one).collect();
        (!named.is_empty()).then(|| format!("most of it: {}", named.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{ForPods, Part};

    const GIB: u64 = 1 << 30;

    fn node(memory: u64, cpu_millis: u64) -> Node {
        Node { for_pods: Part::Known(ForPods { memory, cpu_millis }), ..Node::default() }
    }

    fn day_of(never_used: u64, cpu: Option<u64>) -> PodDay {
        let cpu = cpu.map(|millis| CpuDay { pods: 1, requested_millis: 4000, never_used_millis: millis });
        PodDay { pods: 1, requested: 8 * GIB, never_used, cpu, ..PodDay::default() }
    }

    /// m5.large-like: 4 CPUs count as 36 GiB, beside 12 GiB of memory.
    #[test]
    fn the_price_is_shared_by_the_documented_ratio() {
        let waste = of_node(&day_of(6 * GIB, Some(2000)), Some(&node(12 * GIB, 4000))).unwrap();
        assert_eq!((waste.memory_percent, waste.cpu_percent), (50, Some(50)));
        assert_eq!(waste.price_percent, Some(50));
        let memory_alone = of_node(&day_of(6 * GIB, Some(0)), Some(&node(12 * GIB, 4000))).unwrap();
        assert_eq!(memory_alone.price_percent, Some(12), "6 of 48");
        let all = of_node(&day_of(12 * GIB, Some(4000)), Some(&node(12 * GIB, 4000))).unwrap();
        assert_eq!(all.price_percent, Some(100));
    }

    #[test]
    fn without_cpu_or_node_no_share_of_the_price_is_named() {
        let waste = of_node(&day_of(6 * GIB, None), Some(&node(12 * GIB, 4000))).unwrap();
        assert_eq!((waste.memory_percent, waste.cpu_percent, waste.price_percent), (50, None, None));
        assert!(of_node(&day_of(1, None), None).unwrap_err().why.contains("was not read"));
        assert!(of_node(&day_of(1, None), Some(&Node::default())).unwrap_err().why.contains("does not say"));
        let unknown = PodDay { node: Some(waste), node_unknown: Some("why".into()), ..day_of(6 * GIB, None) };
        assert!(unknown.of_node().contains("price is not known: why") && !unknown.of_node().contains("CPU"));
        assert!(!unknown.words().contains("CPU"), "{}", unknown.words());
    }

    #[test]
    fn a_node_without_anything_for_pods_is_no_division() {
        let waste = of_node(&day_of(5, Some(5)), Some(&node(0, 0))).unwrap();
        assert_eq!((waste.memory_percent, waste.cpu_percent, waste.price_percent), (0, Some(0), Some(0)));
    }
}
