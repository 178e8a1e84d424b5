//! The API server as a provider: the Node and pods of this node, and what they name. Never a list of the cluster.
//!
//! What is watched comes by itself and waits here for the next cycle, which it may hasten. What is asked by name is
//! fetched in the background: a cycle never waits for the network, so an API server that is away costs nothing but
//! its own readings, which grow old and then turn Unknown.

mod agent_reports;
mod hourly;
pub(super) mod kubelet_pods;
pub mod lookups;
pub(super) mod mailbox;
mod objects;
mod services;
mod store;
mod watch;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::collect::clock::Clock;
use crate::facts::{
    AgentConfigMap, AgentDaemonSet, Cause, CniNode, CsiNode, Ec2Place, Lookup, Node, NodeLease, Observation,
    PersistentVolume, Pod, Pods, Reading, Source, Unknown, VolumeAttachment, VolumeClass, VpcCniConfig,
};
use crate::kube_api::{Api, ApiError, short_message};

pub use agent_reports::read_agent_reports;
use mailbox::Mailbox;
use objects::KeptPod;
pub use services::pod_services;
use store::Store;
use watch::{Pages, Watch};

/// Name of our own ConfigMap and DaemonSet, as `daemonset/` has them.
const OWN_NAME: &str = "barnacle";

/// Nodes and pods change somewhere at any time, so the server has bookmarks to send.
const SILENCE: Duration = Duration::from_secs(180);
/// ConfigMaps may rest for hours.
const QUIET: Duration = Duration::from_secs(1200);

/// The API server's collectors: tasks that end when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    mailbox: Arc<Mailbox>,
    lookups: mpsc::UnboundedSender<Vec<Lookup>>,
    _tasks: JoinSet<()>,
}

impl Cluster {
    /// Begins to watch, for the node that the connection is about.
    #[must_use]
    pub fn start(api: &Api, clock: Clock, own_pod: Option<String>) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        let (lookups, asked) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let node_uid = NodeUid::default();
        tasks.spawn(watch_node(api, node_uid.clone()).run(api.clone(), clock, Arc::clone(&mailbox)));
        let own_name = own_name(own_pod.as_deref());
        tasks.spawn(watch_pods(api, own_pod, node_uid).run(api.clone(), clock, Arc::clone(&mailbox)));
        tasks.spawn(watch_config(api, &own_name).run(api.clone(), clock, Arc::clone(&mailbox)));
        let reads = hourly::LastReads::default();
        hourly::start(&mut tasks, api, clock, &mailbox, &own_name, &reads);
        tasks.spawn(lookups::answer(api.clone(), clock, Arc::clone(&mailbox), asked, reads));
        Self { mailbox, lookups, _tasks: tasks }
    }

    /// What came since the last time.
    #[must_use]
    pub fn take(&self) -> Vec<Observation> {
        self.mailbox.take()
    }

    /// Asks in the background; the answers come as observations.
    pub fn look_up(&self, lookups: Vec<Lookup>) {
        if !lookups.is_empty() {
            // The task that answers lives as long as we do.
            let _ = self.lookups.send(lookups);
        }
    }

    /// Waits until something came that is worth a cycle.
    pub async fn news(&self) {
        self.mailbox.news().await;
    }
}

/// Pods without a node and when each agent last reported, in the whole cluster: one replica of `barnacle cluster` asks, and no agent
/// does.
#[derive(Debug)]
pub struct Pending {
    mailbox: Arc<Mailbox>,
    _tasks: JoinSet<()>,
}

impl Pending {
    /// Begins to watch.
    #[must_use]
    pub fn start(api: &Api, clock: Clock) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        let mut tasks = JoinSet::new();
        let watch = Watch {
            path: "/api/v1/pods".to_owned(),
            // `spec.nodeName=,status.phase=Pending`
            selector: "spec.nodeName%3D%2Cstatus.phase%3DPending".to_owned(),
            source: Source::PendingPods,
            convert: objects::kept_pod_from,
            // A cluster may have tens of thousands that wait.
            keep: |kept| kept.pod.is_of_the_system(),
            silence: SILENCE,
            publish: Box::new(|store: &Store<KeptPod>, at| {
                Observation::PendingPods(Reading::Known { value: store.inventory(), at })
            }),
        };
        tasks.spawn(watch.run(api.clone(), clock, Arc::clone(&mailbox)));
        tasks.spawn(agent_reports::repeat(api.clone(), clock, Arc::clone(&mailbox)));
        Self { mailbox, _tasks: tasks }
    }

    /// What came since the last time.
    #[must_use]
    pub fn take(&self) -> Vec<Observation> {
        self.mailbox.take()
    }

    /// Waits until something came.
    pub async fn news(&self) {
        self.mailbox.news().await;
    }
}

