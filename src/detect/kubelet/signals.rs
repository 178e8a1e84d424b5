//! The kubelet's eviction signals, recomputed with the kubelet's own arithmetic.
//!
//! Sources in Kubernetes: `pkg/kubelet/eviction/helpers.go` and `pkg/kubelet/stats`; the same from 1.31 to
//! 1.38, but for the huge pages that the kubelet subtracts from `memory.available` from 1.37 on.

use crate::detect::Raised;
use crate::facts::{
    Cause, Cgroups, ConfigOrigin, DiskUsage, EvictionSignal, Limits, LoadAvg, MemInfo, No, NodeTime, Part, Threshold,
    Tri, Unknown,
};
use crate::finding::{Evidence, FindingKey, Headroom, Kind, Object, ObjectType, Severity};
use crate::view::input::{Compound, Input, Known, Maybe, SignalTrends};
use crate::view::{Seen, Trends, sources};
use crate::wording::{bytes, count};

use super::in_force::{Hardness, InForce, in_force};
use EvictionSignal as Signal;

/// What is available, of how much, and what a reader must know about it.
pub(super) type Figures = (u64, u64, Option<String>);

/// What the signals are computed from.
type Sources = (
    Maybe<sources::MemInfo>,
    Maybe<sources::Cgroups>,
    Maybe<sources::NodeFs>,
    Maybe<sources::ImageFs>,
    Maybe<sources::Limits>,
    Maybe<sources::LoadAvg>,
    InForce<'static>,
    SignalTrends,
);

/// The signals as an input: what each rests on, and what it did lately.
#[derive(Clone, Copy)]
pub struct Signals<'v> {
    memory: Known<'v, MemInfo>,
    cgroups: Known<'v, Cgroups>,
    nodefs: Known<'v, DiskUsage>,
    imagefs: Known<'v, DiskUsage>,
    limits: Known<'v, Limits>,
    load: Known<'v, LoadAvg>,
    pub(super) in_force: InForce<'v>,
    trends: &'v Trends,
}

impl Compound for Signals<'_> {
    type Of<'v> = Signals<'v>;
    type Read = Sources;

    fn of<'v>(read: <Sources as Input>::Of<'v>) -> Signals<'v> {
        let (memory, cgroups, nodefs, imagefs, limits, load, in_force, trends) = read;
        Signals { memory, cgroups, nodefs, imagefs, limits, load, in_force, trends }
    }
}

/// A signal as the object of a finding.
pub(super) fn object(signal: Signal) -> Object {
    Object::new(ObjectType::Signal, signal.name())
}

/// The signal of one resource that stands for the others: the most severe, of equal ones that of the bytes of the machine or of the
/// kubelet's own directory.
fn first(of_one: impl Iterator<Item = (Signal, Severity)>) -> Option<Signal> {
    use Signal::{AllocatableMemory, ImageFs, ImageFsInodes, Memory, NodeFs, NodeFsInodes, Pid};
    const ORDER: [Signal; 7] = [Memory, AllocatableMemory, NodeFs, ImageFs, NodeFsInodes, ImageFsInodes, Pid];
    let rank = |signal| ORDER.iter().position(|other| *other == signal);
    of_one.min_by_key(|(signal, severity)| (std::cmp::Reverse(*severity), rank(*signal))).map(|(signal, _)| signal)
}

/// So much of what a signal counts, in words.
pub(super) fn amount(signal: Signal, n: u64) -> String {
    match signal {
        s if s.in_bytes() => bytes(n),
        Signal::Pid => format!("{} process ids", count(n)),
        _ => format!("{} inodes", count(n)),
    }
}

/// How far each signal is from its threshold, or why that is not known: for a report.
#[must_use]
pub fn headroom(signals: Result<Signals<'_>, &Unknown>) -> Vec<Result<Headroom, (Signal, Unknown)>> {
    match signals {
        Ok(signals) => signals.headroom().collect(),
        Err(why) => Signal::ALL.into_iter().map(|signal| Err((signal, why.clone()))).collect(),
    }
}

/// What is available of each signal that is known, and when that was read.
#[must_use]
pub fn samples(signals: Result<Signals<'_>, &Unknown>) -> Vec<(Signal, NodeTime, u64)> {
    let Ok(signals) = signals else { return Vec::new() };
    let of = |signal| {
        let (available, ..) = signals.figures(signal).ok()?;
        Some((signal, signals.read_at(signal)?, available))
    };
    Signal::ALL.into_iter().filter_map(of).collect()
}

