//! The program as the DaemonSet has it: uid 0 without a capability, in namespaces of its own, with the manifest's three
//! paths mounted and nothing else. What it reads there is held against what it reads on the machine itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use barnacle::catalogue::profile::{Profile, Visibility, visibility};
use barnacle::facts::{Cause, Observation, Provider, Source};
use barnacle::recording::Reader;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::mounts::{in_following_namespace, in_own_namespace};
use super::program::{Program, eventually, free_address, get, is_root};
use super::tree::POD;

const BOUND: Duration = Duration::from_secs(30);

/// A root filesystem as a container runtime would lay it out, in the mount namespace of the test.
struct Container {
    root: tempfile::TempDir,
    /// The kubelet's directory, on the machine.
    kubelet: tempfile::TempDir,
    env: Vec<String>,
    namespaces: Vec<&'static str>,
    /// Whose processes are the machine's; those of the machine that the test runs on without one.
    init: Option<Init>,
}

/// The first process of a machine that has no other, in the mount namespace in which it was started. A kubelet that runs
/// where the tests run is none of its processes.
struct Init(Child, u32);

impl Init {
    fn start() -> Self {
        let mut command = Command::new("/usr/bin/unshare");
        command.args(["--pid", "--fork", "--kill-child", "/usr/bin/sleep", "infinity"]);
        let child = command.spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let first = || fs::read_to_string(&children).ok()?.trim().parse().ok();
        eventually(BOUND, "the first process runs", || first().is_some());
        Self(child, first().unwrap())
    }

