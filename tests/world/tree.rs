//! The tree of files and what looks at it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use barnacle::agent::schedule::Schedule;
use barnacle::agent::state::{MachineIds, StateDir};
use barnacle::collect::cluster::{Object, read_agent_reports, read_object, read_pods};
use barnacle::collect::host::root::Root;
use barnacle::collect::imds::{self, Answer as Answered, parse};
use barnacle::collect::kubelet::pods_api;
use barnacle::collect::kubelet::provider::{Due, Endpoint, Pace};
use barnacle::collect::{Host, HostSettings};
use barnacle::config::Config;
use barnacle::engine::Engine;
use barnacle::facts::{
    Answer, Answers, Cause, ImdsCredentials, ImdsNotices, Lookup, NodeLease, NodeTime, Observation, Part,
    PersistentVolume, Pod, Provider, Reading, RoleCredentials, Source, SourceSet, Unknown, VolumeAttachment,
    VolumeClass,
};
use barnacle::ledger::LedgerState;
use serde::de::DeserializeOwned;

use super::scenario::Edit;

/// 2026-11-21T00:00:00Z.
pub const MIDNIGHT: i64 = 1_795_219_200;
/// The node is up for a day when a scenario begins.
const UP: u64 = 86_400;

/// A node.
pub struct World {
    dir: tempfile::TempDir,
    host: Host,
    state: StateDir,
    pub engine: Engine,
    schedule: Schedule,
    lookups: Vec<Lookup>,
    /// Scenario second at which this boot began to be counted, and its uptime then.
    boot: (u64, u64),
    /// When the kubelet is asked.
    paces: Paces,
    /// When its socket is asked.
    pods_api: Pace,
    /// What the API server was asked so far.
    answers: RefCell<Said>,
    /// What each source returned when it was read last.
    latest: BTreeMap<Source, Observation>,
}

/// All answers of the API server: each observation has those before it, too.
#[derive(Default)]
struct Said {
    attachments: Answers<VolumeAttachment>,
    volumes: Answers<PersistentVolume>,
    storage_classes: Answers<VolumeClass>,
    attributes_classes: Answers<VolumeClass>,
    pods: Answers<Pod>,
    leases: Answers<NodeLease>,
}

type Paces = [(Endpoint, Pace); Endpoint::ALL.len()];

fn paces() -> Paces {
    Endpoint::ALL.map(|endpoint| (endpoint, Pace::new(endpoint.source())))
}

impl Said {
    fn put(&mut self, name: String, object: Option<Object>, source: Source, at: NodeTime) -> Observation {
        fn add<T: Clone>(to: &mut Answers<T>, name: String, object: Option<T>, at: NodeTime) -> Reading<Answers<T>> {
            to.0.insert(name, object.map_or(Answer::NotFound, Answer::Found));
            Reading::Known { value: to.clone(), at }
        }
        macro_rules! say {
            ($list:ident, $object:ident, $variant:ident) => {{
                let object = object.map(|object| match object {
                    Object::$object(object) => object,
                    _ => unreachable!(),
                });
                Observation::$variant(add(&mut self.$list, name, object, at))
            }};
        }
        match source {
            Source::VolumeAttachments => say!(attachments, VolumeAttachment, VolumeAttachments),
            Source::PersistentVolumes => say!(volumes, PersistentVolume, PersistentVolumes),
            Source::StorageClasses => say!(storage_classes, Class, StorageClasses),
            Source::AttributesClasses => say!(attributes_classes, Class, AttributesClasses),
            Source::NodeLeases => say!(leases, NodeLease, NodeLeases),
            _ => say!(pods, Pod, FormerPods),
        }
    }
}

