//! `barnacle remedy execute`: asked over a unix socket, it reads the host itself, verifies, and answers whether it would act; where the
//! mode of a kind is `act`, it acts.
//!
//! It has no token and asks no one. What a request says is compared with what it read for ten minutes before.

use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::agent::lock::{Lock, in_time};
use crate::agent::serve::socket::{Replace, is_trusted, make, peer};
use crate::agent::stop::Stop;
use crate::agent::watchdog::Watchdog;
use crate::collect::HostReader;
use crate::collect::clock::Clock;
use crate::config::Config;
use crate::facts::{
    Cause, Lookup, MountHolders, Mounts, NodeTime, Observation, PodCgroups, Reading, Source, SourceSet, Unknown,
};
use crate::remedy::call::WAIT;
use crate::remedy::permit::names_pod;
use crate::remedy::request::{Answer, Ask, MAX_LINE, Request, parse_request};
use crate::remedy::verify::{Contents, Fresh, Sightings, verify};
use crate::remedy::{Act, ActKind, Mode, Settings};

use super::acting_thread::{self, ActingThread, Calls};
use super::performer::{Now, Performer};
use super::{JournalFile, directory, state_dir};

/// Time between two looks.
const LOOK_EACH: Duration = Duration::from_secs(10);
/// For a request to come, and for its answer to go.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the disk.
const DISK_PATIENCE: Duration = Duration::from_secs(5);
/// For the lines of one step, its call, and what came of it.
const PERFORM_PATIENCE: Duration = Duration::from_secs(30);
/// What each look reads. The kubelet's configuration comes first, as the others rest on it.
const LOOK: SourceSet = SourceSet::of(&[Source::KubeletConfig, Source::Mounts, Source::PodCgroups]);

/// What was made before Landlock was applied, which refuses sockets.
#[derive(Debug)]
pub struct Bound {
    listener: StdListener,
    _lock: Lock,
}

/// Takes the state directory and makes the socket.
///
/// # Errors
/// When another executor has the directory, or something else is in the socket's place.
pub async fn bind(config: &Config) -> anyhow::Result<Bound> {
    let lock = Lock::take(Some(state_dir(config)?)).await?;
    let path = Path::new(&config.remedy.socket);
    let replace = if lock.is_held() { Replace::Stale } else { Replace::Nothing };
    let listener = make(path, replace).with_context(|| format!("the socket {} cannot be made", path.display()))?;
    Ok(Bound { listener, _lock: lock })
}

/// What acts, where a mode says so: to be called before Landlock is applied and before any other thread begins, as it takes the network
/// from all of them.
///
/// # Errors
/// What the kernel refuses of it.
pub fn prepare_to_act(config: &Config) -> anyhow::Result<Option<ActingThread>> {
    if !config.remedy.acts() {
        return Ok(None);
    }
    const MISSING: &str = "an executor that acts needs CAP_SYS_ADMIN, CAP_SYS_CHROOT and CAP_SYS_PTRACE: add the component \
                           daemonset/remedy/act, or set the modes to dry-run";
    acting_thread::leave_network().map_err(anyhow::Error::msg).context(MISSING)?;
    let thread = ActingThread::start(Path::new(&config.host_root), &config.kubelet_root);
    thread.map(Some).map_err(anyhow::Error::msg).context(MISSING)
}

/// Runs until a signal to stop.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config, bound: Bound, acts: Option<ActingThread>) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let watchdog = Watchdog::start()?;
    let (host_reader, clock) = crate::agent::host_reader(&config, None)?;
    let listener = UnixListener::from_std(bound.listener)?;
    let acts_on = acts.is_some();
    let calls = acts.map(|acts| -> Box<dyn Calls> { Box::new(acts) });
    let mut executor = Executor::new(&config, host_reader, clock, calls).await?;
    info!(version = env!("CARGO_PKG_VERSION"), socket = %config.remedy.socket, acts = acts_on, "executor started");
    tokio::select! {
        () = stop.asked() => {}
        () = executor.serve(&listener, || watchdog.turned()) => {}
    }
    info!("stopped");
    Ok(())
}

/// The executor without its socket.
pub(super) struct Executor {
    host_reader: HostReader,
    clock: Clock,
    settings: Settings,
    kubelet_root: String,
    /// The kubelet's `pods`, as this process has it.
    pods: PathBuf,
    sightings: Sightings,
    performer: Option<Performer>,
    /// Why there is none.
    trouble: String,
}

