//! The agent's link to IMDS: there, or switched off, which is said once.

use std::future::pending;
use std::time::Duration;

use tokio::time::timeout;

use crate::collect::clock::Clock;
use crate::collect::imds::{BUCKETS, ImdsCollector, Outcome, PATIENCE, Phase, Settings};
use crate::config::Config;
use crate::facts::{Cause, Observation, Provider, SourceSet, Unknown};
use crate::report::metrics::{Histogram, ImdsFigures};

const SWITCHED_OFF: &str = "IMDS is not asked: the setting imds is off (the DaemonSet switches it on)";
const OF_A_COPY: &str = "IMDS is not asked: host-root is a copy of a machine, and IMDS is this one's";

/// IMDS as the agent has it.
pub(super) struct ImdsConnection {
    collector: Result<ImdsCollector, &'static str>,
    /// Whether observations say that it is switched off.
    has_said_so: bool,
}

impl ImdsConnection {
    /// Begins to ask, where that is wanted.
    pub fn open(config: &Config, clock: Clock) -> Self {
        let settings = Settings { address: config.imds_address, probe_v1: config.imds_probe_v1 };
        let collector = match (config.imds, clock.note()) {
            (false, _) => Err(SWITCHED_OFF),
            (true, Some(_)) => Err(OF_A_COPY),
            (true, None) => Ok(ImdsCollector::start(settings, clock)),
        };
        Self { collector, has_said_so: false }
    }

    /// What came since the last time.
    pub fn take(&mut self) -> Vec<Observation> {
        match &self.collector {
            Ok(collector) => collector.take(),
            Err(_) if self.has_said_so => Vec::new(),
            Err(why) => {
                self.has_said_so = true;
                let off = |source| Observation::unknown(source, Unknown::new(Cause::Unsupported, *why));
                SourceSet::of_provider(Provider::Imds).iter().map(off).collect()
            }
        }
    }

    /// Waits for the first answers, no longer than one request may take.
    pub async fn settle(&mut self) -> Vec<Observation> {
        if self.collector.is_ok() {
            let _ = timeout(PATIENCE + Duration::from_millis(100), self.news()).await;
        }
        self.take()
    }

    /// Waits for something that is worth a cycle.
    pub async fn news(&self) {
        match &self.collector {
            Ok(collector) => collector.news().await,
            Err(_) => pending().await,
        }
    }

    /// What was asked so far, in numbers; none where it never is.
    pub fn figures(&self) -> Option<ImdsFigures> {
        let meter = self.collector.as_ref().ok()?.meter();
        let requests = meter.requests();
        let count = |outcome: Outcome| requests.get(&outcome).copied().unwrap_or_default();
        let histogram = |phase: Phase| {
            let latency = meter.latency(phase);
            let bounds = BUCKETS.map(|millis| Duration::from_millis(millis).as_secs_f64());
            let buckets = bounds.into_iter().zip(latency.buckets).collect();
            (phase.name(), Histogram { buckets, count: latency.count, sum: latency.sum.as_secs_f64() })
        };
        Some(ImdsFigures {
            requests_total: Outcome::ALL.map(|outcome| (outcome.name(), count(outcome))).into(),
            latency: Phase::ALL.map(histogram).into(),
        })
    }
}
