use std::fs;

use super::*;
use crate::facts::{EvictionSignal, Part, ThresholdValue};
use EvictionSignal::{AllocatableMemory, ImageFs, Memory, NodeFs};

const ROOT: &str = "/var/lib/kubelet";
const KIND: &str = "kind: KubeletConfiguration\n";

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> Root {
        Root::open(self.0.path()).unwrap()
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) -> &Self {
        let path = self.0.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn process(&self, pid: u32, comm: &str, arguments: &[&str]) -> &Self {
        let mut cmdline = format!("/usr/bin/{comm}\0");
        for argument in arguments {
            cmdline.push_str(argument);
            cmdline.push('\0');
        }
        self.write(&format!("proc/{pid}/comm"), format!("{comm}\n"))
            .write(&format!("proc/{pid}/cmdline"), cmdline)
            .write(&format!("proc/{pid}/cgroup"), "0::/runtime.slice/kubelet.service\n")
            .write(
                &format!("proc/{pid}/stat"),
                format!("{pid} ({comm}) S {} 1500 {}\n", "0 ".repeat(18), "0 ".repeat(29)),
            )
    }

    fn read(&self) -> Result<KubeletConfig, Unknown> {
        Finder::default().read(&self.root(), ROOT, None)
    }
}

fn value(config: &KubeletConfig, signal: EvictionSignal) -> Option<ThresholdValue> {
    config.hard.of(signal).unwrap().map(|threshold| threshold.value)
}

/// How many hard thresholds are in force.
fn count(config: &KubeletConfig) -> usize {
    let Thresholds::Read(hard) = &config.hard else { panic!("{:?}", config.hard) };
    hard.len()
}

/// Why none of them is known, and what is assumed.
fn assumed(config: &KubeletConfig) -> (&Unknown, &BTreeMap<EvictionSignal, Threshold>) {
    let Thresholds::Assumed { read, guess, why } = &config.hard else { panic!("{:?}", config.hard) };
    assert_eq!((read, config.hard.of(Memory)), (&BTreeMap::new(), Err(why)));
    (why, guess)
}

#[test]
fn the_running_kubelet_names_its_files_and_flags_win() {
    let tree = Tree::new();
    tree.process(7, "containerd", &[])
        .process(
            812,
            "kubelet",
            &[
                "--config=/etc/k/config.json",
                "--config-dir",
                "/etc/k/d",
                "--root-dir=/data/kubelet",
                "--eviction-minimum-reclaim=nodefs.available=1Gi",
            ],
        )
        .write("etc/k/config.json", include_str!("../../../../tests/fuzz/seeds/kubelet_config/eks.json"))
        .write("etc/k/d/20-b.conf", format!("{KIND}evictionHard: {{nodefs.available: 20%}}\n"))
        .write("etc/k/d/10-a.conf", format!("{KIND}evictionHard: {{nodefs.available: 30%, imagefs.available: 15%}}\n"))
        .write("etc/k/d/readme.txt", "not read");
    let config = tree.read().unwrap();
    let files = ["/etc/k/config.json", "/etc/k/d/10-a.conf", "/etc/k/d/20-b.conf"].map(str::to_owned).to_vec();
    assert_eq!(config.origin, ConfigOrigin::Process { pid: 812, started: Part::Known(Duration::from_secs(15)), files });
    assert_eq!(config.root_dir, "/data/kubelet");
    assert_eq!(value(&config, NodeFs), Some(ThresholdValue::Percentage(0.2)));
    assert_eq!(value(&config, ImageFs), Some(ThresholdValue::Percentage(0.15)));
    let nodefs = config.hard.of(NodeFs).unwrap().unwrap();
    assert_eq!(nodefs.min_reclaim, Some(ThresholdValue::Quantity(1 << 30)));
}

