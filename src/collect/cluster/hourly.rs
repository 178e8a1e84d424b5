//! What hardly changes and belongs to this node: read once an hour.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::mailbox::Mailbox;
use super::objects::{self, RawCniNode, RawConfigMap, RawCsiNode, RawDaemonSet};
use super::{Object, parse};
use crate::collect::clock::Clock;
use crate::facts::{AgentDaemonSet, Cause, NodeTime, Observation, Reading, Source, Unknown};
use crate::kube_api::{Api, ApiError};
use crate::pacing::{Backoff, spread};

const HOUR: Duration = Duration::from_secs(3600);
/// What failed is tried again no later than this.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// For so long what was read stands where a later try fails: until the next hour's reading, and some tries of that.
const STANDS: Duration = Duration::from_secs(3600 + 360 + 2 * 600);

/// Declares what is read once an hour: the source, whether detectors may ask for it meanwhile, its form at the API server, how that or
/// its absence is read, and its path.
macro_rules! hourly {
    ($($source:ident, $asked:literal: $raw:ty, $from:expr, $path:literal;)*) => {
        const HOURLY: &[Source] = &[$(Source::$source),*];

        /// Whether a detector may ask for a source that is read once an hour.
        pub(super) fn may_be_asked(source: Source) -> bool {
            match source {
                $(Source::$source => $asked,)*
                _ => false,
            }
        }

        async fn read(
            source: Source,
            api: &Api,
            clock: Clock,
            own_name: &str,
            reads: &LastReads,
        ) -> Result<Observation, ApiError> {
            let path = |path: &str| {
                path.replace("{node}", &api.node).replace("{namespace}", &api.namespace).replace("{agent}", own_name)
            };
            match source {
                $(Source::$source => {
                    let value = $from(api.get::<$raw>(&path($path)).await?, (&api.namespace, own_name));
                    let at = clock.now();
                    reads.note(source, at);
                    Ok(Observation::$source(Reading::of(value, at)))
                })*
                _ => Ok(Observation::unknown(source, Unknown::not_asked())),
            }
        }

        /// An object that an API server sent, as its source keeps it; none of a source that is not read once an hour.
        pub(super) fn read_object(source: Source, object: &[u8]) -> Option<Result<Object, Unknown>> {
            match source {
                $(Source::$source => Some(parse::<$raw>(object).and_then(|raw| $from(Some(raw), ("", ""))).map(Object::from)),)*
                _ => None,
            }
        }
    };
}

hourly! {
    CsiNode, true: RawCsiNode, or_default(objects::csi_node_from), "/apis/storage.k8s.io/v1/csinodes/{node}";
    CniNode, true: RawCniNode, or_default(objects::cni_node_from), "/apis/vpcresources.k8s.aws/v1alpha1/cninodes/{node}";
    VpcCniConfig, false: RawConfigMap, or_default(objects::vpc_cni_from),
        "/api/v1/namespaces/kube-system/configmaps/amazon-vpc-cni";
    AgentDaemonSet, false: RawDaemonSet, our_daemon_set, "/apis/apps/v1/namespaces/{namespace}/daemonsets/{agent}";
}

/// An object that may well not exist.
fn or_default<R, T: Default>(convert: fn(R) -> T) -> impl FnOnce(Option<R>, (&str, &str)) -> Result<T, Unknown> {
    move |raw, _| Ok(raw.map(convert).unwrap_or_default())
}

fn our_daemon_set(raw: Option<RawDaemonSet>, (namespace, name): (&str, &str)) -> Result<AgentDaemonSet, Unknown> {
    let missing = || Unknown::new(Cause::Missing, format!("there is no DaemonSet {namespace}/{name}"));
    raw.map(objects::daemon_set_from).ok_or_else(missing)
}

/// What a detector may ask for while the hour passes, and when it was last read, by whichever of its two readers.
#[derive(Clone, Debug, Default)]
pub(super) struct LastReads(Arc<Mutex<BTreeMap<Source, NodeTime>>>);

impl LastReads {
    fn note(&self, source: Source, at: NodeTime) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(source, at);
    }

    /// Whether what was read stands, with its age, although a later try failed. A refusal is Unknown at once.
    fn stands(&self, source: Source, error: &ApiError, now: NodeTime) -> bool {
        let read = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&source).copied();
        let age = read.and_then(|read| now.since(&read));
        may_be_asked(source) && error.cause != Cause::Denied && age.is_some_and(|age| age < STANDS)
    }
}

pub(super) fn start(
    tasks: &mut JoinSet<()>,
    api: &Api,
    clock: Clock,
    mailbox: &Arc<Mailbox>,
    own_name: &str,
    reads: &LastReads,
) {
    for source in HOURLY.iter().copied() {
        let (mailbox, reads) = (Arc::clone(mailbox), reads.clone());
        tasks.spawn(repeat(source, api.clone(), clock, mailbox, own_name.to_owned(), reads));
    }
}

async fn repeat(source: Source, api: Api, clock: Clock, mailbox: Arc<Mailbox>, own_name: String, reads: LastReads) {
    let mut backoff = Backoff::new(Duration::from_secs(30), MAX_WAIT);
    loop {
        let observation = read(source, &api, clock, &own_name, &reads).await;
        let wait = match &observation {
            Ok(_) => {
                backoff.reset();
                spread(HOUR, 0.1)
            }
            Err(error) => backoff.wait().max(error.retry_after.unwrap_or_default()),
        };
        match observation {
            Ok(observation) => mailbox.put(observation),
            Err(error) if reads.stands(source, &error, clock.now()) => {}
            Err(error) => mailbox.put(Observation::unknown(source, error.unknown())),
        }
        sleep(wait).await;
    }
}

/// Our own CSINode or CNINode, for a detector that asks: they change while the hour passes. None where what was read before
/// stands.
pub(super) async fn asked(source: Source, api: &Api, clock: Clock, reads: &LastReads) -> Option<Observation> {
    match read(source, api, clock, "", reads).await {
        Ok(observation) => Some(observation),
        Err(error) if reads.stands(source, &error, clock.now()) => None,
        Err(error) => Some(Observation::unknown(source, error.unknown())),
    }
}
