//! Findings over time: suspected, confirmed, unverified, resolved.
//!
//! A finding is suspected when a detector raises it, confirmed when it has stood for its kind's delay, and
//! resolved when it has not been raised for its kind's quiet time. Only evaluations that can see its object
//! count: time that no evaluation covers neither confirms nor resolves. It does not last for ever either: what was confirmed is unverified
//! after [`UNVERIFIED_AFTER`] and dropped after [`EXPIRES_AFTER`]. A restart of the agent is such time, too.

mod admission;
mod entry;
mod memory;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::facts::{Cause, NodeTime, Tri, Unknown};
use crate::finding::{Above, Coverage, Finding, FindingKey, Kind, KindEvaluation, Object, Share};
use admission::{Candidate, LeftOut};
use entry::{Follows, Outlook};

pub use admission::{MAX_OBJECTS, MAX_PER_NAMESPACE, RESERVED};
pub use entry::Entry;
pub use memory::{LedgerState, Remembered, Stood};

/// What stood before a restart is found again within so long: a detector that asks lets a contradiction stand for half a
/// minute, asks, and wants what it heard to stand for as long. Before, that it is not raised does not say that it is over.
pub const RESTART_GRACE: Duration = Duration::from_secs(180);

/// After an agent was away for longer than this, what was confirmed must be confirmed again.
const MAX_ABSENCE: Duration = Duration::from_secs(600);

/// Findings above each other, at most.
const MAX_DEPTH: usize = 4;

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
    Resolved,
    /// It was a suspicion only, and is over.
    Dropped,
    /// It was confirmed, and could not be evaluated for [`UNVERIFIED_AFTER`].
    Unverified,
    /// It was confirmed, and is dropped without being resolved: it could not be evaluated for [`EXPIRES_AFTER`], another
    /// boot began, or this profile has its source no more.
    Expired,
    /// More severe or newer objects of its kind took its place: it may still be so.
    Displaced,
}

impl Change {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Suspected,
        Self::Confirmed,
        Self::Escalated,
        Self::Resolved,
        Self::Dropped,
        Self::Unverified,
        Self::Expired,
        Self::Displaced,
    ];

    /// Its name in metrics and the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Suspected => "suspected",
            Self::Confirmed => "confirmed",
            Self::Escalated => "escalated",
            Self::Resolved => "resolved",
            Self::Dropped => "dropped",
            Self::Unverified => "unverified",
            Self::Expired => "expired",
            Self::Displaced => "displaced",
        }
    }
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
    /// The last evaluation that raised it.
    pub last_raised: NodeTime,
}

/// The findings that stand.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<(Kind, Object), Entry>,
    remembered: BTreeMap<(Kind, Object), Timestamp>,
    /// When this life's first evaluation was.
    begun: Option<NodeTime>,
    /// The last evaluation, of this life or of the one before.
    last: Option<NodeTime>,
    left_out: BTreeMap<Kind, LeftOut>,
}

impl Ledger {
    /// A ledger that goes on where the agent was stopped. What was confirmed stands until it is evaluated; after an agent
    /// was away for long, only since when it was first seen is kept.
    #[must_use]
    pub fn with_memory(memory: LedgerState, now: NodeTime) -> Self {
        let mut ledger = Self { last: memory.at, ..Self::default() };
        let away = memory.at.and_then(|at| now.since(&at));
        let recent = memory.at.filter(|_| away.is_some_and(|away| away <= MAX_ABSENCE));
        let mut standing: BTreeMap<Kind, usize> = BTreeMap::new();
        let mut seen = memory.seen;
        // The worst first: a file that another version wrote may hold more than are kept here.
        seen.sort_by_key(|seen| std::cmp::Reverse(seen.stood.as_ref().map(|stood| stood.severity)));
        for Remembered { kind, object, first_seen, stood } in seen {
            let count = standing.entry(kind).or_default();
            let is_machine = Share::of(&object, None) == Share::Machine;
            match (recent, stood) {
                (Some(left), Some(stood)) if *count < MAX_OBJECTS || is_machine => {
                    *count += usize::from(!is_machine);
                    let entry = Entry::restored(kind, object.clone(), first_seen, stood, left, now);
                    ledger.entries.insert((kind, object), entry);
                }
                _ => {
                    ledger.remembered.insert((kind, object), first_seen);
                }
            }
        }
        ledger
    }

    /// What must be kept over a restart. What was remembered and has not been evaluated yet is kept as well. Where that is
    /// too much, the worst is kept.
    #[must_use]
    pub fn memory(&self) -> LedgerState {
        let standing = self.entries.iter().filter(|(_, entry)| entry.confirmed.is_some() || entry.known_before);
        let mut seen: BTreeMap<_, _> =
            standing.map(|(key, entry)| (key, entry.remember(key, self.shown_under(entry)))).collect();
        for (key, first_seen) in &self.remembered {
            let (kind, object) = key.clone();
            let known = Remembered { kind, object, first_seen: *first_seen, stood: None };
            seen.entry(key).or_insert(known);
        }
        let seen = memory::bounded(seen.into_values().collect());
        LedgerState { seen, at: self.last, ..LedgerState::default() }
    }

