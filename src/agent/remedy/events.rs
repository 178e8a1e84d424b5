//! Events about acts that have ended: on the Node, one for each act. An event that cannot be written stops nothing.

use serde_json::{Value, json};
use tracing::{debug, warn};

use crate::engine::Engine;
use crate::facts::NodeTime;
use crate::kube_api::Api;
use crate::pacing::fingerprint;
use crate::remedy::journal::{Acted, Intent};
use crate::remedy::score::Ending;
use crate::report::events::CONTROLLER;

/// Events that wait for an API server that does not answer; further ones are dropped.
const MAX_PENDING: usize = 32;
/// The API server refuses a longer note.
const MAX_NOTE: usize = 1000;
const PATH: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

/// An act that has ended.
#[derive(Debug)]
pub(super) struct Pending {
    case: u64,
    note: String,
    ending: Ending,
    at: NodeTime,
}

impl Pending {
    pub fn new(case: u64, intent: &Intent, acted: Acted, at: NodeTime) -> Self {
        let Acted { ending, why } = acted;
        let note = match ending {
            Ending::Done => format!("Done: {} ({})", intent.act, intent.pod),
            Ending::Stopped => {
                format!("Stopped, nothing was unmounted and no file removed: {} ({}): {why}", intent.act, intent.pod)
            }
            Ending::Interrupted => format!("Interrupted, and not done again: {} ({}): {why}", intent.act, intent.pod),
            Ending::Failed => {
                format!(
                    "Failed, no further act of this kind is done on this node: {} ({}): {why}",
                    intent.act, intent.pod
                )
            }
        };
        let note: String = note.chars().filter(|c| !c.is_control()).collect();
        Self { case, note: cut(note), ending, at }
    }

    fn body(&self, node: &str, node_uid: &str) -> Value {
        let (reason, kind) = match self.ending {
            Ending::Done => ("RemedyDone", "Normal"),
            Ending::Stopped => ("RemedyStopped", "Normal"),
            Ending::Interrupted => ("RemedyInterrupted", "Warning"),
            Ending::Failed => ("RemedyFailed", "Warning"),
        };
        // Each try has the same name: a second one is refused as a double.
        let name = fingerprint(&[node_uid, &self.at.boot.to_string(), &self.case.to_string(), reason]);
        let prefix: String = node.chars().take(200).collect();
        json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": format!("{}.{name:016x}", prefix.trim_end_matches(['.', '-'])), "namespace": "default"},
            "eventTime": self.at.wall.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
            "reportingController": CONTROLLER,
            "reportingInstance": node.chars().take(128).collect::<String>(),
            "action": "Remedy",
            "reason": reason,
            "type": kind,
            "regarding": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid},
            "note": self.note,
        })
    }
}

fn cut(mut text: String) -> String {
    let end = (0..=MAX_NOTE.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    text.truncate(end);
    text
}

/// Events that wait.
#[derive(Debug, Default)]
pub(super) struct Events(Vec<Pending>);

impl Events {
    pub fn push(&mut self, event: Pending) {
        if self.0.len() < MAX_PENDING {
            self.0.push(event);
        }
    }

    /// Writes what waits. Where the API server does not answer, the rest waits for the next pass.
    pub async fn send(&mut self, engine: &Engine, api: &Api) {
        let Ok(node_uid) = crate::remedy::node_uid(engine) else { return };
        while let Some(event) = self.0.first() {
            match api.create(PATH, &event.body(&api.node, node_uid)).await {
                Ok(_) => {}
                Err(error) if error.code == Some(409) => {}
                Err(error) if error.code.is_some_and(|code| (400..500).contains(&code) && code != 429) => {
                    warn!(why = %error, "an event about an act is not written");
                }
                Err(error) => {
                    debug!(why = %error, "events wait for the API server");
                    return;
                }
            }
            self.0.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::performer::tests::{act, at};
    use super::*;

    #[test]
    fn each_end_of_an_act_is_one_event_on_the_node_of_bounded_length() {
        let intent = Intent { act: act(7), pod: "default/db".into(), volume: None, kubelet_started: Duration::ZERO };
        for (ending, reason, kind) in [
            (Ending::Done, "RemedyDone", "Normal"),
            (Ending::Stopped, "RemedyStopped", "Normal"),
            (Ending::Interrupted, "RemedyInterrupted", "Warning"),
            (Ending::Failed, "RemedyFailed", "Warning"),
        ] {
            let event = Pending::new(3, &intent, Acted::new(ending, "é\n".repeat(2000)), at(100));
            let body = event.body("node-a", "uid-a");
            assert_eq!((&body["reason"], &body["type"]), (&json!(reason), &json!(kind)));
            assert_eq!(body["regarding"]["name"], "node-a");
            assert_eq!(body["reportingController"], CONTROLLER);
            let note = body["note"].as_str().unwrap();
            assert!(note.len() <= 1024 && note.contains("default/db") && !note.contains('\n'), "{note}");
            assert_eq!(body["metadata"]["name"], event.body("node-a", "uid-a")["metadata"]["name"]);
            assert_ne!(body["metadata"]["name"], event.body("node-a", "uid-b")["metadata"]["name"]);
        }
    }
}
