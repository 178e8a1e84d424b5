//! NodeSaturated: is a resource of the whole machine used up?

use crate::detect::Settings as All;
use crate::detect::volumes::disks_of_the_machine;
use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{BlockDevices, Cause, CpuTimes, Limits, LoadAvg, Mounts, Pressure, Tri, Unknown, percent_of_ticks};
use crate::finding::{Above, Evidence, Finding, Kind, Object, ObjectType, Severity};
use crate::setting::{Group, number};
use crate::view::input::{Cited, Context, Input, Known, KnownPair, Maybe, MaybePair};
use crate::view::{Seen, sources};
use crate::wording;

use super::memory_stall;

const KIND: Kind = Kind::NodeSaturated;

/// CPU time that the hypervisor withholds, in percent, from which on the CPUs are not used up by what runs here.
const WITHHELD: u64 = 33;

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

/// Its settings, for operators.
pub(in crate::detect) const SETTINGS: &[Group<All>] = &[Group {
    name: KIND.name(),
    keys: &[
        number!(
            All,
            "cpu-idle-percent",
            "cpu-idle-percent",
            "CPUs are busy below this share of idle time",
            0..=100,
            saturation.idle_percent
        ),
        number!(
            All,
            "load-per-cpu",
            "load-per-cpu",
            "load for each CPU from which on work is queued",
            1..=100,
            saturation.tasks_per_cpu
        ),
        number!(
            All,
            "io-stall-percent",
            "io-stall-percent",
            "share of a minute in which all tasks wait for I/O",
            1..=100,
            saturation.io_percent
        ),
        number!(
            All,
            "file-handles-warn-percent",
            "file-handles-warn-percent",
            "share of the machine's file handles",
            1..=100,
            saturation.files_percent
        ),
    ],
}];

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<NodeSaturated>();

struct NodeSaturated;

impl Detect for NodeSaturated {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (
        MaybePair<sources::CpuTimes>,
        Maybe<sources::LoadAvg>,
        Maybe<sources::Pressure>,
        Maybe<sources::Limits>,
        Maybe<sources::MemInfo>,
        Context<sources::Mounts>,
        Context<sources::BlockDevices>,
    );

    fn evaluate(
        (cpu_times, load, pressure, limits, memory, mounts, block): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let settings = &around.settings.saturation;
        let steals = || Vec::from_iter(is_withheld(&cpu_times).then(|| Above::of(Kind::CpuSteal, Object::node())));
        let cpu: Tri<Finding> = cpu(&cpu_times, &load, settings).into();
        out.decide(KIND, || object("cpu"), cpu.map(|cpu| Raised { follows: steals(), ..cpu.into() }));
        let io: Tri<Finding> = io(&cpu_times, &load, &pressure, settings).into();
        let follows = || memory_stall::finding_of_machine(&pressure, &memory, &around.settings.memory_stall);
        out.decide(
            KIND,
            || object("io"),
            io.map(|io| Raised { shown_under: follows(), follows: slow_disks(&mounts, &block), ..io.into() }),
        );
        out.decide(KIND, || object("files"), limits.ask(|limits| files(&limits, settings).into()));
    }
}

fn object(resource: &str) -> Object {
    Object::new(ObjectType::Resource, resource)
}

fn cpu(cpu: &KnownPair<'_, CpuTimes>, load: &Known<'_, LoadAvg>, settings: &Settings) -> Result<Tri<Finding>, Unknown> {
    let cpu = cpu.seen()?;
    let idle = cpu.delta(|c| Some(c.idle.saturating_add(c.iowait)))?;
    let total = cpu.delta(|c| Some(c.total()))?;
    let share = percent_of_ticks(idle.by, total.by)?.unwrap_or(100);
    let cpu = cpu.now;
    if share >= settings.idle_percent {
        return Ok(Tri::No(cpu.no()));
    }
    let load = load.seen()?;
    if !is_queued(&cpu, &load, settings) {
        return Ok(Tri::No(load.no()));
    }
    let evidence = vec![
        cpu.says(format!("{share} % idle over {} s; {} runnable", total.over.as_secs(), tasks(cpu.running.into()))),
        load.says(format!("load {:.2} {:.2} {:.2} on {}", load.one, load.five, load.fifteen, cpus(&cpu))),
    ];
    let message = format!("the CPUs are used up: {share} % idle, load {:.1} on {}", load.one, cpus(&cpu));
    Ok(Tri::Yes(finding("cpu", message, evidence)))
}