    /// Everything that is suspected, confirmed or unverified.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The finding under which this one is shown and published: one that stands, is known to stand, and is no less severe.
    #[must_use]
    pub fn shown_under(&self, entry: &Entry) -> Option<FindingKey> {
        let first = self.above(entry)?;
        let mut above = first;
        // What is shown under itself, over however many others, stands by itself: else it would be published nowhere.
        for _ in 0..MAX_DEPTH {
            match self.above(above) {
                Some(next) => above = next,
                None => {
                    let Finding { kind, object, .. } = &first.finding;
                    return Some(FindingKey { kind: *kind, object: object.clone() });
                }
            }
        }
        None
    }

    fn above<'a>(&'a self, entry: &'a Entry) -> Option<&'a Entry> {
        let holds = |above: &&Entry| {
            let is_other = (above.finding.kind, &above.finding.object) != (entry.finding.kind, &entry.finding.object);
            is_other && above.is_shown() && above.finding.severity >= entry.finding.severity
        };
        let follows = entry.shown_under.as_ref().and_then(|key| self.entry(key.kind, &key.object)).filter(holds);
        follows.or_else(|| {
            let has_come = |above: &&Entry| holds(above) && !above.is_ahead;
            entry.may_follow.iter().find_map(|Above { kind, object, only_if_worse }| {
                let counts = |above: &&Entry| {
                    has_come(above) && !(*only_if_worse && above.finding.severity == entry.finding.severity)
                };
                match object {
                    Some(object) => self.entry(*kind, object).filter(counts),
                    None => {
                        let of_kind = self.entries.iter().filter(|((k, _), _)| k == kind).map(|(_, above)| above);
                        of_kind.filter(counts).max_by_key(|above| above.finding.severity)
                    }
                }
            })
        })
    }

    fn entry(&self, kind: Kind, object: &Object) -> Option<&Entry> {
        self.entries.get(&(kind, object.clone()))
    }

    /// How many objects of a kind were omitted (limit reached), by owner.
    pub fn left_out(&self, kind: Kind) -> impl Iterator<Item = (&Share, usize)> {
        self.left_out.get(&kind).into_iter().flat_map(|left| &left.by_share).map(|(share, count)| (share, *count))
    }

    /// Takes in what one detector says of one kind. A gap since the evaluation before that is longer than this is time that no
    /// evaluation covers, whatever held up the agent. The namespace of an object's pod is asked for where objects are too many.
    pub fn update(
        &mut self,
        at: NodeTime,
        evaluation: KindEvaluation,
        longest_gap: Duration,
        namespace: &dyn Fn(&Object) -> Option<String>,
    ) -> Vec<Transition> {
        let longest_gap = longest_gap.min(MAX_ABSENCE);
        let KindEvaluation {
            kind,
            raised,
            coverage,
            severity_unknown,
            awaited,
            shown_under,
            follows,
            ahead,
            stays_as_severe,
            ..
        } = evaluation;
        let mut links = Links { shown_under, follows, ahead };
        let mut changes = Vec::new();
        let mut unseen: BTreeMap<Object, Finding> = BTreeMap::new();
        for finding in raised {
            unseen.entry(finding.object.clone()).or_insert(finding);
        }
        let begun = *self.begun.get_or_insert(at);
        self.last = Some(at);
        let young = at.since(&begun).is_some_and(|age| age < RESTART_GRACE);
        let mut over = Vec::new();
        for ((_, object), entry) in self.entries.iter_mut().filter(|((k, _), _)| *k == kind) {
            if let Some(finding) = unseen.remove(object) {
                entry.follows(links.of(object));
                entry.awaits_answer = awaited.contains_key(object);
                entry.escalates = !stays_as_severe.contains(object);
                entry.stands(at, longest_gap, (finding, severity_unknown.get(object)), &mut changes);
            } else if coverage.why_not(object).is_some() {
                // An agent that was started without this source will not have it later.
                if entry.restored && young && is_unsupported(&coverage) {
                    over.push((object.clone(), Change::Expired));
                }
                entry.is_not_evaluated(at);
            } else if entry.is_over(at, longest_gap) {
                over.push((object.clone(), entry.end()));
            }
        }
        for (object, change) in over {
            if let Some(entry) = self.entries.remove(&(kind, object.clone())) {
                changes.push(entry.change(change));
                self.ends(kind, &object);
            }
        }
        // What could not be evaluated was not counted either: what was left out before still is.
        if coverage.why_nothing().is_none() {
            self.admit((at, kind), (unseen, links, &awaited), namespace, &mut changes);
        }
        if !young {
            self.remembered.retain(|(k, object), _| *k != kind || coverage.why_not(object).is_some());
        }
        changes
    }

