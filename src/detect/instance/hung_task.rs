//! HungTask: is a task blocked in the kernel for minutes?

use std::collections::BTreeSet;
use std::time::Duration;

use crate::detect::volumes::stack::Below;
use crate::detect::volumes::stalled_io;
use crate::detect::{Around, Detect, Detector, Evaluation, Raised};
use crate::facts::{
    BlockDevices, Cause, HungTaskCount, HungTaskReports, KernelEvent, KernelLog, KernelRecord, KubeletDirs, Limits,
    LoadAvg, Lookup, MountEntry, Mounts, NodeTime, TaskState, Tasks, Tri, Unknown, VolumePath,
};
use crate::finding::{Above, Evidence, Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{
    Asked, BesideHung, BesideTasks, Cited, Context, Input, Known, LogBesideHung, LogBesideTasks, Maybe, Remembered,
    Required,
};
use crate::view::{Counted, Seen, sources};
use crate::wording;

const KIND: Kind = Kind::HungTask;

/// A task was blocked for two minutes before the kernel reports it, and the kernel looks each two.
const BLOCKED_FOR: Duration = Duration::from_secs(240);

/// Bytes that the kernel keeps of the name of a task.
const LONGEST_NAME: usize = 15;

/// The kernel reports a blocked task each two minutes, ten times at most: a report counts for so long, and longer while the task is
/// seen to wait.
const STANDS_FOR: Duration = Duration::from_secs(600);

/// A task that was blocked for the two minutes that the kernel waits keeps the load of one minute above this (1 - e^-2).
const LEAST_LOAD: f32 = 0.8;

/// So many tasks are named.
const NAMED: usize = 3;
/// So many are looked at.
const MAX_ASKED: usize = 16;

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
        LogBesideHung,
        Maybe<sources::HungTaskCount>,
        Asked<sources::Tasks>,
        Context<sources::Mounts>,
        Context<sources::KubeletDirs>,
        Context<sources::BlockDevices>,
    );

    fn evaluate(
        (log, load, limits, cpu, waiting, hung, count, tasks, mounts, dirs, block): <Self::In as Input>::Of<'_>,
        around: &Around<'_>,
        out: &mut Evaluation,
    ) {
        let sight = Sight { log, hung, count, tasks, waiting, now: around.now };
        let decision = match (decide(&sight, &load, |pid| out.ask(KIND, Lookup::Task(pid))), unreported(&limits)) {
            (Tri::No(_), Some(why)) => silent(&load, why),
            (decision, _) => decision,
        };
        let waits_for_memory = || xfs_waits(log, &load, around.now);
        let decision = decision.map(|(reports, awaited)| {
            let blocked = cpu.evidence(|cpu| {
                let one = "task waits for I/O (procs_blocked)";
                Some(cpu.says(wording::of(cpu.blocked.into(), one, "tasks wait for I/O (procs_blocked)")))
            });
            let follows = causes(log, &reports, &block);
            Raised { awaited, follows, ..finding(log, &reports, (&mounts, &dirs), blocked).into() }
        });
        let decision = decision.or_else(|| waits_for_memory().map(Raised::from));
        out.decide(KIND, object, decision);
        out.incomplete(KIND, log.incomplete.as_ref());
    }
}

/// Whether tasks wait in XFS for memory that is not there in one piece. They look for it again and again, so that the kernel does not report
/// them as blocked, and they are not in state D at each moment.
fn xfs_waits(log: Seen<'_, KernelLog>, load: &Known<'_, LoadAvg>, now: NodeTime) -> Tri<Finding> {
    let is_recent = |record: &&KernelRecord| now.up.saturating_sub(record.up) <= STANDS_FOR;
    let mut waits = log.value.records.iter().rev().filter(is_recent).filter_map(|record| match &record.event {
        KernelEvent::XfsWaitsForMemory { command, pid, bytes } => Some((record, command, pid, *bytes)),
        _ => None,
    });
    let Some((record, command, pid, needed)) = waits.next() else { return Tri::No(log.no()) };
    let fact = format!("XFS: {command}({pid}) possible memory allocation deadlock size {needed}");
    let finding = Finding {
        kind: KIND,
        severity: Severity::Warning,
        object: object(),
        message: format!(
            "task {command} ({pid}) waits in the kernel until XFS has {} of memory in one piece: memory is fragmented",
            wording::bytes(needed)
        ),
        evidence: vec![log.reports(record, fact)],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    };
    load.ask(|load| {
        if load.at.up > record.up.saturating_add(LOAD_FOLLOWS) && load.one < LEAST_LOAD {
            return Tri::No(load.no());
        }
        Tri::Yes(finding)
    })
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

/// What shows whether a report is true, and whether its task waits on.
struct Sight<'v> {
    log: Seen<'v, KernelLog>,
    hung: BesideHung<'v>,
    count: Known<'v, HungTaskCount>,
    tasks: Remembered<'v, Tasks>,
    waiting: BesideTasks<'v>,
    now: NodeTime,
}

