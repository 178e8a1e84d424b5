//! Plays a recording as it is and with one source changed, and compares.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use barnacle::detect::{DETECTORS, Settings};
use barnacle::engine::{Engine, Step};
use barnacle::facts::{NodeTime, Observation, Source, SourceSet};
use barnacle::finding::{Coverage, Kind, Object, Severity};
use barnacle::ledger::{self, LedgerState};

use super::change::{Change, NotPossible, Target};

/// What a finding is known by.
pub type Key = (Kind, Object);

/// Some steps of a recording: a moment and what was seen.
pub type Steps = Vec<(NodeTime, Vec<Observation>)>;

/// How long after a confirmation its sources fail.
const AFTER: Duration = Duration::from_secs(15);

/// What went wrong, in the order of how bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// Confirmed, and never confirmed in the unchanged run until then.
    New,
    /// More severe than it is in the unchanged run.
    Worse,
    /// Less severe than it was when its source went, and is in the unchanged run.
    Milder,
    /// Resolved while it stands in the unchanged run.
    Resolved,
    /// The unchanged run raises it, and here the kind counts as evaluated without it.
    Clear,
    /// A text says that something is absent, and the unchanged run never does.
    Absence,
    /// It does not decide by what is missing, and is not confirmed in the same cycle.
    Lost,
}

impl Wrong {
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "confirmed from what is missing",
            Self::Worse => "more severe for what is missing",
            Self::Milder => "less severe for what is missing",
            Self::Resolved => "resolved for what is missing",
            Self::Clear => "counted as clear",
            Self::Absence => "says that something is absent",
            Self::Lost => "lost although it does not decide by this source",
        }
    }
}

/// One failure: what, and where it was seen first.
#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: Kind,
    pub wrong: Wrong,
    pub example: String,
}

/// A recording and what comes of it unchanged.
pub struct Played {
    steps: Steps,
    /// The engine before the step of this number.
    engines: BTreeMap<usize, Engine>,
    /// For each step, what is confirmed after it and how severe it is.
    standing: Vec<BTreeMap<Key, Severity>>,
    /// For each step, what it raised and is confirmed: the rest waits for its quiet time to end.
    raised: Vec<BTreeSet<Key>>,
    confirmed: BTreeMap<Key, usize>,
    absences: BTreeMap<Kind, BTreeSet<String>>,
}

/// Plays the steps from an engine.
fn run(engine: &mut Engine, steps: &[(NodeTime, Vec<Observation>)], mut each: impl FnMut(usize, &Engine, &Step)) {
    for (number, (at, seen)) in steps.iter().enumerate() {
        let step = engine.step(*at, seen.clone());
        each(number, engine, &step);
    }
}

fn standing(engine: &Engine) -> BTreeMap<Key, Severity> {
    let confirmed = engine.entries().filter(|entry| entry.confirmed.is_some());
    confirmed.map(|entry| ((entry.finding.kind, entry.finding.object.clone()), entry.finding.severity)).collect()
}

impl Played {
    /// Sources go at the start and after each confirmation, and in the middle where that is wanted.
    pub fn new(steps: Steps, in_the_middle: bool) -> Self {
        let begin = Engine::new(Settings::default(), steps[0].0, LedgerState::default());
        let (mut all, mut raised) = (Vec::new(), Vec::new());
        let mut confirmed = BTreeMap::new();
        let mut absences: BTreeMap<Kind, BTreeSet<String>> = BTreeMap::new();
        run(&mut begin.clone(), &steps, |number, engine, _| {
            let now = standing(engine);
            for key in now.keys() {
                confirmed.entry(key.clone()).or_insert(number);
            }
            for (kind, text) in texts(engine) {
                absences.entry(kind).or_default().extend(absences_in(&text));
            }
            all.push(now);
            let confirmed = engine.entries().filter(|e| e.confirmed.is_some() && e.quiet_for().is_none());
            raised.push(confirmed.map(|e| (e.finding.kind, e.finding.object.clone())).collect());
        });
        let mut starts = BTreeSet::from([0]);
        starts.extend(in_the_middle.then_some(steps.len() / 2));
        for number in confirmed.values() {
            let after = |(at, _): &(NodeTime, _)| at.since(&steps[*number].0).is_none_or(|passed| passed >= AFTER);
            starts.extend((number + 1..steps.len()).find(|number| after(&steps[*number])));
        }
        let mut engines = BTreeMap::new();
        let mut engine = begin;
        for (number, (at, seen)) in steps.iter().enumerate() {
            if starts.contains(&number) {
                engines.insert(number, engine.clone());
            }
            engine.step(*at, seen.clone());
        }
        Self { steps, engines, standing: all, raised, confirmed, absences }
    }

