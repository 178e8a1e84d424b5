//! One condition over time: what the judges say, what we hold to be said, and what was written.

use std::time::Duration;

use jiff::Timestamp;

use super::verdict::{self, Status, Verdict};
use super::{BLIND, PATIENCE};
use crate::facts::{Moment, NodeCondition};
use crate::ledger::FOUND_AGAIN_WITHIN;
use crate::report::{Report, text};

/// A status that is not the worse one stands at least so long.
const REST: Duration = Duration::from_secs(60);
/// How long a problem that an agent before us reported may wait to be confirmed again.
const LONGEST_DOUBT: Duration = Duration::from_secs(900);
/// What a message may have beside the time that it is true of.
const LONGEST_SAYING: usize = 980;

#[derive(Debug)]
pub(super) struct Own {
    verdict: Option<Verdict>,
    /// Since when the verdict has its status.
    since: Moment,
    pub held: Option<Held>,
}

/// What we hold to be said.
#[derive(Debug)]
pub(super) struct Held {
    status: Status,
    reason: String,
    said: String,
    /// What it is about; a message about the same says nothing new.
    about: u64,
    /// When it was last so; absent where it is the word of an agent before us.
    as_of: Option<Timestamp>,
    transition: Timestamp,
    changed: Option<Moment>,
    /// What was last written: status, reason and what it was about.
    written: Option<(Status, String, u64)>,
    /// Whether the Node has shown what was written since.
    shown: bool,
}

impl Own {
    pub fn new(now: Moment) -> Self {
        Self { verdict: None, since: now, held: None }
    }

    /// Takes in what the judges say now.
    pub fn hears(&mut self, verdict: Verdict, now: Moment) {
        if self.verdict.as_ref().map(|before| before.status) != Some(verdict.status) {
            self.since = now;
        }
        self.verdict = Some(verdict);
    }

    pub fn adopt(&mut self, condition: &NodeCondition) {
        let (Some(status), Some(transition)) = (Status::parse(&condition.status), condition.transition) else { return };
        self.held = Some(Held {
            status,
            reason: condition.reason.clone(),
            said: condition.message.clone(),
            about: 0,
            as_of: None,
            transition,
            changed: None,
            written: Some((status, condition.reason.clone(), 0)),
            shown: true,
        });
    }

    /// Makes the verdict what we hold to be said, where it has earned that.
    pub fn settle(&mut self, of: &str, report: &Report, begun: Moment, now: Moment) {
        let Some(verdict) = self.verdict.as_ref() else { return };
        if let Some(held) = self.held.as_mut().filter(|held| held.status == verdict.status) {
            held.takes(verdict, now);
            return;
        }
        let waited = now.since(&self.since).is_some_and(|age| age >= patience(of, verdict.status));
        let held = self.held.as_ref();
        if waited && held.is_none_or(|held| held.may_yield(of, verdict.status, report, begun, now)) {
            let (written, shown) = self.held.take().map_or((None, false), |held| (held.written, held.shown));
            self.held = Some(Held::begin(verdict, written, shown, now));
        }
    }

    /// Whether there is something to say that the judges have looked at.
    pub fn is_judged(&self) -> bool {
        self.held.is_some() && self.verdict.as_ref().is_some_and(|verdict| verdict.reason != verdict::NOT_EVALUATED_YET)
    }

    /// The condition to write.
    pub fn condition(&self, of: &str, now: Moment) -> Option<NodeCondition> {
        let held = self.held.as_ref()?;
        let said = text::cut_bytes(&text::clean(&held.said), LONGEST_SAYING, "...");
        let as_of = held.as_of.map(|at| format!(" True as of {}.", at.strftime("%Y-%m-%dT%H:%M:%SZ")));
        Some(NodeCondition {
            of: of.to_owned(),
            status: held.status.name().to_owned(),
            reason: held.reason.clone(),
            message: said + as_of.as_deref().unwrap_or_default(),
            heartbeat: Some(now.wall),
            transition: Some(held.transition),
        })
    }

    pub fn was_written(&mut self, with_it: bool) {
        if let Some(held) = self.held.as_mut().filter(|_| with_it) {
            held.written = Some((held.status, held.reason.clone(), held.about));
            held.shown = false;
        }
    }

    /// Whether the Node does not have what we wrote. What was written a moment ago may not have come back yet.
    pub fn is_lost(&mut self, standing: Option<&NodeCondition>, fresh: bool) -> bool {
        let Some(held) = self.held.as_mut() else { return false };
        let Some((written, ..)) = held.written.as_ref() else { return false };
        let agrees = standing.and_then(|condition| Status::parse(&condition.status)) == Some(*written);
        held.shown |= agrees;
        !agrees && (held.shown || !fresh)
    }

    /// Whether there is something to write before the next heartbeat.
    pub fn is_news(&self, whole: bool, may_reword: bool) -> bool {
        let Some(held) = &self.held else { return false };
        match &held.written {
            None => whole || held.status == Status::True,
            Some((status, ..)) if *status != held.status => true,
            // What an agent before us was about is not known; the first heartbeat tells it anew.
            Some((_, reason, about)) => may_reword && (*reason != held.reason || *about != 0 && *about != held.about),
        }
    }
}

impl Held {
    fn begin(verdict: &Verdict, written: Option<(Status, String, u64)>, shown: bool, now: Moment) -> Self {
        Self {
            status: verdict.status,
            reason: verdict.reason.to_owned(),
            said: verdict.said.clone(),
            about: verdict.about,
            as_of: Some(now.wall),
            transition: now.wall,
            changed: Some(now),
            written,
            shown,
        }
    }

    fn takes(&mut self, verdict: &Verdict, now: Moment) {
        verdict.reason.clone_into(&mut self.reason);
        self.said.clone_from(&verdict.said);
        self.about = verdict.about;
        self.as_of = Some(now.wall);
    }

    fn may_yield(&self, of: &str, to: Status, report: &Report, begun: Moment, now: Moment) -> bool {
        let rested = self.changed.is_none_or(|changed| now.since(&changed).is_some_and(|age| age >= REST));
        match (self.status, to) {
            (_, Status::True) => true,
            // The agent before us knew for how long it had been so, and we do not yet.
            (Status::True, _) if self.as_of.is_none() => {
                let lived = now.since(&begun).unwrap_or_default();
                lived >= LONGEST_DOUBT || lived >= FOUND_AGAIN_WITHIN && !verdict::may_become_critical(of, report)
            }
            _ => rested,
        }
    }
}

/// How long a verdict must have been the same before it is said where another one stands, or none.
fn patience(of: &str, status: Status) -> Duration {
    match status {
        Status::Unknown => PATIENCE,
        // A source that is read again the next time is nobody's business.
        Status::True if of == BLIND => PATIENCE,
        Status::True | Status::False => Duration::ZERO,
    }
}
