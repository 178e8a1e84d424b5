//! What detectors say: kinds, findings with their evidence, evaluations, headroom.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod pod_use;

pub use pod_use::{CpuDay, NodeWaste, PodDay, PodRemark, PodRow, PodUse, PodWaste};

use crate::facts::{EvictionSignal, Lookup, PodUid, Source, Tri, Unknown, VolumeId};

/// Calls a macro with every detector: its area and module in `detect/`, the groups of settings that it has, and its kinds,
/// in the order in which reports list them.
///
/// Everything that must exist once for each kind is made from this list: a kind is its detector, its text
/// (`detect/AREA/KIND.md`) and one line here.
macro_rules! for_each_kind {
    ($call:ident) => {
        $call! {
            volumes::dead_mount => DeadMount;
            volumes::swapped_volume => SwappedVolume;
            volumes::stacked_mounts => StackedMounts;
            volumes::pinned_filesystem => PinnedFilesystem;
            volumes::stalled_io => StalledIo;
            volumes::volume_throttled (SETTINGS) => VolumeThrottled;
            volumes::instance_throttled (SETTINGS) => InstanceEbsThrottled;
            volumes::burst_forecast (SETTINGS) => EbsBurstForecast;
            volumes::filesystem_error => FilesystemError;
            volumes::device_error => DeviceError;
            volumes::orphaned_pod_directory => OrphanedPodDirectory;
            volumes::stuck_unmount => StuckUnmount;
            volumes::orphaned_staging_mount => OrphanedStagingMount;
            volumes::unmounted_volume_path => UnmountedVolumePath;
            volumes::missing_device => MissingDevice;
            volumes::volume_driver_missing => VolumeDriverMissing;
            volumes::stuck_attaching => StuckAttaching, VolumeNotFound;
            volumes::stuck_mounting => StuckMounting;
            volumes::stuck_detaching => StuckDetaching, UndeletableAttachment;
            volumes::stale_attachment => StaleAttachment;
            volumes::wanted_elsewhere => VolumeWantedElsewhere;
            volumes::attachment_limit => AttachmentLimit;
            volumes::mounted_at_shutdown => VolumesMountedAtShutdown;
            volumes::untagged_volume => UntaggedVolume;
            volumes::orphaned_volume => OrphanedVolume;
            kubelet::eviction_threshold => EvictionThresholdMet;
            kubelet::eviction_forecast => EvictionForecast;
            kubelet::storage_forecast => EphemeralStorageForecast;
            kubelet::deleted_files_held => DeletedFilesHeld;
            kubelet::eviction_blind => EvictionBlind;
            kubelet::eviction_cannot_save => EvictionCannotSaveNode;
            kubelet::threshold_missing => ThresholdMissing;
            kubelet::filesystem_unwatched => FilesystemUnwatched;
            kubelet::oom_kill => OomKill;
            kubelet::pids (SETTINGS) => PidExhaustion;
            kubelet::memory_stall (SETTINGS) => MemoryStall;
            kubelet::saturation (SETTINGS) => NodeSaturated;
            kubelet::system_pod_starved => SystemPodStarved;
            kubelet::system_pod_rejected => SystemPodRejected;
            kubelet::system_pod_evictable => SystemPodEvictable;
            kubelet::pod_under_limit_headroom => PodUnderLimitHeadroom;
            kubelet::pod_over_request => PodOverRequest;
            kubelet::pod_cpu_throttled => PodCpuThrottled;
            kubelet::pod_overprovisioned => PodOverprovisioned;
            kubelet::pod_hygiene => PodHygiene;
            kubelet::agent_not_reporting => AgentNotReporting;
            kubelet::kubelet_slow => KubeletSlow;
            kubelet::kubelet_restarted => KubeletRestarted;
            instance::steal (SETTINGS) => CpuSteal;
            instance::cpu_credits (SETTINGS) => CpuCreditForecast;
            network::branch_eni_exhaustion => BranchEniExhaustion;
            network::branch_eni_held => BranchEniHeldByCompletedPod;
            network::branch_eni_leak => BranchEniLeak;
            network::branch_link_mismatch => BranchLinkMismatch;
            network::orphan_vlan_link => OrphanVlanLink;
            network::pod_ip_exhaustion => PodIpExhaustion;
            network::pod_stuck_without_ip => PodStuckWithoutIp;
            network::conntrack (SETTINGS) => ConntrackPressure;
            network::neighbors (SETTINGS) => NeighborTableFull;
            network::dns_slow (SETTINGS) => DnsSlow;
            instance::clock (SETTINGS) => ClockDrift;
            instance::reboots (SETTINGS) => UnexpectedReboot, RebootLoop;
            instance::hung_task => HungTask;
            instance::cpu_lockup => CpuLockup;
            instance::kernel_fault => KernelFault;
            instance::ends => SpotInterruption, RebalanceRecommended, ScheduledMaintenance, AsgTermination;
            instance::imds => ImdsUnhealthy, ImdsV1Allowed;
            instance::credentials => CredentialRotationFailed;
            instance::credential_storm => CredentialStorm;
            instance::pod_identity => PodIdentityAgentDown;
            network::eni_allowance => EniAllowanceExceeded;
        }
    };
}
pub(crate) use for_each_kind;

