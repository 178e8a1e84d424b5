//! The agent's link to the kubelet of its node: there, or not wanted.

use std::future::pending;
use std::time::Duration;

use tokio::time::timeout;

use super::kube_connection::node_name;
use crate::collect::clock::Clock;
use crate::collect::kubelet::configz::Configz;
use crate::config::Config;
use crate::facts::{NodeTime, Observation};
use crate::kube_api::ServiceAccount;

/// How long a check waits for an answer: a little longer than a request may take.
const PATIENCE: Duration = Duration::from_millis(2500);

/// The kubelet's API as the agent has it.
pub(super) struct KubeletConnection {
    collector: Option<Configz>,
}

impl KubeletConnection {
    /// Nothing is asked before the kubelet was seen to run.
    pub fn open(config: &Config, clock: Clock) -> Self {
        let start = |address| Configz::start(address, node_name(config), ServiceAccount::default(), clock);
        Self { collector: config.kubelet_address.map(start) }
    }

    /// Asks where what was seen of the kubelet makes that due; whether it did. The answer comes by [`Self::take`].
    pub fn follow(&mut self, seen: &[Observation], now: NodeTime) -> bool {
        self.collector.as_mut().is_some_and(|collector| collector.follow(seen, now))
    }

    /// What came since the last time.
    pub fn take(&self) -> Vec<Observation> {
        self.collector.iter().flat_map(Configz::take).collect()
    }

    /// Waits for what was asked.
    pub async fn settle(&self) -> Vec<Observation> {
        // A request ends before this does: its own reason comes as an observation.
        let _ = timeout(PATIENCE, self.news()).await;
        self.take()
    }

    /// Waits for something that is worth a cycle.
    pub async fn news(&self) {
        match &self.collector {
            Some(collector) => collector.news().await,
            None => pending().await,
        }
    }
}
