//! EvictionCannotSaveNode: does memory run out before the kubelet can see it?
//!
//! Two signals could be met first. `memory.available` is what the kubelet takes for free: page cache and anonymous memory of
//! the whole machine count as used, other memory of the kernel does not. `allocatableMemory.available` is what is left below
//! the limit of kubepods: what stands outside the pods beyond what is reserved for it takes the memory that the limit promises.

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{
    Cause, Cgroups, EvictionSignal as Signal, Limits, MemInfo, MemoryReservation, MemoryUse, PodCgroups, Qos, Tri,
    Unknown,
};
use crate::finding::{Evidence, Finding, Kind, Object, Severity};
use crate::view::input::{Input, Known, Maybe, Required};
use crate::view::{Seen, sources};
use crate::wording::bytes;

use super::in_force::{Hardness, InForce, in_force};

const KIND: Kind = Kind::EvictionCannotSaveNode;

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<EvictionCannotSaveNode>();

struct EvictionCannotSaveNode;

impl Detect for EvictionCannotSaveNode {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        Required<sources::MemInfo>,
        Required<sources::Cgroups>,
        Maybe<sources::Limits>,
        Maybe<sources::PodCgroups>,
        InForce<'static>,
    );

    fn evaluate(
        (memory, cgroups, limits, pods, in_force): <Self::In as Input>::Of<'_>,
        _: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let machine = Machine { memory, cgroups, limits, pods, in_force };
        let of_node: Tri<NodeSignal> = machine.node_signal().into();
        let decision = of_node.and(|| machine.pods_signal().into());
        let decision = decision.map(|(node, pods)| machine.finding(&node, &pods));
        out.decide(KIND, Object::node, decision);
    }
}

/// What both inequalities rest on.
struct Machine<'v> {
    memory: Seen<'v, MemInfo>,
    cgroups: Seen<'v, Cgroups>,
    limits: Known<'v, Limits>,
    pods: Known<'v, PodCgroups>,
    in_force: InForce<'v>,
}

/// `memory.available` is above its threshold when memory has run out.
struct NodeSignal {
    /// The higher one of its thresholds; absent where it has none.
    threshold: Option<u64>,
    /// What the kubelet still takes for available then.
    left: u64,
}

/// `allocatableMemory.available` is above its threshold when memory has run out.
enum PodsSignal {
    /// There is no such signal.
    Absent(&'static str),
    /// More is used outside the pods than the reservation and the threshold leave for it.
    TooLate(Outside),
}

const NO_THRESHOLD: &str =
    "allocatableMemory.available is without a threshold: pods that reach the limit of kubepods first are killed there";
const NO_LIMIT: &str = "kubepods is without a memory limit, as node allocatable is not enforced";

/// What stands outside the pods, in bytes.
#[derive(Clone, Copy)]
struct Outside {
    /// What services and the kernel use, without what the kernel gives back.
    used: u64,
    /// What the kernel keeps free.
    min_free: u64,
    /// kubeReserved and systemReserved: what the limit of kubepods leaves.
    reserved: u64,
    /// The threshold of the signal.
    threshold: u64,
}

impl Outside {
    /// What must be reserved so that the signal is met before memory runs out.
    fn needed(&self) -> u64 {
        self.used.saturating_add(self.min_free).saturating_sub(self.threshold)
    }

    fn is_too_much(&self) -> bool {
        self.needed() > self.reserved
    }
}

/// Memory of the kernel that the kubelet takes for available and that no reclaim gives back.
fn unreclaimable(memory: &MemInfo, used: &MemoryUse) -> u64 {
    let counted = [memory.free, used.buffers, used.cached, used.anon, used.slab_reclaimable];
    counted.into_iter().fold(memory.total, u64::saturating_sub)
}

impl Machine<'_> {
    fn used_for(&self) -> Result<&MemoryUse, Unknown> {
        let missing = || Unknown::new(Cause::Unsupported, "/proc/meminfo does not say what memory is used for");
        self.memory.value.used_for.needed(missing)
    }

