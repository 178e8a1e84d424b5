//! Events on the Node, and on the pod concerned where its owner needs to know: what to write, and when.
//!
//! One event for each object when it is confirmed, when it becomes worse and when it is over; again before the API
//! server forgets it (an hour) while it stands. What stands is compared with what was published, so a cycle that was
//! missed loses nothing. Of what can no longer be evaluated nothing is written until it can. No I/O: the agent sends what [`Recorder::plan`] hands out and says what became of it.

mod body;
mod event_budget;
mod event_stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FindingState, Report, ReportedFinding, State, text};
use crate::catalogue;
use crate::facts::NodeTime;
use crate::finding::{Kind, Object, Severity, Share};
use crate::pacing::{after_refusals, fingerprint};
use crate::wording;

pub use body::CONTROLLER;
pub(super) use body::beside;
use body::{Content, Say};
use event_budget::{Class, EventBudget, HOUR};
use event_stream::EventStream;

/// Time between two summaries of what was left out.
const SUMMARY_EVERY: Duration = Duration::from_secs(600);
/// An answer that has not come by then will not.
const LOST_AFTER: Duration = Duration::from_secs(120);
/// Names in a summary; the rest is counted together.
const MAX_NAMED: usize = 6;
/// Objects that are remembered over a restart, the worst and the latest of them.
const MAX_REMEMBERED: usize = 100;

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

/// What is published: one finding, on one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its object.
    pub object: Object,
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

/// What is kept over a restart, so that nothing is published twice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishedEvents {
    /// The Node that was written on.
    pub node_uid: Option<String>,
    /// What was published as confirmed and not as resolved.
    pub published: Vec<Remembered>,
}

/// One finding that was published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    /// Which one, and where.
    #[serde(flatten)]
    pub key: Key,
    /// The severity that was published.
    pub severity: Severity,
    /// When it was published.
    pub at: Timestamp,
    /// Since when it stands.
    pub since: Timestamp,
    /// The pod it was published on.
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
    /// Kept back, as there are too many.
    pub suppressed: u64,
}

/// What was published when, and what may be published now.
#[derive(Debug)]
pub struct Recorder {
    streams: BTreeMap<Key, EventStream>,
    node_uid: Option<String>,
    budget: EventBudget,
    /// When an event of each kind was last handed out.
    kinds: BTreeMap<Kind, NodeTime>,
    left_out: LeftOut,
    counts: Counts,
}

/// Events that were suppressed and are in no summary yet.
#[derive(Debug, Default)]
struct LeftOut {
    events: BTreeMap<(Kind, Share), u64>,
    since: Option<Timestamp>,
    published: Option<NodeTime>,
    /// What the summary that is under way says.
    sending: BTreeMap<(Kind, Share), u64>,
    /// Of which kinds the report omits objects, as it names them.
    findings: BTreeMap<Kind, String>,
    /// Which of them a summary counted.
    findings_published: BTreeSet<Kind>,
}

/// An event that waits, from the most urgent.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Waiting<'a> {
    /// What is new comes before what is only repeated or over.
    is_old: bool,
    severity: std::cmp::Reverse<Option<Severity>>,
    /// The first one of its kind comes before others of its severity.
    kind_is_known: bool,
    stamp: std::cmp::Reverse<Timestamp>,
    key: &'a Key,
}

impl Recorder {
    /// A recorder that has published nothing.
    #[must_use]
    pub fn new(now: NodeTime) -> Self {
        Self::with_memory(PublishedEvents::default(), now)
    }

    /// A recorder that knows what was published before the agent was started again.
    #[must_use]
    pub fn with_memory(memory: PublishedEvents, now: NodeTime) -> Self {
        let streams = memory.published.into_iter().take(MAX_REMEMBERED);
        Self {
            streams: streams
                .map(|published| (published.key.clone(), EventStream::remembered(published, now)))
                .collect(),
            node_uid: memory.node_uid,
            budget: EventBudget::new(now),
            kinds: BTreeMap::new(),
            left_out: LeftOut::default(),
            counts: Counts::default(),
        }
    }

    /// What must be kept over a restart.
    #[must_use]
    pub fn memory(&self) -> PublishedEvents {
        let published = self.streams.iter().filter_map(|(key, stream)| stream.remember(key));
        let mut published: Vec<_> = published.collect();
        if published.len() > MAX_REMEMBERED {
            published.sort_by_key(|published| std::cmp::Reverse((published.severity, published.at)));
            published.truncate(MAX_REMEMBERED);
            published.sort_by(|a, b| a.key.cmp(&b.key));
        }
        PublishedEvents { node_uid: self.node_uid.clone(), published }
    }

    /// What events came to so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The events to create now. To be called on every cycle; each event is handed out once, until it is
    /// [`sent`](Self::sent), [`refused`](Self::refused), or has not been heard of for two minutes.
    pub fn plan(&mut self, report: &Report, who: &Regarding, now: NodeTime) -> Vec<EventToSend> {
        self.meet(who);
        let standing: BTreeMap<Key, &ReportedFinding> = report.findings.iter().flat_map(each_target).collect();
        for (key, finding) in &standing {
            let stream = self.streams.entry(key.clone()).or_insert_with(|| EventStream::new(finding));
            stream.stands(key, finding, now);
        }
        self.let_go(report, &standing, now);
        self.left_out.follow(report);
        match who.node_uid.as_deref() {
            Some(uid) => self.dispatch(&standing, who, uid, now),
            None => Vec::new(),
        }
    }