/// A record of the log that names a blocked task.
#[derive(Clone)]
struct Report<'v> {
    record: &'v KernelRecord,
    command: &'v str,
    pid: u32,
    is_recent: bool,
    /// Whether the kernel counted it.
    is_counted: bool,
    /// What shows that it is so, beside the log.
    shown: Vec<Evidence>,
    /// The kernel's function that it waits in.
    waits_in: Option<&'v str>,
}

/// What is known of a report.
enum Stands<'v> {
    /// Its task is blocked.
    Yes(Report<'v>),
    /// The kernel counted no blocked task, or this one goes on.
    No,
    /// The task was not looked at since: the report is true as far as is known.
    Awaits(Report<'v>, Unknown),
    /// The task cannot be looked at.
    Unknown(Report<'v>, Unknown),
}

impl<'v> Sight<'v> {
    /// The last report of each task, the newest first.
    fn reports(&self) -> Vec<Report<'v>> {
        let mut known = BTreeSet::new();
        let all = self.log.value.records.iter().rev().filter_map(|record| match &record.event {
            KernelEvent::HungTask { command, pid } if known.insert(*pid) => {
                let is_recent = self.now.up.saturating_sub(record.up) <= STANDS_FOR;
                Some(Report {
                    record,
                    command,
                    pid: *pid,
                    is_recent,
                    is_counted: false,
                    shown: Vec::new(),
                    waits_in: None,
                })
            }
            _ => None,
        });
        all.take(MAX_ASKED).collect()
    }

    /// Why it is not known whether a report that the kernel did not count, as far as is known, is true: what could contradict it is not read.
    fn uncertain(&self, report: &Report<'_>, why: &Unknown) -> Option<Unknown> {
        if report.is_counted {
            return None;
        }
        // On a machine that shows no tasks it goes by the count, and where there is none by the log and the load.
        if !matches!(why.cause, Cause::Missing | Cause::Unsupported) {
            return Some(why.clone());
        }
        let count = self.count.seen().map(|count| count.value.detected.unread());
        let unread = count.unwrap_or_else(|why| (why.cause != Cause::NotAsked).then_some(why));
        unread.cloned()
    }

    fn stands(&self, mut report: Report<'v>) -> Stands<'v> {
        // A line alone is no proof, as a process may have made the kernel write it.
        let counted = self.hung.counted(report.record);
        if counted == Counted::No {
            return Stands::No;
        }
        if counted == Counted::Unknown && self.hung.is_awaited(report.record) {
            let why = "kernel.hung_task_detect_count was not read since the kernel reported a blocked task";
            return Stands::Awaits(report, Unknown::new(Cause::Baseline, why));
        }
        if counted == Counted::Yes {
            report.is_counted = true;
            let says = "the kernel's count of blocked tasks (kernel.hung_task_detect_count) grew then";
            report.shown.push(self.log.reports(report.record, says));
        }
        // What it was last seen to do counts while it is not asked about.
        let (answer, why) = match self.tasks.seen() {
            Ok(seen) => (Some(seen), None),
            Err(why) if why.cause == Cause::NotAsked => (self.tasks.last_seen(), None),
            Err(why) => (None, Some(why)),
        };
        if let Some(why) = why {
            return Stands::Unknown(report, why.clone());
        }
        let after = answer.filter(|answer| answer.at.boot == self.now.boot && answer.at.up >= report.record.up);
        let state = after.and_then(|answer| Some((answer, answer.value.get(&report.pid)?)));
        match (state, after.and_then(|answer| answer.value.incomplete())) {
            (Some((answer, TaskState::Blocked { command, waits_in })), _) if is_named(command, report.command) => {
                let place = waits_in.as_deref().map(|place| format!(", in {place}")).unwrap_or_default();
                report.shown.push(answer.says(format!("task {command} ({}) is in state D{place}", report.pid)));
                report.waits_in = waits_in.as_deref();
                Stands::Yes(report)
            }
            (Some(_), _) => Stands::No,
            (None, Some(why)) => Stands::Unknown(report, why.clone()),
            (None, None) => {
                let why = format!("task {} was not looked at since the kernel reported it", report.pid);
                Stands::Awaits(report, Unknown::new(Cause::NotAsked, why))
            }
        }
    }
}

/// Whether a task has the name of the log, which may be cut or escaped there; a worker of the kernel shows more than its name.
fn is_named(command: &str, in_log: &str) -> bool {
    let is_plain = in_log.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    !is_plain || command.starts_with(in_log)
}

/// The reports that stand, the newest first, and what is awaited for them.
fn decide<'v>(
    sight: &Sight<'v>,
    load: &Known<'v, LoadAvg>,
    mut ask: impl FnMut(u32),
) -> Tri<(Vec<Report<'v>>, Option<Unknown>)> {
    let (mut stand, mut may_stand, mut unknown, mut awaited) = (Vec::new(), Vec::new(), None, None);
    for report in sight.reports() {
        match sight.stands(report) {
            Stands::No => {}
            Stands::Yes(report) => {
                ask(report.pid);
                stand.push(report);
            }
            Stands::Awaits(report, why) => {
                ask(report.pid);
                awaited.get_or_insert(why.clone());
                unknown.get_or_insert(why);
                may_stand.extend(report.is_recent.then_some(report));
            }
            Stands::Unknown(report, why) => {
                ask(report.pid);
                match (sight.uncertain(&report, &why), sight.waiting.blocked_since()) {
                    (Some(why), _) => drop(unknown.get_or_insert(why)),
                    (None, _) if report.is_recent => stand.push(report),
                    (None, Ok(Some(since))) if since <= report.record.up.saturating_add(STANDS_FOR) => {
                        stand.push(report)
                    }
                    (None, Ok(_)) => {}
                    (None, Err(why)) => drop(unknown.get_or_insert(why)),
                }
            }
        }
    }
    let (reports, awaited) = match (stand.is_empty(), may_stand.is_empty(), unknown) {
        (false, ..) => (stand, None),
        (true, false, _) => (may_stand, awaited),
        (true, true, Some(why)) => return Tri::Unknown(why),
        (true, true, None) => return Tri::No(sight.log.no()),
    };
    let Some(newest) = reports.first().map(|report| report.record.up) else { return Tri::No(sight.log.no()) };
    load.ask(|load| {
        if load.at.up > newest.saturating_add(LOAD_FOLLOWS) && load.one < LEAST_LOAD {
            return Tri::No(load.no());
        }
        Tri::Yes((reports, awaited))
    })
}

/// What blocks the tasks, where it is found by itself: a disk that completes nothing, or a CPU that is stuck. A task that waits for a server
/// or for a program waits for neither.
fn causes(log: Seen<'_, KernelLog>, reports: &[Report<'_>], block: &Cited<'_, BlockDevices>) -> Vec<Above> {
    let functions = || reports.iter().filter_map(|report| report.waits_in);
    if functions().any(|function| is_of(function, OF_NFS) || is_of(function, OF_FUSE)) {
        return Vec::new();
    }
    let disks: BTreeSet<&str> = block
        .name(|block| Some(reports.iter().flat_map(|report| disks_of(block.value, report.command)).collect()))
        .unwrap_or_default();
    let any = functions().any(|function| is_of(function, OF_DISKS) || is_of(function, OF_FILESYSTEMS));
    let disks = disks.into_iter().map(stalled_io::above).chain(any.then(|| Above::any(Kind::StalledIo)));
    let is_stuck = reports.iter().any(|report| was_stuck(log.value, report.record.up));
    disks.chain(is_stuck.then(|| Above::of(Kind::CpuLockup, Object::node()))).collect()
}

