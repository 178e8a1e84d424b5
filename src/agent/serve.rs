//! The agent's addresses: status page, metrics, health, and the report as JSON.
//!
//! Anything on the network may connect, so what a connection can cost is bounded: see [`admission`] and [`http`].

mod admission;
mod http;
mod listen;
pub mod socket;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hyper::body::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use crate::report::metrics::{self, AgentFigures};
use crate::report::note::{About, Note};
use crate::report::{Report, json, page};

use admission::Admission;

/// What there is to show at one time.
#[derive(Debug)]
pub struct Served {
    /// The report of the last cycle; none before the first.
    report: Option<Report>,
    figures: AgentFigures,
    /// When the last cycle ended; before the first, when we began.
    completed: Instant,
    metrics: OnceLock<Bytes>,
    page: OnceLock<Bytes>,
    json: OnceLock<Bytes>,
}

/// What another process than the agent has to show, ready made.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// At `/metrics`.
    pub metrics: String,
    /// At `/`.
    pub page: String,
    /// At `/api/v1/report`.
    pub json: String,
}

impl Default for Served {
    fn default() -> Self {
        Self::new(None, AgentFigures::default())
    }
}

impl Served {
    /// What a cycle that ends now has to show.
    #[must_use]
    pub fn new(report: Option<Report>, figures: AgentFigures) -> Self {
        let (metrics, page, json) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { report, figures, completed: Instant::now(), metrics, page, json }
    }

    /// What a cycle that ends now has to show, in place of a report.
    #[must_use]
    pub fn of_texts(texts: Texts) -> Self {
        let Texts { metrics, page, json } = texts;
        let [metrics, page, json] = [metrics, page, json].map(|text| OnceLock::from(shared(text)));
        Self { metrics, page, json, ..Self::default() }
    }

    /// Whether a cycle has ended.
    fn is_ready(&self) -> bool {
        self.report.is_some() || self.metrics.get().is_some()
    }

    /// The text for Prometheus; none before the first cycle. Like the other two it is made for the first request of a cycle, and all
    /// requests share it.
    fn metrics(&self) -> Option<Bytes> {
        self.text(&self.metrics, |report| metrics::render(report, &self.figures))
    }

    fn page(&self) -> Option<Bytes> {
        self.text(&self.page, page::html)
    }

    fn json(&self) -> Option<Bytes> {
        self.text(&self.json, json::to_json)
    }

    fn text(&self, made: &OnceLock<Bytes>, make: impl FnOnce(&Report) -> String) -> Option<Bytes> {
        match (made.get(), &self.report) {
            (Some(made), _) => Some(made.clone()),
            (None, Some(report)) => Some(made.get_or_init(|| shared(make(report))).clone()),
            (None, None) => None,
        }
    }
}

/// Without the room that the text was given to grow into.
fn shared(text: String) -> Bytes {
    Bytes::from(text.into_boxed_str().into_boxed_bytes())
}

/// What an address offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// Metrics and health alone, for an address that others can reach.
    MetricsAndHealth,
}

impl Scope {
    fn setting(self) -> &'static str {
        match self {
            Self::All => "listen",
            Self::MetricsAndHealth => "metrics-listen",
        }
    }
}

type Watching = watch::Receiver<Arc<Served>>;

/// Serves the last cycle at any number of addresses; requests are answered from it and never cause one.
#[derive(Clone, Debug)]
pub struct Server(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    watching: Watching,
    admission: Mutex<Admission>,
    refused: AtomicU64,
    /// Why an address or the socket is not served, by its name.
    troubles: Mutex<BTreeMap<String, String>>,
}

impl Server {
    /// A server without an address.
    #[must_use]
    pub fn new(watching: Watching) -> Self {
        let (admission, troubles) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { watching, admission, refused: AtomicU64::new(0), troubles }))
    }

    /// Serves an address from now on; one that cannot be had is tried again until it can.
    pub fn serve(&self, address: SocketAddr, scope: Scope) {
        listen::start(Arc::clone(&self.0), address, scope);
    }

    /// Connections that were closed at once because there were too many.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// What a reader of the report must know: where it is not served, and why.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        locked(&self.0.troubles).values().map(|why| Note::new(About::Addresses, why.clone())).collect()
    }
}

impl Shared {
    /// Remembers why something is not served; a line of the log is written where that is news.
    fn fail(&self, name: &str, why: String) {
        if locked(&self.troubles).insert(name.to_owned(), why.clone()).is_none() {
            warn!("{why}");
        }
    }

    /// It is served; whether it was not before.
    fn mend(&self, name: &str) -> bool {
        locked(&self.troubles).remove(name).is_some()
    }
}

/// What a panic left behind is whole: each of these changes in one step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn each_form_is_rendered_once_for_all_requests_and_not_before_one_asks() {
        let served = Served::new(Some(samples::sick()), AgentFigures::default());
        assert!(served.metrics.get().is_none() && served.page.get().is_none() && served.json.get().is_none());
        for render in [Served::metrics, Served::page, Served::json] {
            let (first, second) = (render(&served).unwrap(), render(&served).unwrap());
            assert!(!first.is_empty());
            assert_eq!(first.as_ptr(), second.as_ptr(), "both have the same bytes in memory");
        }
    }
}
