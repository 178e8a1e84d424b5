//! Remedies: what is planned on fake nodes, and the processes of `barnacle remedy` against a fake API server and a fake executor.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use barnacle::agent::remedy::planner::Planner as Real;
use barnacle::agent::remedy::slots::Slots;
use barnacle::collect::clock::Clock;
use barnacle::collect::host::root::Root;
use barnacle::config::Config;
use barnacle::engine::Engine;
use barnacle::facts::{AgentConfigMap, Cause, NodeTime, Observation, Source, Unknown};
use barnacle::finding::Kind;
use barnacle::kube_api::{Access, Api, connect};
use barnacle::ledger::LedgerState;
use barnacle::remedy::guard::{self, Here};
use barnacle::remedy::journal::Progress;
use barnacle::remedy::permit::Permitted;
use barnacle::remedy::plan::plan;
use barnacle::remedy::request::{Answer, Ask, parse_answer, parse_request};
use barnacle::remedy::score::Ending;
use barnacle::remedy::twice::Twice;
use barnacle::remedy::{ActKind, Mode, Settings};
use serde_json::{Value, json};

use crate::world::api::{Api as Fake, Fault, On, pod};
use crate::world::scenario::{Edit, Purpose, Scenario};
use crate::world::tree::World;
use crate::world::volumes::BOOT;

const NODE: &str = "ip-10-0-0-1.ec2.internal";
const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";

/// The pure part of a planner beside a world.
#[derive(Default)]
pub struct Planner {
    twice: Twice,
    /// What became ready, as text.
    pub ready: BTreeSet<String>,
    /// What of it would be done with every kind on `act`, and nothing of the guard but its modes in the way.
    pub acts: BTreeSet<String>,
    /// Why not, as text.
    pub held: BTreeSet<String>,
}

impl Planner {
    pub fn follow(&mut self, world: &mut World) {
        let plan = self.look(&world.engine);
        world.ask(plan);
    }

    fn look(&mut self, engine: &Engine) -> Vec<barnacle::facts::Lookup> {
        let plan = plan(engine, &Config::default().detect.ebs);
        let ready = self.twice.follow(engine.now(), &plan.permitted);
        self.ready.extend(ready.iter().map(|(_, permitted)| permitted.act.to_string()));
        let goes_on = |permitted: &Permitted| {
            let config = AgentConfigMap { exists: true, ..AgentConfigMap::default() };
            let now = engine.now();
            let here = Here { now, started: now, in_last_hour: 0, failed: &[], config: Ok(&config) };
            let on = Settings {
                unmount: Mode::Act,
                remove_directory: Mode::Act,
                quiet_after_start: Duration::ZERO,
                quiet_after_kubelet: Duration::ZERO,
                ..Settings::default()
            };
            guard::before(permitted, &here, &on).is_ok()
        };
        let acts = ready.iter().filter(|(_, permitted)| goes_on(permitted));
        self.acts.extend(acts.map(|(_, permitted)| permitted.act.to_string()));
        self.held.extend(plan.held.iter().map(|(key, why)| format!("{}: {why}", key.kind)));
        plan.asks
    }
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The base with a Node that reports this boot, which every real one does.
fn with_boot(world: &mut World) {
    let node = world.path().join("api/node.json");
    if std::fs::read_to_string(&node).is_ok_and(|text| !text.contains("nodeInfo")) {
        let info = format!("\"status\":{{\"nodeInfo\":{{\"bootID\":\"{BOOT}\"}},");
        world.edit(&[Edit::Replace("api/node.json".into(), "\"status\":{".into(), info)]);
    }
}

type Rounds = Vec<(NodeTime, Vec<Observation>)>;

/// Plays a story with a planner beside it; all that was observed.
fn play(story: &str) -> (Planner, Rounds) {
    plan_beside(&Scenario::story(&tests().join("stories").join(story).join("story.txt")))
}

fn plan_beside(scenario: &Scenario) -> (Planner, Rounds) {
    let base = Scenario::base(&tests().join("scenarios/base.txt"));
    let (mut planner, mut all) = (Planner::default(), Rounds::new());
    scenario.follow(&base, |world, _, seen| {
        with_boot(world);
        planner.follow(world);
        all.extend(seen);
    });
    (planner, all)
}

/// What each story permits: the path of the pod that is gone, and its subpath, and nothing in any other story.
#[test]
fn each_story_permits_its_own_acts_and_no_others() {
    let mut permitted = Vec::new();
    for story in std::fs::read_dir(tests().join("stories")).unwrap() {
        let story = story.unwrap();
        if story.path().is_dir() {
            let name = story.file_name().into_string().unwrap();
            let (planner, _) = play(&name);
            permitted.extend(planner.ready.into_iter().map(|act| (name.clone(), act)));
        }
    }
    permitted.sort();
    let of = |mount: u32, rest: &str| {
        let act = format!("unmount /var/lib/kubelet/pods/{UID}/{rest} (mount {mount}, device 259:2) of pod {UID}");
        ("volume-held-here-wanted-there".to_owned(), act)
    };
    let expected = [of(46, "volume-subpaths/pv-a/c/1"), of(40, "volumes/kubernetes.io~csi/pv-a/mount")];
    assert_eq!(permitted, expected);
}

/// The same story while the pod has processes here: nothing is unmounted under them, also once it is found that the pod should have ended.
#[test]
fn while_a_pod_that_is_gone_has_a_process_nothing_is_permitted() {
    let story = tests().join("stories/volume-held-here-wanted-there/story.txt");
    let text = std::fs::read_to_string(story).unwrap();
    let runs = text.replacen("/pids.current\n0\n", "/pids.current\n3\n", 1);
    assert_ne!(text, runs);
    let (planner, _) = plan_beside(&Scenario::of("runs on".into(), Purpose::Raise, Kind::StuckUnmount, &runs));
    assert_eq!((planner.ready, planner.acts), (BTreeSet::new(), BTreeSet::new()));
    assert!(planner.held.contains("StuckUnmount: the pod has 3 processes"), "{:?}", planner.held);
}

/// Sources without which the story above permits nothing, from its confirmation on.
const DECIDING: &[Source] = &[
    Source::KubeletConfig,
    Source::Mounts,
    Source::MountHolders,
    Source::BlockDevices,
    Source::NvmeControllers,
    Source::Filesystems,
    Source::PodCgroups,
    Source::Node,
    Source::Pods,
    Source::VolumeAttachments,
    Source::PersistentVolumes,
];

/// Replays what was observed; from a moment on a source is denied. What is permitted, and the round in which it first is.
fn replay(all: &Rounds, denied: Option<(Source, usize)>) -> (BTreeSet<String>, usize) {
    let mut engine = Engine::new(Config::default().detect, all[0].0, LedgerState::default());
    let (mut planner, mut first) = (Planner::default(), all.len());
    for (number, (at, seen)) in all.iter().enumerate() {
        let mut seen = seen.clone();
        if let Some((source, from)) = denied
            && number >= from
        {
            let why = Unknown::new(Cause::Denied, "denied by the test");
            seen.retain(|observation| observation.source() != source);
            seen.push(Observation::unknown(source, why));
        }
        engine.step(*at, seen);
        planner.look(&engine);
        if !planner.ready.is_empty() {
            first = first.min(number);
        }
    }
    (planner.ready, first)
}

#[test]
fn without_a_source_that_decides_nothing_is_permitted() {
    let (planner, all) = play("volume-held-here-wanted-there");
    let (whole, first) = replay(&all, None);
    assert_eq!(whole, planner.ready);
    let mut deciding = Vec::new();
    for source in Source::ALL {
        // From the start, and from the pass on in which it would be ready.
        for from in [0, first] {
            let (found, _) = replay(&all, Some((*source, from)));
            assert!(found.is_empty() || found == whole, "{source}: {found:?}");
            if found.is_empty() && !deciding.contains(source) {
                deciding.push(*source);
            }
        }
    }
    assert_eq!(deciding, DECIDING);
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

async fn client(fake: &Fake, node: &str) -> Api {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": fake.url()}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "kube-system"}}]});
    std::fs::write(&path, config.to_string()).unwrap();
    connect(&Access::Kubeconfig { paths: vec![path.clone()], context: None }, node).await.unwrap()
}

fn lease(number: u64) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": format!("barnacle-remedy-slot-{number}"), "namespace": "kube-system"}, "spec": {}})
}

fn config_map(pause: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "barnacle-remedy", "namespace": "kube-system"}, "data": {"pause": pause}})
}

