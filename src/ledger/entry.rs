//! One finding over time: how long it was raised and quiet, as evaluated.

use std::time::Duration;

use jiff::Timestamp;

use super::memory::{Remembered, Stood};
use super::{Change, EXPIRES_AFTER, RESTART_GRACE, Transition, UNVERIFIED_AFTER};
use crate::catalogue;
use crate::facts::{NodeTime, Tri, Unknown};
use crate::finding::{Above, Finding, FindingKey, Kind, Object, Severity};

/// What a finding's history needs.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What was last raised.
    pub finding: Finding,
    /// Wall-clock time when it was first seen, over restarts of the agent.
    pub first_seen: Timestamp,
    /// When it was confirmed; of what was confirmed before a restart, when it was last raised before it.
    pub confirmed: Option<NodeTime>,
    /// The last evaluation that raised it.
    last_raised: NodeTime,
    /// Time for which it was raised, as evaluated: time that no evaluation covers does not count.
    raised_for: Duration,
    /// Time for which it was not raised, as evaluated.
    quiet_for: Duration,
    /// The last evaluation that could see it.
    evaluated: NodeTime,
    /// Whether it stood before the agent was started again.
    pub(super) known_before: bool,
    /// Whether that one raised it.
    raised: bool,
    /// Since when no evaluation covered it.
    not_evaluated_since: Option<NodeTime>,
    /// Whether that lasted for too long; until it is raised again.
    pub(super) unverified: bool,
    /// Whether it was confirmed before a restart, and not raised since.
    pub(super) restored: bool,
    /// Whether it rests on a lookup that has no answer yet: time alone does not confirm it.
    pub(super) awaits_answer: bool,
    /// It becomes critical once it has stood for as long as its kind says.
    pub(super) escalates: bool,
    /// The finding that it follows from, whether or not that one stands.
    pub(super) shown_under: Option<FindingKey>,
    /// What it may follow from beside that, the first of which counts that stands.
    pub(super) may_follow: Vec<Above>,
    /// It says what is still to come: of what may follow from it nothing does yet.
    pub(super) is_ahead: bool,
}

/// What a finding follows from, and whether others may follow from it.
pub(super) struct Follows {
    pub(super) under: Tri<FindingKey, ()>,
    pub(super) may_follow: Vec<Above>,
    pub(super) is_ahead: bool,
}

/// What time makes of a finding that is not evaluated.
pub(super) enum Outlook {
    Stands,
    Unverified,
    Ends,
}

impl Entry {
    /// What was confirmed when the agent stopped, at `left`.
    pub(super) fn restored(
        kind: Kind,
        object: Object,
        first_seen: Timestamp,
        stood: Stood,
        left: NodeTime,
        now: NodeTime,
    ) -> Self {
        let Stood { severity, message, evidence, advice, raised_seconds, last_raised, shown_under, .. } = stood;
        // A moment that is not in this boot's past would never grow old.
        let past = |node_time: NodeTime| Some(node_time).filter(|node_time| left.since(node_time).is_some());
        let row = catalogue::row(kind);
        Self {
            finding: Finding { kind, severity, object, message, evidence, advice },
            first_seen,
            confirmed: Some(past(last_raised).unwrap_or(left)),
            last_raised: past(last_raised).unwrap_or(left),
            raised_for: Duration::from_secs(raised_seconds)
                .clamp(row.confirm_after(), EXPIRES_AFTER.max(row.confirm_after())),
            quiet_for: Duration::ZERO,
            evaluated: now,
            known_before: true,
            raised: true,
            not_evaluated_since: Some(stood.not_evaluated_since.and_then(past).unwrap_or(left)),
            unverified: stood.unverified,
            restored: true,
            awaits_answer: false,
            escalates: true,
            shown_under,
            may_follow: Vec::new(),
            is_ahead: false,
        }
    }

