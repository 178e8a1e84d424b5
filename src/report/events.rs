//! Events on the Node, and on the pod concerned where its owner needs to know: what to write, and when.
//!
//! One event for each subject when it is confirmed, when it becomes worse and when it is over; again before the API
//! server forgets it (an hour) while it stands. What stands is compared with what was told, so a pass that was
//! missed loses nothing. Of what can no longer be evaluated nothing is written until it can. No I/O: the agent sends what [`Recorder::plan`] hands out and says what became of it.

mod body;
mod budget;
#[cfg(test)]
mod tests;
mod topic;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::jitter::{back_off, fingerprint};
use super::{FindingState, Report, ReportedFinding, State, text};
use crate::catalogue;
use crate::facts::Moment;
use crate::finding::{Kind, Severity, Subject};
use crate::wording;

pub use body::CONTROLLER;
pub(super) use body::about;
use body::{Content, Say};
use budget::Budget;
use topic::Topic;

/// Time between two summaries of what was left out.
const SUMMARY_EVERY: Duration = Duration::from_secs(600);
/// An answer that has not come by then will not.
const LOST_AFTER: Duration = Duration::from_secs(120);
/// Subjects that are remembered over a restart.
const MOST_REMEMBERED: usize = 100;

/// Whom events are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regarding {
    /// The Node's name.
    pub node: String,
    /// Its UID; while it is not known nothing is sent, and nothing is lost.
    pub node_uid: Option<String>,
    /// `reportingInstance`
    pub instance: String,
}

/// The object that an event is written on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum On {
    /// The Node.
    Node,
    /// The pod that the finding is about.
    Pod,
}

impl On {
    fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Pod => "pod",
        }
    }
}

/// What is told: one finding, on one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its subject.
    pub subject: Subject,
    /// Where it is written.
    pub on: On,
}

/// Which event it is, for [`Recorder::sent`] and [`Recorder::refused`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKey {
    /// One of a finding.
    Finding(Key),
    /// The summary of what was left out.
    Suppressed,
}

/// An event to create.
#[derive(Clone, Debug, PartialEq)]
pub struct EventToSend {
    /// Which one it is.
    pub key: EventKey,
    /// Where to POST it.
    pub path: String,
    /// The object.
    pub body: Value,
}

/// A pod as an event names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRef {
    namespace: String,
    name: String,
    uid: String,
}

/// What is kept over a restart, so that nothing is told twice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The Node that was written on.
    pub node_uid: Option<String>,
    /// What was told and has not been told to be over.
    pub told: Vec<Remembered>,
}

/// One finding that was told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    /// Which one, and where.
    #[serde(flatten)]
    pub key: Key,
    /// How bad it was said to be.
    pub severity: Severity,
    /// When it was told.
    pub at: Timestamp,
    /// Since when it stands.
    pub since: Timestamp,
    /// The pod it was told to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
}

/// What events came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Created.
    pub sent: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Kept back for there being too many.
    pub suppressed: u64,
}

/// What was told when, and what may be told now.
#[derive(Debug)]
pub struct Recorder {
    topics: BTreeMap<Key, Topic>,
    node_uid: Option<String>,
    budget: Budget,
    left_out: LeftOut,
    counts: Counts,
}

/// Events that were kept back and not yet told of.
#[derive(Debug, Default)]
struct LeftOut {
    by_kind: BTreeMap<Kind, u64>,
    since: Option<Timestamp>,
    told: Option<Moment>,
    /// What the summary that is under way says.
    sending: BTreeMap<Kind, u64>,
}

impl Recorder {
    /// A recorder that has told nothing.
    #[must_use]
    pub fn new(now: Moment) -> Self {
        Self::with_memory(Memory::default(), now)
    }

    /// A recorder that knows what was told before the agent was started again.
    #[must_use]
    pub fn with_memory(memory: Memory, now: Moment) -> Self {
        let topics = memory.told.into_iter().take(MOST_REMEMBERED);
        Self {
            topics: topics.map(|told| (told.key.clone(), Topic::remembered(told, now))).collect(),
            node_uid: memory.node_uid,
            budget: Budget::new(now),
            left_out: LeftOut::default(),
            counts: Counts::default(),
        }
    }