/// Whether the kernel reported a CPU as stuck while a task was blocked that it reported then.
fn was_stuck(log: &KernelLog, reported: Duration) -> bool {
    let meanwhile = reported.saturating_sub(BLOCKED_FOR)..=reported.saturating_add(BLOCKED_FOR);
    log.records.iter().filter(|record| meanwhile.contains(&record.up)).any(|record| {
        matches!(
            record.event,
            KernelEvent::SoftLockup { .. }
                | KernelEvent::HardLockup { .. }
                | KernelEvent::WorkqueueLockup { .. }
                | KernelEvent::RcuStall
        )
    })
}

/// The disks of a filesystem's own thread, which has the device in its name: `jbd2/nvme1n1-8`, `xfsaild/dm-0`. The kernel cuts names.
fn disks_of<'v>(block: &'v BlockDevices, command: &str) -> Vec<&'v str> {
    let named = command.strip_prefix("jbd2/").or_else(|| command.strip_prefix("xfsaild/"));
    let Some(named) = named else { return Vec::new() };
    // The number is that of the inode of the journal.
    let name = named.rsplit_once('-').map_or(named, |(name, inode)| match inode.bytes().all(|b| b.is_ascii_digit()) {
        true if block.named(named).is_none() => name,
        _ => named,
    });
    let is_cut = command.len() >= LONGEST_NAME;
    let device = block.values().find(|device| device.name == name).or_else(|| {
        let mut begin = block.values().filter(|device| is_cut && device.name.starts_with(name));
        begin.next().filter(|_| begin.next().is_none())
    });
    let disks = device.map(|device| Below::of(block, device).here).unwrap_or_default();
    disks.into_iter().map(|disk| disk.name.as_str()).collect()
}

