//! One finding on one object: what was told of it, and what is to be told next.

use std::time::Duration;

use jiff::Timestamp;

use super::body::{self, Content, Say};
use super::{EventKey, Key, LOST_AFTER, PodRef, Remembered};
use crate::catalogue;
use crate::facts::Moment;
use crate::finding::Severity;
use crate::ledger::FOUND_AGAIN_WITHIN;
use crate::report::jitter::{fingerprint, jittered};
use crate::report::{ReportedFinding, text};

/// The API server forgets an event after an hour: what stands is told again before that.
const AGAIN_AFTER: Duration = Duration::from_secs(40 * 60);

#[derive(Debug)]
pub(super) struct Topic {
    /// When it was last told, and the worst that was told.
    told: Option<(Moment, Severity)>,
    since: Timestamp,
    pod: Option<PodRef>,
    pub wish: Option<Wish>,
    /// Whether it stood in this life of the agent.
    stood: bool,
    /// Since when what was remembered is seen not to be there.
    missing: Option<Moment>,
}

/// Something to tell.
#[derive(Debug)]
pub(super) struct Wish {
    pub say: Say,
    /// When it came up.
    pub stamp: Timestamp,
    pub tries: u32,
    pub not_before: Moment,
    /// When it was handed out.
    pub under_way: Option<Moment>,
    severity: Severity,
    counted: bool,
}

impl Wish {
    fn new(say: Say, severity: Severity, now: Moment) -> Self {
        Self { say, stamp: now.wall, tries: 0, not_before: now, under_way: None, severity, counted: false }
    }

    pub fn is_ready(&self, now: Moment) -> bool {
        let lost = |handed: Moment| now.since(&handed).is_some_and(|age| age >= LOST_AFTER);
        now.since(&self.not_before).is_some() && self.under_way.is_none_or(lost)
    }
}

impl Topic {
    pub fn new(finding: &ReportedFinding) -> Self {
        Self { told: None, since: finding.since, pod: None, wish: None, stood: false, missing: None }
    }

    pub fn remembered(told: Remembered, now: Moment) -> Self {
        // A clock that was set back makes it as if told just now: rather late than twice.
        let age = text::between(told.at, now.wall);
        let at = Moment { up: now.up.saturating_sub(age), wall: told.at.min(now.wall), ..now };
        let told_at = Some((at, told.severity));
        Self { told: told_at, since: told.since, pod: told.pod, wish: None, stood: false, missing: None }
    }

    pub fn remember(&self, key: &Key) -> Option<Remembered> {
        let (told, severity) = self.told?;
        Some(Remembered { key: key.clone(), severity, at: told.wall, since: self.since, pod: self.pod.clone() })
    }

    pub fn stands(&mut self, key: &Key, finding: &ReportedFinding, now: Moment) {
        self.stood = true;
        self.missing = None;
        self.since = finding.since;
        self.pod = PodRef::of(finding).or(self.pod.take());
        // It came back before anyone was told that it was over.
        if self.wish.as_ref().is_some_and(|wish| wish.say == Say::Cleared && wish.under_way.is_none()) {
            self.wish = None;
        }
        if self.wish.is_none() {
            self.wish = self.due(key, finding.severity, now).map(|say| Wish::new(say, finding.severity, now));
        }
    }

    fn due(&self, key: &Key, severity: Severity, now: Moment) -> Option<Say> {
        let Some((at, told)) = self.told else { return Some(Say::Confirmed) };
        if severity > told {
            return Some(Say::Worse);
        }
        let seed = fingerprint(&[key.kind.name(), &key.subject.id, key.on.name(), &at.up.as_secs().to_string()]);
        (now.since(&at)? >= jittered(AGAIN_AFTER, seed)).then_some(Say::Still)
    }

    /// It is there, and not to be told now. Whether there is anything to keep of it.
    pub fn rests(&mut self) -> bool {
        self.missing = None;
        self.wish = self.wish.take().filter(|wish| wish.under_way.is_some());
        self.told.is_some() || self.wish.is_some()
    }

    /// It is not there. Whether there is anything to keep of it.
    pub fn ends(&mut self, key: &Key, seen: bool, now: Moment) -> bool {
        if self.wish.as_ref().is_some_and(|wish| wish.say == Say::Cleared) {
            return !self.is_forlorn(now);
        }
        if self.wish.as_ref().is_some_and(|wish| wish.under_way.is_some()) {
            if self.wish.as_ref().is_some_and(|wish| !wish.is_ready(now)) {
                return true;
            }
            // Nobody knows whether it was told that it began: it is told that it is over.
            self.was_told(now);
        }
        self.wish = None;
        let Some((_, severity)) = self.told else { return false };
        if self.is_over(key, seen, now) {
            self.wish = Some(Wish::new(Say::Cleared, severity, now));
        }
        true
    }

    /// Of what stood in this life the ledger said that it is over; what is only remembered must be seen to be gone.
    fn is_over(&mut self, key: &Key, seen: bool, now: Moment) -> bool {
        if self.stood {
            return true;
        }
        if !seen {
            self.missing = None;
            return false;
        }
        let since = *self.missing.get_or_insert(now);
        let enough = catalogue::row(key.kind).clear_after().max(FOUND_AGAIN_WITHIN);
        now.since(&since).is_some_and(|quiet| quiet >= enough)
    }

    /// Whether it is over for so long that the event it was told by is forgotten, too.
    fn is_forlorn(&self, now: Moment) -> bool {
        let stale = |wish: &Wish| text::between(wish.stamp, now.wall) >= Duration::from_secs(3600);
        self.wish.as_ref().is_some_and(|wish| wish.say == Say::Cleared && stale(wish))
    }

    /// What to write, which is then under way.
    pub fn content<'a>(&'a mut self, key: &Key, finding: Option<&ReportedFinding>, now: Moment) -> Option<Content<'a>> {
        let wish = self.wish.as_mut()?;
        let note = match (wish.say, finding) {
            (Say::Cleared, _) => body::cleared(key.kind, &key.subject, self.since),
            (_, Some(finding)) => {
                wish.severity = finding.severity;
                body::note(finding)
            }
            (_, None) => return None,
        };
        wish.under_way = Some(now);
        let (on, related) = match key.on {
            super::On::Node => (None, self.pod.as_ref()),
            super::On::Pod => (Some(self.pod.as_ref()?), None),
        };
        let (say, stamp, reason) = (wish.say, wish.stamp, key.kind.name());
        let named = if say == Say::Confirmed { self.since } else { stamp };
        Some(Content { key: EventKey::Finding(key.clone()), say, reason, note, on, related, stamp, named })
    }

    /// Whether it is kept back for the first time.
    pub fn is_kept_back(&mut self) -> bool {
        self.wish.as_mut().is_some_and(|wish| !std::mem::replace(&mut wish.counted, true))
    }

    /// The event is there. Whether there is nothing more to tell.
    pub fn was_told(&mut self, now: Moment) -> bool {
        let Some(wish) = self.wish.take() else { return false };
        let worst = self.told.map_or(wish.severity, |(_, told)| told.max(wish.severity));
        self.told = Some((now, worst));
        wish.say == Say::Cleared
    }
}
