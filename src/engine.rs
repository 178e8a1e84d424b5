//! The pure core: observations in, transitions and lookups out. No I/O, no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::catalogue;
use crate::detect::{self, Detector, Settings};
use crate::facts::{Lookup, NodeTime, Observation, Source, SourceSet, Unknown};
use crate::finding::{Coverage, FindingKey, Headroom, Kind, KindEvaluation, Object, Severity, Share};
use crate::ledger::{Entry, Ledger, LedgerState, Transition};
use crate::view::{AttachedOnce, CpuCredits, RecentPods, Trends, View};
pub use crate::view::{input, sources};

/// The detectors, what they see, and what became of their findings.
#[derive(Clone, Debug)]
pub struct Engine {
    settings: Settings,
    view: View,
    ledger: Ledger,
    /// The last word of each detector on what it could not see.
    coverage: BTreeMap<Kind, Coverage>,
    lookups: BTreeMap<Kind, BTreeMap<Lookup, Severity>>,
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

impl Engine {
    /// An engine that has seen nothing but may remember since when findings stand.
    #[must_use]
    pub fn new(settings: Settings, now: NodeTime, mut memory: LedgerState) -> Self {
        let recent_pods = RecentPods::with(std::mem::take(&mut memory.pods));
        let attached_once = AttachedOnce::with(std::mem::take(&mut memory.attached));
        let cpu_credits = CpuCredits::with(memory.credits.take());
        let last_role = memory.role.take();
        Self {
            settings,
            view: View::remembering(now, recent_pods, attached_once, cpu_credits, last_role),
            ledger: Ledger::with_memory(memory, now),
            coverage: BTreeMap::new(),
            lookups: BTreeMap::new(),
        }
    }

    /// Cycles come at this interval: what is read with them is too old after four of them.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.view.set_interval(interval);
        self
    }

    /// Takes in what was seen and evaluates what it may have changed.
    pub fn step(&mut self, at: NodeTime, seen: Vec<Observation>) -> Step {
        self.step_each(at, seen, &mut |_, _| {})
    }

    /// The same; `known` is called after each detector, so that a caller with a clock can take its time.
    pub fn step_each(
        &mut self,
        at: NodeTime,
        seen: Vec<Observation>,
        known: &mut dyn FnMut(&'static Detector, &[KindEvaluation]),
    ) -> Step {
        let mut fresh = self.view.take(at, seen);
        // A reading that has just become too old is news, too.
        fresh = fresh.with(Source::ALL.iter().copied().filter(|s| self.became_unknown(*s)).collect());
        self.follow_trends();
        self.follow_volumes(fresh);
        let mut step = Step::default();
        for evaluation in detect::evaluate(&self.view, &self.settings, fresh, known) {
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
        // Whether its findings are muted, a PersistentVolume says itself: asked while they are suspected, it is known in time.
        for Entry { finding, .. } in self.ledger.entries().filter(|entry| entry.finding.severity > Severity::Info) {
            if let Some(name) = &finding.object.pv {
                let new = Asker { severity: finding.severity, kind: finding.kind };
                askers.entry(Lookup::PersistentVolume(name.clone())).or_insert(new);
            }
        }
        askers
    }

    fn next_decision(&self) -> Option<(Duration, SourceSet)> {
        let (kind, wait) = self.ledger.pending().min_by_key(|(_, wait)| *wait)?;
        Some((wait, detect::awaits(kind)))
    }

    /// How long until a second sample confirms what is suspected, and what must be read for it; none where no suspicion is
    /// confirmed within this time.
    #[must_use]
    pub fn second_sample(&self, within: Duration) -> Option<(Duration, SourceSet)> {
        let suspected = self.ledger.entries().filter(|entry| entry.confirmed.is_none()).map(|entry| entry.finding.kind);
        let soon = suspected.map(|kind| (catalogue::row(kind).confirm_after(), detect::awaits(kind)));
        let soon = soon.filter(|(wait, _)| *wait <= within);
        soon.reduce(|(wait, reads), (other, more)| (wait.max(other), reads.with(more)))
    }

    fn became_unknown(&self, source: Source) -> bool {
        self.view.unknown(source).is_some_and(|unknown| unknown.since == Some(self.view.now()))
    }

    fn enter(&mut self, at: NodeTime, evaluation: KindEvaluation) -> Vec<Transition> {
        self.coverage.insert(evaluation.kind, evaluation.coverage.clone());
        self.lookups.insert(evaluation.kind, evaluation.urgency.clone());
        // What only adds evidence may be read more often than what decides.
        let longest_gap = self.view.longest_gap(detect::decides(evaluation.kind));
        let view = &self.view;
        let namespace = |object: &Object| view.namespace_of(object.pod.as_ref()?);
        self.ledger.update(at, evaluation, longest_gap, &namespace)
    }

    fn follow_trends(&mut self) {
        for (signal, at, available) in detect::samples(&self.view) {
            self.view.follow_signal(signal, at, available);
        }
    }

    fn follow_volumes(&mut self, fresh: SourceSet) {
        self.view.follow_io();
        for (device, known) in detect::known_types(&self.view, fresh) {
            self.view.learn_type(&device, known);
        }
    }

    /// The moment of the last step.
    #[must_use]
    pub fn now(&self) -> NodeTime {
        self.view.now()
    }

    /// What the detectors see.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What the agent itself reads of the view, by the same types.
    ///
    /// # Errors
    /// Why what is required is not known.
    pub fn read<I: input::Input>(&self) -> Result<I::Of<'_>, &Unknown> {
        I::extract(&self.view)
    }

    /// How far each eviction signal is from its threshold, or why that is not known.
    #[must_use]
    pub fn headroom(&self) -> Vec<Result<Headroom, (crate::facts::EvictionSignal, Unknown)>> {
        detect::headroom(&self.view)
    }

    /// What each eviction signal did lately.
    #[must_use]
    pub fn trends(&self) -> &Trends {
        self.view.trends()
    }

    /// Findings that are suspected, confirmed or unverified.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.ledger.entries()
    }

    /// The finding under which this one is shown and published, where that one stands.
    #[must_use]
    pub fn shown_under(&self, entry: &Entry) -> Option<FindingKey> {
        self.ledger.shown_under(entry)
    }

    /// What the detector of this kind could not see, the last time it looked; `None` before that.
    #[must_use]
    pub fn coverage(&self, kind: Kind) -> Option<&Coverage> {
        self.coverage.get(&kind)
    }

    /// How many objects of this kind were omitted (limit reached), by owner.
    pub fn left_out(&self, kind: Kind) -> impl Iterator<Item = (&Share, usize)> {
        self.ledger.left_out(kind)
    }

    /// What must be kept over a restart.
    #[must_use]
    pub fn memory(&self) -> LedgerState {
        let view = &self.view;
        LedgerState {
            pods: view.recent_pods().pods(),
            attached: view.attached_once().names(),
            credits: view.cpu_credits().balance().cloned(),
            role: view.last_role().cloned(),
            ..self.ledger.memory()
        }
    }
}
