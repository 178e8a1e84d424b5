//! Every file that a witness reads, broken in every way that a file can be broken.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::stat::Mode;
use serde_json::Value;

use crate::program::{Program, check, is_root};
use crate::tree::{Tree, files};

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
                fs::set_permissions(&at, fs::Permissions::from_mode(0)).unwrap();
            }
        }
    }
}

/// Kinds and subjects of what was found.
fn findings(report: &Value) -> BTreeSet<String> {
    let list = report["findings"].as_array().unwrap();
    list.iter().map(|finding| format!("{} {}", finding["kind"], finding["subject"])).collect()
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

#[test]
fn matrix() {
    let _ = is_root();
    let base = look(&Tree::whole(), None);
    eprintln!("base findings {:?}\n reasons {}", findings(&base), reasons(&base));
    let files = files();
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let tree = Tree::whole();
                while let Some((path, text)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for form in FORMS {
                        form.put(&tree, path, text);
                        let report = look(&tree, Some(form));
                        let new: Vec<_> = findings(&report).difference(&findings(&base)).cloned().collect();
                        if !new.is_empty() {
                            wrong.lock().unwrap().push(format!("{path} {form:?} raises {new:?}"));
                        }
                        if !reasons(&report).contains(path.as_str()) {
                            wrong.lock().unwrap().push(format!("{path} {form:?} unnamed"));
                        }
                        if report.to_string().contains("root:x") {
                            wrong.lock().unwrap().push(format!("{path} {form:?} leaks"));
                        }
                        tree.remove(path);
                        tree.write(path, text.as_bytes());
                    }
                }
            });
        }
    });
    for line in wrong.lock().unwrap().iter() {
        eprintln!("{line}");
    }
}