/// One sample of the host.
struct Look {
    mounts: Reading<Mounts>,
    groups: Reading<PodCgroups>,
    holders: Reading<MountHolders>,
}

impl Look {
    fn of(seen: Vec<Observation>) -> Self {
        let not_asked = Unknown::not_asked;
        let mut look = Self {
            mounts: Reading::Unknown(not_asked()),
            groups: Reading::Unknown(not_asked()),
            holders: Reading::Unknown(not_asked()),
        };
        for observation in seen {
            match observation {
                Observation::Mounts(reading) => look.mounts = reading,
                Observation::PodCgroups(reading) => look.groups = reading,
                Observation::MountHolders(reading) => look.holders = reading,
                _ => {}
            }
        }
        look
    }
}

impl Executor {
    /// Reads its journal. One that cannot be used stops no start: every request is then refused.
    pub async fn new(
        config: &Config,
        host_reader: HostReader,
        clock: Clock,
        calls: Option<Box<dyn Calls>>,
    ) -> anyhow::Result<Self> {
        let (dir, settings) = (state_dir(config)?.to_owned(), config.remedy.clone());
        let opened = in_time(PERFORM_PATIENCE, move || open(&dir, &settings, clock, calls)).await;
        let opened = opened.unwrap_or_else(|| Err("the journal's disk does not answer".to_owned()));
        let (performer, trouble) = match opened {
            Ok(performer) => (Some(performer), String::new()),
            Err(why) => {
                warn!(%why, "the journal cannot be used: every request is refused");
                (None, why)
            }
        };
        let below = config.kubelet_root.trim_start_matches('/');
        Ok(Self {
            host_reader,
            clock,
            settings: config.remedy.clone(),
            kubelet_root: config.kubelet_root.clone(),
            pods: Path::new(&config.host_root).join(below).join("pods"),
            sightings: Sightings::default(),
            performer,
            trouble,
        })
    }

    /// Looks at the host every ten seconds, and answers one request at a time.
    async fn serve(&mut self, listener: &UnixListener, turned: impl Fn()) {
        let mut look_at = self.clock.now();
        loop {
            let now = self.clock.now();
            let rest = look_at.since(&now).unwrap_or_default();
            tokio::select! {
                biased;
                () = sleep(rest) => {
                    self.look(&[]).await;
                    if self.performer.as_ref().is_some_and(|performer| performer.is_late(&self.clock.now())) {
                        self.perform(|performer, now| performer.give_up("the second call was not asked for in time", now)).await;
                    }
                    look_at = self.clock.now().plus(LOOK_EACH);
                    turned();
                }
                stream = listener.accept() => match stream {
                    Ok((stream, _)) if peer(&stream).is_some_and(is_trusted) => {
                        self.converse(stream).await;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        warn!(%error, "no connection to the socket can be accepted; it is tried again");
                        sleep(Duration::from_millis(500)).await;
                    }
                },
            }
        }
    }

    /// Takes one sample, which is also remembered.
    async fn look(&mut self, lookups: &[Lookup]) -> (NodeTime, Look) {
        let seen = self.host_reader.collect(self.clock, LOOK, lookups).await;
        let look = Look::of(seen);
        let now = self.clock.now();
        self.sightings.follow(now, look.mounts.known(), look.groups.known());
        (now, look)
    }

    async fn converse(&mut self, mut stream: UnixStream) {
        // The answer itself has limits of its own: what it holds meanwhile must not be dropped.
        let line = timeout(PATIENCE, read_line(&mut stream)).await;
        let answer = match line.unwrap_or_else(|_| Err("the line did not end in time".to_owned())) {
            Ok(line) => match parse_request(&line) {
                Ok(request) => self.answer(request).await,
                Err(why) => Answer::Refused(why),
            },
            Err(why) => Answer::Refused(why),
        };
        let _ = timeout(PATIENCE, stream.write_all(&answer.line())).await;
    }

