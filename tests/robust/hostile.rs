//! Attacks on the memory of the agent, in a control group of the DaemonSet's 64 MiB, each with a real finding meanwhile where
//! an agent runs. The lab runs the same with the shipped program in a group of v2.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use barnacle::facts::{
    BootId, DevId, Inventory, KernelEvent, KernelLog, KernelRecord, MountEntry, NodeTime, Observation, Reading,
};
use barnacle::recording::Writer;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::flood::flooded;
use super::memory::Limited;
use super::program::{Program, barnacle, eventually, free_address, get, is_shipped};
use super::tree::{POD, Tree};
use crate::world::api::Api;

const LIMIT: u64 = 64 << 20;
/// The lab's emulated machine is many times slower than this one.
const PATIENCE: Duration = Duration::from_secs(120);
/// DeadMount in a tree, from which no event of the kernel comes: its sources are read each 10 s, it is confirmed after 1 s, and an
/// attack may delay it by 2 s.
const PROMISE: Duration = Duration::from_secs(10 + 1 + 2);

/// What the agent takes of a processor from now on.
pub(super) struct Cpu {
    begun: Instant,
    before: Duration,
}

impl Cpu {
    pub(super) fn of(agent: &Program) -> Self {
        Self { begun: Instant::now(), before: agent.cpu() }
    }

    pub(super) fn print(&self, what: &str, agent: &Program) {
        let (took, of) = ((agent.cpu() - self.before).as_secs_f64(), self.begun.elapsed().as_secs_f64());
        println!("{what}: {took:.1} s of a processor in {of:.0} s, {:.0} %", 100.0 * took / of);
    }
}

/// A build for tests is slower than the shipped program, for which the promise is made.
pub(super) fn expect_in_time(what: &str, time: Duration) {
    println!("{what}: DeadMount confirmed after {:.1} s", time.as_secs_f64());
    let slower = std::env::var("BARNACLE_TEST_SLOWER").map_or(1, |times| times.parse().unwrap());
    let promise = PROMISE * slower;
    assert!(!is_shipped() || time <= promise, "{what}: confirmed after {time:?}, expected {promise:?} at most");
}

fn run(limited: &Limited, tree: &Tree, state: &Path, address: SocketAddr, more: &[&str]) -> Program {
    let (tree, state, listen) = (tree.path().to_str().unwrap(), state.to_str().unwrap(), address.to_string());
    let arguments = ["run", "--host-root", tree, "--state-dir", state, "--listen", &listen];
    let mut agent = limited.start(&[&arguments, more].concat());
    agent.answers(address, "/readyz", 200, PATIENCE);
    agent
}

fn report(address: SocketAddr) -> Value {
    let body = get(address, "/api/v1/report").map(|(_, body)| body).unwrap_or_default();
    serde_json::from_str(&body).unwrap_or_default()
}

pub(super) fn found(address: SocketAddr, kind: &str) -> Option<Value> {
    report(address)["findings"].as_array()?.iter().find(|finding| finding["kind"] == kind).cloned()
}

/// The device of the tree's pod goes.
pub(super) fn lose_a_device(tree: &Tree) {
    for gone in ["sys/dev/block/259:1", "sys/class/nvme/nvme1"] {
        tree.remove(gone);
    }
}

pub(super) fn is_dead_mount_confirmed(address: SocketAddr) -> bool {
    found(address, "DeadMount").is_some_and(|finding| finding["confirmed"] == true)
}

/// The device of the tree's pod goes; how long until that is confirmed.
fn time_to_dead_mount(tree: &Tree, address: SocketAddr) -> Duration {
    lose_a_device(tree);
    let begun = Instant::now();
    eventually(PATIENCE, "DeadMount is confirmed", || is_dead_mount_confirmed(address));
    begun.elapsed()
}

#[test]
fn beside_a_hundred_thousand_mounts_a_dead_mount_is_confirmed_in_time() {
    for (name, tree) in [("nothing", Tree::whole()), ("100,000 mounts", flooded())] {
        let (state, address) = (tempfile::tempdir().unwrap(), free_address());
        let Some(limited) = Limited::new(LIMIT) else { return };
        let agent = run(&limited, &tree, state.path(), address, &[]);
        let cpu = Cpu::of(&agent);
        expect_in_time(name, time_to_dead_mount(&tree, address));
        cpu.print(name, &agent);
        limited.expect_within_budget(name);
    }
}

/// Mounts of 30 kB each: a directory with a long name of blanks, of which each is four bytes in the table.
fn fat_namespace(tree: &Tree, pid: u32) {
    let blanks = "\\040".repeat(3700);
    let dir = format!("proc/{pid}");
    tree.write(&format!("{dir}/comm"), b"fat\n");
    tree.write(&format!("{dir}/cgroup"), b"0::/user.slice/fat\n");
    tree.write(&format!("{dir}/mountinfo"), b"");
    let mut table = BufWriter::new(File::create(tree.at(&format!("{dir}/mountinfo"))).unwrap());
    writeln!(table, "{} 1 0:60 / / rw - overlay overlay rw", pid * 10_000).unwrap();
    for mount in 1..4_000 {
        let id = pid * 10_000 + mount;
        writeln!(table, "{id} {} 0:61 /{blanks} /{blanks}/{mount} rw - tmpfs tmpfs rw", pid * 10_000).unwrap();
    }
    table.flush().unwrap();
}

