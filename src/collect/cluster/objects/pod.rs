//! Pods: what is kept of each, and what it requests.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::store::Kept;
use super::{MAX_NAME, Raw, RawCondition, network, short};
use crate::collect::bounded::{AtMost, First};
use crate::collect::kubelet::config::{parse_millis, parse_quantity};
use crate::facts::{
    CONTAINER_ID, Cause, FailingContainer, MAX_FAILING, MAX_SERVED, Part, Pod, PodLifecycle, PodNetwork, PodPhase,
    PodResources, PodStorage, RestartPolicy, StartFailure, Unknown,
};

/// Volumes of one pod that are kept. EC2 attaches 128 to an instance at most.
pub(super) const MAX_VOLUMES: usize = 256;

pub type RawPod = Raw<PodSpec, PodStatus>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    node_name: Option<String>,
    priority: Option<i64>,
    security_context: Option<SecurityContext>,
    volumes: Option<First<PodVolume, MAX_VOLUMES>>,
    affinity: Option<Affinity>,
    pub(super) containers: Option<First<Container, MAX_CONTAINERS>>,
    init_containers: Option<First<Container, MAX_CONTAINERS>>,
    resources: Option<ContainerResources>,
    overhead: Option<Amounts>,
    pub(super) host_network: bool,
    restart_policy: Option<RestartPolicy>,
    termination_grace_period_seconds: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Container {
    name: String,
    pub(super) resources: Option<ContainerResources>,
    restart_policy: Option<String>,
    ports: Option<First<IgnoredAny, 1>>,
    readiness_probe: Option<IgnoredAny>,
    lifecycle: Option<Lifecycle>,
}

