//! The agent's link to the API server: there, not wanted, or not to be had, and each of them said.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::state::StateDir;
use super::tell::Teller;
use crate::api::{Access, Api, ApiError, connect};
use crate::config::Config;
use crate::engine::Engine;
use crate::facts::{Cause, Moment, Observation, Question, Source, SourceSet, Unknown, Witness};
use crate::finding::Finding;
use crate::observe::Cluster;
use crate::observe::clock::Clock;
use crate::report::Report;
use crate::report::events::Memory;
use crate::report::metrics::{ApiFigures, TellFigures};
use crate::report::note::{About, Note};

/// The API server as the agent has it.
pub(super) struct Link {
    state: State,
    /// What there is to say once about having none.
    unsaid: Option<Unknown>,
    /// Whether the first words have been waited for.
    settled: bool,
    config: Config,
}

enum State {
    /// Watched and asked.
    Open { api: Api, cluster: Cluster, teller: Option<Box<Teller>> },
    /// Not asked for, and no pod of a cluster.
    None,
    /// Wanted, and not to be had: tried again now and then, as credentials may come later than we do.
    Broken { error: ApiError, tried: Moment },
}

/// Time between two tries to connect.
const MEND_EACH: Duration = Duration::from_secs(60);

impl Link {
    /// Connects where the settings or the surroundings say so. What is wrong is said, and the node watched without.
    pub async fn open(config: &Config, clock: Clock) -> Self {
        let access = Access::find(config.kubeconfig.as_deref()).filter(|_| config.kubernetes);
        let Some(access) = access else {
            return Self { state: State::None, unsaid: None, settled: false, config: config.clone() };
        };
        match connect(&access, &node_name(config)).await {
            Ok(api) => {
                info!(server = %api.server, node = %api.node, namespace = %api.namespace, "watching this node's objects");
                let cluster = Cluster::start(&api, clock, config.pod_name.clone());
                let state = State::Open { api, cluster, teller: None };
                Self { state, unsaid: None, settled: false, config: config.clone() }
            }
            Err(error) => {
                warn!(why = %error, "the API server is not asked; what the machine itself shows is watched all the same");
                let unsaid = Some(error.unknown());
                let state = State::Broken { error, tried: clock.now() };
                Self { state, unsaid, settled: false, config: config.clone() }
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
            self.tell_from(state.told(), clock.now());
        }
    }

    /// What came since the last time.
    pub fn take(&mut self) -> Vec<Observation> {
        match &self.state {
            State::Open { cluster, .. } => cluster.take(),
            State::None | State::Broken { .. } => {
                let sources = SourceSet::of_witness(Witness::Api);
                let why = self.unsaid.take();
                why.map(|why| sources.iter().map(|s| Observation::unknown(s, why.clone())).collect())
                    .unwrap_or_default()
            }
        }
    }

    /// Puts questions; their answers come by [`Link::take`]. Says whether any was put.
    pub fn ask(&self, questions: Vec<Question>) -> bool {
        let State::Open { cluster, .. } = &self.state else { return false };
        let any = !questions.is_empty();
        cluster.ask(questions);
        any
    }

    /// Waits for the words that a single look cannot do without, or for what it asked; no longer than this.
    pub async fn settle(&mut self, patience: Duration) -> Vec<Observation> {
        let mut seen = self.take();
        let State::Open { .. } = &self.state else { return seen };
        let end = Instant::now() + patience;
        // Our Node and our pods come first and each by itself; a little later nothing more is on its way.
        while timeout_at(end, self.news()).await.is_ok() {
            sleep(Duration::from_millis(200)).await;
            seen.extend(self.take());
            let told: SourceSet = seen.iter().map(Observation::source).collect();
            if self.settled || (told.has(Source::Node) && told.has(Source::Pods)) {
                break;
            }
        }
        if !std::mem::replace(&mut self.settled, true) {
            let told: SourceSet = seen.iter().map(Observation::source).collect();
            let why =
                || Unknown::new(Cause::Stuck, format!("no word from the API server within {} s", patience.as_secs()));
            let missing = [Source::Node, Source::Pods].into_iter().filter(|source| !told.has(*source));
            seen.extend(missing.map(|source| Observation::unknown(source, why())));
        }
        seen
    }

    /// Waits for something that is worth a pass.
    pub async fn news(&self) {
        match &self.state {
            State::Open { cluster, .. } => cluster.news().await,
            State::None | State::Broken { .. } => pending().await,
        }
    }

    /// From now on what is found is told as well; a look alone tells nobody.
    pub fn tell_from(&mut self, memory: Memory, now: Moment) {
        if let State::Open { api, teller, .. } = &mut self.state {
            *teller = Some(Box::new(Teller::new(api, memory, now)));
        }
    }

    /// Writes what is due after a pass.
    pub fn tell(&mut self, engine: &Engine, report: &Report, now: Moment) {
        if let State::Open { teller: Some(teller), .. } = &mut self.state {
            teller.tell(engine, report, now);
        }
    }

    /// This finding is dropped without being resolved: nothing more is written of it.
    pub fn forget(&mut self, finding: &Finding) {
        if let State::Open { teller: Some(teller), .. } = &mut self.state {
            teller.forget(finding);
        }
    }

    /// What was told, for the next agent; none where nobody is told.
    pub fn told(&self) -> Option<Memory> {
        match &self.state {
            State::Open { teller, .. } => teller.as_ref().map(|teller| teller.memory()),
            State::None | State::Broken { .. } => None,
        }
    }

    /// What telling came to, in numbers.
    pub fn tell_figures(&self) -> TellFigures {
        match &self.state {
            State::Open { teller: Some(teller), .. } => teller.figures(),
            _ => TellFigures::default(),
        }
    }

    /// What a reader of the report must know.
    pub fn note(&self) -> Note {
        let text = match &self.state {
            State::Open { api, .. } => format!("as {} at {}", api.node, api.server),
            State::None => "not asked, this machine alone was looked at (give --kubeconfig)".to_owned(),
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

/// The Node's name: as told, else the host's, which most kubelets use.
pub(super) fn node_name(config: &Config) -> String {
    let hostname = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    config.node_name.clone().or_else(hostname).unwrap_or_default()
}
