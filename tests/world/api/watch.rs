//! WATCH: what is there, what happens, bookmarks, and an end.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch as signal;
use tokio::time::{Instant, sleep_until};

use super::faults::EndWatches;
use super::line::Cut;
use super::query::{Query, Selector};
use super::refusal::{Cause, Refusal};
use super::resource::{Resource, Target};
use super::serve::{Chunks, break_off};
use super::store::{Change, Store};
use super::{Shared, Tick};

/// How long a watch lasts that does not say.
const LIFETIME: Duration = Duration::from_secs(1800);

/// Bookmarks come so often, and once so long before the end.
const BOOKMARKS: Duration = Duration::from_secs(60);
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// What a server says to a streaming list that its etcd is too old for.
const NO_PROGRESS: &str =
    "a watch stream was requested by the client but the required storage feature RequestWatchProgress is disabled";

/// A watch that has been let in.
pub struct Plan {
    resource: &'static Resource,
    namespace: Option<String>,
    selector: Selector,
    /// What is sent first.
    first: Vec<Value>,
    /// What happened up to here has been sent; none if it is over after what is sent first.
    position: Option<u64>,
    /// A bookmark is newer than this: before, there is nothing to mark.
    began: u64,
    bookmarks: bool,
    lifetime: Duration,
    tick: signal::Receiver<Tick>,
    ends: usize,
}

impl Shared {
    pub fn watch(&self, target: &Target<'_>, query: &Query) -> Result<Plan, Refusal> {
        let initial = query.flag("sendInitialEvents");
        let matched = query.text("resourceVersionMatch");
        check_match(target.resource, initial.is_some(), matched)?;
        let state = self.lock();
        // Subscribed under the lock: nothing happens between the first events and the others.
        let tick = self.tick.subscribe();
        let ends = tick.borrow().ends;
        let mut plan = Plan {
            resource: target.resource,
            namespace: target.namespace.map(str::to_owned),
            selector: Selector::parse(target.resource, query.text("fieldSelector").unwrap_or_default())?,
            first: Vec::new(),
            position: Some(state.store.version()),
            began: state.store.version(),
            bookmarks: query.flag("allowWatchBookmarks") == Some(true),
            lifetime: query.number("timeoutSeconds")?.filter(|s| *s > 0).map_or(LIFETIME, Duration::from_secs),
            tick,
            ends,
        };
        let asked = query.number::<u64>("resourceVersion")?.unwrap_or(0);
        plan.begin(&state.store, asked, initial, state.streams);
        Ok(plan)
    }
}

