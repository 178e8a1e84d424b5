//! What the agent counts about itself.

use std::collections::BTreeMap;

use crate::finding::KindEvaluation;
use crate::report::{conditions, events};

/// What the agent counts about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentFigures {
    /// Passes that were made.
    pub cycles_total: u64,
    /// Seconds that all cycles took.
    pub cycle_duration_seconds_sum: f64,
    /// Reads that have not come back.
    pub stuck_reads: u64,
    /// Connections that were closed at once because there were too many.
    pub connections_refused_total: u64,
    /// Version of Landlock that took away our writes; zero where none did.
    pub landlock_abi: u32,
    /// Collection cycles by what woke the agent.
    pub wakes_total: BTreeMap<&'static str, u64>,
    /// What happened to findings, by change.
    pub transitions_total: BTreeMap<&'static str, u64>,
    /// What detectors did.
    pub detectors: DetectorFigures,
    /// What was asked of the API server.
    pub api: ApiFigures,
    /// What was published there.
    pub published: PublishFigures,
    /// What was asked of EC2; none where it never is.
    pub ec2: Option<Ec2Figures>,
    /// What was asked of IMDS; none where it never is.
    pub imds: Option<ImdsFigures>,
}

/// What was asked of IMDS, in numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImdsFigures {
    /// Requests by what they came to, zeros among them.
    pub requests_total: BTreeMap<&'static str, u64>,
    /// How long each phase of a request took.
    pub latency: BTreeMap<&'static str, Histogram>,
}

/// A histogram of seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Upper bounds, and how many were no more than that.
    pub buckets: Vec<(f64, u64)>,
    /// How many there were.
    pub count: u64,
    /// All of them together.
    pub sum: f64,
}

/// What was asked of EC2, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ec2Figures {
    /// Calls by operation and by what they came to, zeros among them.
    pub calls_total: BTreeMap<(&'static str, &'static str), u64>,
    /// Whether nothing is asked, as the account's calls were refused for being too many.
    pub paused: bool,
}

/// What was published through the API server, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishFigures {
    /// Events.
    pub events: events::Counts,
    /// Conditions on the Node.
    pub conditions: conditions::Counts,
}

/// The detectors at work, all together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DetectorFigures {
    /// How often one evaluated.
    pub runs_total: u64,
    /// How often one could evaluate none of its kinds.
    pub not_evaluated_total: u64,
    /// Seconds that they took in all.
    pub duration_seconds_sum: f64,
}

impl DetectorFigures {
    /// One has evaluated once more.
    pub fn ran(&mut self, took: std::time::Duration, evaluations: &[KindEvaluation]) {
        self.runs_total += 1;
        self.duration_seconds_sum += took.as_secs_f64();
        if evaluations.iter().all(|evaluation| evaluation.coverage.why_nothing().is_some()) {
            self.not_evaluated_total += 1;
        }
    }
}

/// What was asked of the API server, in numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ApiFigures {
    /// Requests by verb and HTTP status; `none` where there was no answer.
    pub requests_total: BTreeMap<(&'static str, String), u64>,
    /// Bytes of the answers.
    pub received_bytes_total: u64,
}

impl ApiFigures {
    /// The figures of a client.
    pub fn of(requests: impl Iterator<Item = ((&'static str, Option<u16>), u64)>, received_bytes_total: u64) -> Self {
        let code = |code: Option<u16>| code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        let requests_total = requests.map(|((verb, status), count)| ((verb, code(status)), count)).collect();
        Self { requests_total, received_bytes_total }
    }
}