#[test]
fn a_start_is_the_22nd_field_of_a_whole_line() {
    let stat = include_str!("../../../../tests/fuzz/seeds/process_start/kubelet");
    assert_eq!(parse_start(stat.as_bytes()), Ok(Duration::from_secs(15)));
    let strange = stat.replace("(kubelet)", "(a) 1 2 (b c)");
    assert_eq!(parse_start(strange.as_bytes()), Ok(Duration::from_secs(15)), "a name holds what it likes");
    for cut in 0..stat.len() {
        assert!(parse_start(&stat.as_bytes()[..cut]).is_err(), "cut at {cut}");
    }
    for bad in [stat.replace("1500", "-1"), stat.replace("1500", "18446744073709551615"), "\n".to_owned()] {
        assert!(parse_start(bad.as_bytes()).is_err(), "{bad}");
    }
}

/// It hides neither the thresholds nor the directory: the kubelet's own answer alone rests on it.
#[test]
fn a_start_that_cannot_be_read_is_unknown_with_its_reason() {
    let tree = Tree::new();
    tree.process(812, "kubelet", &[]).write("proc/812/stat", "812 (kubelet) S 1\n");
    let config = tree.read().unwrap();
    let ConfigOrigin::Process { started: Part::Unknown(why), .. } = &config.origin else { panic!("{config:?}") };
    assert!(why.cause == Cause::Malformed && why.why.contains("proc/812/stat"), "{why}");
    assert_eq!(config.hard, Thresholds::Read(default_thresholds()));
}

#[test]
fn drop_ins_below_directories_are_walked_in_lexical_order() {
    let tree = Tree::new();
    tree.process(812, "kubelet", &["--config-dir=/d/"])
        .write("d/a/z.conf", format!("{KIND}evictionHard: {{nodefs.available: 1%}}\n"))
        .write("d/b.conf", format!("{KIND}evictionHard: {{nodefs.available: 2%}}\n"));
    let config = tree.read().unwrap();
    assert_eq!(value(&config, NodeFs), Some(ThresholdValue::Percentage(0.02)));
    assert_eq!(count(&config), 6, "without --config the defaults stand below the drop-ins");
}

/// `filepath.WalkDir` does not follow its root, which is a link unless a slash follows its name.
#[test]
fn drop_ins_behind_a_link_are_read_as_the_kubelet_walks() {
    for (flag, percentage) in [("--config-dir=/d", 0.1), ("--config-dir=/d/", 0.01), ("--config-dir=/e/real", 0.01)] {
        let tree = Tree::new();
        tree.process(812, "kubelet", &[flag])
            .write("other/real/b.conf", format!("{KIND}evictionHard: {{nodefs.available: 1%}}\n"));
        std::os::unix::fs::symlink("/other/real", tree.0.path().join("d")).unwrap();
        std::os::unix::fs::symlink("/other", tree.0.path().join("e")).unwrap();
        let config = tree.read().unwrap();
        assert_eq!(value(&config, NodeFs), Some(ThresholdValue::Percentage(percentage)), "{flag}");
    }
}

#[test]
fn a_kubelet_without_settings_has_the_defaults_and_is_named() {
    let tree = Tree::new();
    tree.process(812, "kubelet", &["--v=2"]);
    let config = tree.read().unwrap();
    assert_eq!(
        config.origin,
        ConfigOrigin::Process { pid: 812, started: Part::Known(Duration::from_secs(15)), files: Vec::new() }
    );
    assert_eq!(config.hard, Thresholds::Read(default_thresholds()));
}

/// The kubelet's default is only a guess where another directory was set by hand; its own flag is none.
#[test]
fn a_directory_that_is_set_wins_over_the_kubelets_default_and_not_over_its_flag() {
    let tree = Tree::new();
    let read = || Finder::default().read(&tree.root(), "/data/kubelet/", None).unwrap().root_dir;
    tree.process(812, "kubelet", &["--v=2"]);
    assert_eq!(read(), "/data/kubelet");
    tree.process(812, "kubelet", &["--v=2", "--root-dir=/mnt/kubelet"]);
    assert_eq!(read(), "/mnt/kubelet");
}

