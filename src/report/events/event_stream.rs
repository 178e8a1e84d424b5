//! One finding on one object: what was published of it, and what is to be published next.

use std::time::Duration;

use jiff::Timestamp;

use super::body::{self, Content, Say};
use super::{EventKey, Key, LOST_AFTER, PodRef, Remembered};
use crate::catalogue;
use crate::facts::NodeTime;
use crate::finding::Severity;
use crate::ledger::RESTART_GRACE;
use crate::pacing::{fingerprint, jittered};
use crate::report::{ReportedFinding, text};

/// The API server forgets an event after an hour: what stands is published again before that.
const AGAIN_AFTER: Duration = Duration::from_secs(40 * 60);

#[derive(Debug)]
pub(super) struct EventStream {
    /// When it was last published, and the worst severity that was.
    published: Option<(NodeTime, Severity)>,
    since: Timestamp,
    pod: Option<PodRef>,
    pub pending: Option<PendingEvent>,
    /// Whether it stood in this life of the agent.
    stood: bool,
    /// Since when what was remembered is seen not to be there.
    missing: Option<NodeTime>,
}

/// Something to publish.
#[derive(Debug)]
pub(super) struct PendingEvent {
    pub say: Say,
    /// When it came up.
    pub stamp: Timestamp,
    pub tries: u32,
    pub not_before: NodeTime,
    /// When it was handed out.
    pub under_way: Option<NodeTime>,
    severity: Severity,
    counted: bool,
}

impl PendingEvent {
    fn new(say: Say, severity: Severity, now: NodeTime) -> Self {
        Self { say, stamp: now.wall, tries: 0, not_before: now, under_way: None, severity, counted: false }
    }

    pub fn is_ready(&self, now: NodeTime) -> bool {
        let lost = |handed: NodeTime| now.since(&handed).is_some_and(|age| age >= LOST_AFTER);
        now.since(&self.not_before).is_some() && self.under_way.is_none_or(lost)
    }
}

impl EventStream {
    pub fn new(finding: &ReportedFinding) -> Self {
        Self { published: None, since: finding.since, pod: None, pending: None, stood: false, missing: None }
    }

    pub fn remembered(published: Remembered, now: NodeTime) -> Self {
        // A clock that was set back makes it as if published just now: rather late than twice.
        let age = text::between(published.at, now.wall);
        let at = NodeTime { up: now.up.saturating_sub(age), wall: published.at.min(now.wall), ..now };
        let published_at = Some((at, published.severity));
        Self {
            published: published_at,
            since: published.since,
            pod: published.pod,
            pending: None,
            stood: false,
            missing: None,
        }
    }

    /// The namespace of its pod, where it was known once.
    pub fn namespace(&self) -> Option<&str> {
        self.pod.as_ref().map(|pod| pod.namespace.as_str())
    }

    pub fn remember(&self, key: &Key) -> Option<Remembered> {
        let (published, severity) = self.published?;
        Some(Remembered { key: key.clone(), severity, at: published.wall, since: self.since, pod: self.pod.clone() })
    }

    pub fn stands(&mut self, key: &Key, finding: &ReportedFinding, now: NodeTime) {
        self.stood = true;
        self.missing = None;
        self.since = finding.since;
        self.pod = PodRef::of(finding).or(self.pod.take());
        // It came back before its end was published.
        if self.pending.as_ref().is_some_and(|pending| pending.say == Say::Resolved && pending.under_way.is_none()) {
            self.pending = None;
        }
        // What became worse is not announced as if it still stood as before.
        let is_worse = self.published.as_ref().is_some_and(|(_, published)| finding.severity > *published);
        if is_worse && self.pending.as_ref().is_some_and(|p| p.say == Say::Still && p.under_way.is_none()) {
            self.pending = None;
        }
        if self.pending.is_none() {
            self.pending =
                self.due(key, finding.severity, now).map(|say| PendingEvent::new(say, finding.severity, now));
        }
    }