    /// What must be kept over a restart.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let told = self.topics.iter().filter_map(|(key, topic)| topic.remember(key));
        Memory { node_uid: self.node_uid.clone(), told: told.take(MOST_REMEMBERED).collect() }
    }

    /// What events came to so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The events to create now. To be called on every pass; each event is handed out once, until it is
    /// [`sent`](Self::sent), [`refused`](Self::refused), or has not been heard of for two minutes.
    pub fn plan(&mut self, report: &Report, who: &Regarding, now: Moment) -> Vec<EventToSend> {
        self.meet(who);
        let standing: BTreeMap<Key, &ReportedFinding> = report.findings.iter().flat_map(each_target).collect();
        for (key, finding) in &standing {
            let topic = self.topics.entry(key.clone()).or_insert_with(|| Topic::new(finding));
            topic.stands(key, finding, now);
        }
        self.let_go(report, &standing, now);
        match who.node_uid.as_deref() {
            Some(uid) => self.dispatch(&standing, who, uid, now),
            None => Vec::new(),
        }
    }

    /// The event was created, or is there already (409).
    pub fn sent(&mut self, key: &EventKey, now: Moment) {
        self.counts.sent += 1;
        match key {
            EventKey::Suppressed => self.left_out.sending.clear(),
            EventKey::Finding(key) => self.settled(key, now),
        }
    }

    /// The event was not created. It is tried again later, unless the pod that it is on cannot be written about.
    pub fn refused(&mut self, key: &EventKey, code: Option<u16>, retry_after: Option<Duration>, now: Moment) {
        self.counts.failed += 1;
        match key {
            EventKey::Suppressed => self.left_out.take_back(),
            // Its namespace is gone, is going, or is not to be written to.
            EventKey::Finding(key) if key.on == On::Pod && matches!(code, Some(403 | 404)) => self.settled(key, now),
            EventKey::Finding(key) => {
                if let Some(wish) = self.topics.get_mut(key).and_then(|topic| topic.wish.as_mut()) {
                    wish.tries = wish.tries.saturating_add(1);
                    wish.under_way = None;
                    let seed = fingerprint(&[&key.subject.id, key.kind.name()]);
                    wish.not_before = now.plus(back_off(wish.tries, retry_after, seed));
                }
            }
        }
    }

    /// A finding is dropped without being resolved: no event says that it is over.
    pub fn forget(&mut self, kind: Kind, subject: &Subject) {
        for on in [On::Node, On::Pod] {
            self.topics.remove(&Key { kind, subject: subject.clone(), on });
        }
    }

    fn settled(&mut self, key: &Key, now: Moment) {
        if self.topics.get_mut(key).is_some_and(|topic| topic.was_told(now)) {
            self.topics.remove(key);
        }
    }

    /// Another Node under the same name has been told nothing.
    fn meet(&mut self, who: &Regarding) {
        let Some(uid) = &who.node_uid else { return };
        if self.node_uid.as_ref().is_some_and(|known| known != uid) {
            self.topics.retain(|key, _| key.on == On::Pod);
        }
        self.node_uid = Some(uid.clone());
    }

    /// What does not stand any more is told to be over, if it was told at all.
    fn let_go(&mut self, report: &Report, standing: &BTreeMap<Key, &ReportedFinding>, now: Moment) {
        let present: BTreeSet<_> = report.findings.iter().map(|finding| (finding.kind, &finding.subject)).collect();
        self.topics.retain(|key, topic| {
            if standing.contains_key(key) {
                return true;
            }
            if present.contains(&(key.kind, &key.subject)) {
                return topic.rests();
            }
            topic.ends(key, can_be_seen(report, key.kind), now)
        });
    }

    fn dispatch(
        &mut self,
        standing: &BTreeMap<Key, &ReportedFinding>,
        who: &Regarding,
        node_uid: &str,
        now: Moment,
    ) -> Vec<EventToSend> {
        let mut out = Vec::new();
        if self.left_out.is_due(now) && self.budget.take(now) {
            out.push(body::event(self.left_out.content(now), who, node_uid));
        }
        for key in self.ready(standing, now) {
            let Some(topic) = self.topics.get_mut(&key) else { continue };
            if self.budget.take(now) {
                let content = topic.content(&key, standing.get(&key).copied(), now);
                out.extend(content.map(|content| body::event(content, who, node_uid)));
            } else if topic.is_kept_back() {
                self.left_out.add(key.kind, now);
                self.counts.suppressed += 1;
            }
        }
        out
    }

    /// What waits to be told, the most urgent first.
    fn ready(&self, standing: &BTreeMap<Key, &ReportedFinding>, now: Moment) -> Vec<Key> {
        let ready = self.topics.iter().filter_map(|(key, topic)| {
            let wish = topic.wish.as_ref().filter(|wish| wish.is_ready(now))?;
            let severity = standing.get(key).map(|finding| finding.severity);
            // What is new before what is only repeated or over, and of it the worst.
            Some(((wish.say >= Say::Still, std::cmp::Reverse(severity), wish.stamp), key))
        });
        let mut ready: Vec<_> = ready.collect();
        ready.sort();
        ready.into_iter().map(|(_, key)| key.clone()).collect()
    }
}

