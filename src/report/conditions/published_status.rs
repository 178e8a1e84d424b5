//! One condition over time: what the detectors say, what we hold to be said, and what was written.

use std::time::Duration;

use jiff::Timestamp;

use super::assessment::{self, Assessment, Reason, Status};
use super::{DEGRADED, PATIENCE};
use crate::facts::{NodeCondition, NodeTime};
use crate::ledger::RESTART_GRACE;
use crate::report::{Report, text};

/// A status that is not the worse one stands at least so long.
const REST: Duration = Duration::from_secs(60);
/// How long a problem that an agent before us reported may wait to be confirmed again.
const MAX_CONFIRM_DELAY: Duration = Duration::from_secs(900);
/// What a message may have beside the time that it is true of.
const MAX_MESSAGE: usize = 980;

#[derive(Debug)]
pub(super) struct Own {
    assessment: Option<Assessment>,
    /// Since when the assessment has its status.
    since: NodeTime,
    pub published: Option<PublishedStatus>,
}

/// What we hold to be said.
#[derive(Debug)]
pub(super) struct PublishedStatus {
    status: Status,
    reason: String,
    said: String,
    /// What it is about; a message about the same says nothing new.
    about: u64,
    /// When it was last so; absent where it is the word of an agent before us.
    as_of: Option<Timestamp>,
    transition: Timestamp,
    changed: Option<NodeTime>,
    /// What was last written: status, reason and what it was about.
    written: Option<(Status, String, u64)>,
    /// Whether the Node has shown what was written since.
    shown: bool,
}

impl Own {
    pub fn new(now: NodeTime) -> Self {
        Self { assessment: None, since: now, published: None }
    }

    /// Takes in what the detectors say now.
    pub fn hears(&mut self, assessment: Assessment, now: NodeTime) {
        if self.assessment.as_ref().map(|before| before.status) != Some(assessment.status) {
            self.since = now;
        }
        self.assessment = Some(assessment);
    }

    pub fn adopt(&mut self, condition: &NodeCondition) {
        let (Some(status), Some(transition)) = (Status::parse(&condition.status), condition.transition) else { return };
        self.published = Some(PublishedStatus {
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

    /// Makes the assessment what we hold to be said, where it has earned that.
    pub fn settle(&mut self, of: &str, report: &Report, begun: NodeTime, now: NodeTime) {
        let Some(assessment) = self.assessment.as_ref() else { return };
        if let Some(published) = self.published.as_mut().filter(|published| published.status == assessment.status) {
            published.takes(assessment, now);
            return;
        }
        let waited = now.since(&self.since).is_some_and(|age| age >= patience(of, assessment.status));
        let published = self.published.as_ref();
        if waited && published.is_none_or(|published| published.may_yield(of, assessment.status, report, begun, now)) {
            let (written, shown) =
                self.published.take().map_or((None, false), |published| (published.written, published.shown));
            self.published = Some(PublishedStatus::begin(assessment, written, shown, now));
        }
    }

    /// Whether there is something to publish that the detectors have evaluated.
    pub fn is_evaluated(&self) -> bool {
        self.published.is_some()
            && self.assessment.as_ref().is_some_and(|assessment| assessment.reason != Reason::NotEvaluatedYet)
    }

    /// The condition to write.
    pub fn condition(&self, of: &str, now: NodeTime) -> Option<NodeCondition> {
        let published = self.published.as_ref()?;
        let said = text::cut_bytes(&text::clean(&published.said), MAX_MESSAGE, "...");
        let as_of = published.as_of.map(|at| format!(" True as of {}.", at.strftime("%Y-%m-%dT%H:%M:%SZ")));
        Some(NodeCondition {
            type_: of.to_owned(),
            status: published.status.name().to_owned(),
            reason: published.reason.clone(),
            message: said + as_of.as_deref().unwrap_or_default(),
            heartbeat: Some(now.wall),
            transition: Some(published.transition),
        })
    }

    pub fn was_written(&mut self, with_it: bool) {
        if let Some(published) = self.published.as_mut().filter(|_| with_it) {
            published.written = Some((published.status, published.reason.clone(), published.about));
            published.shown = false;
        }
    }

    /// Whether the Node does not have what we wrote. What was written a moment ago may not have come back yet.
    pub fn is_lost(&mut self, standing: Option<&NodeCondition>, fresh: bool) -> bool {
        let Some(published) = self.published.as_mut() else { return false };
        let Some((written, ..)) = published.written.as_ref() else { return false };
        let agrees = standing.and_then(|condition| Status::parse(&condition.status)) == Some(*written);
        published.shown |= agrees;
        !agrees && (published.shown || !fresh)
    }

    /// Whether there is something to write before the next heartbeat.
    pub fn is_news(&self, whole: bool, may_reword: bool) -> bool {
        let Some(published) = &self.published else { return false };
        match &published.written {
            None => whole || published.status == Status::True,
            Some((status, ..)) if *status != published.status => true,
            // What an agent before us was about is not known; the first heartbeat writes it again.
            Some((_, reason, about)) => {
                may_reword && (*reason != published.reason || *about != 0 && *about != published.about)
            }
        }
    }
}

impl PublishedStatus {
    fn begin(assessment: &Assessment, written: Option<(Status, String, u64)>, shown: bool, now: NodeTime) -> Self {
        Self {
            status: assessment.status,
            reason: assessment.reason.name().to_owned(),
            said: assessment.said.clone(),
            about: assessment.about,
            as_of: Some(now.wall),
            transition: now.wall,
            changed: Some(now),
            written,
            shown,
        }
    }

    fn takes(&mut self, assessment: &Assessment, now: NodeTime) {
        assessment.reason.name().clone_into(&mut self.reason);
        self.said.clone_from(&assessment.said);
        self.about = assessment.about;
        self.as_of = Some(now.wall);
    }

    fn may_yield(&self, of: &str, to: Status, report: &Report, begun: NodeTime, now: NodeTime) -> bool {
        let rested = self.changed.is_none_or(|changed| now.since(&changed).is_some_and(|age| age >= REST));
        match (self.status, to) {
            (_, Status::True) => true,
            // The agent before us knew for how long it had been so, and we do not yet.
            (Status::True, _) if self.as_of.is_none() => {
                let lived = now.since(&begun).unwrap_or_default();
                lived >= MAX_CONFIRM_DELAY || lived >= RESTART_GRACE && !assessment::may_become_critical(of, report)
            }
            _ => rested,
        }
    }
}

/// How long an assessment must have been the same before it is said where another one stands, or none.
fn patience(of: &str, status: Status) -> Duration {
    match status {
        Status::Unknown => PATIENCE,
        // A source that is read again the next time is of no use to an operator.
        Status::True if of == DEGRADED => PATIENCE,
        Status::True | Status::False => Duration::ZERO,
    }
}
