//! Telling the API server: events and conditions, in the background and one at a time.
//!
//! What to write is decided in `report`; here it is sent, and the result is handed back. A cycle never waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::engine::{Engine, sources};
use crate::facts::{Node, NodeTime};
use crate::finding::Finding;
use crate::kube_api::{Api, ApiError, Patch};
use crate::report::Report;
use crate::report::conditions::{self, Conditions};
use crate::report::events::{EventKey, EventToSend, PublishedEvents, Recorder, Regarding};
use crate::report::metrics::PublishFigures;

/// `reportingInstance` takes no more.
const MAX_INSTANCE: usize = 128;

/// How long a missing right is taken to be missing.
const MISSING_RIGHT: Duration = Duration::from_secs(1800);
/// A right is missing when it was for so long: a server that has just started refuses what it has not read the roles for.
const READS_ROLES: Duration = Duration::from_secs(60);
/// For so long a server that did not answer is not asked again by the events that wait.
const TROUBLE_LASTS: Duration = Duration::from_secs(5);

/// What is published, and what became of it.
pub(super) struct StatusPublisher {
    recorder: Recorder,
    conditions: Conditions,
    node: String,
    events: UnboundedSender<EventToSend>,
    patches: UnboundedSender<Value>,
    done: UnboundedReceiver<Done>,
    /// Refusals that have been said: a right that is missing is missing every time.
    said: BTreeSet<&'static str>,
    denied: Denials,
    _task: JoinSet<()>,
}

