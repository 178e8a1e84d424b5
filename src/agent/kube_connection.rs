//! The agent's link to the API server: connected, not wanted, or unavailable, and the report has which.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::publish::StatusPublisher;
use super::state::StateDir;
use crate::collect::clock::Clock;
use crate::collect::{Cluster, pod_services};
use crate::config::Config;
use crate::engine::Engine;
use crate::facts::{Cause, Lookup, NodeTime, Observation, Provider, Reading, Source, SourceSet, Unknown};
use crate::finding::Finding;
use crate::kube_api::{Access, Api, ApiError, connect};
use crate::report::Report;
use crate::report::events::PublishedEvents;
use crate::report::metrics::{ApiFigures, PublishFigures};
use crate::report::note::{About, Note};

/// The API server as the agent has it.
pub(super) struct KubeConnection {
    state: State,
    /// What there is to say once about having none.
    unreported: Option<Unknown>,
    /// Whether the first words have been waited for.
    settled: bool,
    config: Config,
}

enum State {
    /// Watched and asked.
    Open { api: Api, cluster: Cluster, publisher: Option<Box<StatusPublisher>> },
    /// Not asked for, and no pod of a cluster.
    None,
    /// Wanted, and unavailable: tried again now and then, as credentials may come later than we do.
    Broken { error: ApiError, tried: NodeTime },
}

/// Time between two tries to connect.
const MEND_EACH: Duration = Duration::from_secs(60);

impl KubeConnection {
    /// Connects where the settings or the surroundings say so. What is wrong is said, and the node watched without.
    pub async fn open(config: &Config, clock: Clock) -> Self {
        let access = access(config).filter(|_| config.kubernetes);
        let Some(access) = access else {
            return Self { state: State::None, unreported: None, settled: false, config: config.clone() };
        };
        match connect(&access, &node_name(config)).await {
            Ok(api) => {
                info!(server = %api.server, node = %api.node, namespace = %api.namespace, "watching this node's objects");
                let cluster = Cluster::start(&api, clock, config.pod_name.clone());
                let state = State::Open { api, cluster, publisher: None };
                Self { state, unreported: None, settled: false, config: config.clone() }
            }
            Err(error) => {
                warn!(why = %error, "Kubernetes API unavailable; continuing with host checks only");
                let unreported = Some(error.unknown());
                let state = State::Broken { error, tried: clock.now() };
                Self { state, unreported, settled: false, config: config.clone() }
            }
        }
    }

    /// Tries again where it could not connect.
    pub async fn mend(&mut self, state: &StateDir, clock: Clock) {
        let State::Broken { tried, .. } = &self.state else { return };
        if clock.now().since(tried).is_some_and(|passed| passed < MEND_EACH) {
            return;
        }
        let config = self.config.clone();
        *self = Self::open(&config, clock).await;
        if config.publish_status {
            self.publish_from(state.published(), clock.now());
        }
    }

    /// The connection itself, while there is one.
    pub fn api(&self) -> Option<&Api> {
        match &self.state {
            State::Open { api, .. } => Some(api),
            State::None | State::Broken { .. } => None,
        }
    }

    /// Why there is no client, where one was wanted.
    pub fn error(&self) -> Option<&ApiError> {
        match &self.state {
            State::Broken { error, .. } => Some(error),
            State::Open { .. } | State::None => None,
        }
    }

    /// Which Services select the pods of this node: asked only as the operator that a kubeconfig is of, never as a pod's service account.
    pub async fn pod_services(&self, clock: Clock) -> Option<Observation> {
        let State::Open { api, .. } = &self.state else { return None };
        if !matches!(access(&self.config), Some(Access::Kubeconfig { .. })) {
            return None;
        }
        let read = pod_services(api).await.map_err(|error| error.unknown());
        Some(Observation::PodServices(Reading::of(read, clock.now())))
    }

    /// What came since the last time.
    pub fn take(&mut self) -> Vec<Observation> {
        match &self.state {
            State::Open { cluster, .. } => cluster.take(),
            State::None | State::Broken { .. } => {
                let sources = SourceSet::of_provider(Provider::Api);
                let why = self.unreported.take();
                why.map(|why| sources.iter().map(|s| Observation::unknown(s, why.clone())).collect())
                    .unwrap_or_default()
            }
        }
    }

