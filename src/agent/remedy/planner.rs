//! `barnacle remedy plan`: the agent's engine on observations of its own, the acts that it permits, and what keeps them from being done.

mod acting;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::agent::kube_connection::KubeConnection;
use crate::agent::lock::{Lock, in_time};
use crate::agent::schedule::Schedule;
use crate::agent::serve::socket::{is_trusted, peer};
use crate::agent::serve::{Served, Server, Texts};
use crate::agent::state::StateDir;
use crate::agent::stop::Stop as Signals;
use crate::agent::watchdog::Watchdog;
use crate::collect::HostReader;
use crate::collect::clock::Clock;
use crate::collect::cluster::own_name;
use crate::config::Config;
use crate::engine::{Asker, Engine};
use crate::facts::{Cause, Lookup, NodeTime, Provider, Source, Unknown};
use crate::finding::{FindingKey, Severity};
use crate::kube_api::Api;
use crate::pacing::doubled;
use crate::remedy::guard::{self, Here, Stop};
use crate::remedy::journal::{Intent, Journal, Record, Step};
use crate::remedy::permit::Permitted;
use crate::remedy::plan::{Plan, plan};
use crate::remedy::request::{Answer, Ask, Request, parse_answer};
use crate::remedy::score::{Outcome, outcome};
use crate::remedy::shown::Shown;
use crate::remedy::twice::Twice;
use crate::remedy::{Act, ActKind, Mode};
use crate::wake::Waker;

use super::events::Events;
use super::executor::read_line;
use super::slots::Slots;
use super::{JournalFile, live, state_dir};
use acting::UnderWay;

/// For the executor, which reads the host before it answers, and may make a call.
const EXECUTOR_PATIENCE: Duration = Duration::from_secs(45);
const DISK_PATIENCE: Duration = Duration::from_secs(5);
/// An act that was stopped or refused is tried again after this time, then after twice as long, and so on.
const RETRY: Duration = Duration::from_secs(60);
const MAX_RETRY: Duration = Duration::from_secs(3600);
/// What is still there after so long ends in the record.
const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// The pause at the end of a pass that was cut short.
const BREATHER: Duration = Duration::from_secs(1);
/// The API server's watches alone do not make passes closer than this: time must pass for an act in any case.
const BEAT: Duration = Duration::from_secs(10);

/// Runs until a signal to stop.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let watchdog = Watchdog::start()?;
    let (served, watching) = watch::channel(Arc::new(Served::default()));
    let _server: Server = crate::agent::serve_all(&config, watching);
    let lock = tokio::select! {
        () = signals.asked() => return Ok(()),
        lock = Lock::take(Some(state_dir(&config)?)) => lock?,
    };
    let mut agent = Loop::new(&config, !lock.hangs).await?;
    info!(version = env!("CARGO_PKG_VERSION"), acts = config.remedy.acts(), "planner started");
    loop {
        tokio::select! {
            () = signals.asked() => break,
            () = agent.pass() => {}
        }
        served.send_replace(Arc::new(Served::of_texts(agent.texts())));
        watchdog.turned();
        tokio::select! {
            () = signals.asked() => break,
            () = agent.wait() => {}
        }
    }
    agent.state.stopped(agent.clock.now(), agent.engine.memory());
    info!("stopped");
    Ok(())
}

/// The agent's loop without what it publishes.
struct Loop {
    host_reader: HostReader,
    api: KubeConnection,
    clock: Clock,
    engine: Engine,
    schedule: Schedule,
    waker: Waker,
    state: StateDir,
    lookups: Vec<Lookup>,
    planner: Planner,
}

impl Loop {
    async fn new(config: &Config, disk_answers: bool) -> anyhow::Result<Self> {
        let (host_reader, clock) = crate::agent::host_reader(config, None)?;
        let (waker, missing) = Waker::new(&crate::agent::root(config)?);
        for why in missing {
            info!(%why, "event source unavailable, falling back to polling");
        }
        let (state, memory) = crate::agent::open_state(config, disk_answers, clock.now()).await?;
        let engine = Engine::new(config.detect.clone(), clock.now(), memory).with_interval(config.interval);
        let planner = Planner::new(config, clock.now(), disk_answers).await?;
        let api = KubeConnection::open(config, clock).await;
        let schedule = Schedule::new(config.interval);
        Ok(Self { host_reader, api, clock, engine, schedule, waker, state, lookups: Vec::new(), planner })
    }

