//! Findings over time: suspected, confirmed, unverified, cleared.
//!
//! A finding is suspected when a judge raises it, confirmed when it has stood for its kind's delay, and
//! cleared when it has not been raised for its kind's quiet time. Only judgements that can see its subject
//! count: time that no evaluation covers neither confirms nor clears. It does not last for ever either: what was confirmed is unverified
//! after [`UNVERIFIED_AFTER`] and dropped after [`EXPIRES_AFTER`]. A restart of the agent is such time, too.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::catalogue;
use crate::facts::{Cause, KnownPod, Moment};
use crate::finding::{Blind, Evidence, Finding, Judgement, Kind, Severity, Subject};

/// What stood before a restart is found again within so long: a judge that asks lets a contradiction stand for half a
/// minute, asks, and wants what it heard to stand for as long. Before, that it is not raised does not say that it is over.
pub const FOUND_AGAIN_WITHIN: Duration = Duration::from_secs(180);

/// Subjects of one kind that are kept apart; more of them say nothing new, and memory is bounded.
pub const MOST_SUBJECTS: usize = 100;

/// After an agent was away for longer than this, what was confirmed must be confirmed again.
const LONGEST_ABSENCE: Duration = Duration::from_secs(600);

/// What was confirmed and could not be evaluated for so long is unverified; a suspicion is dropped.
pub const UNVERIFIED_AFTER: Duration = Duration::from_secs(15 * 60);

/// What could not be evaluated for so long is dropped.
pub const EXPIRES_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What all remembered findings may take in the state file, in bytes: any container may choose long names.
const MOST_REMEMBERED: usize = 512 << 10;

/// What a finding's history needs.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What was last raised.
    pub finding: Finding,
    /// Wall-clock time when it was first seen, over restarts of the agent.
    pub first_seen: Timestamp,
    /// When it was confirmed; of what was confirmed before a restart, when it was last raised before it.
    pub confirmed: Option<Moment>,
    /// The last evaluation that raised it.
    last_raised: Moment,
    /// Time for which it was raised, as evaluated: time that no evaluation covers does not count.
    raised_for: Duration,
    /// Time for which it was not raised, as judged.
    quiet_for: Duration,
    /// The last judgement that could see it.
    judged: Moment,
    /// Whether it stood before the agent was started again.
    known_before: bool,
    /// Whether that one raised it.
    raised: bool,
    /// Since when no evaluation covered it.
    not_evaluated_since: Option<Moment>,
    /// Whether that lasted for too long; until it is raised again.
    unverified: bool,
    /// Whether it was confirmed before a restart, and not raised since.
    restored: bool,
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
    /// It was confirmed, and could not be evaluated for [`UNVERIFIED_AFTER`].
    Unverified,
    /// It was confirmed, and is dropped without being resolved: it could not be evaluated for [`EXPIRES_AFTER`], another
    /// boot began, or this profile has its source no more.
    Expired,
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
    /// When this was so: the last evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Moment>,
}

impl Memory {
    /// Whether the same findings stand in the same state, as bad as before: an escalation that is not kept would be written a
    /// second time. Their figures and times move all the time.
    #[must_use]
    pub fn has_same_findings(&self, other: &Self) -> bool {
        let state = |seen: &Remembered| seen.stood.as_ref().map(|stood| (stood.unverified, stood.severity));
        let same = |a: &Remembered, b: &Remembered| {
            a.kind == b.kind && a.subject == b.subject && a.first_seen == b.first_seen && state(a) == state(b)
        };
        let pairs = || self.seen.iter().zip(&other.seen);
        self.pods == other.pods && self.seen.len() == other.seen.len() && pairs().all(|(a, b)| same(a, b))
    }
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
    /// How it stood; absent where it was not confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stood: Option<Stood>,
}

