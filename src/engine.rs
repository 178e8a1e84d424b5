//! The pure core: observations in, transitions and lookups out. No I/O, no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::catalogue;
use crate::detect::{self, Detector, Evaluated, Session, Settings};
use crate::facts::{Lookup, NodeTime, Observation, SourceSet, Unknown};
use crate::finding::{Coverage, FindingKey, Headroom, Kind, KindEvaluation, Object, Severity, Share};
use crate::ledger::{Entry, Ledger, LedgerState, Transition};
use crate::view::{News, RecentPods, Trends, View};

/// The detectors, what they see, and what became of their findings.
#[derive(Clone, Debug)]
pub struct Engine {
    settings: Settings,
    view: View,
    ledger: Ledger,
    /// The last word of each detector on what it could not see.
    coverage: BTreeMap<Kind, Coverage>,
    lookups: BTreeMap<Kind, BTreeMap<Lookup, Severity>>,
    /// Detectors, by their place in the list, whose last evaluation holds for as long as what they read stays the same: it raised
    /// nothing, asked for nothing, and did not ask for the time.
    settled: Vec<bool>,
}

/// The worst finding that a lookup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// How severe it is, or may be.
    pub severity: Severity,
    /// Its kind.
    pub kind: Kind,
}

/// What one step came to.
#[derive(Debug, Default)]
pub struct Step {
    /// What changed, in the order of kinds.
    pub transitions: Vec<Transition>,
    /// What detectors want to know that no clock reads.
    pub lookups: Vec<Lookup>,
    /// What each of them is for.
    pub askers: BTreeMap<Lookup, Asker>,
    /// How soon a suspicion could be confirmed or a finding resolved, and what must be read for it.
    pub wake: Option<(Duration, SourceSet)>,
}

/// What a detector comes to once more that raised nothing and asked for nothing; none where a kind was never evaluated.
fn unchanged(detector: &Detector, coverage: &BTreeMap<Kind, Coverage>) -> Option<Vec<KindEvaluation>> {
    let again = |kind: &Kind| {
        let coverage = coverage.get(kind)?.clone();
        Some(KindEvaluation { coverage, ..KindEvaluation::new(*kind) })
    };
    detector.kinds.iter().map(again).collect()
}

impl Engine {
    /// An engine that has seen nothing but may remember since when findings stand.
    #[must_use]
    pub fn new(settings: Settings, now: NodeTime, mut memory: LedgerState) -> Self {
        let recent_pods = RecentPods::with(std::mem::take(&mut memory.pods));
        Self {
            settings,
            view: View { recent_pods, ..View::new(now) },
            ledger: Ledger::with_memory(memory, now),
            coverage: BTreeMap::new(),
            lookups: BTreeMap::new(),
            settled: vec![false; detect::DETECTORS.len()],
        }
    }