fn node(annotations: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "annotations": annotations},
        "status": {"nodeInfo": {"bootID": BOOT}}})
}

fn volume(annotations: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-a", "annotations": annotations}})
}

fn cluster() -> Fake {
    let fake = Fake::start();
    fake.put(config_map(""));
    fake.put(node(&json!({})));
    fake.put(volume(&json!({})));
    (0..2).for_each(|number| drop(fake.put(lease(number))));
    fake
}

/// A node on which the pod's paths were left behind long enough that their unmount is ready, and a planner that may ask for it.
struct Ready {
    world: World,
    planner: Real,
    clock: Clock,
    config: Config,
    dir: tempfile::TempDir,
    second: u64,
}

impl Ready {
    async fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let base = Scenario::base(&tests().join("scenarios/base.txt"));
        let mut world = World::new(&base);
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { node_name: Some(NODE.into()), ..Config::default() };
        config.pod_name = Some("kube-system/barnacle-remedy-x7k2p".into());
        config.state_dir = Some(dir.path().display().to_string());
        config.remedy = Settings {
            unmount: Mode::DryRun,
            quiet_after_start: Duration::ZERO,
            quiet_after_kubelet: Duration::ZERO,
            socket: dir.path().join("execute.sock").display().to_string(),
            ..Settings::default()
        };
        change(&mut config.remedy);
        let cluster = std::fs::read_to_string(tests().join("scenarios/cluster.txt")).unwrap();
        let here = tests().join("scenarios/cluster.txt");
        assert!(!cluster.is_empty());
        world.edit(&Scenario::base(&here));
        with_boot(&mut world);
        world.edit(&[Edit::File("api/agent-configmap.json".into(), br#"{"exists":true}"#.to_vec())]);
        let clock = Clock::new(&Root::open(world.path()).unwrap());
        let planner = Real::new(&config, clock.now(), true).await.unwrap();
        let mut ready = Self { world, planner, clock, config, dir, second: 0 };
        ready.pass(&mut |_| {});
        let group = format!(
            "sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/pids.current",
            UID.replace('-', "_")
        );
        let pods = json!({"items": [{"metadata": {"name": "node-agent-x", "namespace": "kube-system",
            "uid": "11111111-be53-45c4-a46f-3809d56e9a65"}, "spec": {"nodeName": NODE}, "status": {"phase": "Running"}}]});
        ready.world.edit(&[
            Edit::File(group, b"0\n".to_vec()),
            Edit::File("api/pods.json".into(), pods.to_string().into_bytes()),
        ]);
        ready
    }

    /// One pass of the engine and the plan; `each` may look at the world.
    fn pass(&mut self, each: &mut dyn FnMut(&World)) {
        self.world.pass(self.second);
        each(&self.world);
        let asks = self.planner.plan(&self.world.engine);
        self.world.ask(asks);
        self.second += 10;
    }

    /// Passes until an act is stopped, answered or intended.
    async fn until_asked(&mut self, api: Option<&Api>) {
        for _ in 0..90 {
            self.pass(&mut |_| {});
            self.planner.follow(&self.world.engine, api, self.clock).await;
            let journal = self.planner.journal().unwrap();
            if !self.planner.stopped().is_empty() || journal.next() > 1 {
                return;
            }
        }
        panic!("nothing was ready");
    }

    fn stops(&self) -> BTreeSet<&'static str> {
        self.planner.stopped().iter().map(|(_, name, _)| *name).collect()
    }

    /// An executor that gives this answer; how often it is asked.
    fn executor(&self, answer: Answer) -> std::sync::Arc<std::sync::atomic::AtomicUsize> {
        let listener = std::os::unix::net::UnixListener::bind(self.dir.path().join("execute.sock")).unwrap();
        let asked = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
        let count = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut line = vec![0; 4096];
                let length = stream.read(&mut line).unwrap();
                parse_request(&line[..length]).unwrap();
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                stream.write_all(&answer.line()).unwrap();
            }
        });
        asked
    }
}

