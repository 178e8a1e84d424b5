//! The API's objects as they come, and what is kept of them.
//!
//! A pod is some kilobytes of JSON of which detectors read a few dozen bytes; the rest is skipped while parsing and never
//! held. Fields that are absent are empty, as the API leaves out what is empty; an object without a name is none.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::collect::kubelet::config::parse_quantity;
use crate::facts::{
    AgentConfigMap, AgentDaemonSet, Cause, CniNode, CsiDriver, CsiNode, NODE_LABELS, Node, NodeCondition,
    PersistentVolume, Pod, PodPhase, PodResources, Unknown, VolumeAttachment, VolumeClass, VpcCniConfig,
};

/// The longest text of others that is kept of one field.
const MAX_TEXT: usize = 1024;

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
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

/// The annotations that are read; the others are skipped unread.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct OwnerReference {
    kind: String,
    name: String,
    controller: bool,
}

impl ObjectMeta {
    fn expect_named(&self, kind: &str) -> Result<(), Unknown> {
        let why = || format!("the API server sent a {kind} without a name or UID");
        if self.name.is_empty() || self.uid.is_empty() { Err(Unknown::new(Cause::Malformed, why())) } else { Ok(()) }
    }

    fn controller(&self) -> Option<String> {
        let owner = self.owner_references.iter().flatten().find(|owner| owner.controller)?;
        Some(format!("{}/{}", owner.kind, owner.name))
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
    taints: Option<Vec<Taint>>,
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
    capacity: Option<BTreeMap<String, String>>,
    allocatable: Option<BTreeMap<String, String>>,
    conditions: Option<Vec<RawCondition>>,
    volumes_in_use: Option<Vec<String>>,
    volumes_attached: Option<Vec<AttachedVolume>>,
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
    let labels = metadata.labels.unwrap_or_default().into_iter();
    let info = status.node_info.unwrap_or_default();
    let attached = status.volumes_attached.unwrap_or_default().into_iter();
    let capacity = status.capacity.unwrap_or_default();
    Ok(Node {
        huge_pages: huge_pages(&capacity).into(),
        name: metadata.name,
        uid: metadata.uid,
        created: metadata.creation_timestamp,
        deleting: metadata.deletion_timestamp,
        provider_id: spec.provider_id,
        unschedulable: spec.unschedulable,
        taints: spec.taints.unwrap_or_default().into_iter().map(taint).collect(),
        labels: labels.filter(|(name, _)| NODE_LABELS.contains(&name.as_str())).collect(),
        capacity,
        allocatable: status.allocatable.unwrap_or_default(),
        conditions: status.conditions.unwrap_or_default().into_iter().map(condition).collect(),
        volumes_in_use: status.volumes_in_use.unwrap_or_default(),
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
    volumes: Option<Vec<PodVolume>>,
    affinity: Option<Affinity>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
    resources: Option<Resources>,
    overhead: Option<Amounts>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    resources: Option<Resources>,
    restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    requests: Option<Amounts>,
}

/// Amounts of resources, of which memory is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Amounts {
    memory: Option<String>,
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
struct ContainerStatus {
    name: String,
    state: Option<ContainerState>,
    allocated_resources: Option<Amounts>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    running: Option<IgnoredAny>,
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
    node_selector_terms: Option<Vec<Term>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Term {
    match_fields: Option<Vec<MatchField>>,
    match_expressions: Option<Vec<MatchField>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct MatchField {
    key: String,
    operator: String,
    values: Option<Vec<String>>,
}

impl Affinity {
    /// The node that it names, if it names one.
    fn only_node(self) -> Option<String> {
        let required = self.node_affinity?.required_during_scheduling_ignored_during_execution?;
        let fields = required.node_selector_terms?.into_iter().flat_map(|term| term.match_fields.unwrap_or_default());
        let mut names = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
        names.next()?.values?.into_iter().next()
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
    conditions: Option<Vec<RawCondition>>,
    container_statuses: Option<Vec<ContainerStatus>>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
}

/// What a pod requests by the kubelet's sum: containers and sidecars together, or the most that an init container needs beside
/// the sidecars before it.
fn pod_resources(spec: &PodSpec, status: &PodStatus) -> Result<PodResources, Unknown> {
    let statuses = || status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let request = |container: &Container| -> Result<u64, Unknown> {
        let of_status = statuses().find(|status| status.name == container.name);
        let allocated = Amounts::bytes(of_status.and_then(|status| status.allocated_resources.as_ref()))?;
        let wanted = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        Ok(allocated.map_or_else(|| Amounts::bytes(wanted), |bytes| Ok(Some(bytes)))?.unwrap_or_default())
    };
    let (mut sum, mut sidecars, mut most) = (0u64, 0u64, 0u64);
    for container in spec.containers.iter().flatten() {
        sum = sum.saturating_add(request(container)?);
    }
    for container in spec.init_containers.iter().flatten() {
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

/// What is kept of a pod.
///
/// # Errors
/// When it has no name or UID.
pub fn pod_from(raw: RawPod) -> Result<Pod, Unknown> {
    let Raw { metadata, spec, status } = raw;
    metadata.expect_named("Pod")?;
    let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
    let resources = pod_resources(&spec, &status).into();
    let owner = metadata.controller();
    let volumes = spec.volumes.unwrap_or_default().into_iter();
    let claims = volumes.filter_map(|volume| volume.claim(&metadata.name)).collect();
    let scheduled = |c: &RawCondition| c.type_ == "PodScheduled" && c.status == "False";
    let unscheduled = status.conditions.unwrap_or_default().into_iter().find(scheduled);
    Ok(Pod {
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        mirrors: metadata.annotations.and_then(|annotations| annotations.mirror),
        node: spec.node_name.filter(|node| !node.is_empty()),
        phase: status.phase,
        created: metadata.creation_timestamp,
        deleting: metadata.deletion_timestamp,
        owner,
        priority: spec.priority.unwrap_or_default(),
        fs_group: spec.security_context.and_then(|context| context.fs_group),
        wants: spec.affinity.and_then(Affinity::only_node),
        claims,
        unscheduled: unscheduled.map(|condition| short(condition.message.unwrap_or_default())),
        resources,
    })
}

/// A ConfigMap: its data is not below a `spec`.
#[derive(Clone, Debug, Deserialize)]
pub struct RawConfigMap {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
}

impl Object for RawConfigMap {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

pub fn config_from(raw: RawConfigMap) -> Result<AgentConfigMap, Unknown> {
    raw.metadata.expect_named("ConfigMap")?;
    let pause = raw.data.unwrap_or_default().remove("pause").map(short).filter(|why| !why.trim().is_empty());
    Ok(AgentConfigMap { exists: true, pause })
}

pub fn vpc_cni_from(raw: RawConfigMap) -> VpcCniConfig {
    let known = |(name, _): &(String, String)| VPC_CNI_SETTINGS.contains(&name.as_str());
    let data = raw.data.unwrap_or_default().into_iter().filter(known).map(|(name, value)| (name, short(value)));
    VpcCniConfig { exists: true, data: data.collect() }
}

pub type RawCsiNode = Raw<CsiNodeSpec, IgnoredAny>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CsiNodeSpec {
    drivers: Option<Vec<RawDriver>>,
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
    let drivers = raw.spec.unwrap_or_default().drivers.unwrap_or_default().into_iter().map(|driver| {
        let allocatable = driver.allocatable.and_then(|allocatable| allocatable.count);
        (driver.name, CsiDriver { node_id: driver.node_id, allocatable })
    });
    CsiNode { exists: true, drivers: drivers.collect() }
}

pub type RawCniNode = Raw<CniNodeSpec, IgnoredAny>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CniNodeSpec {
    features: Option<Vec<Feature>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Feature {
    name: String,
    value: Option<String>,
}

pub fn cni_node_from(raw: RawCniNode) -> CniNode {
    let features = raw.spec.unwrap_or_default().features.unwrap_or_default().into_iter();
    CniNode { exists: true, features: features.map(|f| (f.name, f.value.unwrap_or_default())).collect() }
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
    attachment_metadata: Option<BTreeMap<String, String>>,
    attach_error: Option<VolumeError>,
    detach_error: Option<VolumeError>,
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
        device_path: status.attachment_metadata.and_then(|mut data| data.remove("devicePath")),
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
    access_modes: Option<Vec<String>>,
    capacity: Option<BTreeMap<String, String>>,
    node_affinity: Option<VolumeAffinity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct VolumeAffinity {
    required: Option<NodeSelector>,
}

impl VolumeAffinity {
    /// The zone that it names; the first one of several.
    fn zone(self) -> Option<String> {
        let terms = self.required?.node_selector_terms?.into_iter();
        let mut rules = terms.flat_map(|term| term.match_expressions.unwrap_or_default());
        rules.find(|rule| rule.key.ends_with("/zone") && rule.operator == "In")?.values?.into_iter().next()
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
        shared: spec.access_modes.unwrap_or_default().iter().any(|mode| mode == "ReadWriteMany"),
        capacity: spec.capacity.and_then(|mut capacity| capacity.remove("storage")),
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
    parameters: Option<BTreeMap<String, String>>,
}

pub fn class_from(raw: RawClass) -> VolumeClass {
    let driver = raw.provisioner.or(raw.driver_name).unwrap_or_default();
    let parameters = raw.parameters.unwrap_or_default().into_iter();
    let known = parameters.filter(|(name, _)| CLASS_PARAMETERS.contains(&name.as_str()));
    VolumeClass { driver, parameters: known.map(|(name, value)| (name, short(value))).collect() }
}

#[cfg(test)]
mod tests;
