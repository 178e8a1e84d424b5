//! When each agent of the cluster last reported: the Nodes, listed page by page each ten minutes.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::mailbox::Mailbox;
use super::objects::{RawNode, node_from};
use super::watch::{Page, list_in_pages};
use super::{BETWEEN_PAGES, expect_kind, parse};
use crate::collect::clock::Clock;
use crate::facts::{AgentReport, AgentReports, Cause, Observation, Reading, Source, Unknown};
use crate::kube_api::{Api, ApiError, Piece, take_apart};
use crate::pacing::{Backoff, spread};

/// A heartbeat is written each five minutes, and missed after fifteen. A Node has some 15 KiB.
const EVERY: Duration = Duration::from_secs(600);
/// What failed is tried again between these.
const AGAIN: Duration = Duration::from_secs(30);
/// A list that is there already is taken apart as one piece.
const WHOLE: NonZeroUsize = NonZeroUsize::MAX;
/// More Nodes than a cluster may have.
const MAX_NODES: usize = 20_000;

/// The Nodes that were read so far.
#[derive(Default)]
struct Reports {
    nodes: BTreeMap<String, AgentReport>,
    lacks: Option<Unknown>,
}

impl Reports {
    fn take(&mut self, node: Piece<'_>) {
        let node = match node {
            Piece::Whole(node) => parse::<RawNode>(node).and_then(node_from),
            Piece::TooLarge(_) => Err(Unknown::new(Cause::TooLarge, "a Node is too large to be read")),
        };
        match node {
            Ok(node) if self.nodes.len() < MAX_NODES => {
                let report = AgentReport::from(&node);
                self.nodes.insert(node.name, report);
            }
            Ok(_) => self.lack(Unknown::new(Cause::TooLarge, format!("more than {MAX_NODES} Nodes"))),
            Err(why) => self.lack(why),
        }
    }

    fn lack(&mut self, why: Unknown) {
        self.lacks.get_or_insert(why);
    }

    fn end(self) -> AgentReports {
        AgentReports::with_incomplete(self.nodes, self.lacks)
    }
}

pub(super) async fn repeat(api: Api, clock: Clock, mailbox: Arc<Mailbox>) {
    let mut backoff = Backoff::new(AGAIN, EVERY);
    loop {
        let (observation, wait) = match read(&api).await {
            Ok(value) => {
                backoff.reset();
                (Observation::AgentReports(Reading::Known { value, at: clock.now() }), spread(EVERY, 0.1))
            }
            Err(error) => {
                let wait = backoff.wait().max(error.retry_after.unwrap_or_default());
                (Observation::unknown(Source::AgentReports, error.unknown()), wait)
            }
        };
        mailbox.put(observation);
        sleep(wait).await;
    }
}

/// From the server's memory (version 0): a list of the newest would have etcd read all Nodes.
async fn read(api: &Api) -> Result<AgentReports, ApiError> {
    let mut reports = Reports::default();
    let path = "/api/v1/nodes?limit=250&resourceVersion=0";
    list_in_pages(api, path, ("the list of Nodes", "NodeList"), BETWEEN_PAGES, |node| reports.take(node)).await?;
    Ok(reports.end())
}

/// A list of Nodes, as `kubectl get nodes -o json` prints it.
///
/// # Errors
/// When it is no such list.
pub fn read_agent_reports(list: &[u8]) -> Result<AgentReports, Unknown> {
    let mut reports = Reports::default();
    let rest = take_apart(list, WHOLE, |node| reports.take(node)).map_err(|error| error.unknown())?;
    // kubectl calls each list so.
    let kind = parse::<Page>(&rest)?.kind;
    let expected = if kind == "List" { "List" } else { "NodeList" };
    expect_kind("the list of Nodes", expected, &kind).map_err(|error| error.unknown())?;
    Ok(reports.end())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str, conditions: &str) -> String {
        format!(r#"{{"metadata":{{"name":"{name}","uid":"u-{name}"}},"status":{{"conditions":[{conditions}]}}}}"#)
    }

    fn list(nodes: &[String]) -> String {
        format!(r#"{{"kind":"NodeList","metadata":{{}},"items":[{}]}}"#, nodes.join(","))
    }

    #[test]
    fn the_latest_heartbeat_of_barnacles_conditions_counts() {
        let condition = |of: &str, at: &str| format!(r#"{{"type":"{of}","status":"True","lastHeartbeatTime":"{at}"}}"#);
        let conditions = [
            condition("Ready", "2026-11-21T00:09:00Z"),
            condition("BarnacleVolumeProblem", "2026-11-21T00:01:00Z"),
            condition("BarnacleDegraded", "2026-11-21T00:02:00Z"),
        ];
        let reports = read_agent_reports(list(&[node("a", &conditions.join(",")), node("b", "")]).as_bytes()).unwrap();
        let of_a = AgentReport {
            last: "2026-11-21T00:02:00Z".parse().ok(),
            ready: Some("True".to_owned()),
            kubelet: "2026-11-21T00:09:00Z".parse().ok(),
            ready_since: None,
        };
        assert_eq!(reports.get(&"a".to_owned()), Some(&of_a));
        assert_eq!(reports.get(&"b".to_owned()), Some(&AgentReport::default()));
        assert_eq!(reports.incomplete(), None);
    }

    #[test]
    fn what_cannot_be_read_makes_the_list_incomplete_and_what_is_no_list_is_none() {
        let reports = read_agent_reports(list(&[node("a", ""), "{}".to_owned()]).as_bytes()).unwrap();
        assert!(reports.len() == 1 && reports.incomplete().is_some());
        for text in ["", "{}", "[]", r#"{"kind":"PodList","items":[]}"#, r#"{"items":[]}"#] {
            assert!(read_agent_reports(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_list_is_bounded() {
        let nodes: Vec<_> = (0..=MAX_NODES).map(|n| node(&format!("n{n}"), "")).collect();
        let reports = read_agent_reports(list(&nodes).as_bytes()).unwrap();
        assert!(reports.len() == MAX_NODES && reports.incomplete().is_some());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, at in 0usize..300, byte: u8) {
            let mut damaged = list(&[node("a", r#"{"type":"Ready","status":"True"}"#)]).into_bytes();
            if let Some(place) = damaged.get_mut(at) {
                *place = byte;
            }
            let _ = read_agent_reports(&bytes);
            let _ = read_agent_reports(&damaged);
        }
    }
}