#[test]
fn what_is_ready_is_verified_recorded_and_followed_to_its_end() {
    run(async {
        let fake = cluster();
        let api = client(&fake, NODE).await;
        let mut ready = Ready::new(|_| {}).await;
        let asked = ready.executor(Answer::WouldAct);
        ready.until_asked(Some(&api)).await;
        let journal = ready.planner.journal().unwrap();
        assert_eq!(ready.planner.stopped(), []);
        assert_eq!(journal.open().count(), 2, "the volume and its subpath");
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 2);
        for number in 0..2 {
            let held = fake.get("leases", "kube-system", &format!("barnacle-remedy-slot-{number}")).unwrap();
            assert!(held["spec"]["holderIdentity"].as_str().is_none_or(str::is_empty), "{held}");
        }
        // It is not asked for again while it is open.
        for _ in 0..10 {
            ready.pass(&mut |_| {});
            ready.planner.follow(&ready.world.engine, Some(&api), ready.clock).await;
        }
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 2);
        // The kubelet unmounts in the end.
        let table = "21 29 0:20 / /sys rw - sysfs sysfs rw\n29 1 259:1 / / rw shared:1 - xfs /dev/nvme0n1p1 rw\n";
        let table = Edit::File("proc/1/mountinfo".into(), table.into());
        ready.world.edit(&[table, Edit::Remove("sys/fs/ext4/nvme1n1".into())]);
        ready.pass(&mut |_| {});
        ready.planner.follow(&ready.world.engine, Some(&api), ready.clock).await;
        let score = ready.planner.journal().unwrap().score();
        let ended: Vec<_> = score.ended.iter().map(|tally| (tally.outcome.name(), tally.count)).collect();
        assert_eq!(ended, [("by-itself", 2)]);
        let output = Command::new(env!("CARGO_BIN_EXE_barnacle"))
            .args(["remedy", "score", "--state-dir"])
            .arg(ready.dir.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("2 would have been done") && text.contains("resolved by itself"), "{text}");
    });
}

/// The reason that stops an act, and what makes it so.
type Case<'a, T> = (&'static str, &'a dyn Fn(&T));

/// Each of these alone: the executor is not asked, and nothing is intended.
#[test]
fn an_api_server_that_says_otherwise_by_name_or_nothing_stops_every_act() {
    let exists = |fake: &Fake| {
        let mut db = pod("default", "db", NODE);
        db["metadata"]["uid"] = json!(UID);
        fake.put(db);
    };
    let veto = json!({"barnacle.dev/no-remedy": ""});
    let cases: [Case<'_, Fake>; 10] = [
        ("pod-exists", &exists),
        ("pod-exists", &|fake| drop(fake.put(pod("default", "db", NODE)))),
        ("paused", &|fake| drop(fake.put(config_map("incident 7")))),
        ("no-configmap", &|fake| drop(fake.delete(&config_map("")))),
        ("vetoed", &|fake| drop(fake.put(node(&veto)))),
        ("vetoed", &|fake| drop(fake.put(volume(&veto)))),
        ("vetoed", &|fake| drop(fake.put(node(&json!({"karpenter.sh/do-not-repair": "true"}))))),
        ("changed", &|fake| drop(fake.delete(&volume(&json!({}))))),
        ("unknown", &|fake| fake.fault(Fault::Status(503), On::path("/api/v1/namespaces/default/pods"))),
        ("unknown", &|fake| fake.stop()),
    ];
    for (expected, change) in cases {
        run(async {
            let fake = cluster();
            let api = client(&fake, NODE).await;
            change(&fake);
            let mut ready = Ready::new(|_| {}).await;
            let asked = ready.executor(Answer::WouldAct);
            ready.until_asked(Some(&api)).await;
            assert_eq!(ready.stops(), [expected].into(), "{:?}", ready.planner.stopped());
            assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 0, "{expected}");
            assert_eq!(ready.planner.journal().unwrap().next(), 1, "nothing is intended: {expected}");
        });
    }
}

