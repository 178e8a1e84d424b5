//! Scenarios: a host tree that changes over time in, findings out. `tests/scenarios/README.md` has the form.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use barnacle::detect::Settings;
use barnacle::engine::Engine;
use barnacle::facts::{Observation, Provider, Source};
use barnacle::finding::Kind;
use barnacle::ledger::LedgerState;
use barnacle::recording::{Reader, Writer};

use crate::world::scenario::{Growth, Purpose, Scenario};
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

/// The catalogue's promise: each kind is raised, nearly raised, and resolved by a scenario.
#[test]
fn every_kind_is_raised_nearly_raised_and_resolved() {
    for kind in Kind::ALL {
        let purposes: BTreeSet<Purpose> = scenarios(*kind).iter().map(|s| s.purpose).collect();
        for purpose in [Purpose::Raise, Purpose::Negative, Purpose::Clear] {
            assert!(purposes.contains(&purpose), "{kind} has no scenario {purpose:?}");
        }
    }
}

#[test]
fn every_scenario_comes_out_as_it_says() {
    let base = &Scenario::base(&dir().join("base.txt"));
    let kinds: Vec<Kind> = Kind::ALL.to_vec();
    let wanted = std::env::var("SCENARIOS").unwrap_or_default();
    // Each is a node of its own, so they may be played side by side.
    let results: Vec<(String, Result<(), String>)> = thread::scope(|scope| {
        let play = |kinds: &[Kind]| {
            let scenarios = kinds.iter().flat_map(|kind| scenarios(*kind)).filter(|s| s.name.contains(&wanted));
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

/// Inputs like those of public reports: each was missed, or something else was said of it. `states-left.txt` has those of which that is
/// still so.
#[test]
fn every_state_comes_out_as_it_says() {
    let base = &Scenario::base(&dir().join("base.txt"));
    let mut files: Vec<PathBuf> =
        fs::read_dir(dir().join("states")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let wanted = std::env::var("STATES").unwrap_or_default();
    files.retain(|file| file.file_stem().is_some_and(|name| name.to_string_lossy().contains(&wanted)));
    files.sort();
    let left = fs::read_to_string(dir().join("states-left.txt")).unwrap();
    let left: BTreeSet<&str> = left.lines().filter(|line| !line.starts_with('#')).collect();
    let play = |file: &PathBuf| {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains("\n# right: "), "{name}: expected `# right: …`, what a correct program says");
        let played = Scenario::of(name.clone(), Purpose::State, Kind::ClockDrift, &text).play(base);
        match (played, left.contains(name.as_str())) {
            (Ok(()), false) => None,
            (Err(why), true) => {
                eprintln!("{name} is left: {why}");
                None
            }
            (Err(why), false) => Some(format!("{name}: {why}")),
            (Ok(()), true) => Some(format!("{name}: it comes out right: expected no line in states-left.txt")),
        }
    };
    let wrong: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = files
            .chunks(files.len().div_ceil(4).max(1))
            .map(|some| scope.spawn(move || some.iter().filter_map(play).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} of {} came out otherwise:\n{}", wrong.len(), files.len(), wrong.join("\n"));
}

#[test]
fn every_scenario_begins_with_what_happens() {
    let folders = fs::read_dir(dir()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let silent: Vec<_> = files.filter(|file| !fs::read_to_string(file).unwrap().starts_with("# ")).collect();
    assert!(silent.is_empty(), "expected a comment in the first line of {silent:?}");
}

/// What the player makes of a scenario that is written here.
fn play(purpose: Purpose, kind: Kind, text: &str) -> Result<(), String> {
    Scenario::of("player".into(), purpose, kind, text).play(&Scenario::base(&dir().join("base.txt")))
}

/// A negative case as it should be.
const NEAR: &str = r#"== 0
-- captured/adjtimex.json
{"synchronized":true,"max_error_us":900000,"estimated_error_us":200}
== 60
!! not ClockDrift node by clock max_error_us: 900000
== unless
-- sed captured/adjtimex.json | 900000 | 1100000
!! ClockDrift confirmed the clock may be off by 1100 ms
"#;

#[test]
fn a_negative_case_holds_with_its_twin() {
    assert_eq!(play(Purpose::Negative, Kind::ClockDrift, NEAR), Ok(()));
    // A suspicion in between is none of it.
    let drifts = NEAR.replace("900000,", "1200000,").replace(
        "== 60\n",
        "== 30\n!! ClockDrift suspected\n-- sed captured/adjtimex.json | 1200000 | 900000\n== 90\n",
    );
    let twin_drifts_later = drifts.replace("== unless\n", "== unless 90\n").replace("!! ClockDrift suspected\n", "");
    assert_eq!(play(Purpose::Negative, Kind::ClockDrift, &twin_drifts_later), Ok(()));
}

/// Each of these passed, or could have, while a negative case was "the kind is not confirmed".
#[test]
fn a_negative_case_that_shows_nothing_fails() {
    let changed = |from: &str, to: &str| {
        assert!(NEAR.contains(from), "{from}");
        NEAR.replace(from, to)
    };
    let twin = NEAR.find("== unless").unwrap();
    let cases = [
        (NEAR[..twin].to_owned(), "expected `== unless"),
        (
            changed("!! not ClockDrift node by clock max_error_us: 900000", "!! no ClockDrift"),
            "expected `!! not ClockDrift",
        ),
        // "Not evaluated" somewhere on the way is no "not evaluated" at its end.
        (
            changed("!! not ClockDrift node by clock max_error_us: 900000", "!! no ClockDrift")
                .replace("== 60", "!! not-evaluated ClockDrift\n== 60"),
            "in its last step",
        ),
        // What the parser returns has changed.
        (changed("by clock max_error_us: 900000", "by clock max_error_us: 900001"), "in what clock returned"),
        (changed("by clock max_error_us: 900000", "by meminfo total"), "ClockDrift does not read meminfo"),
        // The source cannot be read, from the start or from some time on.
        (changed("\"max_error_us\"", "\"max_error\""), "ClockDrift was not evaluated"),
        (
            changed("== 60", "== 30\n-- rm captured/adjtimex.json\n-- dir captured/adjtimex.json\n== 60"),
            "ClockDrift was not evaluated",
        ),
        // The edit does not make it raise, or raises something else.
        (changed("| 1100000", "| 900001"), "== unless: expected"),
        (changed("off by 1100 ms", "off by 1200 ms"), "== unless: expected"),
        (
            changed("-- sed captured/adjtimex.json | 900000 | 1100000", "-- append dev/kmsg\n6,1,1,-;x"),
            "== unless: expected",
        ),
        (changed("not ClockDrift node by", "not ClockDrift another by"), "of an object after `!! not`"),
        (
            changed("!! ClockDrift confirmed the clock may be off by 1100 ms\n", ""),
            "expected `!! ClockDrift confirmed TEXT`",
        ),
    ];
    for (text, why) in cases {
        let played = play(Purpose::Negative, Kind::ClockDrift, &text);
        assert!(played.as_ref().is_err_and(|e| e.contains(why)), "expected {why:?}, found {played:?} of\n{text}");
    }
}

/// Even an info is too much once it is confirmed, and a suspicion is at the end.
#[test]
fn a_negative_case_is_neither_confirmed_nor_left_suspected() {
    let info = "== 0\n-- with cluster.txt\n-- sed api/node.json | m5.large | m7i.large\n\
        -- sed api/csinode.json | \"count\":25 | \"count\":29\n== 330\n!! not AttachmentLimit another by csinode Some(29)\n== unless\n\
        -- sed api/csinode.json | 29 | 32\n!! AttachmentLimit confirmed CSINode says 32\n";
    let suspected = NEAR.replace(
        "== unless\n",
        "== 70\n-- sed captured/adjtimex.json | 900000 | 1200000\n== 100\n== unless until 60\n",
    );
    let cases = [
        (Kind::AttachmentLimit, info.to_owned(), "raised, and must not be"),
        (Kind::ClockDrift, suspected, "suspected at its end"),
    ];
    for (kind, text, why) in cases {
        let played = play(Purpose::Negative, kind, &text);
        assert!(played.as_ref().is_err_and(|e| e.contains(why)), "expected {why:?}, found {played:?} of\n{text}");
    }
}

#[test]
fn a_scenario_that_comes_out_otherwise_fails() {
    let drifts = "== 0\n-- captured/adjtimex.json\n{\"synchronized\":true,\"max_error_us\":1200000,\"estimated_error_us\":200}\n== 330\n";
    let cases = [
        (Purpose::Raise, "", Ok(())),
        (Purpose::Clear, "", Err("raised, but not resolved")),
        (Purpose::Raise, "-- sed captured/adjtimex.json | 1200000 | 900000\n== 1000\n", Err("not raised at its end")),
        (Purpose::Raise, "!! ClockDrift confirmed off by 1200 ms\n", Ok(())),
        (Purpose::Raise, "!! ClockDrift confirmed critical off by 1200 ms\n", Err("expected Found")),
        (Purpose::Raise, "!! ClockDrift suspected off by 1200 ms\n", Err("expected Found")),
        // A text is looked for in object and message, and in evidence where the line says so.
        (Purpose::Raise, "!! ClockDrift confirmed maximum error 1200000 us\n", Err("expected Found")),
        (Purpose::Raise, "!! ClockDrift confirmed evidence maximum error 1200000 us\n", Ok(())),
        (Purpose::Raise, "!! ClockDrift confirmed off by 1200 ms evidence maximum error 1200000 us\n", Ok(())),
        (Purpose::Raise, "!! ClockDrift confirmed evidence off by 1200 ms\n", Err("expected Found")),
        (
            Purpose::Raise,
            "-- sed proc/sys/net/netfilter/nf_conntrack_count | 1200 | 131072\n== 500\n",
            Err("also ConntrackPressure"),
        ),
    ];
    for (purpose, more, expected) in cases {
        let played = play(purpose, Kind::ClockDrift, &format!("{drifts}{more}"));
        let as_expected = match (&played, expected) {
            (Ok(()), Ok(())) => true,
            (Err(found), Err(why)) => found.contains(why),
            _ => false,
        };
        assert!(as_expected, "expected {expected:?} of {more:?}, found {played:?}");
    }
}

/// One cause, one headline.
#[test]
fn a_state_with_two_headlines_names_the_second() {
    let text = "== 0\n-- captured/adjtimex.json\n{\"synchronized\":false,\"max_error_us\":16000000,\"estimated_error_us\":200}\n\
        -- sed proc/sys/net/netfilter/nf_conntrack_count | 1200 | 131072\n!! also ClockDrift\n!! also ConntrackPressure\n== 400\n";
    let two = play(Purpose::State, Kind::ClockDrift, text);
    assert!(two.as_ref().is_err_and(|why| why.contains("both stand alone")), "{two:?}");
    let named = format!("{text}!! alone ConntrackPressure\n");
    assert_eq!(play(Purpose::State, Kind::ClockDrift, &named), Ok(()));
    let other = format!("{text}!! alone ConntrackPressure of another table\n");
    assert!(play(Purpose::State, Kind::ClockDrift, &other).is_err());
}

/// `every` is what one would write out.
#[test]
fn what_is_repeated_is_what_is_written_out() {
    let recorded = |text: &str| {
        let mut writer = Writer::new(Vec::new()).unwrap();
        let scenario = Scenario::of("player".into(), Purpose::Raise, Kind::CpuSteal, text);
        scenario.record(&Scenario::base(&dir().join("base.txt")), &mut writer);
        let recording = writer.finish().unwrap();
        let steps = Reader::from_read(&recording[..]).unwrap().map(Result::unwrap);
        let cpu = |seen: Vec<Observation>| seen.into_iter().find(|o| o.source() == Source::CpuTimes);
        steps.filter_map(|(_, seen)| cpu(seen)).collect::<Vec<_>>()
    };
    let repeated = recorded(
        "== 0\n== 10\n-- every 10 until 30: add proc/stat cpu 1 +5, 8 +7\n== 20\n-- add proc/stat cpu 8 +1\n== 40\n",
    );
    let base = "100000 0 20000 1000000 1000 0 100 0";
    let written = "== 0\n== 10\n-- sed proc/stat | BASE | 100005 0 20000 1000000 1000 0 100 7\n== 20\n\
        -- sed proc/stat | 100005 0 20000 1000000 1000 0 100 7 | 100010 0 20000 1000000 1000 0 100 15\n== 30\n\
        -- sed proc/stat | 100010 0 20000 1000000 1000 0 100 15 | 100015 0 20000 1000000 1000 0 100 22\n== 40\n";
    assert_eq!(repeated, recorded(&written.replace("BASE", base)));
    assert_eq!(repeated.len(), 5);
}

#[test]
fn numbers_grow_where_they_stand() {
    let growth = |line: &str, by: &[(usize, u64)]| Growth { line: line.into(), by: by.to_vec() };
    assert_eq!(growth("b", &[(2, 90)]).of("a 1 2\nb  3   9\n").unwrap(), "a 1 2\nb  3   99\n");
    assert_eq!(growth("*", &[(1, 1), (3, 2)]).of("  1 2  3\n").unwrap(), "  2 2  5\n");
    assert!(growth("c", &[(1, 1)]).of("a 1\n").is_err());
    assert!(growth("a", &[(2, 1)]).of("a 1\n").is_err());
    assert!(growth("a", &[(1, 1)]).of("a x\n").is_err());
}

#[test]
#[should_panic(expected = "a later second than the step before")]
fn time_does_not_go_back() {
    let _ = play(Purpose::Raise, Kind::ClockDrift, "== 10\n== 400\n== 20\n");
}

/// Where the driver is absent that would unmount a volume, a search for processes that hold it leads nowhere.
#[test]
fn what_waits_for_an_absent_driver_advises_to_bring_it_back() {
    let base = Scenario::base(&dir().join("base.txt"));
    for kind in [Kind::StuckUnmount, Kind::OrphanedStagingMount, Kind::VolumesMountedAtShutdown] {
        let all = scenarios(kind);
        let scenario = all.iter().find(|scenario| scenario.name.ends_with(" raise-driver-missing")).unwrap();
        let steps = scenario.observe(&base);
        let mut engine = Engine::new(Settings::default(), steps[0].0, LedgerState::default());
        for (at, seen) in steps {
            engine.step(at, seen);
        }
        let found: Vec<_> = engine.entries().filter(|entry| entry.finding.kind == kind).collect();
        assert!(!found.is_empty(), "{kind}");
        for entry in found {
            let advice = &entry.finding.advice;
            assert!(advice.starts_with("Bring the pod of ebs.csi.aws.com back on this node"), "{kind}: {advice}");
        }
    }
}

/// A directory that no kind owns would be a scenario that is never played.
#[test]
fn no_scenario_is_left_out() {
    let known: BTreeSet<String> = Kind::ALL.iter().map(|kind| kebab(*kind)).collect();
    for entry in fs::read_dir(dir()).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() && entry.file_name() != "states" {
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
        .filter(|source| source.provider() == Provider::Host)
        .filter_map(|s| Some(format!("{s}: {}", world.engine.view().unknown(*s)?.why)))
        // Asked only when a detector wants to know, or an operator.
        .filter(|line| {
            ![
                "mount-holders",
                "deleted-files",
                "dns:",
                "tasks:",
                "talkers",
                "branch-links",
                "pod-addresses",
                "xfs-probe",
                "ebs-statistics",
            ]
            .into_iter()
            .any(|s| line.starts_with(s))
        })
        .collect();
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
    let found: Vec<_> = world.engine.entries().map(|e| e.finding.message.clone()).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
