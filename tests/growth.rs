//! Nothing is worse than n log n in what is on the node: each shape below is evaluated with n and with four times n of it.
//! Products of two lists take sixteen times as long then. What is compared is the thread's own time, the least of a few.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use barnacle::detect::Settings;
use barnacle::engine::Engine;
use barnacle::facts::{
    BlockDevice, BootId, Cgroup, DevId, Filesystem, FilesystemKey, FsType, Inventory, IoStat, KernelEvent, KernelLog,
    KernelRecord, KubeletDirs, MountEntry, Node, NodeTime, NvmeController, Observation, Part, Pod, PodCgroup, PodDir,
    PodPhase, Qos, Reading, VolumeDir, VolumeId, VolumePath,
};
use barnacle::ledger::LedgerState;
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// What a source says at each time.
type Source = Box<dyn Fn(NodeTime) -> Observation>;
type Shape = Vec<Source>;
/// A shape by its name, of so many.
type Named = (&'static str, fn(u32) -> Shape);

/// The most that are kept of the kernel's log.
const RECORDS: u32 = 256;
const KUBELET: &str = "/var/lib/kubelet";

fn at(up: u64) -> NodeTime {
    let up = Duration::from_secs(up);
    NodeTime { boot: BootId::default(), up, wall: Timestamp::UNIX_EPOCH + up }
}

fn known<T>(value: T, at: NodeTime) -> Reading<T> {
    Reading::Known { value, at }
}

fn dev(number: u32) -> DevId {
    DevId { major: 259, minor: number }
}

fn uid(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn mount(dev: DevId, source: &str, point: String) -> MountEntry {
    MountEntry {
        parent: 1,
        dev,
        root: "/".into(),
        volume: VolumePath::parse(KUBELET, &point),
        point: point.into(),
        options: "rw".into(),
        fstype: "ext4".into(),
        source: source.into(),
        super_options: "rw".into(),
        deleted: false,
        left_out: 0,
    }
}

fn pod_mount(pod: u32, volume: u32) -> MountEntry {
    let point = format!("{KUBELET}/pods/{}/volumes/kubernetes.io~csi/pv-{volume}/mount", uid(pod));
    mount(dev(volume), &format!("/dev/d{volume}"), point)
}

fn raw_mount(pod: u32, volume: u32) -> MountEntry {
    let point = format!("{KUBELET}/pods/{}/volumeDevices/kubernetes.io~csi/pv-{volume}", uid(pod));
    let plain = mount(DevId { major: 0, minor: 5 }, "devtmpfs", point);
    MountEntry { root: format!("/d{volume}").into(), fstype: "devtmpfs".into(), ..plain }
}

fn device(number: u32) -> BlockDevice {
    let io = IoStat { in_flight: 1, ..IoStat::default() };
    BlockDevice { name: format!("d{number}"), size: 1 << 30, io: Part::Known(io), ..BlockDevice::default() }
}

fn ebs(number: u32) -> BlockDevice {
    BlockDevice { volume: VolumeId::from_serial(&format!("vol{number:017x}")), ..device(number) }
}

fn mounts(all: impl Iterator<Item = MountEntry>) -> Source {
    let value = Inventory::whole(all.enumerate().map(|(id, mount)| (id as u32 + 10, mount)));
    Box::new(move |at| Observation::Mounts(known(value.clone(), at)))
}

fn devices(all: impl Iterator<Item = BlockDevice>) -> Source {
    let value = Inventory::whole(all.enumerate().map(|(number, device)| (dev(number as u32), device)));
    Box::new(move |at| Observation::BlockDevices(known(value.clone(), at)))
}

fn filesystems(count: u32) -> Source {
    let key = |number| FilesystemKey { fstype: FsType::Ext4, device: format!("d{number}") };
    let value = Inventory::whole((0..count).map(|number| (key(number), Filesystem::default())));
    Box::new(move |at| Observation::Filesystems(known(value.clone(), at)))
}

fn controllers(count: u32) -> Source {
    let one = |number| {
        let namespaces = vec![format!("d{number}")];
        (format!("nvme{number}"), NvmeController { namespaces, state: "live".into(), ..NvmeController::default() })
    };
    let value = Inventory::whole((0..count).map(one));
    Box::new(move |at| Observation::NvmeControllers(known(value.clone(), at)))
}

fn groups(pods: std::ops::Range<u32>) -> Source {
    let group = || PodCgroup {
        path: String::new(),
        qos: Qos::Burstable,
        cgroup: Cgroup::default(),
        containers: BTreeMap::new(),
        oom_unread: None,
    };
    let value = Inventory::whole(pods.map(|pod| (uid(pod), group())));
    Box::new(move |at| Observation::PodCgroups(known(value.clone(), at)))
}

fn pods(count: u32) -> Source {
    let pod = |number| Pod {
        namespace: "shop".into(),
        name: format!("pod-{number}"),
        uid: uid(number),
        node: Some("n".into()),
        phase: PodPhase::Running,
        claims: vec![format!("claim-{number}")],
        ..Pod::default()
    };
    let value = Inventory::whole((0..count).map(|number| (uid(number), Arc::new(pod(number)))));
    Box::new(move |at| Observation::Pods(known(value.clone(), at)))
}

fn dirs(count: u32) -> Source {
    let dir = |number| {
        let volume =
            VolumeDir { plugin: "kubernetes.io~csi".into(), name: format!("pv-{number}"), ..VolumeDir::default() };
        (uid(number), PodDir { volumes: vec![volume], ..PodDir::default() })
    };
    let value =
        KubeletDirs { pods: Inventory::whole((0..count).map(dir)), staging: Inventory::whole([]), unread: None };
    Box::new(move |at| Observation::KubeletDirs(known(value.clone(), at)))
}

fn node(volumes: u32) -> Source {
    let name = |number| format!("kubernetes.io/csi/ebs.csi.aws.com^vol-{number:017x}");
    let value = Node {
        name: "n".into(),
        volumes_in_use: (0..volumes).map(name).collect(),
        volumes_attached: (0..volumes).map(|number| (name(number), String::new())).collect(),
        ..Node::default()
    };
    Box::new(move |at| Observation::Node(known(value.clone(), at)))
}

fn log(count: u32, event: fn(u32) -> KernelEvent) -> Source {
    let record = |number: u32| KernelRecord { seq: number.into(), up: at(10_005).up, event: event(number) };
    let value = KernelLog { records: (0..count).map(record).collect(), ..KernelLog::default() };
    Box::new(move |at| Observation::KernelLog(known(value.clone(), at)))
}

/// The time of two cycles, in which everything is there and then still is.
fn cost(shape: &Shape) -> Duration {
    let once = || {
        let mut engine = Engine::new(Settings::default(), at(10_000), LedgerState::default());
        let begun = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
        for up in [10_010, 10_020] {
            engine.step(at(up), shape.iter().map(|part| part(at(up))).collect());
        }
        Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap()) - begun
    };
    (0..3).map(|_| once()).min().unwrap()
}

#[test]
#[ignore = "it compares times: tests/run long"]
fn what_is_on_the_node_costs_at_most_its_number_and_a_logarithm() {
    let shapes: [Named; 13] = [
        ("mounts of pods that are gone", |n| {
            vec![mounts((0..n).map(|i| pod_mount(i, i))), devices((0..n).map(device)), groups(0..0), filesystems(n)]
        }),
        ("mounts of one pod that is gone", |n| {
            vec![mounts((0..n).map(|i| pod_mount(0, i))), devices((0..n).map(device)), groups(0..0)]
        }),
        ("mounts whose devices are gone", |n| {
            vec![mounts((0..n).map(|i| pod_mount(i, i))), devices((0..0).map(device)), groups(0..n), filesystems(n)]
        }),
        ("raw block volumes", |n| {
            vec![mounts((0..n).map(|i| raw_mount(i, i))), devices((0..n).map(device)), groups(0..0)]
        }),
        ("filesystems that nothing mounts", |n| {
            vec![
                mounts((0..n).map(move |i| mount(dev(n + i), "/dev/x", format!("/x/{i}")))),
                devices((0..n).map(device)),
                filesystems(n),
            ]
        }),
        ("filesystems whose devices are gone", |n| {
            vec![
                mounts((0..n).map(move |i| mount(dev(n + i), "/dev/x", format!("/x/{i}")))),
                devices((n..2 * n).map(device)),
                filesystems(n),
            ]
        }),
        ("devices that stand on one another", |n| {
            let on =
                |i: u32| BlockDevice { slaves: if i == 0 { vec![] } else { vec![format!("d{}", i / 2)] }, ..device(i) };
            vec![mounts((0..n).map(|i| pod_mount(i, i))), devices((0..n).map(on)), groups(0..0)]
        }),
        ("devices whose requests wait", |n| {
            vec![mounts((0..n).map(|i| pod_mount(i, i))), devices((0..n).map(device)), controllers(n)]
        }),
        // More than an instance can have; each is weighed by each kind, so fewer than of the others do.
        ("EBS volumes that are wanted and mounted", |n| {
            let n = n / 8;
            vec![mounts((0..n).map(|i| pod_mount(i, i))), devices((0..n).map(ebs)), node(n), pods(n), groups(0..n)]
        }),
        ("EBS volumes that are wanted and not here", |n| {
            let n = n / 8;
            vec![mounts((0..0).map(|i| pod_mount(i, i))), devices((0..0).map(ebs)), node(n), pods(n), dirs(n)]
        }),
        ("directories of pods that are gone", |n| {
            vec![dirs(n), pods(0), groups(0..0), mounts((0..0).map(|i| pod_mount(i, i)))]
        }),
        ("I/O errors in the log", |n| {
            let event = |i| KernelEvent::IoError { device: format!("d{i}"), operation: "READ".into() };
            vec![log(RECORDS, event), devices((0..n).map(device)), mounts((0..n).map(|i| pod_mount(i, i)))]
        }),
        ("xfs shutdowns in the log", |n| {
            let event = |i| KernelEvent::XfsShutdown { device: format!("d{i}") };
            vec![
                log(RECORDS, event),
                devices((0..n).map(device)),
                filesystems(n),
                mounts((0..n).map(|i| pod_mount(i, i))),
            ]
        }),
    ];
    let mut wrong = Vec::new();
    for (name, make) in shapes {
        let [few, many] = [500, 2_000].map(|n| cost(&make(n)));
        let times = many.as_secs_f64() / few.as_secs_f64();
        println!("{name}: {few:.1?} for 500, {many:.1?} for 2,000: {times:.1} times");
        // Four times as many, and a logarithm; the rest is for a machine that has other things to do.
        if times > 8.0 {
            wrong.push(format!("{name}: {times:.1} times as long for four times as many"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
