//! Every recording is played again with each of its sources taken away. What must hold: nothing is confirmed, resolved or counted as
//! clear, and no absence is stated, for what could not be read; and nothing is lost that does not decide by it.
//!
//! `tests/mutation/known-failures.txt` has what does not hold yet, and in how many recordings. The list only shrinks: a new failure
//! fails this test, and so does an entry that holds by now (UPDATE_GOLDEN=1 removes it, and never adds one). `tests/mutation/confirmed.txt` has what is still
//! confirmed where a source is denied from the start; UPDATE_GOLDEN=1 writes it, read the difference.
//!
//! MUTATION_ONLY=TEXT plays only the recordings with this text in their names, and holds no list against what it found.
//!
//! Of scenarios the sources that their kind reads are taken away, from the start and from each confirmation; MUTATION=all takes each
//! of them, in each way, and from the middle as well, against `known-failures-of-all.txt`.

#[path = "mutation/change.rs"]
mod change;
#[path = "mutation/play.rs"]
mod play;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use barnacle::facts::Source;
use barnacle::finding::Kind;
use barnacle::recording::Reader;

use crate::scenarios;
use crate::world::scenario::{Purpose, Scenario};
use change::{Change, Target};
use play::{Played, Steps, reads};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn updates_golden() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

/// A recording by its name.
struct Recording {
    name: String,
    steps: Steps,
    /// The kind that it is about; none of a story.
    kind: Option<Kind>,
}

impl Recording {
    /// Of scenarios the long run has the rest: a torn source is unknown as a denied one is, for another cause, and an old one
    /// becomes so.
    fn takes(&self, change: Change) -> bool {
        self.kind.is_none() || takes_all() || !matches!(change, Change::Torn | Change::Stale)
    }
}

fn takes_all() -> bool {
    std::env::var_os("MUTATION").is_some_and(|which| which == "all")
}

fn stories() -> Vec<Recording> {
    let mut stories: Vec<_> = fs::read_dir(dir().join("stories")).unwrap().map(|entry| entry.unwrap().path()).collect();
    stories.retain(|path| path.is_dir());
    stories.sort();
    let read = |path: PathBuf| {
        let reader = Reader::new(File::open(path.join("recording.zst")).unwrap()).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        Recording { name, steps: reader.collect::<Result<_, _>>().unwrap(), kind: None }
    };
    stories.into_iter().map(read).collect()
}

/// What is changed in a recording: each source that it has, and the API server as a whole.
fn targets(recording: &Recording, played: &Played) -> Vec<Target> {
    let sources = played.sources();
    let all = Source::ALL.iter().copied().filter(|source| sources.has(*source));
    let chosen = all.filter(|source| takes_all() || recording.kind.is_none_or(|kind| reads(kind).has(*source)));
    let api = Target::api();
    let has_api = sources.meets(api.set());
    chosen.map(Target::one).chain(has_api.then_some(api)).collect()
}

/// Where a failure was seen, and its first example.
#[derive(Default)]
struct Seen {
    recordings: BTreeSet<String>,
    example: String,
}

/// So many recordings are held in memory with their engines at a time.
const AT_A_TIME: usize = 16;

fn only() -> Option<String> {
    std::env::var("MUTATION_ONLY").ok()
}

/// Failures by what goes wrong.
fn failures(mut recordings: Vec<Recording>) -> BTreeMap<String, Seen> {
    recordings.retain(|recording| only().is_none_or(|only| recording.name.contains(&only)));
    let found = Mutex::new(BTreeMap::new());
    while !recordings.is_empty() {
        let rest = recordings.split_off(recordings.len().min(AT_A_TIME));
        let all = Mutex::new(Vec::new());
        each(std::mem::replace(&mut recordings, rest), |recording| {
            let in_the_middle = recording.kind.is_none() || takes_all();
            let played = Played::new(recording.steps.clone(), in_the_middle);
            all.lock().unwrap().push((recording, played));
        });
        // One target at a time: of a few recordings the longest would keep one thread for as long as all the others.
        let all = all.into_inner().unwrap();
        let of_one = |(recording, played)| targets(recording, played).into_iter().map(move |t| (recording, played, t));
        let work: Vec<_> = all.iter().map(|(recording, played)| (recording, played)).flat_map(of_one).collect();
        each(work, |(recording, played, target)| fail(recording, played, &target, &found));
    }
    found.into_inner().unwrap()
}

