//! Where the API's observations wait for the next cycle: the last word of each source.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::facts::{Observation, Source};

/// The last word of each source since it was last taken.
#[derive(Debug, Default)]
pub(in crate::collect) struct Mailbox {
    words: Mutex<BTreeMap<Source, Observation>>,
    news: Notify,
}

impl Mailbox {
    /// Something changed: a cycle is worth it.
    pub fn put(&self, observation: Observation) {
        self.keep(observation);
        self.news.notify_one();
    }

    /// The same as before, seen again: it can wait for the next cycle.
    pub fn keep(&self, observation: Observation) {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.insert(observation.source(), observation);
    }

    pub fn take(&self) -> Vec<Observation> {
        std::mem::take(&mut *self.words.lock().unwrap_or_else(PoisonError::into_inner)).into_values().collect()
    }

    pub async fn news(&self) {
        self.news.notified().await;
    }
}
