//! What hardly changes and belongs to this node: read once an hour.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::mailbox::Mailbox;
use super::objects::{self, RawCniNode, RawConfigMap, RawCsiNode, RawDaemonSet};
use crate::collect::clock::Clock;
use crate::facts::{Cause, CniNode, CsiNode, NodeTime, Observation, Reading, Source, Unknown, VpcCniConfig};
use crate::kube_api::{Api, ApiError};
use crate::pacing::{Backoff, spread};

const HOUR: Duration = Duration::from_secs(3600);
/// What failed is tried again no later than this.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// For so long what was read stands where a later try fails: until the next hour's reading, and some tries of that.
const STANDS: Duration = Duration::from_secs(3600 + 360 + 2 * 600);

/// What a detector may ask for while the hour passes, and when it was last read, by whichever of its two readers.
#[derive(Clone, Debug, Default)]
pub(super) struct LastReads(Arc<Mutex<BTreeMap<Source, NodeTime>>>);

impl LastReads {
    /// Sources that are read once an hour and when a detector asks.
    fn has(source: Source) -> bool {
        matches!(source, Source::CsiNode | Source::CniNode)
    }

    fn note(&self, source: Source, at: NodeTime) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(source, at);
    }

    /// Whether what was read stands, with its age, although a later try failed. A refusal is Unknown at once.
    fn stands(&self, source: Source, error: &ApiError, now: NodeTime) -> bool {
        let read = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&source).copied();
        let age = read.and_then(|read| now.since(&read));
        Self::has(source) && error.cause != Cause::Denied && age.is_some_and(|age| age < STANDS)
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
    for source in [Source::CsiNode, Source::CniNode, Source::VpcCniConfig, Source::AgentDaemonSet] {
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

async fn read(
    source: Source,
    api: &Api,
    clock: Clock,
    own_name: &str,
    reads: &LastReads,
) -> Result<Observation, ApiError> {
    let Api { node, namespace, .. } = api;
    match source {
        Source::CsiNode => {
            let path = format!("/apis/storage.k8s.io/v1/csinodes/{node}");
            let object = convert::<RawCsiNode, CsiNode>(api.get(&path), objects::csi_node_from).await?;
            let at = clock.now();
            reads.note(source, at);
            Ok(Observation::CsiNode(Reading::Known { value: object, at }))
        }
        Source::CniNode => {
            let path = format!("/apis/vpcresources.k8s.aws/v1alpha1/cninodes/{node}");
            let object = convert::<RawCniNode, CniNode>(api.get(&path), objects::cni_node_from).await?;
            let at = clock.now();
            reads.note(source, at);
            Ok(Observation::CniNode(Reading::Known { value: object, at }))
        }
        Source::VpcCniConfig => {
            let path = "/api/v1/namespaces/kube-system/configmaps/amazon-vpc-cni";
            let object = convert::<RawConfigMap, VpcCniConfig>(api.get(path), objects::vpc_cni_from).await?;
            Ok(Observation::VpcCniConfig(Reading::Known { value: object, at: clock.now() }))
        }
        _ => {
            let path = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{own_name}");
            let missing = || Unknown::new(Cause::Missing, format!("there is no DaemonSet {namespace}/{own_name}"));
            let object = api.get::<RawDaemonSet>(&path).await?.map(objects::daemon_set_from).ok_or_else(missing);
            Ok(Observation::AgentDaemonSet(Reading::of(object, clock.now())))
        }
    }
}

/// An object that may well not exist.
async fn convert<R: DeserializeOwned, T: Default>(
    get: impl Future<Output = Result<Option<R>, ApiError>>,
    convert: fn(R) -> T,
) -> Result<T, ApiError> {
    Ok(get.await?.map(convert).unwrap_or_default())
}
