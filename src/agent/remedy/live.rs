//! The API server asked by name, just before an act: lists and watches may lie by omission, and are older.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;

use crate::facts::{Cause, NodeTime, Unknown};
use crate::kube_api::{Api, name_in_path};
use crate::remedy::guard::{Annotations, Answer, Live, LiveNode, LivePod};
use crate::remedy::permit::Permitted;

/// For all answers together: older ones count no more.
const PATIENCE: Duration = Duration::from_secs(8);

/// The UID by which the node knows a static pod, in its mirror's annotations.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What is read of any object.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    metadata: Metadata,
    data: Option<Data>,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    uid: String,
    annotations: Option<Annotations>,
    deletion_timestamp: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    pause: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    node_info: Option<NodeInfo>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeInfo {
    #[serde(rename = "bootID")]
    boot_id: String,
}

/// Gets the planner's ConfigMap and Node, the pod and its PersistentVolume.
pub async fn ask(api: &Api, config_map: &str, permitted: &Permitted, at: NodeTime) -> Live {
    let (namespace, pod) = &permitted.name;
    let config = get(api, "/api/v1/namespaces", [&api.namespace, "configmaps", config_map]);
    let node = get(api, "/api/v1/nodes", [&api.node]);
    let pod = get(api, "/api/v1/namespaces", [namespace, "pods", pod]);
    let volume = async {
        match &permitted.pv {
            Some(pv) => Some(get(api, "/api/v1/persistentvolumes", [pv]).await),
            None => None,
        }
    };
    let (config, node, pod, volume) = tokio::join!(config, node, pod, volume);
    Live {
        config: config.map(|found| found.map(|object| object.data.and_then(|data| data.pause))),
        node: node.map(|found| found.map(node_of)),
        pod: pod.map(|found| found.map(pod_of)),
        volume: volume
            .map(|answer| answer.map(|found| found.map(|object| object.metadata.annotations.unwrap_or_default()))),
        at,
    }
}

async fn get<const N: usize>(api: &Api, base: &str, parts: [&str; N]) -> Answer<Object> {
    let mut path = base.to_owned();
    for part in parts {
        path.push('/');
        path.push_str(name_in_path(part).map_err(|error| error.unknown())?);
    }
    let late = || Unknown::new(Cause::Stuck, format!("GET {path} did not answer within {} s", PATIENCE.as_secs()));
    match timeout(PATIENCE, api.get::<Object>(&path)).await {
        Ok(answer) => answer.map_err(|error| error.unknown()),
        Err(_) => Err(late()),
    }
}

fn node_of(object: Object) -> LiveNode {
    LiveNode {
        boot: object.status.node_info.and_then(|info| info.boot_id.parse().ok()),
        deleting: object.metadata.deletion_timestamp.is_some(),
        annotations: object.metadata.annotations.unwrap_or_default(),
    }
}

fn pod_of(object: Object) -> LivePod {
    let annotations = object.metadata.annotations.unwrap_or_default();
    let node_uid = annotations.get(MIRROR).cloned().unwrap_or(object.metadata.uid);
    LivePod { node_uid, node: object.spec.node_name, annotations }
}