#[test]
fn a_file_that_the_kubelet_names_and_we_cannot_read_leaves_its_thresholds_assumed() {
    let tree = Tree::new();
    tree.process(812, "kubelet", &["--config=/etc/k/config.json", "--root-dir=/data"]);
    let config = tree.read().unwrap();
    let (why, guess) = assumed(&config);
    assert_eq!((why.cause, guess), (Cause::Missing, &default_thresholds()));
    assert!(why.why.contains("etc/k/config.json is not there (the running kubelet, process 812, uses it)"), "{why}");
    assert_eq!(config.root_dir, "/data", "the directory does not rest on the file");
    tree.write("etc/k/config.json", "kind: Config\n");
    assert_eq!(assumed(&tree.read().unwrap()).0.cause, Cause::Malformed);
    tree.process(812, "kubelet", &["--config-dir=/etc/k/none"]);
    assert!(assumed(&tree.read().unwrap()).0.why.contains("etc/k/none is not there"));
}

#[test]
fn flags_that_win_over_a_file_that_cannot_be_read_are_known() {
    let tree = Tree::new();
    let hard = "--eviction-hard=memory.available<350Mi,nodefs.available<5%";
    let reclaim = "--eviction-minimum-reclaim=nodefs.available=10%";
    tree.process(812, "kubelet", &["--config=/opt/k.yaml", hard, reclaim]);
    let config = tree.read().unwrap();
    assert_eq!(value(&config, Memory), Some(ThresholdValue::Quantity(350 << 20)));
    assert!(config.hard.of(AllocatableMemory).is_err(), "the file may say that nothing is enforced");
    assert!(config.soft.of(Memory).is_err());
    // Until when it stays met stands in the file.
    tree.process(812, "kubelet", &["--config=/opt/k.yaml", hard]);
    let config = tree.read().unwrap();
    assert_eq!(assumed(&config).1[&Memory].value, ThresholdValue::Quantity(350 << 20));
    let soft = ["--eviction-soft=memory.available<500Mi", "--eviction-soft-grace-period=memory.available=15s"];
    tree.process(812, "kubelet", &["--config=/opt/k.yaml", reclaim, soft[0], soft[1]]);
    assert!(tree.read().unwrap().soft.of(Memory).unwrap().is_some());
}

#[test]
fn thresholds_that_make_no_sense_are_named_with_their_files() {
    let tree = Tree::new();
    tree.write("var/lib/kubelet/config.yaml", format!("{KIND}evictionHard: {{memory.available: lots}}\n"));
    let unknown = tree.read().unwrap_err();
    assert_eq!(unknown.cause, Cause::Malformed);
    assert!(unknown.why.contains("/var/lib/kubelet/config.yaml") && unknown.why.contains("memory.available"));
}

#[test]
fn a_relative_path_is_taken_from_the_kubelets_directory() {
    let tree = Tree::new();
    tree.process(812, "kubelet", &["--config=config.yaml"]);
    assert!(assumed(&tree.read().unwrap()).0.why.contains("relative to the working directory"));
    std::os::unix::fs::symlink("/srv", tree.0.path().join("proc/812/cwd")).unwrap();
    tree.write("srv/config.yaml", format!("{KIND}evictionHard: {{}}\n"));
    assert_eq!(count(&tree.read().unwrap()), 0);
}

#[test]
fn without_a_kubelet_the_usual_places_answer() {
    let tree = Tree::new();
    tree.write("var/lib/kubelet/config.yaml", include_str!("../../../../tests/fuzz/seeds/kubelet_config/kubeadm.yaml"));
    let config = tree.read().unwrap();
    assert_eq!(config.origin, ConfigOrigin::Files { files: vec!["/var/lib/kubelet/config.yaml".into()] });
    assert_eq!(config.hard, Thresholds::Read(default_thresholds()));
    tree.write(
        "etc/kubernetes/kubelet/config.json",
        include_str!("../../../../tests/fuzz/seeds/kubelet_config/eks.json"),
    )
    .write(
        "etc/kubernetes/kubelet/config.json.d/40-nodeadm.conf",
        format!("{KIND}evictionHard: {{memory.available: 1Gi}}\n"),
    );
    let config = tree.read().unwrap();
    assert_eq!((value(&config, Memory), count(&config)), (Some(ThresholdValue::Quantity(1 << 30)), 4));
    let ConfigOrigin::Files { files } = config.origin else { panic!("no kubelet runs") };
    assert_eq!(files.len(), 2);
}