/// Since when a right is refused.
#[derive(Default)]
struct Denials(BTreeMap<&'static str, NodeTime>);

impl Denials {
    /// How long to leave the server alone: a right that is missing does not come by asking again.
    fn rest(&mut self, what: &'static str, error: &ApiError, now: NodeTime) -> Option<Duration> {
        if error.code != Some(403) {
            self.0.remove(what);
            return error.retry_after;
        }
        let since = self.0.entry(what).or_insert(now);
        let missing = now.since(since).is_some_and(|age| age >= READS_ROLES).then_some(MISSING_RIGHT);
        error.retry_after.max(missing)
    }
}

enum Done {
    Event(EventKey, Result<(), ApiError>),
    Conditions(Result<(), ApiError>),
}

impl StatusPublisher {
    /// Begins where an agent before us ended.
    pub fn new(api: &Api, memory: PublishedEvents, now: NodeTime) -> Self {
        let (events, events_inbox) = unbounded_channel();
        let (patches, patches_inbox) = unbounded_channel();
        let (outbox, done) = unbounded_channel();
        // Each for itself: what is critical does not wait behind what is many.
        let mut task = JoinSet::new();
        task.spawn(send_events(api.clone(), events_inbox, outbox.clone()));
        task.spawn(send_patches(api.clone(), patches_inbox, outbox));
        let seed = conditions::seed(&api.node);
        Self {
            recorder: Recorder::with_memory(memory, now),
            conditions: Conditions::new(now, seed),
            node: api.node.clone(),
            events,
            patches,
            done,
            said: BTreeSet::new(),
            denied: Denials::default(),
            _task: task,
        }
    }

    /// Sends what is due after a cycle.
    pub fn publish(&mut self, engine: &Engine, report: &Report, now: NodeTime) {
        self.hear(now);
        let node =
            engine.view().known::<sources::Node>().ok().map(|seen| seen.value).filter(|node| self.is_ours(node, now));
        let who = Regarding {
            node: self.node.clone(),
            node_uid: node.map(|node| node.uid.clone()),
            instance: self.node.chars().take(MAX_INSTANCE).collect(),
        };
        for event in self.recorder.plan(report, &who, now) {
            let _ = self.events.send(event);
        }
        // On a Node that is being deleted nothing is written: its successor gets all of it.
        let node = node.filter(|node| node.deleting.is_none());
        let planned = self.conditions.plan(report, node.map(|node| node.conditions.as_slice()), now);
        if let Some((conditions, node)) = planned.zip(node) {
            let mut patch = conditions::patch(&conditions);
            if let Some(fields) = patch.as_object_mut() {
                // Another Node of this name refuses it.
                fields.insert("metadata".to_owned(), json!({ "uid": node.uid }));
            }
            let _ = self.patches.send(patch);
        }
    }

    /// No event says that this finding is over.
    pub fn forget(&mut self, finding: &Finding) {
        self.recorder.forget(finding.kind, &finding.object);
    }

    /// Whether the kubelet of this Node runs on this machine, as far as the Node says; on another's nothing is written.
    fn is_ours(&mut self, node: &Node, now: NodeTime) -> bool {
        let other = node.boot().filter(|id| *id != now.boot);
        if let Some(id) = other
            && self.said.insert("another machine's Node")
        {
            let (node, here) = (&node.name, now.boot);
            warn!(%node, boot = %id, %here, "not publishing: the Node object's bootID differs from this host's");
        }
        other.is_none()
    }

    /// Takes in what became of what was sent.
    fn hear(&mut self, now: NodeTime) {
        while let Ok(done) = self.done.try_recv() {
            match done {
                // Its name is in use: it is the one that we sent, and whose answer was lost.
                Done::Event(key, Err(error)) if error.code != Some(409) => {
                    self.complain("events", &error);
                    let rest = self.denied.rest("events", &error, now);
                    self.recorder.refused(&key, error.code, rest, now);
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
                    let rest = self.denied.rest("conditions", &error, now);
                    self.conditions.refused(now, rest);
                }
            }
        }
    }

    /// Once for each time of trouble; metrics count the rest.
    fn complain(&mut self, what: &'static str, error: &ApiError) {
        if self.said.insert(what) {
            warn!(why = %error, "failed to write {what}; will retry");
        } else {
            debug!(why = %error, "failed to write {what}");
        }
    }

    fn works_again(&mut self, what: &'static str) {
        self.denied.0.remove(what);
        if self.said.remove(what) {
            info!("writing {what} works again");
        }
    }

    /// What must be kept over a restart.
    pub fn memory(&self) -> PublishedEvents {
        self.recorder.memory()
    }

    /// What it came to so far.
    pub fn figures(&self) -> PublishFigures {
        PublishFigures { events: self.recorder.counts(), conditions: self.conditions.counts() }
    }
}

async fn send_events(api: Api, mut jobs: UnboundedReceiver<EventToSend>, done: UnboundedSender<Done>) {
    let mut trouble: Option<(Instant, ApiError)> = None;
    while let Some(EventToSend { key, path, body }) = jobs.recv().await {
        // One that does not answer is not asked for each of many: the recorder that waits for them would take them for lost.
        let known =
            trouble.as_ref().filter(|(since, _)| since.elapsed() < TROUBLE_LASTS).map(|(_, error)| error.clone());
        let outcome = match known {
            Some(error) => Err(error),
            None => api.create(&path, &body).await.map(drop),
        };
        trouble = match &outcome {
            Err(error) if error.code.is_none() => trouble.take().or_else(|| Some((Instant::now(), error.clone()))),
            _ => None,
        };
        if trouble.as_ref().is_some_and(|(since, _)| since.elapsed() >= TROUBLE_LASTS) {
            trouble = None;
        }
        if done.send(Done::Event(key, outcome)).is_err() {
            return;
        }
    }
}

async fn send_patches(api: Api, mut jobs: UnboundedReceiver<Value>, done: UnboundedSender<Done>) {
    let path = format!("/api/v1/nodes/{}/status", api.node);
    while let Some(patch) = jobs.recv().await {
        let outcome = api.patch(&path, Patch::Strategic, &patch).await.map(drop);
        if done.send(Done::Conditions(outcome)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::BootId;
    use crate::facts::Cause;

    #[test]
    fn a_right_is_missing_when_it_was_for_a_minute() {
        let start =
            NodeTime { boot: BootId::default(), up: Duration::from_secs(100), wall: jiff::Timestamp::UNIX_EPOCH };
        let mut denials = Denials::default();
        let mut after = |seconds, code| {
            let error = ApiError { cause: Cause::Denied, code: Some(code), why: "no".into(), retry_after: None };
            denials.rest("events", &error, start.plus(Duration::from_secs(seconds)))
        };
        assert_eq!([after(0, 403), after(59, 403), after(60, 403)], [None, None, Some(MISSING_RIGHT)]);
        assert_eq!([after(70, 500), after(80, 403)], [None, None], "it was heard in between");
    }
}
