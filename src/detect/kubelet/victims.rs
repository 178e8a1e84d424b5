//! Which pods the kubelet evicts next: its own order, with its own quirks.
//!
//! `pkg/kubelet/eviction/helpers.go`, the same from 1.31 to 1.38. Requests are the allocated ones where a pod can be resized in
//! place, and the pod's own where it has some: the collector takes them as the API server has them.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::facts::{
    Cause, DiskAmount, DiskUsage, EvictionSignal as Signal, KubeletStats, Part, Pod, PodCgroups, PodResources,
    PodStats, PodStorage, Pods, Unknown,
};
use crate::view::input::{Cites, Compound, Input, Known, Maybe, MaybeNodePods};
use crate::view::sources;
use crate::wording::{bytes, count};

/// What the kubelet ranks pods by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The pods of this node as an input, in the order in which the kubelet evicts them for memory.
#[derive(Clone, Copy)]
pub struct MemoryVictims<'v> {
    pods: Known<'v, Pods>,
    cgroups: Known<'v, PodCgroups>,
}

/// What the order for memory rests on.
type MemorySources = (MaybeNodePods, Maybe<sources::PodCgroups>);

impl Compound for MemoryVictims<'_> {
    type Of<'v> = MemoryVictims<'v>;
    type Read = MemorySources;

    fn of<'v>((pods, cgroups): <MemorySources as Input>::Of<'v>) -> MemoryVictims<'v> {
        MemoryVictims { pods, cgroups }
    }
}

/// The same for each signal.
#[derive(Clone, Copy)]
pub struct Victims<'v> {
    memory: MemoryVictims<'v>,
    stats: Known<'v, KubeletStats>,
    nodefs: Known<'v, DiskUsage>,
    imagefs: Known<'v, DiskUsage>,
}

/// What the order rests on.
type Sources = (MemoryVictims<'static>, Maybe<sources::KubeletStats>, Maybe<sources::NodeFs>, Maybe<sources::ImageFs>);

impl Compound for Victims<'_> {
    type Of<'v> = Victims<'v>;
    type Read = Sources;

    fn of<'v>((memory, stats, nodefs, imagefs): <Sources as Input>::Of<'v>) -> Victims<'v> {
        Victims { memory, stats, nodefs, imagefs }
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

/// What of a pod counts on the filesystem of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskPart {
    /// Everything: the images are on the filesystem of the kubelet's directory.
    All,
    /// Logs and volumes: the writable layers are on the filesystem of the images.
    WithoutLayers,
    /// The writable layers.
    Layers,
}

impl DiskPart {
    /// What counts on the filesystem of the kubelet's directory. The kubelet counts the same against limits of
    /// `ephemeral-storage`.
    pub(super) fn of_nodefs(nodefs: &Known<'_, DiskUsage>, imagefs: &Known<'_, DiskUsage>) -> Result<Self, Unknown> {
        let (nodefs, imagefs) = (nodefs.seen()?.value, imagefs.seen()?.value);
        match &imagefs.assumed {
            Some(why) => Err(Unknown::new(Cause::Missing, why.clone())),
            None if nodefs.dev == imagefs.dev => Ok(Self::All),
            None => Ok(Self::WithoutLayers),
        }
    }

    /// So much of it a pod has; none where the kubelet has not measured it.
    pub(super) fn amount(self, stats: &PodStats, of: impl Fn(&DiskAmount) -> Option<u64>) -> Result<u64, Unknown> {
        let amount = |part: &Part<DiskAmount>| {
            let unmeasured = || Unknown::new(Cause::Missing, "the kubelet has not measured it yet");
            part.needed(unmeasured).and_then(|amount| of(amount).ok_or_else(unmeasured))
        };
        let layers = || -> Result<u64, Unknown> {
            let layers = stats.containers.values().map(|container| amount(&container.layer));
            layers.sum::<Result<u64, Unknown>>()
        };
        match self {
            Self::All => amount(&stats.storage),
            Self::WithoutLayers => Ok(amount(&stats.storage)?.saturating_sub(layers()?)),
            Self::Layers => layers(),
        }
    }
}

