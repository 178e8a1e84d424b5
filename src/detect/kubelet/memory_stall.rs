//! MemoryStall: do tasks spend their time waiting for memory?

use crate::detect::{Detector, Judge, Settings as All};
use crate::facts::{Cause, Cgroup, MemInfo, Pressure, Source, SourceSet, Unknown};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::{Seen, View};
use crate::wording::bytes;

const KIND: Kind = Kind::MemoryStall;

/// Thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Share of the last 10 s in which all tasks waited for memory, in percent.
    pub full_percent: u64,
    /// Memory counts as short when less than this share of it is available, in percent.
    pub short_percent: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { full_percent: 10, short_percent: 10 }
    }
}

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::NONE,
    parts: SourceSet::NONE,
    uses: SourceSet::of(&[Source::Pressure, Source::MemInfo, Source::Cgroups, Source::VmStat]),
    judge: Judge::OfView(judge),
};

fn judge(view: &View, settings: &All) -> Vec<Judgement> {
    let mut judgement = Judgement::new(KIND);
    // Neither rests on the files of the other.
    let (machine, kubepods) = (machine(view, settings), kubepods(view, settings));
    if let (Err(why), Err(_)) = (&machine, &kubepods) {
        return vec![Judgement::blind(KIND, why)];
    }
    for (subject, result) in [(Subject::node(), machine), (pods(), kubepods)] {
        match result {
            Ok(found) => judgement.raised.extend(found),
            Err(why) => judgement.blind_to(subject, &why),
        }
    }
    vec![judgement]
}

fn pods() -> Subject {
    Subject::new(SubjectType::Cgroup, "kubepods")
}

/// Pressure alone proves nothing: a container at its own limit shows in the machine's figure, too.
fn machine(view: &View, settings: &All) -> Result<Option<Finding>, Unknown> {
    let Some(((full, pressure), (available, memory))) = both(stalled(view, settings), short(view, settings))? else {
        return Ok(None);
    };
    let mut evidence = vec![
        pressure.says(format!("all tasks waited for memory for {full} % of the last 10 s")),
        memory.says(format!("{available} of {} bytes are available", memory.total)),
    ];
    evidence.extend(reclaim(view));
    if memory.swap_total > 0 {
        evidence.push(memory.says(format!("{} of {} bytes of swap are free", memory.swap_free, memory.swap_total)));
    }
    let message = format!("the machine waits for memory {full:.0} % of the time, with {} available", bytes(available));
    Ok(Some(finding(Subject::node(), message, evidence)))
}

/// Whether both are so: either of them that is not settles it, whatever is known of the other.
fn both<A, B>(one: Result<Option<A>, Unknown>, two: Result<Option<B>, Unknown>) -> Result<Option<(A, B)>, Unknown> {
    match (one, two) {
        (Ok(None), _) | (_, Ok(None)) => Ok(None),
        (Ok(Some(one)), Ok(Some(two))) => Ok(Some((one, two))),
        (Err(why), _) | (_, Err(why)) => Err(why),
    }
}

fn stalled<'v>(view: &'v View, settings: &All) -> Result<Option<(f32, Seen<'v, Pressure>)>, Unknown> {
    let pressure = view.pressure.known()?;
    let file = pressure.memory.needed(|| Unknown::new(Cause::Unsupported, "the kernel has no pressure of memory"))?;
    let full = file.full.map_or(file.some.avg10, |full| full.avg10);
    Ok(at_least(full, settings.memory_stall.full_percent).then_some((full, pressure)))
}

fn short<'v>(view: &'v View, settings: &All) -> Result<Option<(u64, Seen<'v, MemInfo>)>, Unknown> {
    let memory = view.meminfo.known()?;
    let available = memory.available.unwrap_or(memory.free);
    let short = available < percent_of(memory.total, settings.memory_stall.short_percent);
    Ok(short.then_some((available, memory)))
}

fn reclaim(view: &View) -> Option<Evidence> {
    let scanned = view.vmstat.delta(|v| v.pgscan_direct).ok()?;
    let faults = view.vmstat.delta(|v| v.pgmajfault).ok()?;
    let vmstat = view.vmstat.known().ok()?;
    let seconds = scanned.over.as_secs();
    Some(vmstat.says(format!("{} pages scanned and {} major faults in {seconds} s", scanned.by, faults.by)))
}

fn kubepods(view: &View, settings: &All) -> Result<Option<Finding>, Unknown> {
    let cgroups = view.cgroups.known()?;
    let Some(group) = &cgroups.value.kubepods else { return Ok(None) };
    let Some((full, (used, limit))) = both(stalled_group(group, settings), at_limit(group).map_err(Clone::clone))?
    else {
        return Ok(None);
    };
    let evidence = vec![
        cgroups.says(format!("all tasks of kubepods waited for memory for {full} % of the last 10 s")),
        cgroups.says(format!("kubepods uses {used} of {limit} bytes")),
    ];
    let message = format!("pods wait for memory {full:.0} % of the time: together they are at node allocatable");
    Ok(Some(finding(pods(), message, evidence)))
}

fn stalled_group(group: &Cgroup, settings: &All) -> Result<Option<f32>, Unknown> {
    // Neither version 1 has it nor a kernel without pressure stall information.
    let none = || Unknown::new(Cause::Unsupported, "control groups have no memory pressure in this kernel");
    let full = group.memory_pressure.needed(none)?.full.map(|full| full.avg10);
    Ok(full.filter(|full| at_least(*full, settings.memory_stall.full_percent)))
}

fn at_limit(group: &Cgroup) -> Result<Option<(u64, u64)>, &Unknown> {
    // Without a limit there is none to be at.
    let Some(limit) = group.memory_max.seen()? else { return Ok(None) };
    let used = group.memory.seen()?.filter(|used| **used >= percent_of(*limit, 95));
    Ok(used.map(|used| (*used, *limit)))
}

fn percent_of(whole: u64, percent: u64) -> u64 {
    (whole / 100).saturating_mul(percent)
}

#[expect(clippy::cast_precision_loss, reason = "a percentage")]
fn at_least(share: f32, percent: u64) -> bool {
    share >= percent as f32
}

fn finding(subject: Subject, message: String, evidence: Vec<Evidence>) -> Finding {
    let advice = crate::catalogue::row(KIND).act.to_owned();
    Finding { kind: KIND, severity: Severity::Warning, subject, message, evidence, advice }
}