/// The Nodes of the cluster, or the one of this name: for what an operator does by hand, never for an agent.
///
/// # Errors
/// As the API server says.
pub async fn list_nodes(api: &Api, only: Option<&str>) -> Result<Vec<Node>, ApiError> {
    let selector = only.map(|name| format!("&fieldSelector=metadata.name%3D{name}")).unwrap_or_default();
    let mut nodes = Vec::new();
    let (mut pages, mut next) = (Pages::default(), String::new());
    loop {
        let page: watch::List<objects::RawNode> = api.list(&format!("/api/v1/nodes?limit=50{selector}{next}")).await?;
        for raw in page.items {
            let name = raw.metadata.name.clone();
            nodes.push(objects::node_from(raw).map_err(|why| ApiError::malformed(format!("node {name:?}"), why))?);
        }
        match pages.next(&page.metadata)? {
            Some(token) => next = token,
            None => return Ok(nodes),
        }
    }
}

/// An answer that is no such list names nothing, which must not be taken for an empty one.
fn expect_kind(list: &str, expected: &str, found: &str) -> Result<(), ApiError> {
    if found == expected {
        return Ok(());
    }
    Err(ApiError::malformed(list, format!("expected a {expected}, found {:?}", short_message(found))))
}

/// No user waits for a sweep, and other clients wait for the API server.
const BETWEEN_PAGES: Duration = Duration::from_millis(200);

/// Every PersistentVolume of the cluster, by name: for a sweep, never for an agent.
///
/// # Errors
/// As the API server says.
pub async fn list_volumes(api: &Api) -> Result<Vec<(String, PersistentVolume)>, ApiError> {
    /// Nothing of it may be missing: a list that is empty makes every volume one that is not referenced.
    #[derive(serde::Deserialize)]
    struct Page {
        kind: String,
        metadata: watch::ListMeta,
        items: Vec<objects::RawVolume>,
    }
    let mut volumes = Vec::new();
    let (mut pages, mut next) = (Pages::default(), String::new());
    loop {
        let page: Page = api.list(&format!("/api/v1/persistentvolumes?limit=250{next}")).await?;
        expect_kind("the list of PersistentVolumes", "PersistentVolumeList", &page.kind)?;
        volumes.extend(page.items.into_iter().map(|raw| (raw.metadata.name.clone(), objects::volume_from(raw))));
        match pages.next(&page.metadata)? {
            Some(token) => next = token,
            None => return Ok(volumes),
        }
        tokio::time::sleep(BETWEEN_PAGES).await;
    }
}

/// Nodes that are asked for where any of them will do.
const SOME_NODES: u32 = 50;

/// The instances of some nodes of the cluster: for a sweep, never for an agent.
///
/// # Errors
/// As the API server says.
pub async fn list_instances(api: &Api) -> Result<Vec<Ec2Place>, ApiError> {
    #[derive(serde::Deserialize)]
    struct Page {
        kind: String,
        items: Vec<objects::RawNode>,
    }
    let page: Page = api.list(&format!("/api/v1/nodes?limit={SOME_NODES}")).await?;
    expect_kind("the list of Nodes", "NodeList", &page.kind)?;
    let nodes = page.items.into_iter().filter_map(|raw| objects::node_from(raw).ok());
    Ok(nodes.filter_map(|node| Ec2Place::of_provider_id(node.provider_id.as_deref()?)).collect())
}

/// The pods of a list, as the API server and `kubectl get pods -o json` write it.
///
/// # Errors
/// When it is no such list.
pub fn read_pods(list: &[u8]) -> Result<Pods, Unknown> {
    #[derive(serde::Deserialize)]
    struct List {
        items: Vec<objects::RawPod>,
    }
    let malformed = |error| Unknown::new(Cause::Malformed, format!("expected a list of pods: {error}"));
    let list: List = serde_json::from_slice(list).map_err(malformed)?;
    let mut store = Store::default();
    for raw in list.items {
        store.put(raw.metadata.uid.clone(), objects::kept_pod_from(raw));
    }
    Ok(store.inventory())
}

/// An object that an API server sent, as `kubectl get -o json` prints it: a Node, or what detectors ask for by name.
///
/// # Errors
/// When it is no such object.
pub fn read_object(source: Source, object: &[u8]) -> Result<Object, Unknown> {
    if source == Source::Node {
        return parse(object).and_then(objects::node_from).map(Object::from);
    }
    let read = hourly::read_object(source, object).or_else(|| lookups::read(source, object));
    read.unwrap_or_else(|| Err(Unknown::new(Cause::Unsupported, format!("{source} is not one object"))))
}

