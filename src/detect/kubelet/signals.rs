//! The kubelet's eviction signals, recomputed with the kubelet's own arithmetic.
//!
//! Sources in Kubernetes: `pkg/kubelet/eviction/helpers.go` and `pkg/kubelet/stats`; the same from 1.31 to
//! 1.36. From 1.37 on the kubelet subtracts huge pages from `memory.available`; that is not done here yet.

use crate::facts::{
    Cause, ConfigOrigin, DiskUsage, EvictionSignal, KubeletConfig, Limits, Threshold, ThresholdValue, Thresholds,
    Unknown,
};
use crate::finding::{Headroom, THRESHOLD_UNKNOWN};
use crate::view::{Fact, View};

use EvictionSignal as Signal;

/// What is available, of how much, and what a reader must know about it.
pub(super) type Figures = (u64, u64, Option<String>);

/// How far each signal is from its threshold, or why that is not known.
#[must_use]
pub fn headroom(view: &View) -> Vec<Result<Headroom, (Signal, Unknown)>> {
    let config = view.kubelet_config.known();
    let one = |signal: Signal| {
        let (available, capacity, note) = figures(view, signal).map_err(|why| (signal, why))?;
        let figures = Headroom { signal, available, capacity, hard: None, soft: None, assumed: None, note };
        Ok(match &config {
            Ok(config) => with_thresholds(figures, config),
            Err(why) => with_note(figures, format!("{THRESHOLD_UNKNOWN}: {why}")),
        })
    };
    Signal::ALL.into_iter().map(one).collect()
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

/// The threshold of a signal, if it is met as the kubelet sees it: what is available is below it, or not yet above it by
/// the minimum that must be reclaimed since it last was.
///
/// # Errors
/// Why the threshold is not known.
pub fn met<'a>(
    view: &View,
    thresholds: &'a Thresholds,
    headroom: &Headroom,
) -> Result<Option<(u64, &'a Threshold)>, &'a Unknown> {
    let found = thresholds.of(headroom.signal)?;
    let found = found.and_then(|threshold| Some((in_force(threshold.value, headroom.capacity)?, threshold)));
    Ok(found.filter(|(limit, threshold)| is_met(view, threshold, headroom, *limit)))
}

fn is_met(view: &View, threshold: &Threshold, headroom: &Headroom, limit: u64) -> bool {
    if headroom.available < limit {
        return true;
    }
    let reclaim = threshold.min_reclaim.map_or(0, |v| v.of(headroom.capacity));
    let enough = limit.saturating_add(reclaim);
    if headroom.available >= enough {
        return false;
    }
    let samples: Vec<u64> = view.trends.of(headroom.signal).map(|(_, available)| available).collect();
    let decided = samples.into_iter().rev().find(|available| *available < limit || *available >= enough);
    decided.is_some_and(|available| available < limit)
}

fn figures(view: &View, signal: Signal) -> Result<Figures, Unknown> {
    match signal {
        Signal::Memory => memory(view),
        Signal::AllocatableMemory => allocatable(view),
        Signal::NodeFs => disk(&view.nodefs, |d| (d.available, d.capacity)),
        Signal::NodeFsInodes => disk(&view.nodefs, |d| (d.inodes_free, d.inodes)),
        Signal::ImageFs => disk(&view.imagefs, |d| (d.available, d.capacity)),
        Signal::ImageFsInodes => disk(&view.imagefs, |d| (d.inodes_free, d.inodes)),
        Signal::Pid => pids(view),
    }
}

fn memory(view: &View) -> Result<Figures, Unknown> {
    let total = view.meminfo.known()?.total;
    let cgroups = view.cgroups.known()?;
    let missing = || Unknown::new(Cause::Missing, "the root control group has no figure of the memory in use");
    let root = cgroups.root.needed(missing)?;
    Ok((total.saturating_sub(root.working_set()), total, None))
}

fn allocatable(view: &View) -> Result<Figures, Unknown> {
    let cgroups = view.cgroups.known()?;
    let missing =
        || Unknown::new(Cause::Missing, "there is no kubepods control group: no kubelet has started pods here");
    let kubepods = cgroups.kubepods.as_ref().ok_or_else(missing)?;
    let no_limit =
        || Unknown::new(Cause::Unsupported, "kubepods has no memory limit: node allocatable is not enforced");
    let limit = *kubepods.memory_max.needed(no_limit)?;
    let not_told = || Unknown::new(Cause::Missing, "the kubepods control group has no figure of its memory in use");
    let used = kubepods.memory.needed(not_told)?.saturating_sub(*kubepods.inactive_file.needed(not_told)?);
    Ok((limit.saturating_sub(used), limit, None))
}

fn disk(usage: &Fact<DiskUsage>, pick: impl Fn(&DiskUsage) -> (u64, u64)) -> Result<Figures, Unknown> {
    let usage = usage.known()?;
    let (available, capacity) = pick(usage.value);
    if capacity == 0 {
        // btrfs, for one, has no fixed number of inodes: the kubelet then has no such signal either.
        return Err(Unknown::new(Cause::Unsupported, format!("the filesystem of {} does not count this", usage.path)));
    }
    Ok((available, capacity, usage.assumed.clone().or_else(|| usage.instead_of.clone())))
}

/// Process ids that are left, and how many there are: threads count.
fn pids(view: &View) -> Result<Figures, Unknown> {
    let most = most_tasks(view.limits.known()?.value)?;
    Ok((most.saturating_sub(view.load.known()?.tasks), most, None))
}

/// How many threads there can be.
pub(super) fn most_tasks(limits: &Limits) -> Result<u64, Unknown> {
    let own = || {
        let why = "kernel.pid_max of the host is not told in a pid namespace of our own (Linux 6.14 and later, without hostPID)";
        Unknown::new(Cause::Unsupported, why)
    };
    let unlimited = || Unknown::new(Cause::Unsupported, "the kernel has no kernel.threads-max");
    Ok(*limits.pid_max.needed(own)?.min(limits.threads_max.needed(unlimited)?))
}
