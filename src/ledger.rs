//! Findings over time: suspected, confirmed, cleared.
//!
//! A finding is suspected when a judge raises it, confirmed when it has stood for its kind's delay, and
//! cleared when it has not been raised for its kind's quiet time. Only judgements that can see its subject
//! count: blind time neither confirms nor clears.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::catalogue;
use crate::facts::{KnownPod, Moment};
use crate::finding::{Finding, Judgement, Kind, Severity, Subject};

/// What stood before a restart is found again within so long: a judge that asks lets a contradiction stand for half a
/// minute, asks, and wants what it heard to stand for as long. Before, that it is not raised does not say that it is over.
pub const FOUND_AGAIN_WITHIN: Duration = Duration::from_secs(180);

/// Subjects of one kind that are kept apart; more of them say nothing new, and memory is bounded.
pub const MOST_SUBJECTS: usize = 100;

/// A gap between two judgements that is longer than this is time nobody saw.
const LONGEST_GAP: Duration = Duration::from_secs(600);

/// What a finding's history needs.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What was last raised.
    pub finding: Finding,
    /// Wall-clock time when it was first seen, over restarts of the agent.
    pub first_seen: Timestamp,
    /// When it was confirmed, in this life of the agent.
    pub confirmed: Option<Moment>,
    /// Time for which it was raised, as judged: blind time does not count.
    raised_for: Duration,
    /// Time for which it was not raised, as judged.
    quiet_for: Duration,
    /// The last judgement that could see it.
    judged: Moment,
    /// Whether it stood before the agent was started again.
    known_before: bool,
    /// Whether that one raised it.
    raised: bool,
    /// Whether there was one since that could not see it.
    blind: bool,
}

/// What happened to a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was raised for the first time.
    Suspected,
    /// It has stood for its kind's delay.
    Confirmed,
    /// It became worse.
    Escalated,
    /// It is over.
    Cleared,
    /// It was a suspicion only, and is over.
    Dropped,
}

/// One change of one finding.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// What happened.
    pub change: Change,
    /// The finding as it was last raised.
    pub finding: Finding,
    /// When it was first seen.
    pub first_seen: Timestamp,
}

/// What is kept over restarts: when each finding that stands was first seen, and whose volumes were here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// One entry for each confirmed finding.
    pub seen: Vec<Remembered>,
    /// Pods with claims that were on this node lately: what they leave behind is called by their UIDs alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<KnownPod>,
}

/// One finding that stood when the agent stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    /// Its kind.
    pub kind: Kind,
    /// Its subject.
    pub subject: Subject,
    /// When it was first seen.
    pub first_seen: Timestamp,
}

/// The findings that stand.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<(Kind, Subject), Entry>,
    remembered: BTreeMap<(Kind, Subject), Timestamp>,
    /// When this life's first judgement was.
    begun: Option<Moment>,
    suppressed: BTreeMap<Kind, usize>,
}

impl Ledger {
    /// A ledger that knows since when findings stood before the agent was started again.
    #[must_use]
    pub fn with_memory(memory: Memory) -> Self {
        let remembered = memory.seen.into_iter().map(|r| ((r.kind, r.subject), r.first_seen)).collect();
        Self { remembered, ..Self::default() }
    }

