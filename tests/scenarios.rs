//! Scenarios: a host tree that changes over time in, findings out. `tests/scenarios/README.md` has the form.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use barnacle::facts::{Source, Witness};
use barnacle::finding::Kind;

use crate::world::scenario::{Purpose, Scenario};
use crate::world::tree::World;

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn kebab(kind: Kind) -> String {
    let mut name = String::new();
    for (i, c) in kind.name().char_indices() {
        if c.is_uppercase() && i > 0 {
            name.push('-');
        }
        name.extend(c.to_lowercase());
    }
    name
}

pub fn scenarios(kind: Kind) -> Vec<Scenario> {
    let dir = dir().join(kebab(kind));
    let mut files: Vec<_> = fs::read_dir(&dir)
        .unwrap_or_else(|_| panic!("{kind} has no scenarios: expected {}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| Scenario::read(file, kind)).collect()
}

/// The catalogue's promise: each kind is raised, nearly raised, and cleared by a scenario.
#[test]
fn every_kind_is_raised_nearly_raised_and_cleared() {
    for kind in Kind::ALL {
        let purposes: BTreeSet<Purpose> = scenarios(*kind).iter().map(|s| s.purpose).collect();
        for purpose in [Purpose::Raise, Purpose::Near, Purpose::Clear] {
            assert!(purposes.contains(&purpose), "{kind} has no scenario {purpose:?}");
        }
    }
}

#[test]
fn every_scenario_comes_out_as_it_says() {
    let base = &Scenario::base(&dir().join("base.txt"));
    let kinds: Vec<Kind> = Kind::ALL.to_vec();
    // Each is a node of its own, so they may be played side by side.
    let results: Vec<(String, Result<(), String>)> = thread::scope(|scope| {
        let play = |kinds: &[Kind]| {
            let scenarios = kinds.iter().flat_map(|kind| scenarios(*kind));
            scenarios.map(|s| (s.name.clone(), s.play(base))).collect::<Vec<_>>()
        };
        let threads: Vec<_> =
            kinds.chunks(kinds.len().div_ceil(4)).map(|some| scope.spawn(move || play(some))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let wrong: Vec<_> = results.iter().filter_map(|(name, r)| Some(format!("{name}: {}", r.as_ref().err()?))).collect();
    assert!(
        wrong.is_empty(),
        "{} of {} scenarios came out otherwise:\n{}",
        wrong.len(),
        results.len(),
        wrong.join("\n")
    );
}

/// A directory that no kind owns would be a scenario that nobody plays.
#[test]
fn no_scenario_is_left_out() {
    let known: BTreeSet<String> = Kind::ALL.iter().map(|kind| kebab(*kind)).collect();
    for entry in fs::read_dir(dir()).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            let name = entry.file_name().into_string().unwrap();
            assert!(known.contains(&name), "tests/scenarios/{name} is no kind of finding");
        }
    }
}

#[test]
fn the_healthy_node_is_seen_whole_and_nothing_is_found() {
    let base = Scenario::base(&dir().join("base.txt"));
    let mut world = World::new(&base);
    for second in [0, 10, 20, 30] {
        world.pass(second);
    }
    let unknown: Vec<_> = Source::ALL
        .iter()
        .filter(|source| source.witness() == Witness::Host)
        .filter_map(|s| Some(format!("{s}: {}", world.engine.view().unknown(*s)?.why)))
        // Asked only when a judge wants to know, or an operator.
        .filter(|line| !["mount-holders", "xfs-probe", "ebs-statistics"].into_iter().any(|s| line.starts_with(s)))
        .collect();
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
    let found: Vec<_> = world.engine.entries().map(|e| e.finding.message.clone()).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
