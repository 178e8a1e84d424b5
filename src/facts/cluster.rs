//! What the API server says of this node, its pods, and the objects that they name.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BootId, Cause, Inventory, KubeletVersion, NodeTime, Part, PodNetwork, PodUid, Unknown};

/// This node's own Node object: the fields that detectors and reports read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`: another one under the same name is another Node.
    pub uid: String,
    /// `metadata.creationTimestamp`
    pub created: Option<Timestamp>,
    /// `metadata.deletionTimestamp`: it is about to go.
    pub deleting: Option<Timestamp>,
    /// `spec.providerID`, which names the zone and the instance.
    pub provider_id: Option<String>,
    /// `spec.unschedulable`: cordoned.
    pub unschedulable: bool,
    /// `spec.taints`, as `key=value:effect`.
    pub taints: Vec<String>,
    /// Labels that say what kind of machine it is ([`NODE_LABELS`]).
    pub labels: BTreeMap<String, String>,
    /// `status.capacity`, as written.
    pub capacity: BTreeMap<String, String>,
    /// Bytes of all `hugepages-*` of `status.capacity`; absent where there are none.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub huge_pages: Part<u64>,
    /// `status.allocatable`, as written.
    pub allocatable: BTreeMap<String, String>,
    /// The same of memory and CPU; absent where it lacks one of them, and in recordings of earlier versions.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub for_pods: Part<ForPods>,
    /// `status.conditions`, in their order.
    pub conditions: Vec<NodeCondition>,
    /// `status.volumesInUse`: what the kubelet says may still be mounted.
    pub volumes_in_use: Vec<String>,
    /// `status.volumesAttached`: what the controller says is attached, with the device path.
    pub volumes_attached: BTreeMap<String, String>,
    /// `status.nodeInfo.kubeletVersion`
    pub kubelet_version: Option<String>,
    /// `status.nodeInfo.bootID`: the boot of the machine that the kubelet runs on.
    pub boot_id: Option<String>,
    /// `status.nodeInfo.systemUUID`: the machine's own, from its firmware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_uuid: Option<String>,
    /// `status.nodeInfo.machineID`: that of `/etc/machine-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// The annotation [`MUTE_ANNOTATION`], unread: no more than it may have, and one character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mute: Option<String>,
    /// Who wrote `vpc.amazonaws.com/pod-eni` of `status.capacity`, by `metadata.managedFields`.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub pod_eni_writer: Part<Box<FieldWriter>>,
}

/// Who wrote a field of an object, as the API server keeps it in `managedFields`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FieldWriter {
    /// The name that the client gave itself: `kubelet`, …
    pub manager: String,
    /// When it last changed one of the fields that it wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Whether this field is the only one that it wrote, so that the time is that of this field.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_only: bool,
}

/// By it operators mute findings: `KIND[,KIND/OBJECT] until TIME`.
pub const MUTE_ANNOTATION: &str = "barnacle.dev/mute";
/// Bytes that it may have, there and in a line of the ConfigMap; a longer one mutes nothing.
pub const MAX_MUTE: usize = 1024;

impl Node {
    /// The instance type, such as `m5.large`, where a cloud provider said it. k3s and RKE2 write their own names in its place.
    #[must_use]
    pub fn instance_type(&self) -> Option<&str> {
        self.labels.get(INSTANCE_TYPE_LABEL).map(String::as_str).filter(|name| name.contains('.'))
    }

    /// The kubelet's version, where the Node has one that can be read.
    #[must_use]
    pub fn kubelet(&self) -> Option<KubeletVersion> {
        self.kubelet_version.as_deref().and_then(KubeletVersion::parse)
    }

    /// The boot that the Node's kubelet reports, where it says one that can be compared.
    #[must_use]
    pub fn boot(&self) -> Option<BootId> {
        self.boot_id.as_deref().and_then(|id| id.parse().ok())
    }
}

/// Where a cloud provider says what the instance is.
const INSTANCE_TYPE_LABEL: &str = "node.kubernetes.io/instance-type";

/// Labels of a Node that are kept.
pub const NODE_LABELS: &[&str] = &[
    INSTANCE_TYPE_LABEL,
    "topology.kubernetes.io/zone",
    "eks.amazonaws.com/nodegroup",
    "eks.amazonaws.com/capacityType",
    "karpenter.sh/capacity-type",
    "karpenter.sh/nodepool",
    "kops.k8s.io/instancegroup",
];