    /// Answers a request: everything is verified again before each step.
    pub(super) async fn answer(&mut self, Request { ask, act, .. }: Request) -> Answer {
        if let Err(why) = act.check_form(&self.kubelet_root) {
            return Answer::Refused(why);
        }
        let mode = self.settings.mode(act.kind());
        if mode == Mode::Report || (ask != Ask::Verify && mode != Mode::Act) {
            return Answer::Refused(format!("the mode of this kind is {}", mode.name()));
        }
        let cap = self.settings.acts_per_hour;
        match (ask, self.verify(&act).await) {
            (Ask::Verify, Answer::WouldAct) => {
                let note = move |performer: &mut Performer, now: Now<'_>| match performer.note(act, now, cap) {
                    Ok(()) => Answer::WouldAct,
                    Err(why) => Answer::Refused(why),
                };
                self.perform(note).await
            }
            (Ask::Begin, Answer::WouldAct) => self.perform(move |performer, now| performer.begin(&act, now, cap)).await,
            (Ask::Finish, Answer::WouldAct) => self.perform(move |performer, now| performer.finish(&act, now)).await,
            // What came between the two calls ends the act.
            (Ask::Finish, Answer::Refused(why)) => {
                self.perform(move |performer, now| match performer.is_under_way(&act) {
                    true => performer.give_up(&why, now),
                    false => Answer::Refused(why),
                })
                .await
            }
            (_, answer) => answer,
        }
    }

    /// Whether it would do this act, by what it reads now and read before.
    async fn verify(&mut self, act: &Act) -> Answer {
        let lookups = match act {
            Act::UnmountPodPath(act) => vec![Lookup::MountHolders(act.device)],
            Act::RemoveEmptyPodDirectory(_) => Vec::new(),
        };
        let (now, look) = self.look(&lookups).await;
        // Nothing is listed where something may be mounted below it.
        let is_free = look.mounts.known().is_ok_and(|mounts| {
            mounts.incomplete().is_none() && !mounts.values().any(|mount| names_pod(mount, act.pod()))
        });
        let contents = if is_free { self.contents(act).await } else { Err(Unknown::not_asked()) };
        let fresh = Fresh {
            mounts: look.mounts.known(),
            groups: look.groups.known(),
            holders: look.holders.known(),
            contents: contents.as_ref(),
        };
        verify(act, &self.sightings, &fresh, &now, &self.kubelet_root)
    }

    async fn contents(&self, act: &Act) -> Result<Contents, Unknown> {
        let Act::RemoveEmptyPodDirectory(act) = act else { return Err(Unknown::not_asked()) };
        let (pods, pod) = (self.pods.clone(), act.pod.clone());
        let read = in_time(DISK_PATIENCE, move || directory::contents(&pods, &pod)).await;
        read.unwrap_or_else(|| Err(Unknown::new(Cause::Stuck, "the pod's directory does not answer")))
    }

    /// Takes one step, on a thread that may wait for the disk and for the call.
    async fn perform(&mut self, step: impl FnOnce(&mut Performer, Now<'_>) -> Answer + Send + 'static) -> Answer {
        let Some(mut performer) = self.performer.take() else {
            return Answer::Refused(format!("the executor's journal cannot be used: {}", self.trouble));
        };
        let clock = self.clock;
        let performed = in_time(PERFORM_PATIENCE, move || {
            let answer = step(&mut performer, &|| clock.now());
            (performer, answer)
        });
        match performed.await {
            Some((performer, answer)) => {
                self.performer = Some(performer);
                answer
            }
            None => {
                "its disk does not answer".clone_into(&mut self.trouble);
                // A call may have been made.
                Answer::Failed("the executor's journal, or the call, does not answer".to_owned())
            }
        }
    }
}

/// Opens the journal, ends what was under way when the program ended, and lets failures go of kinds that do not act.
fn open(dir: &Path, settings: &Settings, clock: Clock, calls: Option<Box<dyn Calls>>) -> Result<Performer, String> {
    let mut performer = Performer::new(JournalFile::open(dir, clock.now())?, calls, WAIT);
    for kind in ActKind::ALL {
        if settings.mode(kind) != Mode::Act {
            performer.clear(kind, clock.now())?;
        }
    }
    if let Err(why) = performer.recover(&|| clock.now()) {
        warn!(%why, "what became of an act is not known yet: none is done until it is");
    }
    Ok(performer)
}

/// One line of bounded length.
pub(super) async fn read_line(stream: &mut UnixStream) -> Result<Vec<u8>, String> {
    let (mut line, mut buffer) = (Vec::new(), [0u8; 1024]);
    while !line.ends_with(b"\n") {
        let read = stream.read(&mut buffer).await.map_err(|error| format!("the line cannot be read: {error}"))?;
        if read == 0 {
            return Err("the line has no end".to_owned());
        }
        line.extend(buffer.iter().take(read));
        if line.len() > MAX_LINE {
            return Err(format!("the line has more than {MAX_LINE} bytes"));
        }
    }
    Ok(line)
}

/// On the kernel itself: the executor as it runs, in a mount namespace of the test's own, with a volume on a loop device.
#[cfg(test)]
mod tests;