fn check_match(resource: &Resource, initial: bool, matched: Option<&str>) -> Result<(), Refusal> {
    let field = "resourceVersionMatch";
    let cause = match (initial, matched) {
        (true, Some("NotOlderThan")) | (false, None) => return Ok(()),
        (true, _) => Cause::forbidden(field, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        (false, _) => {
            Cause::forbidden(field, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
        }
    };
    Err(Refusal::invalid("ListOptions", resource.group, "", &[cause]))
}

impl Plan {
    fn begin(&mut self, store: &Store, asked: u64, initial: Option<bool>, streams: bool) {
        match (asked, initial) {
            (_, Some(true)) if self.bookmarks && !streams => {
                self.first = vec![json!({"type": "ERROR", "object": Refusal::internal(NO_PROGRESS).status()})];
                self.position = None;
            }
            (_, Some(true)) => {
                self.first = self.present(store);
                if self.bookmarks {
                    let mut end = self.bookmark(store.version());
                    end["object"]["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
                    self.first.push(end);
                }
            }
            (0, None) => self.first = self.present(store),
            (0, Some(false)) => {}
            (asked, _) => match store.reaches(asked) {
                Ok(()) => (self.position, self.began) = (Some(asked), asked),
                Err(why) => {
                    self.first = vec![json!({"type": "ERROR", "object": Refusal::too_old(&why).status()})];
                    self.position = None;
                }
            },
        }
    }

    fn present(&self, store: &Store) -> Vec<Value> {
        let all = store.all(self.resource).filter(|(key, _)| self.is_ours(&key.namespace));
        all.filter(|(_, object)| self.selector.takes(object))
            .map(|(_, object)| json!({"type": "ADDED", "object": object}))
            .collect()
    }

    fn is_ours(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|ours| ours == namespace)
    }

    fn bookmark(&self, version: u64) -> Value {
        json!({"type": "BOOKMARK", "object": {
            "kind": self.resource.kind, "apiVersion": self.resource.api_version(),
            "metadata": {"resourceVersion": version.to_string()},
        }})
    }

    /// What a change is to this watch: an object that enters its selection is new to it, one that leaves is gone.
    fn event(&self, change: &Change) -> Option<Value> {
        if change.key.plural != self.resource.plural || !self.is_ours(&change.key.namespace) {
            return None;
        }
        let ours = |object: &&Value| self.selector.takes(object);
        let (before, after) = (change.before.as_ref().filter(ours), change.after.as_ref().filter(ours));
        match (before, after) {
            (None, None) => None,
            (None, Some(after)) => Some(json!({"type": "ADDED", "object": after})),
            (Some(_), Some(after)) => Some(json!({"type": "MODIFIED", "object": after})),
            (Some(before), None) => {
                let mut last = before.clone();
                last["metadata"]["resourceVersion"] = json!(change.version.to_string());
                Some(json!({"type": "DELETED", "object": last}))
            }
        }
    }

    /// What happened since the last call.
    fn news(&mut self, store: &Store) -> Vec<Value> {
        let Some(position) = self.position else { return Vec::new() };
        match store.since(position) {
            Ok(changes) => {
                let events = changes.filter_map(|change| self.event(change)).collect();
                // A version that is yet to come is waited for.
                self.position = Some(position.max(store.version()));
                events
            }
            Err(why) => {
                self.position = None;
                vec![json!({"type": "ERROR", "object": Refusal::too_old(&why).status()})]
            }
        }
    }

    /// Feeds the answer until the client goes, the time is over, or a test says so.
    pub async fn run(mut self, shared: Arc<Shared>, out: Chunks, cut: Cut, fate: Option<EndWatches>) {
        let end = Instant::now() + self.lifetime;
        let mut bookmark = next_bookmark(end);
        let mut events = std::mem::take(&mut self.first);
        if let Some(how) = fate {
            send(&out, &events).await;
            return finish(how, &out, cut).await;
        }
        loop {
            events.extend(self.news(&shared.lock().store));
            if !send(&out, &events).await || self.position.is_none() {
                return;
            }
            events.clear();
            tokio::select! {
                () = out.closed() => return,
                () = sleep_until(end) => return,
                () = sleep_until(bookmark), if self.bookmarks => {
                    let newer = self.position.filter(|version| *version > self.began);
                    events.extend(newer.map(|version| self.bookmark(version)));
                    bookmark = next_bookmark(end);
                }
                _ = self.tick.changed() => {
                    let tick = *self.tick.borrow_and_update();
                    if let (Some(how), true) = (tick.how, tick.ends > self.ends) {
                        return finish(how, &out, cut).await;
                    }
                }
            }
        }
    }
}

fn next_bookmark(end: Instant) -> Instant {
    let now = Instant::now();
    let last = end - LAST_BOOKMARK;
    if last > now { last.min(now + BOOKMARKS) } else { now + BOOKMARKS }
}

/// False when the client is gone.
async fn send(out: &Chunks, events: &[Value]) -> bool {
    for event in events {
        // The type comes first, as a real server writes it.
        let line = format!("{{\"type\":{},\"object\":{}}}\n", event["type"], event["object"]);
        if out.send(Ok(Bytes::from(line))).await.is_err() {
            return false;
        }
    }
    true
}

async fn finish(how: EndWatches, out: &Chunks, cut: Cut) {
    match how {
        EndWatches::Cleanly => {}
        EndWatches::Reset => break_off(out, Some(cut)).await,
        EndWatches::HalfEvent => {
            let _ = out.send(Ok(Bytes::from_static(br#"{"type":"MODIFIED","object":{"ki"#))).await;
            break_off(out, None).await;
        }
        EndWatches::Silently => out.closed().await,
    }
}