/// One condition of a Node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeCondition {
    /// `type`
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// `reason`
    #[serde(default)]
    pub reason: String,
    /// `message`
    #[serde(default)]
    pub message: String,
    /// `lastHeartbeatTime`
    #[serde(default)]
    pub heartbeat: Option<Timestamp>,
    /// `lastTransitionTime`
    #[serde(default)]
    pub transition: Option<Timestamp>,
}

/// Every Node of the cluster by its name, as `barnacle cluster` lists them.
pub type AgentReports = Inventory<String, AgentReport>;

/// What the agent of one Node last wrote there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentReport {
    /// The latest `lastHeartbeatTime` of barnacle's conditions; absent where there is none with a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
    /// The status of the condition Ready, which the kubelet writes and the node controller sets to `Unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// `lastHeartbeatTime` of the condition Ready: by the Node's clock while the kubelet writes it, as barnacle's is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<Timestamp>,
    /// `lastTransitionTime` of the condition Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_since: Option<Timestamp>,
}

/// Types of conditions that barnacle writes begin with this.
const CONDITION_PREFIX: &str = "Barnacle";

impl From<&Node> for AgentReport {
    fn from(node: &Node) -> Self {
        let ours = node.conditions.iter().filter(|condition| condition.type_.starts_with(CONDITION_PREFIX));
        let ready = node.conditions.iter().find(|condition| condition.type_ == "Ready");
        Self {
            last: ours.filter_map(|condition| condition.heartbeat).max(),
            ready: ready.map(|condition| condition.status.clone()),
            kubelet: ready.and_then(|condition| condition.heartbeat),
            ready_since: ready.and_then(|condition| condition.transition),
        }
    }
}

/// The priorities of system-cluster-critical and system-node-critical begin here; no user's class may.
const SYSTEM_PRIORITY: i64 = 2_000_000_000;

/// How much is kept of a container's id, which has 64 characters.
pub const CONTAINER_ID: usize = 12;

/// A pod that is bound to this node: the fields that detectors and reports read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`; a static pod is known to the node by another one, [`Pod::mirrors`].
    pub uid: PodUid,
    /// Of a static pod's mirror: the UID that the kubelet gave it, by which directories and cgroups are called.
    pub mirrors: Option<PodUid>,
    /// `spec.nodeName`; absent where the scheduler has not found one.
    pub node: Option<String>,
    /// `status.phase`
    pub phase: PodPhase,
    /// `metadata.creationTimestamp`
    pub created: Option<Timestamp>,
    /// `metadata.deletionTimestamp`: it is being deleted.
    pub deleting: Option<Timestamp>,
    /// The owner that controls it, as `Kind/name`.
    pub owner: Option<String>,
    /// `spec.priority`
    pub priority: i64,
    /// `spec.securityContext.fsGroup`: the kubelet may change the owner of each file of a volume before the pod starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fs_group: Option<i64>,
    /// Claims that its volumes name, in its namespace.
    pub claims: Vec<String>,
    /// CSI drivers of volumes that are written in its own `spec` (`csi.driver`), each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inline_drivers: Vec<String>,
    /// CSI drivers of which it has the directory below `plugins` of the kubelet's from the node (`hostPath`), the first [`MAX_SERVED`]: their
    /// socket is there, so it is the pod of the driver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub serves: Vec<String>,
    /// Containers that run or ran last, by the beginning of their ids, with their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub containers: BTreeMap<String, String>,
    /// The first [`MAX_FAILING`] containers and init containers that the kubelet cannot start, or waits to start again; absent in recordings
    /// of earlier versions.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub failing: Part<Vec<FailingContainer>>,
    /// The one node that it is for, as a DaemonSet's pods are (`matchFields` of its node affinity).
    pub wants: Option<String>,
    /// Why it is not scheduled: the message of its condition `PodScheduled` where that is false.
    pub unscheduled: Option<String>,
    /// Why the kubelet did not let it run here: `status.reason` and `status.message` of a Failed pod, where the reason is that the node
    /// lacks room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
    /// What it requests and runs; absent in recordings of earlier versions.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub resources: Part<PodResources>,
    /// The CPU that it requests by the kubelet's sum, in thousandths of one; absent where it requests none. What was recorded before this was
    /// kept has none either: [`Pod::requested_cpu`] knows which.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub cpu_request: Part<u64>,
    /// What it may have on the node's own disk; absent in recordings of earlier versions.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub storage: Part<PodStorage>,
    /// How it is started, stopped and started again; absent in recordings of earlier versions.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub lifecycle: Part<PodLifecycle>,
    /// When a container of it was last started or ended, by the status that the kubelet reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<Timestamp>,
    /// What it says of its network: branch ENIs and its sandbox.
    #[serde(skip_serializing_if = "PodNetwork::is_empty")]
    pub network: PodNetwork,
    /// The annotation [`MUTE_ANNOTATION`], unread: no more than it may have, and one character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mute: Option<String>,
}

