//! The kubelet's socket PodsAPI (1.37 and later): its pods with the statuses that it has of them itself, also while the API server is away.
//!
//! Each answer is read by a thread of its own, so that neither a disk that hangs nor the kubelet holds up a pass; never more than one.

pub mod client;
pub mod list;
pub mod protobuf;

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::unistd::geteuid;
use tokio::net::UnixStream;
use tokio::runtime;

use super::provider::{Due, Pace};
use crate::collect::clock::Clock;
use crate::collect::cluster::kubelet_pods::KubeletPods;
use crate::collect::cluster::mailbox::Mailbox;
use crate::collect::host::root::Root;
use crate::facts::{Cause, Component, NodeTime, Observation, Pods, Reading, Source, Unknown};
use list::Item;

/// Where the kubelet makes it, below its own directory.
pub const SOCKET: &str = "pods-api/pods-api.sock";
/// In a copy of a machine, the pods that its kubelet had.
pub const SIDE_FILE: &str = "captured/pods-api.json";

/// Asks the kubelet for its pods, each minute and when another process is the kubelet.
#[derive(Debug)]
pub struct PodsApi {
    root: Arc<Root>,
    /// The kubelet's directory, as it was last seen.
    directory: String,
    clock: Clock,
    pace: Pace,
    /// When the side file of a copy was read.
    read: Option<NodeTime>,
    mailbox: Arc<Mailbox>,
    /// Whether a thread waits for an answer.
    is_busy: Arc<AtomicBool>,
    /// The last answer: what did not change since is not held twice.
    last: Arc<Mutex<Pods>>,
}

impl PodsApi {
    /// Nothing is asked before a kubelet was seen to run.
    #[must_use]
    pub fn new(root: Root, directory: &str, clock: Clock) -> Self {
        Self {
            root: Arc::new(root),
            directory: directory.to_owned(),
            clock,
            pace: Pace::new(Source::PodsApi),
            read: None,
            mailbox: Arc::default(),
            is_busy: Arc::default(),
            last: Arc::new(Mutex::new(Pods::whole([]))),
        }
    }

    /// Asks where what was seen of the kubelet makes that due; how many answers that are to come.
    pub fn follow(&mut self, seen: &[Observation], now: NodeTime) -> usize {
        for observation in seen {
            if let Observation::KubeletConfig(Reading::Known { value, .. }) = observation {
                self.directory.clone_from(&value.root_dir);
            }
        }
        let due = if self.root.is_live() { self.pace.follow(seen, now) } else { self.of_copy(now) };
        match due {
            Due::Nothing => 0,
            Due::Not(why) => {
                self.mailbox.keep(Observation::unknown(Source::PodsApi, why));
                0
            }
            Due::Ask => self.ask(),
        }
    }

    /// What a copy says changes with no process.
    fn of_copy(&mut self, now: NodeTime) -> Due {
        let is_new = |at: NodeTime| now.since(&at).is_some_and(|age| age < Source::PodsApi.every());
        if self.read.is_some_and(is_new) {
            return Due::Nothing;
        }
        self.read = Some(now);
        Due::Ask
    }

