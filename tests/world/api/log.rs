//! What was asked, and what was answered.

use std::sync::{Arc, Mutex};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// With what stands behind the `?`.
    pub path: String,
    /// None while nothing is answered.
    pub status: Option<u16>,
    /// Bytes of the answer's body that were given out so far.
    pub sent: usize,
}

#[derive(Default)]
pub struct Log(Mutex<Requests>);

#[derive(Default)]
struct Requests {
    next: u64,
    all: Vec<(u64, Request)>,
}

impl Log {
    pub fn begin(self: &Arc<Self>, method: &str, path: &str) -> Entry {
        let mut requests = self.0.lock().unwrap();
        requests.next += 1;
        let id = requests.next;
        let request = Request { method: method.to_owned(), path: path.to_owned(), status: None, sent: 0 };
        requests.all.push((id, request));
        Entry { log: Arc::clone(self), id }
    }

    pub fn all(&self) -> Vec<Request> {
        self.0.lock().unwrap().all.iter().map(|(_, request)| request.clone()).collect()
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().all.clear();
    }
}

/// A request's own line.
pub struct Entry {
    log: Arc<Log>,
    id: u64,
}

impl Entry {
    pub fn status(&self, code: u16) {
        self.change(|request| request.status = Some(code));
    }

    pub fn sent(&self, bytes: usize) {
        self.change(|request| request.sent += bytes);
    }

    fn change(&self, change: impl FnOnce(&mut Request)) {
        let mut requests = self.log.0.lock().unwrap();
        // Cleared meanwhile.
        let Some((_, request)) = requests.all.iter_mut().find(|(id, _)| *id == self.id) else { return };
        change(request);
    }
}