    async fn pass(&mut self) {
        let begun = self.clock.now();
        let due = self.schedule.take_due(begun);
        self.api.mend(&self.state, self.clock).await;
        let lookups = std::mem::take(&mut self.lookups);
        let to = |provider| lookups.iter().filter(move |ask| ask.source().provider() == provider).cloned().collect();
        let of_host: Vec<_> = to(Provider::Host);
        let _ = self.api.look_up(to(Provider::Api));
        let mut seen = self.host_reader.collect(self.clock, due, &of_host).await;
        seen.extend(self.api.take());
        if self.clock.hides(Source::BootHistory).is_none() {
            self.state.replace(&mut seen, begun);
        }
        let step = self.engine.step(self.clock.now(), seen);
        let planned = self.planner.plan(&self.engine);
        let (mut asks, mut askers) = (step.lookups, step.askers);
        for ask in planned {
            // EC2 is not asked by a planner.
            askers
                .entry(ask.clone())
                .or_insert(Asker { severity: Severity::Warning, kind: ActKind::UnmountPodPath.finding() });
            if !asks.contains(&ask) {
                asks.push(ask);
            }
        }
        self.schedule.answer((&asks, &askers), self.clock.now(), &mut self.lookups);
        self.planner.follow(&self.engine, self.api.api(), self.clock).await;
        self.state.save(self.clock.now(), &self.engine);
    }

    fn texts(&self) -> Texts {
        self.planner.texts(self.clock.now())
    }

    async fn wait(&mut self) {
        let rest = self.schedule.next_due(self.clock.now()).min(BEAT);
        let woken = tokio::select! {
            () = sleep(rest) => false,
            wake = self.waker.next() => {
                self.schedule.hasten(wake.first_sources(), self.clock.now());
                true
            }
            () = self.api.news() => true,
        };
        if woken {
            sleep(BREATHER).await;
        }
    }
}

/// What was tried of an act.
#[derive(Clone, Copy, Debug)]
struct Tried {
    at: NodeTime,
    tries: u32,
}

/// The planner without its loop: the engine is given to it after each step.
pub struct Planner {
    config: Config,
    node: String,
    /// Of our ConfigMap, and of the slots.
    name: String,
    started: NodeTime,
    plan: Plan,
    twice: Twice,
    ready: Vec<(FindingKey, Permitted)>,
    tried: BTreeMap<Act, Tried>,
    slots: Slots,
    journal: Option<JournalFile>,
    /// Why there is none.
    trouble: String,
    stopped: Vec<(String, &'static str, String)>,
    stops_total: BTreeMap<&'static str, u64>,
    under_way: Option<UnderWay>,
    events: Events,
}

/// Why an act was not taken further.
enum Halt {
    /// The guard, by what is known here.
    Here(Stop),
    /// The guard, after the API server was asked.
    Asked(Stop),
    /// The journal.
    Journal(String),
}

impl Planner {
    /// Opens its journal. One that cannot be used stops no start: nothing is asked for then.
    ///
    /// # Errors
    /// When no directory for it is set.
    pub async fn new(config: &Config, now: NodeTime, disk_answers: bool) -> anyhow::Result<Self> {
        let dir = state_dir(config)?.to_owned();
        let opened = match disk_answers {
            true => in_time(DISK_PATIENCE, move || JournalFile::open(&dir, now)).await,
            false => None,
        };
        let (journal, trouble) = match opened {
            Some(Ok(journal)) => (Some(journal), String::new()),
            Some(Err(why)) => (None, why),
            None => (None, "the journal's disk does not answer".to_owned()),
        };
        if journal.is_none() {
            warn!(why = %trouble, "the journal cannot be used: nothing is asked for");
        }
        let name = own_name(config.pod_name.as_deref());
        let mut planner = Self {
            node: crate::agent::kube_connection::node_name(config),
            started: now,
            plan: Plan::default(),
            twice: Twice::default(),
            ready: Vec::new(),
            tried: BTreeMap::new(),
            slots: Slots::new(&name, config.remedy.slots),
            name,
            journal,
            trouble,
            stopped: Vec::new(),
            stops_total: BTreeMap::new(),
            under_way: None,
            events: Events::default(),
            config: config.clone(),
        };
        planner.clear_failures(now).await;
        Ok(planner)
    }

    /// A failure of a kind counts until the program is started with another mode of it.
    async fn clear_failures(&mut self, now: NodeTime) {
        let Some(file) = &self.journal else { return };
        let is_off = |kind: &ActKind| self.config.remedy.mode(*kind) != Mode::Act;
        let cleared: Vec<ActKind> = file.journal().failed().iter().copied().filter(is_off).collect();
        for kind in cleared {
            if let Err(why) = self.write(Record { case: 0, at: now, step: Step::Cleared(kind) }).await {
                warn!(%why, "a failure still counts");
            }
        }
    }