impl World {
    pub fn new(base: &[Edit]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        apply(dir.path(), base);
        let now = node_time(dir.path(), 0, (0, UP));
        let (state, memory) = open_state(dir.path(), now);
        let engine = Engine::new(Config::default().detect, now, memory);
        let schedule = Schedule::new(Duration::from_secs(10));
        Self {
            host: host(dir.path()),
            dir,
            state,
            engine,
            schedule,
            lookups: Vec::new(),
            boot: (0, UP),
            paces: paces(),
            pods_api: Pace::new(Source::PodsApi),
            answers: RefCell::default(),
            latest: BTreeMap::new(),
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What a source returned when it was read last; `None` before that.
    pub fn latest(&self, source: Source) -> Option<&Observation> {
        self.latest.get(&source)
    }

    /// What else than a detector is to be asked for.
    pub fn ask(&mut self, lookups: Vec<Lookup>) {
        self.lookups.extend(lookups);
    }

    pub fn edit(&mut self, edits: &[Edit]) {
        apply(self.dir.path(), edits);
    }

    /// The agent is killed and started again.
    pub fn restart(&mut self, second: u64) {
        let now = self.node_time(second);
        let (state, memory) = open_state(self.dir.path(), now);
        self.state = state;
        self.engine = Engine::new(Config::default().detect, now, memory);
        self.host = host(self.dir.path());
        self.schedule = Schedule::new(Duration::from_secs(10));
        self.lookups.clear();
        self.paces = paces();
        self.pods_api = Pace::new(Source::PodsApi);
        self.answers = RefCell::default();
    }

    /// The machine goes down, with a shutdown or without, and an agent starts in its next boot.
    pub fn reboot(&mut self, second: u64, boot_id: &str, stopped: bool) {
        let now = self.node_time(second);
        if stopped {
            self.state.stopped(now, self.engine.memory());
        }
        fs::write(self.dir.path().join("proc/sys/kernel/random/boot_id"), boot_id).unwrap();
        self.boot = (second, 30);
        let now = self.node_time(second);
        let (state, memory) = open_state(self.dir.path(), now);
        self.state = state;
        self.engine = Engine::new(Config::default().detect, now, memory);
        self.host = host(self.dir.path());
        self.paces = paces();
        self.pods_api = Pace::new(Source::PodsApi);
        self.schedule = Schedule::new(Duration::from_secs(10));
    }

    /// What the agent does at this time: it reads what is due, evaluates it, and answers what its detectors ask.
    pub fn pass(&mut self, second: u64) {
        self.rounds(second, |_, _| {});
    }

    /// The same; each round's observations are handed out before the engine has them.
    pub fn rounds(&mut self, second: u64, mut each: impl FnMut(NodeTime, &[Observation])) {
        let at = self.node_time(second);
        for _ in 0..3 {
            let lookups = std::mem::take(&mut self.lookups);
            let of_host = lookups.iter().map(Lookup::source).filter(|source| source.provider() == Provider::Host);
            let asked: SourceSet = of_host.collect();
            let due = self.schedule.take_due(at).with(asked);
            let mut seen: Vec<_> = due.iter().map(|source| self.host.collect(source, &lookups, at)).collect();
            self.state.replace(&mut seen, at);
            seen.extend(self.api(at, &lookups));
            seen.extend(self.kubelet(at, &seen));
            seen.extend(self.pods_api(at, &seen));
            seen.extend(self.imds(at));
            each(at, &seen);
            self.latest.extend(seen.iter().map(|observation| (observation.source(), observation.clone())));
            let step = self.engine.step(at, seen);
            self.schedule.answer((&step.lookups, &step.askers), at, &mut self.lookups);
            if self.lookups.is_empty() {
                break;
            }
        }
        self.state.save(at, &self.engine);
        // Scenario time runs faster than the disk.
        self.state.settle(Duration::from_secs(10));
    }

    /// What the API server says, where the scenario has one (`api/`): its lists and objects as kubectl prints them, and
    /// what is asked by name. What is not there it does not have.
    fn api(&self, at: NodeTime, lookups: &[Lookup]) -> Vec<Observation> {
        let api = self.dir.path().join("api");
        let mut seen = Vec::new();
        let file = |name: &str| fs::read(api.join(name)).ok();
        let pods = |name: &str| file(name).map(|list| Reading::of(read_pods(&list), at));
        seen.extend(pods("pods.json").map(Observation::Pods));
        seen.extend(pods("pending.json").map(Observation::PendingPods));
        let reports = file("nodes.json").map(|list| Reading::of(read_agent_reports(&list), at));
        seen.extend(reports.map(Observation::AgentReports));
        if let Some(node) = file("node.json") {
            let Object::Node(node) = read_object(Source::Node, &node).unwrap() else { unreachable!() };
            seen.push(Observation::Node(Reading::Known { value: node, at }));
        }
        if let Some(config) = file("agent-configmap.json") {
            let value = serde_json::from_slice(&config).unwrap();
            seen.push(Observation::AgentConfigMap(Reading::Known { value, at }));
        }
        if let Some(node) = file("csinode.json") {
            let Object::CsiNode(node) = read_object(Source::CsiNode, &node).unwrap() else { unreachable!() };
            seen.push(Observation::CsiNode(Reading::Known { value: node, at }));
        }
        if let Some(node) = file("cninode.json") {
            let Object::CniNode(node) = read_object(Source::CniNode, &node).unwrap() else { unreachable!() };
            seen.push(Observation::CniNode(Reading::Known { value: node, at }));
        }
        if let Some(config) = file("amazon-vpc-cni.json") {
            let Object::VpcCniConfig(config) = read_object(Source::VpcCniConfig, &config).unwrap() else {
                unreachable!()
            };
            seen.push(Observation::VpcCniConfig(Reading::Known { value: config, at }));
        }
        seen.extend(self.ec2(at));
        if !api.is_dir() {
            return seen;
        }
        let mut answers = self.answers.borrow_mut();
        for ask in lookups {
            let (folder, name) = match ask {
                Lookup::VolumeAttachment(name) => ("volumeattachments", name.clone()),
                Lookup::PersistentVolume(name) => ("persistentvolumes", name.clone()),
                Lookup::StorageClass(name) => ("storageclasses", name.clone()),
                Lookup::AttributesClass(name) => ("volumeattributesclasses", name.clone()),
                Lookup::NodeLease(name) => ("leases", name.clone()),
                Lookup::FormerPod { namespace, name } => ("pods", format!("{namespace}/{name}")),
                _ => continue,
            };
            let object = file(&format!("{folder}/{name}.json"));
            let object = object.map(|object| read_object(ask.source(), &object).unwrap());
            let object = object.or_else(|| recorded(&api.join(format!("{}.json", ask.source())), &name, ask.source()));
            seen.push(answers.put(name, object, ask.source(), at));
        }
        seen
    }

    /// What the kubelet answers, where the scenario has one that is asked (`kubelet/`): `configz.json`, `stats.json` and
    /// `metrics.txt` as it writes them, else the text of `refused`; without that one it is not asked for what is not there.
    fn kubelet(&mut self, at: NodeTime, seen: &[Observation]) -> Vec<Observation> {
        let dir = self.dir.path().join("kubelet");
        if !dir.is_dir() {
            return Vec::new();
        }
        let refused = || Unknown::new(Cause::Denied, fs::read_to_string(dir.join("refused")).unwrap().trim());
        let of = |(endpoint, pace): &mut (Endpoint, Pace)| match pace.follow(seen, at) {
            Due::Nothing => None,
            Due::Not(why) => Some(Observation::unknown(endpoint.source(), why)),
            Due::Ask => {
                let name = match endpoint {
                    Endpoint::Configz => "configz.json",
                    Endpoint::Stats => "stats.json",
                    Endpoint::Metrics => "metrics.txt",
                };
                let answer = fs::read(dir.join(name));
                if answer.is_err() && !dir.join("refused").exists() {
                    return None;
                }
                Some(endpoint.observation(answer.as_deref().map_err(|_| refused()), at, "https://10.0.0.1:10250"))
            }
        };
        self.paces.iter_mut().filter_map(of).collect()
    }

    /// The pods that the kubelet lists, where the scenario has them: the side file of a copied machine.
    fn pods_api(&mut self, at: NodeTime, seen: &[Observation]) -> Option<Observation> {
        if !self.dir.path().join(pods_api::SIDE_FILE).exists() {
            return None;
        }
        match self.pods_api.follow(seen, at) {
            Due::Nothing => None,
            Due::Not(why) => Some(Observation::unknown(Source::PodsApi, why)),
            Due::Ask => {
                let root = Root::open(self.dir.path()).unwrap();
                Some(Observation::PodsApi(Reading::of(pods_api::read(&root, "/var/lib/kubelet"), at)))
            }
        }
    }

    /// What IMDS answers, where the scenario has one (`imds/`): its paths as they stand below `/latest/`, those that are not there
    /// with HTTP 404. `imds/health.json` is how it answers, as a recording has it, and `imds/unread` why nothing else is read.
    fn imds(&self, at: NodeTime) -> Vec<Observation> {
        let dir = self.dir.path().join("imds");
        if !dir.is_dir() {
            return Vec::new();
        }
        let health = fs::read(dir.join("health.json"))
            .unwrap_or_else(|_| br#"{"state":"answers","why":"","recent":{"sent":30,"failed":0,"slow":0}}"#.to_vec());
        let health: barnacle::facts::Imds = serde_json::from_slice(&health).unwrap();
        let mut seen = vec![Observation::Imds(Reading::Known { value: health, at })];
        if let Ok(why) = fs::read_to_string(dir.join("unread")) {
            let why = Unknown::new(Cause::Failed, why.trim());
            let sources = [Source::ImdsInstance, Source::ImdsNotices, Source::ImdsCredentials];
            seen.extend(sources.map(|source| Observation::unknown(source, why.clone())));
            return seen;
        }
        let answer = |path: &str| fs::read(dir.join(path)).map_or(Answered::NotFound, Answered::Found);
        fn of<T>(path: &str, answer: &Answered, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Part<T> {
            imds::part(path, answer, parse)
        }
        macro_rules! meta {
            ($path:expr, $parse:expr) => {{
                let path = format!("meta-data/{}", $path);
                of(&path, &answer(&path), $parse)
            }};
        }
        if let Answered::Found(document) = answer("dynamic/instance-identity/document") {
            let mut value = parse::document(&document).unwrap();
            value.life_cycle = meta!("instance-life-cycle", parse::life_cycle);
            seen.push(Observation::ImdsInstance(Reading::Known { value, at }));
        }
        let value = ImdsNotices {
            spot: meta!("spot/instance-action", parse::spot),
            rebalance: meta!("events/recommendations/rebalance", parse::rebalance),
            maintenance: meta!("events/maintenance/scheduled", parse::maintenance),
            history: meta!("events/maintenance/history", parse::maintenance),
            autoscaling: meta!("autoscaling/target-lifecycle-state", parse::autoscaling),
        };
        seen.push(Observation::ImdsNotices(Reading::Known { value, at }));
        let role = match meta!("iam/security-credentials/role", parse::role) {
            Part::Known(role) => {
                let of = meta!(format!("iam/security-credentials/{role}"), |body| parse::credentials(&role, body));
                RoleCredentials::of_listed(&role, of)
            }
            Part::Absent => Part::Absent,
            Part::Unknown(why) => Part::Unknown(why),
        };
        seen.push(Observation::ImdsCredentials(Reading::Known { value: ImdsCredentials { role }, at }));
        seen
    }

    /// What EC2 says, where a step has an answer of it: `ec2/attached.json`, `ec2/volumes.json`, `ec2/interfaces.json`, `ec2/subnets.json` and
    /// `ec2/sweep.json`, as a recording has them. Each is said once.
    fn ec2(&self, at: NodeTime) -> impl Iterator<Item = Observation> {
        let once = |name: &str| {
            let path = self.dir.path().join("ec2").join(name);
            let text = fs::read(&path).ok()?;
            fs::remove_file(path).unwrap();
            Some(text)
        };
        let attached = once("attached.json")
            .map(|text| Observation::Ec2Attached(Reading::Known { value: serde_json::from_slice(&text).unwrap(), at }));
        let volumes = once("volumes.json")
            .map(|text| Observation::Ec2Volumes(Reading::Known { value: serde_json::from_slice(&text).unwrap(), at }));
        let sweep = once("sweep.json")
            .map(|text| Observation::VolumeSweep(Reading::Known { value: serde_json::from_slice(&text).unwrap(), at }));
        let interfaces = once("interfaces.json").map(|text| {
            Observation::Ec2Interfaces(Reading::Known { value: serde_json::from_slice(&text).unwrap(), at })
        });
        let subnets = once("subnets.json")
            .map(|text| Observation::Ec2Subnets(Reading::Known { value: serde_json::from_slice(&text).unwrap(), at }));
        attached.into_iter().chain(volumes).chain(interfaces).chain(subnets).chain(sweep)
    }

    pub fn node_time(&self, second: u64) -> NodeTime {
        node_time(self.dir.path(), second, self.boot)
    }
}

/// An answer in the form of a recording.
fn recorded(file: &Path, name: &str, source: Source) -> Option<Object> {
    fn named<T: DeserializeOwned>(text: &[u8], name: &str) -> Option<T> {
        match serde_json::from_slice::<Answers<T>>(text).unwrap().0.remove(name)? {
            Answer::Found(object) => Some(object),
            _ => None,
        }
    }
    let text = fs::read(file).ok()?;
    match source {
        Source::PersistentVolumes => named(&text, name).map(Object::PersistentVolume),
        Source::StorageClasses | Source::AttributesClasses => named(&text, name).map(Object::Class),
        _ => None,
    }
}

fn node_time(dir: &Path, second: u64, (begun, up): (u64, u64)) -> NodeTime {
    let id = fs::read_to_string(dir.join("proc/sys/kernel/random/boot_id")).unwrap();
    let wall = jiff::Timestamp::from_second(MIDNIGHT + i64::try_from(second).unwrap()).unwrap();
    NodeTime { boot: id.parse().unwrap(), up: Duration::from_secs(up + second - begun), wall }
}

fn host(dir: &Path) -> Host {
    let root = Arc::new(Root::open(dir).unwrap());
    let settings = HostSettings::new("/var/lib/kubelet");
    Host::new(root, settings)
}

fn open_state(dir: &Path, now: NodeTime) -> (StateDir, LedgerState) {
    StateDir::open(Some(&dir.join("state")), now, MachineIds::default())
}

pub fn apply(dir: &Path, edits: &[Edit]) {
    for edit in edits {
        let path = dir.join(edit.path());
        match edit {
            Edit::File(_, text) => {
                make_parent(&path);
                write(edit.path(), &path, text);
            }
            Edit::KubeConnection(_, target) => {
                make_parent(&path);
                let _ = fs::remove_file(&path);
                std::os::unix::fs::symlink(target, &path).unwrap();
            }
            Edit::Directory(_) => fs::create_dir_all(&path).unwrap(),
            Edit::Remove(_) => remove(&path),
            Edit::Append(_, text) => {
                let mut all = fs::read(&path).unwrap_or_default();
                all.extend_from_slice(text);
                fs::write(&path, all).unwrap();
            }
            Edit::Replace(_, from, to) => {
                let old = text_of(edit.path(), &path);
                assert!(old.contains(from.as_str()), "{} does not contain {from:?}", path.display());
                write(edit.path(), &path, old.replace(from.as_str(), to).as_bytes());
            }
            Edit::Add(_, growth) => {
                let grown = growth.of(&text_of(edit.path(), &path));
                let grown = grown.unwrap_or_else(|why| panic!("{}: {why}", path.display()));
                write(edit.path(), &path, grown.as_bytes());
            }
        }
    }
}

/// Where the words of a statistics page are kept, so that they can be edited.
fn words_of(path: &Path) -> PathBuf {
    path.with_extension("words")
}

fn is_page(name: &str) -> bool {
    name.starts_with("captured/") && name.ends_with("-d0")
}

fn text_of(name: &str, path: &Path) -> String {
    let from = if is_page(name) { words_of(path) } else { path.to_owned() };
    fs::read_to_string(&from).unwrap_or_else(|e| panic!("{}: {e}", from.display()))
}

fn write(name: &str, path: &Path, text: &[u8]) {
    if is_page(name) {
        fs::write(words_of(path), text).unwrap();
        fs::write(path, super::page::page(std::str::from_utf8(text).unwrap())).unwrap();
    } else {
        fs::write(path, text).unwrap();
    }
}

fn make_parent(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
}

fn remove(path: &PathBuf) {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if meta.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
}