    /// A command that starts what follows among its processes.
    fn enter(&self) -> Command {
        let mut command = Command::new("/usr/bin/nsenter");
        command.args(["--target", &self.1.to_string(), "--pid", "--"]);
        command
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Container {
    fn new() -> Self {
        Self::on(None, tempfile::tempdir().unwrap())
    }

    /// On a machine with this first process, and with this directory as the kubelet's.
    fn on(init: Option<Init>, kubelet: tempfile::TempDir) -> Self {
        let root = tempfile::tempdir().unwrap();
        mount(Some("root"), root.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let mut container = Self { root, kubelet, env: Vec::new(), namespaces: Vec::new(), init };
        // What the dynamically linked build of a test needs to run.
        for dir in ["usr", "bin", "lib", "lib64"].iter().filter(|dir| Path::new("/").join(dir).exists()) {
            container.bind(Path::new("/").join(dir), dir, true);
        }
        fs::copy(env!("CARGO_BIN_EXE_barnacle"), container.at("barnacle")).unwrap();
        match &container.init {
            None => container.bind("/proc".into(), "host/proc", true),
            Some(init) => {
                fs::create_dir_all(container.at("host/proc")).unwrap();
                let mut command = init.enter();
                command.args(["/usr/bin/mount", "-t", "proc", "proc"]).arg(container.at("host/proc"));
                assert!(command.status().unwrap().success(), "mount proc");
            }
        }
        container.bind("/sys/fs/cgroup".into(), "host/sys/fs/cgroup", true);
        let state = container.state();
        fs::create_dir_all(&state).unwrap();
        fs::create_dir_all(container.kubelet.path().join("pods")).unwrap();
        container.bind(state.clone(), state.strip_prefix("/").unwrap().to_str().unwrap(), false);
        fs::create_dir(container.at("sys")).unwrap();
        fs::create_dir(container.at("proc")).unwrap();
        mount(Some("sysfs"), &container.at("sys"), Some("sysfs"), MsFlags::MS_RDONLY, None::<&str>).unwrap();
        container.set("HOST_ROOT", "/host");
        container.set("HOST_SYS", "/sys");
        container.set("NODE_NAME", "node-1");
        container.set("STATE_DIR", state.to_str().unwrap());
        let kubelet = container.kubelet.path().to_str().unwrap().to_owned();
        container.set("KUBELET_ROOT", &kubelet);
        container
    }

    fn set(&mut self, name: &str, value: &str) {
        self.env.push(format!("BARNACLE_{name}={value}"));
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn state(&self) -> PathBuf {
        self.kubelet.path().join("plugins/barnacle")
    }

    /// As a hostPath is mounted: with all below it, the option readOnly on it alone.
    fn bind(&self, from: PathBuf, to: &str, read_only: bool) {
        let to = self.at(to);
        fs::create_dir_all(&to).unwrap();
        mount(Some(&from), &to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>).unwrap();
        if read_only {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(None::<&str>, &to, None::<&str>, flags, None::<&str>).unwrap();
        }
    }

    /// The kubelet's directories, as the component directories mounts them.
    fn bind_kubelets(&self) {
        for dir in ["pods", "plugins"] {
            let from = self.kubelet.path().join(dir);
            self.bind(from.clone(), &format!("host{}", from.display()), true);
        }
    }

    fn start(&self, arguments: &[&str]) -> Program {
        let mut command = match &self.init {
            None => Command::new("/usr/bin/unshare"),
            Some(init) => {
                let mut command = init.enter();
                command.arg("/usr/bin/unshare");
                command
            }
        };
        command
            .args(["--pid", "--fork", "--kill-child", "--cgroup", "--mount-proc=/proc", "--propagation=unchanged"])
            .args(&self.namespaces);
        command.arg(format!("--root={}", self.root.path().display()));
        let bare = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "/usr/bin/env", "-i"];
        command.arg("/usr/bin/setpriv").args(bare).args(&self.env).arg("/barnacle");
        Program::spawn(command, arguments)
    }

    /// What each source says inside.
    fn sees(&self) -> BTreeMap<Source, Observation> {
        let file = self.state().join("recording");
        self.start(&["record", file.to_str().unwrap(), "--for", "1s"]).end_within(BOUND).expect_code(0);
        first_step(&file)
    }
}

/// What each source says on the machine itself.
fn machine_sees(container: &Container) -> BTreeMap<Source, Observation> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("recording");
    let kubelet = container.kubelet.path().to_str().unwrap();
    let arguments = ["record", file.to_str().unwrap(), "--for", "1s", "--kubelet-root", kubelet];
    Program::start(&arguments).end_within(BOUND).expect_code(0);
    first_step(&file)
}

fn first_step(file: &Path) -> BTreeMap<Source, Observation> {
    let (_, seen) = Reader::new(File::open(file).unwrap()).unwrap().next().unwrap().unwrap();
    seen.into_iter().map(|observation| (observation.source(), observation)).collect()
}

/// The value that was read; the class of why and the reason otherwise.
fn read(seen: &BTreeMap<Source, Observation>, source: Source) -> Result<Value, (Cause, String)> {
    let json = serde_json::to_value(&seen[&source]).unwrap();
    let reading = json.as_object().unwrap().values().next().unwrap();
    match reading.get("known") {
        Some(known) => Ok(known["value"].clone()),
        None => {
            let unknown = &reading["unknown"];
            Err((
                serde_json::from_value(unknown["cause"].clone()).unwrap(),
                unknown["why"].as_str().unwrap().to_owned(),
            ))
        }
    }
}

/// A thread that stays in the machine's mount namespace, and mounts there for a test that has left it.
struct Machine(mpsc::Sender<(Vec<String>, mpsc::Sender<bool>)>);

impl Machine {
    fn start() -> Self {
        let (orders, inbox) = mpsc::channel::<(Vec<String>, mpsc::Sender<bool>)>();
        thread::spawn(move || {
            for (command, done) in inbox {
                let status = Command::new(&command[0]).args(&command[1..]).status();
                let _ = done.send(status.is_ok_and(|status| status.success()));
            }
        });
        Self(orders)
    }

    fn run(&self, command: &[&str]) -> bool {
        let (done, wait) = mpsc::channel();
        self.0.send((command.iter().map(|&word| word.to_owned()).collect(), done)).unwrap();
        wait.recv().unwrap()
    }

    fn mount(&self, arguments: &[&str], at: &Path) -> OnMachine<'_> {
        let at = at.to_str().unwrap();
        assert!(self.run(&[&["/usr/bin/mount"], arguments, &[at]].concat()), "mount {arguments:?} {at}");
        OnMachine(self, at.to_owned())
    }
}

/// A mount on the machine, which goes with the test.
struct OnMachine<'a>(&'a Machine, String);

impl Drop for OnMachine<'_> {
    fn drop(&mut self) {
        self.0.run(&["/usr/bin/umount", "--recursive", &self.1]);
    }
}

