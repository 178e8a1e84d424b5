//! What was asked of the API server, in numbers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// One object.
    Get,
    /// A page of objects.
    List,
    /// Their changes.
    Watch,
    /// A new object.
    Create,
    /// A change of one.
    Patch,
}

impl Verb {
    /// The name in metrics, which is the API's own.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Patch => "patch",
        }
    }
}

/// Requests by verb and HTTP status (none where there was no answer), and bytes.
#[derive(Debug, Default)]
pub struct Meter {
    requests: Mutex<BTreeMap<(Verb, Option<u16>), u64>>,
    received: AtomicU64,
}

impl Meter {
    pub(super) fn count(&self, verb: Verb, code: Option<u16>) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((verb, code)).or_default() += 1;
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many requests came to what.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<(Verb, Option<u16>), u64> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes of all answers' bodies so far.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}