fn finding(
    log: Seen<'_, KernelLog>,
    reports: &[Report<'_>],
    (mounts, dirs): (&Cited<'_, Mounts>, &Cited<'_, KubeletDirs>),
    blocked: Option<Evidence>,
) -> Finding {
    let named = reports.iter().rev().take(NAMED).map(|report| format!("{} ({})", report.command, report.pid));
    let more = match reports.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (task, have) = if reports.len() == 1 { ("task", "has") } else { ("tasks", "have") };
    let names = named.collect::<Vec<_>>().join(", ");
    // The function that a task waits in shows more than a line of the log about a server that may be another task's.
    let functions: Vec<&str> = reports.iter().filter_map(|report| report.waits_in).collect();
    let may_be_nfs = functions.is_empty() || functions.iter().any(|function| is_of(function, OF_NFS));
    let servers: Vec<&str> = log.value.records.iter().filter_map(silent_server).filter(|_| may_be_nfs).collect();
    let mut causes: Vec<String> = Vec::new();
    if let Some(server) = servers.first() {
        causes.push(format!("NFS server {} does not respond", with_efs(server, mounts, dirs)));
    }
    // Tasks may wait for several things at once.
    for function in functions.into_iter().filter(|function| servers.is_empty() || !is_of(function, OF_NFS)) {
        let cause = waits_for(function, mounts);
        if !causes.contains(&cause) && causes.len() < NAMED {
            causes.push(cause);
        }
    }
    let waits = if causes.is_empty() { String::new() } else { format!(": {}", causes.join("; ")) };
    let reported = |report: &Report<'_>| {
        format!("the kernel reported task {} ({}) as blocked for minutes", report.command, report.pid)
    };
    let mut evidence: Vec<Evidence> =
        reports.iter().take(4).map(|report| log.reports(report.record, reported(report))).collect();
    evidence.extend(reports.iter().take(4).flat_map(|report| report.shown.iter().cloned()));
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

/// How the kernel's functions begin that wait for an NFS server.
const OF_NFS: &[&str] = &["rpc_", "nfs_", "nfs4_", "nfs3_"];
/// Those that wait for the program of a FUSE filesystem.
const OF_FUSE: &[&str] = &["fuse_", "request_wait_answer"];
/// Those that wait for a block device.
const OF_DISKS: &[&str] = &["io_schedule", "blk_", "bit_wait_io", "folio_wait", "wait_on_page", "submit_bio_wait"];
/// Those that wait for a filesystem of a block device.
const OF_FILESYSTEMS: &[&str] = &["xfs_", "xlog_", "jbd2_", "ext4_", "btrfs_"];

fn is_of(function: &str, names: &[&str]) -> bool {
    names.iter().any(|name| function.starts_with(name))
}

/// What the kernel's function that a task waits in is for, where that is shown.
fn waits_for(function: &str, mounts: &Cited<'_, Mounts>) -> String {
    let begins = |names: &[&str]| is_of(function, names);
    let what = if begins(OF_NFS) {
        let server = mounts.name(|mounts| only_server(mounts.value));
        server.map_or_else(|| "an NFS or EFS server".to_owned(), |server| format!("NFS server {server}"))
    } else if begins(OF_FUSE) {
        "the program of a FUSE filesystem".to_owned()
    } else if begins(OF_DISKS) {
        "a block device".to_owned()
    } else if begins(OF_FILESYSTEMS) {
        "a filesystem".to_owned()
    } else {
        return format!("it waits in {function}");
    };
    format!("it waits in {function}, for {what}")
}

/// A server with the filesystem of EFS that it stands for: efs-utils mounts through a proxy on this node, by its address.
fn with_efs(server: &str, mounts: &Cited<'_, Mounts>, dirs: &Cited<'_, KubeletDirs>) -> String {
    let is_proxy = server.starts_with("127.") || server == "localhost" || server == "::1" || server == "[::1]";
    if !is_proxy {
        return server.to_owned();
    }
    let handles = mounts.name(|mounts| {
        dirs.name(|dirs| {
            let of_it = |mount: &&MountEntry| {
                matches!(&*mount.fstype, "nfs" | "nfs4")
                    && mount.source.rsplit_once(":/").is_some_and(|(of, _)| of == server)
            };
            let handles: BTreeSet<&str> =
                mounts.value.values().filter(of_it).filter_map(|mount| handle(dirs.value, mount)).collect();
            (!handles.is_empty()).then(|| handles.into_iter().take(NAMED).collect::<Vec<_>>().join(", "))
        })
    });
    match handles {
        Some(handles) => format!("{server} (the proxy of efs-utils on this node, for {handles})"),
        None => format!("{server} (a proxy on this node, such as that of efs-utils)"),
    }
}

/// The handle of a volume that the kubelet wrote beside its mount.
fn handle<'v>(dirs: &'v KubeletDirs, mount: &MountEntry) -> Option<&'v str> {
    let Some(VolumePath::Pod { pod, name, .. }) = &mount.volume else { return None };
    let volume = dirs.pods.get(pod)?.volumes.iter().find(|volume| volume.name == *name)?;
    Some(&volume.data.as_ref()?.handle)
}