fn with_note(figures: Headroom, first: String) -> Headroom {
    let note = match figures.note {
        Some(other) => format!("{first}; {other}"),
        None => first,
    };
    Headroom { note: Some(note), ..figures }
}

fn without_threshold(figures: Headroom, why: &Unknown) -> Headroom {
    Headroom { threshold_unknown: true, ..with_note(figures, format!("the threshold is not known: {why}")) }
}

impl<'v> Signals<'v> {
    /// How far each signal is from its threshold, or why that is not known.
    pub(super) fn headroom(self) -> impl Iterator<Item = Result<Headroom, (Signal, Unknown)>> + use<'v> {
        Signal::ALL.into_iter().map(move |signal| {
            let (available, capacity, note) = self.figures(signal).map_err(|why| (signal, why))?;
            let figures = Headroom {
                signal,
                available,
                capacity,
                hard: None,
                soft: None,
                assumed: None,
                note,
                threshold_unknown: false,
            };
            Ok(self.with_thresholds(figures))
        })
    }

    fn with_thresholds(&self, figures: Headroom) -> Headroom {
        let config = match self.in_force.config.seen() {
            Ok(config) if config.value.origin == ConfigOrigin::NoKubelet => {
                return with_note(figures, "no kubelet runs here".to_owned());
            }
            Ok(config) => config.value,
            Err(why) => return without_threshold(figures, why),
        };
        let (signal, capacity) = (figures.signal, figures.capacity);
        let of = |threshold: Option<&Threshold>| threshold.and_then(|t| in_force(t.value, capacity));
        let (hard, soft) = (self.in_force.of(Hardness::Hard, signal), self.in_force.of(Hardness::Soft, signal));
        let figures = Headroom {
            hard: hard.as_ref().map_or(None, |threshold| of(*threshold)),
            soft: soft.as_ref().map_or(None, |threshold| of(*threshold)),
            assumed: of(config.hard.assumed(signal)),
            ..figures
        };
        match (hard, soft) {
            (Err(why), _) => without_threshold(figures, &why),
            (_, Err(why)) => with_note(figures, format!("the soft threshold is not known: {why}")),
            (Ok(_), Ok(_)) => figures,
        }
    }

    /// The threshold of a signal, if it is met as the kubelet sees it: what is available is below it, or not yet above it by
    /// the minimum that must be reclaimed since it last was.
    ///
    /// # Errors
    /// Why the threshold is not known.
    pub(super) fn met(&self, hardness: Hardness, headroom: &Headroom) -> Result<Option<(u64, &'v Threshold)>, Unknown> {
        let found = self.in_force.of(hardness, headroom.signal)?;
        let Some(threshold) = found else { return Ok(None) };
        let Some(limit) = in_force(threshold.value, headroom.capacity) else { return Ok(None) };
        Ok(self.is_met(threshold, headroom, limit)?.then_some((limit, threshold)))
    }

    fn is_met(&self, threshold: &Threshold, headroom: &Headroom, limit: u64) -> Result<bool, Unknown> {
        if headroom.available < limit {
            return Ok(true);
        }
        let reclaim = threshold.min_reclaim.map_or(0, |v| v.of(headroom.capacity));
        let enough = limit.saturating_add(reclaim);
        if headroom.available >= enough {
            return Ok(false);
        }
        let samples: Vec<u64> = self.trends.of(headroom.signal).map(|(_, available)| available).collect();
        let decided = samples.into_iter().rev().find(|available| *available < limit || *available >= enough);
        decided.map(|available| available < limit).ok_or_else(|| {
            let signal = headroom.signal;
            let why = format!(
                "{signal} is between its threshold and what must be reclaimed, and was not seen below or above both yet"
            );
            Unknown::new(Cause::Baseline, why)
        })
    }

    /// Since when a signal has been below this without a break, as far back as it was followed: the kubelet begins to count a
    /// grace period from zero at the first sample that is not below.
    pub(super) fn below_since(&self, signal: Signal, limit: u64) -> Option<NodeTime> {
        let samples: Vec<(NodeTime, u64)> = self.trends.of(signal).collect();
        let lasting = samples.into_iter().rev().take_while(|(_, available)| *available < limit);
        lasting.last().map(|(at, _)| at)
    }

    fn figures(&self, signal: Signal) -> Result<Figures, Unknown> {
        match signal {
            Signal::Memory => self.memory(),
            Signal::AllocatableMemory => self.allocatable(),
            Signal::NodeFs => disk(&self.nodefs, |d| (d.available, d.capacity)),
            Signal::NodeFsInodes => disk(&self.nodefs, |d| (d.inodes_free, d.inodes)),
            Signal::ImageFs => disk(&self.imagefs, |d| (d.available, d.capacity)),
            Signal::ImageFsInodes => disk(&self.imagefs, |d| (d.inodes_free, d.inodes)),
            Signal::Pid => self.pids(),
        }
    }

    fn memory(&self) -> Result<Figures, Unknown> {
        let memory = self.memory.seen()?;
        let cgroups = self.cgroups.seen()?;
        let missing = || Unknown::new(Cause::Missing, "the root control group does not show the memory in use");
        let used = cgroups.root.needed(missing)?.working_set();
        let huge_pages = self.in_force.huge_pages(memory.value)?;
        let available = memory.total.saturating_sub(used).saturating_sub(huge_pages);
        let mut notes = Vec::new();
        if huge_pages > 0 {
            notes.push(format!("without {} of huge pages", bytes(huge_pages)));
        }
        // What is on compressed swap is no longer in use to the kubelet, and still takes memory.
        if let Ok(Some(pool)) = memory.zram.seen().map(|pool| pool.filter(|pool| **pool > 0)) {
            let swapped = bytes(memory.swap_total.saturating_sub(memory.swap_free));
            let pool = bytes(*pool);
            notes
                .push(format!("{swapped} are swapped out to zram, which takes {pool} that the kubelet does not count"));
        }
        Ok((available, available.saturating_add(used), Some(notes.join("; ")).filter(|note| !note.is_empty())))
    }

    fn allocatable(&self) -> Result<Figures, Unknown> {
        let cgroups = self.cgroups.seen()?;
        let missing = || {
            Unknown::new(
                Cause::Missing,
                "the kubepods control group does not exist: the kubelet has not started pods here",
            )
        };
        let kubepods = cgroups.kubepods.as_ref().ok_or_else(missing)?;
        let no_limit =
            || Unknown::new(Cause::Unsupported, "kubepods is not limited in memory: node allocatable is not enforced");
        let limit = *kubepods.memory_max.needed(no_limit)?;
        let no_figure = || Unknown::new(Cause::Missing, "the kubepods control group does not show its memory in use");
        let used = kubepods.memory.needed(no_figure)?.saturating_sub(*kubepods.inactive_file.needed(no_figure)?);
        Ok((limit.saturating_sub(used), limit, None))
    }

    /// Process ids that are left, and how many there are: threads count.
    fn pids(&self) -> Result<Figures, Unknown> {
        let most = most_tasks(self.limits.seen()?.value)?;
        Ok((most.saturating_sub(self.load.seen()?.tasks), most, None))
    }

    /// When what a signal goes by was read: what changes of it.
    fn read_at(&self, signal: Signal) -> Option<NodeTime> {
        match signal {
            Signal::Memory | Signal::AllocatableMemory => self.cgroups.seen().ok().map(|seen| seen.at),
            Signal::Pid => self.load.seen().ok().map(|seen| seen.at),
            _ => self.disk(signal).map(|seen| seen.at),
        }
    }

    /// That something is not so, by what a signal goes by.
    ///
    /// # Errors
    /// Why that was not read.
    pub(super) fn no(&self, signal: Signal) -> Result<No, Unknown> {
        Ok(match signal {
            Signal::Memory | Signal::AllocatableMemory => self.cgroups.seen()?.no(),
            Signal::Pid => self.load.seen()?.no(),
            Signal::NodeFs | Signal::NodeFsInodes => self.nodefs.seen()?.no(),
            Signal::ImageFs | Signal::ImageFsInodes => self.imagefs.seen()?.no(),
        })
    }

    /// A statement of what a signal goes by.
    pub(super) fn says(&self, signal: Signal, fact: String) -> Option<Evidence> {
        match signal {
            Signal::Memory | Signal::AllocatableMemory => self.cgroups.seen().ok().map(|seen| seen.says(fact)),
            Signal::Pid => self.load.seen().ok().map(|seen| seen.says(fact)),
            _ => self.disk(signal).map(|seen| seen.says(fact)),
        }
    }

    /// What it did lately.
    pub(super) fn trends(&self) -> &'v Trends {
        self.trends
    }

    /// Whether the images are on the filesystem of the kubelet's directory; absent where that is not known.
    pub(super) fn is_one_disk(&self) -> Option<bool> {
        let (nodefs, imagefs) = (self.nodefs.seen().ok()?.value, self.imagefs.seen().ok()?.value);
        imagefs.assumed.is_none().then_some(nodefs.dev == imagefs.dev)
    }

    /// Whether two signals measure one resource, so that one cause is behind both. Where the place of the images is only assumed, it is so
    /// as far as what is said of them is.
    pub(super) fn is_of_one(&self, a: Signal, b: Signal) -> bool {
        use Signal::{AllocatableMemory, Memory};
        let disk = |signal| self.disk(signal).map(|disk| disk.value.dev);
        match (disk(a), disk(b)) {
            (Some(a), Some(b)) => a == b,
            _ => matches!((a, b), (Memory, AllocatableMemory) | (AllocatableMemory, Memory)),
        }
    }

    /// Of findings of one kind those of one resource are shown under one of them.
    pub(super) fn under_one(&self, kind: Kind, all: &mut [(Signal, Tri<Raised>)]) {
        let found = all.iter().filter_map(|(signal, decision)| match decision {
            Tri::Yes(raised) => Some((*signal, raised.finding.severity)),
            Tri::No(_) | Tri::Unknown(_) => None,
        });
        let found: Vec<(Signal, Severity)> = found.collect();
        for (signal, decision) in all {
            let Tri::Yes(raised) = decision else { continue };
            let of_one = found.iter().copied().filter(|(other, _)| other == signal || self.is_of_one(*signal, *other));
            if let Some(first) = first(of_one).filter(|first| first != signal) {
                raised.shown_under = Tri::Yes(FindingKey { kind, object: object(first) });
            }
        }
    }

    /// Why it is only assumed that the filesystem of a signal is the one that was asked, if so.
    pub(super) fn assumed_place(&self, signal: Signal) -> Option<&'v str> {
        self.disk(signal)?.value.assumed.as_deref()
    }

    /// The filesystem of a signal.
    pub(super) fn disk(&self, signal: Signal) -> Option<Seen<'v, DiskUsage>> {
        let usage = match signal {
            Signal::ImageFs | Signal::ImageFsInodes => self.imagefs,
            Signal::NodeFs | Signal::NodeFsInodes => self.nodefs,
            Signal::Memory | Signal::AllocatableMemory | Signal::Pid => return None,
        };
        usage.seen().ok()
    }

    /// What the figures rest on. They are exact here: they are what one compares with the kubelet's log.
    pub(super) fn evidence(&self, headroom: &Headroom) -> Vec<Evidence> {
        let Headroom { available, capacity, .. } = headroom;
        let mut evidence = Vec::new();
        match headroom.signal {
            Signal::Memory => {
                evidence.extend(self.memory.seen().ok().map(|m| m.says(format!("MemTotal is {} bytes", m.total))));
                evidence.extend(self.cgroups.seen().ok().and_then(|cgroups| {
                    let used = cgroups.value.root.seen().ok()??.working_set();
                    Some(cgroups.says(format!("the working set of the machine is {used} bytes")))
                }));
            }
            Signal::AllocatableMemory => {
                let left = |c: Seen<'_, Cgroups>| c.says(format!("kubepods has {available} of {capacity} bytes left"));
                evidence.extend(self.cgroups.seen().ok().map(left));
            }
            Signal::NodeFs | Signal::NodeFsInodes | Signal::ImageFs | Signal::ImageFsInodes => {
                let says = |disk: Seen<'_, DiskUsage>| {
                    disk.says(format!("{}: {available} available of {capacity}", disk.path))
                };
                evidence.extend(self.disk(headroom.signal).map(says));
            }
            Signal::Pid => {
                evidence.extend(self.load.seen().ok().map(|l| l.says(format!("{} tasks exist", l.tasks))));
                let shown = |limit: &Part<u64>| match limit {
                    Part::Known(limit) => limit.to_string(),
                    Part::Absent | Part::Unknown(_) => "not known".to_owned(),
                };
                let says = |l: Seen<'_, Limits>| {
                    let (pid_max, threads_max) = (shown(&l.pid_max), shown(&l.threads_max));
                    l.says(format!("pid_max is {pid_max}, threads-max is {threads_max}"))
                };
                evidence.extend(self.limits.seen().ok().map(says));
            }
        }
        evidence
    }
}