/// This many of [`Pod::serves`] are kept of one pod.
pub const MAX_SERVED: usize = 4;
/// This many of [`Pod::failing`] are kept of one pod.
pub const MAX_FAILING: usize = 8;

/// A container that is not ready and does not run, by the status that the kubelet reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailingContainer {
    /// `name`
    pub name: String,
    /// `state.waiting.reason`
    pub reason: StartFailure,
    /// `restartCount`
    pub restarts: u32,
}

/// Why the kubelet does not start a container: those of its reasons that do not pass by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartFailure {
    /// It ended again and again, and is started after a pause that grows.
    CrashLoopBackOff,
    /// Its image could not be pulled, and is tried again after a pause that grows.
    ImagePullBackOff,
    /// Its image could not be pulled.
    ErrImagePull,
    /// Its image is not here, and is not to be pulled.
    ErrImageNeverPull,
    /// The name of its image is none.
    InvalidImageName,
    /// A ConfigMap or Secret that it names is missing.
    CreateContainerConfigError,
    /// The container runtime could not make it.
    CreateContainerError,
    /// The container runtime could not start it.
    RunContainerError,
    /// Another one: it is being made, or its pod's init containers run.
    #[default]
    #[serde(other)]
    Other,
}

impl StartFailure {
    /// As the kubelet writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CrashLoopBackOff => "CrashLoopBackOff",
            Self::ImagePullBackOff => "ImagePullBackOff",
            Self::ErrImagePull => "ErrImagePull",
            Self::ErrImageNeverPull => "ErrImageNeverPull",
            Self::InvalidImageName => "InvalidImageName",
            Self::CreateContainerConfigError => "CreateContainerConfigError",
            Self::CreateContainerError => "CreateContainerError",
            Self::RunContainerError => "RunContainerError",
            Self::Other => "another reason",
        }
    }
}

/// What a node has for its pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForPods {
    /// Memory, in bytes.
    pub memory: u64,
    /// CPU, in thousandths of one.
    pub cpu_millis: u64,
}

/// What the kubelet ranks a pod by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodResources {
    /// Memory that it requests, in bytes: allocated where it can be resized in place, its own where it has some, overhead included.
    pub memory: u64,
    /// Containers that run; a pod without one has no statistics.
    pub running: u32,
}

/// How a pod is started, stopped and started again. Containers are its own and its sidecars: what another init container has does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodLifecycle {
    /// Whether the pod or any container of it requests CPU.
    pub requests_cpu: bool,
    /// `spec.restartPolicy`
    pub restart: RestartPolicy,
    /// `spec.terminationGracePeriodSeconds`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
    /// Whether a container declares a port.
    pub has_ports: bool,
    /// Whether a container has a readiness probe.
    pub has_readiness_probe: bool,
    /// Whether a container has a preStop hook.
    pub has_pre_stop: bool,
    /// The longest `sleep` of a preStop hook, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_stop_seconds: Option<u64>,
}

/// `spec.restartPolicy`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// A container that ends is started again. The API server sets it where none is given.
    #[default]
    Always,
    /// One that fails is.
    OnFailure,
    /// None is.
    Never,
    /// One that we do not know.
    #[serde(other)]
    Other,
}

/// What a pod requests of the node's own disk, and the limits beyond which the kubelet evicts it, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodStorage {
    /// The request of `ephemeral-storage`, by the kubelet's sum.
    pub request: u64,
    /// The sum of its containers' limits of `ephemeral-storage`; absent where none of them has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The limits of `ephemeral-storage` of its containers that have one, without init containers: kubelets hold none of these against
    /// a limit of its own, but from 1.37 on sidecars.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub containers: BTreeMap<String, u64>,
    /// `sizeLimit` of its emptyDir volumes that have one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, u64>,
}

impl PodStorage {
    /// Whether it has no limit of any kind.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.limit.is_none() && self.containers.is_empty() && self.volumes.is_empty()
    }
}