#[test]
fn settings_caps_and_quiet_times_stop_every_act() {
    let cases: [Case<'_, RefCell<Settings>>; 4] = [
        ("mode", &|settings| settings.borrow_mut().unmount = Mode::Report),
        ("never-touched", &|settings| settings.borrow_mut().never_namespaces = vec!["default".into()]),
        ("started", &|settings| settings.borrow_mut().quiet_after_start = Duration::from_secs(3600)),
        ("kubelet-started", &|settings| settings.borrow_mut().quiet_after_kubelet = Duration::from_secs(1 << 20)),
    ];
    for (expected, change) in cases {
        run(async {
            let fake = cluster();
            let api = client(&fake, NODE).await;
            let mut ready = Ready::new(|settings| {
                let changed = RefCell::new(settings.clone());
                change(&changed);
                *settings = changed.into_inner();
            })
            .await;
            ready.until_asked(Some(&api)).await;
            assert_eq!(ready.stops(), [expected].into());
            assert!(fake.requests().is_empty(), "nothing is asked before: {:?}", fake.requests());
        });
    }
}

#[test]
fn no_more_acts_than_the_cap_are_taken_in_an_hour() {
    run(async {
        let fake = cluster();
        let api = client(&fake, NODE).await;
        let mut ready = Ready::new(|settings| settings.acts_per_hour = 1).await;
        let asked = ready.executor(Answer::WouldAct);
        ready.until_asked(Some(&api)).await;
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert_eq!(ready.stops(), ["cap"].into());
    });
}

#[test]
fn an_executor_that_refuses_or_is_not_there_is_in_the_record() {
    for there in [true, false] {
        run(async {
            let fake = cluster();
            let api = client(&fake, NODE).await;
            let mut ready = Ready::new(|_| {}).await;
            if there {
                ready.executor(Answer::Refused("the mount is young".into()));
            }
            ready.until_asked(Some(&api)).await;
            let journal = ready.planner.journal().unwrap();
            assert_eq!((journal.open().count(), journal.score().refused.len()), (0, 1));
        });
    }
}

#[test]
fn slots_hold_for_many_planners_and_come_back() {
    run(async {
        let fake = cluster();
        let now = |seconds: u64| NodeTime {
            boot: BOOT.parse().unwrap(),
            up: Duration::from_secs(seconds),
            wall: jiff::Timestamp::UNIX_EPOCH,
        };
        let mut taken = Vec::new();
        let mut planners = Vec::new();
        for number in 0..20 {
            let api = client(&fake, &format!("node-{number}")).await;
            let mut slots = Slots::new("barnacle-remedy", 2);
            match slots.take(&api, now(0)).await {
                Ok(slot) => taken.push((api, slots, slot)),
                Err(stop) => {
                    assert_eq!(stop.name(), "no-slot");
                    planners.push((api, slots));
                }
            }
        }
        assert_eq!(taken.len(), 2);
        // A slot that is given back is free at once.
        let (api, slots, slot) = taken.pop().unwrap();
        slots.release(&api, slot).await;
        let (api, mut slots) = planners.pop().unwrap();
        let _given = slots.take(&api, now(1)).await.unwrap();
        // A holder that is silent loses it after two minutes of this planner's own clock.
        let (api, mut slots) = planners.pop().unwrap();
        assert!(slots.take(&api, now(0)).await.is_err());
        assert!(slots.take(&api, now(119)).await.is_err());
        assert!(slots.take(&api, now(121)).await.is_ok());
        // An API server that does not answer has no free slot.
        fake.stop();
        let (api, mut slots) = planners.pop().unwrap();
        assert_eq!(slots.take(&api, now(2)).await.unwrap_err().name(), "unknown");
    });
}

/// Of two that see a slot free at the same time one has it.
#[test]
fn two_planners_do_not_share_a_slot() {
    run(async {
        let fake = cluster();
        fake.delete(&lease(1));
        let (one, two) = (client(&fake, "node-1").await, client(&fake, "node-2").await);
        let now = NodeTime { boot: BOOT.parse().unwrap(), up: Duration::ZERO, wall: jiff::Timestamp::UNIX_EPOCH };
        let (mut first, mut second) = (Slots::new("barnacle-remedy", 2), Slots::new("barnacle-remedy", 2));
        let (first, second) = tokio::join!(first.take(&one, now), second.take(&two, now));
        assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    });
}

