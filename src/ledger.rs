//! Findings over time: suspected, confirmed, unverified, cleared.
//!
//! A finding is suspected when a judge raises it, confirmed when it has stood for its kind's delay, and
//! cleared when it has not been raised for its kind's quiet time. Only judgements that can see its subject
//! count: time that no evaluation covers neither confirms nor clears. It does not last for ever either: what was confirmed is unverified
//! after [`UNVERIFIED_AFTER`] and dropped after [`EXPIRES_AFTER`]. A restart of the agent is such time, too.

mod entry;
mod memory;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::facts::{Cause, Moment};
use crate::finding::{Blind, Finding, Judgement, Kind, Subject};
use entry::Outlook;

pub use entry::Entry;
pub use memory::{Memory, Remembered, Stood};

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
        let seen = memory::bounded(seen.into_values().collect());
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
        let Judgement { kind, raised, blind, severity_unknown, .. } = judgement;
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
                entry.stands(at, longest_gap, (finding, severity_unknown.get(subject)), &mut changes);
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

fn is_unsupported(blind: &Blind) -> bool {
    matches!(blind, Blind::All(why) if why.cause == Cause::Unsupported)
}
