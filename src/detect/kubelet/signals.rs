//! The kubelet's eviction signals, recomputed with the kubelet's own arithmetic.
//!
//! Sources in Kubernetes: `pkg/kubelet/eviction/helpers.go` and `pkg/kubelet/stats`; the same from 1.31 to
//! 1.36. From 1.37 on the kubelet subtracts huge pages from `memory.available`; that is not done here yet.

use crate::facts::{
    Cause, Cgroups, ConfigOrigin, DiskUsage, EvictionSignal, KubeletConfig, Limits, LoadAvg, MemInfo, Part, SourceSet,
    Threshold, ThresholdValue, Thresholds, Unknown,
};
use crate::finding::{Evidence, Headroom, THRESHOLD_UNKNOWN};
use crate::view::input::{Input, Known, Maybe};
use crate::view::{Seen, Trends, View, sources};

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
    trends: &'v Trends,
}

impl Input for Signals<'_> {
    type Of<'v> = Signals<'v>;
    const NEEDS: SourceSet = Sources::NEEDS;
    const PARTS: SourceSet = Sources::PARTS;
    const CONTEXT: SourceSet = Sources::CONTEXT;

    fn extract(view: &View) -> Result<Signals<'_>, &Unknown> {
        let (memory, cgroups, nodefs, imagefs, limits, load) = Sources::extract(view)?;
        Ok(Signals { memory, cgroups, nodefs, imagefs, limits, load, trends: &view.trends })
    }
}

/// How far each signal is from its threshold, or why that is not known: for a report.
#[must_use]
pub fn headroom(view: &View) -> Vec<Result<Headroom, (Signal, Unknown)>> {
    match Signals::extract(view) {
        Ok(signals) => signals.headroom(view.kubelet()).collect(),
        Err(why) => Signal::ALL.into_iter().map(|signal| Err((signal, why.clone()))).collect(),
    }
}

fn with_thresholds(figures: Headroom, config: &KubeletConfig) -> Headroom {
    if config.origin == ConfigOrigin::NoKubelet {
        return with_note(figures, "no kubelet runs here".to_owned());
    }
    let (signal, capacity) = (figures.signal, figures.capacity);
    let of = |threshold: Option<&Threshold>| threshold.and_then(|t| in_force(t.value, capacity));
    let (hard, soft) = (config.hard.of(signal), config.soft.of(signal));
    let figures = Headroom {
        hard: hard.map_or(None, of),
        soft: soft.map_or(None, of),
        assumed: of(config.hard.assumed(signal)),
        ..figures
    };
    match (hard, soft) {
        (Err(why), _) => with_note(figures, format!("{THRESHOLD_UNKNOWN}: {why}")),
        (_, Err(why)) => with_note(figures, format!("the soft threshold is not known: {why}")),
        (Ok(_), Ok(_)) => figures,
    }
}

fn with_note(figures: Headroom, first: String) -> Headroom {
    let note = match figures.note {
        Some(other) => format!("{first}; {other}"),
        None => first,
    };
    Headroom { note: Some(note), ..figures }
}

/// 0 % and 100 % switch a threshold off.
fn in_force(value: ThresholdValue, capacity: u64) -> Option<u64> {
    match value {
        ThresholdValue::Percentage(share) if share <= 0.0 || share >= 1.0 => None,
        value => Some(value.of(capacity)),
    }
}

impl<'v> Signals<'v> {
    /// How far each signal is from its threshold, or why that is not known.
    pub(super) fn headroom(
        self,
        config: Result<Seen<'v, KubeletConfig>, &'v Unknown>,
    ) -> impl Iterator<Item = Result<Headroom, (Signal, Unknown)>> + use<'v> {
        Signal::ALL.into_iter().map(move |signal| {
            let (available, capacity, note) = self.figures(signal).map_err(|why| (signal, why))?;
            let figures = Headroom { signal, available, capacity, hard: None, soft: None, assumed: None, note };
            Ok(match config {
                Ok(config) => with_thresholds(figures, config.value),
                Err(why) => with_note(figures, format!("{THRESHOLD_UNKNOWN}: {why}")),
            })
        })
    }

    /// The threshold of a signal, if it is met as the kubelet sees it: what is available is below it, or not yet above it by
    /// the minimum that must be reclaimed since it last was.
    ///
    /// # Errors
    /// Why the threshold is not known.
    pub(super) fn met<'a>(
        &self,
        thresholds: &'a Thresholds,
        headroom: &Headroom,
    ) -> Result<Option<(u64, &'a Threshold)>, &'a Unknown> {
        let found = thresholds.of(headroom.signal)?;
        let found = found.and_then(|threshold| Some((in_force(threshold.value, headroom.capacity)?, threshold)));
        Ok(found.filter(|(limit, threshold)| self.is_met(threshold, headroom, *limit)))
    }

    fn is_met(&self, threshold: &Threshold, headroom: &Headroom, limit: u64) -> bool {
        if headroom.available < limit {
            return true;
        }
        let reclaim = threshold.min_reclaim.map_or(0, |v| v.of(headroom.capacity));
        let enough = limit.saturating_add(reclaim);
        if headroom.available >= enough {
            return false;
        }
        let samples: Vec<u64> = self.trends.of(headroom.signal).map(|(_, available)| available).collect();
        let decided = samples.into_iter().rev().find(|available| *available < limit || *available >= enough);
        decided.is_some_and(|available| available < limit)
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
        let total = self.memory.seen()?.total;
        let cgroups = self.cgroups.seen()?;
        let missing = || Unknown::new(Cause::Missing, "the root control group has no figure of the memory in use");
        let root = cgroups.root.needed(missing)?;
        Ok((total.saturating_sub(root.working_set()), total, None))
    }

    fn allocatable(&self) -> Result<Figures, Unknown> {
        let cgroups = self.cgroups.seen()?;
        let missing =
            || Unknown::new(Cause::Missing, "there is no kubepods control group: no kubelet has started pods here");
        let kubepods = cgroups.kubepods.as_ref().ok_or_else(missing)?;
        let no_limit =
            || Unknown::new(Cause::Unsupported, "kubepods has no memory limit: node allocatable is not enforced");
        let limit = *kubepods.memory_max.needed(no_limit)?;
        let no_figure =
            || Unknown::new(Cause::Missing, "the kubepods control group has no figure of its memory in use");
        let used = kubepods.memory.needed(no_figure)?.saturating_sub(*kubepods.inactive_file.needed(no_figure)?);
        Ok((limit.saturating_sub(used), limit, None))
    }

    /// Process ids that are left, and how many there are: threads count.
    fn pids(&self) -> Result<Figures, Unknown> {
        let most = most_tasks(self.limits.seen()?.value)?;
        Ok((most.saturating_sub(self.load.seen()?.tasks), most, None))
    }

    /// Why it is only assumed that the filesystem of a signal is the one that was asked, if so.
    pub(super) fn assumed_place(&self, signal: Signal) -> Option<&'v str> {
        self.disk(signal)?.value.assumed.as_deref()
    }

    /// The filesystem of a signal.
    fn disk(&self, signal: Signal) -> Option<Seen<'v, DiskUsage>> {
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
    let unlimited = || Unknown::new(Cause::Unsupported, "the kernel has no kernel.threads-max");
    Ok(*limits.pid_max.needed(own)?.min(limits.threads_max.needed(unlimited)?))
}