impl MemoryVictims<'_> {
    /// The next victims for memory, first the one that goes first.
    ///
    /// # Errors
    /// Why the order is not known. One pod that is not known can be anywhere in it.
    pub(super) fn order(&self) -> Result<Vec<Candidate>, Unknown> {
        let cgroups = self.cgroups.seen()?.value;
        if let Some(why) = cgroups.incomplete() {
            return Err(why.clone());
        }
        let of = |pod: &Pod| Ok((working_set(pod, cgroups)?, resources(pod)?.memory));
        self.ranked(Ranking::Memory, of)
    }

    /// By usage and request of each pod that runs.
    fn ranked(
        &self,
        ranking: Ranking,
        of: impl Fn(&Pod) -> Result<(u64, u64), Unknown>,
    ) -> Result<Vec<Candidate>, Unknown> {
        let pods = self.pods.seen()?.value;
        if let Some(why) = pods.incomplete() {
            return Err(why.clone());
        }
        let active = pods.values().filter(|pod| !pod.is_over());
        let candidate = |pod: &Arc<Pod>| -> Result<Candidate, Unknown> {
            let (usage, request) = match resources(pod)?.running {
                0 => (Usage::NoStatistics, 0),
                _ => of(pod).map(|(used, request)| (Usage::Of(used), request))?,
            };
            let (name, priority, is_critical) = (pod.full_name(), pod.priority, pod.is_critical());
            Ok(Candidate { name, priority, is_critical, usage, request })
        };
        let mut candidates = active.map(candidate).collect::<Result<Vec<_>, _>>()?;
        rank(&mut candidates, ranking);
        candidates.retain(|pod| !pod.is_critical);
        Ok(candidates)
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
            Ranking::Memory => self.memory.order(),
            Ranking::Pids => {
                let stats = self.stats("how many processes each pod has")?;
                let processes = |pod: &Pod| {
                    let missing = || Unknown::new(Cause::Missing, "the kubelet has not counted its processes yet");
                    Ok((*figures(pod, stats)?.processes.needed(missing)?, 0))
                };
                self.memory.ranked(ranking, processes)
            }
            Ranking::Disk | Ranking::Inodes => {
                let stats = self.stats("how much each pod has on disk")?;
                let part = self.part(signal)?;
                let of = |amount: &DiskAmount| match ranking {
                    Ranking::Inodes => amount.inodes,
                    _ => Some(amount.bytes),
                };
                let used = |pod: &Pod| {
                    let used = part.amount(figures(pod, stats)?, of);
                    let used =
                        used.map_err(|why| Unknown { why: format!("{}: {}", pod.full_name(), why.why), ..why })?;
                    Ok((used, storage(pod)?.request))
                };
                self.memory.ranked(ranking, used)
            }
        }
    }

    /// The kubelet's figures of each pod.
    fn stats(&self, what: &str) -> Result<&KubeletStats, Unknown> {
        match self.stats.seen() {
            Ok(stats) => stats.value.incomplete().map_or_else(|| Ok(stats.value), |why| Err(why.clone())),
            Err(why) if why.cause == Cause::NotAsked => {
                let why = format!("only the kubelet knows {what}, and it is not asked (component kubelet-api)");
                Err(Unknown::new(Cause::Unsupported, why))
            }
            Err(why) => Err(why.clone()),
        }
    }

    /// What counts for a signal of a filesystem.
    fn part(&self, signal: Signal) -> Result<DiskPart, Unknown> {
        let of_nodefs = DiskPart::of_nodefs(&self.nodefs, &self.imagefs)?;
        Ok(match (of_nodefs, signal) {
            (DiskPart::WithoutLayers, Signal::ImageFs | Signal::ImageFsInodes) => DiskPart::Layers,
            (part, _) => part,
        })
    }
}

/// The kubelet's figures of a pod.
pub(super) fn figures<'v>(pod: &Pod, stats: &'v KubeletStats) -> Result<&'v PodStats, Unknown> {
    stats
        .get(pod.node_uid())
        .ok_or_else(|| Unknown::new(Cause::Missing, format!("the kubelet's answer is without {}", pod.full_name())))
}

/// What a pod may have on the node's disk.
pub(super) fn storage(pod: &Pod) -> Result<&PodStorage, Unknown> {
    pod.storage.needed(|| {
        Unknown::new(Cause::Missing, format!("the requests of {} for the node's disk were not kept", pod.full_name()))
    })
}

/// The names of the next victims by each ranking, or why they are not known: for a report.
pub struct NextVictims<'v> {
    victims: Result<Victims<'v>, &'v Unknown>,
    most: usize,
    by_signal: BTreeMap<Signal, Result<Vec<String>, Unknown>>,
}

impl<'v> NextVictims<'v> {
    /// At most so many; nothing is ranked before it is asked for.
    #[must_use]
    pub fn of(victims: Result<Victims<'v>, &'v Unknown>, most: usize) -> Self {
        Self { victims, most, by_signal: BTreeMap::new() }
    }

