//! HungTask: is a task blocked in the kernel for minutes?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{KernelEvent, KernelLog, KernelRecord, LoadAvg, NodeTime, Tri};
use crate::finding::{Evidence, Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{BesideTasks, Context, Input, Known, LogBesideTasks, Maybe, Required};
use crate::view::{Seen, sources};
use crate::wording;

const KIND: Kind = Kind::HungTask;

/// The kernel reports a blocked task each two minutes, ten times at most: a report stands for so long.
const STANDS_FOR: Duration = Duration::from_secs(600);

/// A task that was blocked for the two minutes that the kernel waits keeps the load of one minute above this (1 - e^-2).
const LEAST_LOAD: f32 = 0.8;

/// So many tasks are named.
const NAMED: usize = 3;

/// The load is an average of each five seconds: a reading before this does not have the task.
const LOAD_FOLLOWS: Duration = Duration::from_secs(5);

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<HungTask>();

struct HungTask;

impl Detect for HungTask {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Required<sources::KernelLog>, Maybe<sources::LoadAvg>, Context<sources::CpuTimes>, LogBesideTasks);

    fn evaluate((log, load, cpu, tasks): <Self::In as Input>::Of<'_>, around: &Around<'_>, out: &mut Evaluation) {
        let decision = decide(log, &load, tasks, around.now());
        let decision = decision.map(|records| {
            let blocked = cpu.evidence(|cpu| {
                let one = "task waits for I/O (procs_blocked)";
                Some(cpu.says(wording::of(cpu.blocked.into(), one, "tasks wait for I/O (procs_blocked)")))
            });
            finding(log, &records, blocked)
        });
        out.decide(KIND, object, decision);
        out.incomplete(KIND, log.incomplete.as_ref());
    }
}

fn object() -> Object {
    Object::new(ObjectType::Resource, "tasks")
}

/// The kernel's reports that stand, the newest last.
fn decide<'v>(
    log: Seen<'v, KernelLog>,
    load: &Known<'v, LoadAvg>,
    tasks: BesideTasks<'_>,
    now: NodeTime,
) -> Tri<Vec<&'v KernelRecord>> {
    // Tasks that have waited ever since a report may be those that it named: the kernel stops reporting after ten.
    let blocked = tasks.blocked_since();
    let stands = |record: &&KernelRecord| {
        let is_recent = now.up.saturating_sub(record.up) <= STANDS_FOR;
        let goes_on = blocked.is_some_and(|since| since <= record.up.saturating_add(STANDS_FOR));
        matches!(record.event, KernelEvent::HungTask { .. }) && (is_recent || goes_on)
    };
    let records: Vec<&KernelRecord> = log.value.records.iter().filter(stands).collect();
    let Some(newest) = records.last() else { return Tri::No(log.no()) };
    load.ask(|load| {
        if load.at.up > newest.up.saturating_add(LOAD_FOLLOWS) && load.one < LEAST_LOAD {
            return Tri::No(load.no());
        }
        Tri::Yes(records)
    })
}

fn finding(log: Seen<'_, KernelLog>, records: &[&KernelRecord], blocked: Option<Evidence>) -> Finding {
    let mut names: Vec<String> = Vec::new();
    for record in records {
        if let KernelEvent::HungTask { command, pid } = &record.event {
            let name = format!("{command} ({pid})");
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let (task, have) = if names.len() + more == 1 { ("task", "has") } else { ("tasks", "have") };
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let names = names.join(", ");
    let servers: Vec<&str> = log.value.records.iter().filter_map(silent_server).collect();
    let waits = match servers.as_slice() {
        [] => String::new(),
        [server, ..] => format!(": NFS server {server} does not respond"),
    };
    let at = |up: Duration, fact: String| Evidence { at: log.at.wall_at(up), ..log.says(fact) };
    let mut evidence: Vec<Evidence> = records
        .iter()
        .rev()
        .take(4)
        .filter_map(|record| match &record.event {
            KernelEvent::HungTask { command, pid } => {
                Some(at(record.up, format!("the kernel reported task {command} ({pid}) as blocked for minutes")))
            }
            _ => None,
        })
        .collect();
    evidence.extend(servers.iter().take(4).map(|server| log.says(format!("NFS server {server} does not respond"))));
    evidence.extend(blocked);
    Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: object(),
        message: format!("{task} {names}{more} {have} been blocked in the kernel for minutes{waits}"),
        evidence,
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}

fn silent_server(record: &KernelRecord) -> Option<&str> {
    match &record.event {
        KernelEvent::NfsServer { server, answers: false } => Some(server),
        _ => None,
    }
}
