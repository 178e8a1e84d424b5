use std::fs::{self, File};
use std::os::unix::fs::symlink;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::super::namespace::{Node, Other, UID, bind, in_own_namespace, propagate, read, run};
use super::*;
use crate::remedy::UnmountPodPath;
use crate::remedy::score::Ending;

const GROUP: &str = "sys/fs/cgroup/kubepods.slice/kubepods-pod74dcc96c_be53_45c4_a46f_3809d56e9a65.slice";

struct Machine {
    node: Node,
    executor: Executor,
    config: Config,
    runtime: tokio::runtime::Runtime,
}

impl Machine {
    /// An executor that has watched the node for ten minutes.
    fn new() -> Option<Self> {
        let node = Node::new()?;
        let write = |path: &str, text: &str| {
            let path = node.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/1/mountinfo", "");
        write("proc/1/cgroup", "0::/init.scope\n");
        write("proc/1/comm", "systemd\n");
        write("proc/uptime", "5000.00 1.00\n");
        write("proc/stat", "btime 1700000000\n");
        write("proc/sys/kernel/random/boot_id", "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a\n");
        write("sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n");
        fs::create_dir_all(node.path("sys/fs/cgroup/kubepods.slice")).unwrap();
        fs::create_dir_all(node.path("state")).unwrap();
        let own = fs::canonicalize("/proc/thread-self/mountinfo").unwrap();
        bind(&own, &node.path("proc/1/mountinfo"));
        // The kubelet's directory has the same path on this host as below it.
        let below = node.path(node.kubelet_root().trim_start_matches('/'));
        fs::create_dir_all(below.parent().unwrap()).unwrap();
        symlink(node.kubelet_root(), &below).unwrap();
        let mut config = Config {
            host_root: node.path("").display().to_string(),
            kubelet_root: node.kubelet_root(),
            state_dir: Some(node.path("state").display().to_string()),
            ..Config::default()
        };
        config.remedy = Settings { unmount: Mode::Act, remove_directory: Mode::Act, ..Settings::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let executor = runtime.block_on(Self::executor(&node, &config));
        let mut machine = Self { node, executor, config, runtime };
        machine.watch();
        Some(machine)
    }

    async fn executor(node: &Node, config: &Config) -> Executor {
        let (host_reader, clock) = crate::agent::host_reader(config, None).unwrap();
        let calls: Box<dyn Calls> = Box::new(node.thread());
        let mut executor = Executor::new(config, host_reader, clock, Some(calls)).await.unwrap();
        // No test waits for half a minute.
        if let Some(performer) = &mut executor.performer {
            performer.wait_for(Duration::ZERO);
        }
        executor
    }

    /// Ten minutes of looks that all saw what is there now.
    fn watch(&mut self) {
        let executor = &mut self.executor;
        let (now, look) = self.runtime.block_on(executor.look(&[]));
        executor.sightings = Sightings::default();
        for ago in (0..=60u64).rev().map(|step| Duration::from_secs(step * 10)) {
            let at = NodeTime { up: now.up.checked_sub(ago).unwrap(), ..now };
            executor.sightings.follow(at, look.mounts.known(), look.groups.known());
        }
    }

    fn ask(&mut self, ask: Ask, act: &Act) -> Answer {
        let line = Request::of(ask, act.clone()).line().unwrap();
        self.runtime.block_on(self.executor.answer(parse_request(&line).unwrap()))
    }

    fn unmount(&self) -> Act {
        Act::UnmountPodPath(self.node.unmount())
    }

    fn is_mounted(&self) -> bool {
        self.node.is_mounted(&self.node.pod_path())
    }

    fn ended(&self, ending: Ending) -> u64 {
        let journal = self.executor.performer.as_ref().unwrap().journal();
        ActKind::ALL.iter().map(|kind| journal.score().acted(*kind, ending)).sum()
    }
}

fn says(answer: &Answer, part: &str) -> bool {
    matches!(answer, Answer::Refused(why) | Answer::Stopped(why) if why.contains(part))
}

/// The story end to end, but for the kubelet: write, sync, the pod dies, its path is unmounted, then staging as the kubelet does it;
/// the superblock goes, and on the next node not one byte is missing.
#[test]
fn after_the_act_staging_can_be_unmounted_and_not_one_byte_is_missing() {
    in_own_namespace(|| {
        let Some(mut machine) = Machine::new() else { return };
        let data: Vec<u8> = (0..500_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let file = machine.node.pod_path().join("data");
        fs::write(&file, &data).unwrap();
        File::open(&file).unwrap().sync_all().unwrap();
        machine.watch();
        let act = machine.unmount();
        assert_eq!(machine.ask(Ask::Verify, &act), Answer::WouldAct);
        assert!(machine.is_mounted());
        assert_eq!(machine.ask(Ask::Begin, &act), Answer::Marked);
        assert!(machine.is_mounted());
        assert_eq!(machine.ask(Ask::Finish, &act), Answer::Done);
        assert!(!machine.is_mounted() && machine.node.is_mounted(&machine.node.staging()));
        assert_eq!(machine.ended(Ending::Done), 1);
        let device = machine.node.at(&machine.node.staging()).unwrap().1.dev;
        let superblock = |device: crate::facts::DevId| {
            let name = fs::read_link(format!("/sys/dev/block/{device}")).unwrap();
            let name = name.file_name().unwrap().to_str().unwrap().to_owned();
            std::path::Path::new("/sys/fs/ext4").join(name)
        };
        let superblock = superblock(device);
        assert!(superblock.exists());
        umount2(&machine.node.staging(), MntFlags::UMOUNT_NOFOLLOW).unwrap();
        assert!(!superblock.exists(), "nothing holds the filesystem any more: the volume can be detached");
        let elsewhere = machine.node.path("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let image = machine.node.path("image").display().to_string();
        assert!(run("mount", &["-o", "loop,ro", &image, &elsewhere.display().to_string()]));
        assert!(read(&elsewhere.join("data")) == data, "bytes are missing");
        umount2(&elsewhere, MntFlags::UMOUNT_NOFOLLOW).unwrap();
        assert!(run("fsck.ext4", &["-fn", &image]), "the filesystem is whole");
        // And the directory that is left.
        let removal = Node::removal();
        assert_eq!(machine.ask(Ask::Verify, &removal), Answer::WouldAct);
        assert_eq!(machine.ask(Ask::Begin, &removal), Answer::Done);
        assert!(!machine.node.path(&format!("kubelet/pods/{UID}")).exists());
    });
}

type Change = fn(&mut Machine);

/// A reason that must be given, and what gives it.
type Case = (&'static str, Change);

/// A node agent with `HostToContainer`, such as the planner itself, has a copy of the mount: it goes with the host's, unless a file is
/// open on it, which the kernel refuses.
#[test]
fn a_container_that_receives_the_hosts_mounts_holds_none_of_them() {
    in_own_namespace(|| {
        propagate(MsFlags::MS_SHARED);
        let Some(mut machine) = Machine::new() else { return };
        let container = Other::new(MsFlags::MS_SLAVE);
        seen(&machine, &container);
        machine.watch();
        let (act, path) = (machine.unmount(), machine.node.pod_path());
        let has_copy = |container: &Other| {
            let table = read(&container.proc.join("mountinfo"));
            String::from_utf8(table).unwrap().contains(path.to_str().unwrap())
        };
        fs::write(path.join("file"), "data").unwrap();
        let file = path.join("file");
        assert!(has_copy(&container));
        let open = std::sync::Arc::new(std::sync::Mutex::new(None));
        let kept = std::sync::Arc::clone(&open);
        container.run(move || *kept.lock().unwrap() = Some(File::open(file).unwrap()));
        assert_eq!(machine.ask(Ask::Begin, &act), Answer::Marked);
        let answer = machine.ask(Ask::Finish, &act);
        assert!(says(&answer, "in use") && machine.is_mounted() && has_copy(&container), "{answer:?}");
        drop(open.lock().unwrap().take());
        machine.watch();
        // The kernel's mark is left of the first try: nothing has touched the host's mount since.
        assert_eq!(machine.ask(Ask::Begin, &act), Answer::Done);
        assert!(!machine.is_mounted() && !has_copy(&container));
    });
}

fn group(machine: &Machine, processes: &str) {
    fs::create_dir_all(machine.node.path(GROUP)).unwrap();
    fs::write(machine.node.path(GROUP).join("pids.current"), processes).unwrap();
    fs::write(machine.node.path(GROUP).join("memory.events"), "oom 0\noom_kill 0\n").unwrap();
}

/// The node shows the mount namespace of a container.
fn seen(machine: &Machine, container: &Other) {
    let at = machine.node.path("proc/77");
    fs::create_dir_all(&at).unwrap();
    fs::write(at.join("mountinfo"), "").unwrap();
    fs::write(at.join("comm"), "holder\n").unwrap();
    fs::write(at.join("cgroup"), "0::/system.slice/holder.service\n").unwrap();
    bind(&container.proc.join("mountinfo"), &at.join("mountinfo"));
}

/// What comes before the first call, and what comes between the two: the mount stays.
const CASES: [Case; 9] = [
    ("processes", |machine| group(machine, "1\n")),
    // It started and ended between two looks.
    ("without a process for", |machine| {
        group(machine, "1\n");
        machine.runtime.block_on(machine.executor.look(&[]));
        fs::remove_dir_all(machine.node.path(GROUP)).unwrap();
    }),
    ("in use", |machine| {
        Box::leak(Box::new(File::create(machine.node.pod_path().join("open")).unwrap())).sync_all().unwrap()
    }),
    ("holds the filesystem", |machine| {
        // A container of another pod, whose mount namespace has the volume.
        let other = Box::leak(Box::new(Other::new(MsFlags::MS_PRIVATE)));
        let (from, to) = (machine.node.staging(), machine.node.path("private"));
        fs::create_dir_all(&to).unwrap();
        other.run(move || bind(&from, &to));
        seen(machine, other);
    }),
    ("is mounted on it", |machine| machine.node.bind()),
    ("another path, device or root", |machine| {
        fs::rename(machine.node.volume(), machine.node.volume().with_file_name("pv-b")).unwrap();
    }),
    ("", |machine| {
        umount2(&machine.node.pod_path(), MntFlags::UMOUNT_NOFOLLOW).unwrap();
        machine.node.bind();
    }),
    ("not known", |machine| {
        umount2(&machine.node.path("proc/1/mountinfo"), MntFlags::MNT_DETACH).unwrap();
    }),
    ("not known", |machine| fs::remove_dir_all(machine.node.path("sys/fs/cgroup")).unwrap()),
];

fn lives(machine: &Machine) -> bool {
    let volume = machine.node.volume();
    machine.is_mounted() || machine.node.is_mounted(&volume.with_file_name("pv-b").join("mount"))
}

#[test]
fn whatever_comes_before_the_first_call_stops_the_act() {
    for (why, change) in CASES {
        in_own_namespace(move || {
            let Some(mut machine) = Machine::new() else { return };
            let act = machine.unmount();
            change(&mut machine);
            let answer = machine.ask(Ask::Begin, &act);
            // A mount of the same number, path, device and root is the same one until it was seen to go.
            assert!(says(&answer, why) || (why.is_empty() && answer == Answer::Marked), "{answer:?}, expected {why}");
            assert!(lives(&machine), "{why}");
        });
    }
}

#[test]
fn whatever_comes_between_the_two_calls_stops_the_act() {
    for (why, change) in CASES {
        in_own_namespace(move || {
            let Some(mut machine) = Machine::new() else { return };
            let act = machine.unmount();
            assert_eq!(machine.ask(Ask::Begin, &act), Answer::Marked);
            change(&mut machine);
            let answer = machine.ask(Ask::Finish, &act);
            assert!(matches!(&answer, Answer::Stopped(found) if found.contains(why)), "{answer:?}, expected {why}");
            assert!(lives(&machine), "{why}");
            assert_eq!((machine.ended(Ending::Stopped), machine.ended(Ending::Done)), (1, 0));
            // It is over: there is nothing to finish.
            assert!(matches!(machine.ask(Ask::Finish, &act), Answer::Refused(_)));
        });
    }
}

#[test]
fn staging_other_mounts_and_false_claims_are_refused_whatever_is_asked() {
    in_own_namespace(|| {
        let Some(mut machine) = Machine::new() else { return };
        let real = machine.node.unmount();
        let (staging, entry) = machine.node.at(&machine.node.staging()).unwrap();
        let of_staging = UnmountPodPath::of(&UID.to_owned(), staging, &entry);
        for ask in [Ask::Verify, Ask::Begin, Ask::Finish] {
            for (act, why) in [
                (of_staging.clone(), "no volume or subpath of this pod"),
                (UnmountPodPath { mount_id: staging, ..real.clone() }, "another path, device or root"),
                (UnmountPodPath { root: "/x".to_owned(), ..real.clone() }, "another path, device or root"),
                (UnmountPodPath { mount_id: 4_000_000, ..real.clone() }, "not in the host's mount table"),
                (UnmountPodPath { path: "/".to_owned(), ..real.clone() }, "no volume or subpath of this pod"),
            ] {
                let answer = machine.ask(ask, &Act::UnmountPodPath(act));
                assert!(says(&answer, why), "{ask:?}: {answer:?}, expected {why}");
            }
        }
        assert!(machine.is_mounted() && machine.node.is_mounted(&machine.node.staging()));
    });
}

#[test]
fn only_a_kind_whose_mode_is_act_is_begun() {
    in_own_namespace(|| {
        let Some(mut machine) = Machine::new() else { return };
        let act = machine.unmount();
        for (mode, may_verify) in [(Mode::Report, false), (Mode::DryRun, true)] {
            machine.executor.settings.unmount = mode;
            assert_eq!(machine.ask(Ask::Verify, &act) == Answer::WouldAct, may_verify);
            assert!(says(&machine.ask(Ask::Begin, &act), "mode of this kind"));
            assert!(says(&machine.ask(Ask::Finish, &act), "mode of this kind"));
        }
        assert!(machine.is_mounted());
    });
}

/// A planner that lies about its own cap, and asks again and again.
#[test]
fn no_more_acts_than_the_executors_own_cap_are_done() {
    in_own_namespace(|| {
        let Some(mut machine) = Machine::new() else { return };
        let mut done = 0;
        for _ in 0..8 {
            if !machine.is_mounted() {
                machine.node.bind();
            }
            machine.watch();
            let act = machine.unmount();
            if machine.ask(Ask::Begin, &act) == Answer::Marked {
                assert_eq!(machine.ask(Ask::Finish, &act), Answer::Done);
                done += 1;
            } else {
                assert!(says(&machine.ask(Ask::Begin, &act), "4 acts in the last hour"));
            }
        }
        assert_eq!(done, 4);
        assert!(machine.is_mounted());
    });
}

#[test]
fn a_full_disk_of_the_journal_stops_every_act() {
    in_own_namespace(|| {
        for between in [false, true] {
            let Some(mut machine) = Machine::new() else { return };
            let state = machine.node.path("small");
            fs::create_dir(&state).unwrap();
            mount(Some("small"), &state, Some("tmpfs"), MsFlags::empty(), Some("size=16k")).unwrap();
            machine.config.state_dir = Some(state.display().to_string());
            machine.executor = machine.runtime.block_on(Machine::executor(&machine.node, &machine.config));
            machine.watch();
            let act = machine.unmount();
            let fill = || {
                while fs::OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(state.join("fill"))
                    .and_then(|mut file| std::io::Write::write_all(&mut file, &[0; 4096]))
                    .is_ok()
                {}
            };
            // The journal has a page of its own, which it fills as well.
            let stuff = |machine: &mut Machine| {
                fill();
                let clock = machine.executor.clock;
                let performer = machine.executor.performer.as_mut().unwrap();
                let notes = (0..100).take_while(|_| performer.note(Node::removal(), &|| clock.now(), u64::MAX).is_ok());
                assert!(notes.count() < 100, "the disk is never full");
            };
            if between {
                assert_eq!(machine.ask(Ask::Begin, &act), Answer::Marked);
                stuff(&mut machine);
                machine.executor.settings.acts_per_hour = 60;
                let answer = machine.ask(Ask::Finish, &act);
                assert!(says(&answer, "cannot be written"), "{answer:?}");
            } else {
                stuff(&mut machine);
                machine.executor.settings.acts_per_hour = 1000;
                let answer = machine.ask(Ask::Begin, &act);
                assert!(says(&answer, "cannot be written"), "{answer:?}");
            }
            assert!(machine.is_mounted());
        }
    });
}

/// The executor ends between the two calls; the next one reads, and does nothing.
#[test]
fn an_executor_that_was_killed_between_the_calls_begins_nothing_again() {
    in_own_namespace(|| {
        for went in [false, true] {
            let Some(mut machine) = Machine::new() else { return };
            let act = machine.unmount();
            assert_eq!(machine.ask(Ask::Begin, &act), Answer::Marked);
            if went {
                umount2(&machine.node.pod_path(), MntFlags::UMOUNT_NOFOLLOW).unwrap();
            }
            machine.executor = machine.runtime.block_on(Machine::executor(&machine.node, &machine.config));
            assert_eq!(machine.ended(Ending::Interrupted), u64::from(!went));
            assert_eq!(machine.ended(Ending::Stopped), u64::from(went));
            assert!(matches!(machine.ask(Ask::Finish, &act), Answer::Refused(_)));
            assert_eq!(machine.is_mounted(), !went);
        }
    });
}