/// Whether a third of the time and more is the hypervisor's: what is withheld is not used up.
fn is_withheld(cpu: &KnownPair<'_, CpuTimes>) -> bool {
    let share = || {
        let cpu = cpu.seen().ok()?;
        let steal = cpu.delta(|c| Some(c.steal)).ok()?;
        percent_of_ticks(steal.by, cpu.delta(|c| Some(c.total())).ok()?.by).ok()?
    };
    share().is_some_and(|percent| percent >= WITHHELD)
}

/// What everything may wait for: a disk of the machine's own, or what holds all of them back. A disk that completes nothing counts
/// whosever it is, as its tasks do nothing else.
fn slow_disks(mounts: &Cited<'_, Mounts>, block: &Cited<'_, BlockDevices>) -> Vec<Above> {
    let of_machine = mounts.name(|mounts| block.name(|block| Some(disks_of_the_machine(mounts.value, block.value))));
    let of_disk = |kind| {
        let disks = of_machine.iter().flatten();
        disks.map(move |disk| Above::of(kind, Object::new(ObjectType::Device, *disk)))
    };
    let kubepods = Above::of(Kind::MemoryStall, Object::new(ObjectType::Cgroup, "kubepods"));
    [kubepods, Above::any(Kind::StalledIo)]
        .into_iter()
        .chain(of_disk(Kind::EbsBurstForecast))
        .chain(of_disk(Kind::VolumeThrottled))
        .chain([Above::of(Kind::InstanceEbsThrottled, Object::node())])
        .collect()
}

/// Whether so much work waits that it is more than one task's own trouble. Blocked tasks count in the load.
#[expect(clippy::cast_precision_loss, reason = "a load average")]
fn is_queued(cpu: &CpuTimes, load: &LoadAvg, settings: &Settings) -> bool {
    load.one >= (u64::from(cpu.cpus).saturating_mul(settings.tasks_per_cpu)) as f32
}

fn io(
    cpu: &KnownPair<'_, CpuTimes>,
    load: &Known<'_, LoadAvg>,
    pressure: &Known<'_, Pressure>,
    settings: &Settings,
) -> Result<Tri<Finding>, Unknown> {
    let pressure = pressure.seen()?;
    let file = pressure
        .value
        .io
        .needed(|| Unknown::new(Cause::Unsupported, "this kernel does not offer pressure stall information of I/O"))?;
    let torn = || Unknown::new(Cause::Malformed, "/proc/pressure/io lacks the line full, which every kernel writes");
    let full = file.full.ok_or_else(torn)?.avg60;
    #[expect(clippy::cast_precision_loss, reason = "a percentage")]
    let stalled = full >= settings.io_percent as f32;
    if !stalled {
        return Ok(Tri::No(pressure.no()));
    }
    // On an idle machine one backup that waits for its disk is all tasks there are.
    let (cpu, load) = (cpu.seen()?.now, load.seen()?);
    if !is_queued(&cpu, &load, settings) {
        return Ok(Tri::No(load.no()));
    }
    let mut evidence = vec![pressure.says(format!("all tasks waited for I/O for {full} % of the last minute"))];
    evidence.push(cpu.says(format!("{} blocked on I/O", tasks(cpu.blocked.into()))));
    evidence.push(load.says(format!("load {:.2} on {}", load.one, cpus(&cpu))));
    Ok(Tri::Yes(finding("io", format!("everything waits for block I/O, {full:.0} % of the last minute"), evidence)))
}

fn files(limits: &Seen<'_, Limits>, settings: &Settings) -> Result<Tri<Finding>, Unknown> {
    // Where the kernel has no limit nothing can reach it.
    let Some(max) = limits.value.files_max.seen()? else { return Ok(Tri::No(limits.no())) };
    let uncounted = || Unknown::new(Cause::Unsupported, "the kernel does not count file handles");
    let files = limits.value.files.needed(uncounted)?;
    let percent = files.saturating_mul(100).checked_div(*max).unwrap_or(0);
    if percent < settings.files_percent {
        return Ok(Tri::No(limits.no()));
    }
    let evidence = vec![limits.says(format!("{files} of {max} file handles are allocated"))];
    Ok(Tri::Yes(finding("files", format!("{files} of {max} file handles are in use ({percent} %)"), evidence)))
}

fn tasks(n: u64) -> String {
    wording::number(n, "task")
}

fn cpus(cpu: &CpuTimes) -> String {
    wording::number(cpu.cpus.into(), "CPU")
}

fn finding(resource: &str, message: String, evidence: Vec<Evidence>) -> Finding {
    let advice = crate::catalogue::row(KIND).remediation.to_owned();
    Finding { kind: KIND, severity: Severity::Warning, object: object(resource), message, evidence, advice }
}