/// A confirmed finding as it stood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stood {
    /// How bad it was.
    pub severity: Severity,
    /// Its message.
    pub message: String,
    /// What it rested on.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
    /// What to do next.
    #[serde(default)]
    pub advice: String,
    /// For how long it was raised: it decides when it becomes critical.
    pub raised_seconds: u64,
    /// The last evaluation that raised it.
    pub last_raised: Moment,
    /// Since when it could not be evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_evaluated_since: Option<Moment>,
    /// Whether it was unverified.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unverified: bool,
}

/// The findings that stand.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<(Kind, Subject), Entry>,
    remembered: BTreeMap<(Kind, Subject), Timestamp>,
    /// When this life's first judgement was.
    begun: Option<Moment>,
    /// The last evaluation, of this life or of the one before.
    last: Option<Moment>,
    suppressed: BTreeMap<Kind, usize>,
}

impl Ledger {
    /// A ledger that goes on where the agent was stopped. What was confirmed stands until it is evaluated; after an agent
    /// was away for long, only since when it was first seen is kept.
    #[must_use]
    pub fn with_memory(memory: Memory, now: Moment) -> Self {
        let mut ledger = Self { last: memory.at, ..Self::default() };
        let away = memory.at.and_then(|at| now.since(&at));
        let recent = memory.at.filter(|_| away.is_some_and(|away| away <= LONGEST_ABSENCE));
        let mut standing: BTreeMap<Kind, usize> = BTreeMap::new();
        for Remembered { kind, subject, first_seen, stood } in memory.seen {
            let count = standing.entry(kind).or_default();
            match (recent, stood) {
                (Some(left), Some(stood)) if *count < MOST_SUBJECTS => {
                    *count += 1;
                    let entry = Entry::restored(kind, subject.clone(), first_seen, stood, left, now);
                    ledger.entries.insert((kind, subject), entry);
                }
                _ => {
                    ledger.remembered.insert((kind, subject), first_seen);
                }
            }
        }
        ledger
    }