#[test]
fn a_container_reads_what_the_machine_reads_or_says_why_not() {
    in_own_namespace(|| {
        let container = Container::new();
        let (inside, outside) = (container.sees(), machine_sees(&container));
        // Only these are less; each for a reason that names what would give it.
        let less = [
            (Source::EbsStatistics, "the component nvme-stats"),
            (Source::ImageFs, "the component of the distribution"),
            (Source::KubeletDirs, "the component directories"),
            (Source::DnsProbes, "the component dns"),
            (Source::KernelLog, "CAP_SYSLOG"),
            (Source::SavedLogs, "the component pstore"),
        ];
        let of_host = |source: &Source| source.provider() == Provider::Host;
        let told = |source: &Source| of_host(source) && visibility(Profile::Observe, *source) == Visibility::Hidden;
        let told: Vec<Source> = Source::ALL.iter().copied().filter(told).collect();
        assert_eq!(told, less.map(|(source, _)| source), "docs/profiles.md says so as well");
        let open_log = fs::read_to_string("/proc/sys/kernel/dmesg_restrict").is_ok_and(|text| text.trim() == "0");
        for source in Source::ALL.iter().copied().filter(|source| inside.contains_key(source)) {
            if source == Source::KernelLog && open_log {
                continue;
            }
            match (less.iter().find(|(less, _)| *less == source), read(&inside, source), read(&outside, source)) {
                (Some((_, why)), Err((_, found)), _) => {
                    assert!(found.contains(why), "{source}: {found}");
                    let unknown = inside[&source].why_unknown().unwrap();
                    // A setting that is off is not offered; what this profile lacks names the component.
                    assert!(
                        unknown.component.is_some() || unknown.cause == Cause::Unsupported,
                        "{source}: {unknown:?}"
                    );
                }
                (Some(_), Ok(value), _) => panic!("{source} is known inside, and was not thought to be: {value}"),
                // Only inside is a state directory given, in which no agent has written yet.
                (None, _, _) if source == Source::BootHistory => {}
                (None, Ok(_), _) if source == Source::XfsProbe => {}
                // The container has its own / and /tmp.
                (None, Err((Cause::Unsupported, _)), Ok(_)) if source == Source::OtherFilesystems => {}
                (None, Ok(_), Ok(_)) => {}
                (None, Err((inside, _)), Err((outside, _))) => assert_eq!(inside, outside, "{source}"),
                (None, inside, outside) => panic!("{source}: {inside:?} inside, {outside:?} on the machine"),
            }
        }
        same_machine(&container, &inside, &outside);
    });
}

