use std::fs;

use super::*;
use crate::facts::{EvictionSignal, ThresholdValue};
use EvictionSignal::{ImageFs, Memory, NodeFs};

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
    }

    fn read(&self) -> Result<KubeletConfig, Unknown> {
        Finder::default().read(&self.root(), ROOT)
    }
}

fn value(config: &KubeletConfig, signal: EvictionSignal) -> Option<ThresholdValue> {
    config.hard.get(&signal).map(|threshold| threshold.value)
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
    assert_eq!(config.origin, ConfigOrigin::Process { pid: 812, files, unseen: None });
    assert_eq!(config.root_dir, "/data/kubelet");
    assert_eq!(value(&config, NodeFs), Some(ThresholdValue::Percentage(0.2)));
    assert_eq!(value(&config, ImageFs), Some(ThresholdValue::Percentage(0.15)));
    assert_eq!(config.hard[&NodeFs].min_reclaim, Some(ThresholdValue::Quantity(1 << 30)));
}

#[test]
fn drop_ins_below_directories_are_walked_in_lexical_order() {
    let tree = Tree::new();
    tree.process(812, "kubelet", &["--config-dir=/d/"])
        .write("d/a/z.conf", format!("{KIND}evictionHard: {{nodefs.available: 1%}}\n"))
        .write("d/b.conf", format!("{KIND}evictionHard: {{nodefs.available: 2%}}\n"));
    let config = tree.read().unwrap();
    assert_eq!(value(&config, NodeFs), Some(ThresholdValue::Percentage(0.02)));
    assert_eq!(config.hard.len(), 6, "without --config the defaults stand below the drop-ins");
}

#[test]
fn a_kubelet_without_settings_has_the_defaults_and_is_named() {
    let tree = Tree::new();
    tree.process(812, "kubelet", &["--v=2"]);
    let config = tree.read().unwrap();
    assert_eq!(config.origin, ConfigOrigin::Process { pid: 812, files: Vec::new(), unseen: None });
    assert_eq!(config.hard, KubeletConfig::default().hard);
}

#[test]
fn a_file_that_the_kubelet_names_and_we_cannot_read_is_unknown() {
    let tree = Tree::new();
    tree.process(812, "kubelet", &["--config=/etc/k/config.json"]);
    let unknown = tree.read().unwrap_err();
    assert_eq!(unknown.cause, Cause::Missing);
    assert!(unknown.why.contains("etc/k/config.json is not there (the running kubelet, process 812, uses it)"));
    tree.write("etc/k/config.json", "kind: Config\n");
    assert_eq!(tree.read().unwrap_err().cause, Cause::Malformed);
    tree.process(812, "kubelet", &["--config-dir=/etc/k/none"]);
    assert!(tree.read().unwrap_err().why.contains("etc/k/none is not there"));
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
    assert!(tree.read().unwrap_err().why.contains("relative to the working directory"));
    std::os::unix::fs::symlink("/srv", tree.0.path().join("proc/812/cwd")).unwrap();
    tree.write("srv/config.yaml", format!("{KIND}evictionHard: {{}}\n"));
    assert_eq!(tree.read().unwrap().hard.len(), 0);
}

#[test]
fn without_a_kubelet_the_usual_places_answer() {
    let tree = Tree::new();
    tree.write("var/lib/kubelet/config.yaml", include_str!("../../../../tests/fuzz/seeds/kubelet_config/kubeadm.yaml"));
    let config = tree.read().unwrap();
    assert_eq!(config.origin, ConfigOrigin::Files { files: vec!["/var/lib/kubelet/config.yaml".into()] });
    assert_eq!(config.hard, KubeletConfig::default().hard);
    tree.write(
        "etc/kubernetes/kubelet/config.json",
        include_str!("../../../../tests/fuzz/seeds/kubelet_config/eks.json"),
    )
    .write(
        "etc/kubernetes/kubelet/config.json.d/40-nodeadm.conf",
        format!("{KIND}evictionHard: {{memory.available: 1Gi}}\n"),
    );
    let config = tree.read().unwrap();
    assert_eq!((value(&config, Memory), config.hard.len()), (Some(ThresholdValue::Quantity(1 << 30)), 4));
    let ConfigOrigin::Files { files } = config.origin else { panic!("no kubelet runs") };
    assert_eq!(files.len(), 2);
}

#[test]
fn nothing_at_all_is_the_defaults() {
    assert_eq!(Tree::new().read().unwrap(), KubeletConfig::default());
    let elsewhere = Finder::default().read(&Tree::new().root(), "/data/kubelet/").unwrap();
    assert_eq!((elsewhere.root_dir.as_str(), elsewhere.origin), ("/data/kubelet", ConfigOrigin::Defaults));
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
    tree.process(40, "kubelet", &[]);
    let mut finder = Finder::default();
    let root = tree.root();
    let mut pid = || match finder.read(&root, ROOT).unwrap().origin {
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