/// The built executor on a tree, and its socket.
struct Executor {
    child: Child,
    dir: tempfile::TempDir,
    world: World,
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Executor {
    fn start() -> Self {
        let base = Scenario::base(&tests().join("scenarios/base.txt"));
        let world = World::new(&base);
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_barnacle"))
            .args(["remedy", "execute", "--remedy-stuck-unmount", "dry-run", "--log", "error", "--host-root"])
            .arg(world.path())
            .args(["--state-dir", &dir.path().join("state").display().to_string()])
            .args(["--remedy-socket", &dir.path().join("execute.sock").display().to_string()])
            .spawn()
            .unwrap();
        let executor = Self { child, dir, world };
        for _ in 0..600 {
            if executor.dir.path().join("execute.sock").exists() {
                return executor;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("no socket");
    }

    fn ask(&self, line: &[u8]) -> Result<Answer, String> {
        let mut stream = UnixStream::connect(self.dir.path().join("execute.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // It may answer and close before it has all of a line that is too long.
        let _ = stream.write_all(line);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        parse_answer(&answer)
    }
}

#[test]
fn the_executor_refuses_what_it_has_not_seen_itself_and_what_is_no_request() {
    let executor = Executor::start();
    let act = |mount: u32, path: &str| {
        let line = json!({"version": 1, "act": {"unmount-pod-path": {"pod": UID, "path": path, "mount-id": mount,
            "device": "259:2", "root": "/"}}});
        format!("{line}\n")
    };
    let path = format!("/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~csi/pv-a/mount");
    let staging = "/var/lib/kubelet/plugins/kubernetes.io/csi/ebs.csi.aws.com/0716/globalmount";
    let directory = format!("{}\n", json!({"version": 1, "act": {"remove-empty-pod-directory": {"pod": UID}}}));
    for (line, why) in [
        // The pod of the base runs.
        (act(40, &path).into_bytes(), "processes"),
        (act(40, staging).into_bytes(), "no volume or subpath of this pod"),
        (act(40, "/etc").into_bytes(), "no volume or subpath of this pod"),
        (directory.into_bytes(), "mode of this kind is report"),
        (b"{\"version\":1,\"act\":\"reboot\"}\n".to_vec(), "no request of this protocol"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "no request of this protocol"),
        (b"no line feed".to_vec(), "has no end"),
        (vec![b'x'; 100_000], "more than"),
        (vec![0xff, b'\n'], "no request of this protocol"),
    ] {
        // What is closed before it is read to its end may be reset.
        match executor.ask(&line) {
            Ok(Answer::Refused(found)) => assert!(found.contains(why), "{found}, expected {why}"),
            Ok(other) => panic!("{other:?}: {}", String::from_utf8_lossy(&line)),
            Err(_) => assert!(line.len() > 16 << 10),
        }
    }
}

#[test]
fn the_drill_passes() {
    let output = Command::new(env!("CARGO_BIN_EXE_barnacle")).arg("drill").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.ends_with("The drill passed.\n"), "{text}");
}

#[test]
fn a_mode_that_is_none_stops_the_start() {
    let output = Command::new(env!("CARGO_BIN_EXE_barnacle"))
        .args(["remedy", "plan", "--remedy-stuck-unmount", "force"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(text.contains("there is no such mode; expected report, dry-run or act"), "{text}");
}

/// Without the capabilities of the component `daemonset/remedy/act`.
#[test]
fn an_executor_that_shall_act_and_cannot_says_so_and_does_not_start() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root may give capabilities away");
    }
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all", env!("CARGO_BIN_EXE_barnacle")])
        .args(["remedy", "execute", "--remedy-stuck-unmount", "act", "--state-dir"])
        .arg(dir.path().join("state"))
        .args(["--remedy-socket", &dir.path().join("execute.sock").display().to_string()])
        .output();
    let Ok(output) = output else { return println!("skipped: no setpriv") };
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("add the component daemonset/remedy/act"), "{text}");
    assert!(!dir.path().join("execute.sock").exists());
}

/// Of this process alone: the agent's scrape has none of them.
#[test]
fn every_metric_of_the_planner_is_documented() {
    let journal = barnacle::remedy::journal::Journal::default();
    let now = NodeTime { boot: BOOT.parse().unwrap(), up: Duration::ZERO, wall: jiff::Timestamp::UNIX_EPOCH };
    let shown = barnacle::remedy::shown::Shown {
        now,
        node: NODE,
        settings: &Settings::default(),
        journal: Ok(&journal),
        held: &[],
        stopped: &[],
        stops_total: &[].into(),
    };
    let documented = std::fs::read_to_string(tests().join("../docs/remedies.md")).unwrap();
    let of_agent = std::fs::read_to_string(tests().join("../docs/metrics.md")).unwrap();
    let scrape = shown.metrics();
    let types = scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let types: Vec<_> = types.collect();
    assert_eq!(types.len(), 9);
    for (name, kind) in types {
        assert!(documented.contains(&format!("| `{name}` | {kind} |")), "{name}");
        assert!(!of_agent.contains(name), "{name}");
    }
}

/// An executor that treats its mounts as the kernel does, and counts what it does.
#[derive(Default)]
struct Model {
    begun: std::collections::BTreeMap<u32, u32>,
    done: std::collections::BTreeMap<u32, u32>,
    /// What it answers instead, by what is asked.
    begins: Option<Answer>,
    finishes: Option<Answer>,
    /// It takes a request, does it, and ends without an answer.
    silent: bool,
}

type Shared = std::sync::Arc<std::sync::Mutex<Model>>;

fn mount_of(request: &barnacle::remedy::request::Request) -> u32 {
    match &request.act {
        barnacle::remedy::Act::UnmountPodPath(act) => act.mount_id,
        barnacle::remedy::Act::RemoveEmptyPodDirectory(_) => 0,
    }
}

/// Mounts that were begun, and unmounts that were done.
fn counts(model: &Shared) -> (usize, usize) {
    let model = model.lock().unwrap();
    (model.begun.len(), model.done())
}

impl Model {
    fn answer(&mut self, line: &[u8]) -> Answer {
        let request = parse_request(line).unwrap();
        let mount = mount_of(&request);
        match request.ask {
            Ask::Verify => Answer::WouldAct,
            Ask::Begin => self.begins.clone().unwrap_or_else(|| {
                *self.begun.entry(mount).or_default() += 1;
                Answer::Marked
            }),
            Ask::Finish => self.finishes.clone().unwrap_or_else(|| {
                *self.done.entry(mount).or_default() += 1;
                Answer::Done
            }),
        }
    }

    fn done(&self) -> usize {
        self.done.values().map(|count| *count as usize).sum()
    }
}

impl Ready {
    async fn acting() -> (Self, Fake, Api, Shared) {
        let fake = cluster();
        let api = client(&fake, NODE).await;
        let ready = Self::new(|settings| settings.unmount = Mode::Act).await;
        let model = Shared::default();
        let listener = std::os::unix::net::UnixListener::bind(ready.dir.path().join("execute.sock")).unwrap();
        let answers = model.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut line = vec![0; 4096];
                // A planner that was killed sends nothing, or takes no answer.
                let Ok(length @ 1..) = stream.read(&mut line) else { continue };
                let answer = answers.lock().unwrap().answer(&line[..length]);
                if !answers.lock().unwrap().silent {
                    let _ = stream.write_all(&answer.line());
                }
            }
        });
        (ready, fake, api, model)
    }