#[test]
fn a_file_of_a_usual_place_is_not_that_of_a_kubelet_that_may_run() {
    let kubeadm = format!("{KIND}evictionHard: {{memory.available: 1Gi}}\n");
    let leftover = || {
        let tree = Tree::new();
        tree.process(1, "systemd", &[]).write("var/lib/kubelet/config.yaml", &kubeadm);
        tree
    };
    // A stopped kubelet without pods: what it used is what it will use.
    let tree = leftover();
    assert_eq!(value(&tree.read().unwrap(), Memory), Some(ThresholdValue::Quantity(1 << 30)));
    let expect_assumed = |tree: &Tree, sign: &str| {
        let config = tree.read().unwrap();
        let (why, guess) = assumed(&config);
        assert_eq!(guess[&Memory].value, ThresholdValue::Quantity(1 << 30));
        assert!(
            why.why.contains(sign) && why.why.contains("no source shows that it uses /var/lib/kubelet/config.yaml"),
            "{why}"
        );
        assert!(config.soft.of(Memory).is_err() && matches!(config.origin, ConfigOrigin::Files { .. }));
    };
    // A process that may be the kubelet.
    tree.write("proc/812/comm", vec![b'x'; SMALL + 1]);
    expect_assumed(&tree, "proc/812/comm");
    // A program that nothing here knows to run a kubelet inside itself.
    let tree = leftover();
    tree.process(812, "newdistro", &[]);
    fs::create_dir_all(tree.0.path().join("sys/fs/cgroup/kubepods")).unwrap();
    expect_assumed(&tree, "sys/fs/cgroup/kubepods is there");
    let tree = leftover();
    fs::create_dir_all(tree.0.path().join("var/lib/kubelet/pods/74dcc96c")).unwrap();
    expect_assumed(&tree, "var/lib/kubelet/pods holds pods");
}

#[test]
fn of_a_kubelet_that_ended_the_thresholds_are_assumed_until_another_runs() {
    let tree = Tree::new();
    tree.process(1, "systemd", &[]).process(812, "kubelet", &["--eviction-hard=memory.available<1Gi"]);
    fs::create_dir_all(tree.0.path().join(ROOT.trim_start_matches('/'))).unwrap();
    fs::create_dir_all(tree.0.path().join("sys/fs/cgroup/kubepods")).unwrap();
    let mut finder = Finder::default();
    let mut read = || finder.read(&tree.root(), ROOT, None);
    let running = read().unwrap();
    assert_eq!(value(&running, Memory), Some(ThresholdValue::Quantity(1 << 30)));
    fs::remove_dir_all(tree.0.path().join("proc/812")).unwrap();
    let ended = read().unwrap();
    assert_eq!(ended.origin, ConfigOrigin::Stopped { pid: 812, files: Vec::new() });
    let (why, guess) = assumed(&ended);
    assert_eq!(guess[&Memory].value, ThresholdValue::Quantity(1 << 30));
    assert!(why.why.contains("the kubelet (process 812) has ended"), "{why}");
    // Whether another one runs is not known.
    tree.write("proc/900/comm", vec![b'x'; SMALL + 1]);
    assert!(read().is_err());
    // A machine without pods has no kubelet any more.
    fs::remove_dir_all(tree.0.path().join("proc/900")).unwrap();
    fs::remove_dir_all(tree.0.path().join("sys/fs/cgroup/kubepods")).unwrap();
    assert_eq!(read().unwrap().origin, ConfigOrigin::NoKubelet);
}

#[test]
fn a_machine_without_a_kubelet_has_no_thresholds() {
    let tree = Tree::new();
    let unknown = tree.read().unwrap_err();
    assert!(unknown.why.contains("whether a kubelet runs is not known: "), "no process was copied: {unknown}");
    tree.process(1, "systemd", &[]);
    let config = Finder::default().read(&tree.root(), "/data/kubelet/", None).unwrap();
    assert_eq!((config.root_dir.as_str(), &config.origin), ("/data/kubelet", &ConfigOrigin::NoKubelet));
    let (why, guess) = assumed(&config);
    assert_eq!((why.cause, why.why.as_str(), guess.len()), (Cause::Unsupported, "no kubelet runs here", 0));
}

