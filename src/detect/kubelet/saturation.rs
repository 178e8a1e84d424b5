//! NodeSaturated: is a resource of the whole machine used up?

use crate::detect::{Detector, Judge, Settings as All};
use crate::facts::{CpuTimes, LoadAvg, Source, SourceSet, Unknown};
use crate::finding::{Evidence, Finding, Judgement, Kind, Severity, Subject, SubjectType};
use crate::view::View;
use crate::wording;

const KIND: Kind = Kind::NodeSaturated;

/// Thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// CPUs count as busy below this share of idle time, in percent.
    pub idle_percent: u64,
    /// Runnable tasks for each CPU from which on work queues up.
    pub tasks_per_cpu: u64,
    /// Share of the last minute in which all tasks waited for I/O, in percent.
    pub io_percent: u64,
    /// Share of the machine's file handles, in percent.
    pub files_percent: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { idle_percent: 5, tasks_per_cpu: 2, io_percent: 50, files_percent: 90 }
    }
}

/// The judge.
pub const DETECTOR: Detector = Detector {
    kinds: &[KIND],
    needs: SourceSet::NONE,
    parts: SourceSet::NONE,
    uses: SourceSet::of(&[Source::CpuTimes, Source::LoadAvg, Source::Pressure, Source::Limits]),
    judge: Judge::OfView(judge),
};

type Check = fn(&View, &Settings) -> Result<Option<Finding>, Unknown>;

const RESOURCES: [(&str, Check); 3] = [("cpu", cpu), ("io", io), ("files", files)];

fn judge(view: &View, settings: &All) -> Vec<Judgement> {
    let mut judgement = Judgement::new(KIND);
    let results = RESOURCES.map(|(resource, judge)| (resource, judge(view, &settings.saturation)));
    if let [(_, Err(why)), (_, Err(_)), (_, Err(_))] = &results {
        return vec![Judgement::blind(KIND, why)];
    }
    for (resource, result) in results {
        match result {
            Ok(found) => judgement.raised.extend(found),
            Err(why) => judgement.blind_to(subject(resource), &why),
        }
    }
    vec![judgement]
}

fn subject(resource: &str) -> Subject {
    Subject::new(SubjectType::Resource, resource)
}

fn cpu(view: &View, settings: &Settings) -> Result<Option<Finding>, Unknown> {
    let idle = view.cpu.delta(|c| Some(c.idle.saturating_add(c.iowait)))?;
    let total = view.cpu.delta(|c| Some(c.total()))?;
    let (cpu, load) = (view.cpu.known()?, view.load.known()?);
    let share = idle.by.saturating_mul(100).checked_div(total.by).unwrap_or(100);
    if share >= settings.idle_percent || !is_queued(&cpu, &load, settings) {
        return Ok(None);
    }
    let evidence = vec![
        cpu.says(format!("{share} % idle over {} s; {} runnable", total.over.as_secs(), tasks(cpu.running.into()))),
        load.says(format!("load {:.2} {:.2} {:.2} on {}", load.one, load.five, load.fifteen, cpus(&cpu))),
    ];
    let message = format!("the CPUs are used up: {share} % idle, load {:.1} on {}", load.one, cpus(&cpu));
    Ok(Some(finding("cpu", message, evidence)))
}

/// Whether so much work waits that it is more than one task's own trouble. Blocked tasks count in the load.
#[expect(clippy::cast_precision_loss, reason = "a load average")]
fn is_queued(cpu: &CpuTimes, load: &LoadAvg, settings: &Settings) -> bool {
    load.one >= (u64::from(cpu.cpus).saturating_mul(settings.tasks_per_cpu)) as f32
}

fn io(view: &View, settings: &Settings) -> Result<Option<Finding>, Unknown> {
    let pressure = view.pressure.known()?;
    let full = pressure.io.full.map_or(pressure.io.some.avg60, |full| full.avg60);
    #[expect(clippy::cast_precision_loss, reason = "a percentage")]
    let stalled = full >= settings.io_percent as f32;
    // On an idle machine one backup that waits for its disk is all tasks there are.
    let (cpu, load) = (view.cpu.known()?, view.load.known()?);
    if !stalled || !is_queued(&cpu, &load, settings) {
        return Ok(None);
    }
    let mut evidence = vec![pressure.says(format!("all tasks waited for I/O for {full} % of the last minute"))];
    evidence.push(cpu.says(format!("{} blocked on I/O", tasks(cpu.blocked.into()))));
    evidence.push(load.says(format!("load {:.2} on {}", load.one, cpus(&cpu))));
    Ok(Some(finding("io", format!("everything waits for block I/O, {full:.0} % of the last minute"), evidence)))
}

fn files(view: &View, settings: &Settings) -> Result<Option<Finding>, Unknown> {
    let limits = view.limits.known()?;
    let Some(max) = limits.files_max else { return Ok(None) };
    let percent = limits.files.saturating_mul(100).checked_div(max).unwrap_or(0);
    if percent < settings.files_percent {
        return Ok(None);
    }
    let evidence = vec![limits.says(format!("{} of {max} file handles are allocated", limits.files))];
    Ok(Some(finding("files", format!("{} of {max} file handles are in use ({percent} %)", limits.files), evidence)))
}

fn tasks(n: u64) -> String {
    wording::number(n, "task")
}

fn cpus(cpu: &CpuTimes) -> String {
    wording::number(cpu.cpus.into(), "CPU")
}

fn finding(resource: &str, message: String, evidence: Vec<Evidence>) -> Finding {
    let advice = crate::catalogue::row(KIND).act.to_owned();
    Finding { kind: KIND, severity: Severity::Warning, subject: subject(resource), message, evidence, advice }
}
