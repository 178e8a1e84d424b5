//! The kubelet's API as a provider: what is asked of it, and when. In the background, and never more than one request at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;

use super::configz::parse_configz;
use super::metrics::{is_read, parse_metrics};
use super::stats::{Summary, parse_stats};
use crate::collect::clock::Clock;
use crate::collect::cluster::mailbox::Mailbox;
use crate::facts::{Cause, ConfigOrigin, NodeTime, Observation, Part, Reading, Source, Unknown};
use crate::kube_api::{KubeletApi, ServiceAccount};

/// What a kubelet is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `GET /configz`
    Configz,
    /// `GET /stats/summary`
    Stats,
    /// `GET /metrics`
    Metrics,
}

impl Endpoint {
    /// All of them, in the order in which they are asked.
    pub const ALL: [Self; 3] = [Self::Configz, Self::Stats, Self::Metrics];

    /// The source that it answers. Its seconds are the time between two requests to the same kubelet.
    #[must_use]
    pub fn source(self) -> Source {
        match self {
            Self::Configz => Source::KubeletConfigz,
            Self::Stats => Source::KubeletStats,
            Self::Metrics => Source::KubeletMetrics,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Configz => "/configz",
            Self::Stats => "/stats/summary",
            Self::Metrics => "/metrics",
        }
    }

    /// The observation that a whole answer makes.
    #[must_use]
    pub fn observation(self, answer: Result<&[u8], Unknown>, at: NodeTime, server: &str) -> Observation {
        let malformed = |reason: String| self.malformed(server, &reason);
        match self {
            Self::Configz => {
                let value = answer.and_then(|bytes| parse_configz(bytes).map_err(malformed));
                Observation::KubeletConfigz(Reading::of(value, at))
            }
            Self::Stats => {
                let value = answer.and_then(|bytes| parse_stats(bytes).map_err(malformed));
                Observation::KubeletStats(Reading::of(value, at))
            }
            Self::Metrics => {
                let value = answer.and_then(|bytes| parse_metrics(bytes).map_err(malformed));
                Observation::KubeletMetrics(Reading::of(value, at))
            }
        }
    }

    fn malformed(self, server: &str, reason: &str) -> Unknown {
        Unknown::new(Cause::Malformed, format!("GET {server}{}: {reason}", self.path()))
    }

    /// Asks a kubelet.
    async fn ask(self, api: &KubeletApi, at: NodeTime) -> Observation {
        let answer = match self {
            Self::Configz => api.configz().await,
            Self::Metrics => api.metrics(is_read).await,
            // Its pods are read as they arrive: all of them at once may take more memory than there is.
            Self::Stats => {
                let mut summary = Summary::default();
                let rest = api.stats(&mut |pod| summary.take(pod)).await.map_err(|error| error.unknown());
                let value =
                    rest.and_then(|rest| summary.end(&rest).map_err(|reason| self.malformed(&api.server(), &reason)));
                return Observation::KubeletStats(Reading::of(value, at));
            }
        };
        let answer = answer.map_err(|error| error.unknown());
        self.observation(answer.as_deref().map_err(Clone::clone), at, &api.server())
    }
}

/// When the kubelet is asked: once each period, and when another process is the kubelet.
#[derive(Debug)]
pub struct Pace {
    period: Duration,
    /// The process that was asked last, and when.
    asked: Option<((u32, Duration), NodeTime)>,
    /// The kubelet that was seen last, or why none was.
    running: Option<Result<(u32, Duration), Unknown>>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// The kubelet is to be asked.
    Ask,
    /// It is not asked, for this reason.
    Not(Unknown),
}

impl Pace {
    /// Nothing was asked yet.
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self { period: source.every(), asked: None, running: None }
    }

    /// Takes in what was seen of the kubelet, and says what is due.
    pub fn follow(&mut self, seen: &[Observation], now: NodeTime) -> Due {
        let config = seen.iter().rev().find_map(|observation| match observation {
            Observation::KubeletConfig(reading) => Some(reading),
            _ => None,
        });
        if let Some(reading) = config {
            let running = reading.known().map_err(Clone::clone).and_then(|config| process(&config.origin));
            if let Err(why) = &running {
                let new = self.running.as_ref() != Some(&running);
                let due = if new { Due::Not(why.clone()) } else { Due::Nothing };
                (self.running, self.asked) = (Some(running), None);
                return due;
            }
            self.running = Some(running);
        }
        let Some(Ok(process)) = &self.running else { return Due::Nothing };
        let is_due = self
            .asked
            .as_ref()
            .is_none_or(|(of, at)| of != process || now.since(at).is_none_or(|age| age >= self.period));
        if !is_due {
            return Due::Nothing;
        }
        self.asked = Some((*process, now));
        Due::Ask
    }
}

/// An answer says something of a kubelet that is known to run, and since when: else it could be that of an earlier one.
fn process(origin: &ConfigOrigin) -> Result<(u32, Duration), Unknown> {
    let unsupported = |why: &str| Err(Unknown::new(Cause::Unsupported, why));
    match origin {
        ConfigOrigin::Process { pid, started: Part::Known(started), .. } => Ok((*pid, *started)),
        ConfigOrigin::Process { started: Part::Unknown(why), .. } => Err(Unknown::clone(why)),
        ConfigOrigin::NoKubelet => unsupported("no kubelet runs here"),
        _ => unsupported(
            "the kubelet is not asked: no process called kubelet was found, so no source shows since when the one that answers runs",
        ),
    }
}

