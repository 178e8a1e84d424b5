//! The API's objects as they come, and what is kept of them.
//!
//! A pod is some kilobytes of JSON of which detectors read a few dozen bytes; the rest is skipped while parsing and never
//! held. Fields that are absent are empty, as the API leaves out what is empty; an object without a name is none.

mod network;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::bounded::{AtMost, First, Names, Texts};
use super::store::Kept;
use crate::collect::kubelet::config::parse_quantity;
use crate::facts::{
    AgentConfigMap, AgentDaemonSet, CONTAINER_ID, Cause, CsiDriver, CsiNode, NODE_LABELS, Node, NodeCondition,
    PersistentVolume, Pod, PodPhase, PodResources, Unknown, VolumeAttachment, VolumeClass, VpcCniConfig,
};

pub use network::{RawCniNode, cni_node_from};

/// The longest text of others that is kept of one field.
const MAX_TEXT: usize = 1024;
/// No name in the API is longer.
const MAX_NAME: usize = 253;
/// Volumes of one pod that are kept. EC2 attaches 128 to an instance at most.
const MAX_VOLUMES: usize = 256;

/// Settings of the VPC CNI that say how many branch interfaces and addresses there can be.
const VPC_CNI_SETTINGS: &[&str] = &[
    "enable-windows-ipam",
    "enable-windows-prefix-delegation",
    "branch-eni-cooldown",
    "minimum-ip-target",
    "warm-ip-target",
    "warm-prefix-target",
];

/// Parameters of a class that say what its volumes are like. Others may be secrets, and end up in no recording.
const CLASS_PARAMETERS: &[&str] =
    &["type", "iops", "iopsPerGB", "throughput", "encrypted", "csi.storage.k8s.io/fstype"];

/// `metadata`, as far as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    /// `name`
    pub name: String,
    /// `namespace`
    pub namespace: String,
    /// `uid`
    pub uid: String,
    /// `resourceVersion`
    pub resource_version: String,
    creation_timestamp: Option<Timestamp>,
    deletion_timestamp: Option<Timestamp>,
    annotations: Option<Annotations>,
    labels: Option<Texts<NodeLabels>>,
    owner_references: Option<AtMost<OwnerReference, 64>>,
}

/// Labels that say what kind of machine a Node is.
#[derive(Clone, Debug, Default)]
struct NodeLabels;

impl Names for NodeLabels {
    fn is_read(name: &str) -> bool {
        NODE_LABELS.contains(&name)
    }
}

/// Quantities of a Node, whose names any client may choose.
#[derive(Clone, Debug, Default)]
struct Resources;

impl Names for Resources {
    fn is_read(_: &str) -> bool {
        true
    }
}

/// The annotations that are read; the others are skipped unread.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<String>,
    #[serde(rename = "vpc.amazonaws.com/pod-eni")]
    pod_eni: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OwnerReference {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
    controller: bool,
}

impl ObjectMeta {
    fn expect_named(&self, kind: &str) -> Result<(), Unknown> {
        let refused = |why: &str| Err(Unknown::new(Cause::Malformed, format!("the API server sent a {kind} {why}")));
        if self.name.is_empty() || self.uid.is_empty() {
            return refused("without a name or UID");
        }
        if [&self.name, &self.namespace, &self.uid].iter().any(|name| name.len() > MAX_NAME) {
            return refused(&format!("with a name of more than {MAX_NAME} bytes"));
        }
        Ok(())
    }

    fn owner(&self) -> Option<&OwnerReference> {
        self.owner_references.as_ref()?.0.iter().find(|owner| owner.controller)
    }

    fn controller(&self) -> Option<String> {
        self.owner().map(|owner| short(format!("{}/{}", owner.kind, owner.name)))
    }

    /// Of a static pod's mirror on this node: the UID of the Node that owns it, and the manifest's hash. Any client may write the
    /// annotation, so without that owner it says nothing.
    fn mirror(&self, node: Option<&str>) -> Result<Option<(String, String)>, Unknown> {
        let Some(hash) = self.annotations.as_ref().and_then(|annotations| annotations.mirror.as_deref()) else {
            return Ok(None);
        };
        let is_node = |owner: &&OwnerReference| {
            owner.api_version == "v1" && owner.kind == "Node" && Some(owner.name.as_str()) == node
        };
        let Some(owner) = self.owner().filter(is_node) else { return Ok(None) };
        if owner.uid.len() > MAX_NAME || hash.len() != 32 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let why = format!(
                "pod {}/{} belongs to the Node as a static pod's mirror, and names no manifest's hash",
                self.namespace, self.name
            );
            return Err(Unknown::new(Cause::Malformed, why));
        }
        Ok(Some((owner.uid.clone(), hash.to_owned())))
    }
}