    /// What must be kept over a restart. What was remembered and has not been judged yet is kept as well.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let standing = self.entries.iter().filter(|(_, entry)| entry.confirmed.is_some() || entry.known_before);
        let mut seen: BTreeMap<_, _> = standing.map(|(key, entry)| (key.clone(), entry.first_seen)).collect();
        for (key, first_seen) in &self.remembered {
            seen.entry(key.clone()).or_insert(*first_seen);
        }
        let seen = seen.into_iter().map(|((kind, subject), first_seen)| Remembered { kind, subject, first_seen });
        Memory { seen: seen.collect(), pods: Vec::new() }
    }

    /// Everything that is suspected or confirmed.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// How many subjects of a kind were left out for there being too many.
    #[must_use]
    pub fn suppressed(&self, kind: Kind) -> usize {
        self.suppressed.get(&kind).copied().unwrap_or(0)
    }

    /// Takes in what one judge says of one kind.
    pub fn judge(&mut self, at: Moment, judgement: Judgement) -> Vec<Transition> {
        let Judgement { kind, raised, blind, .. } = judgement;
        let mut changes = Vec::new();
        let mut unseen: BTreeMap<Subject, Finding> = BTreeMap::new();
        for finding in raised {
            unseen.entry(finding.subject.clone()).or_insert(finding);
        }
        let mut over = Vec::new();
        for ((_, subject), entry) in self.entries.iter_mut().filter(|((k, _), _)| *k == kind) {
            if let Some(finding) = unseen.remove(subject) {
                entry.stands(at, finding, &mut changes);
            } else if blind.to(subject).is_some() {
                entry.judged = at;
                entry.blind = true;
            } else if entry.is_over(at) {
                over.push(subject.clone());
            }
        }
        for subject in over {
            if let Some(entry) = self.entries.remove(&(kind, subject)) {
                changes.push(entry.end());
            }
        }
        self.admit(at, kind, unseen, &mut changes);
        let begun = *self.begun.get_or_insert(at);
        if at.since(&begun).is_none_or(|age| age >= FOUND_AGAIN_WITHIN) {
            self.remembered.retain(|(k, subject), _| *k != kind || blind.to(subject).is_some());
        }
        changes
    }

    fn admit(&mut self, at: Moment, kind: Kind, new: BTreeMap<Subject, Finding>, changes: &mut Vec<Transition>) {
        let standing = self.entries.keys().filter(|(k, _)| *k == kind).count();
        let room = MOST_SUBJECTS.saturating_sub(standing);
        self.suppressed.insert(kind, new.len().saturating_sub(room));
        for (subject, finding) in new.into_iter().take(room) {
            let key = (kind, subject);
            let first_seen = self.remembered.remove(&key).unwrap_or(at.wall);
            self.entries.insert(key, Entry::begin(at, first_seen, finding, changes));
        }
    }

    /// For each kind with a suspicion or an end that time will decide: how long until then, if nothing changes.
    pub fn pending(&self) -> impl Iterator<Item = (Kind, Duration)> {
        self.entries.iter().filter_map(|((kind, _), entry)| Some((*kind, entry.due_in()?)))
    }
}

impl Entry {
    /// For how long it has been evaluated and not raised, if the last evaluation did not raise it.
    #[must_use]
    pub fn quiet_for(&self) -> Option<Duration> {
        (!self.raised).then_some(self.quiet_for)
    }

    fn begin(at: Moment, first_seen: Timestamp, finding: Finding, changes: &mut Vec<Transition>) -> Self {
        let mut entry = Self {
            finding,
            first_seen,
            confirmed: None,
            raised_for: Duration::ZERO,
            quiet_for: Duration::ZERO,
            judged: at,
            known_before: first_seen < at.wall,
            raised: true,
            blind: false,
        };
        changes.push(entry.change(Change::Suspected));
        entry.confirm(at, changes);
        entry
    }

    fn stands(&mut self, at: Moment, finding: Finding, changes: &mut Vec<Transition>) {
        if self.raised {
            self.raised_for += self.passed(at);
        }
        let before = self.finding.severity;
        self.finding = finding;
        self.judged = at;
        self.raised = true;
        self.blind = false;
        self.quiet_for = Duration::ZERO;
        self.escalate();
        self.confirm(at, changes);
        if self.confirmed.is_some_and(|confirmed| confirmed != at) && self.finding.severity > before {
            changes.push(self.change(Change::Escalated));
        }
    }

    fn escalate(&mut self) {
        let row = catalogue::row(self.finding.kind);
        if row.critical_after().is_some_and(|after| self.raised_for >= after) {
            self.finding.severity = Severity::Critical;
        }
    }

    fn confirm(&mut self, at: Moment, changes: &mut Vec<Transition>) {
        if self.confirmed.is_none() && self.raised_for >= catalogue::row(self.finding.kind).confirm_after() {
            self.confirmed = Some(at);
            changes.push(self.change(Change::Confirmed));
        }
    }

    /// Counts quiet time; a suspicion ends with the first judgement that does not share it.
    fn is_over(&mut self, at: Moment) -> bool {
        if !self.raised {
            self.quiet_for += self.passed(at);
        }
        self.raised = false;
        self.blind = false;
        self.judged = at;
        self.confirmed.is_none() || self.quiet_for >= catalogue::row(self.finding.kind).clear_after()
    }