#[test]
fn a_kubelet_inside_another_program_has_thresholds_that_are_assumed() {
    for comm in ["k3s-server", "k3s-agent", "kubelite", "microshift"] {
        let tree = Tree::new();
        // A file that another kubelet left does not count either.
        tree.process(1, "systemd", &[]).process(812, comm, &[]).write("etc/kubernetes/kubelet/config", KIND);
        let config = tree.read().unwrap();
        let (why, guess) = assumed(&config);
        assert_eq!(
            (&config.origin, why.cause, guess),
            (&ConfigOrigin::NotFound, Cause::Missing, &default_thresholds())
        );
        assert!(why.why.contains(&format!("{comm} (process 812) runs here")), "{why}");
        // One in a pod is a cluster of its own.
        tree.write("proc/812/cgroup", "0::/kubepods.slice/kubepods-podx.slice/cri-containerd-y.scope\n");
        assert!(matches!(tree.read().unwrap().origin, ConfigOrigin::Files { .. }));
        // rke2 and k0s start a kubelet as a process of its own, which counts.
        tree.process(900, "kubelet", &[]).process(812, "rke2", &[]);
        assert!(matches!(tree.read().unwrap().origin, ConfigOrigin::Process { pid: 900, .. }));
    }
}

#[test]
fn the_file_of_the_setting_counts_where_no_process_is_called_kubelet() {
    const FILE: &str = "/etc/k3s-kubelet.yaml";
    let tree = Tree::new();
    tree.process(1, "systemd", &[]).process(812, "k3s-agent", &[]);
    let config = tree.read().unwrap();
    assert!(assumed(&config).0.why.contains("set kubelet-config to a KubeletConfiguration file"), "{config:?}");
    let read = || Finder::default().read(&tree.root(), ROOT, Some(FILE));
    let missing = read().unwrap_err();
    assert_eq!(missing.cause, Cause::Missing);
    assert!(missing.why.contains(FILE) && missing.why.contains("the setting kubelet-config names it"), "{missing}");
    tree.write(FILE, "eviction");
    assert_eq!(read().unwrap_err().cause, Cause::Malformed);
    tree.write(FILE, format!("{KIND}evictionHard: {{nodefs.available: lots}}\n"));
    let malformed = read().unwrap_err();
    assert_eq!(malformed.cause, Cause::Malformed);
    assert!(malformed.why.contains(FILE) && malformed.why.contains("kubelet-config"), "{malformed}");
    tree.write(FILE, format!("{KIND}evictionHard: {{nodefs.available: 5%}}\n"));
    let config = read().unwrap();
    assert_eq!((&config.origin, count(&config)), (&ConfigOrigin::Files { files: vec![FILE.into()] }, 1));
    assert!(value(&config, NodeFs).is_some());
    // A running kubelet names its own.
    tree.process(900, "kubelet", &[]);
    assert!(matches!(read().unwrap().origin, ConfigOrigin::Process { pid: 900, .. }));
}

#[test]
fn pods_without_a_kubelet_process_are_pods_of_some_kubelet() {
    let tree = Tree::new();
    tree.process(1, "systemd", &[]);
    fs::create_dir_all(tree.0.path().join("var/lib/kubelet/pods/74dcc96c")).unwrap();
    let config = tree.read().unwrap();
    assert!(assumed(&config).0.why.contains("var/lib/kubelet/pods holds pods"), "{config:?}");
    fs::create_dir_all(tree.0.path().join("sys/fs/cgroup/kubepods")).unwrap();
    let config = tree.read().unwrap();
    assert!(assumed(&config).0.why.contains("sys/fs/cgroup/kubepods is there"), "{config:?}");
    assert_eq!(config.origin, ConfigOrigin::NotFound);
}