    /// The event was created, or is there already (409).
    pub fn sent(&mut self, key: &EventKey, now: NodeTime) {
        self.counts.sent += 1;
        match key {
            EventKey::Suppressed => self.left_out.sending.clear(),
            EventKey::Finding(key) => self.settled(key, now),
        }
    }

    /// The event was not created. It is tried again later, unless the pod that it is on cannot be written about.
    pub fn refused(&mut self, key: &EventKey, code: Option<u16>, retry_after: Option<Duration>, now: NodeTime) {
        self.counts.failed += 1;
        match key {
            EventKey::Suppressed => self.left_out.take_back(),
            // Its namespace is gone, is going, or is not to be written to.
            EventKey::Finding(key) if key.on == On::Pod && matches!(code, Some(403 | 404)) => self.settled(key, now),
            EventKey::Finding(key) => {
                if let Some(pending) = self.streams.get_mut(key).and_then(|stream| stream.pending.as_mut()) {
                    pending.tries = pending.tries.saturating_add(1);
                    pending.under_way = None;
                    let seed = fingerprint(&[&key.object.id, key.kind.name()]);
                    pending.not_before = now.plus(after_refusals(pending.tries, retry_after, seed));
                }
            }
        }
    }

    /// A finding is dropped without being resolved: no event says that it is over.
    pub fn forget(&mut self, kind: Kind, object: &Object) {
        for on in [On::Node, On::Pod] {
            self.streams.remove(&Key { kind, object: object.clone(), on });
        }
    }

    fn settled(&mut self, key: &Key, now: NodeTime) {
        if self.streams.get_mut(key).is_some_and(|stream| stream.was_published(now)) {
            self.streams.remove(key);
        }
    }

    /// On another Node of the same name nothing was published.
    fn meet(&mut self, who: &Regarding) {
        let Some(uid) = &who.node_uid else { return };
        if self.node_uid.as_ref().is_some_and(|known| known != uid) {
            self.streams.retain(|key, _| key.on == On::Pod);
        }
        self.node_uid = Some(uid.clone());
    }

    /// What does not stand any more is published as resolved, if it was published at all.
    fn let_go(&mut self, report: &Report, standing: &BTreeMap<Key, &ReportedFinding>, now: NodeTime) {
        let present: BTreeSet<_> = report.findings.iter().map(|finding| (finding.kind, &finding.object)).collect();
        self.streams.retain(|key, stream| {
            if standing.contains_key(key) {
                return true;
            }
            if present.contains(&(key.kind, &key.object)) {
                return stream.is_kept();
            }
            stream.resolves(key, can_be_seen(report, key.kind), now)
        });
    }

    fn dispatch(
        &mut self,
        standing: &BTreeMap<Key, &ReportedFinding>,
        who: &Regarding,
        node_uid: &str,
        now: NodeTime,
    ) -> Vec<EventToSend> {
        let mut out = Vec::new();
        let mut has_summary = false;
        for key in self.ready(standing, now) {
            let (class, share) = self.claim(&key, standing.get(&key).copied(), now);
            // The summary comes after what is urgent, and before what is many.
            if class == Class::Ordinary && !std::mem::replace(&mut has_summary, true) {
                out.extend(self.summary(who, node_uid, now));
            }
            let Some(stream) = self.streams.get_mut(&key) else { continue };
            if self.budget.take(now, class, &share) {
                let content = stream.content(&key, standing.get(&key).copied(), now);
                out.extend(content.map(|content| body::event(content, who, node_uid)));
                self.kinds.insert(key.kind, now);
            } else if stream.is_kept_back() {
                self.left_out.add(key.kind, share, now);
                self.counts.suppressed += 1;
            }
        }
        if !has_summary {
            out.extend(self.summary(who, node_uid, now));
        }
        out
    }

    fn summary(&mut self, who: &Regarding, node_uid: &str, now: NodeTime) -> Option<EventToSend> {
        let is_granted = self.left_out.is_due(now) && self.budget.take(now, Class::First, &Share::Machine);
        is_granted.then(|| body::event(self.left_out.content(now), who, node_uid))
    }

    /// How urgent an event is, and whose share it takes.
    fn claim(&self, key: &Key, finding: Option<&ReportedFinding>, now: NodeTime) -> (Class, Share) {
        let stream = self.streams.get(key);
        let named = finding.and_then(|finding| finding.pod_name.as_deref()).and_then(|name| name.split_once('/'));
        let namespace = named.map(|(namespace, _)| namespace);
        let share = Share::of(&key.object, namespace.or_else(|| stream.and_then(EventStream::namespace)));
        let is_new = stream.and_then(|stream| stream.pending.as_ref()).is_some_and(|pending| pending.say < Say::Still);
        let class = match finding.map(|finding| finding.severity) {
            Some(Severity::Critical) if is_new && share.is_of_pods() => Class::PodCritical,
            Some(Severity::Critical) if is_new => Class::Critical,
            Some(Severity::Critical) => Class::First,
            Some(_) if is_new && !self.is_known(key.kind, now) => Class::First,
            _ => Class::Ordinary,
        };
        (class, share)
    }

