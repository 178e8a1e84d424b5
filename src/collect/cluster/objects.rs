//! The API's objects as they come, and what is kept of them.
//!
//! A pod is some kilobytes of JSON of which detectors read a few dozen bytes; the rest is skipped while parsing and never
//! held. Fields that are absent are empty, as the API leaves out what is empty; an object without a name is none.

mod managed;
mod network;
mod pod;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::collect::bounded::{AtMost, Names, Texts};
use crate::collect::kubelet::config::{parse_millis, parse_quantity};
use crate::facts::{
    AgentConfigMap, AgentDaemonSet, Cause, CsiDriver, CsiNode, ForPods, MAX_MUTE, NODE_LABELS, Node, NodeCondition,
    NodeLease, Part, PersistentVolume, Unknown, VolumeAttachment, VolumeClass, VpcCniConfig,
};

pub use network::{RawCniNode, cni_node_from};
pub use pod::{KeptPod, RawPod, kept_pod_from, pod_from};

use managed::PodEniWriter;
use pod::NodeSelector;

/// The longest text of others that is kept of one field.
const MAX_TEXT: usize = 1024;
/// The most that is kept of what the ConfigMap mutes: a line that is cut there is malformed, and says so.
const MAX_CONFIG_MUTE: usize = 16 << 10;
/// No name in the API is longer.
const MAX_NAME: usize = 253;

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
///
/// `Managed` is what is read of its `managedFields`: nothing but of a Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta<Managed = IgnoredAny> {
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
    managed_fields: Option<Managed>,
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
    /// Where the kubelet has a pod from. It sets it in its own copy of each; to the API server any client may write it.
    #[serde(rename = "kubernetes.io/config.source")]
    source: Option<String>,
    #[serde(rename = "vpc.amazonaws.com/pod-eni")]
    pod_eni: Option<String>,
    #[serde(rename = "pv.kubernetes.io/provisioned-by")]
    provisioned_by: Option<String>,
    // facts::MUTE_ANNOTATION: an attribute takes no constant.
    #[serde(rename = "barnacle.dev/mute")]
    mute: Option<String>,
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

