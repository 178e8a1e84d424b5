//! Every file that a collector reads, broken in every way that a file can be broken.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::stat::Mode;
use serde_json::Value;

use super::program::{Program, check};
use super::tree::{Tree, files};

const BOUND: Duration = Duration::from_secs(20);

/// What stands in a file's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Missing,
    Empty,
    Half,
    Huge,
    NotText,
    Fifo,
    Directory,
    LinkAbsolute,
    LinkRelative,
    Denied,
}
use Form::{Denied, Directory, Empty, Fifo, Half, Huge, LinkAbsolute, LinkRelative, Missing, NotText};

const FORMS: [Form; 10] = [Missing, Empty, Half, Huge, NotText, Fifo, Directory, LinkAbsolute, LinkRelative, Denied];

impl Form {
    /// Puts it in the place of the file.
    fn put(self, tree: &Tree, path: &str, text: &str) {
        let at = tree.at(path);
        tree.remove(path);
        match self {
            Missing => {}
            Empty => drop(File::create(at).unwrap()),
            Half => fs::write(at, &text.as_bytes()[..text.len() / 2]).unwrap(),
            Huge => File::create(at).unwrap().set_len(1 << 30).unwrap(),
            NotText => fs::write(at, [0xff, 0xfe, 0x80, b'\n']).unwrap(),
            Fifo => nix::unistd::mkfifo(&at, Mode::S_IRWXU).unwrap(),
            Directory => fs::create_dir(at).unwrap(),
            LinkAbsolute => symlink("/etc/passwd", at).unwrap(),
            LinkRelative => symlink("../".repeat(30) + "etc/passwd", at).unwrap(),
            Denied => {
                fs::write(&at, text).unwrap();
                fs::set_permissions(&at, fs::Permissions::from_mode(0o0)).unwrap();
            }
        }
    }
}

/// Kinds and objects of what was found.
fn findings(report: &Value) -> BTreeSet<String> {
    let list = report["findings"].as_array().unwrap();
    list.iter().map(|finding| format!("{} {}", finding["kind"], finding["object"])).collect()
}

/// Every reason in the report why something is not known.
fn reasons(report: &Value) -> String {
    let whys = |list: &str| {
        report[list].as_array().unwrap().iter().filter_map(|item| item["why"].as_str()).collect::<Vec<_>>()
    };
    [whys("unknown"), whys("kinds"), whys("headroom")].concat().join("\n")
}

fn look(tree: &Tree, form: Option<Form>) -> Value {
    let path = tree.path().to_str().unwrap();
    let program = match form {
        Some(Denied) => Program::start_bound(&["check", "--no-agent", "--format", "json", "--host-root", path]),
        _ => check(tree.path()),
    };
    program.end_within(BOUND).json()
}

/// Why a file in this form may go without being named among what is unknown.
fn excused(path: &str, form: Form) -> Option<&'static str> {
    // A link leads to nothing where its target is not in the tree.
    let absent = matches!(form, Missing | LinkAbsolute | LinkRelative);
    let ends = |names: &[&str]| names.iter().any(|name| path.ends_with(name));
    if ends(&["cgroup.controllers"]) {
        return Some("only that it is there counts; where it is not, the directory is named");
    }
    if ends(&["kernel/tainted", "4242/comm", "4242/cgroup"]) {
        return Some("documented as optional: a process without it is no kubelet, or none in a pod");
    }
    if ends(&["4242/cmdline"]) && (absent || form == Empty) {
        return Some("a process that is ending has none");
    }
    if ends(&["osrelease", "hostname", "model", "state", "transport"]) && form == NotText {
        return Some("free text, in which a strange byte is replaced");
    }
    if ends(&[".conf"]) && matches!(form, Missing | Directory) {
        return Some("the kubelet reads the drop-ins that there are, in directories as well");
    }
    let not_everywhere = path.starts_with("sys/fs/cgroup/")
        || ends(&[
            "swaps",
            "stat/nf_conntrack",
            "stat/ndisc_cache",
            "errors_count",
            "diskseq",
            "io_timeout",
            "transport",
            "vol_data.json",
        ]);
    (absent && not_everywhere).then_some("not every kernel, controller or volume has it")
}

/// The names under which a collector may come to a file: a controller's by its class, or through its disk.
fn names(path: &str) -> Vec<String> {
    let mut names = vec![path.to_owned()];
    if let Some((_, file)) = path.split_once("/nvme/nvme1/") {
        names.push(format!("sys/class/nvme/nvme1/{file}"));
        names.push(format!("nvme1n1/device/{file}"));
    }
    names
}

/// What is wrong with the report on a machine with one file broken.
fn faults(report: &Value, whole: &Value, path: &str, form: Form) -> Vec<String> {
    let mut faults = Vec::new();
    let new: Vec<_> = findings(report).difference(&findings(whole)).cloned().collect();
    if !new.is_empty() {
        faults.push(format!("{path} {form:?}: found what is not there: {}", new.join(", ")));
    }
    let reasons = reasons(report);
    if excused(path, form).is_none() && !names(path).iter().any(|name| reasons.contains(name)) {
        faults.push(format!("{path} {form:?}: not named among what is unknown"));
    }
    if report.to_string().contains("root:x:") {
        faults.push(format!("{path} {form:?}: a link led out of the tree"));
    }
    faults
}

#[test]
fn the_whole_machine_is_healthy_and_known() {
    let report = look(&Tree::whole(), None);
    assert_eq!(findings(&report), BTreeSet::new());
    let unknown: Vec<_> = report["unknown"].as_array().unwrap().iter().map(|item| &item["source"]).collect();
    // These need what a look at a tree of files does not have: EBS statistics, DNS queries, a store for panics, a state directory, IMDS.
    let lacks =
        ["ebs-statistics", "dns", "pstore", "boots", "imds", "imds-instance", "imds-notices", "imds-credentials"];
    assert_eq!(unknown, lacks, "{}", reasons(&report));
}

#[test]
fn a_file_broken_in_any_way_is_unknown_and_named_and_raises_nothing() {
    let whole = look(&Tree::whole(), None);
    let files = files();
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    let worker = || {
        let tree = Tree::whole();
        while let Some((path, text)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            for form in FORMS {
                form.put(&tree, path, text);
                let report = look(&tree, Some(form));
                wrong.lock().unwrap().extend(faults(&report, &whole, path, form));
                tree.remove(path);
                tree.write(path, text.as_bytes());
            }
        }
    };
    thread::scope(|scope| [(); 2].map(|()| scope.spawn(worker)).map(|thread| thread.join().unwrap()));
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), files.len() * FORMS.len(), wrong.join("\n"));
}

/// The same with everything broken at once: nothing is seen, and that is said.
#[test]
fn a_machine_on_which_everything_is_broken_has_no_findings() {
    for form in FORMS {
        let tree = Tree::whole();
        for (path, text) in files() {
            form.put(&tree, &path, &text);
        }
        assert_eq!(findings(&look(&tree, Some(form))), BTreeSet::new(), "{form:?}");
    }
}

#[test]
fn an_empty_tree_and_no_tree_are_said() {
    let empty = tempfile::tempdir().unwrap();
    let ended = check(empty.path()).end_within(BOUND);
    assert_eq!((ended.code, findings(&ended.json())), (Some(3), BTreeSet::new()));
    let ended = check(&empty.path().join("none")).end_within(BOUND);
    ended.expect_code(3);
    assert!(ended.stderr.contains("none"), "{}", ended.stderr);
}
