//! Looking without being held: the host is read on a thread that may be left behind.
//!
//! One read that does not come back (a dead network filesystem, a stopped FUSE server, a device in D state)
//! costs one cycle its deadline, once. The thread that hangs is left with its source, which is Unknown until
//! the read returns; a fresh thread reads the rest. At most [`MAX_STUCK_THREADS`] are ever left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc as answers;
use tokio::time::timeout;

use crate::facts::{Cause, Lookup, Observation, Provider, Source, SourceSet, Unknown};

use super::clock::Clock;
use super::host::Host;

/// How many hanging threads are put up with.
pub const MAX_STUCK_THREADS: usize = 3;

/// How long one source may take: more than any honest read needs, less than a cycle.
const READ_TIMEOUT: Duration = Duration::from_secs(4);

/// No source is being read.
const IDLE: u8 = u8::MAX;

/// Makes a host collector with nothing remembered, for a thread to start with.
type MakeHost = Arc<dyn Fn() -> Host + Send + Sync>;

/// The host's collectors behind a thread.
pub struct HostReader {
    make: MakeHost,
    patience: Duration,
    worker: Option<Worker>,
    stuck: Vec<(Source, Worker)>,
}

struct Worker {
    requests: mpsc::Sender<Request>,
    answers: answers::UnboundedReceiver<Option<Observation>>,
    /// Index of the source that is being read.
    reading: Arc<AtomicU8>,
    /// Given up: it ends as soon as its read comes back.
    abandoned: Arc<AtomicBool>,
}

struct Request {
    due: SourceSet,
    lookups: Vec<Lookup>,
    clock: Clock,
}

impl HostReader {
    /// Nothing is read, and no thread is started, before the first [`HostReader::collect`].
    pub fn new(make: impl Fn() -> Host + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(make), patience: READ_TIMEOUT, worker: None, stuck: Vec::new() }
    }

    /// The same with another patience, for tests.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sources whose read has not come back.
    pub fn stuck(&self) -> impl Iterator<Item = Source> {
        self.stuck.iter().map(|(source, _)| *source)
    }

    /// Reads the sources that are due and answers the lookups. Every source asked for gets an answer.
    pub async fn collect(&mut self, clock: Clock, due: SourceSet, lookups: &[Lookup]) -> Vec<Observation> {
        self.release();
        let mut seen = Vec::new();
        let held: SourceSet = self.stuck().collect();
        // The API server's collector and EC2's answer the others.
        let asked: SourceSet = lookups.iter().map(Lookup::source).filter(|s| s.provider() == Provider::Host).collect();
        let mut left = due.with(asked).without(held);
        for source in due.with(asked).without(left).iter() {
            seen.push(self.still_stuck(source));
        }
        // One round more than can end with a hang.
        for _ in 0..=MAX_STUCK_THREADS {
            if left.is_empty() || self.stuck.len() >= MAX_STUCK_THREADS {
                break;
            }
            let request = Request { due: left, lookups: lookups.to_vec(), clock };
            left = left.without(self.cycle(request, &mut seen).await);
        }
        let why =
            format!("not looked: {} reads hang, and at most {MAX_STUCK_THREADS} are put up with", self.stuck.len());
        seen.extend(left.iter().map(|s| Observation::unknown(s, Unknown::new(Cause::Stuck, why.clone()))));
        seen
    }

    /// One request to one thread; returns the sources that are dealt with.
    async fn cycle(&mut self, request: Request, seen: &mut Vec<Observation>) -> SourceSet {
        let due = request.due;
        let mut done = SourceSet::NONE;
        let Some(mut worker) = self.worker.take().or_else(|| Worker::start(&self.make)) else {
            let why = Unknown::new(Cause::Failed, "no thread could be started to read the host with");
            seen.extend(due.iter().map(|s| Observation::unknown(s, why.clone())));
            return due;
        };
        if worker.requests.send(request).is_err() {
            let why = Unknown::new(Cause::Failed, "the thread that reads the host has ended");
            seen.extend(due.iter().map(|s| Observation::unknown(s, why.clone())));
            return due;
        }
        loop {
            match timeout(self.patience, worker.answers.recv()).await {
                Ok(Some(Some(observation))) => {
                    done = done.with(SourceSet::of(&[observation.source()]));
                    seen.push(observation);
                }
                Ok(Some(None)) => {
                    self.worker = Some(worker);
                    return due;
                }
                Ok(None) => return due,
                Err(_) => break,
            }
        }
        let index = usize::from(worker.reading.load(Ordering::Relaxed));
        if let Some(source) = Source::ALL.get(index).copied() {
            worker.abandoned.store(true, Ordering::Relaxed);
            self.stuck.push((source, worker));
            seen.push(self.still_stuck(source));
            done = done.with(SourceSet::of(&[source]));
        }
        done
    }

    fn still_stuck(&self, source: Source) -> Observation {
        let why = format!("reading {} has not come back within {} s", source.place(), self.patience.as_secs());
        Observation::unknown(source, Unknown::new(Cause::Stuck, why))
    }

    /// Lets go of threads whose read came back; they end by themselves.
    fn release(&mut self) {
        // Its end of the channel is closed when the thread has ended, and not before.
        self.stuck.retain(|(_, worker)| !worker.answers.is_closed());
    }
}

impl Worker {
    fn start(make: &MakeHost) -> Option<Self> {
        let (requests, inbox) = mpsc::channel::<Request>();
        let (outbox, answers) = answers::unbounded_channel();
        let reading = Arc::new(AtomicU8::new(IDLE));
        let mark = Arc::clone(&reading);
        let abandoned = Arc::new(AtomicBool::new(false));
        let given_up = Arc::clone(&abandoned);
        let make = Arc::clone(make);
        let work = move || {
            let mut host = make();
            for request in inbox {
                for source in request.due.iter() {
                    mark.store(source as u8, Ordering::Relaxed);
                    let observation = match request.clock.hides(source) {
                        Some(why) => Observation::unknown(source, why),
                        None => host.collect(source, &request.lookups, request.clock.now()),
                    };
                    mark.store(IDLE, Ordering::Relaxed);
                    if outbox.send(Some(observation)).is_err() || given_up.load(Ordering::Relaxed) {
                        return;
                    }
                }
                if outbox.send(None).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("barnacle-host-reader".into()).stack_size(512 << 10).spawn(work).ok()?;
        Some(Self { requests, answers, reading, abandoned })
    }
}