/// Plays one recording with one target changed, in each way.
fn fail(recording: &Recording, played: &Played, target: &Target, found: &Mutex<BTreeMap<String, Seen>>) {
    let mut done = Vec::new();
    for change in Change::ALL.into_iter().filter(|change| recording.takes(*change)) {
        for failure in played.failures(target, change, &mut done) {
            let (target, change, wrong) = (target.name, change.name(), failure.wrong.name());
            let line = format!("{target} {change} | {} | {wrong}", failure.kind);
            // A line for each scenario would say the same a dozen times.
            let line = if recording.kind.is_some() { line } else { format!("{} | {line}", recording.name) };
            let mut found = found.lock().unwrap();
            let seen = found.entry(line).or_default();
            if seen.recordings.insert(recording.name.clone()) && seen.recordings.len() == 1 {
                seen.example = format!("{}: {}", recording.name, failure.example);
            }
        }
    }
}

/// Does this with each item, in as many threads as there are processors.
fn each<T: Send>(work: Vec<T>, of: impl Fn(T) + Sync) {
    let work = Mutex::new(work.into_iter());
    let next = || work.lock().unwrap().next();
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(2, |n| n.get().min(4));
        for _ in 0..threads {
            scope.spawn(|| std::iter::from_fn(next).for_each(&of));
        }
    });
}

/// The lines of a committed list that are no comment, each with the number of recordings that it is seen in.
fn listed(text: &str) -> BTreeMap<String, usize> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.rsplit_once(" | ").unwrap()).map(|(line, n)| (line.to_owned(), n.parse().unwrap())).collect()
}

/// Holds what was found against the list of what is known to fail: neither may a failure be new, nor be seen in more recordings.
fn hold(found: &BTreeMap<String, Seen>, name: &str) {
    let path = dir().join("mutation").join(name);
    let text_of_list = fs::read_to_string(&path).unwrap_or_default();
    let known = listed(&text_of_list);
    let n = |line: &String| found.get(line).map_or(0, |seen| seen.recordings.len());
    let new: Vec<_> = found.iter().filter(|(line, _)| n(line) > known.get(*line).copied().unwrap_or(0)).collect();
    let mended: Vec<_> = known.iter().filter(|(line, listed)| n(line) < **listed).map(|(line, _)| line).collect();
    let text = new.iter().map(|(line, seen)| format!("{line} | {}\n    {}", n(line), seen.example));
    let text = text.collect::<Vec<_>>().join("\n");
    if only().is_some() {
        assert!(new.is_empty(), "{} failures that {name} does not list:\n{text}", new.len());
        return;
    }
    if updates_golden() {
        let comments = text_of_list.lines().filter(|line| line.starts_with('#')).map(str::to_owned);
        let left = known.iter().map(|(line, listed)| (line, n(line).min(*listed))).filter(|(_, left)| *left > 0);
        write(&path, comments.chain(left.map(|(line, left)| format!("{line} | {left}"))));
    }
    // For a developer who makes a list by hand.
    if let Some(out) = std::env::var_os("BARNACLE_FAILURES") {
        write(&Path::new(&out).join(name), found.keys().map(|line| format!("{line} | {}", n(line))));
    }
    assert!(new.is_empty(), "{} failures that {name} does not list, or not of so many recordings:\n{text}", new.len());
    assert!(
        mended.is_empty() || updates_golden(),
        "{} entries of {name} hold by now: UPDATE_GOLDEN=1 removes them\n{mended:#?}",
        mended.len()
    );
}