impl Pod {
    /// As people write it: `namespace/name`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Since when it has been bound to its node; since it was created where that is not known.
    #[must_use]
    pub fn here_since(&self) -> Option<Timestamp> {
        self.network.scheduled.or(self.created)
    }

    /// The CPU that it requests, in thousandths of one; none where it requests none.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn requested_cpu(&self) -> Result<Option<u64>, Unknown> {
        let unkept =
            || Unknown::new(Cause::Missing, format!("the CPU that {} requests was not kept", self.full_name()));
        match self.cpu_request.seen() {
            Ok(Some(millis)) => Ok(Some(*millis).filter(|millis| *millis > 0)),
            // It says so only where the rest of the pod does, too.
            Ok(None) if self.lifecycle.needed(unkept)?.requests_cpu => Err(unkept()),
            Ok(None) => Ok(None),
            Err(why) => Err(why.clone()),
        }
    }

    /// The name of a container of this id.
    #[must_use]
    pub fn container(&self, id: &str) -> Option<&str> {
        let begin = id.get(..CONTAINER_ID)?;
        self.containers.get(begin).map(String::as_str)
    }

    /// The UID by which directories and cgroups on the node call it.
    #[must_use]
    pub fn node_uid(&self) -> &PodUid {
        self.mirrors.as_ref().unwrap_or(&self.uid)
    }

    /// Whether the system needs it: of kube-system, or of a system priority class, which no user may have.
    #[must_use]
    pub fn is_of_the_system(&self) -> bool {
        self.namespace == "kube-system" || self.priority >= SYSTEM_PRIORITY
    }

    /// Whether the kubelet never evicts it: static, or of a system priority class.
    #[must_use]
    pub fn is_critical(&self) -> bool {
        self.mirrors.is_some() || self.priority >= SYSTEM_PRIORITY
    }

    /// Whether its containers have ended for good.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }
}

/// `status.phase` of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PodPhase {
    /// Not all its containers have been started.
    Pending,
    /// It runs.
    Running,
    /// All its containers ended well.
    Succeeded,
    /// All ended, at least one badly.
    Failed,
    /// The node has not been heard of, or the phase is one that we do not know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl PodPhase {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Running, Self::Succeeded, Self::Failed, Self::Unknown];

    /// As the API writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Unknown => "Unknown",
        }
    }
}

/// All pods that are bound to this node, by the UID that the node knows them by.
pub type Pods = Inventory<PodUid, Arc<Pod>>;

/// The name of the first Service that selects each pod of this node, by the UID that the API server has of it; absent where none does.
pub type PodServices = Inventory<PodUid, Part<String>>;

impl super::partial::ListEntry for Part<String> {
    fn unread(&self) -> Option<&Unknown> {
        Part::unread(self)
    }
}

/// The name of a pod that is or was on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPod {
    /// The UID by which the node knows it.
    pub uid: PodUid,
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `spec.terminationGracePeriodSeconds`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
    /// When a whole list of this node's pods first lacked it, where the API server does not list it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<NodeTime>,
}

/// What our own ConfigMap says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentConfigMap {
    /// Whether there is one.
    pub exists: bool,
    /// `data.pause`: why nothing may be remedied in this cluster; absent or empty where it may.
    pub pause: Option<String>,
    /// `data.mute`: what operators have muted on every node, a text on a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mute: Option<String>,
}

/// This node's CSINode: which CSI drivers are registered here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CsiNode {
    /// Whether there is one.
    pub exists: bool,
    /// Drivers by name.
    pub drivers: BTreeMap<String, CsiDriver>,
}

/// One CSI driver on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CsiDriver {
    /// `nodeID`, the instance by EC2's name.
    pub node_id: String,
    /// `allocatable.count`: volumes that the scheduler may place here.
    pub allocatable: Option<u32>,
}

/// This node's CNINode, which the VPC resource controller keeps where pods have security groups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CniNode {
    /// Whether there is one.
    pub exists: bool,
    /// `spec.features`, by name.
    pub features: BTreeMap<String, String>,
    /// `spec.managedBy`: which controller gives the node its branch ENIs. Controllers before 1.8 leave it empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
    /// Ids in `status.trunkInterface.branches`; absent where the controller does not fill it, as up to 1.8.2.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub branches: Part<Vec<String>>,
}

/// What `kube-system/amazon-vpc-cni` says, where it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VpcCniConfig {
    /// Whether there is one.
    pub exists: bool,
    /// Its settings of branch interfaces and warm addresses.
    pub data: BTreeMap<String, String>,
}