/// A task that asks when that is due, and ends when this is dropped.
#[derive(Debug)]
pub struct Kubelet {
    mailbox: Arc<Mailbox>,
    paces: [(Endpoint, Pace); Endpoint::ALL.len()],
    asks: mpsc::UnboundedSender<Endpoint>,
    _tasks: JoinSet<()>,
}

impl Kubelet {
    /// Nothing is asked before a kubelet was seen to run.
    #[must_use]
    pub fn start(address: SocketAddr, node: String, account: ServiceAccount, clock: Clock) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        let (asks, asked) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let api = KubeletApi::new(address, node, account);
        tasks.spawn(answer(api, clock, Arc::clone(&mailbox), asked));
        let paces = Endpoint::ALL.map(|endpoint| (endpoint, Pace::new(endpoint.source())));
        Self { mailbox, paces, asks, _tasks: tasks }
    }

    /// Asks where what was seen of the kubelet makes that due; how many requests that are.
    pub fn follow(&mut self, seen: &[Observation], now: NodeTime) -> usize {
        let mut asked = 0;
        for (endpoint, pace) in &mut self.paces {
            match pace.follow(seen, now) {
                Due::Nothing => {}
                Due::Not(why) => self.mailbox.keep(Observation::unknown(endpoint.source(), why)),
                // The task that answers lives as long as we do.
                Due::Ask => asked += usize::from(self.asks.send(*endpoint).is_ok()),
            }
        }
        asked
    }

    /// What came since the last time.
    #[must_use]
    pub fn take(&self) -> Vec<Observation> {
        self.mailbox.take()
    }

    /// Waits until something came that is worth a cycle.
    pub async fn news(&self) {
        self.mailbox.news().await;
    }
}

async fn answer(api: KubeletApi, clock: Clock, mailbox: Arc<Mailbox>, mut asked: UnboundedReceiver<Endpoint>) {
    while let Some(endpoint) = asked.recv().await {
        // The time before the request: a kubelet that was started later did not answer it.
        let at = clock.now();
        mailbox.put(endpoint.ask(&api, at).await);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::*;
    use crate::facts::{BootId, KubeletConfig, Thresholds, default_thresholds};

    fn at(up: u64) -> NodeTime {
        NodeTime { boot: BootId::default(), up: Duration::from_secs(up), wall: Timestamp::UNIX_EPOCH }
    }

    fn kubelet(origin: ConfigOrigin) -> Vec<Observation> {
        let hard = Thresholds::Read(default_thresholds());
        let soft = Thresholds::Read(BTreeMap::new());
        let value = KubeletConfig {
            origin,
            root_dir: "/k".into(),
            hard,
            soft,
            enforces_pods: true,
            options: Default::default(),
        };
        vec![Observation::KubeletConfig(Reading::Known { value, at: at(0) })]
    }

    fn process_of(pid: u32, started: u64) -> Vec<Observation> {
        let started = Part::Known(Duration::from_secs(started));
        kubelet(ConfigOrigin::Process { pid, started, files: Vec::new() })
    }

    #[test]
    fn a_kubelet_is_asked_each_ten_minutes_and_after_it_was_started_again() {
        let mut pace = Pace::new(Source::KubeletConfigz);
        assert_eq!(pace.follow(&[], at(0)), Due::Nothing, "no kubelet was seen yet");
        assert_eq!(pace.follow(&process_of(812, 15), at(10)), Due::Ask);
        for up in (20..610).step_by(10) {
            assert_eq!(pace.follow(&process_of(812, 15), at(up)), Due::Nothing, "{up}");
        }
        assert_eq!(pace.follow(&[], at(610)), Due::Ask);
        assert_eq!(pace.follow(&process_of(900, 620), at(640)), Due::Ask);
        assert_eq!(pace.follow(&process_of(900, 620), at(650)), Due::Nothing);
        assert_eq!(pace.follow(&process_of(900, 655), at(660)), Due::Ask, "another process of the same id");
    }

    #[test]
    fn without_a_process_nothing_is_asked_and_the_reason_is_given_once() {
        let mut pace = Pace::new(Source::KubeletConfigz);
        let Due::Not(why) = pace.follow(&kubelet(ConfigOrigin::NotFound), at(0)) else { panic!() };
        assert!(why.cause == Cause::Unsupported && why.why.contains("no process called kubelet"), "{why}");
        assert_eq!(pace.follow(&kubelet(ConfigOrigin::NotFound), at(700)), Due::Nothing);
        let torn = Unknown::new(Cause::Torn, "proc/812/stat is torn");
        let started = Part::Unknown(torn.clone().into());
        let unread = kubelet(ConfigOrigin::Process { pid: 812, started, files: Vec::new() });
        assert_eq!(pace.follow(&unread, at(710)), Due::Not(torn));
        let denied = Unknown::new(Cause::Denied, "no");
        let hidden = [Observation::unknown(Source::KubeletConfig, denied.clone())];
        assert_eq!(pace.follow(&hidden, at(720)), Due::Not(denied));
        assert_eq!(pace.follow(&process_of(812, 15), at(730)), Due::Ask);
    }
}
