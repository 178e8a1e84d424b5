//! The arrows between modules: which may use which. CONTRIBUTING.md draws them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module, and the modules it may use. a module may always use itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("facts", &[]),
    ("wording", &[]),
    ("setting", &[]),
    ("finding", &["facts"]),
    ("catalogue", &["finding", "facts"]),
    ("view", &["finding", "catalogue", "facts"]),
    ("ledger", &["finding", "catalogue", "facts"]),
    ("detect", &["view", "finding", "catalogue", "facts", "setting", "wording"]),
    ("engine", &["view", "detect", "ledger", "finding", "catalogue", "facts"]),
    ("remedy", &["engine", "detect", "ledger", "view", "finding", "facts"]),
    ("pacing", &["facts"]),
    ("kube_api", &["facts"]),
    ("collect", &["kube_api", "pacing", "facts"]),
    ("recording", &["facts"]),
    ("config", &["detect", "remedy", "setting"]),
    ("report", &["pacing", "engine", "detect", "ledger", "view", "finding", "catalogue", "facts", "wording"]),
    ("wake", &["collect", "facts"]),
    (
        "agent",
        &[
            "kube_api", "pacing", "config", "engine", "ledger", "collect", "remedy", "report", "wake", "finding",
            "facts",
        ],
    ),
    (
        "cli",
        &[
            "agent",
            "config",
            "detect",
            "engine",
            "ledger",
            "collect",
            "recording",
            "remedy",
            "report",
            "finding",
            "facts",
        ],
    ),
];

/// modules that do no I/O and ask no clock.
const PURE: &[&str] =
    &["facts", "finding", "catalogue", "view", "ledger", "detect", "engine", "remedy", "setting", "wording", "pacing"];

/// What a pure module does not name.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "tokio",
    "Timestamp::now",
    "Instant",
    "SystemTime",
    "nix::",
    "libc::",
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

