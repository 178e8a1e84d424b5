//! The agent's link to the kubelet of its node: its HTTPS endpoint, where that is wanted, and its socket, where that is there.

use std::future::pending;
use std::time::Duration;

use tokio::time::timeout;

use super::kube_connection::node_name;
use crate::collect::clock::Clock;
use crate::collect::kubelet::pods_api::PodsApi;
use crate::collect::kubelet::provider::Kubelet;
use crate::config::Config;
use crate::facts::{NodeTime, Observation};
use crate::kube_api::ServiceAccount;

/// How long a check waits for an answer: a little longer than a request may take.
const PATIENCE: Duration = Duration::from_millis(5500);

/// The kubelet as the agent asks it.
pub(super) struct KubeletConnection {
    collector: Option<Kubelet>,
    /// None where the root cannot be opened, of which the host's collectors say why.
    pods: Option<PodsApi>,
}

impl KubeletConnection {
    /// Nothing is asked before the kubelet was seen to run.
    pub fn open(config: &Config, clock: Clock) -> Self {
        let start = |address| Kubelet::start(address, node_name(config), ServiceAccount::default(), clock);
        let pods = super::root(config).ok().map(|root| PodsApi::new(root, &config.kubelet_root, clock));
        Self { collector: config.kubelet_address.map(start), pods }
    }

    /// Asks where what was seen of the kubelet makes that due; how many requests that are. The answers come by [`Self::take`].
    pub fn follow(&mut self, seen: &[Observation], now: NodeTime) -> usize {
        let asked = self.collector.as_mut().map_or(0, |collector| collector.follow(seen, now));
        asked + self.pods.as_mut().map_or(0, |pods| pods.follow(seen, now))
    }

    /// What came since the last time.
    pub fn take(&self) -> Vec<Observation> {
        let of_socket = self.pods.iter().flat_map(PodsApi::take);
        self.collector.iter().flat_map(Kubelet::take).chain(of_socket).collect()
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
        let of_api = async {
            match &self.collector {
                Some(collector) => collector.news().await,
                None => pending().await,
            }
        };
        let of_socket = async {
            match &self.pods {
                Some(pods) => pods.news().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = of_api => {}
            () = of_socket => {}
        }
    }
}