impl<Managed> ObjectMeta<Managed> {
    fn expect_named(&self, kind: &str) -> Result<(), Unknown> {
        let refused = |why: &str| Err(Unknown::new(Cause::Malformed, format!("a {kind} {why} was sent")));
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

    /// What its annotation mutes; of one that is too long, so much that it is known to be.
    fn mute(&self) -> Option<String> {
        self.annotations.as_ref()?.mute.as_deref().map(|text| bytes_of(text, MAX_MUTE + 1))
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
        // A manifest's own UID is not taken for it: a pod could have that of another one.
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

/// The first bytes of a text, and what else belongs to the last character of them.
fn bytes_of(text: &str, most: usize) -> String {
    text.get(..text.ceil_char_boundary(most)).unwrap_or_default().to_owned()
}

/// An object with its metadata.
#[derive(Clone, Debug, Deserialize)]
pub struct Raw<Spec, Status, Managed: Default = IgnoredAny> {
    #[serde(default)]
    pub(super) metadata: ObjectMeta<Managed>,
    #[serde(default = "Option::default")]
    spec: Option<Spec>,
    #[serde(default = "Option::default")]
    status: Option<Status>,
}

impl RawPod {
    /// Of a pod that the kubelet lists: whether it has it from elsewhere than the API server.
    pub fn is_of_file(&self) -> bool {
        let source = self.metadata.annotations.as_ref().and_then(|annotations| annotations.source.as_deref());
        source.is_some_and(|source| source != "api")
    }
}

/// What every watched object has.
pub trait Object {
    /// Its UID.
    fn uid(&self) -> &str;
}

impl<Spec, Status, Managed: Default> Object for Raw<Spec, Status, Managed> {
    fn uid(&self) -> &str {
        &self.metadata.uid
    }
}

pub type RawNode = Raw<NodeSpec, NodeStatus, PodEniWriter>;

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
    let allocatable = status.allocatable.unwrap_or_default().texts;
    Ok(Node {
        mute: metadata.mute(),
        pod_eni_writer: metadata.managed_fields.map_or(Part::Absent, |PodEniWriter(writer)| writer),
        huge_pages: huge_pages(&capacity).into(),
        for_pods: for_pods(&allocatable).into(),
        name: metadata.name,
        uid: metadata.uid,
        created: metadata.creation_timestamp,
        deleting: metadata.deletion_timestamp,
        provider_id: spec.provider_id,
        unschedulable: spec.unschedulable,
        taints: spec.taints.unwrap_or_default().0.into_iter().map(taint).collect(),
        labels: metadata.labels.unwrap_or_default().texts,
        capacity,
        allocatable,
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

/// What it has for pods; none where it lacks one of the two.
fn for_pods(allocatable: &BTreeMap<String, String>) -> Result<Option<ForPods>, Unknown> {
    let (Some(memory), Some(cpu)) = (allocatable.get("memory"), allocatable.get("cpu")) else { return Ok(None) };
    let malformed =
        |why: String| Unknown::new(Cause::Malformed, format!("the allocatable resources of the Node: {why}"));
    let memory = parse_quantity(memory).map_err(malformed)?;
    Ok(Some(ForPods { memory, cpu_millis: parse_millis(cpu).map_err(malformed)? }))
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

pub type RawLease = Raw<LeaseSpec, IgnoredAny>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    renew_time: Option<Timestamp>,
    lease_duration_seconds: Option<u32>,
}

pub fn lease_from(raw: RawLease) -> NodeLease {
    let spec = raw.spec.unwrap_or_default();
    NodeLease { renewed: spec.renew_time, lasts: spec.lease_duration_seconds.filter(|seconds| *seconds > 0) }
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
        name == "pause" || name == "mute" || VPC_CNI_SETTINGS.contains(&name)
    }
}

impl Object for RawConfigMap {
    fn uid(&self) -> &str {
        &self.metadata.uid
    }
}

pub fn config_from(raw: RawConfigMap) -> Result<AgentConfigMap, Unknown> {
    raw.metadata.expect_named("ConfigMap")?;
    let mut data = raw.data.unwrap_or_default().texts;
    let mut text = |name: &str| data.remove(name).filter(|text| !text.trim().is_empty());
    let (pause, mute) = (text("pause").map(short), text("mute").map(|text| bytes_of(&text, MAX_CONFIG_MUTE)));
    Ok(AgentConfigMap { exists: true, pause, mute })
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
    volume_mode: Option<String>,
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
    let annotations = raw.metadata.annotations.as_ref();
    PersistentVolume {
        driver,
        handle,
        is_by_hand: annotations.is_none_or(|annotations| annotations.provisioned_by.is_none()),
        storage_class: spec.storage_class_name,
        attributes_class: spec.volume_attributes_class_name,
        claim: spec.claim_ref.map(|claim| format!("{}/{}", claim.namespace, claim.name)),
        shared: spec.access_modes.unwrap_or_default().0.iter().any(|mode| mode == "ReadWriteMany"),
        capacity: spec.capacity.and_then(|mut capacity| capacity.texts.remove("storage")),
        zone: spec.node_affinity.and_then(VolumeAffinity::zone),
        phase: raw.status.unwrap_or_default().phase,
        created: raw.metadata.creation_timestamp,
        is_block: spec.volume_mode.as_deref() == Some("Block"),
        deleting: raw.metadata.deletion_timestamp,
        mute: raw.metadata.mute(),
    }
}

/// A StorageClass or VolumeAttributesClass: their fields stand at the top.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RawClass {
    metadata: ObjectMeta,
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
    let parameters = parameters.map(|(name, value)| (name, short(value))).collect();
    VolumeClass { driver, parameters, created: raw.metadata.creation_timestamp }
}

#[cfg(test)]
mod tests;
