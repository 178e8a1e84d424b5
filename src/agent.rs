//! The loop around the engine: wake, collect, step, record, report.

pub mod ask;
pub mod cleanup;
pub mod cluster;
mod ec2;
mod identity;
mod imds_connection;
mod kube_connection;
mod kubelet_connection;
pub mod landlock;
pub mod local_check;
pub mod lock;
pub mod process;
mod publish;
pub mod remedy;
pub mod schedule;
pub mod serve;
pub mod state;
pub mod stop;
pub mod sweep;
pub mod watchdog;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::collect::clock::Clock;
use crate::collect::ec2::Pace;
use crate::collect::host::dns::{DnsSettings, tenth_of};
use crate::collect::host::ebs_statistics::Controllers;
use crate::collect::host::root::Root;
use crate::collect::host::unrestricted_thread::UnrestrictedThread;
use crate::collect::{Host, HostReader, HostSettings};
use crate::config::Config;
use crate::engine::input::{Maybe, reads_of};
use crate::engine::{Engine, Step, sources};
use crate::facts::{Lookup, NodeTime, Observation, Provider, Source, SourceSet};
use crate::finding::Severity;
use crate::ledger::{Change, Transition};
use crate::report::history::History;
use crate::report::metrics::AgentFigures;
use crate::report::{Origin, PodTable, Report, ended, text};
use crate::wake::Waker;

use ec2::Ec2Connection;
use identity::MachineIds;
use imds_connection::ImdsConnection;
use kube_connection::KubeConnection;
use kubelet_connection::KubeletConnection;
use lock::Lock;
use schedule::Schedule;
use serve::socket::Binder;
use serve::{Scope, Served, Server};
use state::StateDir;
use stop::Stop;
use watchdog::Watchdog;

/// What is asked before anything is remedied: whether that is paused.
type BeforeRemedies = Maybe<sources::AgentConfigMap>;

/// What the agent itself reads, beside its detectors.
pub const READS: SourceSet = reads_of::<(ec2::Reads, BeforeRemedies)>();

/// Wakes that follow one another closer than this are one.
const WAKE_DEBOUNCE: Duration = Duration::from_secs(1);

/// What stands for `/`, and for `/sys`.
///
/// # Errors
/// When one of them cannot be opened, or both machines are not the same.
fn root(config: &Config) -> anyhow::Result<Root> {
    let path = &config.host_root;
    let open = || format!("host-root {path} cannot be opened as a directory");
    let root = Root::open(Path::new(path)).with_context(open)?;
    let Some(sys) = &config.host_sys else { return Ok(root) };
    if !root.is_live() {
        bail!("host-sys {sys} is this machine's, and host-root {path} is not: its proc is not the kernel's own");
    }
    root.with_sys(Path::new(sys)).with_context(|| format!("host-sys {sys} cannot be opened as a directory"))
}

/// The host's collectors for a configuration; with the thread that Landlock does not hold, where there is one.
///
/// # Errors
/// When the root cannot be opened.
pub fn host_reader(
    config: &Config,
    unrestricted_thread: Option<UnrestrictedThread>,
) -> anyhow::Result<(HostReader, Clock)> {
    let root = root(config)?;
    let clock = Clock::new(&root);
    let settings = HostSettings {
        kubelet_root: config.kubelet_root.clone(),
        kubelet_config: config.kubelet_config.clone(),
        image_root: config.container_image_root.clone(),
        state_dir: config.state_dir.clone(),
        node_name: config.node_name.clone(),
        probe_xfs: config.probe_xfs,
        nvme_stats: config.nvme_stats.then(Controllers::default),
        dns: config.dns_probe.then(|| dns_servers(config)),
        unrestricted_thread,
    };
    let root = Arc::new(root);
    Ok((HostReader::new(move || Host::new(Arc::clone(&root), settings.clone())), clock))
}

/// The DNS servers that are asked: the cluster's is where the API server's address says, unless it is set.
fn dns_servers(config: &Config) -> DnsSettings {
    let by_convention = || tenth_of(std::env::var("KUBERNETES_SERVICE_HOST").ok()?.parse().ok()?);
    DnsSettings { cluster: config.dns_cluster_server.or_else(by_convention), domain: config.dns_cluster_domain.clone() }
}