fn write(path: &Path, lines: impl Iterator<Item = String>) {
    fs::write(path, lines.fold(String::new(), |text, line| text + &line + "\n")).unwrap();
}

#[test]
fn no_story_is_changed_by_what_cannot_be_read() {
    hold(&failures(stories()), "known-failures.txt");
}

/// Every scenario of every kind.
fn scenarios() -> Vec<Recording> {
    let base = Scenario::base(&dir().join("scenarios/base.txt"));
    let all = Kind::ALL.iter().flat_map(|kind| scenarios::scenarios(*kind).into_iter().map(|s| (*kind, s)));
    let record = |(kind, scenario): (Kind, Scenario)| Recording {
        name: scenario.name.clone(),
        steps: scenario.observe(&base),
        kind: Some(kind),
    };
    // To record them all takes a minute.
    all.filter(|(_, scenario)| only().is_none_or(|only| scenario.name.contains(&only))).map(record).collect()
}

#[test]
fn no_scenario_is_changed_by_what_its_kind_cannot_read() {
    let list = if takes_all() { "known-failures-of-all.txt" } else { "known-failures-of-scenarios.txt" };
    hold(&failures(scenarios()), list);
}

/// Kinds that need no API server.
const WITHOUT_API: [Kind; 6] = [
    Kind::DeadMount,
    Kind::FilesystemError,
    Kind::PinnedFilesystem,
    Kind::OomKill,
    Kind::EvictionThresholdMet,
    Kind::MemoryStall,
];

#[test]
fn what_needs_no_api_server_is_confirmed_in_the_same_pass_while_it_is_silent() {
    let mut base = Scenario::base(&dir().join("scenarios/base.txt"));
    base.extend(Scenario::base(&dir().join("scenarios/cluster.txt")));
    for kind in WITHOUT_API {
        let mut compared = 0;
        for scenario in scenarios::scenarios(kind).iter().filter(|scenario| scenario.purpose == Purpose::Raise) {
            let played = Played::new(scenario.observe(&base), true);
            let of_kind =
                |found: BTreeSet<(Kind, u64)>| found.into_iter().filter(|(k, _)| *k == kind).collect::<Vec<_>>();
            let all = of_kind(played.confirmed_with(None).unwrap());
            assert!(!all.is_empty(), "{}: not confirmed beside a healthy API server", scenario.name);
            // A scenario may be of a node whose API server was never there.
            let Ok(silent) = played.confirmed_with(Some((&Target::api(), Change::Denied))) else { continue };
            assert_eq!(of_kind(silent), all, "{}", scenario.name);
            compared += 1;
        }
        assert!(compared > 0, "{kind}: no scenario has an API server");
    }
}

/// The kinds with the second at which each is confirmed.
fn row(confirmed: &BTreeSet<(Kind, u64)>) -> String {
    let all: Vec<_> = confirmed.iter().map(|(kind, at)| format!("{kind}@{at}")).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(" ") }
}

#[test]
fn what_is_confirmed_without_each_source_is_written_down() {
    let mut text = String::from(
        "# What each story confirms, and at which second, where one source is denied from the start.\n\
         # Sources that are not named change nothing. Made by UPDATE_GOLDEN=1 cargo test --features ec2 --test it mutation::\n",
    );
    for recording in stories() {
        let played = Played::new(recording.steps.clone(), true);
        let all = row(&played.confirmed_with(None).unwrap());
        writeln!(text, "\n{}\n  {:<26} {all}", recording.name, "all sources").unwrap();
        for target in targets(&recording, &played) {
            let Ok(confirmed) = played.confirmed_with(Some((&target, Change::Denied))) else { continue };
            let row = row(&confirmed);
            if row != all {
                writeln!(text, "  without {:<18} {row}", target.name).unwrap();
            }
        }
    }
    let path = dir().join("mutation/confirmed.txt");
    if updates_golden() {
        fs::write(&path, &text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(text == committed, "tests/mutation/confirmed.txt differs: if this is meant, UPDATE_GOLDEN=1\n{text}");
}