    /// Plans by what the engine holds; returns what it has to know for that.
    pub fn plan(&mut self, engine: &Engine) -> Vec<Lookup> {
        self.plan = plan(engine, &self.config.detect.ebs);
        self.ready = self.twice.follow(engine.now(), &self.plan.permitted);
        std::mem::take(&mut self.plan.asks)
    }

    /// Asks the executor for what is ready and not stopped, and looks what became of what was not done.
    pub async fn follow(&mut self, engine: &Engine, api: Option<&Api>, clock: Clock) {
        self.stopped.clear();
        self.go_on(engine, api, clock).await;
        self.tried.retain(|act, _| self.plan.permitted.iter().any(|(_, permitted)| permitted.act == *act));
        for (_, permitted) in std::mem::take(&mut self.ready) {
            if self.rests(&permitted.act, &clock.now()) {
                continue;
            }
            let halted = self.consider(&permitted, engine, api, clock).await.err();
            let tried = self.tried.entry(permitted.act.clone()).or_insert(Tried { at: clock.now(), tries: 0 });
            (tried.at, tried.tries) = (clock.now(), tried.tries.saturating_add(1));
            let Some(halt) = halted else { continue };
            let (name, why) = match halt {
                Halt::Here(stop) => {
                    // It costs nothing to look again in the next pass.
                    tried.tries = 0;
                    (stop.name(), stop.to_string())
                }
                Halt::Asked(stop) => (stop.name(), stop.to_string()),
                Halt::Journal(why) => ("journal", why),
            };
            *self.stops_total.entry(name).or_default() += 1;
            self.stopped.push((permitted.act.to_string(), name, why));
        }
        self.settle(engine, clock).await;
        self.settle_acts(engine, clock).await;
        if let Some(api) = api {
            self.events.send(engine, api).await;
        }
    }

    /// Whether an act is open, or was tried a short time ago.
    fn rests(&self, act: &Act, now: &NodeTime) -> bool {
        let is_open = self.journal.as_ref().is_some_and(|file| file.journal().has(act));
        let waits = self.tried.get(act).is_some_and(|tried| {
            let wait = tried.tries.checked_sub(1).map(|failures| doubled(RETRY, failures, MAX_RETRY));
            now.since(&tried.at).zip(wait).is_some_and(|(age, wait)| age < wait)
        });
        is_open || waits
    }

    async fn consider(
        &mut self,
        permitted: &Permitted,
        engine: &Engine,
        api: Option<&Api>,
        clock: Clock,
    ) -> Result<(), Halt> {
        let file = self.journal.as_ref().ok_or_else(|| Halt::Journal(self.trouble.clone()))?;
        if !file.journal().has_room() {
            return Err(Halt::Journal("as many acts are open as may be".to_owned()));
        }
        let now = clock.now();
        let here = Here {
            now,
            started: self.started,
            in_last_hour: file.journal().in_last_hour(&now),
            failed: file.journal().failed(),
            config: crate::remedy::config_map(engine),
        };
        guard::before(permitted, &here, &self.config.remedy).map_err(Halt::Here)?;
        let acts = self.config.remedy.mode(permitted.act.kind()) == Mode::Act;
        if acts {
            self.expect_free().map_err(Halt::Here)?;
        }
        let silent = || Halt::Here(Stop::Unknown(Unknown::new(Cause::NotAsked, "the API server is not asked")));
        let api = api.ok_or_else(silent)?;
        let slot = self.slots.take(api, now).await.map_err(Halt::Asked)?;
        if acts {
            return self.begin(permitted, api, clock, slot).await;
        }
        let asked = self.ask(permitted, api, clock).await;
        self.slots.release(api, slot).await;
        asked
    }

    /// The last check with the API server, the intent, and the executor's answer.
    async fn ask(&mut self, permitted: &Permitted, api: &Api, clock: Clock) -> Result<(), Halt> {
        let answers = live::ask(api, &self.name, permitted, clock.now()).await;
        guard::live(permitted, &answers, &self.node, &clock.now()).map_err(Halt::Asked)?;
        let Permitted { act, name: (namespace, pod), volume, kubelet_started, .. } = permitted.clone();
        let case = self.journal.as_ref().map_or(0, |file| file.journal().next());
        let pod = format!("{namespace}/{pod}");
        let intent = Intent { act: act.clone(), pod, volume, kubelet_started };
        self.write(Record { case, at: clock.now(), step: Step::Intended(intent) }).await.map_err(Halt::Journal)?;
        let answer = ask_executor(Path::new(&self.config.remedy.socket), Ask::Verify, &act).await;
        let answer = match answer {
            Ok(answer @ (Answer::WouldAct | Answer::Refused(_))) => answer,
            Ok(other) => Answer::Refused(format!("the executor answers another request: {other:?}")),
            Err(unasked) => Answer::Refused(unasked.why),
        };
        match &answer {
            Answer::WouldAct => info!(%act, case, "dry-run: this would have been done"),
            other => info!(%act, case, answer = ?other, "dry-run: the executor refuses"),
        }
        self.write(Record { case, at: clock.now(), step: Step::Answered(answer) }).await.map_err(Halt::Journal)
    }