/// The agent: what it collects with, what it evaluates with, and what it publishes.
struct Agent {
    host_reader: HostReader,
    api: KubeConnection,
    ec2: Ec2Connection,
    kubelet: KubeletConnection,
    imds: ImdsConnection,
    clock: Clock,
    engine: Engine,
    schedule: Schedule,
    waker: Waker,
    state: StateDir,
    figures: AgentFigures,
    history: History,
    publishing: Publishing,
    lookups: Vec<Lookup>,
    /// Waits before this one that were cut short.
    woken_in_a_row: u32,
    /// The table of the pods, which is not made in each pass.
    pod_table: PodTable,
}

/// Where the end of a cycle is shown.
struct Publishing {
    served: watch::Sender<Arc<Served>>,
    server: Server,
    watchdog: Watchdog,
}

/// What was begun before Landlock was applied, and how it was.
#[derive(Debug)]
pub struct Begun {
    /// Version of Landlock that is applied; zero for none.
    pub landlock_abi: u32,
    /// The thread that Landlock does not hold, where there is a use for it.
    pub unrestricted_thread: Option<UnrestrictedThread>,
    /// Makes the socket in the state directory.
    pub binder: Option<Binder>,
}

/// Runs until a signal to stop.
///
/// # Errors
/// When it cannot start: another agent holds the state directory, or the root cannot be opened.
pub async fn run(config: Config, begun: Begun) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let watchdog = Watchdog::start()?;
    let (served, watching) = watch::channel(Arc::new(Served::default()));
    // Served before the disk is asked for anything, and before the first cycle: a client learns that the agent has begun.
    let server = serve_all(&config, watching);
    let lock = Lock::take(config.state_dir.as_deref().map(Path::new));
    let lock = tokio::select! {
        () = stop.asked() => return Ok(()),
        lock = lock => lock?,
    };
    if let Some(binder) = begun.binder.filter(|_| !lock.hangs) {
        tokio::select! {
            () = stop.asked() => return Ok(()),
            () = server.serve_socket(binder, lock.is_held()) => {}
        }
    }
    let publishing = Publishing { served, server, watchdog };
    let agent = Agent::new(&config, begun.unrestricted_thread, publishing, !lock.hangs);
    let mut agent = tokio::select! {
        () = stop.asked() => return Ok(()),
        agent = agent => agent?,
    };
    agent.figures.landlock_abi = begun.landlock_abi;
    info!(version = env!("CARGO_PKG_VERSION"), listen = %config.listen, "agent started");
    loop {
        // A read that hangs holds up a cycle, and must not hold up our end.
        tokio::select! {
            () = stop.asked() => break,
            () = agent.cycle() => {}
        }
        if agent.wait(&mut stop).await.is_none() {
            break;
        }
    }
    agent.state.stopped(agent.clock.now(), agent.engine.memory());
    info!("stopped");
    Ok(())
}

/// Refuses a kubeconfig that starts a program, for a command that has given up the right to start any.
///
/// # Errors
/// What it would start, and what to do.
pub async fn expect_no_program(config: &Config) -> anyhow::Result<()> {
    let Some(path) = config.kubeconfig.as_deref().filter(|_| config.kubernetes) else { return Ok(()) };
    match crate::kube_api::needs_program(path, config.context.as_deref()).await {
        Some(why) => bail!(why),
        None => Ok(()),
    }
}

/// Serves all addresses.
fn serve_all(config: &Config, watching: watch::Receiver<Arc<Served>>) -> Server {
    let server = Server::new(watching);
    server.serve(config.listen, Scope::All);
    if let Some(address) = config.metrics_listen {
        server.serve(address, Scope::MetricsAndHealth);
    }
    server
}

/// The state directory, or none where its disk does not answer.
async fn open_state(
    config: &Config,
    disk_answers: bool,
    now: NodeTime,
) -> anyhow::Result<(StateDir, crate::ledger::LedgerState)> {
    let Some(dir) = config.state_dir.as_deref().map(Path::new).map(Path::to_owned) else {
        return Ok(StateDir::open(None, now, MachineIds::default()));
    };
    let hung = || (StateDir::hung(&dir, now), crate::ledger::LedgerState::default());
    if !disk_answers {
        return Ok(hung());
    }
    let ids = MachineIds::read(root(config)?).await;
    let of_thread = dir.clone();
    let opened = lock::read_in_time(&dir, move || StateDir::open(Some(&of_thread), now, ids)).await;
    let (mut state, memory) = opened.unwrap_or_else(hung);
    state.begin_writing(now);
    Ok((state, memory))
}