fn module_of(path: &Path) -> String {
    let below = path.strip_prefix(root()).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The code of a file without comments and without its tests, which may use what they like.
fn code(path: &Path) -> String {
    if path.file_name().is_some_and(|name| name == "tests.rs") {
        return String::new();
    }
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    code.lines().map(without_comment).collect::<Vec<_>>().join("\n")
}

/// What stands before a comment; two slashes within a text begin none.
fn without_comment(line: &str) -> &str {
    let begins = |(at, _): &(usize, &str)| line[..*at].matches('"').count().is_multiple_of(2);
    line.match_indices("//").find(begins).map_or(line, |(at, _)| &line[..at])
}

/// Modules of the crate that a file of this depth names: as `crate::MODULE`, as `super::…::MODULE`, or in a `use crate::{MODULE…}`.
fn uses(code: &str, depth: usize) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    let supers = "super::".repeat(depth);
    let by_super = code.match_indices(&supers).filter(|(at, _)| !code[..*at].ends_with("super::"));
    let by_super = by_super.map(|(at, _)| &code[at + supers.len()..]);
    for rest in code.split("crate::").skip(1).chain(by_super) {
        for name in first_level(rest) {
            modules.insert(name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    modules
}

/// The items of a list in braces, however deep each goes on; or the one that stands there.
fn first_level(rest: &str) -> Vec<&str> {
    let Some(list) = rest.strip_prefix('{') else { return vec![rest] };
    let (mut open, mut from, mut items) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => open += 1,
            '}' if open == 0 => {
                items.push(&list[from..at]);
                break;
            }
            '}' => open -= 1,
            ',' if open == 0 => {
                items.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    items
}

/// How many modules a file is below the crate.
fn depth(path: &Path) -> usize {
    path.strip_prefix(root()).unwrap().components().count()
}

#[test]
fn the_arrows_point_one_way() {
    let modules: BTreeSet<&str> = MAY_USE.iter().map(|(module, _)| *module).collect();
    let mut wrong = Vec::new();
    for path in sources(&root()) {
        let module = module_of(&path);
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let allowed = MAY_USE.iter().find(|(name, _)| *name == module);
        let (_, allowed) =
            allowed.unwrap_or_else(|| panic!("{} is in no known module: add it to MAY_USE", path.display()));
        for used in uses(&code(&path), depth(&path)) {
            if modules.contains(used.as_str()) && used != module && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn detectors_do_no_io_and_ask_no_clock() {
    let mut wrong = Vec::new();
    for path in sources(&root()).into_iter().filter(|path| PURE.contains(&module_of(path).as_str())) {
        let code = code(&path);
        wrong.extend(
            IMPURE.iter().filter(|name| code.contains(**name)).map(|name| format!("{}: {name}", path.display())),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What hands the view to the detectors: it takes their inputs from it, by their types.
const HAND_THE_VIEW_ON: [&str; 2] = ["detect.rs", "detect/evaluation.rs"];

/// A detector has no way to a source but its inputs: these say which sources decide, and when it runs again.
#[test]
fn no_detector_names_the_view() {
    let files: Vec<_> = sources(&root()).into_iter().filter(|path| module_of(path) == "detect").collect();
    let is_handed = |path: &PathBuf| HAND_THE_VIEW_ON.iter().any(|of| root().join(of) == *path);
    let (handed, others): (Vec<_>, Vec<_>) = files.into_iter().partition(is_handed);
    assert_eq!(handed.len(), HAND_THE_VIEW_ON.len());
    assert!(handed.iter().all(|path| names(&code(path), "View")), "{handed:?}");
    let wrong: Vec<_> = others.iter().filter(|path| names(&code(path), "View")).collect();
    assert!(wrong.is_empty(), "these reach around their inputs: {wrong:#?}");
}

/// Whether a name stands in a text by itself.
fn names(code: &str, name: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
}

/// Whether a module comes back to itself by what it uses.
fn is_in_a_circle(uses: &BTreeMap<String, BTreeSet<String>>, module: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![module]);
    while let Some(at) = open.pop() {
        for used in uses.get(at).into_iter().flatten() {
            if used == module {
                return true;
            }
            if seen.insert(used.as_str()) {
                open.push(used);
            }
        }
    }
    false
}

/// What two detectors share is in a third file.
#[test]
fn no_two_detectors_use_each_other() {
    let folders = fs::read_dir(root().join("detect")).unwrap().map(|entry| entry.unwrap().path());
    let mut circles = Vec::new();
    for folder in folders.filter(|path| path.is_dir()) {
        let mut modules = BTreeMap::new();
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|e| e == "rs") {
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                let mut beside = uses(&code(&path), 1);
                beside.remove(&name);
                modules.insert(name, beside);
            }
        }
        assert!(modules.len() > 5, "{}", folder.display());
        let of_folder = modules.keys().filter(|module| is_in_a_circle(&modules, module));
        circles.extend(of_folder.map(|module| folder.join(module).display().to_string()));
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn the_test_above_can_fail() {
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let code = "use crate::collect::host;\nuse crate::{view::{View, input::{A, B}}, detect};";
    assert_eq!(uses(code, 2), of(&["detect", "collect", "view"]));
    assert!(uses("let x = super::y;", 2).is_empty());
    assert_eq!(uses("use super::super::ledger::X;", 2), of(&["ledger"]));
    assert_eq!(uses("use super::{engine, view::View};", 1), of(&["engine", "view"]));
    assert_eq!(without_comment("let a = \"http://x\"; // crate::y"), "let a = \"http://x\"; ");
    let circle = [("a", of(&["b"])), ("b", of(&["c", "d"])), ("c", of(&["b"])), ("d", of(&[]))];
    let circle: BTreeMap<_, _> = circle.map(|(module, uses)| (module.to_owned(), uses)).into();
    assert_eq!(["a", "b", "c", "d"].map(|module| is_in_a_circle(&circle, module)), [false, true, true, false]);
}