/// Of each source that part that does not change from one moment to the next.
fn same_machine(
    container: &Container,
    inside: &BTreeMap<Source, Observation>,
    outside: &BTreeMap<Source, Observation>,
) {
    let parts = [
        (Source::MemInfo, "/total"),
        (Source::CpuTimes, "/cpus"),
        (Source::Boot, "/id"),
        (Source::Boot, "/kernel"),
        (Source::Limits, "/threads_max"),
        (Source::Limits, "/files_max"),
        (Source::NodeFs, "/dev"),
        (Source::NodeFs, "/capacity"),
        (Source::NodeFs, "/inodes"),
        (Source::Cgroups, "/version"),
        (Source::Cgroups, "/driver"),
        (Source::Neighbors, "/arp/limit"),
        (Source::Conntrack, "/max"),
    ];
    for (source, part) in parts {
        let of = |seen| read(seen, source).ok().map(|value| value.pointer(part).cloned());
        assert_eq!(of(inside), of(outside), "{source}{part}");
    }
    assert_eq!(read(inside, Source::Boot).unwrap()["hostname"], "node-1");
    let points = |seen| read(seen, Source::Mounts).unwrap().to_string();
    let root = container.root.path().to_str().unwrap();
    assert!(!points(inside).contains(root), "the container's own mounts are none of the machine's");
    assert!(fs::read_to_string("/proc/self/mountinfo").is_ok_and(|_| !points(outside).contains(root)));
    let names = |seen| {
        let devices = read(seen, Source::BlockDevices).unwrap().to_string();
        let mut names: Vec<String> =
            devices.split("\"name\":\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert!(!names(inside).is_empty());
    assert_eq!(names(inside), names(outside));
    // A namespace of its own has a pid_max of its own, from 6.14 on.
    let pid_max = read(inside, Source::Limits).unwrap()["pid_max"].clone();
    assert!(pid_max.is_null() || pid_max == read(outside, Source::Limits).unwrap()["pid_max"], "{pid_max}");
    let note = read(inside, Source::NodeFs).unwrap()["instead_of"].clone();
    assert!(note.as_str().is_some_and(|note| note.contains("is on the filesystem of")), "{note}");
}

#[test]
fn without_the_hosts_network_connections_are_not_counted() {
    in_own_namespace(|| {
        let mut container = Container::new();
        container.namespaces.push("--net");
        let (cause, why) = read(&container.sees(), Source::Conntrack).unwrap_err();
        assert_eq!(cause, Cause::Unsupported);
        assert!(why.contains("hostNetwork"), "{why}");
    });
}

#[test]
fn a_state_directory_elsewhere_does_not_show_the_kubelets_disk() {
    in_own_namespace(|| {
        let container = Container::new();
        let other = container.at(container.state().strip_prefix("/").unwrap().to_str().unwrap());
        mount(Some("other"), &other, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let report = container.start(&["check", "--no-agent", "--format", "json"]).end_within(BOUND).json();
        let unknown = report["unknown"].as_array().unwrap();
        let nodefs = unknown.iter().find(|item| item["source"] == "nodefs").unwrap()["why"].as_str().unwrap();
        assert!(
            nodefs.contains("is on device 0:") && nodefs.contains("its figures are not those of the host"),
            "{nodefs}"
        );
    });
}

#[test]
fn a_private_copy_of_the_kubelets_directories_is_not_looked_into() {
    if !is_root() {
        return println!("skipped: only root may mount");
    }
    let init = Init::start();
    in_own_namespace(|| {
        let container = Container::on(Some(init), tempfile::tempdir().unwrap());
        container.bind_kubelets();
        let (cause, why) = read(&container.sees(), Source::KubeletDirs).unwrap_err();
        assert_eq!(cause, Cause::Unsupported);
        assert!(why.contains("HostToContainer") && why.contains("pods"), "{why}");
    });
}

#[test]
fn directories_that_follow_the_host_are_looked_into() {
    if !is_root() {
        return println!("skipped: only root may mount");
    }
    let (machine, kubelet) = (Machine::start(), tempfile::tempdir().unwrap());
    fs::create_dir_all(kubelet.path().join(format!("pods/{POD}/volumes/kubernetes.io~csi/pv-a"))).unwrap();
    let path = kubelet.path().to_str().unwrap();
    // As systemd has every mount: shared, so that what is made of it in another namespace can follow.
    let _bound = machine.mount(&["--bind", path], kubelet.path());
    assert!(machine.run(&["/usr/bin/mount", "--make-shared", path]));
    let init = Init::start();
    in_following_namespace(|| {
        let container = Container::on(Some(init), kubelet);
        container.bind_kubelets();
        let dirs = read(&container.sees(), Source::KubeletDirs).unwrap();
        assert!(dirs["pods"].to_string().contains(POD), "{dirs}");
    });
}

#[test]
fn the_agent_in_a_container_is_woken_writes_its_state_and_ends_at_a_signal() {
    let machine = Machine::start();
    in_own_namespace(|| {
        let mut container = Container::new();
        let address = free_address();
        container.set("LISTEN", &address.to_string());
        let mut agent = container.start(&["run"]);
        agent.answers(address, "/readyz", 200, BOUND);
        let point = tempfile::tempdir().unwrap();
        drop(machine.mount(&["-t", "tmpfs", "wake"], point.path()));
        eventually(BOUND, "a mount on the machine wakes it", || {
            metric(address, "barnacle_wakes_total{reason=\"mounts\"}") > 0.0
        });
        eventually(BOUND, "its state is written", || container.state().join("state.json").exists());
        if !agent.stderr().contains("no Landlock") {
            assert!(metric(address, "barnacle_landlock_abi") >= 1.0, "{}", agent.stderr());
        }
        let report = container.start(&["check", "--format", "json", "--listen", &address.to_string()]);
        let report = report.end_within(BOUND).json();
        assert_eq!(
            (&report["origin"], &report["node"]),
            (&"agent".into(), &"node-1".into()),
            "it is asked, and answers"
        );
        let first = format!("/proc/{0}/task/{0}/children", agent.id());
        let first: i32 = fs::read_to_string(first).unwrap().trim().parse().unwrap();
        kill(Pid::from_raw(first), Signal::SIGTERM).unwrap();
        agent.end_within(Duration::from_secs(5)).expect_code(0);
    });
}

fn metric(address: SocketAddr, name: &str) -> f64 {
    let (_, text) = get(address, "/metrics").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}
