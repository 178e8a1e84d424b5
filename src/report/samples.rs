//! Reports as users meet them, for the tests of every output.

use jiff::Timestamp;

use super::{
    KindState, NodeObject, Origin, Report, ReportedFinding, ReportedHeadroom, ReportedUnknown, ReportedVolume,
};
use super::{SCHEMA, State};
use crate::facts::{Cause, EvictionSignal, Exceeded, OperationCount, Source, VolumeId};
use crate::finding::{Evidence, Headroom, Kind, Object, ObjectType, Severity};

const POD: &str = "8f2c1a3e-5d0b-4c7e-9a61-2b7f0c9d4e11";
const PV: &str = "pvc-0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";

fn at(seconds_before: i64) -> Timestamp {
    Timestamp::from_second(1_795_234_203 - seconds_before).unwrap()
}

fn mount_path() -> String {
    format!("/var/lib/kubelet/pods/{POD}/volumes/kubernetes.io~csi/{PV}/mount")
}

fn volume() -> VolumeId {
    VolumeId::from_serial("vol0a1b2c3d4e5f60718").unwrap()
}

fn says(source: Source, fact: &str, before: i64) -> Evidence {
    Evidence { source, fact: fact.to_owned(), at: at(before) }
}

fn finding(kind: Kind, severity: Severity, confirmed: bool, object: Object, message: &str) -> ReportedFinding {
    ReportedFinding {
        kind,
        severity,
        confirmed,
        unverified_since: None,
        since: at(if confirmed { 550 } else { 8 }),
        quiet: None,
        pod_name: object.pod.is_some().then(|| "shop/db-0".to_owned()),
        pod_owner: object.pod.is_some().then(|| "StatefulSet/db".to_owned()),
        claims: object.pod.iter().map(|_| "data-db-0".to_owned()).collect(),
        object,
        message: message.to_owned(),
        evidence: vec![says(Source::Mounts, "the mount table has it", 2)],
        advice: crate::catalogue::row(kind).remediation.to_owned(),
        shown_under: None,
        muted: None,
        not_applicable: false,
        commands: Vec::new(),
    }
}

fn gib(tenths: u64) -> u64 {
    (tenths << 30) / 10
}

fn signal(signal: EvictionSignal, available: u64, capacity: u64, hard: Option<u64>) -> ReportedHeadroom {
    let trend =
        (0..90).map(|i| ((89 - i) * 10, available + (89 - i) * (capacity / 4_000) + (i % 7) * (capacity / 9_000)));
    let figures =
        Headroom { signal, available, capacity, hard, soft: None, assumed: None, note: None, threshold_unknown: false };
    ReportedHeadroom { figures: Some(figures), trend: trend.collect(), ..ReportedHeadroom::of(signal) }
}

/// Kinds that a report counts where none is asked for by name.
pub fn plain_kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| !kind.is_pod_remark())
}

/// A node on which all is well.
pub fn healthy() -> Report {
    use EvictionSignal::{AllocatableMemory, ImageFs, ImageFsInodes, Memory, NodeFs, NodeFsInodes, Pid};
    let seen = [("mounts", 301), ("volume-mounts", 3), ("block-devices", 4), ("ebs-volumes", 4), ("filesystems", 1)];
    let disk = (gib(800), gib(200));
    Report {
        version: SCHEMA,
        barnacle: "0.1.0".into(),
        node: "ip-10-0-93-17.eu-west-1.compute.internal".into(),
        kernel: "6.1.134-150.224.amzn2023.x86_64".into(),
        at: at(0),
        up_seconds: 273_600,
        boot: "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a".parse().ok(),
        origin: Origin::Agent,
        no_kubernetes_node: false,
        agent_trouble: None,
        findings: Vec::new(),
        unknown: Vec::new(),
        headroom: vec![
            signal(Memory, gib(52), gib(154), Some(100 << 20)),
            signal(AllocatableMemory, gib(47), gib(142), Some(100 << 20)),
            signal(NodeFs, disk.0 - gib(300), disk.0, Some(disk.0 / 10)),
            signal(NodeFsInodes, 39_812_345, 41_943_040, Some(2_097_152)),
            signal(ImageFs, disk.0 - gib(300), disk.0, Some(disk.0 / 20 * 3)),
            signal(ImageFsInodes, 39_812_345, 41_943_040, Some(2_097_152)),
            signal(Pid, 31_845, 32_768, None),
        ],
        kinds: Kind::ALL
            .iter()
            .map(|kind| KindState {
                kind: *kind,
                state: State::Clear,
                not_evaluated: false,
                not_run: false,
                why: None,
                source: None,
                not_applicable: false,
                left_out: 0,
                left_out_of: Vec::new(),
            })
            .collect(),
        notes: vec![
            "thresholds: of the running kubelet (pid 1873), from /etc/kubernetes/kubelet/config.json".to_owned().into(),
        ],
        seen: seen.into_iter().chain([("pods", 42)]).map(|(name, n)| (name.to_owned(), n)).collect(),
        history: Vec::new(),
        volumes: Vec::new(),
        node_object: Some(NodeObject {
            name: "ip-10-0-93-17.eu-west-1.compute.internal".into(),
            provider_id: Some("aws:///eu-west-1a/i-0abc123def4567890".into()),
            instance_type: Some("m5.large".into()),
            zone: Some("eu-west-1a".into()),
            kubelet_version: Some("v1.34.4".into()),
            cordoned: true,
            deleting: None,
        }),
        pods: std::collections::BTreeMap::new(),
        pod_use: None,
        ages: Source::ALL.iter().zip((0..).map(|i| f64::from(i % 9) + 0.4)).map(|(s, age)| (*s, age)).collect(),
    }
}