macro_rules! declare {
    ($($area:ident::$module:ident $(($settings:ident))? => $($kind:ident),+;)*) => {
        /// A kind of finding. What it means to the user stands in its text, and in the catalogue.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Kind {
            $($(
                #[doc = concat!("See `detect/", stringify!($area), "/", stringify!($kind), ".md`.")]
                $kind,
            )+)*
        }

        impl Kind {
            /// Every kind that this version can find, in the order in which reports list them.
            pub const ALL: &'static [Self] = &[$($(Self::$kind),+),*];

            /// The name that operators see everywhere.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($(Self::$kind => stringify!($kind),)+)* }
            }
        }
    };
}
for_each_kind!(declare);

/// Kinds that remark on pods that run well: `check --pods` and the page show them, and a plain `check` counts the pods.
pub const POD_REMARKS: [Kind; 5] = [
    Kind::PodUnderLimitHeadroom,
    Kind::PodOverRequest,
    Kind::PodCpuThrottled,
    Kind::PodOverprovisioned,
    Kind::PodHygiene,
];

impl Kind {
    /// Whether it is one of [`POD_REMARKS`].
    #[must_use]
    pub fn is_pod_remark(self) -> bool {
        POD_REMARKS.contains(&self)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No kind has this name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no finding kind is called {0:?}")]
pub struct NoSuchKind(String);

impl FromStr for Kind {
    type Err = NoSuchKind;

    fn from_str(name: &str) -> Result<Self, NoSuchKind> {
        let same = |kind: &&Self| kind.name().eq_ignore_ascii_case(name);
        Self::ALL.iter().find(same).copied().ok_or_else(|| NoSuchKind(name.to_owned()))
    }
}

/// How bad it is: info is shown, a warning is also an event, a critical one also a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Someone should look.
    Warning,
    /// Someone should look now.
    Critical,
}

impl Severity {
    /// The name used in JSON and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What sort of thing a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectType {
    /// The machine or, of `barnacle cluster`, a Node by name.
    Node,
    /// A mount point of the host.
    Mount,
    /// A block device.
    Device,
    /// An EBS volume, whether or not it is here.
    Volume,
    /// A filesystem, as `TYPE/DEVICE`.
    Filesystem,
    /// A pod's directory.
    PodDirectory,
    /// A control group, by path.
    Cgroup,
    /// An eviction signal.
    Signal,
    /// A table or resource of the kernel.
    Resource,
    /// A pod, as `namespace/name`.
    Pod,
    /// A CSI driver, by name.
    Driver,
}

impl ObjectType {
    /// The name used in JSON and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Mount => "mount",
            Self::Device => "device",
            Self::Volume => "volume",
            Self::Filesystem => "filesystem",
            Self::PodDirectory => "pod-directory",
            Self::Cgroup => "cgroup",
            Self::Signal => "signal",
            Self::Resource => "resource",
            Self::Pod => "pod",
            Self::Driver => "driver",
        }
    }
}

/// The id of the machine that is looked at. `barnacle cluster` finds other Nodes, by their names.
const OWN_NODE: &str = "node";