    /// Takes in that time has passed, after all evaluations of this moment: what can no longer be evaluated does not
    /// stand for ever.
    pub fn cycle_time(&mut self, at: NodeTime) -> Vec<Transition> {
        let mut changes = Vec::new();
        let mut ended = Vec::new();
        self.entries.retain(|key, entry| match entry.outlook(at) {
            Outlook::Stands => true,
            Outlook::Unverified => {
                entry.unverified = true;
                changes.push(entry.change(Change::Unverified));
                true
            }
            Outlook::Ends => {
                let change = if entry.confirmed.is_some() { Change::Expired } else { Change::Dropped };
                changes.push(entry.change(change));
                ended.push(key.clone());
                false
            }
        });
        ended.iter().for_each(|(kind, object)| self.ends(*kind, object));
        if self.begun.and_then(|begun| at.since(&begun)).is_some_and(|age| age >= EXPIRES_AFTER) {
            self.remembered.clear();
        }
        changes
    }

    /// What followed from this finding stands by itself from now on.
    fn ends(&mut self, kind: Kind, object: &Object) {
        for entry in self.entries.values_mut() {
            entry.shown_under.take_if(|above| above.kind == kind && above.object == *object);
        }
    }

    fn admit(
        &mut self,
        (at, kind): (NodeTime, Kind),
        (mut new, mut links, awaited): New<'_>,
        namespace: &dyn Fn(&Object) -> Option<String>,
        changes: &mut Vec<Transition>,
    ) {
        let before = self.left_out.remove(&kind).unwrap_or_default();
        if new.is_empty() {
            return;
        }
        let mut displaced = Vec::new();
        let of_kind = || self.entries.iter().filter(|((k, _), _)| *k == kind);
        // A few fit whosever they are.
        if of_kind().count().saturating_add(new.len()) > MAX_PER_NAMESPACE {
            let share = |object: &Object| Share::of(object, namespace(object).as_deref());
            let standing = of_kind().map(|((_, object), entry)| Candidate {
                object,
                severity: entry.finding.severity,
                since: entry.first_seen,
                share: share(object),
                stands: true,
            });
            let raised = new.iter().map(|(object, finding)| Candidate {
                object,
                severity: finding.severity,
                since: before.raised_since(object, at.wall),
                share: share(object),
                stands: false,
            });
            let (kept, left_out) = admission::admit(standing.chain(raised).collect(), &before, at.wall);
            let kept: BTreeSet<&Object> = kept.into_iter().collect();
            displaced.extend(of_kind().map(|((_, object), _)| object).filter(|object| !kept.contains(object)).cloned());
            let fits: BTreeSet<Object> = new.keys().filter(|object| kept.contains(object)).cloned().collect();
            new.retain(|object, _| fits.contains(object));
            if !left_out.by_share.is_empty() {
                self.left_out.insert(kind, left_out);
            }
        }
        for object in displaced {
            if let Some(entry) = self.entries.remove(&(kind, object)) {
                changes.push(entry.change(Change::Displaced));
            }
        }
        for (object, finding) in new {
            let follows = links.of(&object);
            let key = (kind, object);
            let known = self.remembered.remove(&key).or_else(|| before.known_since(&key.1));
            let awaits_answer = awaited.contains_key(&key.1);
            let mut entry = Entry::begin(at, known.unwrap_or(at.wall), finding, awaits_answer, changes);
            entry.follows(follows);
            self.entries.insert(key, entry);
        }
    }

    /// For each kind with a suspicion or an end that time will decide: how long until then, if nothing changes.
    pub fn pending(&self) -> impl Iterator<Item = (Kind, Duration)> {
        self.entries.iter().filter_map(|((kind, _), entry)| Some((*kind, entry.due_in()?)))
    }
}

/// What is raised for the first time, what each follows from, and which of it rests on a lookup without an answer.
type New<'a> = (BTreeMap<Object, Finding>, Links, &'a BTreeMap<Object, Unknown>);

/// What the findings of one evaluation follow from.
struct Links {
    shown_under: BTreeMap<Object, Tri<FindingKey, ()>>,
    follows: BTreeMap<Object, Vec<Above>>,
    ahead: BTreeSet<Object>,
}

impl Links {
    fn of(&mut self, object: &Object) -> Follows {
        Follows {
            under: self.shown_under.remove(object).unwrap_or(Tri::No(())),
            may_follow: self.follows.remove(object).unwrap_or_default(),
            is_ahead: self.ahead.contains(object),
        }
    }
}

fn is_unsupported(coverage: &Coverage) -> bool {
    coverage.why_nothing().is_some_and(|why| why.cause == Cause::Unsupported)
}