    /// What is kept of it, with the finding under which it is shown.
    pub(super) fn remember(&self, (kind, object): &(Kind, Object), above: Option<FindingKey>) -> Remembered {
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
            shown_under: above.or_else(|| self.shown_under.clone()),
        });
        Remembered { kind: *kind, object: object.clone(), first_seen: self.first_seen, stood }
    }

    /// When it was last seen, where that is so long ago that it is unverified.
    #[must_use]
    pub fn unverified_since(&self) -> Option<NodeTime> {
        self.unverified.then_some(self.last_raised)
    }

    /// Whether the last evaluation covered and raised it, and was of this process.
    #[must_use]
    pub fn is_raised_now(&self) -> bool {
        self.raised && !self.restored && self.not_evaluated_since.is_none()
    }

    /// For how long it has been evaluated and not raised, if the last evaluation did not raise it.
    #[must_use]
    pub fn quiet_for(&self) -> Option<Duration> {
        (!self.raised).then_some(self.quiet_for)
    }

    pub(super) fn begin(
        at: NodeTime,
        first_seen: Timestamp,
        finding: Finding,
        awaits_answer: bool,
        changes: &mut Vec<Transition>,
    ) -> Self {
        let mut entry = Self {
            finding,
            first_seen,
            confirmed: None,
            last_raised: at,
            raised_for: Duration::ZERO,
            quiet_for: Duration::ZERO,
            evaluated: at,
            known_before: first_seen < at.wall,
            raised: true,
            not_evaluated_since: None,
            unverified: false,
            restored: false,
            awaits_answer,
            escalates: true,
            shown_under: None,
            may_follow: Vec::new(),
            is_ahead: false,
        };
        changes.push(entry.change(Change::Suspected));
        entry.confirm(at, changes);
        entry
    }

    /// What it follows from now. What followed from one finding goes on to until that one is over: where a cause is mended,
    /// what followed from it takes time to end.
    pub(super) fn follows(&mut self, Follows { under, may_follow, is_ahead }: Follows) {
        if let Tri::Yes(key) = under {
            self.shown_under = Some(key);
        }
        self.may_follow = may_follow;
        self.is_ahead = is_ahead;
    }

    /// Whether others are shown under it: it is known to stand. A suspicion that waits for an answer may never be published.
    pub(super) fn is_shown(&self) -> bool {
        let will_be_decided = !self.awaits_answer && self.not_evaluated_since.is_none();
        !self.unverified && (self.confirmed.is_some() || will_be_decided)
    }

    /// It is raised again. While `severity_unknown` it stays as severe as it was: what made it so may go on.
    pub(super) fn stands(
        &mut self,
        at: NodeTime,
        longest_gap: Duration,
        (finding, severity_unknown): (Finding, Option<&Unknown>),
        changes: &mut Vec<Transition>,
    ) {
        if self.raised {
            self.raised_for = self.raised_for.saturating_add(self.passed(at, longest_gap));
        }
        let before = self.finding.severity;
        self.finding = finding;
        if let Some(why) = severity_unknown.filter(|_| before > self.finding.severity) {
            self.finding.severity = before;
            let stays = format!("; it stays {} while it is not known whether it still is ({why})", before.name());
            self.finding.message.push_str(&stays);
        }
        self.evaluated = at;
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
        if self.escalates && row.critical_after().is_some_and(|after| self.raised_for >= after) {
            self.finding.severity = Severity::Critical;
        }
    }

    fn confirm(&mut self, at: NodeTime, changes: &mut Vec<Transition>) {
        let stood = || self.raised_for >= catalogue::row(self.finding.kind).confirm_after();
        if self.confirmed.is_none() && !self.awaits_answer && stood() {
            self.confirmed = Some(at);
            changes.push(self.change(Change::Confirmed));
        }
    }

    /// Counts quiet time; a suspicion ends with the first evaluation that does not share it.
    pub(super) fn is_over(&mut self, at: NodeTime, longest_gap: Duration) -> bool {
        if !self.raised {
            self.quiet_for = self.quiet_for.saturating_add(self.passed(at, longest_gap));
        }
        self.raised = false;
        // Unverified it stays until it is raised: that it is not raised now does not say that it still was.
        self.not_evaluated_since = None;
        self.evaluated = at;
        self.confirmed.is_none() || self.quiet_for >= self.resolves_after()
    }

    /// How long it must be evaluated and not raised to be resolved: longer after a restart, as detectors that ask need time
    /// to find it again.
    #[must_use]
    pub fn resolves_after(&self) -> Duration {
        let of_kind = catalogue::row(self.finding.kind).resolve_after();
        if self.restored { of_kind.max(RESTART_GRACE) } else { of_kind }
    }

    pub(super) fn end(&self) -> Change {
        if self.confirmed.is_some() { Change::Resolved } else { Change::Dropped }
    }

    pub(super) fn is_not_evaluated(&mut self, at: NodeTime) {
        self.evaluated = at;
        self.not_evaluated_since.get_or_insert(at);
    }

    pub(super) fn outlook(&self, at: NodeTime) -> Outlook {
        let not_evaluated_for = self.not_evaluated_since.map(|since| at.since(&since).unwrap_or_default());
        match not_evaluated_for {
            // What was found on a machine that has booted since was found on another one.
            _ if self.evaluated.boot != at.boot => Outlook::Ends,
            Some(time) if time >= EXPIRES_AFTER => Outlook::Ends,
            Some(time) if time >= UNVERIFIED_AFTER && self.confirmed.is_none() => Outlook::Ends,
            Some(time) if time >= UNVERIFIED_AFTER && !self.unverified => Outlook::Unverified,
            _ => Outlook::Stands,
        }
    }

    fn passed(&self, at: NodeTime, longest_gap: Duration) -> Duration {
        at.since(&self.evaluated).filter(|gap| *gap <= longest_gap).unwrap_or_default()
    }

    pub(super) fn due_in(&self) -> Option<Duration> {
        let row = catalogue::row(self.finding.kind);
        // Time decides nothing while no evaluation covers it.
        if self.not_evaluated_since.is_some() {
            return None;
        }
        match (self.raised, self.confirmed) {
            (true, None) if self.awaits_answer => None,
            (true, None) => Some(row.confirm_after().saturating_sub(self.raised_for)),
            (false, Some(_)) => Some(self.resolves_after().saturating_sub(self.quiet_for)),
            _ => None,
        }
    }

    pub(super) fn change(&self, change: Change) -> Transition {
        let (finding, first_seen, last_raised) = (self.finding.clone(), self.first_seen, self.last_raised);
        Transition { change, finding, first_seen, last_raised }
    }
}
