//! What goes wrong when a test says so.

use std::time::Duration;

/// What becomes of a request. A write has its effect in all cases but `Status` and `Hang`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A v1 Status with that code; 429 and 503 with Retry-After.
    Status(u16),
    Latency(Duration),
    /// Nothing is said, and the connection stays.
    Hang,
    /// Half of the answer, then a TCP reset.
    Reset,
    /// Half of the announced length, then an orderly end of the connection.
    HalfAnswer,
    /// 200, and JSON that ends in the middle.
    Garbage,
}

/// How an open watch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndWatches {
    /// As at its timeout.
    Cleanly,
    /// By a TCP reset.
    Reset,
    /// In the middle of an event, the connection with it.
    HalfEvent,
    /// Not at all: the connection stays, and nothing comes any more.
    Silently,
}

/// Which requests a fault meets: all, unless limited.
#[derive(Clone, Debug, Default)]
pub struct On {
    prefix: String,
    left: Option<usize>,
}

impl On {
    pub fn all() -> Self {
        Self::default()
    }

    /// Only addresses that begin so.
    pub fn path(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), left: None }
    }

    /// Only so many of them from now on.
    pub fn next(self, requests: usize) -> Self {
        Self { left: Some(requests), ..self }
    }
}

#[derive(Default)]
pub struct Faults(Vec<(Fault, On)>);

impl Faults {
    pub fn add(&mut self, fault: Fault, on: On) {
        self.0.push((fault, on));
    }

    /// Those that meet this request.
    pub fn take(&mut self, path: &str) -> Vec<Fault> {
        let mut met = Vec::new();
        for (fault, on) in self.0.iter_mut().filter(|(_, on)| path.starts_with(&on.prefix)) {
            match &mut on.left {
                Some(0) => continue,
                Some(left) => *left -= 1,
                None => {}
            }
            met.push(fault.clone());
        }
        met
    }
}