#[test]
fn a_broken_file_in_a_usual_place_is_never_the_defaults() {
    for text in ["", "kind: KubeletConfig", "\u{0}"] {
        let tree = Tree::new();
        tree.write("etc/kubernetes/kubelet/config", text);
        let unknown = tree.read().unwrap_err();
        assert_eq!(unknown.cause, Cause::Malformed);
        assert!(unknown.why.contains("etc/kubernetes/kubelet/config:"), "{}", unknown.why);
    }
    let tree = Tree::new();
    fs::create_dir_all(tree.0.path().join("etc/kubernetes/kubelet/config")).unwrap();
    assert_eq!(tree.read().unwrap_err().cause, Cause::WrongType);
}

#[test]
fn a_process_that_cannot_be_looked_at_may_be_the_kubelet() {
    let tree = Tree::new();
    tree.write("proc/812/comm", vec![b'x'; SMALL + 1]);
    assert_eq!(tree.read().unwrap_err().cause, Cause::TooLarge);
    tree.process(900, "kubelet", &[]);
    assert!(matches!(tree.read().unwrap().origin, ConfigOrigin::Process { pid: 900, .. }));
}

#[test]
fn a_kubelet_in_a_pod_or_ending_is_not_the_nodes() {
    let tree = Tree::new();
    tree.process(1, "systemd", &[]);
    tree.process(20, "kubelet", &["--root-dir=/inner"])
        .write("proc/20/cgroup", "0::/kubepods.slice/kubepods-podx.slice/cri-containerd-y.scope/kubelet\n")
        .process(30, "kubelet", &[])
        .write("proc/30/cmdline", "");
    assert_eq!(tree.read().unwrap().root_dir, "/var/lib/kubelet", "what a pod's process says is nothing to the node");
    tree.process(40, "kubelet", &["--root-dir=/outer"]);
    assert_eq!(tree.read().unwrap().root_dir, "/outer");
}

#[test]
fn a_kubelet_whose_command_line_cannot_be_read_is_not_none() {
    let tree = Tree::new();
    tree.process(40, "kubelet", &[]).write("var/lib/kubelet/config.yaml", KIND);
    fs::remove_file(tree.0.path().join("proc/40/cmdline")).unwrap();
    fs::create_dir(tree.0.path().join("proc/40/cmdline")).unwrap();
    let unknown = tree.read().unwrap_err();
    assert!(unknown.why.contains("proc/40/cmdline is a directory"), "{}", unknown.why);
}

#[test]
fn the_process_is_remembered_until_it_is_another() {
    let tree = Tree::new();
    tree.process(1, "systemd", &[]).process(40, "kubelet", &[]);
    let mut finder = Finder::default();
    let root = tree.root();
    let mut pid = || match finder.read(&root, ROOT, None).unwrap().origin {
        ConfigOrigin::Process { pid, .. } => Some(pid),
        _ => None,
    };
    assert_eq!(pid(), Some(40));
    tree.process(30, "kubelet", &[]);
    assert_eq!(pid(), Some(40), "still there: no look at the others");
    tree.process(40, "bash", &[]);
    assert_eq!(pid(), Some(30));
    fs::remove_dir_all(tree.0.path().join("proc/30")).unwrap();
    assert_eq!(pid(), None);
}

#[test]
fn a_kubelet_of_another_user_is_not_the_nodes() {
    let status = |ids: &str| format!("Name:\tkubelet\nUid:\t{ids}\nGid:\t0\t0\t0\t0\n");
    let tree = Tree::new();
    tree.process(1, "systemd", &[]);
    tree.process(20, "kubelet", &["--root-dir=/evil"]).write("proc/20/status", status("1000\t1000\t1000\t1000"));
    // A link called kubelet to a program that is set-uid root.
    tree.process(21, "kubelet", &["--root-dir=/evil"]).write("proc/21/status", status("1000\t0\t0\t0"));
    assert_eq!(tree.read().unwrap().root_dir, ROOT);
    tree.process(22, "k3s", &[]).write("proc/22/status", status("1000\t1000\t1000\t1000"));
    assert_eq!(tree.read().unwrap().origin, ConfigOrigin::NoKubelet, "nor is a program that would run one");
    tree.process(40, "kubelet", &["--root-dir=/outer"]).write("proc/40/status", status("0\t0\t0\t0"));
    assert_eq!(tree.read().unwrap().root_dir, "/outer");
    tree.write("proc/40/status", "Name:\tkubelet\n");
    assert!(tree.read().unwrap_err().why.contains("proc/40/status"));
}