fn set(report: &mut Report, kind: Kind, state: State, why: Option<&str>) {
    let row = report.kinds.iter_mut().find(|row| row.kind == kind).unwrap();
    (row.state, row.why) = (state, why.map(str::to_owned));
}

/// A node with much that is wrong, some of it only suspected, and one hostile name.
pub fn sick() -> Report {
    let mut report = healthy();
    let mount = Object {
        pod: Some(POD.into()),
        pv: Some(PV.into()),
        volume: Some(volume()),
        ..Object::new(ObjectType::Mount, mount_path())
    };
    let hostile = Object::new(
        ObjectType::Mount,
        "/var/lib/kubelet/pods/x/volumes/kubernetes.io~csi/<script>alert(1)</script>\u{1b}[2J\n√ all fine/mount",
    );
    let device = Object { volume: Some(volume()), ..Object::new(ObjectType::Device, "nvme2n1") };
    let mut dead = finding(
        Kind::DeadMount,
        Severity::Critical,
        true,
        mount,
        "device 259:3 is gone, and its filesystem is still mounted here: what the pod wrote last may be lost",
    );
    dead.evidence = vec![
        says(Source::Mounts, &format!("mount 1187 of 259:3 (ext4) on {}", mount_path()), 2),
        says(Source::BlockDevices, "no block device 259:3 among 4, the list was read whole", 2),
    ];
    let group =
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod8f2c1a3e_5d0b_4c7e_9a61_2b7f0c9d4e11.slice";
    report.findings = vec![
        dead,
        finding(
            Kind::EvictionThresholdMet,
            Severity::Critical,
            true,
            Object::new(ObjectType::Signal, "nodefs.available"),
            "7.31 GiB of 80 GiB available, below the hard threshold of 8 GiB: the kubelet evicts pods now",
        ),
        finding(
            Kind::StackedMounts,
            Severity::Warning,
            true,
            hostile,
            "the same volume is mounted 3 times on one path: after the kubelet's unmount it stays busy",
        ),
        finding(
            Kind::OomKill,
            Severity::Warning,
            true,
            Object::new(ObjectType::Cgroup, group),
            "2 processes were killed in this pod in the last minute, at the pod's own limit of 512 MiB",
        ),
        finding(Kind::StalledIo, Severity::Warning, false, device, "12 requests in flight and none completed for 10s"),
    ];
    for finding in &report.findings.clone() {
        set(&mut report, finding.kind, if finding.confirmed { State::Raised } else { State::Suspected }, None);
    }
    set(
        &mut report,
        Kind::OrphanedPodDirectory,
        State::NotEvaluated,
        Some("/var/lib/kubelet/pods: permission denied; it is mounted only in the `directories` profile"),
    );
    set(&mut report, Kind::UnexpectedReboot, State::Clear, None);
    let nodefs = report.headroom.get_mut(2).unwrap();
    *nodefs = signal(EvictionSignal::NodeFs, gib(73), gib(800), Some(gib(80)));
    report.volumes = vec![throttled_volume("nvme2n1")];
    report.headroom[3].figures.as_mut().unwrap().note = Some("the filesystem makes inodes as it needs them".into());
    report.headroom[0].figures.as_mut().unwrap().soft = Some(gib(60));
    report.headroom[4] = ReportedHeadroom {
        why: Some("the directory of the container images was not found in the usual places".into()),
        ..ReportedHeadroom::of(EvictionSignal::ImageFs)
    };
    report.unknown = vec![
        ReportedUnknown {
            source: Source::KubeletDirs,
            cause: Cause::Denied,
            why: "/var/lib/kubelet/pods: permission denied; it is mounted only in the `directories` profile".into(),
            not_applicable: false,
            since: Some(at(4_000)),
        },
        ReportedUnknown {
            source: Source::ImageFs,
            cause: Cause::Missing,
            why: "the directory of the container images was not found in the usual places".into(),
            not_applicable: true,
            since: None,
        },
    ];
    report
}