    /// Sources that were known at least once.
    pub fn sources(&self) -> SourceSet {
        let seen = self.steps.iter().flat_map(|(_, seen)| seen);
        seen.filter(|observation| observation.why_unknown().is_none()).map(Observation::source).collect()
    }

    /// What is confirmed with this change from the start: each kind with the second at which it was.
    pub fn confirmed_with(&self, change: Option<(&Target, Change)>) -> Result<BTreeSet<(Kind, u64)>, NotPossible> {
        let steps = match change {
            Some((target, change)) => changed(&self.steps, target, change)?,
            None => self.steps.clone(),
        };
        let mut found = BTreeSet::new();
        run(&mut self.engines[&0].clone(), &steps, |number, _, step| {
            let after = self.second(number);
            let confirmed = step.transitions.iter().filter(|t| t.change == ledger::Change::Confirmed);
            found.extend(confirmed.map(|t| (t.finding.kind, after)));
        });
        Ok(found)
    }

    fn second(&self, number: usize) -> u64 {
        let begun = self.steps[0].0.wall;
        self.steps[number].0.wall.duration_since(begun).as_secs().unsigned_abs()
    }

    /// Everything that this change makes wrong, from each of its beginnings. None where the source cannot fail so. A change that
    /// gives the same steps as one that is done already (of a list of one, half is all of it) is not played again.
    pub fn failures(&self, target: &Target, change: Change, done: &mut Vec<(Steps, Vec<Failure>)>) -> Vec<Failure> {
        let Ok(steps) = changed(&self.steps, target, change) else { return Vec::new() };
        if change == Change::Stale {
            return self.failures_of(&steps, target, change);
        }
        if let Some((_, found)) = done.iter().find(|(other, _)| *other == steps) {
            return found.clone();
        }
        let found = self.failures_of(&steps, target, change);
        done.push((steps, found.clone()));
        found
    }

    fn failures_of(&self, steps: &Steps, target: &Target, change: Change) -> Vec<Failure> {
        let mut found: BTreeMap<(Kind, Wrong), String> = BTreeMap::new();
        for (from, engine) in &self.engines {
            let steps = steps.get(*from..).unwrap_or_default();
            // Only a value can grow old: a source that is read by the clock gives one or says why not, and without what is watched an
            // agent has no cluster, which is another recording.
            if *from == 0 && change == Change::Stale && target.set().iter().any(is_read_unasked) {
                continue;
            }
            // The source does not come any more: nothing differs.
            if Some(steps) == self.steps.get(*from..) {
                continue;
            }
            let before = standing(engine);
            run(&mut engine.clone(), steps, |number, engine, step| {
                let wrong = self.compare(from + number, engine, step, (target, change), &before);
                for (key, wrong, what) in wrong.into_iter().filter(|(key, wrong, _)| !falls_back(key.0, *wrong, target))
                {
                    let example = || {
                        let (at, from) = (self.second(from + number), self.second(*from));
                        format!(
                            "{target} {change} from {from} s, at {at} s: {} {what}",
                            key.1,
                            target = target.name,
                            change = change.name()
                        )
                    };
                    found.entry((key.0, wrong)).or_insert_with(example);
                }
            });
        }
        found.into_iter().map(|((kind, wrong), example)| Failure { kind, wrong, example }).collect()
    }

