//! A task that asks a provider in the background: its answers wait for the next cycle, and its calls are counted.

use std::future::Future;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::cluster::mailbox::Mailbox;
use crate::facts::Observation;

/// It ends when this is dropped. `M` counts its calls.
#[derive(Debug)]
pub struct Task<M> {
    mailbox: Arc<Mailbox>,
    meter: Arc<M>,
    _tasks: JoinSet<()>,
}

impl<M: Default> Task<M> {
    pub(super) fn start<F>(work: impl FnOnce(Arc<Mailbox>, Arc<M>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (mailbox, meter) = (Arc::<Mailbox>::default(), Arc::<M>::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(work(Arc::clone(&mailbox), Arc::clone(&meter)));
        Self { mailbox, meter, _tasks: tasks }
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

    /// What was asked so far.
    #[must_use]
    pub fn meter(&self) -> &M {
        &self.meter
    }
}