    /// The machine's clock goes with the engine's.
    fn set_clock(&mut self) {
        let up = self.world.node_time(self.second).up.as_secs() + 1;
        self.world.edit(&[Edit::File("proc/uptime".into(), format!("{up}.00 1.00\n").into_bytes())]);
        self.clock = Clock::new(&Root::open(self.world.path()).unwrap());
    }

    async fn round(&mut self, api: Option<&Api>) {
        self.set_clock();
        self.pass(&mut |_| {});
        self.planner.follow(&self.world.engine, api, self.clock).await;
    }

    /// Rounds until something is true.
    async fn until(&mut self, api: Option<&Api>, most: usize, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..most {
            if is_so(self) {
                return;
            }
            self.round(api).await;
        }
        assert!(is_so(self), "{:?} {:?}", self.planner.stopped(), self.planner.journal());
    }

    fn acted(&self, ending: Ending) -> u64 {
        self.planner.journal().unwrap().score().acted(ActKind::UnmountPodPath, ending)
    }

    fn is_marked(&self) -> bool {
        self.planner.journal().unwrap().acting().any(|(_, case)| case.progress == Progress::Marked)
    }

    /// The mounts of the pod go, as an act does it.
    fn unmount(&mut self, ids: &[u32]) {
        let path = self.world.path().join("proc/1/mountinfo");
        let text = std::fs::read_to_string(path).unwrap();
        let is_one = |line: &&str| !ids.iter().any(|id| line.starts_with(&format!("{id} ")));
        let left: String = text.lines().filter(is_one).map(|line| format!("{line}\n")).collect();
        self.world.edit(&[Edit::File("proc/1/mountinfo".into(), left.into_bytes())]);
    }
}

