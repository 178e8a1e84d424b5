//! MemoryStall: do tasks spend their time waiting for memory?

use crate::detect::Settings as All;
use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{Cause, Cgroup, Cgroups, MemInfo, Pressure, Tri, Unknown, VmStat};
use crate::finding::{Evidence, Finding, FindingKey, Kind, Object, ObjectType, Severity};
use crate::setting::{Group, number};
use crate::view::input::{Input, Known, KnownPair, Maybe, MaybePair};
use crate::view::{Seen, sources};
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

/// Its settings, for operators.
pub(in crate::detect) const SETTINGS: &[Group<All>] = &[Group {
    name: KIND.name(),
    keys: &[
        number!(
            All,
            "memory-stall-percent",
            "stall-percent",
            "share of 10 s in which all tasks wait for memory",
            1..=100,
            memory_stall.full_percent
        ),
        number!(
            All,
            "memory-short-percent",
            "short-percent",
            "memory is short below this share of it",
            1..=100,
            memory_stall.short_percent
        ),
    ],
}];

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<MemoryStall>();

struct MemoryStall;

impl Detect for MemoryStall {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Maybe<sources::Pressure>, Maybe<sources::MemInfo>, Maybe<sources::Cgroups>, MaybePair<sources::VmStat>);

    fn evaluate(
        (pressure, memory, cgroups, vmstat): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let settings = &around.settings.memory_stall;
        out.decide(KIND, Object::node, machine(&pressure, &memory, &vmstat, settings));
        out.decide(KIND, pods, cgroups.ask(|cgroups| kubepods(&cgroups, settings).into()));
    }
}

fn pods() -> Object {
    Object::new(ObjectType::Cgroup, "kubepods")
}

/// Pressure alone proves nothing: a container at its own limit shows in the machine's figure, too.
fn machine(
    pressure: &Known<'_, Pressure>,
    memory: &Known<'_, MemInfo>,
    vmstat: &KnownPair<'_, VmStat>,
    settings: &Settings,
) -> Tri<Finding> {
    let stalled = pressure.ask(|pressure| stalled(pressure, settings).into());
    // Either of them that is not so settles it, whatever is known of the other.
    stalled.and(|| memory.ask(|memory| short(memory, settings))).map(|((full, pressure), (available, memory))| {
        let mut evidence = vec![
            pressure.says(format!("all tasks waited for memory for {full} % of the last 10 s")),
            memory.says(format!("{available} of {} bytes are available", memory.total)),
        ];
        evidence.extend(reclaim(vmstat));
        if memory.swap_total > 0 {
            evidence.push(memory.says(format!("{} of {} bytes of swap are free", memory.swap_free, memory.swap_total)));
        }
        let message = format!(
            "all tasks on the node waited for memory for {full:.0} % of the last 10 s, with {} available",
            bytes(available)
        );
        finding(Object::node(), message, evidence)
    })
}

/// The finding that all tasks wait for memory, where it is so: pages that are read again for lack of it are I/O as well.
pub(super) fn finding_of_machine(
    pressure: &Known<'_, Pressure>,
    memory: &Known<'_, MemInfo>,
    settings: &Settings,
) -> Tri<FindingKey, ()> {
    let stalled: Tri<_> = pressure.ask(|pressure| stalled(pressure, settings).into());
    match stalled.and(|| memory.ask(|memory| short(memory, settings))) {
        Tri::Yes(_) => Tri::Yes(FindingKey { kind: KIND, object: Object::node() }),
        Tri::No(_) => Tri::No(()),
        Tri::Unknown(why) => Tri::Unknown(why),
    }
}

fn stalled<'v>(pressure: Seen<'v, Pressure>, settings: &Settings) -> Result<Tri<(f32, Seen<'v, Pressure>)>, Unknown> {
    let none = || Unknown::new(Cause::Unsupported, "this kernel does not offer pressure stall information of memory");
    let file = pressure.value.memory.needed(none)?;
    let torn =
        || Unknown::new(Cause::Malformed, "/proc/pressure/memory lacks the line full, which every kernel writes");
    let full = file.full.ok_or_else(torn)?.avg10;
    let stalled = at_least(full, settings.full_percent);
    Ok(if stalled { Tri::Yes((full, pressure)) } else { Tri::No(pressure.no()) })
}

