//! Our conditions on the Node: one for each area, and one for what we cannot see.
//!
//! A condition is what operators and other controllers look at from afar, so it is slow to change: what stands on the
//! Node is adopted at start, only a problem is said at once, and a figure that moves is no reason to write. No I/O:
//! the agent sends what [`Conditions::plan`] hands out and says what became of it.

mod assessment;
mod published_status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Report;
use crate::catalogue::Area;
use crate::facts::{NodeCondition, NodeTime};
use crate::pacing::{ConflictBackoff, after_refusals, fingerprint, jittered};

use assessment::Assessment;
use published_status::Own;

/// The condition that is True while something cannot be read that findings of the base profile rest on.
pub const DEGRADED: &str = "BarnacleDegraded";

/// What the types of our conditions begin with. No other controller acts on such a type, and none may: some end nodes
/// by force on theirs.
pub const PREFIX: &str = "Barnacle";

/// How long we may be at a loss before we say so.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often all of them are written while nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(300);
/// How long other words for the same state wait to be written.
const REWORD_AFTER: Duration = Duration::from_secs(60);
/// How long the Node may take to show what we wrote.
const ECHO_AFTER: Duration = Duration::from_secs(15);
/// An answer that has not come by then will not.
const LOST_AFTER: Duration = Duration::from_secs(60);

/// What conditions came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes that were accepted; each has all conditions.
    pub written: u64,
    /// Writes that failed.
    pub failed: u64,
    /// Conditions that another writer had removed or changed.
    pub reasserted: u64,
}

/// What we say on the Node, and what was last written there.
#[derive(Debug)]
pub struct Conditions {
    begun: NodeTime,
    seed: u64,
    own: BTreeMap<&'static str, Own>,
    adopted: bool,
    written: Option<NodeTime>,
    sending: Option<Sending>,
    not_before: Option<NodeTime>,
    tries: u32,
    conflict_backoff: ConflictBackoff,
    counts: Counts,
}

/// A write that is under way.
#[derive(Debug)]
struct Sending {
    since: NodeTime,
    conditions: Vec<NodeCondition>,
    /// Of how many of them another writer had changed what stood there.
    lost: u64,
}

impl Conditions {
    /// Nothing was written. The seed makes this node's times differ from those of others: a fingerprint of its name will do.
    #[must_use]
    pub fn new(now: NodeTime, seed: u64) -> Self {
        let types = Area::ALL.into_iter().map(Area::condition).chain([DEGRADED]);
        Self {
            begun: now,
            seed,
            own: types.map(|of| (of, Own::new(now))).collect(),
            adopted: false,
            written: None,
            sending: None,
            not_before: None,
            tries: 0,
            conflict_backoff: ConflictBackoff::default(),
            counts: Counts::default(),
        }
    }

    /// What conditions came to so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The conditions to write as one strategic merge patch, if it is time. To be called on every cycle with what
    /// stands on the Node, or `None` while that is not known.
    pub fn plan(
        &mut self,
        report: &Report,
        standing: Option<&[NodeCondition]>,
        now: NodeTime,
    ) -> Option<Vec<NodeCondition>> {
        let young = now.since(&self.begun).is_none_or(|age| age < PATIENCE);
        for (of, own) in &mut self.own {
            own.hears(assessment_of(of, report, young), now);
        }
        let standing = standing?;
        self.adopt(standing);
        for (of, own) in &mut self.own {
            own.settle(of, report, self.begun, now);
        }
        let lost = self.lost(standing, now);
        if !self.may_write(now) || !(lost > 0 && self.conflict_backoff.may_go_on(now) || self.is_due(young, now)) {
            return None;
        }
        if lost > 0 {
            self.conflict_backoff.note_conflict(now);
        }
        let conditions: Vec<_> = self.own.iter().filter_map(|(of, own)| own.condition(of, now)).collect();
        self.sending = Some(Sending { since: now, conditions: conditions.clone(), lost });
        Some(conditions)
    }