    /// Whether the unchanged run has not confirmed this at its step of this number, under a more exact name either.
    fn is_new(&self, key: &Key, number: usize) -> bool {
        if self.confirmed.get(key).is_some_and(|first| *first <= number) {
            return false;
        }
        let at = &self.steps[number].0;
        let is_soon = |first: usize| self.steps[first].0.since(at).is_none_or(|wait| wait <= NAMED_WITHIN);
        let is_named = |((kind, _), first): (&Key, &usize)| *kind == key.0 && is_soon(*first);
        let is_exact = key.1 != Object::node() && !matches!(key.1.id.as_str(), "unknown" | "kubepods");
        is_exact || !self.confirmed.iter().any(is_named)
    }

    fn compare(
        &self,
        number: usize,
        engine: &Engine,
        step: &Step,
        (target, change): (&Target, Change),
        before: &BTreeMap<Key, Severity>,
    ) -> Vec<(Key, Wrong, String)> {
        let mut wrong = Vec::new();
        let (unchanged, now) = (&self.standing[number], standing(engine));
        for (key, severity) in &now {
            match unchanged.get(key) {
                // It stays as severe as it was while what would make it less severe is missing, as it stays at all.
                Some(as_is) if as_is < severity && before.get(key).is_none_or(|was| was < severity) => {
                    wrong.push((key.clone(), Wrong::Worse, String::new()));
                }
                Some(as_is) if before.get(key).is_some_and(|was| was > severity && as_is >= was) => {
                    wrong.push((key.clone(), Wrong::Milder, String::new()));
                }
                None if self.is_new(key, number) => {
                    wrong.push((key.clone(), Wrong::New, String::new()));
                }
                _ => {}
            }
        }
        for transition in step.transitions.iter().filter(|t| t.change == ledger::Change::Resolved) {
            let key = (transition.finding.kind, transition.finding.object.clone());
            if unchanged.contains_key(&key) {
                wrong.push((key, Wrong::Resolved, String::new()));
            }
        }
        // An old value is still taken for one: until it is too old the world is as it was then.
        let is_old_news = change == Change::Stale && target.set().iter().all(|s| engine.view().unknown(s).is_none());
        for key in unchanged.keys().filter(|key| !now.contains_key(key)) {
            if self.confirmed[key] == number && !decides(key.0).meets(target.set()) {
                wrong.push((key.clone(), Wrong::Lost, String::new()));
            }
            let suspected = engine.entries().any(|e| e.finding.kind == key.0 && e.finding.object == key.1);
            if !suspected && !is_old_news && self.raised[number].contains(key) && !is_not_evaluated_for(engine, key) {
                wrong.push((key.clone(), Wrong::Clear, String::new()));
            }
        }
        for entry in engine.entries().filter(|_| !is_old_news) {
            let kind = entry.finding.kind;
            // What was said while the old value still counted stands as it was said.
            let key = (kind, entry.finding.object.clone());
            if change == Change::Stale && is_not_evaluated_for(engine, &key) {
                continue;
            }
            let known = self.absences.get(&kind);
            // A source that was not changed was read: what it does not have was seen to be absent, and the message may say so.
            let (changed, unchanged): (Vec<_>, Vec<_>) =
                entry.finding.evidence.iter().partition(|evidence| target.has(evidence.source));
            let is_seen = unchanged.iter().any(|evidence| !absences_in(&evidence.fact).is_empty());
            let message = (!is_seen).then_some(&entry.finding.message);
            for text in changed.iter().map(|evidence| &evidence.fact).chain(message) {
                for absence in absences_in(text) {
                    if !known.is_some_and(|known| known.contains(&absence)) {
                        wrong.push((key.clone(), Wrong::Absence, format!("({absence})")));
                    }
                }
            }
        }
        wrong
    }
}

/// While the source that would name the object is missing, it is "unknown" or the node, and there is no wait for that source.
const NAMED_WITHIN: Duration = Duration::from_secs(30);