    /// What must be kept over a restart. What was remembered and has not been evaluated yet is kept as well. Where that is
    /// too much, the worst is kept.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let standing = self.entries.iter().filter(|(_, entry)| entry.confirmed.is_some() || entry.known_before);
        let mut seen: BTreeMap<_, _> = standing.map(|(key, entry)| (key, entry.remember(key))).collect();
        for (key, first_seen) in &self.remembered {
            let (kind, subject) = key.clone();
            let known = Remembered { kind, subject, first_seen: *first_seen, stood: None };
            seen.entry(key).or_insert(known);
        }
        let mut seen: Vec<_> = seen.into_values().collect();
        seen.sort_by_key(|seen| std::cmp::Reverse(seen.stood.as_ref().map(|stood| stood.severity)));
        let mut room = MOST_REMEMBERED;
        seen.retain_mut(|seen| seen.fits(&mut room));
        seen.sort_by(|a, b| (a.kind, &a.subject).cmp(&(b.kind, &b.subject)));
        Memory { seen, pods: Vec::new(), at: self.last }
    }

    /// Everything that is suspected, confirmed or unverified.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// How many subjects of a kind were left out for there being too many.
    #[must_use]
    pub fn suppressed(&self, kind: Kind) -> usize {
        self.suppressed.get(&kind).copied().unwrap_or(0)
    }

    /// Takes in what one judge says of one kind. A gap since the evaluation before that is longer than this is time that no
    /// evaluation covers, whatever held up the agent.
    pub fn judge(&mut self, at: Moment, judgement: Judgement, longest_gap: Duration) -> Vec<Transition> {
        let longest_gap = longest_gap.min(LONGEST_ABSENCE);
        let Judgement { kind, raised, blind, .. } = judgement;
        let mut changes = Vec::new();
        let mut unseen: BTreeMap<Subject, Finding> = BTreeMap::new();
        for finding in raised {
            unseen.entry(finding.subject.clone()).or_insert(finding);
        }
        let begun = *self.begun.get_or_insert(at);
        self.last = Some(at);
        let young = at.since(&begun).is_some_and(|age| age < FOUND_AGAIN_WITHIN);
        let mut over = Vec::new();
        for ((_, subject), entry) in self.entries.iter_mut().filter(|((k, _), _)| *k == kind) {
            if let Some(finding) = unseen.remove(subject) {
                entry.stands(at, longest_gap, finding, &mut changes);
            } else if blind.to(subject).is_some() {
                // An agent that was started without this source will not have it later.
                if entry.restored && young && is_unsupported(&blind) {
                    over.push((subject.clone(), Change::Expired));
                }
                entry.is_not_evaluated(at);
            } else if entry.is_over(at, longest_gap) {
                over.push((subject.clone(), entry.end()));
            }
        }
        for (subject, change) in over {
            if let Some(entry) = self.entries.remove(&(kind, subject)) {
                changes.push(entry.change(change));
            }
        }
        self.admit(at, kind, unseen, &mut changes);
        if !young {
            self.remembered.retain(|(k, subject), _| *k != kind || blind.to(subject).is_some());
        }
        changes
    }

    /// Takes in that time has passed, after all evaluations of this moment: what can no longer be evaluated does not
    /// stand for ever.
    pub fn pass_time(&mut self, at: Moment) -> Vec<Transition> {
        let mut changes = Vec::new();
        self.entries.retain(|_, entry| match entry.outlook(at) {
            Outlook::Stands => true,
            Outlook::Unverified => {
                entry.unverified = true;
                changes.push(entry.change(Change::Unverified));
                true
            }
            Outlook::Ends => {
                let change = if entry.confirmed.is_some() { Change::Expired } else { Change::Dropped };
                changes.push(entry.change(change));
                false
            }
        });
        if self.begun.and_then(|begun| at.since(&begun)).is_some_and(|age| age >= EXPIRES_AFTER) {
            self.remembered.clear();
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

/// What time makes of a finding that is not evaluated.
enum Outlook {
    Stands,
    Unverified,
    Ends,
}

fn is_unsupported(blind: &Blind) -> bool {
    matches!(blind, Blind::All(why) if why.cause == Cause::Unsupported)
}

impl Remembered {
    /// Takes its part of the room. Where that is short it goes without its message and evidence, or is not kept.
    fn fits(&mut self, room: &mut usize) -> bool {
        // Times, names of fields and of kinds.
        const FRAME: usize = 256;
        let Subject { id, pod, pv, .. } = &self.subject;
        let parts = [Some(&**id), pod.as_deref(), pv.as_deref()];
        let bare = parts.into_iter().flatten().map(written).sum::<usize>().saturating_add(FRAME);
        let whole = self.stood.as_ref().map(|stood| {
            let facts = stood.evidence.iter().map(|evidence| written(&evidence.fact).saturating_add(FRAME));
            written(&stood.message) + written(&stood.advice) + facts.sum::<usize>() + FRAME + bare
        });
        if let Some(left) = whole.and_then(|whole| room.checked_sub(whole)) {
            *room = left;
            return true;
        }
        self.stood = None;
        let left = room.checked_sub(bare);
        *room = left.unwrap_or(*room);
        left.is_some()
    }
}

/// Bytes of a text in JSON, at most.
fn written(text: &str) -> usize {
    let byte = |c: char| if c.is_control() || matches!(c, '"' | '\\') { 6 } else { c.len_utf8() };
    text.chars().map(byte).sum()
}

impl Entry {
    /// What was confirmed when the agent stopped, at `left`.
    fn restored(kind: Kind, subject: Subject, first_seen: Timestamp, stood: Stood, left: Moment, now: Moment) -> Self {
        let Stood { severity, message, evidence, advice, raised_seconds, last_raised, .. } = stood;
        // A moment that is not in this boot's past would never grow old.
        let past = |moment: Moment| Some(moment).filter(|moment| left.since(moment).is_some());
        let row = catalogue::row(kind);
        Self {
            finding: Finding { kind, severity, subject, message, evidence, advice },
            first_seen,
            confirmed: Some(past(last_raised).unwrap_or(left)),
            last_raised: past(last_raised).unwrap_or(left),
            raised_for: Duration::from_secs(raised_seconds)
                .clamp(row.confirm_after(), EXPIRES_AFTER.max(row.confirm_after())),
            quiet_for: Duration::ZERO,
            judged: now,
            known_before: true,
            raised: true,
            not_evaluated_since: Some(stood.not_evaluated_since.and_then(past).unwrap_or(left)),
            unverified: stood.unverified,
            restored: true,
        }
    }

    fn remember(&self, (kind, subject): &(Kind, Subject)) -> Remembered {
        let Finding { severity, message, evidence, advice, .. } = &self.finding;
        let stood = self.confirmed.map(|_| Stood {
            severity: *severity,
            message: message.clone(),
            evidence: evidence.clone(),
            advice: advice.clone(),
            raised_seconds: self.raised_for.as_secs(),
            last_raised: self.last_raised,
            not_evaluated_since: self.not_evaluated_since,
            unverified: self.unverified,
        });
        Remembered { kind: *kind, subject: subject.clone(), first_seen: self.first_seen, stood }
    }

    /// When it was last seen, where that is so long ago that it is unverified.
    #[must_use]
    pub fn unverified_since(&self) -> Option<Moment> {
        self.unverified.then_some(self.last_raised)
    }

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
            last_raised: at,
            raised_for: Duration::ZERO,
            quiet_for: Duration::ZERO,
            judged: at,
            known_before: first_seen < at.wall,
            raised: true,
            not_evaluated_since: None,
            unverified: false,
            restored: false,
        };
        changes.push(entry.change(Change::Suspected));
        entry.confirm(at, changes);
        entry
    }

    fn stands(&mut self, at: Moment, longest_gap: Duration, finding: Finding, changes: &mut Vec<Transition>) {
        if self.raised {
            self.raised_for = self.raised_for.saturating_add(self.passed(at, longest_gap));
        }
        let before = self.finding.severity;
        self.finding = finding;
        self.judged = at;
        self.last_raised = at;
        self.raised = true;
        self.not_evaluated_since = None;
        self.restored = false;
        self.quiet_for = Duration::ZERO;
        self.escalate();
        self.confirm(at, changes);
        if std::mem::take(&mut self.unverified) {
            changes.push(self.change(Change::Confirmed));
        }
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
    fn is_over(&mut self, at: Moment, longest_gap: Duration) -> bool {
        if !self.raised {
            self.quiet_for = self.quiet_for.saturating_add(self.passed(at, longest_gap));
        }
        self.raised = false;
        // Unverified it stays until it is raised: that it is not raised now does not say that it still was.
        self.not_evaluated_since = None;
        self.judged = at;
        self.confirmed.is_none() || self.quiet_for >= self.resolves_after()
    }

    /// How long it must be evaluated and not raised to be resolved: longer after a restart, as detectors that ask need time
    /// to find it again.
    #[must_use]
    pub fn resolves_after(&self) -> Duration {
        let of_kind = catalogue::row(self.finding.kind).clear_after();
        if self.restored { of_kind.max(FOUND_AGAIN_WITHIN) } else { of_kind }
    }

    fn end(&self) -> Change {
        if self.confirmed.is_some() { Change::Cleared } else { Change::Dropped }
    }

    fn is_not_evaluated(&mut self, at: Moment) {
        self.judged = at;
        self.not_evaluated_since.get_or_insert(at);
    }

    fn outlook(&self, at: Moment) -> Outlook {
        let blind_for = self.not_evaluated_since.map(|since| at.since(&since).unwrap_or_default());
        match blind_for {
            // What was found on a machine that has booted since was found on another one.
            _ if self.judged.boot != at.boot => Outlook::Ends,
            Some(time) if time >= EXPIRES_AFTER => Outlook::Ends,
            Some(time) if time >= UNVERIFIED_AFTER && self.confirmed.is_none() => Outlook::Ends,
            Some(time) if time >= UNVERIFIED_AFTER && !self.unverified => Outlook::Unverified,
            _ => Outlook::Stands,
        }
    }

    fn passed(&self, at: Moment, longest_gap: Duration) -> Duration {
        at.since(&self.judged).filter(|gap| *gap <= longest_gap).unwrap_or_default()
    }

    fn due_in(&self) -> Option<Duration> {
        let row = catalogue::row(self.finding.kind);
        // Time decides nothing while nobody sees.
        if self.not_evaluated_since.is_some() {
            return None;
        }
        match (self.raised, self.confirmed) {
            (true, None) => Some(row.confirm_after().saturating_sub(self.raised_for)),
            (false, Some(_)) => Some(self.resolves_after().saturating_sub(self.quiet_for)),
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
        let mut transitions = ledger.judge(at(up), judgement, LONGEST_ABSENCE);
        transitions.append(&mut ledger.pass_time(at(up)));
        transitions.into_iter().map(|t| t.change).collect()
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

    /// A ledger after a restart, by way of the state file's form.
    fn restarted(before: &Ledger, up: u64) -> Ledger {
        let json = serde_json::to_string(&before.memory()).unwrap();
        Ledger::with_memory(serde_json::from_str(&json).unwrap(), at(up))
    }

    fn confirmed(up: u64) -> Ledger {
        let mut ledger = Ledger::default();
        changes(&mut ledger, up - 30, raised(&["a"]));
        assert_eq!(changes(&mut ledger, up, raised(&["a"])), [Change::Confirmed]);
        ledger
    }

    fn only(ledger: &Ledger) -> &Entry {
        let mut entries = ledger.entries();
        let entry = entries.next().expect("one entry");
        assert!(entries.next().is_none());
        entry
    }

    /// Passes come each 10 s, and the process was stopped for 128 s.
    #[test]
    fn time_in_which_the_agent_stood_still_neither_confirms_nor_clears() {
        let mut ledger = Ledger::default();
        let mut seen = |up, ids: &[&str]| {
            let changes = ledger.judge(at(up), raised(ids), Duration::from_secs(40));
            changes.into_iter().map(|t| t.change).collect::<Vec<_>>()
        };
        assert_eq!(seen(0, &["a"]), [Change::Suspected]);
        assert_eq!(seen(128, &["a"]), [], "two evaluations are not 128 s");
        assert_eq!(seen(157, &["a"]), []);
        assert_eq!(seen(158, &["a"]), [Change::Confirmed]);
        assert_eq!(seen(168, &[]), []);
        assert_eq!(seen(296, &[]), [], "nor is it over");
        assert_eq!(seen(316, &[]), [Change::Cleared]);
    }

    #[test]
    fn a_restart_loses_neither_first_seen_nor_confirmed() {
        let before = confirmed(40);
        let mut after = restarted(&before, 50);
        assert_eq!(only(&after).finding, finding("a"), "it stands from the start");
        assert_eq!(changes(&mut after, 50, blind()), []);
        assert_eq!(changes(&mut after, 60, raised(&["a"])), [], "nothing is new");
        let entry = only(&after);
        assert_eq!((entry.first_seen, entry.confirmed.is_some()), (at(10).wall, true));
        // Ten seconds of the first life, none between, and the rest here make it critical.
        assert_eq!(changes(&mut after, 60 + 120 - 30 - 11, raised(&["a"])), []);
        assert_eq!(changes(&mut after, 60 + 120 - 30, raised(&["a"])), [Change::Escalated]);
        let mut third = restarted(&after, 160);
        assert_eq!(only(&third).finding.severity, Severity::Critical);
        assert_eq!(changes(&mut third, 170, raised(&["a"])), [], "it is as bad as before");
        assert_eq!(only(&third).finding.severity, Severity::Critical);
    }

    #[test]
    fn after_ten_minutes_without_an_agent_it_is_confirmed_again_and_keeps_since_when() {
        let mut after = restarted(&confirmed(40), 40 + 601);
        assert_eq!(after.entries().count(), 0);
        assert_eq!(changes(&mut after, 650, raised(&["a"])), [Change::Suspected]);
        assert_eq!((only(&after).first_seen, only(&after).confirmed), (at(10).wall, None));
        // Another restart within seconds does not make it confirmed.
        let mut third = restarted(&after, 660);
        assert_eq!(changes(&mut third, 660, raised(&["a"])), [Change::Suspected]);
        assert_eq!(changes(&mut third, 690, raised(&["a"])), [Change::Confirmed]);
        assert_eq!(only(&third).first_seen, at(10).wall);
        // Agents that crash before they evaluate anything do not stretch it.
        let first = restarted(&confirmed(40), 340);
        assert_eq!(restarted(&first, 640).entries().count(), 1);
        assert_eq!(restarted(&first, 641).entries().count(), 0);
    }

    #[test]
    fn what_was_only_suspected_is_new_after_a_restart() {
        let mut before = Ledger::default();
        changes(&mut before, 0, raised(&["a"]));
        changes(&mut before, 20, raised(&["a"]));
        let mut after = restarted(&before, 30);
        assert_eq!(changes(&mut after, 31, raised(&["a"])), [Change::Suspected]);
        assert_eq!(only(&after).first_seen, at(31).wall);
    }

    #[test]
    fn a_state_file_of_an_agent_before_this_one_still_has_since_when() {
        let json = r#"{"seen":[{"kind":"StalledIo","subject":{"type":"device","id":"a"},"first_seen":"2023-11-14T22:13:20Z"}]}"#;
        let mut after = Ledger::with_memory(serde_json::from_str(json).unwrap(), at(100));
        assert_eq!(changes(&mut after, 110, raised(&["a"])), [Change::Suspected]);
        assert_eq!((only(&after).first_seen, only(&after).confirmed), (at(0).wall, None));
    }

    #[test]
    fn what_stood_before_a_restart_takes_longer_to_resolve_until_it_is_raised_again() {
        let before = confirmed(40);
        assert_eq!(only(&before).resolves_after(), Duration::from_secs(20));
        let mut after = restarted(&before, 50);
        assert_eq!(only(&after).resolves_after(), FOUND_AGAIN_WITHIN);
        changes(&mut after, 60, raised(&["a"]));
        assert_eq!(only(&after).resolves_after(), Duration::from_secs(20));
    }

    #[test]
    fn what_must_be_asked_for_again_has_stood_since_before_the_restart() {
        let mut after = restarted(&confirmed(40), 100);
        for up in (100..160).step_by(10) {
            assert_eq!(changes(&mut after, up, raised(&[])), [], "its detector asks, and raises nothing yet");
        }
        assert_eq!(changes(&mut after, 160, raised(&["a"])), []);
        assert_eq!(only(&after).first_seen, at(10).wall);
        // From then on its kind's own quiet time counts.
        assert_eq!(changes(&mut after, 170, raised(&[])), []);
        assert_eq!(changes(&mut after, 190, raised(&[])), [Change::Cleared]);
        changes(&mut after, 200, raised(&["a"]));
        assert_eq!(only(&after).first_seen, at(200).wall, "another of the same subject, later, is new");
    }

    #[test]
    fn what_was_over_while_no_agent_ran_clears_when_there_was_time_to_find_it_again() {
        let mut after = restarted(&confirmed(40), 100);
        assert_eq!(changes(&mut after, 100, raised(&[])), []);
        assert_eq!(changes(&mut after, 270, raised(&[])), []);
        assert_eq!(changes(&mut after, 280, raised(&[])), [Change::Cleared]);
        assert_eq!(after.memory().seen, []);
    }

    #[test]
    fn what_can_no_longer_be_evaluated_is_unverified_after_a_quarter_of_an_hour_and_dropped_after_a_day() {
        let mut ledger = confirmed(40);
        assert_eq!(changes(&mut ledger, 50, blind()), []);
        assert_eq!(changes(&mut ledger, 50 + 899, blind()), []);
        assert_eq!(only(&ledger).unverified_since(), None);
        assert_eq!(changes(&mut ledger, 50 + 900, blind()), [Change::Unverified]);
        assert_eq!(only(&ledger).unverified_since(), Some(at(40)), "when it was last seen");
        assert_eq!(changes(&mut ledger, 50 + 86_399, blind()), []);
        assert_eq!(changes(&mut ledger, 50 + 86_400, blind()), [Change::Expired]);
        assert_eq!(ledger.entries().count(), 0);
        assert_eq!(ledger.memory().seen, []);
    }

    #[test]
    fn time_passes_also_where_no_detector_runs_any_more() {
        let mut ledger = confirmed(40);
        changes(&mut ledger, 50, blind());
        let passed =
            |ledger: &mut Ledger, up| ledger.pass_time(at(up)).into_iter().map(|t| t.change).collect::<Vec<_>>();
        assert_eq!(passed(&mut ledger, 949), []);
        assert_eq!(passed(&mut ledger, 950), [Change::Unverified]);
        assert_eq!(passed(&mut ledger, 960), [], "once");
        assert_eq!(passed(&mut ledger, 86_450), [Change::Expired]);
    }

    #[test]
    fn a_suspicion_that_can_no_longer_be_evaluated_does_not_stand_for_ever() {
        let mut ledger = Ledger::default();
        changes(&mut ledger, 0, raised(&["a"]));
        changes(&mut ledger, 10, blind());
        assert_eq!(changes(&mut ledger, 909, blind()), []);
        assert_eq!(changes(&mut ledger, 910, blind()), [Change::Dropped]);
    }

    #[test]
    fn what_is_evaluated_now_and_then_is_never_unverified() {
        let mut ledger = confirmed(40);
        for up in (50..20_000).step_by(10) {
            let judgement = if up % 800 == 0 { raised(&["a"]) } else { blind() };
            let seen = changes(&mut ledger, up, judgement);
            assert!(!seen.contains(&Change::Unverified) && !seen.contains(&Change::Expired), "{up}: {seen:?}");
        }
    }

    #[test]
    fn unverified_ends_when_it_is_raised_again_or_resolved() {
        let unverified = || {
            let mut ledger = confirmed(40);
            changes(&mut ledger, 50, blind());
            assert_eq!(changes(&mut ledger, 1000, blind()), [Change::Unverified]);
            ledger
        };
        let mut ledger = unverified();
        assert_eq!(changes(&mut ledger, 1010, raised(&["a"])), [Change::Confirmed]);
        let entry = only(&ledger);
        assert_eq!((entry.unverified_since(), entry.confirmed, entry.first_seen), (None, Some(at(40)), at(10).wall));

        let mut ledger = unverified();
        assert_eq!(changes(&mut ledger, 1010, raised(&[])), []);
        assert!(only(&ledger).unverified_since().is_some(), "that it is not raised does not confirm it");
        assert_eq!(changes(&mut ledger, 1029, raised(&[])), []);
        assert_eq!(changes(&mut ledger, 1030, raised(&[])), [Change::Cleared]);
    }

    #[test]
    fn a_restart_is_time_that_is_not_evaluated_like_any_other() {
        let mut before = confirmed(40);
        changes(&mut before, 50, blind());
        let mut after = restarted(&before, 500);
        assert_eq!(changes(&mut after, 949, blind()), []);
        assert_eq!(changes(&mut after, 950, blind()), [Change::Unverified]);
        let mut third = restarted(&after, 960);
        assert_eq!(only(&third).unverified_since(), Some(at(40)));
        assert_eq!(changes(&mut third, 970, blind()), [], "it was unverified before");
        for up in (1000..86_450).step_by(500) {
            assert_eq!(changes(&mut third, up, blind()), []);
        }
        assert_eq!(changes(&mut third, 86_450, blind()), [Change::Expired]);
    }

    #[test]
    fn a_source_that_this_agent_was_started_without_is_not_waited_for() {
        let unsupported = || Judgement::blind(KIND, &Unknown::new(Cause::Unsupported, "no"));
        let mut after = restarted(&confirmed(40), 50);
        assert_eq!(changes(&mut after, 60, unsupported()), [Change::Expired]);
        // Only the start of an agent takes a source away for good.
        let mut later = restarted(&confirmed(40), 50);
        changes(&mut later, 60, blind());
        assert_eq!(changes(&mut later, 60 + 180, unsupported()), []);
        let mut running = confirmed(40);
        assert_eq!(changes(&mut running, 50, unsupported()), []);
        // One subject that cannot be evaluated says nothing of the profile.
        let mut part = restarted(&confirmed(40), 50);
        let mut judgement = raised(&[]);
        judgement.blind_to(subject("a"), &Unknown::new(Cause::Unsupported, "no"));
        assert_eq!(changes(&mut part, 60, judgement), []);
    }

    #[test]
    fn what_was_found_before_a_boot_does_not_stand_after_it() {
        let mut ledger = confirmed(40);
        changes(&mut ledger, 50, raised(&["a", "b"]));
        let boot = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        let next = Moment { boot, ..at(60) };
        let ends: Vec<_> = ledger.pass_time(next).into_iter().map(|t| t.change).collect();
        assert_eq!(ends, [Change::Expired, Change::Dropped]);
        assert_eq!(Ledger::with_memory(confirmed(40).memory(), next).entries().count(), 0);
    }

    #[test]
    fn the_findings_are_the_same_while_only_their_figures_move() {
        let mut ledger = confirmed(40);
        let before = ledger.memory();
        let mut moved = raised(&["a"]);
        moved.raised[0].message = "12 requests".into();
        changes(&mut ledger, 50, moved);
        assert_ne!(ledger.memory(), before);
        assert!(ledger.memory().has_same_findings(&before));
        let mut worse = ledger.memory();
        worse.seen[0].stood.as_mut().unwrap().severity = Severity::Critical;
        assert!(!worse.has_same_findings(&before), "an escalation is a change");
        changes(&mut ledger, 60, blind());
        assert!(ledger.memory().has_same_findings(&before), "trouble that comes and goes writes no file");
        changes(&mut ledger, 960, blind());
        assert!(!ledger.memory().has_same_findings(&before), "unverified is a change");
        changes(&mut ledger, 970, raised(&["a", "b"]));
        assert!(ledger.memory().has_same_findings(&before), "a suspicion is not kept");
        changes(&mut ledger, 1000, raised(&["a", "b"]));
        assert!(!ledger.memory().has_same_findings(&before));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_worst_is_kept() {
        let mut ledger = Ledger::default();
        let long = |n: usize| format!("{n:04}{}", "\u{1}".repeat(4000));
        let ids: Vec<String> = (0..MOST_SUBJECTS).map(long).collect();
        let mut all: Vec<&str> = ids.iter().map(String::as_str).collect();
        let worst = |ids: &[&str]| {
            let mut judgement = raised(ids);
            judgement.raised.last_mut().unwrap().severity = Severity::Critical;
            judgement
        };
        changes(&mut ledger, 0, worst(&all));
        changes(&mut ledger, 30, worst(&all));
        let memory = ledger.memory();
        let written = serde_json::to_vec(&memory).unwrap().len();
        assert!(written <= MOST_REMEMBERED && written > MOST_REMEMBERED / 2, "{written}");
        let last = all.pop().unwrap();
        assert!(memory.seen.iter().any(|seen| seen.subject.id == last && seen.stood.is_some()));
    }

    #[test]
    fn a_state_file_that_lies_about_times_neither_panics_nor_stands_for_ever() {
        let mut memory = confirmed(40).memory();
        let stood = memory.seen[0].stood.as_mut().unwrap();
        stood.raised_seconds = u64::MAX;
        stood.last_raised = at(1_000_000);
        stood.not_evaluated_since =
            Some(Moment { boot: "00000000-0000-4000-8000-000000000001".parse().unwrap(), ..at(0) });
        let mut after = Ledger::with_memory(memory, at(50));
        assert_eq!(changes(&mut after, 60, blind()), []);
        assert_eq!(changes(&mut after, 940, blind()), [Change::Unverified]);
        assert_eq!(only(&after).unverified_since(), Some(at(40)));
        assert_eq!(changes(&mut after, 950, raised(&["a"])), [Change::Confirmed, Change::Escalated]);
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