    /// What became of each act that was not done.
    async fn settle(&mut self, engine: &Engine, clock: Clock) {
        let Some(file) = &self.journal else { return };
        let now = clock.now();
        let ended: Vec<(u64, Outcome)> = file
            .journal()
            .open()
            .filter_map(|(number, case)| {
                // What is not known yet is looked at again in the next pass.
                let known = outcome(case, engine).ok().flatten();
                let is_old = now.since(&case.since).is_none_or(|age| age >= WEEK);
                known.or(is_old.then_some(Outcome::StillThere)).map(|outcome| (number, outcome))
            })
            .collect();
        for (case, outcome) in ended {
            info!(case, outcome = outcome.name(), "dry-run: what would have been done has ended without it");
            if let Err(why) = self.write(Record { case, at: now, step: Step::Ended(outcome) }).await {
                warn!(%why, "the record is not kept");
                return;
            }
        }
    }

    async fn write(&mut self, record: Record) -> Result<(), String> {
        let event = self.event_of(&record);
        let mut file = self.journal.take().ok_or_else(|| self.trouble.clone())?;
        let at = record.at;
        let written = in_time(DISK_PATIENCE, move || {
            let written = file.append(record);
            // What was written stands, also where the file cannot be made smaller.
            if let Err(why) = file.keep_small(at) {
                warn!(%why, "the journal cannot be made smaller");
            }
            (file, written)
        });
        match written.await {
            Some((file, written)) => {
                self.journal = Some(file);
                if written.is_ok() {
                    event.into_iter().for_each(|event| self.events.push(event));
                }
                written
            }
            None => {
                "the journal's disk does not answer".clone_into(&mut self.trouble);
                Err(self.trouble.clone())
            }
        }
    }

    /// The journal, while it can be used.
    #[must_use]
    pub fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref().map(JournalFile::journal)
    }

    /// What stopped acts in the last pass: the act, the name of the reason, and the reason.
    #[must_use]
    pub fn stopped(&self) -> &[(String, &'static str, String)] {
        &self.stopped
    }

    fn texts(&self, now: NodeTime) -> Texts {
        let shown = Shown {
            now,
            node: &self.node,
            settings: &self.config.remedy,
            journal: self.journal.as_ref().map(JournalFile::journal).ok_or(&*self.trouble),
            held: &self.plan.held,
            stopped: &self.stopped,
            stops_total: &self.stops_total,
        };
        Texts { metrics: shown.metrics(), page: shown.page(), json: shown.json() }
    }
}

/// Why there is no answer of the executor.
#[derive(Debug)]
pub(super) struct Unasked {
    /// Whether it may have the request.
    sent: bool,
    why: String,
}

/// The executor's answer.
///
/// # Errors
/// Why there is none, and whether it may have the request all the same.
pub(super) async fn ask_executor(socket: &Path, ask: Ask, act: &Act) -> Result<Answer, Unasked> {
    let mut sent = false;
    let asked = timeout(EXECUTOR_PATIENCE, converse(socket, ask, act, &mut sent)).await;
    let late = || Err(format!("{} did not answer within {} s", socket.display(), EXECUTOR_PATIENCE.as_secs()));
    let asked = asked.unwrap_or_else(|_| late());
    asked.map_err(|why| Unasked { sent, why: format!("the executor cannot be asked: {why}") })
}

async fn converse(socket: &Path, ask: Ask, act: &Act, sent: &mut bool) -> Result<Answer, String> {
    let line = Request::of(ask, act.clone()).line()?;
    let failed = |error: std::io::Error| format!("{}: {error}", socket.display());
    let mut stream = UnixStream::connect(socket).await.map_err(failed)?;
    if !peer(&stream).is_some_and(is_trusted) {
        return Err(format!("{} belongs to another user", socket.display()));
    }
    *sent = true;
    stream.write_all(&line).await.map_err(failed)?;
    parse_answer(&read_line(&mut stream).await?)
}
