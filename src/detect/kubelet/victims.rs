//! Which pods the kubelet evicts next: its own order, with its own quirks.
//!
//! `pkg/kubelet/eviction/helpers.go`, the same from 1.31 to 1.38. Requests are the allocated ones where a pod can be resized in
//! place, and the pod's own where it has some: the collector takes them as the API server has them.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use crate::facts::{Cause, EvictionSignal as Signal, Part, Pod, PodCgroups, PodResources, Pods, Unknown};
use crate::view::input::{Cites, Compound, Input, Known, Maybe};
use crate::view::sources;
use crate::wording::{bytes, count};

/// What the kubelet ranks pods by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ranking {
    /// Memory, of the machine and of all pods.
    Memory,
    /// Bytes on a filesystem.
    Disk,
    /// Inodes: compared with a request of none, then ranked by how much they exceed the request of bytes (a fault of the
    /// kubelet up to 1.38).
    Inodes,
    /// Processes, not threads. Requests do not count.
    Pids,
}

impl Ranking {
    /// That of a signal.
    #[must_use]
    pub fn of(signal: Signal) -> Self {
        match signal {
            Signal::Memory | Signal::AllocatableMemory => Self::Memory,
            Signal::NodeFs | Signal::ImageFs => Self::Disk,
            Signal::NodeFsInodes | Signal::ImageFsInodes => Self::Inodes,
            Signal::Pid => Self::Pids,
        }
    }
}

/// One pod, as the kubelet ranks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// As people write it: `namespace/name`.
    pub name: String,
    /// `spec.priority`
    pub priority: i64,
    /// Static, a mirror, or of a system class: the kubelet passes it over.
    pub is_critical: bool,
    /// What it uses of the resource; a pod without a running container has no statistics, and is ranked first for it.
    pub usage: Usage,
    /// What it requests, in bytes.
    pub request: u64,
}

/// What the kubelet knows of a pod's usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Nothing: none of its containers runs.
    NoStatistics,
    /// Bytes, inodes or processes.
    Of(u64),
}

impl Candidate {
    /// What is compared first for all but process ids: no statistics, then more than requested, then the others.
    fn class(&self, ranking: Ranking) -> u8 {
        let request = if ranking == Ranking::Inodes { 0 } else { self.request };
        match self.usage {
            Usage::NoStatistics => 0,
            Usage::Of(used) if used > request => 1,
            Usage::Of(_) => 2,
        }
    }

    /// By how much usage exceeds the request: below zero where it does not. None sorts as the most.
    fn excess(&self, ranking: Ranking) -> (bool, i128) {
        let request = if ranking == Ranking::Pids { 0 } else { self.request };
        match self.usage {
            Usage::NoStatistics => (true, 0),
            Usage::Of(used) => (false, i128::from(used).saturating_sub(i128::from(request))),
        }
    }

    fn compare(&self, other: &Self, ranking: Ranking) -> Ordering {
        let class = |pod: &Self| if ranking == Ranking::Pids { 0 } else { pod.class(ranking) };
        let key = |pod: &Self| (class(pod), pod.priority, Reverse(pod.excess(ranking)));
        // The kubelet's sort leaves ties to chance.
        key(self).cmp(&key(other)).then_with(|| self.name.cmp(&other.name))
    }
}

/// The pods in the kubelet's order, critical ones among them.
pub fn rank(pods: &mut [Candidate], ranking: Ranking) {
    pods.sort_by(|a, b| a.compare(b, ranking));
}

/// What the order rests on.
type Sources = (Maybe<sources::Pods>, Maybe<sources::PodCgroups>);

/// The pods of this node as an input, in the order in which the kubelet evicts them.
#[derive(Clone, Copy)]
pub struct Victims<'v> {
    pods: Known<'v, Pods>,
    cgroups: Known<'v, PodCgroups>,
}

impl Compound for Victims<'_> {
    type Of<'v> = Victims<'v>;
    type Read = Sources;

    fn of<'v>((pods, cgroups): <Sources as Input>::Of<'v>) -> Victims<'v> {
        Victims { pods, cgroups }
    }
}

/// The same for an input that only names them, and decides nothing by them.
#[derive(Clone, Copy)]
pub struct NamedVictims<'v>(Victims<'v>);

