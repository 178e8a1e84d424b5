//! A Kubernetes API server for tests: real HTTP on a loopback port, what the agent asks for and nothing else, and
//! faults on demand. What it promises is in `api/contract`, which also runs against a real control plane (the lab's
//! part `contract`). What it does not serve it answers with 501 and says so: a test that gets there tests nothing.

mod answer;
mod events;
mod faults;
mod line;
mod log;
mod objects;
mod patch;
mod query;
mod reads;
mod refusal;
mod resource;
mod serve;
mod store;
mod watch;
mod writes;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;
use tokio::sync::watch as signal;

pub use faults::{EndWatches, Fault, On};
pub use log::Request;
pub use objects::{daemonset, node, pod};

use faults::Faults;
use log::Log;
use resource::Resource;
use serve::Running;
use store::{Key, Store};

/// The server. It ends when this is dropped.
pub struct Api {
    shared: Arc<Shared>,
    address: SocketAddr,
    running: Mutex<Option<Running>>,
}

/// What the handle and the server's thread both have.
struct Shared {
    state: Mutex<State>,
    log: Arc<Log>,
    /// Watches wait for it: the newest version, and the last order to end.
    tick: signal::Sender<Tick>,
}

struct State {
    store: Store,
    faults: Faults,
    /// Custom resources that this cluster does not have.
    uninstalled: BTreeSet<&'static str>,
    /// Whether streaming lists are done.
    streams: bool,
    /// A token and whether its owner may do anything; no client needs one while there is none.
    tokens: Vec<(String, bool)>,
}

#[derive(Clone, Copy, Default)]
struct Tick {
    version: u64,
    ends: usize,
    how: Option<EndWatches>,
}

impl Api {
    /// Starts to serve on a free port.
    pub fn start() -> Self {
        let state = State {
            store: Store::new(),
            faults: Faults::default(),
            uninstalled: BTreeSet::new(),
            streams: true,
            tokens: Vec::new(),
        };
        let shared =
            Shared { state: Mutex::new(state), log: Arc::default(), tick: signal::Sender::new(Tick::default()) };
        let shared = Arc::new(shared);
        let running = Running::start(SocketAddr::from(([127, 0, 0, 1], 0)), &shared);
        Self { address: running.address, running: Mutex::new(Some(running)), shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The server goes away: its port refuses, its connections are closed. Its objects stay.
    pub fn stop(&self) {
        drop(self.running.lock().unwrap().take());
    }

    /// It is back, on the same port.
    pub fn resume(&self) {
        let mut running = self.running.lock().unwrap();
        if running.is_none() {
            *running = Some(Running::start(self.address, &self.shared));
        }
    }

    /// Makes an object or replaces it; returns it as it is kept. One that is as it was keeps its version.
    pub fn put(&self, object: Value) -> Value {
        let key = Key::of(&object);
        self.change(|store| store.put(key, object))
    }

    /// Changes an object that has the kind, namespace and name of this one.
    pub fn update(&self, object: &Value, change: impl FnOnce(&mut Value)) -> Value {
        let key = Key::of(object);
        self.change(|store| {
            let mut found = store.get(&key).unwrap_or_else(|| panic!("{key:?} is not there")).clone();
            change(&mut found);
            store.put(key, found)
        })
    }

    /// Deletes what has the kind, namespace and name of this object; returns what was there.
    pub fn delete(&self, object: &Value) -> Option<Value> {
        self.change(|store| store.remove(&Key::of(object)))
    }

    /// An object by plural, namespace ("" for what has none) and name.
    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let resource = Resource::named(plural);
        self.shared.lock().store.get(&Key::new(resource, namespace, name)).cloned()
    }

    /// All objects of a plural.
    pub fn all(&self, plural: &str) -> Vec<Value> {
        let resource = Resource::named(plural);
        self.shared.lock().store.all(resource).map(|(_, object)| object.clone()).collect()
    }

    /// Namespaces that events may be made in, besides `default` and `kube-system`.
    pub fn namespace(&self, name: &str) {
        self.shared.lock().store.namespaces.insert(name.to_owned());
    }

    /// This cluster lacks a custom resource, by its plural.
    pub fn uninstall(&self, plural: &str) {
        self.shared.lock().uninstalled.insert(Resource::named(plural).plural);
    }

    /// Streaming lists end with an ERROR 500, as on a server whose etcd is too old for them.
    pub fn without_streaming_lists(&self) {
        self.shared.lock().streams = false;
    }

    /// From now on only a client with a token is let in, and may do everything or nothing.
    pub fn token(&self, token: &str, everything: bool) {
        self.shared.lock().tokens.push((token.to_owned(), everything));
    }

    /// Forgets the history: versions before the present one are too old. Watches that keep up see nothing of it.
    pub fn compact(&self) {
        self.shared.lock().store.compact();
    }

    pub fn fault(&self, fault: Fault, on: On) {
        self.shared.lock().faults.add(fault, on);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.shared.lock().faults = Faults::default();
    }

    /// Ends the watches that are open now; new ones may be opened.
    pub fn end_watches(&self, how: EndWatches) {
        self.shared.tick.send_modify(|tick| {
            tick.ends += 1;
            tick.how = Some(how);
        });
    }

    /// All requests since the start or the last [`Self::forget_requests`], oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.log.all()
    }

    pub fn forget_requests(&self) {
        self.shared.log.clear();
    }

    fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        self.shared.change(change)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes objects and sends that to the watches.
    fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let mut state = self.lock();
        let done = change(&mut state.store);
        let version = state.store.version();
        self.tick.send_modify(|tick| tick.version = version);
        done
    }
}