/// What a finding is about. Its type and id are the key of the finding; the rest helps the reader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Object {
    /// What sort of thing.
    #[serde(rename = "type")]
    pub kind: ObjectType,
    /// Which one.
    pub id: String,
    /// The pod it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodUid>,
    /// The PersistentVolume it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pv: Option<String>,
    /// The EBS volume it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeId>,
    /// The address of what has this role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl Object {
    /// An object by its key alone.
    pub fn new(kind: ObjectType, id: impl Into<String>) -> Self {
        Self { kind, id: id.into(), pod: None, pv: None, volume: None, address: None }
    }

    /// The machine itself.
    #[must_use]
    pub fn node() -> Self {
        Self::new(ObjectType::Node, OWN_NODE)
    }

    /// Whether it is another one than had this name before, by its volume or its address: a device's name is given again, and a role too.
    fn is_another(&self, before: &Self) -> bool {
        let volumes = self.volume.as_ref().zip(before.volume.as_ref());
        let addresses = self.address.as_ref().zip(before.address.as_ref());
        volumes.is_some_and(|(now, before)| now != before) || addresses.is_some_and(|(now, before)| now != before)
    }

    fn key(&self) -> (ObjectType, &str) {
        (self.kind, &self.id)
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Object {}

impl PartialOrd for Object {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Object {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ObjectType::Node if self.id == OWN_NODE => f.write_str(OWN_NODE),
            kind => write!(f, "{} {}", kind.name(), self.id),
        }
    }
}

/// Groups that hold all pods or one class of them, as both cgroup drivers call them, and those of the machine's services.
const NODE_CGROUPS: [&str; 8] = [
    "kubepods",
    "kubepods/burstable",
    "kubepods/besteffort",
    "kubepods.slice",
    "kubepods.slice/kubepods-burstable.slice",
    "kubepods.slice/kubepods-besteffort.slice",
    "system.slice",
    "runtime.slice",
];

/// Whose share of a bounded number an object takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// The machine's: a few objects with fixed names.
    Machine,
    /// No pod's: volumes, devices and the like.
    Node,
    /// The pods' of this namespace.
    Namespace(String),
    /// The pods' whose namespace is not known: they have one share together.
    UnknownNamespace,
}

impl Share {
    /// The share of an object whose pod is in this namespace, as far as that is known.
    #[must_use]
    pub fn of(object: &Object, namespace: Option<&str>) -> Self {
        let of_pods = || namespace.map_or(Self::UnknownNamespace, |namespace| Self::Namespace(namespace.to_owned()));
        match object.kind {
            ObjectType::Node | ObjectType::Signal | ObjectType::Resource => Self::Machine,
            ObjectType::Cgroup if NODE_CGROUPS.contains(&object.id.trim_matches('/')) => Self::Machine,
            ObjectType::Pod => {
                let named = object.id.split_once('/').map(|(namespace, _)| namespace);
                named.map_or_else(of_pods, |namespace| Self::Namespace(namespace.to_owned()))
            }
            _ if object.pod.is_some() => of_pods(),
            _ => Self::Node,
        }
    }

    /// Whether it is that of pods, of which a tenant may make as many as it likes.
    #[must_use]
    pub fn is_of_pods(&self) -> bool {
        matches!(self, Self::Namespace(_) | Self::UnknownNamespace)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.write_str("the machine"),
            Self::Node => f.write_str("no pod"),
            Self::Namespace(namespace) => write!(f, "namespace {namespace}"),
            Self::UnknownNamespace => f.write_str("pods of unknown namespace"),
        }
    }
}

/// One fact that a finding rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Who says so.
    pub source: Source,
    /// What it says.
    pub fact: String,
    /// When it was so.
    pub at: Timestamp,
}

/// Something found, at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Its kind.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub object: Object,
    /// One sentence that an operator can act on.
    pub message: String,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
    /// What to do next.
    pub advice: String,
}

/// Which finding: no two of one key stand at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FindingKey {
    /// Its kind.
    pub kind: Kind,
    /// What it is about.
    pub object: Object,
}

/// What another finding may follow from: the finding of a kind about one object, or about any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Above {
    /// Its kind.
    pub kind: Kind,
    /// What it is about; absent where that does not matter.
    pub object: Option<Object>,
    /// Whether it counts only while it is more severe: of two that show one fault it is the one that says less.
    pub only_if_worse: bool,
}

impl Above {
    /// The finding of a kind about this object.
    #[must_use]
    pub fn of(kind: Kind, object: Object) -> Self {
        Self { kind, object: Some(object), only_if_worse: false }
    }

    /// The same, while it is more severe: the other way round that one is shown under this.
    #[must_use]
    pub fn if_worse(kind: Kind, object: Object) -> Self {
        Self { only_if_worse: true, ..Self::of(kind, object) }
    }

    /// The finding of a kind about whatever object, the most severe first.
    #[must_use]
    pub fn any(kind: Kind) -> Self {
        Self { kind, object: None, only_if_worse: false }
    }
}