/// Of a container's hooks, whether there is one after its start, and one before it is stopped, and for how long that sleeps. What they
/// call is not kept.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Lifecycle {
    post_start: Option<IgnoredAny>,
    pre_stop: Option<Hook>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Hook {
    sleep: Option<Sleep>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Sleep {
    seconds: Option<i64>,
}

impl Container {
    /// An init container that goes on running beside the others.
    fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ContainerResources {
    pub(super) requests: Option<Amounts>,
    limits: Option<Amounts>,
}

/// Amounts of resources, of which memory, CPU, the node's disk and branch ENIs are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Amounts {
    memory: Option<String>,
    cpu: Option<String>,
    #[serde(rename = "ephemeral-storage")]
    storage: Option<String>,
    #[serde(rename = "vpc.amazonaws.com/pod-eni")]
    pub(super) pod_eni: Option<String>,
}

/// A resource, in bytes; CPU in thousandths of one.
#[derive(Clone, Copy)]
enum Resource {
    Memory,
    Cpu,
    Storage,
}

impl Amounts {
    fn amount(amounts: Option<&Self>, resource: Resource) -> Result<Option<u64>, Unknown> {
        let (name, amount) = match resource {
            Resource::Memory => ("memory", amounts.and_then(|amounts| amounts.memory.as_deref())),
            Resource::Cpu => ("cpu", amounts.and_then(|amounts| amounts.cpu.as_deref())),
            Resource::Storage => ("ephemeral-storage", amounts.and_then(|amounts| amounts.storage.as_deref())),
        };
        let read = match resource {
            Resource::Cpu => amount.map(parse_millis).transpose(),
            Resource::Memory | Resource::Storage => amount.map(parse_quantity).transpose(),
        };
        read.map_err(|why| Unknown::new(Cause::Malformed, format!("a pod's request or limit of {name}: {why}")))
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Ended {
    pub(super) finished_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Begun {
    started_at: Option<Timestamp>,
}

/// Why a container waits. What its message says is not kept.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Waiting {
    reason: Option<StartFailure>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ContainerState {
    waiting: Option<Waiting>,
    running: Option<Begun>,
    pub(super) terminated: Option<Ended>,
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
pub(super) struct NodeSelector {
    pub(super) node_selector_terms: Option<AtMost<Term, 64>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Term {
    pub(super) match_fields: Option<AtMost<MatchField, 64>>,
    pub(super) match_expressions: Option<AtMost<MatchField, 64>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MatchField {
    pub(super) key: String,
    pub(super) operator: String,
    /// Only the first one is read.
    pub(super) values: Option<First<String, 1>>,
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
    ephemeral: Option<IgnoredAny>,
    empty_dir: Option<EmptyDir>,
    csi: Option<Inline>,
    host_path: Option<HostPath>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct EmptyDir {
    size_limit: Option<String>,
    medium: Option<String>,
}

impl PodVolume {
    /// The claim that it names, or the one that is made for it under the pod's name and its own; else the CSI driver that it names, or of
    /// which it is the directory.
    fn kept(self, pod: &str) -> Option<OfVolume> {
        match (self.persistent_volume_claim, self.ephemeral, self.csi) {
            (Some(claim), ..) => Some(OfVolume::Claim(claim.claim_name)),
            (None, Some(_), _) => Some(OfVolume::Claim(format!("{pod}-{}", self.name))),
            (None, None, Some(inline)) => Some(OfVolume::Driver(inline.driver)),
            (None, None, None) => Some(OfVolume::Serves(served(&self.host_path?.path)?.to_owned())),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct HostPath {
    path: String,
}

/// The CSI driver that has a directory of the node as its own: `…/plugins/NAME`, below the kubelet's, with its socket.
fn served(path: &str) -> Option<&str> {
    let (above, name) = path.trim_end_matches('/').rsplit_once('/')?;
    // The kubelet keeps there what its volumes have staged.
    let is_driver = above.ends_with("/plugins") && name != "kubernetes.io" && !name.is_empty();
    (is_driver && name.len() <= MAX_NAME).then_some(name)
}

/// What is kept of a volume of a pod.
enum OfVolume {
    Claim(String),
    Driver(String),
    Serves(String),
}

impl OfVolume {
    fn name(&self) -> &str {
        match self {
            Self::Claim(name) | Self::Driver(name) | Self::Serves(name) => name,
        }
    }
}

/// A volume of a CSI driver that is written in the pod itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Inline {
    driver: String,
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
    reason: Option<String>,
    message: Option<String>,
    pub(super) conditions: Option<AtMost<RawCondition, 256>>,
    pub(super) container_statuses: Option<First<ContainerStatus, MAX_CONTAINERS>>,
    init_container_statuses: Option<First<ContainerStatus, MAX_CONTAINERS>>,
    ephemeral_container_statuses: Option<First<ContainerStatus, MAX_CONTAINERS>>,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: Option<String>,
}

impl PodStatus {
    /// The statuses of its containers and init containers.
    fn lists(&self) -> impl Iterator<Item = &First<ContainerStatus, MAX_CONTAINERS>> {
        [&self.container_statuses, &self.init_container_statuses].into_iter().flatten()
    }
}

/// A list whose items are all kept.
pub(super) fn whole<T>(list: Option<&First<T, MAX_CONTAINERS>>) -> Result<&[T], Unknown> {
    match list {
        None => Ok(&[]),
        Some(First { items, left_out: 0 }) => Ok(items),
        Some(First { .. }) => {
            let why = format!("what a pod with more than {MAX_CONTAINERS} containers requests is not added up");
            Err(Unknown::new(Cause::TooLarge, why))
        }
    }
}

/// What a pod requests by the kubelet's sum, and how many of its containers run.
fn pod_resources(spec: &PodSpec, status: &PodStatus) -> Result<PodResources, Unknown> {
    let of_containers = whole(status.container_statuses.as_ref())?;
    let of_init_containers = whole(status.init_container_statuses.as_ref())?;
    let statuses = || of_containers.iter().chain(of_init_containers);
    let memory = pod_sum(spec, Resource::Memory, |container| allocated(container, status, Resource::Memory))?;
    let running = statuses().filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    let running = u32::try_from(running.count()).unwrap_or(u32::MAX);
    Ok(PodResources { memory, running })
}

/// What a container requests: allocated where it can be resized in place.
fn allocated(container: &Container, status: &PodStatus, resource: Resource) -> Result<u64, Unknown> {
    let statuses = [status.container_statuses.as_ref(), status.init_container_statuses.as_ref()];
    let mut of_status = Vec::new();
    for list in statuses {
        of_status.extend(whole(list)?.iter().find(|status| status.name == container.name));
    }
    let allocated = of_status.first().and_then(|status| status.allocated_resources.as_ref());
    let wanted = || Amounts::amount(requests(container.resources.as_ref()), resource);
    Ok(Amounts::amount(allocated, resource)?.map_or_else(wanted, |amount| Ok(Some(amount)))?.unwrap_or_default())
}

/// The CPU that a pod requests by the kubelet's sum, in thousandths of one; none where nothing of it names any.
fn pod_cpu(spec: &PodSpec, status: &PodStatus) -> Result<Option<u64>, Unknown> {
    let millis = pod_sum(spec, Resource::Cpu, |container| allocated(container, status, Resource::Cpu))?;
    Ok(names_cpu(spec)?.then_some(millis))
}

/// Whether a pod or any container of it requests CPU, or has a limit of it, which is its request then.
fn names_cpu(spec: &PodSpec) -> Result<bool, Unknown> {
    let has_cpu = |resources: Option<&ContainerResources>| {
        let amounts = [requests(resources), limits(resources)];
        amounts.into_iter().flatten().any(|amounts| amounts.cpu.is_some())
    };
    let (own, before) = (whole(spec.containers.as_ref())?, whole(spec.init_containers.as_ref())?);
    Ok(has_cpu(spec.resources.as_ref()) || own.iter().chain(before).any(|of| has_cpu(of.resources.as_ref())))
}

fn requests(resources: Option<&ContainerResources>) -> Option<&Amounts> {
    resources.and_then(|resources| resources.requests.as_ref())
}

fn limits(resources: Option<&ContainerResources>) -> Option<&Amounts> {
    resources.and_then(|resources| resources.limits.as_ref())
}

/// The kubelet's sum of a request: containers and sidecars together, or the most that an init container needs beside the
/// sidecars before it; the pod's own where it has one.
fn pod_sum(
    spec: &PodSpec,
    resource: Resource,
    of: impl Fn(&Container) -> Result<u64, Unknown>,
) -> Result<u64, Unknown> {
    let sum = container_sum(spec, of)?;
    let of_pod = Amounts::amount(requests(spec.resources.as_ref()), resource)?.unwrap_or(sum);
    // Overhead counts only on top of a request.
    let overhead = if of_pod > 0 { Amounts::amount(spec.overhead.as_ref(), resource)?.unwrap_or_default() } else { 0 };
    Ok(of_pod.saturating_add(overhead))
}

fn container_sum(spec: &PodSpec, of: impl Fn(&Container) -> Result<u64, Unknown>) -> Result<u64, Unknown> {
    let (mut sum, mut sidecars, mut most) = (0u64, 0u64, 0u64);
    for container in whole(spec.containers.as_ref())? {
        sum = sum.saturating_add(of(container)?);
    }
    for container in whole(spec.init_containers.as_ref())? {
        let bytes = of(container)?;
        if container.is_sidecar() {
            sidecars = sidecars.saturating_add(bytes);
            most = most.max(sidecars);
        } else {
            most = most.max(sidecars.saturating_add(bytes));
        }
    }
    Ok(sum.saturating_add(sidecars).max(most))
}

/// What a pod requests of the node's own disk, and its limits there.
fn pod_storage(spec: &PodSpec) -> Result<PodStorage, Unknown> {
    let request = |container: &Container| {
        Ok(Amounts::amount(requests(container.resources.as_ref()), Resource::Storage)?.unwrap_or_default())
    };
    let limit = |container: &Container| Amounts::amount(limits(container.resources.as_ref()), Resource::Storage);
    let mut storage = PodStorage { request: pod_sum(spec, Resource::Storage, request)?, ..PodStorage::default() };
    let mut has_limit = false;
    for container in whole(spec.containers.as_ref())? {
        let Some(bytes) = limit(container)?.filter(|bytes| *bytes > 0) else { continue };
        has_limit = true;
        if container.name.len() <= MAX_NAME {
            storage.containers.insert(container.name.clone(), bytes);
        }
    }
    for container in whole(spec.init_containers.as_ref())? {
        has_limit |= limit(container)?.is_some_and(|bytes| bytes > 0);
    }
    if has_limit {
        storage.limit = Some(container_sum(spec, |container| Ok(limit(container)?.unwrap_or_default()))?);
    }
    let volumes = spec.volumes.iter().flat_map(|volumes| &volumes.items);
    for volume in volumes.filter(|volume| volume.name.len() <= MAX_NAME) {
        // One in memory cannot grow beyond its limit: writes fail, and the kubelet does not evict for it.
        let on_disk = volume.empty_dir.as_ref().filter(|dir| dir.medium.as_deref().is_none_or(str::is_empty));
        let size = on_disk.and_then(|dir| dir.size_limit.as_deref()).map(parse_quantity).transpose();
        let size = size.map_err(|why| Unknown::new(Cause::Malformed, format!("sizeLimit of an emptyDir: {why}")))?;
        storage.volumes.extend(size.filter(|size| *size > 0).map(|size| (volume.name.clone(), size)));
    }
    Ok(storage)
}

/// How a pod is started, stopped and started again.
fn pod_lifecycle(spec: &PodSpec) -> Result<PodLifecycle, Unknown> {
    let (own, before) = (whole(spec.containers.as_ref())?, whole(spec.init_containers.as_ref())?);
    let running = || own.iter().chain(before.iter().filter(|container| container.is_sidecar()));
    let hooks = || running().filter_map(|container| container.lifecycle.as_ref()?.pre_stop.as_ref());
    let seconds = |seconds: Option<i64>| seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Ok(PodLifecycle {
        requests_cpu: names_cpu(spec)?,
        restart: spec.restart_policy.unwrap_or_default(),
        grace_seconds: seconds(spec.termination_grace_period_seconds),
        has_ports: running().any(|container| container.ports.as_ref().is_some_and(|ports| !ports.items.is_empty())),
        has_readiness_probe: running().any(|container| container.readiness_probe.is_some()),
        has_pre_stop: hooks().next().is_some(),
        pre_stop_seconds: hooks().filter_map(|hook| seconds(hook.sleep.as_ref()?.seconds)).max(),
    })
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    pub(super) state: Option<ContainerState>,
    last_state: Option<LastState>,
    ready: bool,
    restart_count: i64,
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

/// Containers of a pod that are not ready and that the kubelet cannot start or waits to start again.
fn failing(status: &PodStatus) -> Result<Vec<FailingContainer>, Unknown> {
    if status.lists().any(|list| list.left_out > 0) {
        let why = format!("which containers run is not kept of a pod with more than {MAX_CONTAINERS}");
        return Err(Unknown::new(Cause::TooLarge, why));
    }
    let failure = |status: &ContainerStatus| {
        let reason = status.state.as_ref()?.waiting.as_ref()?.reason?;
        let is_failing = !status.ready && reason != StartFailure::Other;
        let restarts = u32::try_from(status.restart_count).unwrap_or_default();
        is_failing.then(|| FailingContainer { name: short(status.name.clone()), reason, restarts })
    };
    Ok(status.lists().flat_map(|list| &list.items).filter_map(failure).take(MAX_FAILING).collect())
}

/// The last time at which a container of a pod was started or ended, by its status. A container with a hook after its start is left
/// out until it ends: the kubelet waits for the hook before it writes the status.
fn last_change(spec: &PodSpec, status: &PodStatus) -> Option<Timestamp> {
    let has_hook = |name: &str| {
        let hook = |container: &Container| container.lifecycle.as_ref().is_some_and(|hooks| hooks.post_start.is_some());
        let mut all = [&spec.containers, &spec.init_containers].into_iter().flatten().flat_map(|list| &list.items);
        all.any(|container| container.name == name && hook(container))
    };
    let statuses = status.lists().flat_map(|list| &list.items);
    let times = statuses.filter_map(|status| Some((status, status.state.as_ref()?))).flat_map(|(status, state)| {
        let running = state.running.as_ref().filter(|_| !has_hook(&status.name));
        let started = running.and_then(|running| running.started_at);
        [started, state.terminated.as_ref().and_then(|ended| ended.finished_at)]
    });
    times.flatten().max()
}

/// Statuses of this many containers are kept of one pod.
pub(super) const MAX_CONTAINERS: usize = 32;

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
        let Pod { claims, inline_drivers, serves, containers, failing, storage, .. } = &*self.pod;
        let Pod { owner, wants, unscheduled, rejected, mute, .. } = &*self.pod;
        let texts = [owner, wants, unscheduled, rejected, mute].into_iter().flatten().map(String::len);
        let enis = network::enis(&self.pod.network);
        let PodNetwork { branch_enis, vlan, requests, .. } = &self.pod.network;
        let unread = [branch_enis.unread(), vlan.unread(), requests.unread(), failing.unread()];
        let reasons: usize = unread.into_iter().flatten().map(|why| why.why.len()).sum();
        let limits = match storage {
            Part::Known(storage) => Some(storage),
            Part::Absent | Part::Unknown(_) => None,
        };
        let limits = limits.into_iter().flat_map(|storage| storage.containers.keys().chain(storage.volumes.keys()));
        let limits: usize = limits.map(|name| name.len().saturating_add(size_of::<(String, u64)>())).sum();
        let failing = failing.seen().ok().flatten().into_iter().flatten().map(|container| &container.name);
        let held = claims.iter().chain(inline_drivers).chain(serves).chain(failing);
        let held = held.chain(containers.keys()).chain(containers.values()).chain(enis);
        let held = texts.chain(held.map(|text| text.len().saturating_add(size_of::<String>())));
        held.sum::<usize>().saturating_add(reasons).saturating_add(limits)
    }

    fn without_extra(&self, why: Unknown) -> Self {
        let pod = Pod {
            claims: Vec::new(),
            inline_drivers: Vec::new(),
            serves: Vec::new(),
            containers: Default::default(),
            failing: Part::Unknown(Box::new(why.clone())),
            owner: None,
            wants: None,
            unscheduled: None,
            rejected: None,
            storage: Part::Unknown(Box::new(why.clone())),
            mute: None,
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
    let cpu_request = pod_cpu(&spec, &status).into();
    let lifecycle = pod_lifecycle(&spec).into();
    let storage = match pod_storage(&spec) {
        // The list of volumes that are kept may lack one with a limit.
        Ok(_) if spec.volumes.as_ref().is_some_and(|volumes| volumes.left_out > 0) => Err(Unknown::new(
            Cause::TooLarge,
            format!("limits of a pod with more than {MAX_VOLUMES} volumes are not kept"),
        )),
        read => read,
    };
    let network = network::pod_network(&metadata, &spec, &status);
    let changed = last_change(&spec, &status);
    let failing = failing(&status).into();
    let (owner, mute) = (metadata.controller(), metadata.mute());
    let node = spec.node_name.filter(|node| !node.is_empty() && node.len() <= MAX_NAME);
    let (mirror, no_mirror) = match metadata.mirror(node.as_deref()) {
        Ok(mirror) => (mirror, None),
        Err(why) => (None, Some(why)),
    };
    let First { items: volumes, left_out } = spec.volumes.unwrap_or_default();
    let (volumes, too_long): (Vec<_>, Vec<_>) = volumes
        .into_iter()
        .filter_map(|volume| volume.kept(&metadata.name))
        .partition(|volume| volume.name().len() <= MAX_NAME);
    let left_out = left_out.saturating_add(too_long.len());
    let (mut claims, mut inline_drivers, mut serves) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for volume in volumes {
        match volume {
            OfVolume::Claim(name) => claims.push(name),
            OfVolume::Driver(name) => drop(inline_drivers.insert(name)),
            OfVolume::Serves(name) => drop(serves.insert(name)),
        }
    }
    let cut = (left_out > 0).then(|| {
        let (namespace, name) = (&metadata.namespace, &metadata.name);
        let why = format!(
            "pod {namespace}/{name}: {left_out} of its volumes are not kept: more than {MAX_VOLUMES}, or a claim's or driver's \
             name of more than {MAX_NAME} bytes"
        );
        Unknown::new(Cause::TooLarge, why)
    });
    let (mirror_owner, mirrors) = mirror.unzip();
    let scheduled = |c: &RawCondition| c.type_ == "PodScheduled" && c.status == "False";
    let rejected = rejected(&status);
    let unscheduled = status.conditions.unwrap_or_default().0.into_iter().find(scheduled);
    let containers = [status.container_statuses, status.init_container_statuses, status.ephemeral_container_statuses]
        .into_iter()
        .flatten();
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
        mute,
        node,
        phase: status.phase,
        created: metadata.creation_timestamp,
        deleting: metadata.deletion_timestamp,
        owner,
        priority: spec.priority.unwrap_or_default(),
        fs_group: spec.security_context.and_then(|context| context.fs_group),
        wants: spec.affinity.and_then(Affinity::only_node),
        claims,
        inline_drivers: inline_drivers.into_iter().collect(),
        serves: serves.into_iter().take(MAX_SERVED).collect(),
        containers,
        failing,
        rejected,
        unscheduled: unscheduled.map(|condition| short(condition.message.unwrap_or_default())),
        resources,
        cpu_request,
        storage: storage.into(),
        lifecycle,
        changed,
        network,
    };
    Ok(KeptPod { pod: Arc::new(pod), mirror_owner, lacks: no_mirror.or(cut) })
}

/// Why the kubelet rejected a pod, where it is for the node's room. Its reasons are `OutOf` and the resource and, of a critical pod for
/// which it found none to preempt, `UnexpectedAdmissionError`.
fn rejected(status: &PodStatus) -> Option<String> {
    let (reason, message) = (status.reason.as_deref()?, status.message.as_deref().unwrap_or_default());
    let lacks_room = reason.starts_with("OutOf") || reason == "UnexpectedAdmissionError" && message.contains("preempt");
    let is_said = status.phase == PodPhase::Failed && lacks_room;
    is_said.then(|| short(if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") }))
}

/// A pod by itself.
///
/// # Errors
/// When it has no name or UID, or a part of it would not be kept.
pub fn pod_from(raw: RawPod) -> Result<Pod, Unknown> {
    let KeptPod { pod, lacks, .. } = kept_pod_from(raw)?;
    lacks.map_or_else(|| Ok(Arc::unwrap_or_clone(pod)), Err)
}