impl Agent {
    async fn new(
        config: &Config,
        unrestricted_thread: Option<UnrestrictedThread>,
        publishing: Publishing,
        disk_answers: bool,
    ) -> anyhow::Result<Self> {
        let (host_reader, clock) = host_reader(config, unrestricted_thread)?;
        if let Some(note) = clock.note() {
            info!(%note, "host-root is a copy of a machine");
        }
        let (waker, missing) = Waker::new(&root(config)?);
        for why in missing {
            info!(%why, "event source unavailable, falling back to polling");
        }
        let (state, memory) = open_state(config, disk_answers, clock.now()).await?;
        let engine = Engine::new(config.detect.clone(), clock.now(), memory).with_interval(config.interval);
        let findings = engine.entries().count();
        if findings > 0 {
            info!(findings, "what was confirmed before the restart stays until it is evaluated");
        }
        let mut api = KubeConnection::open(config, clock).await;
        if config.publish_status {
            api.publish_from(state.published(), clock.now());
        }
        let mut figures = AgentFigures::default();
        figures.wakes_total.extend(waker.works().map(|wake| (wake.name(), 0)));
        figures.wakes_total.extend([("api", 0), ("clock", 0), ("ec2", 0), ("imds", 0), ("kubelet", 0)]);
        figures.transitions_total.extend(Change::ALL.map(|change| (change.name(), 0)));
        let schedule = Schedule::new(config.interval);
        Ok(Self {
            host_reader,
            api,
            ec2: Ec2Connection::open(config, clock, Pace::Fleet),
            kubelet: KubeletConnection::open(config, clock),
            imds: ImdsConnection::open(config, clock),
            clock,
            engine,
            schedule,
            waker,
            state,
            figures,
            history: History::default(),
            publishing,
            lookups: Vec::new(),
            woken_in_a_row: 0,
            pod_table: PodTable::default(),
        })
    }

    /// Looks at what is due, evaluates it, and publishes.
    async fn cycle(&mut self) {
        let begun = self.clock.now();
        let due = self.schedule.take_due_first(begun);
        self.api.mend(&self.state, self.clock).await;
        let lookups = std::mem::take(&mut self.lookups);
        let to =
            |provider| lookups.iter().filter(move |look_up| look_up.source().provider() == provider).cloned().collect();
        let of_host: Vec<_> = to(Provider::Host);
        let _ = self.api.look_up(to(Provider::Api));
        let _ = self.ec2.look_up(to(Provider::Ec2), &self.engine);
        let mut seen = self.host_reader.collect(self.clock, due.first, &of_host).await;
        if !due.beside.is_empty() && !self.has_same_devices(&seen) {
            self.schedule.was_read(due.beside, begun);
            seen.extend(self.host_reader.collect(self.clock, due.beside, &[]).await);
        }
        seen.extend(self.api.take());
        seen.extend(self.ec2.take());
        let _ = self.kubelet.follow(&seen, self.clock.now());
        seen.extend(self.kubelet.take());
        seen.extend(self.imds.take());
        // What a copy does not say of its own time, no state file can stand in for.
        if self.clock.hides(Source::BootHistory).is_none() {
            self.state.replace(&mut seen, begun);
        }
        let step = self.evaluate(seen);
        self.follow(step);
        self.publish(begun);
        self.state.remember_published(self.api.published());
        self.state.save(self.clock.now(), &self.engine);
    }

    /// Whether the mount table that was just read has the mounts of block devices that the one before had.
    fn has_same_devices(&self, seen: &[Observation]) -> bool {
        let now = seen.iter().find_map(|observation| match observation {
            Observation::Mounts(reading) => reading.known().ok(),
            _ => None,
        });
        let before = self.engine.view().known::<sources::Mounts>().ok();
        now.zip(before).is_some_and(|(now, before)| now.has_same_devices(before.value))
    }

    fn evaluate(&mut self, seen: Vec<Observation>) -> Step {
        let now = self.clock.now();
        let (detectors, mut mark) = (&mut self.figures.detectors, Instant::now());
        self.engine.step_each(now, seen, &mut |_, evaluations| {
            let done = Instant::now();
            detectors.ran(done - mark, evaluations);
            mark = done;
        })
    }

    fn follow(&mut self, step: Step) {
        self.history.add(self.clock.now().wall, &step.transitions);
        for transition in &step.transitions {
            log(transition);
            if matches!(transition.change, Change::Expired | Change::Displaced) {
                self.api.forget(&transition.finding);
            }
            *self.figures.transitions_total.entry(transition.change.name()).or_default() += 1;
        }
        self.schedule.answer((&step.lookups, &step.askers), self.clock.now(), &mut self.lookups);
        if let Some((wait, sources)) = step.wake {
            self.schedule.hasten(sources, self.clock.now().plus(wait.max(WAKE_DEBOUNCE)));
        }
    }

