//! HungTask: is a task blocked in the kernel for minutes?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{
    Cause, HungTaskReports, KernelEvent, KernelLog, KernelRecord, Limits, LoadAvg, NodeTime, Tri, Unknown,
};
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
    type In = (
        Required<sources::KernelLog>,
        Maybe<sources::LoadAvg>,
        Maybe<sources::Limits>,
        Context<sources::CpuTimes>,
        LogBesideTasks,
    );

    fn evaluate(
        (log, load, limits, cpu, tasks): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let decision = match (decide(log, &load, tasks, around.now), unreported(&limits)) {
            (Tri::No(_), Some(why)) => silent(&load, why),
            (decision, _) => decision,
        };
        let decision = decision.map(|reports| {
            let blocked = cpu.evidence(|cpu| {
                let one = "task waits for I/O (procs_blocked)";
                Some(cpu.says(wording::of(cpu.blocked.into(), one, "tasks wait for I/O (procs_blocked)")))
            });
            finding(log, &reports, blocked)
        });
        out.decide(KIND, object, decision);
        out.incomplete(KIND, log.incomplete.as_ref());
    }
}

fn object() -> Object {
    Object::new(ObjectType::Resource, "tasks")
}

/// Why the kernel may not report a task that is blocked now, if so.
fn unreported(limits: &Known<'_, Limits>) -> Option<Unknown> {
    let reports = match limits.seen().map(|limits| limits.value.hung_task_reports.seen()) {
        Err(why) | Ok(Err(why)) => return Some(why.clone()),
        Ok(Ok(reports)) => reports?,
    };
    match reports {
        HungTaskReports::On => None,
        HungTaskReports::Spent => {
            let why = "the kernel has written as many reports of blocked tasks as it may in one boot \
                       (kernel.hung_task_warnings is 0: set it to 10)";
            Some(Unknown::new(Cause::Incomplete, why))
        }
        HungTaskReports::Off => {
            let why = "the kernel does not report blocked tasks (kernel.hung_task_timeout_secs is 0 or not there)";
            Some(Unknown::new(Cause::Unsupported, why))
        }
    }
}

/// Nothing is reported, and nothing would be: still a load that is too low for it shows that no task is blocked.
fn silent<Y>(load: &Known<'_, LoadAvg>, why: Unknown) -> Tri<Y> {
    load.ask(|load| if load.one < LEAST_LOAD { Tri::No(load.no()) } else { Tri::Unknown(why) })
}

/// A record of the log that names a blocked task, and the task.
type Report<'v> = (&'v KernelRecord, String);

/// The kernel's reports that stand, the newest last.
fn decide<'v>(
    log: Seen<'v, KernelLog>,
    load: &Known<'v, LoadAvg>,
    tasks: BesideTasks<'_>,
    now: NodeTime,
) -> Tri<Vec<Report<'v>>> {
    let all = log.value.records.iter().filter_map(|record| match &record.event {
        KernelEvent::HungTask { command, pid } => Some((record, format!("{command} ({pid})"))),
        _ => None,
    });
    let is_old = |(record, _): &Report<'_>| now.up.saturating_sub(record.up) > STANDS_FOR;
    let (mut reports, recent): (Vec<Report<'_>>, Vec<Report<'_>>) = all.partition(is_old);
    // Tasks that have waited ever since a report may be those that it named: the kernel stops reporting after ten.
    match tasks.blocked_since() {
        Ok(Some(since)) => reports.retain(|(record, _)| since <= record.up.saturating_add(STANDS_FOR)),
        Err(why) if recent.is_empty() && !reports.is_empty() => return Tri::Unknown(why),
        Ok(None) | Err(_) => reports.clear(),
    }
    reports.extend(recent);
    let Some((newest, _)) = reports.last() else { return Tri::No(log.no()) };
    load.ask(|load| {
        if load.at.up > newest.up.saturating_add(LOAD_FOLLOWS) && load.one < LEAST_LOAD {
            return Tri::No(load.no());
        }
        Tri::Yes(reports)
    })
}

fn finding(log: Seen<'_, KernelLog>, reports: &[Report<'_>], blocked: Option<Evidence>) -> Finding {
    let mut names: Vec<&str> = Vec::new();
    for (_, task) in reports {
        if !names.contains(&task.as_str()) {
            names.push(task);
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
    let last = reports.iter().rev().take(4);
    let reported = |task: &str| format!("the kernel reported task {task} as blocked for minutes");
    let mut evidence: Vec<Evidence> = last.map(|(record, task)| log.reports(record, reported(task))).collect();
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