fn parse<R: serde::de::DeserializeOwned>(object: &[u8]) -> Result<R, Unknown> {
    serde_json::from_slice(object)
        .map_err(|error| Unknown::new(Cause::Malformed, format!("expected an object: {error}")))
}

macro_rules! objects {
    ($($(#[$doc:meta])* $object:ident($type:ty),)*) => {
        /// What [`read_object`] reads.
        #[derive(Clone, Debug)]
        #[expect(clippy::large_enum_variant, reason = "one is made for each answer, and taken apart at once")]
        pub enum Object {
            $($(#[$doc])* $object($type),)*
        }

        $(impl From<$type> for Object {
            fn from(object: $type) -> Self {
                Self::$object(object)
            }
        })*
    };
}
objects! {
    /// A Node.
    Node(Node),
    /// A CSINode.
    CsiNode(CsiNode),
    /// A CNINode.
    CniNode(CniNode),
    /// The ConfigMap of the VPC CNI.
    VpcCniConfig(VpcCniConfig),
    /// The agent's own DaemonSet.
    AgentDaemonSet(AgentDaemonSet),
    /// A VolumeAttachment.
    VolumeAttachment(VolumeAttachment),
    /// A PersistentVolume.
    PersistentVolume(PersistentVolume),
    /// A StorageClass or VolumeAttributesClass.
    Class(VolumeClass),
    /// A pod.
    Pod(Pod),
    /// The Lease of a Node.
    NodeLease(NodeLease),
}

/// The UID of our Node, once the watch of it has it: the watch of pods compares the mirrors' owner with it.
type NodeUid = Arc<Mutex<Option<String>>>;

fn watch_node(api: &Api, uid: NodeUid) -> Watch<objects::RawNode, Node> {
    let node = api.node.clone();
    Watch {
        path: "/api/v1/nodes".to_owned(),
        selector: format!("metadata.name%3D{node}"),
        source: Source::Node,
        convert: objects::node_from,
        keep: |_| true,
        silence: SILENCE,
        publish: Box::new(move |store: &Store<Node>, at| {
            let missing = || Unknown::new(Cause::Missing, no_such_node(&node));
            if let Ok(Some(node)) = store.only() {
                *uid.lock().unwrap_or_else(PoisonError::into_inner) = Some(node.uid.clone());
            }
            Observation::Node(Reading::of(store.only().and_then(|node| node.cloned().ok_or_else(missing)), at))
        }),
    }
}

fn no_such_node(node: &str) -> String {
    format!("there is no Node {node:?} in this cluster: give its name (--node, or the setting node-name)")
}

fn watch_pods(api: &Api, own_pod: Option<String>, node: NodeUid) -> Watch<objects::RawPod, KeptPod> {
    Watch {
        path: "/api/v1/pods".to_owned(),
        selector: format!("spec.nodeName%3D{}", api.node),
        source: Source::Pods,
        convert: objects::kept_pod_from,
        keep: |_| true,
        silence: SILENCE,
        publish: Box::new(move |store: &Store<KeptPod>, at| {
            let node = node.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let pods = store.expect_pod(own_pod.as_deref()).map(|()| store.inventory_of(node.as_deref()));
            Observation::Pods(Reading::of(pods, at))
        }),
    }
}

/// What our DaemonSet is called, and with it our ConfigMap: the pod's name but for its last part.
#[must_use]
pub fn own_name(own_pod: Option<&str>) -> String {
    let pod = own_pod.and_then(|pod| pod.split_once('/'));
    pod.and_then(|(_, name)| name.rsplit_once('-')).map_or(OWN_NAME, |(daemonset, _)| daemonset).to_owned()
}

fn watch_config(api: &Api, own_name: &str) -> Watch<objects::RawConfigMap, AgentConfigMap> {
    Watch {
        path: format!("/api/v1/namespaces/{}/configmaps", api.namespace),
        selector: format!("metadata.name%3D{own_name}"),
        source: Source::AgentConfigMap,
        convert: objects::config_from,
        keep: |_| true,
        silence: QUIET,
        publish: Box::new(|store: &Store<AgentConfigMap>, at| {
            let config = store.only().map(|config| config.cloned().unwrap_or_default());
            Observation::AgentConfigMap(Reading::of(config, at))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_name_is_that_of_the_pod_but_for_its_last_part() {
        assert_eq!(own_name(Some("kube-system/barnacle-arm64-x7k2p")), "barnacle-arm64");
        assert_eq!(own_name(Some("kube-system/barnacle")), "barnacle");
        assert_eq!(own_name(None), "barnacle");
    }
}
