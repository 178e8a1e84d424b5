//! What happened to findings lately: short, and of this life of the agent.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::text;
use crate::finding::{Kind, Object, Severity};
use crate::ledger::{Change, Transition};

/// Changes that are kept.
const MAX: usize = 50;
/// Longest object that is kept.
const MAX_LENGTH: usize = 256;

/// One change of one finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Happened {
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub change: Change,
    /// The finding's kind.
    pub kind: Kind,
    /// How bad it was.
    pub severity: Severity,
    /// What it is about, as people read it.
    pub object: String,
}

/// The last changes, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History(VecDeque<Happened>);

impl History {
    /// Adds what one step changed. Suspicions that came to nothing are not worth a line, nor what was left out for being too
    /// many: the report counts it, and it would push out the rest.
    pub fn add(&mut self, at: Timestamp, transitions: &[Transition]) {
        let reported = |transition: &&Transition| {
            !matches!(transition.change, Change::Suspected | Change::Dropped | Change::Displaced)
        };
        for transition in transitions.iter().filter(reported) {
            if self.0.len() == MAX {
                self.0.pop_front();
            }
            let finding = &transition.finding;
            let object = name_of(&finding.object);
            let (kind, severity) = (finding.kind, finding.severity);
            self.0.push_back(Happened { at, change: transition.change, kind, severity, object });
        }
    }

    /// All of it.
    #[must_use]
    pub fn all(&self) -> Vec<Happened> {
        self.0.iter().cloned().collect()
    }
}

/// An object as the history has it.
#[must_use]
pub fn name_of(object: &Object) -> String {
    text::cut_bytes(&text::clean(&object.to_string()), MAX_LENGTH, "...")
}

/// A change in a word.
#[must_use]
pub fn word(change: Change) -> &'static str {
    match change {
        Change::Suspected => "suspected",
        Change::Confirmed => "confirmed",
        Change::Escalated => "worse",
        Change::Resolved => "resolved",
        Change::Dropped => "dropped",
        Change::Unverified => "unverified",
        Change::Expired => "dropped, not resolved",
        Change::Displaced => "left out, not resolved",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Finding, ObjectType};

    fn transition(change: Change, id: &str) -> Transition {
        let finding = Finding {
            kind: Kind::StalledIo,
            severity: Severity::Warning,
            object: Object::new(ObjectType::Device, id),
            message: String::new(),
            evidence: Vec::new(),
            advice: String::new(),
        };
        let (boot, wall) = (crate::facts::BootId::default(), Timestamp::UNIX_EPOCH);
        let last_raised = crate::facts::NodeTime { boot, up: std::time::Duration::ZERO, wall };
        Transition { change, finding, first_seen: wall, last_raised }
    }

    #[test]
    fn it_is_short_and_keeps_what_counts() {
        let mut history = History::default();
        history.add(Timestamp::UNIX_EPOCH, &[transition(Change::Suspected, "a"), transition(Change::Dropped, "a")]);
        assert_eq!(history.all(), []);
        for i in 0..200 {
            history.add(Timestamp::UNIX_EPOCH, &[transition(Change::Confirmed, &format!("d{i}\n"))]);
        }
        let all = history.all();
        assert_eq!((all.len(), all.last().unwrap().object.as_str()), (MAX, "device d199\\n"));
    }
}