    fn ask(&self) -> usize {
        let unknown =
            |cause, why: &str| self.mailbox.keep(Observation::unknown(Source::PodsApi, Unknown::new(cause, why)));
        if self.is_busy.swap(true, Ordering::Relaxed) {
            unknown(Cause::Stuck, "the look for the kubelet's PodsAPI did not come back since it was last asked");
            return 0;
        }
        let (root, directory, clock) = (Arc::clone(&self.root), self.directory.clone(), self.clock);
        let (mailbox, is_busy, last) = (Arc::clone(&self.mailbox), Arc::clone(&self.is_busy), Arc::clone(&self.last));
        let work = move || {
            // The time before the request: what the kubelet says is at least as new.
            let at = clock.now();
            let pods = read(&root, &directory);
            let pods = pods.map(|pods| share(pods, &mut last.lock().unwrap_or_else(PoisonError::into_inner)));
            is_busy.store(false, Ordering::Relaxed);
            mailbox.put(Observation::PodsApi(Reading::of(pods, at)));
        };
        if thread::Builder::new().name("barnacle-pods".to_owned()).spawn(work).is_err() {
            self.is_busy.store(false, Ordering::Relaxed);
            unknown(Cause::Failed, "no thread could be started to ask the kubelet's PodsAPI");
            return 0;
        }
        1
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

/// The same pods, those that are as they were as the ones that were.
fn share(pods: Pods, last: &mut Pods) -> Pods {
    if pods != *last {
        let before = last.clone();
        let kept = |uid, pod| before.get(uid).filter(|before| *before == pod).unwrap_or(pod);
        let all: Vec<_> = pods.iter().map(|(uid, pod)| (uid.clone(), Arc::clone(kept(uid, pod)))).collect();
        *last = Pods::with_incomplete(all, pods.incomplete().cloned());
    }
    last.clone()
}

/// The pods of the kubelet that has this directory.
///
/// # Errors
/// When it does not serve them, or not to us.
pub fn read(root: &Root, directory: &str) -> Result<Pods, Unknown> {
    if !root.is_live() {
        return captured(root);
    }
    let path = format!("{}/{SOCKET}", directory.trim_matches('/'));
    let socket = root.socket(&path).map_err(|why| not_there(root, why))?;
    let failed = |what: &str, error: std::io::Error| {
        let cause = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Cause::Denied,
            _ => Cause::Failed,
        };
        Unknown::new(cause, format!("{what} {}: {error}", root.name(&path)))
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed("to ask", error))?;
    runtime.block_on(async {
        // The handle is the socket that was looked at, whatever has its name by now.
        let stream = UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await;
        let stream = stream.map_err(|error| failed("connect to", error))?;
        let peer = stream.peer_cred().map_err(|error| failed("who serves", error))?.uid();
        if peer != 0 && peer != geteuid().as_raw() {
            let why = format!("{} is served by uid {peer}, expected the kubelet, which is uid 0", root.name(&path));
            return Err(Unknown::new(Cause::WrongType, why));
        }
        let mut pods = KubeletPods::default();
        let answer = client::list(stream, |item| {
            pods.take(match item {
                Item::Whole(bytes) => protobuf::decode_pod(bytes),
                Item::TooLarge => Err(format!("a pod of more than {} MiB is not read", list::MAX_POD >> 20)),
            })
        });
        answer.await.map_err(|why| Unknown { why: format!("{}: {}", root.name(&path), why.why), ..why })?;
        Ok(pods.end())
    })
}

/// A kubelet before 1.37 makes none; in a container it may be that the directory is not mounted.
fn not_there(root: &Root, why: Unknown) -> Unknown {
    if why.cause != Cause::Missing {
        return why;
    }
    let of_kubelet = "kubelets have it from 1.37 on";
    if root.is_partial() {
        let why = format!("{} ({of_kubelet}; the component pods-api mounts its directory)", why.why);
        return Unknown::new(Cause::Missing, why).in_component(Component::PodsApi);
    }
    Unknown::new(Cause::Unsupported, format!("{} ({of_kubelet})", why.why))
}

fn captured(root: &Root) -> Result<Pods, Unknown> {
    match root.read(SIDE_FILE, |bytes| parse_captured(bytes).map_err(|why| why.why)) {
        Err(why) if why.cause == Cause::Missing => {
            let why = format!("a running kubelet answers PodsAPI, and {} is a copy without {SIDE_FILE}", root.name(""));
            Err(Unknown::new(Cause::Unsupported, why))
        }
        read => read,
    }
}

/// The pods of a side file: a list of Pods in JSON, as the API server and the kubelet's `/pods` write it.
///
/// # Errors
/// When it is no such list.
pub fn parse_captured(bytes: &[u8]) -> Result<Pods, Unknown> {
    #[derive(serde::Deserialize)]
    struct List {
        items: Vec<serde_json::Value>,
    }
    let malformed = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        Unknown::new(Cause::Malformed, format!("expected a list of pods (line {line}, column {column})"))
    };
    let list: List = serde_json::from_slice(bytes).map_err(malformed)?;
    let mut pods = KubeletPods::default();
    list.items.into_iter().for_each(|pod| pods.take(Ok(pod)));
    Ok(pods.end())
}

#[cfg(test)]
mod tests;
