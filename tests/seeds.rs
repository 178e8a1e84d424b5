//! Every seed of the fuzz targets, and what becomes of it when bytes go, change or repeat, in plain `cargo test`.

#[path = "fuzz/checks.rs"]
mod checks;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;

/// Bytes that a broken file is likely to hold in place of the right one.
const REPLACEMENTS: [u8; 4] = [0x00, 0xff, b' ', b'\n'];

/// Bytes that all mutations of one seed are together fed with: of a longer seed only every so many positions.
const BUDGET: usize = 1 << 20;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// Names in a directory, without their extension.
fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(fuzz().join("seeds").join(target)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// How many positions to pass over, so that a seed stays within the budget and its parser within its time.
fn stride(length: usize) -> usize {
    let all = length.saturating_mul(length).saturating_mul(REPLACEMENTS.len() + 1);
    all.div_ceil(BUDGET).max(1)
}

/// Feeds one seed and everything that is made of it.
fn exercise(seed: &[u8], mut feed: impl FnMut(&[u8])) {
    feed(seed);
    feed(&[seed, seed].concat());
    feed(&seed.iter().rev().copied().collect::<Vec<_>>());
    let mut bytes = seed.to_vec();
    for at in (0..seed.len()).step_by(stride(seed.len())) {
        feed(&seed[..at]);
        for replacement in REPLACEMENTS {
            bytes[at] = replacement;
            feed(&bytes);
        }
        bytes[at] = seed[at];
    }
}

fn run((target, check): &checks::Check) {
    for (path, seed) in seeds(target) {
        exercise(&seed, |bytes| {
            if catch_unwind(AssertUnwindSafe(|| check(bytes))).is_err() {
                panic!("{target}: {} became {:?}", path.display(), String::from_utf8_lossy(bytes));
            }
        });
    }
}

#[test]
fn no_seed_and_nothing_made_of_one_upsets_a_parser() {
    // Two at a time: every other target each.
    thread::scope(|scope| {
        let halves = [0, 1].map(|half| scope.spawn(move || checks::ALL.iter().skip(half).step_by(2).for_each(run)));
        for half in halves {
            assert!(half.join().is_ok(), "see above");
        }
    });
}

#[test]
fn every_check_has_a_fuzz_target_and_seeds_and_there_are_no_others() {
    let checks: BTreeSet<String> = checks::ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz().join("fuzz_targets")), checks, "tests/fuzz/fuzz_targets");
    assert_eq!(names(&fuzz().join("seeds")), checks, "tests/fuzz/seeds");
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let bins = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""));
    assert_eq!(bins.map(str::to_owned).collect::<BTreeSet<_>>(), checks, "tests/fuzz/Cargo.toml");
    for name in checks {
        assert!(!seeds(&name).is_empty(), "tests/fuzz/seeds/{name} is empty");
        let target = fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("checks::{name}(bytes)")), "{name}.rs feeds another check");
    }
}

#[test]
fn every_parser_of_the_collectors_is_checked() {
    let checks = fs::read_to_string(fuzz().join("checks.rs")).unwrap();
    let mut missing = Vec::new();
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for rest in text.lines().filter_map(|line| line.trim_start().strip_prefix("pub fn parse")) {
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                // The settings' own times are fed as part of their file.
                if !checks.contains(&format!("parse{name}(")) && format!("parse{name}") != "parse_duration" {
                    missing.push(format!("{}: parse{name}", path.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "add to tests/fuzz/checks.rs:\n{}", missing.join("\n"));
}

#[test]
fn mutations_are_many_and_within_the_budget() {
    let count = |length: usize| {
        let (mut fed, mut bytes) = (0, 0);
        exercise(&vec![b'x'; length], |input| {
            fed += 1;
            bytes += input.len();
        });
        (fed, bytes)
    };
    assert_eq!(count(10).0, 3 + 10 * 5);
    assert!(count(100_000).1 < 2 * BUDGET);
}