#[test]
fn beside_a_mount_namespace_of_120_mb_the_one_that_holds_a_volume_is_named() {
    let (tree, state, address) = (Tree::whole(), tempfile::tempdir().unwrap(), free_address());
    fat_namespace(&tree, 5_000);
    tree.write("proc/6000/comm", b"holds-it\n");
    tree.write("proc/6000/cgroup", b"0::/system.slice/holds-it.service\n");
    let holds = "90000001 1 0:70 / / rw - overlay overlay rw\n90000002 90000001 259:1 / /x rw - ext4 /dev/nvme1n1 rw\n";
    tree.write("proc/6000/mountinfo", holds.as_bytes());
    let Some(limited) = Limited::new(LIMIT) else { return };
    let agent = run(&limited, &tree, state.path(), address, &[]);
    let cpu = Cpu::of(&agent);
    // The pod ends, and its volume stays mounted: the agent looks for processes that have it elsewhere.
    let slice = tree.at("sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice");
    let pod = fs::read_dir(&slice).unwrap().flatten().find(|entry| entry.path().is_dir()).unwrap();
    fs::remove_dir_all(pod.path()).unwrap();
    let begun = Instant::now();
    eventually(PATIENCE, "the process that holds the volume is named", || {
        found(address, "StuckUnmount").is_some_and(|finding| finding.to_string().contains("holds-it"))
    });
    println!("a namespace of 120 MB: the holder named after {:.1} s", begun.elapsed().as_secs_f64());
    expect_in_time("a namespace of 120 MB", time_to_dead_mount(&tree, address));
    cpu.print("a namespace of 120 MB", &agent);
    limited.expect_within_budget("a namespace of 120 MB");
}

#[test]
fn a_dozen_pods_of_1_4_mb_from_a_server_that_does_not_stream_are_read() {
    let (tree, dir, address) = (Tree::whole(), tempfile::tempdir().unwrap(), free_address());
    let api = Api::start();
    api.without_streaming_lists();
    let mut mounted = POD.to_owned();
    api.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker", "uid": "node-uid"},
        "status": {"nodeInfo": {"bootID": "3f5b6a52-8a0e-4f6b-9d0c-2f1f6f0a7c11"}}}));
    for number in 0..12 {
        let container = json!({"name": "c", "image": "x", "args": ["x".repeat(1_400_000)]});
        let pod = api.put(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("pod-{number}"), "namespace": "shop"},
            "spec": {"nodeName": "worker", "containers": [container]}, "status": {"phase": "Running"}}));
        // The server gives it its UID; the last one is the one whose volume is mounted here.
        let table = fs::read_to_string(tree.at("proc/1/mountinfo")).unwrap();
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        tree.write("proc/1/mountinfo", table.replace(&mounted, uid).as_bytes());
        uid.clone_into(&mut mounted);
    }
    let kubeconfig = dir.path().join("kubeconfig");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": api.url()}}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    fs::write(&kubeconfig, config.to_string()).unwrap();
    let Some(limited) = Limited::new(LIMIT) else { return };
    let more = ["--kubeconfig", kubeconfig.to_str().unwrap(), "--node", "worker"];
    let begun = Instant::now();
    let agent = run(&limited, &tree, dir.path(), address, &more);
    let cpu = Cpu::of(&agent);
    let time = time_to_dead_mount(&tree, address);
    // Its name comes with the pods, which an emulated machine reads for a while.
    eventually(PATIENCE, "the pod is named", || {
        found(address, "DeadMount").is_some_and(|finding| finding["message"].to_string().contains("shop/pod-11"))
    });
    println!("12 pods of 1.4 MB: the pod named after {:.1} s", begun.elapsed().as_secs_f64());
    expect_in_time("12 pods of 1.4 MB", time);
    cpu.print("12 pods of 1.4 MB", &agent);
    limited.expect_within_budget("12 pods of 1.4 MB");
}

/// An escape sequence, an end of line, a change of direction and markup in a name, as the kernel writes it in a mount table.
const HOSTILE: &str = "x\\033[2J\\012FORGED\u{202e}<script>alert(1)</script>\"";