    fn end(self) -> Transition {
        let change = if self.confirmed.is_some() { Change::Cleared } else { Change::Dropped };
        self.change(change)
    }

    fn passed(&self, at: Moment) -> Duration {
        at.since(&self.judged).filter(|gap| *gap <= LONGEST_GAP).unwrap_or_default()
    }

    fn due_in(&self) -> Option<Duration> {
        let row = catalogue::row(self.finding.kind);
        // Time decides nothing while nobody sees.
        if self.blind {
            return None;
        }
        match (self.raised, self.confirmed) {
            (true, None) => Some(row.confirm_after().saturating_sub(self.raised_for)),
            (false, Some(_)) => Some(row.clear_after().saturating_sub(self.quiet_for)),
            _ => None,
        }
    }

    fn change(&self, change: Change) -> Transition {
        Transition { change, finding: self.finding.clone(), first_seen: self.first_seen }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::facts::{BootId, Cause, Unknown};
    use crate::finding::SubjectType;

    /// Confirmed after 30 s, cleared after 20 s, critical after 120 s.
    const KIND: Kind = Kind::StalledIo;

    fn at(up: u64) -> Moment {
        let wall = Timestamp::from_second(1_700_000_000 + i64::try_from(up).unwrap()).unwrap();
        Moment { boot: BootId::default(), up: Duration::from_secs(up), wall }
    }

    fn subject(id: &str) -> Subject {
        Subject::new(SubjectType::Device, id)
    }

    fn finding(id: &str) -> Finding {
        Finding {
            kind: KIND,
            severity: Severity::Warning,
            subject: subject(id),
            message: String::new(),
            evidence: Vec::new(),
            advice: String::new(),
        }
    }

    fn raised(ids: &[&str]) -> Judgement {
        Judgement { raised: ids.iter().map(|id| finding(id)).collect(), ..Judgement::new(KIND) }
    }

    fn blind() -> Judgement {
        Judgement::blind(KIND, &Unknown::new(Cause::Denied, "no"))
    }

    fn changes(ledger: &mut Ledger, up: u64, judgement: Judgement) -> Vec<Change> {
        ledger.judge(at(up), judgement).into_iter().map(|t| t.change).collect()
    }

    #[test]
    fn a_finding_is_suspected_then_confirmed_then_worse_then_cleared() {
        let mut ledger = Ledger::default();
        assert_eq!(changes(&mut ledger, 0, raised(&["a"])), [Change::Suspected]);
        assert_eq!(changes(&mut ledger, 29, raised(&["a"])), []);
        assert_eq!(changes(&mut ledger, 30, raised(&["a"])), [Change::Confirmed]);
        assert_eq!(changes(&mut ledger, 120, raised(&["a"])), [Change::Escalated]);
        assert_eq!(changes(&mut ledger, 130, raised(&["a"])), []);
        assert_eq!(changes(&mut ledger, 140, raised(&[])), []);
        assert_eq!(changes(&mut ledger, 159, raised(&[])), []);
        assert_eq!(changes(&mut ledger, 160, raised(&[])), [Change::Cleared]);
        assert_eq!(ledger.entries().count(), 0);
    }

    #[test]
    fn a_suspicion_that_does_not_last_is_dropped() {
        let mut ledger = Ledger::default();
        changes(&mut ledger, 0, raised(&["a"]));
        assert_eq!(changes(&mut ledger, 10, raised(&[])), [Change::Dropped]);
    }

    #[test]
    fn blind_time_neither_confirms_nor_clears() {
        let mut ledger = Ledger::default();
        changes(&mut ledger, 0, raised(&["a"]));
        for up in 1..100 {
            assert_eq!(changes(&mut ledger, up, blind()), [], "a suspicion while blind");
        }
        assert_eq!(changes(&mut ledger, 100, raised(&["a"])), []);
        assert_eq!(changes(&mut ledger, 130, raised(&["a"])), [Change::Confirmed]);
        changes(&mut ledger, 131, raised(&[]));
        for up in 132..300 {
            assert_eq!(changes(&mut ledger, up, blind()), [], "a finding while blind");
        }
    }

    #[test]
    fn blindness_to_one_subject_leaves_the_others_to_be_judged() {
        let mut ledger = Ledger::default();
        changes(&mut ledger, 0, raised(&["a", "b"]));
        changes(&mut ledger, 30, raised(&["a", "b"]));
        let half = || {
            let mut judgement = raised(&[]);
            judgement.blind_to(subject("a"), &Unknown::new(Cause::Torn, "torn"));
            judgement
        };
        changes(&mut ledger, 40, half());
        assert_eq!(changes(&mut ledger, 60, half()), [Change::Cleared]);
        assert_eq!(ledger.entries().next().unwrap().finding.subject, subject("a"));
    }

    #[test]
    fn nobody_looking_for_long_is_not_time_that_counts() {
        let mut ledger = Ledger::default();
        changes(&mut ledger, 0, raised(&["a"]));
        assert_eq!(changes(&mut ledger, 5000, raised(&["a"])), []);
    }

    #[test]
    fn first_seen_survives_a_restart_and_confirmation_begins_again() {
        let mut before = Ledger::default();
        changes(&mut before, 0, raised(&["a"]));
        changes(&mut before, 40, raised(&["a"]));
        let json = serde_json::to_string(&before.memory()).unwrap();
        let mut after = Ledger::with_memory(serde_json::from_str(&json).unwrap());
        assert_eq!(changes(&mut after, 100, blind()), []);
        assert_eq!(changes(&mut after, 110, raised(&["a"])), [Change::Suspected]);
        let entry = after.entries().next().unwrap();
        assert_eq!((entry.first_seen, entry.confirmed), (at(0).wall, None));
        // What was over before the restart is forgotten when there was time to find it again.
        let mut other = Ledger::with_memory(before.memory());
        changes(&mut other, 100, raised(&[]));
        changes(&mut other, 270, raised(&[]));
        assert_eq!(other.memory(), before.memory());
        changes(&mut other, 280, raised(&[]));
        assert_eq!(other.memory(), Memory::default());
    }

    #[test]
    fn what_must_be_asked_for_again_has_stood_since_before_the_restart() {
        let mut before = Ledger::default();
        changes(&mut before, 0, raised(&["a"]));
        changes(&mut before, 40, raised(&["a"]));
        let mut after = Ledger::with_memory(before.memory());
        for up in (100..160).step_by(10) {
            assert_eq!(changes(&mut after, up, raised(&[])), [], "its judge asks, and says nothing yet");
        }
        assert_eq!(changes(&mut after, 160, raised(&["a"])), [Change::Suspected]);
        assert_eq!(after.entries().next().unwrap().first_seen, at(0).wall);
        // Another of the same subject, later, is new.
        changes(&mut after, 170, raised(&[]));
        changes(&mut after, 180, raised(&["a"]));
        assert_eq!(after.entries().next().unwrap().first_seen, at(180).wall);
    }

    #[test]
    fn a_thousand_subjects_are_bounded_and_said() {
        let mut ledger = Ledger::default();
        let ids: Vec<String> = (0..1000).map(|n| format!("{n:04}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        changes(&mut ledger, 0, raised(&ids));
        assert_eq!(ledger.entries().count(), MOST_SUBJECTS);
        assert_eq!(ledger.suppressed(KIND), 900);
        changes(&mut ledger, 10, raised(&[]));
        assert_eq!(ledger.suppressed(KIND), 0);
    }

    proptest! {
        /// Whatever is judged when, a finding is confirmed only after its delay of raised time, and whatever was
        /// confirmed and stays away is cleared in the end.
        #[test]
        fn no_order_of_judgements_confirms_early_or_keeps_for_ever(steps in prop::collection::vec((0u64..40, 0u8..3), 1..60)) {
            let mut ledger = Ledger::default();
            let (mut now, mut raised_since, mut last_raised) = (0, None, false);
            for (wait, what) in steps {
                now += wait;
                let judgement = match what { 0 => raised(&[]), 1 => raised(&["a"]), _ => blind() };
                let seen = changes(&mut ledger, now, judgement);
                match what {
                    0 => (raised_since, last_raised) = (None, false),
                    1 => { raised_since.get_or_insert(now); last_raised = true; }
                    _ => {}
                }
                if seen.contains(&Change::Confirmed) {
                    prop_assert!(last_raised && now - raised_since.unwrap() >= 30);
                }
            }
            for _ in 0..3 {
                now += 20;
                changes(&mut ledger, now, raised(&[]));
            }
            prop_assert_eq!(ledger.entries().count(), 0);
        }
    }
}