/// The server of the NFS mounts, where they all have the same one.
fn only_server(mounts: &Mounts) -> Option<&str> {
    let of_nfs = mounts.values().filter(|mount| matches!(&*mount.fstype, "nfs" | "nfs4"));
    let mut servers = of_nfs.filter_map(|mount| mount.source.rsplit_once(":/").map(|(server, _)| server));
    let first = servers.next()?;
    servers.all(|server| server == first).then_some(first)
}

fn silent_server(record: &KernelRecord) -> Option<&str> {
    match &record.event {
        KernelEvent::NfsServer { server, answers: false } => Some(server),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{BlockDevice, DevId};

    fn disks() -> BlockDevices {
        let device = |name: &str, disk: Option<&str>, slaves: &[&str]| BlockDevice {
            name: name.to_owned(),
            disk: disk.map(str::to_owned),
            slaves: slaves.iter().map(|slave| (*slave).to_owned()).collect(),
            ..BlockDevice::default()
        };
        let all = [
            device("nvme0n1", None, &[]),
            device("nvme0n1p1", Some("nvme0n1"), &[]),
            device("nvme10n1", None, &[]),
            device("nvme10n1p128", Some("nvme10n1"), &[]),
            device("dm-0", None, &["nvme0n1p1"]),
        ];
        BlockDevices::whole((1..).zip(all).map(|(minor, device)| (DevId { major: 259, minor }, device)))
    }

    #[test]
    fn a_thread_of_a_filesystem_names_its_disk() {
        let of = |command: &str| disks_of(&disks(), command).join(" ");
        assert_eq!(of("jbd2/nvme0n1p1-"), "nvme0n1");
        assert_eq!(of("jbd2/nvme0n1-8"), "nvme0n1");
        assert_eq!(of("jbd2/dm-0-8"), "nvme0n1");
        assert_eq!(of("xfsaild/dm-0"), "nvme0n1");
        assert_eq!(of("jbd2/nvme10n1p1"), "nvme10n1", "the kernel has cut it");
        assert_eq!(of("jbd2/nvme9n1-8"), "", "it is not here");
        assert_eq!(of("containerd"), "");
        assert_eq!(of("jbd2/"), "");
    }

    #[test]
    fn a_cpu_counts_that_was_stuck_while_the_task_was_blocked() {
        let record = |up| KernelRecord { seq: 1, up: Duration::from_secs(up), event: KernelEvent::RcuStall };
        let log = |up| KernelLog { records: [record(up)].into(), ..KernelLog::default() };
        let stuck = |up| was_stuck(&log(up), Duration::from_secs(1000));
        assert_eq!([700, 800, 1000, 1200, 1300].map(stuck), [false, true, true, true, false]);
    }
}