    fn due(&self, key: &Key, severity: Severity, now: NodeTime) -> Option<Say> {
        let Some((at, published)) = self.published else { return Some(Say::Confirmed) };
        if severity > published {
            return Some(Say::Worse);
        }
        let seed = fingerprint(&[key.kind.name(), &key.object.id, key.on.name(), &at.up.as_secs().to_string()]);
        (now.since(&at)? >= jittered(AGAIN_AFTER, seed)).then_some(Say::Still)
    }

    /// It is there, and not to be published now. Whether there is anything to keep of it.
    pub fn is_kept(&mut self) -> bool {
        self.missing = None;
        self.pending = self.pending.take().filter(|pending| pending.under_way.is_some());
        self.published.is_some() || self.pending.is_some()
    }

    /// It is not there. Whether there is anything to keep of it.
    pub fn resolves(&mut self, key: &Key, seen: bool, now: NodeTime) -> bool {
        if self.pending.as_ref().is_some_and(|pending| pending.say == Say::Resolved) {
            return !self.is_expired(now);
        }
        if self.pending.as_ref().is_some_and(|pending| pending.under_way.is_some()) {
            if self.pending.as_ref().is_some_and(|pending| !pending.is_ready(now)) {
                return true;
            }
            // Whether its beginning was published is not known: its end is.
            self.was_published(now);
        }
        self.pending = None;
        let Some((_, severity)) = self.published else { return false };
        if self.is_over(key, seen, now) {
            self.pending = Some(PendingEvent::new(Say::Resolved, severity, now));
        }
        true
    }

    /// Of what stood in this life the ledger said that it is over; what is only remembered must be seen to be gone.
    fn is_over(&mut self, key: &Key, seen: bool, now: NodeTime) -> bool {
        if self.stood {
            return true;
        }
        if !seen {
            self.missing = None;
            return false;
        }
        let since = *self.missing.get_or_insert(now);
        let enough = catalogue::row(key.kind).resolve_after().max(RESTART_GRACE);
        now.since(&since).is_some_and(|quiet| quiet >= enough)
    }

    /// Whether it is over for so long that its event is forgotten, too.
    fn is_expired(&self, now: NodeTime) -> bool {
        let stale = |pending: &PendingEvent| text::between(pending.stamp, now.wall) >= Duration::from_secs(3600);
        self.pending.as_ref().is_some_and(|pending| pending.say == Say::Resolved && stale(pending))
    }

    /// What to write, which is then under way.
    pub fn content<'a>(
        &'a mut self,
        key: &Key,
        finding: Option<&ReportedFinding>,
        now: NodeTime,
    ) -> Option<Content<'a>> {
        let pending = self.pending.as_mut()?;
        let note = match (pending.say, finding) {
            (Say::Resolved, _) => body::resolved(key.kind, &key.object, self.since),
            (_, Some(finding)) => {
                pending.severity = finding.severity;
                body::note(finding)
            }
            (_, None) => return None,
        };
        pending.under_way = Some(now);
        let (on, related) = match key.on {
            super::On::Node => (None, self.pod.as_ref()),
            super::On::Pod => (Some(self.pod.as_ref()?), None),
        };
        let (say, stamp, reason) = (pending.say, pending.stamp, key.kind.name());
        let named = if say == Say::Confirmed { self.since } else { stamp };
        Some(Content { key: EventKey::Finding(key.clone()), say, reason, note, on, related, stamp, named })
    }

    /// Whether it is kept back for the first time.
    pub fn is_kept_back(&mut self) -> bool {
        self.pending.as_mut().is_some_and(|pending| !std::mem::replace(&mut pending.counted, true))
    }

    /// The event is there. Whether there is nothing more to publish.
    pub fn was_published(&mut self, now: NodeTime) -> bool {
        let Some(pending) = self.pending.take() else { return false };
        let worst = self.published.map_or(pending.severity, |(_, published)| published.max(pending.severity));
        self.published = Some((now, worst));
        pending.say == Say::Resolved
    }
}