/// With so much available the machine is not short of memory, however large it is, in bytes: who waits is at a limit of its own.
const MOST_SHORT: u64 = 16 << 30;

fn short<'v>(memory: Seen<'v, MemInfo>, settings: &Settings) -> Tri<(u64, Seen<'v, MemInfo>)> {
    let available = memory.available.unwrap_or(memory.free);
    // Huge pages are reserved: they are never available, and nothing is short for it.
    let reserved = memory.huge_pages.seen().ok().flatten().copied().unwrap_or(0);
    let part = percent_of(memory.total.saturating_sub(reserved), settings.short_percent).min(MOST_SHORT);
    let short = available < part;
    if short { Tri::Yes((available, memory)) } else { Tri::No(memory.no()) }
}

fn reclaim(vmstat: &KnownPair<'_, VmStat>) -> Option<Evidence> {
    let vmstat = vmstat.seen().ok()?;
    let scanned = vmstat.delta(|v| v.pgscan_direct).ok()?;
    let faults = vmstat.delta(|v| v.pgmajfault).ok()?;
    let seconds = scanned.over.as_secs();
    Some(vmstat.now.says(format!("{} pages scanned and {} major faults in {seconds} s", scanned.by, faults.by)))
}

fn kubepods(cgroups: &Seen<'_, Cgroups>, settings: &Settings) -> Result<Tri<Finding>, Unknown> {
    // A machine without pods has no pods that wait.
    let Some(group) = &cgroups.value.kubepods else { return Ok(Tri::No(cgroups.no())) };
    let stalled: Tri<f32> = stalled_group(cgroups, group, settings).into();
    Ok(stalled.and(|| at_limit(cgroups, group).into()).map(|(full, (used, limit))| {
        let evidence = vec![
            cgroups.says(format!("all tasks of kubepods waited for memory for {full} % of the last 10 s")),
            cgroups.says(format!("kubepods uses {used} of {limit} bytes, without page cache that was not used lately")),
        ];
        let message = format!("pods wait for memory {full:.0} % of the time: together they are at node allocatable");
        finding(pods(), message, evidence)
    }))
}

fn stalled_group(cgroups: &Seen<'_, Cgroups>, group: &Cgroup, settings: &Settings) -> Result<Tri<f32>, Unknown> {
    // Neither version 1 has it nor a kernel without pressure stall information.
    let none = || Unknown::new(Cause::Unsupported, "this kernel does not offer memory.pressure of control groups");
    let full = group.memory_pressure.needed(none)?.full.map(|full| full.avg10);
    let full = full.filter(|full| at_least(*full, settings.full_percent));
    Ok(full.map_or(Tri::No(cgroups.no()), Tri::Yes))
}

fn at_limit(cgroups: &Seen<'_, Cgroups>, group: &Cgroup) -> Result<Tri<(u64, u64)>, Unknown> {
    // Without a limit there is none to be at.
    let Some(limit) = group.memory_max.seen()? else { return Ok(Tri::No(cgroups.no())) };
    // Page cache fills every group up to its limit, and goes when it must: who waits then waits at a limit of its own.
    let cache = group.inactive_file.seen()?.copied().unwrap_or(0);
    let used = group.memory.seen()?.map(|used| used.saturating_sub(cache));
    let used = used.filter(|used| *used >= percent_of(*limit, 95));
    Ok(used.map_or(Tri::No(cgroups.no()), |used| Tri::Yes((used, *limit))))
}

fn percent_of(whole: u64, percent: u64) -> u64 {
    (whole / 100).saturating_mul(percent)
}

#[expect(clippy::cast_precision_loss, reason = "a percentage")]
fn at_least(share: f32, percent: u64) -> bool {
    share >= percent as f32
}

fn finding(object: Object, message: String, evidence: Vec<Evidence>) -> Finding {
    let advice = crate::catalogue::row(KIND).remediation.to_owned();
    Finding { kind: KIND, severity: Severity::Warning, object, message, evidence, advice }
}