    /// Cycles come at this interval: what is read with them is too old after four of them.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.view.interval = interval;
        self
    }

    /// Takes in what was seen and evaluates what it may have changed.
    pub fn step(&mut self, at: NodeTime, seen: Vec<Observation>) -> Step {
        self.step_each(at, seen, &mut |_, _| {})
    }

    /// The same; each detector is told of when it is done, so that somebody with a clock can take its time.
    pub fn step_each(
        &mut self,
        at: NodeTime,
        seen: Vec<Observation>,
        known: &mut dyn FnMut(&'static Detector, &[KindEvaluation]),
    ) -> Step {
        let news = self.view.take(at, seen);
        self.follow_trends(at);
        self.follow_volumes(news.fresh);
        let mut step = Step::default();
        for evaluation in self.evaluate(news, known) {
            step.transitions.append(&mut self.enter(at, evaluation));
        }
        step.transitions.append(&mut self.ledger.cycle_time(at));
        step.askers = self.askers();
        step.lookups = step.askers.keys().cloned().collect();
        step.wake = self.next_decision();
        step
    }

    /// What each lookup is for that a detector wants to know.
    #[must_use]
    pub fn askers(&self) -> BTreeMap<Lookup, Asker> {
        let mut askers = BTreeMap::new();
        for (kind, lookups) in &self.lookups {
            for (lookup, severity) in lookups {
                let new = Asker { severity: *severity, kind: *kind };
                let asker = askers.entry(lookup.clone()).or_insert(new);
                if new.severity > asker.severity {
                    *asker = new;
                }
            }
        }
        askers
    }

    /// The evaluations of every detector that reads a fresh source. One that holds is not made again.
    fn evaluate(
        &mut self,
        news: News,
        known: &mut dyn FnMut(&'static Detector, &[KindEvaluation]),
    ) -> Vec<KindEvaluation> {
        let mut all = Vec::new();
        let session = Session::new(&self.view, &self.settings);
        for (detector, settled) in detect::DETECTORS.iter().zip(&mut self.settled) {
            // Also where it is not evaluated now: the answer to a lookup becomes too old, and that is no news.
            *settled &= !detector.reads().meets(news.changed);
            if !detector.reads().meets(news.fresh) {
                continue;
            }
            let holds = *settled && !detector.readings.meets(news.fresh);
            let again = if holds { unchanged(detector, &self.coverage) } else { None };
            let evaluations = match again {
                Some(again) => {
                    // Every test thereby holds what is left out against what would come of it.
                    debug_assert_eq!(session.run(detector).evaluations, again, "{} was left out", detector.name());
                    again
                }
                None => {
                    let Evaluated { evaluations, by_time } = session.run(detector);
                    let is_quiet = |e: &KindEvaluation| e.raised.is_empty() && e.lookups.is_empty();
                    *settled = !by_time && evaluations.iter().all(is_quiet);
                    evaluations
                }
            };
            known(detector, &evaluations);
            all.extend(evaluations);
        }
        all
    }

    fn next_decision(&self) -> Option<(Duration, SourceSet)> {
        let (kind, wait) = self.ledger.pending().min_by_key(|(_, wait)| *wait)?;
        let needs = detect::DETECTORS.iter().find(|d| d.kinds.contains(&kind)).map(|d| d.reads());
        Some((wait, needs.unwrap_or_default()))
    }

    /// How long until a second sample confirms what is suspected, and what must be read for it; none where no suspicion is
    /// confirmed within this time.
    #[must_use]
    pub fn second_sample(&self, within: Duration) -> Option<(Duration, SourceSet)> {
        let suspected = self.ledger.entries().filter(|entry| entry.confirmed.is_none()).map(|entry| entry.finding.kind);
        let soon = suspected.map(|kind| (catalogue::row(kind).confirm_after(), detect::reads(kind)));
        let soon = soon.filter(|(wait, _)| *wait <= within);
        soon.reduce(|(wait, reads), (other, more)| (wait.max(other), reads.with(more)))
    }

    fn enter(&mut self, at: NodeTime, evaluation: KindEvaluation) -> Vec<Transition> {
        self.coverage.insert(evaluation.kind, evaluation.coverage.clone());
        self.lookups.insert(evaluation.kind, evaluation.urgency.clone());
        let longest_gap = self.view.longest_gap(detect::reads(evaluation.kind));
        let view = &self.view;
        let namespace = |object: &Object| {
            let uid = object.pod.as_ref()?;
            let pod = view.pods.known().ok().and_then(|pods| pods.value.get(uid)).map(|pod| pod.namespace.clone());
            pod.or_else(|| view.recent_pods.name(uid).map(|(namespace, _)| namespace.to_owned()))
        };
        self.ledger.update(at, evaluation, longest_gap, &namespace)
    }

    fn follow_trends(&mut self, at: NodeTime) {
        for headroom in detect::headroom(&self.view).into_iter().flatten() {
            self.view.trends.push(headroom.signal, at, headroom.available);
        }
    }

    fn follow_volumes(&mut self, fresh: SourceSet) {
        let View { io, block, .. } = &mut self.view;
        if let Ok(seen) = block.known() {
            io.follow(seen.value, seen.at);
        }
        for (device, known) in detect::known_types(&self.view, &self.settings, fresh) {
            self.view.io.learn(&device, known);
        }
    }

    /// The moment of the last step.
    #[must_use]
    pub fn now(&self) -> NodeTime {
        self.view.now
    }

    /// What the detectors see.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// How far each eviction signal is from its threshold, or why that is not known.
    #[must_use]
    pub fn headroom(&self) -> Vec<Result<Headroom, (crate::facts::EvictionSignal, Unknown)>> {
        detect::headroom(&self.view)
    }

    /// What each eviction signal did lately.
    #[must_use]
    pub fn trends(&self) -> &Trends {
        &self.view.trends
    }

    /// Findings that are suspected, confirmed or unverified.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.ledger.entries()
    }

    /// The finding under which this one is shown and published, where that one stands.
    #[must_use]
    pub fn shown_under<'a>(&'a self, entry: &'a Entry) -> Option<&'a FindingKey> {
        self.ledger.shown_under(entry)
    }

    /// What the detector of this kind could not see, the last time it looked; `None` before that.
    #[must_use]
    pub fn coverage(&self, kind: Kind) -> Option<&Coverage> {
        self.coverage.get(&kind)
    }

    /// How many objects of this kind were omitted (limit reached), by whose they are.
    pub fn left_out(&self, kind: Kind) -> impl Iterator<Item = (&Share, usize)> {
        self.ledger.left_out(kind)
    }

    /// What must be kept over a restart.
    #[must_use]
    pub fn memory(&self) -> LedgerState {
        LedgerState { pods: self.view.recent_pods.pods(), ..self.ledger.memory() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{
        BlockDevice, BlockDevices, BootId, DevId, Ec2Attached, Inventory, IoStat, Mounts, Part, Reading, Source,
    };

    fn at(up: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: jiff::Timestamp::UNIX_EPOCH }
    }

    fn devices(up: u64, size: u64, reads: u64) -> Observation {
        let io = Part::Known(IoStat { reads, ..IoStat::default() });
        let device = BlockDevice { name: "nvme1n1".into(), size, io, ..BlockDevice::default() };
        let value = BlockDevices::whole([(DevId { major: 259, minor: 1 }, device)]);
        Observation::BlockDevices(Reading::Known { value, at: at(up) })
    }

    fn mounts(up: u64) -> Observation {
        Observation::Mounts(Reading::Known { value: Mounts::whole([]), at: at(up) })
    }

    /// Whether the evaluation of DeadMount that the engine has would be left out now.
    fn is_settled(engine: &Engine) -> bool {
        let place = detect::DETECTORS.iter().position(|d| d.kinds.contains(&Kind::DeadMount)).unwrap();
        engine.settled[place]
    }

    #[test]
    fn an_evaluation_holds_while_what_it_reads_stays_the_same() {
        let mut engine = Engine::new(Settings::default(), at(0), LedgerState::default());
        engine.step(at(0), vec![mounts(0), devices(0, 8, 1)]);
        assert!(is_settled(&engine));
        let news = engine.view.take(at(10), vec![mounts(10), devices(10, 8, 2)]);
        assert!(news.fresh.has(Source::BlockDevices) && !news.changed.has(Source::BlockDevices), "counters alone");
        let news = engine.view.take(at(20), vec![devices(20, 16, 2)]);
        assert!(news.changed.has(Source::BlockDevices), "another size");
        let news = engine.view.take(at(61), vec![devices(61, 16, 2)]);
        assert!(news.changed.has(Source::Mounts), "too old");
    }

    #[test]
    fn an_answer_that_becomes_too_old_without_a_reading_ends_what_was_left_out() {
        let mut engine = Engine::new(Settings::default(), at(0), LedgerState::default());
        engine.step(at(0), vec![mounts(0), devices(0, 8, 1)]);
        let place = detect::DETECTORS.iter().position(|d| d.kinds.contains(&Kind::UntaggedVolume)).unwrap();
        engine.settled[place] = true;
        let answer = Ec2Attached { instance: String::new(), volumes: Inventory::whole([]) };
        engine.view.take(at(1), vec![Observation::Ec2Attached(Reading::Known { value: answer, at: at(1) })]);
        engine.step(at(1500), Vec::new());
        assert!(!engine.settled[place]);
    }
}