/// Whether a terminal, a log or a browser shows it as it is written. In JSON, which is for programs, a change of direction stands.
fn expect_inert(what: &str, text: &str) {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') && !text.starts_with('{');
    let acts = |c: char| c.is_control() && c != '\n' || turns(c);
    assert!(!text.contains(acts), "{what}: {text:?}");
    assert!(!text.lines().any(|line| line.trim_start().starts_with("FORGED")), "{what}: {text}");
}

#[test]
fn a_name_that_a_pod_chose_is_inert_in_each_output() {
    let (tree, state, address) = (Tree::whole(), tempfile::tempdir().unwrap(), free_address());
    let table = fs::read_to_string(tree.at("proc/1/mountinfo")).unwrap();
    assert!(table.contains("/pv-a/"), "{table}");
    tree.write("proc/1/mountinfo", table.replace("/pv-a/", &format!("/{HOSTILE}/")).as_bytes());
    lose_a_device(&tree);
    let root = tree.path().to_str().unwrap();
    for more in [&["-v"][..], &["--ascii"], &["--format", "json"], &["--format", "npd"]] {
        let ended = barnacle(&[&["check", "--no-agent", "--host-root", root], more].concat(), PATIENCE);
        ended.expect_no_crash();
        assert!(ended.stdout.contains("DeadMount"), "{more:?}: {}", ended.stdout);
        expect_inert(&format!("{more:?}"), &ended.stdout);
        expect_inert(&format!("{more:?}"), &ended.stderr);
    }
    let (dir, listen) = (state.path().to_str().unwrap(), address.to_string());
    let log = ["--log-format", "human"];
    let mut agent =
        Program::start(&[&["run", "--host-root", root, "--state-dir", dir, "--listen", &listen], &log[..]].concat());
    agent.answers(address, "/readyz", 200, PATIENCE);
    eventually(PATIENCE, "DeadMount is confirmed", || is_dead_mount_confirmed(address));
    for path in ["/", "/metrics", "/api/v1/report"] {
        let (_, body) = get(address, path).unwrap();
        expect_inert(path, &body);
        assert!(path == "/api/v1/report" || !body.contains("<script>alert"), "{path}: {body}");
    }
    assert!(report(address).to_string().contains("script>alert"), "the report names it");
    assert!(agent.stderr().contains("DeadMount"), "{}", agent.stderr());
    expect_inert("the log", &agent.stderr());
}

/// A recording of these steps, ten seconds apart.
fn recording(dir: &Path, steps: impl Iterator<Item = Observation>) -> String {
    let path = dir.join("recording");
    let mut out = Writer::new(File::create(&path).unwrap()).unwrap();
    steps.enumerate().for_each(|(number, seen)| out.step(at(number), &[seen]).unwrap());
    out.finish().unwrap();
    path.to_str().unwrap().to_owned()
}

fn at(step: usize) -> NodeTime {
    let up = Duration::from_secs(86_400 + 10 * step as u64);
    NodeTime { boot: BootId::default(), up, wall: Timestamp::UNIX_EPOCH + up }
}

fn many_mounts(step: usize) -> Observation {
    let mount = |id: u32| MountEntry {
        parent: 1,
        dev: DevId { major: 259, minor: id },
        root: "/".into(),
        point: format!("/mnt/{step}/{id}").into(),
        options: "rw".into(),
        fstype: "ext4".into(),
        source: format!("/dev/x{id}").into(),
        super_options: "rw".into(),
        deleted: false,
        volume: None,
        left_out: 0,
    };
    let value = Inventory::whole((2..12_000).map(|id| (id, mount(id))));
    Observation::Mounts(Reading::Known { value, at: at(step) })
}

fn many_records(step: usize) -> Observation {
    let name = "x".repeat(3_000);
    let record = |number: usize| KernelRecord {
        seq: (step * 2_000 + number) as u64,
        up: at(step).up,
        event: KernelEvent::XfsShutdown { device: format!("{name}{step}-{number}") },
    };
    let value = KernelLog { records: (0..2_000).map(record).collect(), ..KernelLog::default() };
    Observation::KernelLog(Reading::Known { value, at: at(step) })
}

/// A line of 256 MB, which packs to some kilobytes.
fn bomb(dir: &Path) -> String {
    let path = dir.join("recording");
    let mut out = zstd::Encoder::new(File::create(&path).unwrap(), 1).unwrap();
    out.write_all(b"{\"barnacle_recording\":1}\n{\"at\":\"").unwrap();
    (0..256).for_each(|_| out.write_all(&[b'x'; 1 << 20]).unwrap());
    out.finish().unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_hostile_recording_is_played_or_refused_within_the_memory() {
    type Make = fn(&Path) -> String;
    let kinds: [(&str, Make); 3] = [
        ("12,000 mounts in each of 6 steps", |dir| recording(dir, (0..6).map(many_mounts))),
        ("2,000 kernel records of 3 kB in each of 6 steps", |dir| recording(dir, (0..6).map(many_records))),
        ("a line of 256 MB", bomb),
    ];
    for (name, make) in kinds {
        let dir = tempfile::tempdir().unwrap();
        let file = make(dir.path());
        let Some(limited) = Limited::new(LIMIT) else { return };
        let begun = Instant::now();
        let ended = limited.start(&["replay", &file]).end_within(PATIENCE);
        ended.expect_no_crash();
        let packed = fs::metadata(&file).unwrap().len();
        let (took, why) = (begun.elapsed().as_secs_f64(), ended.stderr.chars().take(120).collect::<String>());
        println!("{name}, {packed} bytes: {took:.1} s, code {:?} {why}", ended.code);
        limited.expect_within_budget(name);
    }
}