fn short(mut text: String) -> String {
    let end = text.char_indices().nth(MAX_TEXT).map_or(text.len(), |(at, _)| at);
    text.truncate(end);
    text
}

/// An object with its metadata.
#[derive(Clone, Debug, Deserialize)]
pub struct Raw<Spec, Status> {
    #[serde(default)]
    pub(super) metadata: ObjectMeta,
    #[serde(default = "Option::default")]
    spec: Option<Spec>,
    #[serde(default = "Option::default")]
    status: Option<Status>,
}

/// What every watched object has.
pub trait Object {
    /// Its metadata.
    fn metadata(&self) -> &ObjectMeta;
}

impl<Spec, Status> Object for Raw<Spec, Status> {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

pub type RawNode = Raw<NodeSpec, NodeStatus>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    #[serde(rename = "providerID")]
    provider_id: Option<String>,
    unschedulable: bool,
    taints: Option<AtMost<Taint, 512>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Taint {
    key: String,
    value: Option<String>,
    effect: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    capacity: Option<Texts<Resources>>,
    allocatable: Option<Texts<Resources>>,
    conditions: Option<AtMost<RawCondition, 256>>,
    volumes_in_use: Option<AtMost<String, 1024>>,
    volumes_attached: Option<AtMost<AttachedVolume, 1024>>,
    node_info: Option<NodeInfo>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
    last_heartbeat_time: Option<Timestamp>,
    last_transition_time: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AttachedVolume {
    name: String,
    device_path: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeInfo {
    kubelet_version: Option<String>,
    #[serde(rename = "bootID")]
    boot_id: Option<String>,
    #[serde(rename = "systemUUID")]
    system_uuid: Option<String>,
    #[serde(rename = "machineID")]
    machine_id: Option<String>,
}

pub fn node_from(raw: RawNode) -> Result<Node, Unknown> {
    let Raw { metadata, spec, status } = raw;
    metadata.expect_named("Node")?;
    let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
    let info = status.node_info.unwrap_or_default();
    let attached = status.volumes_attached.unwrap_or_default().0.into_iter();
    let capacity = status.capacity.unwrap_or_default().texts;
    Ok(Node {
        huge_pages: huge_pages(&capacity).into(),
        name: metadata.name,
        uid: metadata.uid,
        created: metadata.creation_timestamp,
        deleting: metadata.deletion_timestamp,
        provider_id: spec.provider_id,
        unschedulable: spec.unschedulable,
        taints: spec.taints.unwrap_or_default().0.into_iter().map(taint).collect(),
        labels: metadata.labels.unwrap_or_default().texts,
        capacity,
        allocatable: status.allocatable.unwrap_or_default().texts,
        conditions: status.conditions.unwrap_or_default().0.into_iter().map(condition).collect(),
        volumes_in_use: status.volumes_in_use.unwrap_or_default().0,
        volumes_attached: attached.map(|volume| (volume.name, volume.device_path)).collect(),
        kubelet_version: info.kubelet_version,
        boot_id: info.boot_id,
        system_uuid: info.system_uuid.map(short),
        machine_id: info.machine_id.map(short),
    })
}

/// What the kubelet subtracts: the capacity of huge pages of all sizes.
fn huge_pages(capacity: &BTreeMap<String, String>) -> Result<Option<u64>, Unknown> {
    let mut sum = None;
    for (name, text) in capacity.iter().filter(|(name, _)| name.starts_with("hugepages-")) {
        let bytes = parse_quantity(text)
            .map_err(|why| Unknown::new(Cause::Malformed, format!("the capacity of the Node: {name}: {why}")))?;
        sum = Some(bytes.saturating_add(sum.unwrap_or_default()));
    }
    Ok(sum.filter(|bytes| *bytes > 0))
}

fn taint(taint: Taint) -> String {
    match taint.value.filter(|value| !value.is_empty()) {
        Some(value) => format!("{}={value}:{}", taint.key, taint.effect),
        None => format!("{}:{}", taint.key, taint.effect),
    }
}

fn condition(raw: RawCondition) -> NodeCondition {
    NodeCondition {
        type_: raw.type_,
        status: raw.status,
        reason: raw.reason.unwrap_or_default(),
        message: raw.message.unwrap_or_default(),
        heartbeat: raw.last_heartbeat_time,
        transition: raw.last_transition_time,
    }
}

pub type RawPod = Raw<PodSpec, PodStatus>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    node_name: Option<String>,
    priority: Option<i64>,
    security_context: Option<SecurityContext>,
    volumes: Option<First<PodVolume, MAX_VOLUMES>>,
    affinity: Option<Affinity>,
    containers: Option<First<Container, MAX_CONTAINERS>>,
    init_containers: Option<First<Container, MAX_CONTAINERS>>,
    resources: Option<ContainerResources>,
    overhead: Option<Amounts>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    resources: Option<ContainerResources>,
    restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerResources {
    requests: Option<Amounts>,
}

/// Amounts of resources, of which memory and branch ENIs are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Amounts {
    memory: Option<String>,
    #[serde(rename = "vpc.amazonaws.com/pod-eni")]
    pod_eni: Option<String>,
}

impl Amounts {
    fn bytes(amounts: Option<&Self>) -> Result<Option<u64>, Unknown> {
        let memory = amounts.and_then(|amounts| amounts.memory.as_deref());
        let read = memory.map(parse_quantity).transpose();
        read.map_err(|why| Unknown::new(Cause::Malformed, format!("a pod's request of memory: {why}")))
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Ended {
    finished_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    running: Option<IgnoredAny>,
    terminated: Option<Ended>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SecurityContext {
    fs_group: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Affinity {
    node_affinity: Option<NodeAffinity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeAffinity {
    required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSelector {
    node_selector_terms: Option<AtMost<Term, 64>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Term {
    match_fields: Option<AtMost<MatchField, 64>>,
    match_expressions: Option<AtMost<MatchField, 64>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct MatchField {
    key: String,
    operator: String,
    /// Only the first one is read.
    values: Option<First<String, 1>>,
}

impl Affinity {
    /// The node that it names, if it names one.
    fn only_node(self) -> Option<String> {
        let required = self.node_affinity?.required_during_scheduling_ignored_during_execution?;
        let terms = required.node_selector_terms?.0.into_iter();
        let fields = terms.flat_map(|term| term.match_fields.unwrap_or_default().0);
        let mut names = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
        names.next()?.values?.items.into_iter().next().filter(|name| name.len() <= MAX_NAME)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodVolume {
    name: String,
    persistent_volume_claim: Option<Claim>,
    ephemeral: Option<serde::de::IgnoredAny>,
}

impl PodVolume {
    /// The claim that it names, or the one that is made for it under the pod's name and its own.
    fn claim(self, pod: &str) -> Option<String> {
        match (self.persistent_volume_claim, self.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name),
            (None, Some(_)) => Some(format!("{pod}-{}", self.name)),
            (None, None) => None,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Claim {
    claim_name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    phase: PodPhase,
    conditions: Option<AtMost<RawCondition, 256>>,
    container_statuses: Option<First<ContainerStatus, MAX_CONTAINERS>>,
    init_container_statuses: Option<First<ContainerStatus, MAX_CONTAINERS>>,
}

/// A list whose items are all kept.
fn whole<T>(list: Option<&First<T, MAX_CONTAINERS>>) -> Result<&[T], Unknown> {
    match list {
        None => Ok(&[]),
        Some(First { items, left_out: 0 }) => Ok(items),
        Some(First { .. }) => {
            let why = format!("what a pod with more than {MAX_CONTAINERS} containers requests is not added up");
            Err(Unknown::new(Cause::TooLarge, why))
        }
    }
}

/// What a pod requests by the kubelet's sum: containers and sidecars together, or the most that an init container needs beside
/// the sidecars before it.
fn pod_resources(spec: &PodSpec, status: &PodStatus) -> Result<PodResources, Unknown> {
    let of_containers = whole(status.container_statuses.as_ref())?;
    let of_init_containers = whole(status.init_container_statuses.as_ref())?;
    let statuses = || of_containers.iter().chain(of_init_containers);
    let request = |container: &Container| -> Result<u64, Unknown> {
        let of_status = statuses().find(|status| status.name == container.name);
        let allocated = Amounts::bytes(of_status.and_then(|status| status.allocated_resources.as_ref()))?;
        let wanted = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        Ok(allocated.map_or_else(|| Amounts::bytes(wanted), |bytes| Ok(Some(bytes)))?.unwrap_or_default())
    };
    let (mut sum, mut sidecars, mut most) = (0u64, 0u64, 0u64);
    for container in whole(spec.containers.as_ref())? {
        sum = sum.saturating_add(request(container)?);
    }
    for container in whole(spec.init_containers.as_ref())? {
        let bytes = request(container)?;
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = sidecars.saturating_add(bytes);
            most = most.max(sidecars);
        } else {
            most = most.max(sidecars.saturating_add(bytes));
        }
    }
    let of_pod = Amounts::bytes(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()))?;
    let memory = of_pod.unwrap_or_else(|| sum.saturating_add(sidecars).max(most));
    // Overhead counts only on top of a request.
    let overhead = if memory > 0 { Amounts::bytes(spec.overhead.as_ref())?.unwrap_or_default() } else { 0 };
    let running = statuses().filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    let running = u32::try_from(running.count()).unwrap_or(u32::MAX);
    Ok(PodResources { memory: memory.saturating_add(overhead), running })
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    state: Option<ContainerState>,
    last_state: Option<LastState>,
    allocated_resources: Option<Amounts>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LastState {
    terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Terminated {
    #[serde(rename = "containerID")]
    container_id: Option<String>,
}

impl ContainerStatus {
    /// The beginnings of the ids that it has and had (`containerd://ID`).
    fn ids(&self) -> impl Iterator<Item = &str> {
        let last = self.last_state.as_ref().and_then(|last| last.terminated.as_ref()?.container_id.as_deref());
        let ids = [self.container_id.as_deref(), last].into_iter().flatten();
        ids.filter_map(|id| id.rsplit_once("://").map_or(id, |(_, id)| id).get(..CONTAINER_ID))
    }
}

/// Statuses of this many containers are kept of one pod.
const MAX_CONTAINERS: usize = 32;

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptPod {
    pub pod: Arc<Pod>,
    /// Of a mirror: the UID of the Node that owns it.
    pub mirror_owner: Option<String>,
    /// What of it is not kept or not believed.
    pub lacks: Option<Unknown>,
}

impl Kept for KeptPod {
    fn namespace(&self) -> &str {
        &self.pod.namespace
    }

    fn extra_bytes(&self) -> usize {
        let Pod { claims, containers, owner, wants, unscheduled, .. } = &*self.pod;
        let texts = [owner, wants, unscheduled].into_iter().flatten().map(String::len);
        let enis = network::enis(&self.pod.network);
        let unread = [self.pod.network.branch_enis.unread(), self.pod.network.requests.unread()];
        let reasons: usize = unread.into_iter().flatten().map(|why| why.why.len()).sum();
        let held = claims.iter().chain(containers.keys()).chain(containers.values()).chain(enis);
        let held = texts.chain(held.map(|text| text.len().saturating_add(size_of::<String>())));
        held.sum::<usize>().saturating_add(reasons)
    }

    fn without_extra(&self, why: Unknown) -> Self {
        let pod = Pod {
            claims: Vec::new(),
            containers: Default::default(),
            owner: None,
            wants: None,
            unscheduled: None,
            network: network::without_enis(&self.pod.network, &why),
            ..Pod::clone(&self.pod)
        };
        Self { pod: Arc::new(pod), mirror_owner: self.mirror_owner.clone(), lacks: Some(why) }
    }
}

/// What is kept of one pod of many.
///
/// # Errors
/// When it has no name or UID.
pub fn kept_pod_from(raw: RawPod) -> Result<KeptPod, Unknown> {
    let Raw { metadata, spec, status } = raw;
    metadata.expect_named("Pod")?;
    let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
    let resources = pod_resources(&spec, &status).into();
    let network = network::pod_network(&metadata, &spec, &status);
    let owner = metadata.controller();
    let node = spec.node_name.filter(|node| !node.is_empty() && node.len() <= MAX_NAME);
    let (mirror, no_mirror) = match metadata.mirror(node.as_deref()) {
        Ok(mirror) => (mirror, None),
        Err(why) => (None, Some(why)),
    };
    let First { items: volumes, left_out } = spec.volumes.unwrap_or_default();
    let (claims, too_long): (Vec<_>, Vec<_>) = volumes
        .into_iter()
        .filter_map(|volume| volume.claim(&metadata.name))
        .partition(|claim: &String| claim.len() <= MAX_NAME);
    let left_out = left_out.saturating_add(too_long.len());
    let cut = (left_out > 0).then(|| {
        let (namespace, name) = (&metadata.namespace, &metadata.name);
        let why = format!(
            "pod {namespace}/{name}: {left_out} of its volumes are not kept: more than {MAX_VOLUMES}, or a claim's name of \
             more than {MAX_NAME} bytes"
        );
        Unknown::new(Cause::TooLarge, why)
    });
    let (mirror_owner, mirrors) = mirror.unzip();
    let scheduled = |c: &RawCondition| c.type_ == "PodScheduled" && c.status == "False";
    let unscheduled = status.conditions.unwrap_or_default().0.into_iter().find(scheduled);
    let containers = [status.container_statuses, status.init_container_statuses].into_iter().flatten();
    let ids = |status: ContainerStatus| {
        let name = short(status.name.clone());
        status.ids().map(|id| (id.to_owned(), name.clone())).collect::<Vec<_>>()
    };
    let containers = containers.flat_map(|first| first.items).take(MAX_CONTAINERS).flat_map(ids).collect();
    let pod = Pod {
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        mirrors,
        node,
        phase: status.phase,
        created: metadata.creation_timestamp,
        deleting: metadata.deletion_timestamp,
        owner,
        priority: spec.priority.unwrap_or_default(),
        fs_group: spec.security_context.and_then(|context| context.fs_group),
        wants: spec.affinity.and_then(Affinity::only_node),
        claims,
        containers,
        unscheduled: unscheduled.map(|condition| short(condition.message.unwrap_or_default())),
        resources,
        network,
    };
    Ok(KeptPod { pod: Arc::new(pod), mirror_owner, lacks: no_mirror.or(cut) })
}

/// A pod by itself.
///
/// # Errors
/// When it has no name or UID, or a part of it would not be kept.
pub fn pod_from(raw: RawPod) -> Result<Pod, Unknown> {
    let KeptPod { pod, lacks, .. } = kept_pod_from(raw)?;
    lacks.map_or_else(|| Ok(Arc::unwrap_or_clone(pod)), Err)
}

/// A ConfigMap: its data is not below a `spec`.
#[derive(Clone, Debug, Deserialize)]
pub struct RawConfigMap {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    data: Option<Texts<ConfigData>>,
}

/// What is read of our own ConfigMap and of the VPC CNI's.
#[derive(Clone, Debug, Default)]
struct ConfigData;

impl Names for ConfigData {
    fn is_read(name: &str) -> bool {
        name == "pause" || VPC_CNI_SETTINGS.contains(&name)
    }
}

impl Object for RawConfigMap {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

pub fn config_from(raw: RawConfigMap) -> Result<AgentConfigMap, Unknown> {
    raw.metadata.expect_named("ConfigMap")?;
    let pause = raw.data.unwrap_or_default().texts.remove("pause").map(short).filter(|why| !why.trim().is_empty());
    Ok(AgentConfigMap { exists: true, pause })
}

pub fn vpc_cni_from(raw: RawConfigMap) -> VpcCniConfig {
    let known = |(name, _): &(String, String)| VPC_CNI_SETTINGS.contains(&name.as_str());
    let data = raw.data.unwrap_or_default().texts.into_iter().filter(known).map(|(name, value)| (name, short(value)));
    VpcCniConfig { exists: true, data: data.collect() }
}

pub type RawCsiNode = Raw<CsiNodeSpec, IgnoredAny>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CsiNodeSpec {
    drivers: Option<AtMost<RawDriver, 256>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawDriver {
    name: String,
    #[serde(rename = "nodeID")]
    node_id: String,
    allocatable: Option<Allocatable>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Allocatable {
    count: Option<u32>,
}

pub fn csi_node_from(raw: RawCsiNode) -> CsiNode {
    let drivers = raw.spec.unwrap_or_default().drivers.unwrap_or_default().0.into_iter().map(|driver| {
        let allocatable = driver.allocatable.and_then(|allocatable| allocatable.count);
        (driver.name, CsiDriver { node_id: driver.node_id, allocatable })
    });
    CsiNode { exists: true, drivers: drivers.collect() }
}

pub type RawDaemonSet = Raw<IgnoredAny, DaemonSetStatus>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetStatus {
    desired_number_scheduled: u64,
    number_ready: u64,
}

pub fn daemon_set_from(raw: RawDaemonSet) -> AgentDaemonSet {
    let status = raw.status.unwrap_or_default();
    AgentDaemonSet { desired: status.desired_number_scheduled, ready: status.number_ready }
}

pub type RawAttachment = Raw<AttachmentSpec, AttachmentStatus>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachmentSpec {
    attacher: String,
    node_name: String,
    source: AttachmentSource,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AttachmentSource {
    persistent_volume_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachmentStatus {
    attached: bool,
    attachment_metadata: Option<Texts<AttachmentMetadata>>,
    attach_error: Option<VolumeError>,
    detach_error: Option<VolumeError>,
}

#[derive(Clone, Debug, Default)]
struct AttachmentMetadata;

impl Names for AttachmentMetadata {
    fn is_read(name: &str) -> bool {
        name == "devicePath"
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct VolumeError {
    message: String,
}

pub fn attachment_from(raw: RawAttachment) -> VolumeAttachment {
    let (spec, status) = (raw.spec.unwrap_or_default(), raw.status.unwrap_or_default());
    let said = |error: Option<VolumeError>| error.map(|error| short(error.message));
    VolumeAttachment {
        attacher: spec.attacher,
        node: spec.node_name,
        pv: spec.source.persistent_volume_name,
        attached: status.attached,
        device_path: status.attachment_metadata.and_then(|mut data| data.texts.remove("devicePath")),
        attach_error: said(status.attach_error),
        detach_error: said(status.detach_error),
        created: raw.metadata.creation_timestamp,
        deleting: raw.metadata.deletion_timestamp,
    }
}

pub type RawVolume = Raw<VolumeSpec, VolumeStatus>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSpec {
    csi: Option<CsiSource>,
    aws_elastic_block_store: Option<InTreeSource>,
    storage_class_name: Option<String>,
    volume_attributes_class_name: Option<String>,
    claim_ref: Option<ClaimRef>,
    access_modes: Option<AtMost<String, 64>>,
    capacity: Option<Texts<VolumeCapacity>>,
    node_affinity: Option<VolumeAffinity>,
}

#[derive(Clone, Debug, Default)]
struct VolumeCapacity;

impl Names for VolumeCapacity {
    fn is_read(name: &str) -> bool {
        name == "storage"
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct VolumeAffinity {
    required: Option<NodeSelector>,
}

impl VolumeAffinity {
    /// The zone that it names; the first one of several.
    fn zone(self) -> Option<String> {
        let terms = self.required?.node_selector_terms?.0.into_iter();
        let mut rules = terms.flat_map(|term| term.match_expressions.unwrap_or_default().0);
        rules.find(|rule| rule.key.ends_with("/zone") && rule.operator == "In")?.values?.items.into_iter().next()
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CsiSource {
    driver: String,
    volume_handle: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct InTreeSource {
    #[serde(rename = "volumeID")]
    volume_id: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ClaimRef {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VolumeStatus {
    phase: Option<String>,
}

pub fn volume_from(raw: RawVolume) -> PersistentVolume {
    let spec = raw.spec.unwrap_or_default();
    let (driver, handle) = match (spec.csi, spec.aws_elastic_block_store) {
        (Some(csi), _) => (Some(csi.driver), Some(csi.volume_handle)),
        (None, Some(in_tree)) => (None, Some(in_tree.volume_id)),
        (None, None) => (None, None),
    };
    PersistentVolume {
        driver,
        handle,
        storage_class: spec.storage_class_name,
        attributes_class: spec.volume_attributes_class_name,
        claim: spec.claim_ref.map(|claim| format!("{}/{}", claim.namespace, claim.name)),
        shared: spec.access_modes.unwrap_or_default().0.iter().any(|mode| mode == "ReadWriteMany"),
        capacity: spec.capacity.and_then(|mut capacity| capacity.texts.remove("storage")),
        zone: spec.node_affinity.and_then(VolumeAffinity::zone),
        phase: raw.status.unwrap_or_default().phase,
        deleting: raw.metadata.deletion_timestamp,
    }
}

/// A StorageClass or VolumeAttributesClass: their fields stand at the top.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RawClass {
    provisioner: Option<String>,
    driver_name: Option<String>,
    parameters: Option<Texts<ClassParameters>>,
}

#[derive(Clone, Debug, Default)]
struct ClassParameters;

impl Names for ClassParameters {
    fn is_read(name: &str) -> bool {
        CLASS_PARAMETERS.contains(&name)
    }
}

pub fn class_from(raw: RawClass) -> VolumeClass {
    let driver = raw.provisioner.or(raw.driver_name).unwrap_or_default();
    let parameters = raw.parameters.unwrap_or_default().texts.into_iter();
    VolumeClass { driver, parameters: parameters.map(|(name, value)| (name, short(value))).collect() }
}

#[cfg(test)]
mod tests;