fn disk(usage: &Known<'_, DiskUsage>, pick: impl Fn(&DiskUsage) -> (u64, u64)) -> Result<Figures, Unknown> {
    let usage = usage.seen()?;
    let (available, capacity) = pick(usage.value);
    if capacity == 0 {
        // btrfs, for one, has no fixed number of inodes: the kubelet then has no such signal either.
        return Err(Unknown::new(Cause::Unsupported, format!("the filesystem of {} does not count this", usage.path)));
    }
    Ok((available, capacity, usage.assumed.clone().or_else(|| usage.instead_of.clone())))
}

/// How many threads there can be.
pub(super) fn most_tasks(limits: &Limits) -> Result<u64, Unknown> {
    let own = || {
        let why = "the kernel does not show the host's kernel.pid_max in the agent's own pid namespace (Linux 6.14 and later, without hostPID)";
        Unknown::new(Cause::Unsupported, why)
    };
    let unlimited = || Unknown::new(Cause::Unsupported, "this kernel does not offer kernel.threads-max");
    Ok(*limits.pid_max.needed(own)?.min(limits.threads_max.needed(unlimited)?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;

    #[test]
    fn of_one_resource_the_most_severe_stands_and_of_equal_ones_that_of_bytes() {
        use Severity::{Critical, Warning};
        let of = |all: &[(Signal, Severity)]| first(all.iter().copied());
        assert_eq!(of(&[(Signal::NodeFsInodes, Critical), (Signal::NodeFs, Critical)]), Some(Signal::NodeFs));
        assert_eq!(of(&[(Signal::ImageFs, Critical), (Signal::NodeFs, Warning)]), Some(Signal::ImageFs));
        assert_eq!(of(&[(Signal::AllocatableMemory, Critical), (Signal::Memory, Critical)]), Some(Signal::Memory));
        assert_eq!(of(&[]), None);
    }

    use crate::facts::{
        BootId, Cgroup, KubeletConfig, KubeletOptions, Node, Observation, Reading, RootMemory, Thresholds,
        default_thresholds,
    };
    use crate::view::View;

    fn at(seconds: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(seconds), wall: Timestamp::UNIX_EPOCH }
    }

    fn view(seen: Vec<Observation>) -> View {
        let mut view = View::new(at(0));
        view.take(at(0), seen);
        view
    }

    fn known<T>(value: T) -> Reading<T> {
        Reading::Known { value, at: at(0) }
    }

    const MEM_TOTAL: u64 = 8_221_233_152;

    fn memory(huge_pages: u64) -> Observation {
        let memory = MemInfo { total: MEM_TOTAL, huge_pages: Part::Known(huge_pages), ..MemInfo::default() };
        Observation::MemInfo(known(memory))
    }

    fn root(usage: u64, inactive_file: u64) -> Observation {
        let root = Part::Known(RootMemory { usage, inactive_file });
        Observation::Cgroups(known(Cgroups { root, ..Cgroups::default() }))
    }

    fn config(options: KubeletOptions) -> Observation {
        let config = KubeletConfig {
            origin: ConfigOrigin::Process { pid: 1, started: Part::Absent, files: Vec::new() },
            root_dir: "/k".into(),
            hard: Thresholds::Read(default_thresholds()),
            soft: Thresholds::Read(BTreeMap::new()),
            enforces_pods: true,
            options,
        };
        Observation::KubeletConfig(known(config))
    }

    fn node(version: &str, huge_pages: u64) -> Observation {
        let huge_pages = Part::Known(huge_pages);
        Observation::Node(known(Node { kubelet_version: Some(version.into()), huge_pages, ..Node::default() }))
    }

    fn figures(signal: Signal, seen: Vec<Observation>) -> Result<(u64, u64), Unknown> {
        let view = view(seen);
        Signals::extract(&view).unwrap().figures(signal).map(|(available, capacity, _)| (available, capacity))
    }

    fn is_met(signal: Signal, mut seen: Vec<Observation>) -> bool {
        if !seen.iter().any(|seen| matches!(seen, Observation::KubeletConfig(_))) {
            seen.push(config(KubeletOptions::default()));
        }
        let view = view(seen);
        let signals = Signals::extract(&view).unwrap();
        let headroom = signals.headroom().flatten().find(|headroom| headroom.signal == signal).unwrap();
        signals.met(Hardness::Hard, &headroom).unwrap().is_some()
    }

    #[test]
    fn memory_is_that_of_the_root_group() {
        let (a, b) = (|| root(8_053_063_680, 1_610_612_736), || root(8_267_812_044, 134_217_728));
        assert_eq!(figures(Signal::Memory, vec![memory(0), a()]), Ok((1_778_782_208, MEM_TOTAL)));
        assert!(!is_met(Signal::Memory, vec![memory(0), a()]));
        assert_eq!(figures(Signal::Memory, vec![memory(0), b()]), Ok((87_638_836, MEM_TOTAL)));
        assert!(is_met(Signal::Memory, vec![memory(0), b()]));
        assert_eq!(figures(Signal::Memory, vec![memory(0), root(5, 6)]), Ok((MEM_TOTAL, MEM_TOTAL)));
    }

    #[test]
    fn huge_pages_are_subtracted_from_1_37_on() {
        const GIB: u64 = 1 << 30;
        let (a, b) = (|| root(8_053_063_680, 1_610_612_736), || root(8_267_812_044, 134_217_728));
        let with = |root, node, options| vec![memory(GIB), root, node, config(options)];
        let none = KubeletOptions::default;
        let of = |seen| figures(Signal::Memory, seen).unwrap();
        assert_eq!(of(with(a(), node("v1.37.2-eks-1", GIB), none())), (705_040_384, MEM_TOTAL - GIB));
        let seen = || with(b(), node("v1.37.2", GIB), none());
        assert_eq!((of(seen()).0, is_met(Signal::Memory, seen())), (0, true));
        // The gate is not there before, and may be off; what counts is what the Node says.
        assert_eq!(of(with(a(), node("v1.36.3", GIB), none())).0, 1_778_782_208);
        assert_eq!(of(with(a(), node("v1.37.2", 0), none())).0, 1_778_782_208);
        let off = KubeletOptions { huge_page_aware: Part::Known(false), ..none() };
        assert_eq!(of(with(a(), node("v1.37.2", GIB), off)).0, 1_778_782_208);
    }

    #[test]
    fn whether_huge_pages_are_subtracted_is_not_known_without_version_or_gate_where_there_are_any() {
        let denied = || Unknown::new(Cause::Denied, "the API server refuses it");
        let a = || root(8_053_063_680, 1_610_612_736);
        let silent = || Observation::Node(Reading::Unknown(denied()));
        assert_eq!(figures(Signal::Memory, vec![memory(0), a(), silent()]), Ok((1_778_782_208, MEM_TOTAL)));
        let why = figures(Signal::Memory, vec![memory(1 << 30), a(), silent()]).unwrap_err();
        assert!(why.cause == Cause::Denied && why.why.contains("1 GiB are huge pages"), "{why}");
        let unread = config(KubeletOptions::unread(&denied()));
        assert_eq!(figures(Signal::Memory, vec![memory(0), a(), node("v1.37.2", 1 << 30), unread]), Err(denied()));
    }

    #[test]
    fn allocatable_is_the_limit_of_kubepods() {
        let kubepods = |memory, inactive_file| {
            let (memory, inactive_file) = (Part::Known(memory), Part::Known(inactive_file));
            let kubepods =
                Cgroup { memory, inactive_file, memory_max: Part::Known(7_619_350_528), ..Cgroup::default() };
            vec![Observation::Cgroups(known(Cgroups { kubepods: Some(kubepods), ..Cgroups::default() }))]
        };
        let seen = || kubepods(7_516_192_768, 209_715_200);
        assert_eq!(figures(Signal::AllocatableMemory, seen()), Ok((312_872_960, 7_619_350_528)));
        assert!(!is_met(Signal::AllocatableMemory, seen()));
        assert!(is_met(Signal::AllocatableMemory, kubepods(7_619_350_528, 104_857_599)));
    }

    #[test]
    fn disks_and_process_ids_are_counted_as_the_kubelet_counts() {
        let usage = |available, inodes_free| {
            let (capacity, inodes) = (20_968_443 * 4096, 41_932_800);
            Observation::NodeFs(known(DiskUsage { capacity, available, inodes, inodes_free, ..DiskUsage::default() }))
        };
        let seen = || vec![usage(1_800_000 * 4096, 2_000_000)];
        assert_eq!(figures(Signal::NodeFs, seen()), Ok((7_372_800_000, 85_886_742_528)));
        assert!(is_met(Signal::NodeFs, seen()) && is_met(Signal::NodeFsInodes, seen()));
        // Strictly below.
        assert!(!is_met(Signal::NodeFs, vec![usage(8_588_674_380, 2_096_640)]));
        assert!(!is_met(Signal::NodeFsInodes, vec![usage(8_588_674_380, 2_096_640)]));
        let (pid_max, threads_max) = (Part::Known(4_194_304), Part::Known(62_722));
        let limits = Limits { pid_max, threads_max, ..Limits::default() };
        let load = LoadAvg { tasks: 1250, ..LoadAvg::default() };
        let seen = vec![Observation::Limits(known(limits)), Observation::LoadAvg(known(load))];
        assert_eq!(figures(Signal::Pid, seen), Ok((61_472, 62_722)));
    }

    /// mergeDefaultEvictionSettings is a field that a kubelet before 1.33 does not know.
    #[test]
    fn merged_defaults_are_in_force_from_1_33_on() {
        let merged = KubeletOptions { merged_defaults: [Signal::ImageFs].into(), ..KubeletOptions::default() };
        let of = |seen: Vec<Observation>| {
            let view = view(seen);
            let signals = Signals::extract(&view).unwrap();
            let of = |signal| signals.in_force.of(Hardness::Hard, signal).map(|threshold| threshold.is_some());
            (of(Signal::ImageFs), of(Signal::NodeFs))
        };
        assert_eq!(of(vec![config(merged.clone()), node("v1.33.0", 0)]), (Ok(true), Ok(true)));
        assert_eq!(of(vec![config(merged.clone()), node("v1.32.13-eks-2", 0)]), (Ok(false), Ok(true)));
        let (unknown, read) = of(vec![config(merged)]);
        assert!(unknown.is_err() && read == Ok(true));
    }

    /// Met from 0 to 20 s, not at 30 s, met from 40 s on: with a grace period of 30 s pods are evicted from 70 s on.
    #[test]
    fn a_grace_period_begins_from_zero_when_the_signal_was_above_its_threshold() {
        let mut view = view(Vec::new());
        let mut lasted = |seconds, available| {
            view.follow_signal(Signal::Memory, at(seconds), available);
            let since = Signals::extract(&view).unwrap().below_since(Signal::Memory, 100);
            since.and_then(|since| at(seconds).since(&since)).map(|lasted| lasted.as_secs())
        };
        let samples = [(0, 99), (10, 99), (20, 99), (30, 100), (40, 99), (50, 99), (60, 99), (70, 99)];
        let lasted = samples.map(|(seconds, available)| lasted(seconds, available));
        let expected = [Some(0), Some(10), Some(20), None, Some(0), Some(10), Some(20), Some(30)];
        assert_eq!(lasted, expected);
    }

    #[test]
    fn memory_on_zram_is_named_where_the_kubelet_overlooks_it() {
        let memory =
            MemInfo { total: MEM_TOTAL, swap_total: 1 << 30, zram: Part::Known(300 << 20), ..MemInfo::default() };
        let view = view(vec![Observation::MemInfo(known(memory)), root(8_053_063_680, 1_610_612_736)]);
        let (available, _, note) = Signals::extract(&view).unwrap().figures(Signal::Memory).unwrap();
        let expected = "1 GiB are swapped out to zram, which takes 300 MiB that the kubelet does not count";
        assert_eq!((available, note.as_deref()), (1_778_782_208, Some(expected)));
    }
}
