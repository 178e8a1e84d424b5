//! What hardly changes and belongs to this node: read once an hour.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::backoff::{Backoff, spread};
use super::mailbox::Mailbox;
use super::objects::{self, RawCniNode, RawConfigMap, RawCsiNode, RawDaemonSet};
use crate::api::{Api, ApiError};
use crate::facts::{Cause, CniNode, CsiNode, Observation, Reading, Source, Unknown, VpcCniConfig};
use crate::observe::clock::Clock;

const HOUR: Duration = Duration::from_secs(3600);
/// What failed is tried again no later than this.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

pub(super) fn start(tasks: &mut JoinSet<()>, api: &Api, clock: Clock, mailbox: &Arc<Mailbox>, own_name: &str) {
    for source in [Source::CsiNode, Source::CniNode, Source::VpcCniConfig, Source::AgentDaemonSet] {
        tasks.spawn(repeat(source, api.clone(), clock, Arc::clone(mailbox), own_name.to_owned()));
    }
}

async fn repeat(source: Source, api: Api, clock: Clock, mailbox: Arc<Mailbox>, own_name: String) {
    let mut backoff = Backoff::new(Duration::from_secs(30), LONGEST_WAIT);
    loop {
        let observation = read(source, &api, clock, &own_name).await;
        let wait = match &observation {
            Ok(_) => {
                backoff.reset();
                spread(HOUR, 0.1)
            }
            Err(error) => backoff.wait().max(error.retry_after.unwrap_or_default()),
        };
        mailbox.put(observation.unwrap_or_else(|error| Observation::unknown(source, error.unknown())));
        sleep(wait).await;
    }
}

async fn read(source: Source, api: &Api, clock: Clock, own_name: &str) -> Result<Observation, ApiError> {
    let Api { node, namespace, .. } = api;
    match source {
        Source::CsiNode => {
            let path = format!("/apis/storage.k8s.io/v1/csinodes/{node}");
            let object = slim::<RawCsiNode, CsiNode>(api.get(&path), objects::slim_csi_node).await?;
            Ok(Observation::CsiNode(Reading::Known { value: object, at: clock.now() }))
        }
        Source::CniNode => {
            let path = format!("/apis/vpcresources.k8s.aws/v1alpha1/cninodes/{node}");
            let object = slim::<RawCniNode, CniNode>(api.get(&path), objects::slim_cni_node).await?;
            Ok(Observation::CniNode(Reading::Known { value: object, at: clock.now() }))
        }
        Source::VpcCniConfig => {
            let path = "/api/v1/namespaces/kube-system/configmaps/amazon-vpc-cni";
            let object = slim::<RawConfigMap, VpcCniConfig>(api.get(path), objects::slim_vpc_cni).await?;
            Ok(Observation::VpcCniConfig(Reading::Known { value: object, at: clock.now() }))
        }
        _ => {
            let path = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{own_name}");
            let missing = || Unknown::new(Cause::Missing, format!("there is no DaemonSet {namespace}/{own_name}"));
            let object = api.get::<RawDaemonSet>(&path).await?.map(objects::slim_daemon_set).ok_or_else(missing);
            Ok(Observation::AgentDaemonSet(Reading::of(object, clock.now())))
        }
    }
}

/// An object that may well not exist.
async fn slim<R: DeserializeOwned, T: Default>(
    get: impl Future<Output = Result<Option<R>, ApiError>>,
    slim: fn(R) -> T,
) -> Result<T, ApiError> {
    Ok(get.await?.map(slim).unwrap_or_default())
}
