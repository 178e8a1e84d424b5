//! The arrows between modules: which may use which. CONTRIBUTING.md draws them.

use std::collections::BTreeSet;
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
    ("pacing", &["facts"]),
    ("kube_api", &["facts"]),
    ("collect", &["kube_api", "pacing", "facts"]),
    ("recording", &["facts"]),
    ("config", &["detect", "setting"]),
    ("report", &["pacing", "engine", "detect", "ledger", "view", "finding", "catalogue", "facts", "wording"]),
    ("wake", &["collect", "facts"]),
    ("agent", &["kube_api", "pacing", "config", "engine", "ledger", "collect", "report", "wake", "finding", "facts"]),
    ("cli", &["agent", "config", "detect", "engine", "ledger", "collect", "recording", "report", "finding", "facts"]),
];

/// modules that do no I/O and ask no clock.
const PURE: &[&str] =
    &["facts", "finding", "catalogue", "view", "ledger", "detect", "engine", "setting", "wording", "pacing"];

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
    code.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// modules named as `crate::ROOM` or in a `use crate::{ROOM…}`.
fn uses(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let list = rest.strip_prefix('{').map(|r| r.split('}').next().unwrap()).unwrap_or(rest);
        let names = if rest.starts_with('{') { list.split(',').collect() } else { vec![list] };
        for name in names {
            let name: String = name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            modules.insert(name);
        }
    }
    modules
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
        for used in uses(&code(&path)) {
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

#[test]
fn the_test_above_can_fail() {
    assert_eq!(
        uses("use crate::collect::host;\nuse crate::{view::View, detect};"),
        ["detect", "collect", "view"].map(String::from).into()
    );
    assert!(uses("let x = super::y;").is_empty());
}