impl LeftOut {
    fn add(&mut self, kind: Kind, now: Moment) {
        self.since.get_or_insert(now.wall);
        *self.by_kind.entry(kind).or_default() += 1;
    }

    fn is_due(&self, now: Moment) -> bool {
        let recent = self.told.is_some_and(|told| now.since(&told).is_none_or(|age| age < SUMMARY_EVERY));
        !self.by_kind.is_empty() && !recent
    }

    fn content(&mut self, now: Moment) -> Content<'static> {
        self.told = Some(now);
        let since = self.since.take().unwrap_or(now.wall);
        // What became of the last one is not known: then it is not counted twice.
        self.sending = std::mem::take(&mut self.by_kind);
        let all: u64 = self.sending.values().sum();
        let each: Vec<_> = self.sending.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let (all, since, each) = (wording::of(all, "event was", "events were"), text::time(since), each.join(", "));
        let note = format!(
            "{all} kept back since {since}, as this node may write {} at once and {} an hour: {each}. They are \
             written later if they still stand; barnacle check has all findings.",
            budget::BURST,
            budget::PER_HOUR,
        );
        let reason = "EventsSuppressed";
        let (on, related) = (None, None);
        Content {
            key: EventKey::Suppressed,
            say: Say::Still,
            reason,
            note,
            on,
            related,
            stamp: now.wall,
            named: now.wall,
        }
    }

    fn take_back(&mut self) {
        for (kind, count) in std::mem::take(&mut self.sending) {
            *self.by_kind.entry(kind).or_default() += count;
        }
    }
}

/// The objects that a finding is told on, if it is to be told.
fn each_target(finding: &ReportedFinding) -> impl Iterator<Item = (Key, &ReportedFinding)> {
    let told = finding.state() == FindingState::Confirmed && finding.severity >= Severity::Warning;
    let pod = catalogue::concerns_pod_owner(finding.kind) && PodRef::of(finding).is_some();
    let key = |on| Key { kind: finding.kind, subject: finding.subject.clone(), on };
    let targets = [told.then_some(On::Node), (told && pod).then_some(On::Pod)];
    targets.into_iter().flatten().map(move |on| (key(on), finding))
}

/// Whether a kind's judge has looked and sees: only then does a subject that is not there say something.
fn can_be_seen(report: &Report, kind: Kind) -> bool {
    let state = report.kinds.iter().find(|state| state.kind == kind);
    state.is_some_and(|s| !s.blind && !s.not_run && !matches!(s.state, State::NeedsTime | State::NotAsked))
}