    fn publish(&mut self, begun: NodeTime) {
        let now = self.clock.now();
        let took = now.since(&begun).unwrap_or_default();
        self.figures.cycles_total += 1;
        self.figures.cycle_duration_seconds_sum += took.as_secs_f64();
        self.figures.stuck_reads = self.host_reader.stuck().map(|_| 1).sum();
        debug!(millis = took.as_millis(), "pass");
        let pods = self.pod_table.of(self.engine.view());
        let mut report = Report::with_pods(&self.engine, Origin::Agent, pods);
        report.notes.push(self.api.note());
        report.notes.extend(self.ec2.note());
        report.notes.extend(self.publishing.server.notes());
        report.history = self.history.all();
        self.api.publish(&self.engine, &report, now);
        self.figures.api = self.api.figures();
        self.figures.published = self.api.publish_figures();
        self.figures.ec2 = self.ec2.figures();
        self.figures.imds = self.imds.figures();
        self.figures.connections_refused_total = self.publishing.server.refused();
        self.publishing.served.send_replace(Arc::new(Served::new(Some(report), self.figures.clone())));
        self.publishing.watchdog.turned();
    }

    /// Waits for the clock or the kernel; `None` at a signal to stop.
    async fn wait(&mut self, stop: &mut Stop) -> Option<()> {
        let begun = self.clock.now();
        let mut woken = false;
        let mut longest = schedule::rest(self.woken_in_a_row);
        loop {
            let now = self.clock.now();
            let mut rest = self.schedule.next_due(now);
            if woken {
                // The rest of what is going on comes within a second or two.
                rest = longest.saturating_sub(now.since(&begun).unwrap_or_default());
            }
            tokio::select! {
                () = stop.asked() => return None,
                () = sleep(rest) => break,
                wake = self.waker.next() => {
                    *self.figures.wakes_total.entry(wake.name()).or_default() += 1;
                    self.schedule.hasten(wake.first_sources(), now);
                    woken = true;
                }
                () = self.api.news() => {
                    *self.figures.wakes_total.entry("api").or_default() += 1;
                    // What the API server says shows within a second.
                    longest = longest.min(schedule::rest(0));
                    woken = true;
                }
                () = self.ec2.news() => {
                    *self.figures.wakes_total.entry("ec2").or_default() += 1;
                    woken = true;
                }
                () = self.kubelet.news() => {
                    *self.figures.wakes_total.entry("kubelet").or_default() += 1;
                    woken = true;
                }
                () = self.imds.news() => {
                    *self.figures.wakes_total.entry("imds").or_default() += 1;
                    // Of the two minutes that a notice leaves none is waited away.
                    longest = longest.min(schedule::rest(0));
                    woken = true;
                }
            }
        }
        self.woken_in_a_row = if woken { self.woken_in_a_row.saturating_add(1) } else { 0 };
        if !woken {
            *self.figures.wakes_total.entry("clock").or_default() += 1;
        }
        Some(())
    }
}

/// One line when a finding is confirmed, becomes worse, is resolved, or can no longer be evaluated; suspicions only when asked to be talkative.
fn log(transition: &Transition) {
    let finding = &transition.finding;
    let (kind, severity) = (finding.kind.name(), finding.severity.name());
    // A line feed in a process's name must not make a line of the log.
    let object = finding.object.to_string();
    let (object, message) = (text::clean(&object), text::clean(&finding.message));
    let since = transition.first_seen.to_string();
    match (transition.change, finding.severity) {
        (Change::Suspected | Change::Dropped | Change::Displaced, _) => {
            debug!(kind, severity, %object, message = %message, change = transition.change.name());
        }
        (Change::Unverified, _) => {
            info!(kind, severity, %object, since, "unverified, as it can no longer be evaluated: {}", finding.message);
        }
        (Change::Expired, _) => {
            info!(kind, severity, %object, since, "dropped without being resolved, as it can no longer be evaluated: {}", finding.message);
        }
        (Change::Resolved, _) => {
            info!(kind, severity, %object, since, "resolved: {}", ended::of(finding, transition.last_raised));
        }
        (_, Severity::Info) => info!(kind, severity, %object, since, "confirmed: {}", finding.message),
        _ => warn!(kind, severity, %object, since, "{}: {}", transition.change.name(), finding.message),
    }
}