    /// Puts lookups; their answers come by [`KubeConnection::take`]. Says whether any was put.
    pub fn look_up(&self, lookups: Vec<Lookup>) -> bool {
        let State::Open { cluster, .. } = &self.state else { return false };
        let any = !lookups.is_empty();
        cluster.look_up(lookups);
        any
    }

    /// Waits for the answers that a single check cannot do without, or for what it asked; no longer than this.
    pub async fn settle(&mut self, patience: Duration) -> Vec<Observation> {
        let mut seen = self.take();
        let State::Open { .. } = &self.state else { return seen };
        let end = Instant::now() + patience;
        // Our Node and our pods come first and each by itself; a little later nothing more is on its way.
        while timeout_at(end, self.news()).await.is_ok() {
            sleep(Duration::from_millis(200)).await;
            seen.extend(self.take());
            let published: SourceSet = seen.iter().map(Observation::source).collect();
            if self.settled || (published.has(Source::Node) && published.has(Source::Pods)) {
                break;
            }
        }
        if !std::mem::replace(&mut self.settled, true) {
            let published: SourceSet = seen.iter().map(Observation::source).collect();
            let why =
                || Unknown::new(Cause::Stuck, format!("no word from the API server within {} s", patience.as_secs()));
            let missing = [Source::Node, Source::Pods].into_iter().filter(|source| !published.has(*source));
            seen.extend(missing.map(|source| Observation::unknown(source, why())));
        }
        seen
    }

    /// Waits for something that is worth a cycle.
    pub async fn news(&self) {
        match &self.state {
            State::Open { cluster, .. } => cluster.news().await,
            State::None | State::Broken { .. } => pending().await,
        }
    }

    /// From now on what is found is published as well; a check publishes nothing.
    pub fn publish_from(&mut self, memory: PublishedEvents, now: NodeTime) {
        if let State::Open { api, publisher, .. } = &mut self.state {
            *publisher = Some(Box::new(StatusPublisher::new(api, memory, now)));
        }
    }

    /// Writes what is due after a cycle.
    pub fn publish(&mut self, engine: &Engine, report: &Report, now: NodeTime) {
        if let State::Open { publisher: Some(publisher), .. } = &mut self.state {
            publisher.publish(engine, report, now);
        }
    }

    /// This finding is dropped without being resolved: nothing more is written of it.
    pub fn forget(&mut self, finding: &Finding) {
        if let State::Open { publisher: Some(publisher), .. } = &mut self.state {
            publisher.forget(finding);
        }
    }

    /// What was published, for the next agent; none where nothing is published.
    pub fn published(&self) -> Option<PublishedEvents> {
        match &self.state {
            State::Open { publisher, .. } => publisher.as_ref().map(|publisher| publisher.memory()),
            State::None | State::Broken { .. } => None,
        }
    }

    /// What telling came to, in numbers.
    pub fn publish_figures(&self) -> PublishFigures {
        match &self.state {
            State::Open { publisher: Some(publisher), .. } => publisher.figures(),
            _ => PublishFigures::default(),
        }
    }

    /// What a reader of the report must know.
    pub fn note(&self) -> Note {
        let text = match &self.state {
            State::Open { api, .. } => format!("as {} at {}", api.node, api.server),
            State::None => "not asked, only this machine was checked (give --kubeconfig)".to_owned(),
            State::Broken { error, .. } => format!("not asked: {error}"),
        };
        Note::new(About::Cluster, text)
    }

    /// What was asked so far, in numbers.
    pub fn figures(&self) -> ApiFigures {
        match &self.state {
            State::Open { api, .. } => figures(api),
            State::None | State::Broken { .. } => ApiFigures::default(),
        }
    }
}

pub(super) fn figures(api: &Api) -> ApiFigures {
    let requests = api.meter().requests().into_iter();
    let requests = requests.map(|((verb, code), count)| ((verb.name(), code), count));
    ApiFigures::of(requests, api.meter().received_bytes())
}

/// Where the settings, or the surroundings, say that the API server is.
pub(super) fn access(config: &Config) -> Option<Access> {
    Access::find(config.kubeconfig.as_deref(), config.kubeconfig_variable.as_deref(), config.context.as_deref())
}

/// The Node's name: as set, else the host's, which most kubelets use.
pub(super) fn node_name(config: &Config) -> String {
    let hostname = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    config.node_name.clone().or_else(hostname).unwrap_or_default()
}