impl Compound for NamedVictims<'_> {
    type Of<'v> = NamedVictims<'v>;
    type Read = Cites<Victims<'static>>;

    fn of<'v>(victims: <Self::Read as Input>::Of<'v>) -> NamedVictims<'v> {
        NamedVictims(victims)
    }
}

impl NamedVictims<'_> {
    /// The pod that the kubelet evicts first for a signal, in words.
    pub(super) fn first(&self, signal: Signal) -> String {
        match self.0.of(signal).map(|order| order.into_iter().next()) {
            Ok(Some(pod)) => format!("{} ({}) is evicted first", pod.name, pod.standing(Ranking::of(signal))),
            Ok(None) => "the kubelet finds none that it may evict".to_owned(),
            Err(why) => format!("which pod is evicted first is not known ({why})"),
        }
    }
}

impl Candidate {
    /// What makes it go before or after others.
    fn standing(&self, ranking: Ranking) -> String {
        match (self.usage, ranking) {
            (Usage::NoStatistics, _) => "none of its containers runs".to_owned(),
            (Usage::Of(used), Ranking::Memory | Ranking::Disk) if used > self.request => {
                format!("{} over its request", bytes(used.saturating_sub(self.request)))
            }
            (Usage::Of(_), Ranking::Memory | Ranking::Disk) => "within its request".to_owned(),
            (Usage::Of(used), Ranking::Inodes) => format!("{} inodes", count(used)),
            (Usage::Of(used), Ranking::Pids) => format!("{} processes", count(used)),
        }
    }
}

impl Victims<'_> {
    /// The next victims for a signal, first the one that goes first.
    ///
    /// # Errors
    /// Why the order is not known. One pod that is not known can be anywhere in it.
    pub fn of(&self, signal: Signal) -> Result<Vec<Candidate>, Unknown> {
        let ranking = Ranking::of(signal);
        match ranking {
            Ranking::Memory => {}
            Ranking::Disk | Ranking::Inodes => {
                let why = "only the kubelet knows how much each pod has on disk, and it is not read";
                return Err(Unknown::new(Cause::Unsupported, why));
            }
            Ranking::Pids => {
                let why = "how many processes each pod has is not read";
                return Err(Unknown::new(Cause::Unsupported, why));
            }
        }
        let (pods, cgroups) = (self.pods.seen()?.value, self.cgroups.seen()?.value);
        if let Some(why) = pods.incomplete().or(cgroups.incomplete()) {
            return Err(why.clone());
        }
        let active = pods.values().filter(|pod| !pod.is_over());
        let mut candidates = active.map(|pod| candidate(pod, cgroups)).collect::<Result<Vec<_>, _>>()?;
        rank(&mut candidates, ranking);
        candidates.retain(|pod| !pod.is_critical);
        Ok(candidates)
    }
}

/// The names of the next victims by each ranking, or why they are not known: for a report.
pub struct NextVictims<'v> {
    victims: Result<Victims<'v>, &'v Unknown>,
    most: usize,
    by_ranking: BTreeMap<Ranking, Result<Vec<String>, Unknown>>,
}

impl<'v> NextVictims<'v> {
    /// At most so many; nothing is ranked before it is asked for.
    #[must_use]
    pub fn of(victims: Result<Victims<'v>, &'v Unknown>, most: usize) -> Self {
        Self { victims, most, by_ranking: BTreeMap::new() }
    }

    /// Those of a signal, first the one that goes first. Signals that rank alike are ranked once.
    ///
    /// # Errors
    /// Why the order is not known.
    pub fn first(&mut self, signal: Signal) -> Result<Vec<String>, Unknown> {
        let named = self.by_ranking.entry(Ranking::of(signal)).or_insert_with(|| {
            let order = self.victims.map_err(Clone::clone)?.of(signal)?;
            Ok(order.into_iter().take(self.most).map(|pod| pod.name).collect())
        });
        named.clone()
    }
}

/// A pod as it is ranked for memory.
fn candidate(pod: &Pod, cgroups: &PodCgroups) -> Result<Candidate, Unknown> {
    let resources = resources(pod)?;
    let usage = if resources.running == 0 { Usage::NoStatistics } else { Usage::Of(working_set(pod, cgroups)?) };
    Ok(Candidate {
        name: pod.full_name(),
        priority: pod.priority,
        is_critical: pod.is_critical(),
        usage,
        request: resources.memory,
    })
}