    /// Those of a signal, first the one that goes first. Both signals of memory are ranked once.
    ///
    /// # Errors
    /// Why the order is not known.
    pub fn first(&mut self, signal: Signal) -> Result<Vec<String>, Unknown> {
        let signal = if signal == Signal::AllocatableMemory { Signal::Memory } else { signal };
        let named = self.by_signal.entry(signal).or_insert_with(|| {
            let order = self.victims.map_err(Clone::clone)?.of(signal)?;
            Ok(order.into_iter().take(self.most).map(|pod| pod.name).collect())
        });
        named.clone()
    }
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
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, ContainerStats, NodeTime, Observation, Reading};
    use crate::view::View;
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

    /// A view of pods with a request of 1 GiB each, and of what the kubelet measures of them: writable layers and all.
    fn view(imagefs: &str, pods: &[(&str, u64, u64)]) -> View {
        let at = NodeTime { boot: BootId::default(), up: Duration::from_secs(100), wall: Timestamp::UNIX_EPOCH };
        let amount = |bytes| Part::Known(DiskAmount { bytes, inodes: Some(bytes / 1000) });
        let pod = |(name, ..): &(&str, u64, u64)| {
            let storage = Part::Known(PodStorage { request: GIB, ..PodStorage::default() });
            let resources = Part::Known(PodResources { memory: 0, running: 1 });
            let (name, uid) = ((*name).to_owned(), (*name).to_owned());
            (uid.clone(), Arc::new(Pod { namespace: "ns".into(), name, uid, storage, resources, ..Pod::default() }))
        };
        let stats = |(name, layers, all): &(&str, u64, u64)| {
            let container = ContainerStats { layer: amount(*layers), logs: Part::Absent };
            let containers = BTreeMap::from([("main".to_owned(), container)]);
            let of =
                PodStats { storage: amount(*all), processes: Part::Known(*layers), containers, ..PodStats::default() };
            ((*name).to_owned(), of)
        };
        let disk = |dev: &str| DiskUsage {
            path: "/k".into(),
            instead_of: None,
            assumed: None,
            dev: dev.parse().unwrap(),
            capacity: 100 * GIB,
            available: GIB,
            inodes: 100,
            inodes_free: 10,
        };
        let mut view = View::new(at);
        view.take(
            at,
            vec![
                Observation::Pods(Reading::Known { value: Pods::whole(pods.iter().map(pod)), at }),
                Observation::KubeletStats(Reading::Known { value: KubeletStats::whole(pods.iter().map(stats)), at }),
                Observation::NodeFs(Reading::Known { value: disk("259:1"), at }),
                Observation::ImageFs(Reading::Known { value: disk(imagefs), at }),
            ],
        );
        view
    }

    #[test]
    fn what_counts_on_a_filesystem_depends_on_where_the_images_are() {
        let pods = [("a", 0, 3 * GIB), ("b", 5 * GIB, 6 * GIB), ("c", 2 * GIB, 4 * GIB)];
        let names = |view: &View, signal| -> String {
            let order = Victims::extract(view).unwrap().of(signal).unwrap();
            order.iter().map(|pod| pod.name.trim_start_matches("ns/")).collect()
        };
        let one = view("259:1", &pods);
        assert_eq!(
            [Signal::NodeFs, Signal::ImageFs, Signal::Pid].map(|signal| names(&one, signal)),
            ["bca", "bca", "bca"]
        );
        let two = view("259:9", &pods);
        assert_eq!([Signal::NodeFs, Signal::ImageFs].map(|signal| names(&two, signal)), ["acb", "bca"]);
        assert_eq!(names(&two, Signal::NodeFsInodes), "acb");
    }

    #[test]
    fn a_pod_without_figures_makes_the_order_unknown_and_a_kubelet_that_is_not_asked_too() {
        let mut view = view("259:1", &[("a", 0, GIB), ("b", 0, GIB)]);
        let at = view.now();
        let of = |view: &View| Victims::extract(view).unwrap().of(Signal::NodeFs).unwrap_err();
        let some = KubeletStats::whole([("a".to_owned(), PodStats::default())]);
        view.take(at, vec![Observation::KubeletStats(Reading::Known { value: some, at })]);
        assert!(of(&view).why.contains("ns/a: the kubelet has not measured it yet"), "{}", of(&view));
        let none = KubeletStats::whole([]);
        view.take(at, vec![Observation::KubeletStats(Reading::Known { value: none, at })]);
        assert!(of(&view).why.contains("is without ns/a"), "{}", of(&view));
        let refused = Unknown::new(Cause::Denied, "HTTP 403");
        view.take(at, vec![Observation::KubeletStats(Reading::Unknown(refused))]);
        assert_eq!(of(&view).cause, Cause::Denied);
        assert_eq!(of(&View::new(at)).cause, Cause::Unsupported);
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