/// A pod may choose a command line that is too long, or hangs: the node's kubelet is found all the same.
#[test]
fn a_pods_command_line_is_not_read() {
    let tree = Tree::new();
    tree.process(20, "kubelet", &[]).write("proc/20/cgroup", "0::/kubepods.slice/kubepods-podx.slice/y.scope\n");
    tree.write("proc/20/cmdline", vec![b'x'; SMALL + 1]).process(40, "kubelet", &["--root-dir=/outer"]);
    let root = tree.root();
    let mut look = Processes { root: &root, path: String::new(), bytes: Vec::new() };
    assert!(look.kubelet(20).is_ok_and(|running| running.is_none()));
    assert_eq!(look.path, "proc/20/cgroup", "the last file that was read");
    assert_eq!(tree.read().unwrap().root_dir, "/outer");
}

#[test]
fn of_two_kubelets_the_one_that_fits_its_files_counts_else_neither() {
    let tree = Tree::new();
    tree.process(20, "kubelet", &["--root-dir=/nowhere", "--config=/none.yaml"])
        .process(40, "kubelet", &["--root-dir=/outer", "--config=/k.yaml"])
        .write("outer/pods/x", "")
        .write("k.yaml", KIND);
    assert_eq!(tree.read().unwrap().root_dir, "/outer");
    // A child of the kubelet before it runs its own program.
    tree.process(41, "kubelet", &["--root-dir=/outer", "--config=/k.yaml"]);
    assert_eq!(tree.read().unwrap().root_dir, "/outer");
    tree.write("nowhere/x", "").write("none.yaml", KIND);
    let unknown = tree.read().unwrap_err();
    assert!(unknown.why.contains("20 and 40"), "{}", unknown.why);
}

/// Root may call any program kubelet: on a whole machine its settings count where what it would run with is there.
#[test]
fn a_lone_kubelet_that_does_not_fit_its_files_is_named_and_not_believed() {
    let tree = Tree::new();
    tree.process(1, "systemd", &[]).write("var/lib/kubelet/x", "");
    let read = || {
        let root = tree.root();
        let mut look = Processes { root: &root, path: String::new(), bytes: Vec::new() };
        let running = look.kubelet(20).ok().flatten().unwrap();
        let mut others = Others { first: true, ..Others::default() };
        match believed(&root, running, ROOT, &mut others) {
            Some(running) => {
                of_process(&root, &running, ROOT, started(&root, running.pid)).map(|config| config.root_dir)
            }
            None => without_process(&root, ROOT, others).map(|config| config.root_dir),
        }
    };
    for (argument, path) in
        [("--root-dir=/evil", "evil"), ("--config=/evil/k.yaml", "evil/k.yaml"), ("--config-dir=/evil/d", "evil/d")]
    {
        tree.process(20, "kubelet", &[argument]);
        let unknown = read().unwrap_err();
        assert!(unknown.why.contains("process 20 is called kubelet") && unknown.why.contains(path), "{unknown}");
    }
    // In a mount namespace of its own it is shown other files.
    tree.process(20, "kubelet", &["--root-dir=/own"]);
    for (own, is_believed) in
        [("700 650 0:70 / / rw - overlay o rw\n", true), ("29 1 254:0 / / rw - ext4 d rw\n", false)]
    {
        tree.write("proc/1/mountinfo", "29 1 254:0 / / rw - ext4 d rw\n").write("proc/20/mountinfo", own);
        assert_eq!(read().is_ok(), is_believed);
    }
    tree.process(20, "kubelet", &["--root-dir=/outer", "--config=/k.yaml"]).write("outer/x", "").write("k.yaml", KIND);
    assert_eq!(read().unwrap(), "/outer");
    tree.process(20, "kubelet", &[]);
    assert_eq!(read().unwrap(), ROOT);
    fs::remove_dir_all(tree.0.path().join("var")).unwrap();
    assert!(read().unwrap_err().why.contains("/var/lib/kubelet is not there"));
}