    /// What the cache of ZFS gives back when memory runs out: no line of `/proc/meminfo` has it.
    fn arc(&self) -> Result<u64, Unknown> {
        Ok(self.memory.value.arc.seen()?.copied().unwrap_or_default())
    }

    fn min_free(&self) -> Result<u64, Unknown> {
        let missing = || Unknown::new(Cause::Unsupported, "the kernel does not show vm.min_free_kbytes");
        Ok(*self.limits.seen()?.value.min_free.needed(missing)?)
    }

    /// Page cache that the kubelet takes for available and that the kernel keeps: `memory.min` of Guaranteed pods.
    fn kept_cache(&self) -> Result<u64, Unknown> {
        match self.in_force.config.seen()?.value.options.memory_reservation.seen()? {
            None | Some(MemoryReservation::None) => return Ok(0),
            Some(MemoryReservation::Tiered) => {}
        }
        let pods = self.pods.seen()?;
        if let Some(why) = pods.value.incomplete() {
            return Err(why.clone());
        }
        let guaranteed = pods.value.values().filter(|pod| pod.qos == Qos::Guaranteed);
        guaranteed
            .map(|pod| &pod.cgroup.inactive_file)
            .try_fold(0u64, |sum, cache| Ok(sum.saturating_add(cache.seen()?.copied().unwrap_or_default())))
    }

    /// Whether memory runs out before `memory.available` is met.
    fn node_signal(&self) -> Result<Tri<NodeSignal>, Unknown> {
        let capacity = self.memory.value.total;
        let of = |hardness| -> Result<Option<u64>, Unknown> {
            Ok(self.in_force.of(hardness, Signal::Memory)?.and_then(|threshold| in_force(threshold.value, capacity)))
        };
        let threshold = of(Hardness::Hard)?.max(of(Hardness::Soft)?);
        let huge_pages = self.in_force.huge_pages(self.memory.value)?;
        let unreclaimable = unreclaimable(self.memory.value, self.used_for()?).saturating_sub(huge_pages);
        let unreclaimable = unreclaimable.saturating_sub(self.arc()?);
        let left = [self.min_free()?, self.kept_cache()?].into_iter().fold(unreclaimable, u64::saturating_add);
        if threshold.is_some_and(|threshold| left <= threshold) {
            return Ok(Tri::No(self.memory.no()));
        }
        Ok(Tri::Yes(NodeSignal { threshold, left }))
    }

    /// Whether memory runs out before `allocatableMemory.available` is met.
    fn pods_signal(&self) -> Result<Tri<PodsSignal>, Unknown> {
        let Some(threshold) = self.in_force.of(Hardness::Hard, Signal::AllocatableMemory)? else {
            return Ok(Tri::Yes(PodsSignal::Absent(NO_THRESHOLD)));
        };
        let missing = || {
            Unknown::new(Cause::Missing, "the kubepods control group is not there: a kubelet has not started pods here")
        };
        let kubepods = self.cgroups.value.kubepods.as_ref().ok_or_else(missing)?;
        let Some(limit) = kubepods.memory_max.seen()? else {
            return Ok(Tri::Yes(PodsSignal::Absent(NO_LIMIT)));
        };
        let no_figure = || Unknown::new(Cause::Missing, "kubepods is without a figure of its memory in use");
        let (pods, pods_give) = (kubepods.memory.needed(no_figure)?, kubepods.reclaimable.needed(no_figure)?);
        let memory = self.memory.value;
        let others_give = self.used_for()?.reclaimable().saturating_sub(*pods_give);
        let used = [memory.free, *pods, others_give, self.arc()?].into_iter().fold(memory.total, u64::saturating_sub);
        let outside = Outside {
            used: used.saturating_add(self.kept_cache()?),
            min_free: self.min_free()?,
            reserved: memory.total.saturating_sub(*limit),
            threshold: in_force(threshold.value, *limit).unwrap_or_default(),
        };
        Ok(if outside.is_too_much() { Tri::Yes(PodsSignal::TooLate(outside)) } else { Tri::No(self.cgroups.no()) })
    }