fn events(fake: &Fake) -> Vec<String> {
    fake.all("events").iter().map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_act_is_begun_finished_half_a_minute_later_and_done_when_it_was_read_again() {
    run(async {
        let (mut ready, fake, api, model) = Ready::acting().await;
        ready.until(Some(&api), 90, Ready::is_marked).await;
        assert_eq!(counts(&model), (1, 0));
        assert_eq!(ready.stops(), ["under-way"].into(), "one at a time");
        let held = |number| fake.get("leases", "kube-system", &format!("barnacle-remedy-slot-{number}")).unwrap();
        let holders = (0..2).filter(|number| held(*number)["spec"]["holderIdentity"] == NODE).count();
        assert_eq!(holders, 1, "a slot is held until the act has ended");
        for _ in 0..2 {
            ready.round(Some(&api)).await;
            assert_eq!(counts(&model).1, 0, "less than 30 s");
        }
        ready.until(Some(&api), 3, |_| counts(&model).1 == 1).await;
        assert_eq!(ready.acted(Ending::Done), 0, "what the executor says is not enough");
        let id = *model.lock().unwrap().done.keys().next().unwrap();
        ready.unmount(&[id]);
        ready.until(Some(&api), 2, |ready| ready.acted(Ending::Done) == 1).await;
        assert_eq!(events(&fake), ["RemedyDone"]);
        // Then the other path of the same pod, and nothing else ever.
        ready.until(Some(&api), 60, |_| counts(&model).1 == 2).await;
        let ids: Vec<u32> = model.lock().unwrap().done.keys().copied().collect();
        assert_eq!(ids, [40, 46]);
        ready.unmount(&ids);
        ready.until(Some(&api), 2, |ready| ready.acted(Ending::Done) == 2).await;
        for _ in 0..10 {
            ready.round(Some(&api)).await;
        }
        assert_eq!(counts(&model), (2, 2));
        let holders = (0..2).filter(|number| held(*number)["spec"]["holderIdentity"] == NODE).count();
        assert_eq!(holders, 0);
    });
}

/// Each of these alone, between the two calls: the second one is never asked for.
#[test]
fn whatever_changes_between_the_two_calls_stops_the_act() {
    type Change<'a> = (&'static str, &'a dyn Fn(&mut Ready, &Fake));
    let veto = json!({"barnacle.dev/no-remedy": ""});
    let group = format!(
        "sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/pids.current",
        UID.replace('-', "_")
    );
    let cases: [Change<'_>; 8] = [
        ("the kill switch", &|_, fake| drop(fake.put(config_map("incident 7")))),
        ("a veto on the Node", &|_, fake| drop(fake.put(node(&veto)))),
        ("a veto on the PersistentVolume", &|_, fake| drop(fake.put(volume(&veto)))),
        ("a pod of the same name", &|_, fake| drop(fake.put(pod("default", "db", NODE)))),
        ("an API server that is gone", &|_, fake| fake.stop()),
        ("a process of the pod", &|ready, _| ready.world.edit(&[Edit::File(group.clone(), b"1\n".to_vec())])),
        ("a mount table that cannot be read", &|ready, _| {
            ready.world.edit(&[Edit::File("proc/1/mountinfo".into(), b"garbage\n".to_vec())]);
        }),
        ("a second mount at the path", &|ready, _| {
            let path = ready.world.path().join("proc/1/mountinfo");
            let text = std::fs::read_to_string(path).unwrap();
            let more: String =
                text.lines().filter(|line| line.contains(UID)).map(|line| format!("9{line}\n")).collect();
            ready.world.edit(&[Edit::File("proc/1/mountinfo".into(), format!("{text}{more}").into_bytes())]);
        }),
    ];
    for (what, change) in cases {
        run(async {
            let (mut ready, fake, api, model) = Ready::acting().await;
            ready.until(Some(&api), 90, Ready::is_marked).await;
            change(&mut ready, &fake);
            ready.until(Some(&api), 5, |ready| ready.acted(Ending::Stopped) == 1).await;
            assert_eq!(counts(&model).1, 0, "{what}");
        });
    }
}

#[test]
fn a_failure_stops_its_kind_over_restarts_until_its_mode_was_another_one() {
    run(async {
        let (mut ready, fake, api, model) = Ready::acting().await;
        model.lock().unwrap().begins = Some(Answer::Failed("EPERM".into()));
        ready.until(Some(&api), 90, |ready| ready.acted(Ending::Failed) == 1).await;
        assert_eq!(events(&fake), ["RemedyFailed"]);
        let mut config = ready.config.clone();
        ready.planner = Real::new(&config, ready.clock.now(), true).await.unwrap();
        model.lock().unwrap().begins = None;
        ready.until(Some(&api), 60, |ready| ready.stops().contains("failed")).await;
        assert_eq!(counts(&model).0, 0);
        config.remedy.unmount = Mode::DryRun;
        drop(Real::new(&config, ready.clock.now(), true).await.unwrap());
        config.remedy.unmount = Mode::Act;
        ready.planner = Real::new(&config, ready.clock.now(), true).await.unwrap();
        ready.until(Some(&api), 60, |_| counts(&model).0 == 1).await;
    });
}

#[test]
fn an_executor_that_says_it_is_done_and_did_nothing_is_a_failure() {
    run(async {
        let (mut ready, _fake, api, _model) = Ready::acting().await;
        ready.until(Some(&api), 120, |ready| ready.acted(Ending::Failed) == 1).await;
        ready.until(Some(&api), 30, |ready| ready.stops().contains("failed")).await;
    });
}

/// An answer that does not come is no answer: what is there is read, and nothing is asked for again meanwhile.
#[test]
fn what_has_no_answer_is_read_again_and_not_done_again() {
    for went in [false, true] {
        run(async {
            let (mut ready, _fake, api, model) = Ready::acting().await;
            ready.until(Some(&api), 90, Ready::is_marked).await;
            model.lock().unwrap().silent = true;
            ready.until(Some(&api), 5, |_| counts(&model).1 == 1).await;
            let id = *model.lock().unwrap().done.keys().next().unwrap();
            if went {
                ready.unmount(&[id]);
                ready.until(Some(&api), 2, |ready| ready.acted(Ending::Done) == 1).await;
            } else {
                ready.until(Some(&api), 20, |ready| ready.acted(Ending::Interrupted) == 1).await;
            }
            assert_eq!(model.lock().unwrap().done[&id], 1);
        });
    }
}

/// The planner is killed wherever it waits: for the disk, the API server, the executor.
#[test]
fn a_planner_that_is_killed_at_any_wait_does_nothing_twice_and_loses_nothing() {
    let most: u64 = std::env::var("CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let (mut kills, mut acts) = (0, 0);
    for seed in 1..=most {
        run(async {
            let (mut ready, _fake, api, model) = Ready::acting().await;
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut below = |n: u64| {
                random ^= random >> 12;
                random ^= random << 25;
                random ^= random >> 27;
                (random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
            };
            for _ in 0..150 {
                ready.set_clock();
                ready.pass(&mut |_| {});
                let polls = below(40);
                let ended = {
                    let follow = ready.planner.follow(&ready.world.engine, Some(&api), ready.clock);
                    let mut follow = std::pin::pin!(follow);
                    let mut left = polls;
                    std::future::poll_fn(|context| match follow.as_mut().poll(context) {
                        std::task::Poll::Ready(()) => std::task::Poll::Ready(true),
                        std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(false),
                        std::task::Poll::Pending => {
                            left -= 1;
                            std::task::Poll::Pending
                        }
                    })
                    .await
                };
                if !ended {
                    kills += 1;
                    // What was under way on its threads ends before the next one opens the file.
                    while ready.planner.journal().is_none() && std::sync::Arc::strong_count(&model) > 2 {
                        std::thread::yield_now();
                    }
                    std::thread::sleep(Duration::from_millis(20));
                    ready.planner = Real::new(&ready.config, ready.clock.now(), true).await.unwrap();
                }
                // What the executor did shows in the mount table.
                let done: Vec<u32> = model.lock().unwrap().done.keys().copied().collect();
                ready.unmount(&done);
            }
            ready.until(Some(&api), 40, |ready| ready.planner.journal().unwrap().acting().count() == 0).await;
            let model = model.lock().unwrap();
            assert!(model.done.values().all(|count| *count == 1), "seed {seed}: twice: {:?}", model.done);
            let done = ready.acted(Ending::Done);
            assert!(done >= model.done() as u64, "seed {seed}: an act is lost: {:?}", ready.planner.journal());
            acts += model.done();
        });
    }
    assert!(kills > 0 && acts > 0, "{kills} kills, {acts} acts: nothing is tested");
}

/// With the capabilities of the component and no others: one thread enters the host's mount namespace, and none has a network.
#[test]
fn an_executor_that_acts_enters_the_hosts_mounts_with_one_thread_and_leaves_the_network() {
    // Stands for the host's first process, which is in another namespace than the executor's container.
    let first = First(Command::new("sleep").arg("600").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let at = format!("/proc/{}", first.0.id());
    let host = std::fs::read_link(format!("{at}/ns/mnt")).unwrap();
    crate::robust::mounts::in_own_namespace(move || {
        let base = Scenario::base(&tests().join("scenarios/base.txt"));
        let world = World::new(&base);
        nix::mount::mount(
            Some(&*at),
            &world.path().join("proc/1"),
            None::<&str>,
            nix::mount::MsFlags::MS_BIND,
            None::<&str>,
        )
        .unwrap();
        if !Command::new("setpriv").arg("--version").output().is_ok_and(|output| output.status.success()) {
            return println!("skipped: no setpriv");
        }
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("execute.sock");
        let child = Command::new("setpriv")
            .args(["--bounding-set=-all,+sys_admin,+sys_chroot,+sys_ptrace", "--inh-caps=-all"])
            .arg(env!("CARGO_BIN_EXE_barnacle"))
            .args(["remedy", "execute", "--remedy-stuck-unmount", "act", "--log", "error", "--host-root"])
            .arg(world.path())
            .args(["--state-dir", &dir.path().join("state").display().to_string()])
            .args(["--remedy-socket", &socket.display().to_string()])
            .spawn()
            .unwrap();
        let mut executor = Executor { child, dir, world };
        for _ in 0..600 {
            if socket.exists() {
                break;
            }
            assert!(executor.child.try_wait().unwrap().is_none(), "it ended");
            std::thread::sleep(Duration::from_millis(50));
        }
        let proc = PathBuf::from(format!("/proc/{}", executor.child.id()));
        let status = std::fs::read_to_string(proc.join("status")).unwrap();
        assert!(status.contains("CapEff:\t00000000002c0000\n"), "{status}");
        let link = |path: PathBuf| std::fs::read_link(path).unwrap();
        let (ours, net) = (link("/proc/thread-self/ns/mnt".into()), link("/proc/self/ns/net".into()));
        assert_ne!(host, ours);
        let mut in_host = 0;
        for thread in std::fs::read_dir(proc.join("task")).unwrap() {
            let thread = thread.unwrap().path();
            let name = std::fs::read_to_string(thread.join("comm")).unwrap();
            assert_ne!(link(thread.join("ns/net")), net, "{name} has a network");
            let mounts = link(thread.join("ns/mnt"));
            assert!(mounts == host || mounts == ours);
            assert_eq!(mounts == host, name.trim() == "barnacle-acts", "{name}");
            in_host += usize::from(mounts == host);
        }
        assert_eq!(in_host, 1);
        // It answers, and has not watched for ten minutes.
        let act = json!({"unmount-pod-path": {"pod": UID, "path": format!("/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~csi/pv-a/mount"),
            "mount-id": 40, "device": "259:2", "root": "/"}});
        for ask in ["verify", "begin", "finish"] {
            let line = format!("{}\n", json!({"version": 1, "ask": ask, "act": act}));
            assert!(matches!(executor.ask(line.as_bytes()), Ok(Answer::Refused(_))), "{ask}");
        }
        let _ = executor.child.kill();
        nix::mount::umount2(&executor.world.path().join("proc/1"), nix::mount::MntFlags::MNT_DETACH).unwrap();
    });
}

/// A process that ends with its test.
struct First(Child);

impl Drop for First {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