    /// The last plan was accepted.
    pub fn sent(&mut self, now: NodeTime) {
        let Some(sending) = self.sending.take() else { return };
        for (of, own) in &mut self.own {
            own.was_written(sending.conditions.iter().any(|condition| condition.type_ == *of));
        }
        self.written = Some(now);
        (self.not_before, self.tries) = (None, 0);
        self.counts.written += 1;
        self.counts.reasserted += sending.lost;
    }

    /// The last plan was not accepted.
    pub fn refused(&mut self, now: NodeTime, retry_after: Option<Duration>) {
        self.sending = None;
        self.tries = self.tries.saturating_add(1);
        self.not_before = Some(now.plus(after_refusals(self.tries, retry_after, self.seed)));
        self.counts.failed += 1;
    }

    /// An agent before us may have said these: neither their state nor the time of their last change moves.
    fn adopt(&mut self, standing: &[NodeCondition]) {
        if std::mem::replace(&mut self.adopted, true) {
            return;
        }
        for (of, own) in &mut self.own {
            if let Some(condition) = standing.iter().find(|condition| condition.type_ == *of) {
                own.adopt(condition);
            }
        }
    }

    /// How many of ours do not stand on the Node as we wrote them.
    fn lost(&mut self, standing: &[NodeCondition], now: NodeTime) -> u64 {
        let fresh = self.written.is_some_and(|written| now.since(&written).is_none_or(|age| age < ECHO_AFTER));
        let shown = |of: &str| standing.iter().find(|condition| condition.type_ == of);
        let lost = self.own.iter_mut().map(|(of, own)| own.is_lost(shown(of), fresh));
        lost.map(u64::from).sum()
    }

    fn may_write(&mut self, now: NodeTime) -> bool {
        let waits = self.not_before.is_some_and(|at| now.since(&at).is_none());
        let open = self.sending.as_ref().is_some_and(|s| now.since(&s.since).is_none_or(|age| age < LOST_AFTER));
        !waits && !open && self.own.values().any(|own| own.published.is_some())
    }

    fn is_due(&self, young: bool, now: NodeTime) -> bool {
        let whole = !young || self.own.values().all(Own::is_evaluated);
        let age = self.written.map(|written| now.since(&written).unwrap_or_default());
        let beat = jittered(HEARTBEAT, self.seed.wrapping_add(self.counts.written));
        let news = self.own.values().any(|own| own.is_news(whole, age.is_some_and(|age| age >= REWORD_AFTER)));
        news || whole && age.is_none_or(|age| age >= beat)
    }
}

fn assessment_of(of: &str, report: &Report, young: bool) -> Assessment {
    match Area::ALL.into_iter().find(|area| area.condition() == of) {
        Some(area) => assessment::of_area(area, report, young),
        None => assessment::of_visibility(report),
    }
}

/// The body of the patch, for `application/strategic-merge-patch+json`: other writers' conditions stay.
#[must_use]
pub fn patch(conditions: &[NodeCondition]) -> Value {
    let time = |at: Option<Timestamp>| at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let each = conditions.iter().map(|condition| {
        let NodeCondition { type_: of, status, reason, message, heartbeat, transition } = condition;
        json!({
            "type": of,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": time(heartbeat.or(*transition)),
            "lastTransitionTime": time(transition.or(*heartbeat)),
        })
    });
    json!({"status": {"conditions": each.collect::<Vec<_>>()}})
}

/// The patch that takes every condition of ours off the Node, also of other versions; `None` where there is none.
#[must_use]
pub fn cleanup_patch(standing: &[NodeCondition]) -> Option<Value> {
    let ours: Vec<_> = standing.iter().map(|condition| &condition.type_).filter(|of| of.starts_with(PREFIX)).collect();
    let each: Vec<_> = ours.iter().map(|of| json!({"$patch": "delete", "type": of})).collect();
    (!each.is_empty()).then(|| json!({"status": {"conditions": each}}))
}

/// The seed of a node's own times.
#[must_use]
pub fn seed(node: &str) -> u64 {
    fingerprint(&[node])
}