    fn finding(&self, node: &NodeSignal, pods: &PodsSignal) -> Finding {
        let left = bytes(node.left);
        let first = match node.threshold {
            Some(threshold) => format!(
                "memory.available is still {left} when memory has run out, above its threshold of {}",
                bytes(threshold)
            ),
            None => "memory.available is without a threshold".to_owned(),
        };
        let second = match pods {
            PodsSignal::Absent(why) => (*why).to_owned(),
            PodsSignal::TooLate(outside) => format!(
                "{} are used outside the pods and {} reserved for it: kubeReserved and systemReserved must be at least {} together",
                bytes(outside.used),
                bytes(outside.reserved),
                mebibytes(outside.needed())
            ),
        };
        Finding {
            kind: KIND,
            severity: Severity::Info,
            object: Object::node(),
            message: format!("memory can run out before the kubelet evicts a pod: {first}; {second}"),
            evidence: self.evidence(pods),
            advice: crate::catalogue::row(KIND).remediation.to_owned(),
        }
    }

    fn evidence(&self, pods: &PodsSignal) -> Vec<Evidence> {
        let memory = self.memory.value;
        let mut evidence =
            vec![self.memory.says(format!("MemTotal is {} and MemFree {} bytes", memory.total, memory.free))];
        if let Ok(used) = self.used_for() {
            let unreclaimable = unreclaimable(memory, used).saturating_sub(self.arc().unwrap_or_default());
            evidence.push(self.memory.says(format!("the kernel uses {unreclaimable} bytes that it cannot give back")));
        }
        if let Ok(Some(pool)) = memory.zram.seen() {
            evidence.push(self.memory.says(format!("of it {pool} bytes hold what is swapped out to zram")));
        }
        if let (Ok(limits), Ok(min_free)) = (self.limits.seen(), self.min_free()) {
            evidence.push(limits.says(format!("vm.min_free_kbytes keeps {min_free} bytes free")));
        }
        if let PodsSignal::TooLate(Outside { used, reserved, threshold, .. }) = pods {
            evidence.push(self.cgroups.says(format!("{used} bytes are used outside kubepods, without page cache")));
            evidence.push(self.cgroups.says(format!("the limit of kubepods leaves {reserved} bytes")));
            let config = self.in_force.config.seen().ok();
            evidence.extend(config.map(|config| config.says(format!("the threshold is {threshold} bytes"))));
        }
        evidence
    }
}

/// As the kubelet's configuration writes it, rounded up.
fn mebibytes(bytes: u64) -> String {
    format!("{}Mi", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// An idle machine of 24 GiB, as measured.
    #[test]
    fn memory_of_the_kernel_beyond_the_threshold_hides_that_memory_has_run_out() {
        let total = 24_684_096 << 10;
        let used = MemoryUse { slab_reclaimable: 79_756 << 10, ..MemoryUse::default() };
        let memory = MemInfo { total, free: total - (280_160 << 10), ..MemInfo::default() };
        let left = unreclaimable(&memory, &used) + (67_584 << 10);
        assert_eq!((left, left > 100 * MIB), (267_988 << 10, true));
    }

    #[test]
    fn what_is_used_outside_the_pods_beyond_reservation_and_threshold_is_too_much() {
        let outside =
            |used| Outside { used: used * MIB, min_free: 66 * MIB, reserved: 574 * MIB, threshold: 100 * MIB };
        assert!(outside(700).is_too_much() && !outside(500).is_too_much());
        // 608 + 66 = 574 + 100
        assert!(!outside(608).is_too_much() && outside(609).is_too_much());
        assert_eq!((mebibytes(outside(700).needed()), mebibytes(1)), ("666Mi".to_owned(), "1Mi".to_owned()));
    }
}
