//! Why the kubelet does not keep up, where something shows it. It adds to what is said, and decides nothing.

use crate::facts::{ClientLimits, KubeletConfig, KubeletMetrics, Timing};
use crate::finding::Evidence;
use crate::view::Reports;
use crate::view::input::{Known, KnownPair, Paired};

use super::{runtime, seconds, status, work};

/// So many pods that came and went in the window are churn: ten a minute.
const CHURN: u64 = 50;
/// An average wait of so many seconds for the client's own limit holds up the others.
const WAITS: f64 = 0.2;

/// What may show a cause.
pub(super) struct Causes<'c, 'v> {
    pub metrics: &'c KnownPair<'v, KubeletMetrics>,
    pub reports: &'c Reports,
    pub config: &'c Known<'v, KubeletConfig>,
}

impl Causes<'_, '_> {
    fn metrics(&self) -> Option<Paired<'_, KubeletMetrics>> {
        self.metrics.seen().ok()
    }

    /// Why statuses are late.
    pub(super) fn of_status(&self) -> String {
        joined([self.churn(), self.client(), self.runtime()])
    }

    /// Why PLEG is late.
    pub(super) fn of_runtime(&self) -> String {
        joined([self.runtime(), self.churn(), None])
    }

    fn churn(&self) -> Option<String> {
        let Reports { came, went, .. } = self.reports;
        let minutes = status::WINDOW.as_secs() / 60;
        (came.saturating_add(*went) >= CHURN)
            .then(|| format!("pod churn: {came} pods came and {went} went in {minutes} minutes"))
    }

    fn client_waits(&self) -> Option<Timing> {
        work(&self.metrics()?, |metrics| &metrics.client_waits, "rest_client_rate_limiter_duration_seconds").ok()
    }

    fn client(&self) -> Option<String> {
        let average = self.client_waits()?.average().filter(|average| *average >= WAITS)?;
        let limits = self
            .limits()
            .map_or(String::new(), |limits| format!(" (kubeAPIQPS {}, kubeAPIBurst {})", limits.qps, limits.burst));
        Some(format!(
            "each of the kubelet's requests waits {} for the rate limit of its client{limits}",
            seconds(average)
        ))
    }

    fn limits(&self) -> Option<ClientLimits> {
        let config = self.config.seen().ok()?;
        config.value.options.client.seen().ok().flatten().copied()
    }

    fn runtime(&self) -> Option<String> {
        let (calls, _) = runtime::quick(&self.metrics()?).ok()?;
        let average = runtime::slow(&calls.answered)?;
        Some(format!("the container runtime takes {} to answer", seconds(average)))
    }

    /// What the kubelet's own figures add.
    pub(super) fn evidence(&self) -> Vec<Evidence> {
        let Some(metrics) = self.metrics() else { return Vec::new() };
        let updates =
            work(&metrics, |metrics| &metrics.status_updates, "kubelet_pod_status_sync_duration_seconds").ok();
        let updates = updates.and_then(|updates| Some((updates.count, updates.average()?)));
        let updates =
            updates.map(|(count, average)| format!("{count} updates of statuses took {} each", seconds(average)));
        let waits = self.client_waits().filter(|waits| waits.count > 0);
        let waits = waits.map(|waits| {
            format!("{} requests waited {} together for the client's limit", waits.count, seconds(waits.seconds))
        });
        [updates, waits].into_iter().flatten().map(|said| metrics.now.says(said)).collect()
    }
}

fn joined(causes: [Option<String>; 3]) -> String {
    causes.into_iter().flatten().fold(String::new(), |all, cause| format!("{all}; {cause}"))
}
