//! MemoryStall: do tasks spend their time waiting for memory?

use crate::detect::{Detector, Judge, Settings as All};
use crate::facts::{Cgroups, Source, SourceSet, Unknown};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::View;
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
    needs: SourceSet::of(&[Source::Pressure, Source::MemInfo]),
    parts: SourceSet::of(&[Source::Cgroups]),
    uses: SourceSet::of(&[Source::VmStat]),
    judge: Judge::OfView(judge),
};

fn judge(view: &View, settings: &All) -> Vec<Judgement> {
    let mut judgement = Judgement::new(KIND);
    match machine(view, settings) {
        Ok(found) => judgement.raised.extend(found),
        Err(why) => return vec![Judgement::blind(KIND, &why)],
    }
    judgement.raised.extend(kubepods(view, settings));
    vec![judgement]
}

/// Pressure alone proves nothing: a container at its own limit shows in the machine's figure, too.
fn machine(view: &View, settings: &All) -> Result<Option<Finding>, Unknown> {
    let (pressure, memory) = (view.pressure.known()?, view.meminfo.known()?);
    let full = pressure.memory.full.map_or(pressure.memory.some.avg10, |full| full.avg10);
    let available = memory.available.unwrap_or(memory.free);
    let short = available < percent_of(memory.total, settings.memory_stall.short_percent);
    if !at_least(full, settings.memory_stall.full_percent) || !short {
        return Ok(None);
    }
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

fn reclaim(view: &View) -> Option<Evidence> {
    let scanned = view.vmstat.delta(|v| v.pgscan_direct).ok()?;
    let faults = view.vmstat.delta(|v| v.pgmajfault).ok()?;
    let vmstat = view.vmstat.known().ok()?;
    let seconds = scanned.over.as_secs();
    Some(vmstat.says(format!("{} pages scanned and {} major faults in {seconds} s", scanned.by, faults.by)))
}

fn kubepods(view: &View, settings: &All) -> Option<Finding> {
    let cgroups = view.cgroups.known().ok()?;
    let (full, used, limit) = stalled_at_limit(cgroups.value)?;
    if !at_least(full, settings.memory_stall.full_percent) || used < percent_of(limit, 95) {
        return None;
    }
    let evidence = vec![
        cgroups.says(format!("all tasks of kubepods waited for memory for {full} % of the last 10 s")),
        cgroups.says(format!("kubepods uses {used} of {limit} bytes")),
    ];
    let message = format!("pods wait for memory {full:.0} % of the time: together they are at node allocatable");
    Some(finding(Subject::new(SubjectType::Cgroup, "kubepods"), message, evidence))
}

fn stalled_at_limit(cgroups: &Cgroups) -> Option<(f32, u64, u64)> {
    let kubepods = cgroups.kubepods.as_ref()?;
    Some((kubepods.memory_pressure?.full?.avg10, kubepods.memory?, kubepods.memory_max?))
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
