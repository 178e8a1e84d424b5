//! The agent's link to the kubelet of its node: there, or not wanted.

use std::future::pending;
use std::time::Duration;

use tokio::time::timeout;

use super::kube_connection::node_name;
use crate::collect::clock::Clock;
use crate::collect::kubelet::provider::Kubelet;
use crate::config::Config;
use crate::facts::{NodeTime, Observation};
use crate::kube_api::ServiceAccount;

/// How long a check waits for an answer: a little longer than a request may take.
const PATIENCE: Duration = Duration::from_millis(5500);

/// The kubelet's API as the agent has it.
pub(super) struct KubeletConnection {
    collector: Option<Kubelet>,
}

impl KubeletConnection {
    /// Nothing is asked before the kubelet was seen to run.
    pub fn open(config: &Config, clock: Clock) -> Self {
        let start = |address| Kubelet::start(address, node_name(config), ServiceAccount::default(), clock);
        Self { collector: config.kubelet_address.map(start) }
    }

    /// Asks where what was seen of the kubelet makes that due; how many requests that are. The answers come by [`Self::take`].
    pub fn follow(&mut self, seen: &[Observation], now: NodeTime) -> usize {
        self.collector.as_mut().map_or(0, |collector| collector.follow(seen, now))
    }

    /// What came since the last time.
    pub fn take(&self) -> Vec<Observation> {
        self.collector.iter().flat_map(Kubelet::take).collect()
    }

    /// Waits for the answers to so many requests.
    pub async fn settle(&self, asked: usize) -> Vec<Observation> {
        let mut seen = self.take();
        while seen.len() < asked {
            // A request ends before this does: its own reason comes as an observation.
            if timeout(PATIENCE, self.news()).await.is_err() {
                break;
            }
            seen.extend(self.take());
        }
        seen
    }

    /// Waits for something that is worth a cycle.
    pub async fn news(&self) {
        match &self.collector {
            Some(collector) => collector.news().await,
            None => pending().await,
        }
    }
}
