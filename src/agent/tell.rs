//! Telling the API server: events and conditions, in the background and one at a time.
//!
//! What to write is decided in `report`; here it is sent, and what came of it is told back. A pass never waits for it.

use std::collections::BTreeSet;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::api::{Api, ApiError, Patch};
use crate::engine::Engine;
use crate::facts::{Moment, NodeCondition};
use crate::report::Report;
use crate::report::conditions::{self, Conditions};
use crate::report::events::{EventKey, EventToSend, Memory, Recorder, Regarding};
use crate::report::metrics::TellFigures;

/// `reportingInstance` takes no more.
const LONGEST_INSTANCE: usize = 128;

/// What is told, and what became of it.
pub(super) struct Teller {
    recorder: Recorder,
    conditions: Conditions,
    node: String,
    jobs: UnboundedSender<Job>,
    done: UnboundedReceiver<Done>,
    /// Refusals that have been said: a right that is missing is missing every time.
    said: BTreeSet<&'static str>,
    _task: JoinSet<()>,
}

enum Job {
    Event(EventToSend),
    Conditions(Vec<NodeCondition>),
}

enum Done {
    Event(EventKey, Result<(), ApiError>),
    Conditions(Result<(), ApiError>),
}

impl Teller {
    /// Begins where an agent before us ended.
    pub fn new(api: &Api, memory: Memory, now: Moment) -> Self {
        let (jobs, inbox) = unbounded_channel();
        let (outbox, done) = unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(send(api.clone(), inbox, outbox));
        let seed = conditions::seed(&api.node);
        Self {
            recorder: Recorder::with_memory(memory, now),
            conditions: Conditions::new(now, seed),
            node: api.node.clone(),
            jobs,
            done,
            said: BTreeSet::new(),
            _task: task,
        }
    }

    /// Sends what is due after a pass.
    pub fn tell(&mut self, engine: &Engine, report: &Report, now: Moment) {
        self.hear(now);
        let node = engine.view().node.known().ok().map(|seen| seen.value);
        let who = Regarding {
            node: self.node.clone(),
            node_uid: node.map(|node| node.uid.clone()),
            instance: self.node.chars().take(LONGEST_INSTANCE).collect(),
        };
        for event in self.recorder.plan(report, &who, now) {
            let _ = self.jobs.send(Job::Event(event));
        }
        // On a Node that is going nothing is written: its successor is told.
        let standing = node.filter(|node| node.deleting.is_none()).map(|node| node.conditions.as_slice());
        if let Some(conditions) = self.conditions.plan(report, standing, now) {
            let _ = self.jobs.send(Job::Conditions(conditions));
        }
    }

    /// Takes in what became of what was sent.
    fn hear(&mut self, now: Moment) {
        while let Ok(done) = self.done.try_recv() {
            match done {
                // Its name is in use: it is the one that we sent, and whose answer was lost.
                Done::Event(key, Err(error)) if error.code != Some(409) => {
                    self.complain("events", &error);
                    self.recorder.refused(&key, error.code, error.retry_after, now);
                }
                Done::Event(key, _) => {
                    self.works_again("events");
                    self.recorder.sent(&key, now);
                }
                Done::Conditions(Ok(())) => {
                    self.works_again("conditions");
                    self.conditions.sent(now);
                }
                Done::Conditions(Err(error)) => {
                    self.complain("conditions", &error);
                    self.conditions.refused(now, error.retry_after);
                }
            }
        }
    }

    /// Once for each time of trouble; metrics count the rest.
    fn complain(&mut self, what: &'static str, error: &ApiError) {
        if self.said.insert(what) {
            warn!(why = %error, "{what} cannot be written to the API server; tried again, metrics and this log go on");
        } else {
            debug!(why = %error, "{what} cannot be written");
        }
    }

    fn works_again(&mut self, what: &'static str) {
        if self.said.remove(what) {
            info!("{what} are written to the API server again");
        }
    }

    /// What must be kept over a restart.
    pub fn memory(&self) -> Memory {
        self.recorder.memory()
    }

    /// What it came to so far.
    pub fn figures(&self) -> TellFigures {
        TellFigures { events: self.recorder.counts(), conditions: self.conditions.counts() }
    }
}

async fn send(api: Api, mut jobs: UnboundedReceiver<Job>, done: UnboundedSender<Done>) {
    let status = format!("/api/v1/nodes/{}/status", api.node);
    while let Some(job) = jobs.recv().await {
        let outcome = match job {
            Job::Event(event) => Done::Event(event.key, api.create(&event.path, &event.body).await.map(drop)),
            Job::Conditions(conditions) => {
                let patch = conditions::patch(&conditions);
                Done::Conditions(api.patch(&status, Patch::Strategic, &patch).await.map(drop))
            }
        };
        if done.send(outcome).is_err() {
            return;
        }
    }
}