/// Where the kubelet does not answer, its command line and files decide, as in the profiles that do not ask it
/// (docs/profiles.md): whether it was restarted since a file changed no other source shows.
fn falls_back(kind: Kind, wrong: Wrong, target: &Target) -> bool {
    matches!(wrong, Wrong::New | Wrong::Clear)
        && kind == Kind::EvictionThresholdMet
        && target.set() == SourceSet::one(Source::KubeletConfigz)
}

fn is_not_evaluated_for(engine: &Engine, (kind, object): &Key) -> bool {
    match engine.coverage(*kind) {
        None => true,
        Some(coverage @ (Coverage::None(_) | Coverage::NoneOf(_) | Coverage::Partial(_) | Coverage::Except(_))) => {
            coverage.why_not(object).is_some()
        }
        Some(Coverage::Full) => false,
    }
}

/// What the kind's detector says that it decides by, also where another source does not answer.
pub fn decides(kind: Kind) -> SourceSet {
    let detector = DETECTORS.iter().find(|detector| detector.kinds.contains(&kind)).unwrap();
    detector.decides_by().with(detector.alternatives)
}

/// What the kind's detector reads.
pub fn reads(kind: Kind) -> SourceSet {
    DETECTORS.iter().find(|detector| detector.kinds.contains(&kind)).unwrap().reads()
}

fn changed(steps: &Steps, target: &Target, change: Change) -> Result<Steps, NotPossible> {
    let mut possible = false;
    let steps = steps.iter().map(|(at, seen)| {
        let seen = seen.iter().filter_map(|observation| {
            if !target.has(observation.source()) {
                return Some(observation.clone());
            }
            let known = observation.why_unknown().is_none();
            match change.of(observation) {
                Ok(changed) => {
                    possible |= known;
                    changed
                }
                Err(NotPossible) => Some(observation.clone()),
            }
        });
        (*at, seen.collect())
    });
    let steps = steps.collect();
    if possible { Ok(steps) } else { Err(NotPossible) }
}

/// Whether it is read by the clock or watched, and not only when a detector asks.
fn is_read_unasked(source: Source) -> bool {
    !source.every().is_zero()
}

fn texts(engine: &Engine) -> Vec<(Kind, String)> {
    engine.entries().flat_map(|entry| texts_of(entry).map(|text| (entry.finding.kind, text))).collect()
}

fn texts_of(entry: &ledger::Entry) -> impl Iterator<Item = String> {
    let finding = &entry.finding;
    std::iter::once(finding.message.clone()).chain(finding.evidence.iter().map(|evidence| evidence.fact.clone()))
}

const ABSENT: [&str; 11] =
    ["no", "nothing", "gone", "none", "nowhere", "never", "neither", "without", "absent", "lacks", "exist"];
/// A clause with one of these says what is not known, which is no statement of absence.
const UNKNOWN: [&str; 8] =
    ["unknown", "could not", "cannot", "not known", "not asked", "not read", "not seen", "not evaluated"];

/// What each clause of a text says to be absent, without its figures.
fn absences_in(text: &str) -> Vec<String> {
    let clauses = text.split([';', ':', ',', '(', ')']).map(str::trim);
    let stated = clauses.filter(|clause| !UNKNOWN.iter().any(|unknown| clause.contains(unknown)));
    stated.filter_map(absent_part).map(without_figures).collect()
}

/// From the word that states the absence on: what is before it names who it is about, in one way or another.
fn absent_part(clause: &str) -> Option<&str> {
    let words = clause.split(|c: char| !c.is_alphanumeric());
    let first = words.into_iter().find(|word| ABSENT.contains(word))?;
    let begin = first.as_ptr().addr().checked_sub(clause.as_ptr().addr())?;
    clause.get(begin..)
}

fn without_figures(clause: &str) -> String {
    let words = clause.split_whitespace().filter(|word| !word.starts_with(|c: char| c.is_ascii_digit()));
    words.collect::<Vec<_>>().join(" ")
}