/// A volume that waits for its own limit.
pub fn throttled_volume(device: &str) -> ReportedVolume {
    ReportedVolume {
        device: device.to_owned(),
        volume: Some(volume()),
        reads: OperationCount { count: 812_345, bytes: 30_123_456_789, time_us: 412_345_678 },
        writes: OperationCount { count: 1_934_551, bytes: 81_234_567_890, time_us: 987_654_321 },
        queue: 48,
        above_volume: Some(Exceeded { iops_us: 5_250_000, throughput_us: 1_000_000 }),
        above_instance: Some(Exceeded::default()),
        read_p99_us: Some(1_024),
        write_p99_us: None,
    }
}

/// One check by an ordinary user: little is seen, and there is nothing to compare with.
pub fn unreadable() -> Report {
    let mut report = healthy();
    report.origin = Origin::Check;
    report.node = "laptop".into();
    let denied = "/proc/1/mountinfo: permission denied (EACCES): only root may read the host's mount table";
    let empty = "/sys/fs/cgroup: the kubelet's kubepods group is not there";
    for kind in [Kind::DeadMount, Kind::StackedMounts, Kind::PinnedFilesystem, Kind::FilesystemError] {
        set(&mut report, kind, State::NotEvaluated, Some(denied));
    }
    for kind in [Kind::CpuSteal, Kind::StalledIo, Kind::MemoryStall, Kind::NodeSaturated] {
        set(&mut report, kind, State::NeedsTime, Some("cpu needs two samples"));
    }
    set(&mut report, Kind::OrphanedPodDirectory, State::NotEvaluated, Some(empty));
    set(
        &mut report,
        Kind::PidExhaustion,
        State::Clear,
        Some("not evaluated for any pod: the kubelet's kubepods group is not there"),
    );
    let unknown = |source, cause, why: &str| ReportedUnknown {
        source,
        cause,
        why: why.to_owned(),
        not_applicable: false,
        since: Some(at(0)),
    };
    report.unknown = vec![
        unknown(Source::Mounts, Cause::Denied, denied),
        unknown(Source::PodCgroups, Cause::Missing, empty),
        unknown(Source::Cgroups, Cause::Missing, empty),
        unknown(Source::KernelLog, Cause::Denied, "/dev/kmsg: permission denied (EPERM)"),
    ];
    for headroom in &mut report.headroom {
        headroom.trend = Vec::new();
        if headroom.signal == EvictionSignal::AllocatableMemory {
            *headroom = ReportedHeadroom { why: Some(empty.into()), ..ReportedHeadroom::of(headroom.signal) };
        }
    }
    report.notes = vec!["thresholds: none, as no kubelet runs here".to_owned().into()];
    report.seen.retain(|name, _| !name.contains("mounts") && name != "pods");
    report.ages.retain(|source, _| !report.unknown.iter().any(|unknown| unknown.source == *source));
    report
}

/// Nothing could be read at all.
pub fn nothing() -> Report {
    let mut report = unreadable();
    report.ages.clear();
    report.seen.clear();
    report.headroom.clear();
    for row in &mut report.kinds {
        (row.state, row.why) = (State::NotEvaluated, Some("/proc is not there".into()));
    }
    report
}

/// Writes every output of every sample below `BARNACLE_SAMPLES`, to be looked at.
#[test]
fn samples_are_written_where_one_wants_to_look_at_them() {
    let Some(dir) = std::env::var_os("BARNACLE_SAMPLES").map(std::path::PathBuf::from) else { return };
    std::fs::create_dir_all(&dir).unwrap();
    for (name, report) in
        [("healthy", healthy()), ("sick", sick()), ("not-evaluated", unreadable()), ("nothing", nothing())]
    {
        std::fs::write(dir.join(format!("{name}.json")), super::json::to_json(&report)).unwrap();
        std::fs::write(dir.join(format!("{name}.html")), super::page::html(&report)).unwrap();
        for width in [0, 80, 120] {
            let style = super::table::Style { color: false, width, ascii: false };
            std::fs::write(dir.join(format!("{name}.{width}.txt")), super::table::write(&report, style, &[])).unwrap();
        }
    }
}