/// What a detector could not see.
#[derive(Clone, Debug, PartialEq)]
pub enum Coverage {
    /// It saw all it needs.
    Full,
    /// It saw nothing that it could decide by.
    None(Unknown),
    /// It could evaluate none of these objects, and there are no others: what was found of another one is over.
    NoneOf(BTreeMap<Object, Unknown>),
    /// It could not evaluate these objects.
    Except(BTreeMap<Object, Unknown>),
    /// It saw what it raised, and not enough to say that nothing else is so.
    Partial(Unknown),
}

impl Coverage {
    /// Why this object could not be evaluated, if so.
    #[must_use]
    pub fn why_not(&self, object: &Object) -> Option<&Unknown> {
        match self {
            Self::Full => None,
            Self::None(why) | Self::Partial(why) => Some(why),
            Self::NoneOf(objects) | Self::Except(objects) => {
                let (now, why) = objects.get_key_value(object)?;
                // What was found of another one that had the name before is over: that one is not here.
                (!now.is_another(object)).then_some(why)
            }
        }
    }

    /// Why not one object could be evaluated, if so.
    #[must_use]
    pub fn why_nothing(&self) -> Option<&Unknown> {
        match self {
            Self::None(why) => Some(why),
            Self::NoneOf(objects) => objects.values().next(),
            Self::Full | Self::Except(_) | Self::Partial(_) => None,
        }
    }
}

/// What one detector says of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct KindEvaluation {
    /// The kind that was evaluated.
    pub kind: Kind,
    /// What is so now.
    pub raised: Vec<Finding>,
    /// What could not be evaluated.
    pub coverage: Coverage,
    /// What the detector wants to know.
    pub lookups: Vec<Lookup>,
    /// Of each of them: the severity of the finding that it is for, as severe as that may be where it is not decided.
    pub urgency: BTreeMap<Lookup, Severity>,
    /// Raised objects whose severity rests on what is not known, so that it may be higher than found.
    pub severity_unknown: BTreeMap<Object, Unknown>,
    /// Raised objects whose finding rests on a lookup that has no answer yet: it is suspected, and cannot be confirmed before.
    pub awaited: BTreeMap<Object, Unknown>,
    /// Raised objects whose finding follows from another one, or for which that is not known. What has no entry stands by itself.
    pub shown_under: BTreeMap<Object, Tri<FindingKey, ()>>,
    /// What the finding of a raised object follows from, where a finding of that stands: the first that does.
    pub follows: BTreeMap<Object, Vec<Above>>,
    /// Raised objects whose finding says what is still to come: nothing follows from it yet.
    pub ahead: BTreeSet<Object>,
    /// Raised objects whose finding does not become critical, however long it stands.
    pub stays_as_severe: BTreeSet<Object>,
}

impl KindEvaluation {
    /// Everything was seen and nothing is wrong, so far.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            raised: Vec::new(),
            coverage: Coverage::Full,
            lookups: Vec::new(),
            urgency: BTreeMap::new(),
            severity_unknown: BTreeMap::new(),
            awaited: BTreeMap::new(),
            shown_under: BTreeMap::new(),
            follows: BTreeMap::new(),
            ahead: BTreeSet::new(),
            stays_as_severe: BTreeSet::new(),
        }
    }

    /// Nothing could be evaluated.
    #[must_use]
    pub fn nothing(kind: Kind, why: &Unknown) -> Self {
        Self { coverage: Coverage::None(why.clone()), ..Self::new(kind) }
    }

    /// One object could not be evaluated.
    pub fn not_evaluated(&mut self, object: Object, why: &Unknown) {
        match &mut self.coverage {
            Coverage::NoneOf(objects) | Coverage::Except(objects) => {
                objects.entry(object).or_insert_with(|| why.clone());
            }
            Coverage::Full => self.coverage = Coverage::Except(BTreeMap::from([(object, why.clone())])),
            Coverage::None(_) | Coverage::Partial(_) => {}
        }
    }
}

/// How far one eviction signal is from the kubelet's threshold, in bytes, inodes or process ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Headroom {
    /// The signal.
    pub signal: EvictionSignal,
    /// What is available, by the kubelet's own arithmetic.
    pub available: u64,
    /// Of how much.
    pub capacity: u64,
    /// The hard threshold in force; absent where the kubelet has none for this signal, and where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard: Option<u64>,
    /// The soft threshold in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft: Option<u64>,
    /// What the hard threshold is assumed to be where it is not known: for a reader, and nothing rests on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assumed: Option<u64>,
    /// What a reader must know beside the figures; where the thresholds are not known, why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Whether it is not known if the signal has a threshold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub threshold_unknown: bool,
}