#[test]
fn what_is_written_while_the_kubelet_runs_is_not_in_force() {
    let tree = Tree::new();
    let stat = |start: u32| format!("812 (kubelet) S {} {start} {}\n", "0 ".repeat(18), "0 ".repeat(29));
    let config =
        |at: &str| format!(r#"{{"kind":"KubeletConfiguration","evictionHard":{{"memory.available":"{at}"}}}}"#);
    let memory = |finder: &mut Finder| {
        let config = finder.read(&tree.root(), ROOT, None).unwrap();
        value(&config, Memory)
    };
    let mut finder = Finder::default();
    tree.process(812, "kubelet", &["--config=/etc/k/config.json"]).write("etc/k/config.json", config("100Mi"));
    let before = memory(&mut finder);
    assert_eq!(before, value(&tree.read().unwrap(), Memory));
    tree.write("etc/k/config.json", config("1Gi"));
    assert_eq!(memory(&mut finder), before);
    // One that cannot be read any more changes nothing either.
    tree.write("etc/k/config.json", "{");
    assert_eq!(memory(&mut finder), before);
    // Another process has read what is there now.
    tree.write("etc/k/config.json", config("1Gi")).write("proc/812/stat", stat(90_000));
    assert_ne!(memory(&mut finder), before);
}

#[test]
fn files_that_were_written_after_the_kubelets_start_do_not_show_what_is_in_force() {
    let tree = Tree::new();
    tree.process(812, "kubelet", &["--config=/etc/k/config.json"])
        .write("etc/k/config.json", KIND)
        .write("proc/812/status", "Uid:\t0\t0\t0\t0\n")
        .write("var/lib/kubelet/cpu_manager_state", "")
        .write("proc/stat", "cpu 0\nbtime 1795132800\n");
    let written = |at: u64| {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_132_800 + at);
        fs::File::open(tree.0.path().join("etc/k/config.json")).unwrap().set_modified(at).unwrap();
    };
    let read = |root: &Root| Finder::default().read(root, ROOT, None).unwrap();
    let machine = || tree.root().into_machine();
    // It was started 15 s after the boot.
    written(70);
    assert!(read(&machine()).hard.why_assumed().is_none(), "the clock may have been set meanwhile");
    written(80);
    let config = read(&machine());
    let why = config.hard.why_assumed().unwrap();
    assert!(why.cause == Cause::Stale && why.why.contains("/etc/k/config.json was written after"), "{why:?}");
    assert!(read(&tree.root()).hard.why_assumed().is_none(), "of a copy the times are those of the copy");
    // Who saw it before knows what it was started with.
    written(70);
    let (mut finder, root) = (Finder::default(), machine());
    let before = finder.read(&root, ROOT, None).unwrap();
    written(80);
    assert_eq!(finder.read(&root, ROOT, None).unwrap(), before);
}

/// As k3s from 1.32 on gives its kubelet: no file, and a directory.
#[test]
fn a_directory_of_drop_ins_changes_the_built_in_defaults() {
    let tree = Tree::new();
    let dir = "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d";
    let k3s = "kind: KubeletConfiguration\nevictionHard: {imagefs.available: 5%, nodefs.available: 5%}\n\
        evictionMinimumReclaim: {imagefs.available: 10%, nodefs.available: 10%}\n";
    tree.write(&format!("{dir}/00-k3s-defaults.conf"), k3s).write(&format!("{dir}/README"), "no drop-in");
    for named in [dir.to_owned(), format!("{dir}/"), format!("{dir}/00-k3s-defaults.conf")] {
        let config = Finder::default().read(&tree.root(), ROOT, Some(&named)).unwrap();
        assert_eq!(value(&config, Memory), Some(ThresholdValue::Quantity(100 << 20)), "{named}");
        assert_eq!(value(&config, NodeFs), Some(ThresholdValue::Percentage(0.05)), "{named}");
    }
    // A file of its own replaces them all.
    tree.write("/etc/k3s.yaml", k3s);
    let config = Finder::default().read(&tree.root(), ROOT, Some("/etc/k3s.yaml")).unwrap();
    assert_eq!(value(&config, Memory), None);
}
