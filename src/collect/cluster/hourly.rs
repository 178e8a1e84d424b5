//! What hardly changes and belongs to this node: read once an hour.

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

/// When our own CSINode was last read, by whichever of its two readers.
#[derive(Clone, Debug, Default)]
pub(super) struct CsiNodeRead(Arc<Mutex<Option<NodeTime>>>);

impl CsiNodeRead {
    fn note(&self, at: NodeTime) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// Whether what was read stands, with its age, although a later try failed. A refusal is Unknown at once.
    fn stands(&self, error: &ApiError, now: NodeTime) -> bool {
        let read = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = read.and_then(|read| now.since(&read));
        error.cause != Cause::Denied && age.is_some_and(|age| age < STANDS)
    }
}

pub(super) fn start(
    tasks: &mut JoinSet<()>,
    api: &Api,
    clock: Clock,
    mailbox: &Arc<Mailbox>,
    own_name: &str,
    csi_node: &CsiNodeRead,
) {
    for source in [Source::CsiNode, Source::CniNode, Source::VpcCniConfig, Source::AgentDaemonSet] {
        let (mailbox, csi_node) = (Arc::clone(mailbox), csi_node.clone());
        tasks.spawn(repeat(source, api.clone(), clock, mailbox, own_name.to_owned(), csi_node));
    }
}

async fn repeat(
    source: Source,
    api: Api,
    clock: Clock,
    mailbox: Arc<Mailbox>,
    own_name: String,
    csi_node: CsiNodeRead,
) {
    let mut backoff = Backoff::new(Duration::from_secs(30), MAX_WAIT);
    loop {
        let observation = if source == Source::CsiNode {
            read_csi_node(&api, clock, &csi_node).await
        } else {
            read(source, &api, clock, &own_name).await
        };
        let wait = match &observation {
            Ok(_) => {
                backoff.reset();
                spread(HOUR, 0.1)
            }
            Err(error) => backoff.wait().max(error.retry_after.unwrap_or_default()),
        };
        match observation {
            Ok(observation) => mailbox.put(observation),
            Err(error) if source == Source::CsiNode && csi_node.stands(&error, clock.now()) => {}
            Err(error) => mailbox.put(Observation::unknown(source, error.unknown())),
        }
        sleep(wait).await;
    }
}

/// Our own CSINode, for a detector that asks: which drivers are registered changes while the hour passes. None where what was
/// read before stands.
pub(super) async fn csi_node(api: &Api, clock: Clock, read: &CsiNodeRead) -> Option<Observation> {
    match read_csi_node(api, clock, read).await {
        Ok(observation) => Some(observation),
        Err(error) if read.stands(&error, clock.now()) => None,
        Err(error) => Some(Observation::unknown(Source::CsiNode, error.unknown())),
    }
}

async fn read_csi_node(api: &Api, clock: Clock, read: &CsiNodeRead) -> Result<Observation, ApiError> {
    let path = format!("/apis/storage.k8s.io/v1/csinodes/{}", api.node);
    let object = convert::<RawCsiNode, CsiNode>(api.get(&path), objects::csi_node_from).await?;
    let at = clock.now();
    read.note(at);
    Ok(Observation::CsiNode(Reading::Known { value: object, at }))
}

async fn read(source: Source, api: &Api, clock: Clock, own_name: &str) -> Result<Observation, ApiError> {
    let Api { node, namespace, .. } = api;
    match source {
        Source::CniNode => {
            let path = format!("/apis/vpcresources.k8s.aws/v1alpha1/cninodes/{node}");
            let object = convert::<RawCniNode, CniNode>(api.get(&path), objects::cni_node_from).await?;
            Ok(Observation::CniNode(Reading::Known { value: object, at: clock.now() }))
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