/// What a pod requests, and how many of its containers run.
pub(super) fn resources(pod: &Pod) -> Result<&PodResources, Unknown> {
    pod.resources.needed(|| Unknown::new(Cause::Missing, format!("the requests of {} were not kept", pod.full_name())))
}

/// Memory of a pod by the kubelet's measure.
pub(super) fn working_set(pod: &Pod, cgroups: &PodCgroups) -> Result<u64, Unknown> {
    let missing =
        || Unknown::new(Cause::Missing, format!("{} is without a figure of its memory in use", pod.full_name()));
    let group = cgroups.get(pod.node_uid()).ok_or_else(missing)?;
    let needed = |part: &Part<u64>| part.needed(missing).copied();
    Ok(needed(&group.cgroup.memory)?.saturating_sub(needed(&group.cgroup.inactive_file)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Usage::{NoStatistics, Of};

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn order(ranking: Ranking, pods: &[(&str, i64, u64, Usage)]) -> String {
        let candidate = |(name, priority, request, usage): &(&str, i64, u64, Usage)| Candidate {
            name: (*name).to_owned(),
            priority: *priority,
            is_critical: *priority >= 2_000_000_000,
            usage: *usage,
            request: *request,
        };
        let mut pods: Vec<Candidate> = pods.iter().map(candidate).collect();
        rank(&mut pods, ranking);
        pods.iter().map(|pod| if pod.is_critical { format!("({})", pod.name) } else { pod.name.clone() }).collect()
    }

    #[test]
    fn memory_is_ranked_by_excess_of_the_request_after_statistics_and_priority() {
        let all = [
            ("A", 0, 256 * MIB, Of(300 * MIB)),
            ("B", 0, 0, Of(120 * MIB)),
            ("C", 1000, 100 * MIB, Of(900 * MIB)),
            ("D", 0, 2048 * MIB, Of(1900 * MIB)),
            ("E", -10, 512 * MIB, Of(500 * MIB)),
            ("F", 2_000_001_000, 0, Of(700 * MIB)),
            ("G", 0, 0, NoStatistics),
        ];
        assert_eq!(order(Ranking::Memory, &all), "GBAC(F)ED");
        assert_eq!(order(Ranking::Memory, &all[2..6]), "C(F)ED");
    }

    #[test]
    fn disk_is_ranked_like_memory_and_an_equal_usage_does_not_exceed() {
        let all = [
            ("P", 0, 10 * GIB, Of(12 * GIB)),
            ("Q", 0, 0, Of(3 * GIB)),
            ("R", 0, 4 * GIB, Of(4 * GIB)),
            ("S", -1, 20 * GIB, Of(GIB)),
            ("T", 5, 0, Of(1)),
        ];
        assert_eq!(order(Ranking::Disk, &all), "QPTSR");
    }

    #[test]
    fn inodes_are_ranked_against_a_request_of_bytes_as_the_kubelet_does() {
        let all = [("1", 0, GIB, Of(900_000)), ("2", 0, 0, Of(1000)), ("3", 0, 10 << 10, Of(50_000))];
        assert_eq!(order(Ranking::Inodes, &all), "321");
    }

    #[test]
    fn a_victim_is_named_with_what_makes_it_one() {
        let of = |usage, request| {
            let pod = Candidate { name: "a/b".into(), priority: 0, is_critical: false, usage, request };
            pod.standing(Ranking::Memory)
        };
        let all = [of(Of(1536 * MIB), 307 * MIB), of(Of(MIB), MIB), of(NoStatistics, MIB)];
        assert_eq!(all, ["1.20 GiB over its request", "within its request", "none of its containers runs"]);
    }

    #[test]
    fn process_ids_are_ranked_by_priority_first() {
        let all = [("X", 0, 0, Of(3)), ("Y", 0, 0, Of(12)), ("Z", 10, 0, Of(5000)), ("W", 0, 0, NoStatistics)];
        assert_eq!(order(Ranking::Pids, &all), "WYXZ");
    }
}