/// Our own DaemonSet: how many agents share the account's budget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentDaemonSet {
    /// `status.desiredNumberScheduled`
    pub desired: u64,
    /// `status.numberReady`
    pub ready: u64,
}

/// What GETs by name came to. A name that was not asked for is not in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Answers<T>(pub BTreeMap<String, Answer<T>>);

/// What one GET by name came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer<T> {
    /// The object.
    Found(T),
    /// The server says that there is none (404).
    NotFound,
    /// There was no answer that says either.
    Unknown(Unknown),
}

impl<T> Answers<T> {
    /// The object of this name, or that there is none.
    ///
    /// # Errors
    /// Why neither is known.
    pub fn get(&self, name: &str) -> Result<Option<&T>, Unknown> {
        match self.0.get(name) {
            Some(Answer::Found(object)) => Ok(Some(object)),
            Some(Answer::NotFound) => Ok(None),
            Some(Answer::Unknown(unknown)) => Err(unknown.clone()),
            None => Err(Unknown::not_asked()),
        }
    }
}

/// A VolumeAttachment: the order to attach one volume to one node, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeAttachment {
    /// `spec.attacher`, the CSI driver.
    pub attacher: String,
    /// `spec.nodeName`
    pub node: String,
    /// `spec.source.persistentVolumeName`
    pub pv: Option<String>,
    /// `status.attached`
    pub attached: bool,
    /// `status.attachmentMetadata.devicePath`
    pub device_path: Option<String>,
    /// `status.attachError.message`
    pub attach_error: Option<String>,
    /// `status.detachError.message`
    pub detach_error: Option<String>,
    /// `metadata.creationTimestamp`
    pub created: Option<Timestamp>,
    /// `metadata.deletionTimestamp`
    pub deleting: Option<Timestamp>,
}

/// A PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PersistentVolume {
    /// `spec.csi.driver`
    pub driver: Option<String>,
    /// `spec.csi.volumeHandle`, or the volume id of an in-tree volume.
    pub handle: Option<String>,
    /// `spec.storageClassName`
    pub storage_class: Option<String>,
    /// `spec.volumeAttributesClassName`
    pub attributes_class: Option<String>,
    /// `spec.claimRef`, as `namespace/name`.
    pub claim: Option<String>,
    /// Several nodes may have it at once (`spec.accessModes` has ReadWriteMany): EBS multi-attach.
    pub shared: bool,
    /// `spec.capacity.storage`, as written.
    pub capacity: Option<String>,
    /// The zone that it can be used in: of the node affinity, by a key that ends in `/zone`.
    pub zone: Option<String>,
    /// `status.phase`
    pub phase: Option<String>,
    /// `metadata.creationTimestamp`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// Whether no provisioner made it: each sets the annotation `pv.kubernetes.io/provisioned-by`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_by_hand: bool,
    /// Whether pods have it as a device, not as a filesystem (`spec.volumeMode` is `Block`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_block: bool,
    /// `metadata.deletionTimestamp`
    pub deleting: Option<Timestamp>,
    /// The annotation [`MUTE_ANNOTATION`], unread: no more than it may have, and one character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mute: Option<String>,
}

/// A StorageClass or VolumeAttributesClass: what volumes of it are made like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeClass {
    /// `provisioner` or `driverName`
    pub driver: String,
    /// `parameters`: for EBS `type`, `iops`, `throughput`.
    pub parameters: BTreeMap<String, String>,
    /// `metadata.creationTimestamp`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
}

super::partial::read_whole!(AgentConfigMap, AgentDaemonSet, CniNode, CsiNode, Node, VpcCniConfig);
super::partial::entries_read_whole!(AgentReport, std::sync::Arc<Pod>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Cause;

    #[test]
    fn what_was_not_asked_for_is_not_absent() {
        let answers = Answers::<CsiDriver>(BTreeMap::from([("gone".to_owned(), Answer::NotFound)]));
        assert_eq!(answers.get("gone"), Ok(None));
        assert_eq!(answers.get("other").map_err(|why| why.cause), Err(Cause::NotAsked));
    }

    #[test]
    fn a_phase_that_we_do_not_know_is_unknown() {
        assert_eq!(serde_json::from_str::<PodPhase>("\"Paused\"").unwrap(), PodPhase::Unknown);
        for phase in PodPhase::ALL {
            assert_eq!(serde_json::to_string(&phase).unwrap(), format!("{:?}", phase.name()));
        }
    }
}