    /// Whether there was an event of this kind within the hour.
    fn is_known(&self, kind: Kind, now: NodeTime) -> bool {
        self.kinds.get(&kind).is_some_and(|at| now.since(at).is_some_and(|age| age < HOUR))
    }

    /// What waits to be published, the most urgent first.
    fn ready(&self, standing: &BTreeMap<Key, &ReportedFinding>, now: NodeTime) -> Vec<Key> {
        let ready = self.streams.iter().filter_map(|(key, stream)| {
            let pending = stream.pending.as_ref().filter(|pending| pending.is_ready(now))?;
            let severity = standing.get(key).map(|finding| finding.severity);
            Some(Waiting {
                is_old: pending.say >= Say::Still,
                severity: std::cmp::Reverse(severity),
                kind_is_known: self.is_known(key.kind, now),
                stamp: std::cmp::Reverse(pending.stamp),
                key,
            })
        });
        let mut ready: Vec<_> = ready.collect();
        ready.sort();
        ready.into_iter().map(|waiting| waiting.key.clone()).collect()
    }
}

impl LeftOut {
    fn add(&mut self, kind: Kind, share: Share, now: NodeTime) {
        self.since.get_or_insert(now.wall);
        *self.events.entry((kind, share)).or_default() += 1;
    }

    /// Takes in of which kinds objects are omitted.
    fn follow(&mut self, report: &Report) {
        let omitted = report.kinds.iter().filter(|row| row.left_out > 0);
        self.findings = omitted.map(|row| (row.kind, format!("{} {}", row.kind, row.left_out_of()))).collect();
        self.findings_published.retain(|kind| self.findings.contains_key(kind));
    }

    fn is_due(&self, now: NodeTime) -> bool {
        let recent =
            self.published.is_some_and(|published| now.since(&published).is_none_or(|age| age < SUMMARY_EVERY));
        let is_new = self.findings.keys().any(|kind| !self.findings_published.contains(kind));
        (is_new || !self.events.is_empty()) && !recent
    }

    fn content(&mut self, now: NodeTime) -> Content<'static> {
        self.published = Some(now);
        let since = self.since.take().unwrap_or(now.wall);
        // What became of the last one is not known: then it is not counted twice.
        self.sending = std::mem::take(&mut self.events);
        self.findings_published.extend(self.findings.keys());
        let mut said = Vec::new();
        if !self.sending.is_empty() {
            let all = wording::of(self.sending.values().sum(), "event", "events");
            let each = self.sending.iter().map(|((kind, share), count)| {
                let whose = if share.is_of_pods() { format!(" ({share})") } else { String::new() };
                format!("{kind} {count}{whose}")
            });
            let (burst, per_hour) = (event_budget::BURST, event_budget::PER_HOUR);
            let (since, each) = (text::time(since), some_of(each.collect()));
            said.push(format!(
                "Rate limit: {all} suppressed since {since} ({burst} burst, {per_hour}/h): {each}. They are written later \
                 if they are still active; barnacle check lists all findings."
            ));
        }
        if !self.findings.is_empty() {
            let each = some_of(self.findings.values().cloned().collect());
            said.push(format!("Findings omitted, the least severe and oldest (limit reached): {each}."));
        }
        let note = said.join(" ");
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
            *self.events.entry(kind).or_default() += count;
        }
        self.findings_published.clear();
    }
}

/// The first names of many.
fn some_of(mut names: Vec<String>) -> String {
    let more = names.split_off(names.len().min(MAX_NAMED)).len();
    let more = (more > 0).then(|| format!(", and {more} more"));
    names.join(", ") + more.as_deref().unwrap_or_default()
}

/// The objects that a finding is published on, if it is to be published.
fn each_target(finding: &ReportedFinding) -> impl Iterator<Item = (Key, &ReportedFinding)> {
    let confirmed = finding.state() == FindingState::Confirmed && finding.severity >= Severity::Warning;
    let published = confirmed && finding.stands_alone();
    let pod = catalogue::concerns_pod_owner(finding.kind) && PodRef::of(finding).is_some();
    let key = |on| Key { kind: finding.kind, object: finding.object.clone(), on };
    let targets = [published.then_some(On::Node), (published && pod).then_some(On::Pod)];
    targets.into_iter().flatten().map(move |on| (key(on), finding))
}

/// Whether a kind's detector has looked and sees: only then does an object that is not there say something.
fn can_be_seen(report: &Report, kind: Kind) -> bool {
    let state = report.kinds.iter().find(|state| state.kind == kind);
    state.is_some_and(|s| !s.not_evaluated && !s.not_run && !matches!(s.state, State::NeedsTime | State::NotAsked))
}
