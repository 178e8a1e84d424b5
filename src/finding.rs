//! What judges say: kinds, findings with their evidence, judgements, headroom.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::facts::{EvictionSignal, PodUid, Question, Source, Unknown, VolumeId};

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
            volumes::orphaned_pod_directory => OrphanedPodDirectory;
            volumes::stuck_unmount => StuckUnmount;
            volumes::orphaned_staging_mount => OrphanedStagingMount;
            volumes::unmounted_volume_path => UnmountedVolumePath;
            volumes::missing_device => MissingDevice;
            volumes::stuck_attaching => StuckAttaching, VolumeNotFound;
            volumes::stuck_detaching => StuckDetaching, UndeletableAttachment;
            volumes::stale_attachment => StaleAttachment;
            volumes::wanted_elsewhere => VolumeWantedElsewhere;
            volumes::attachment_limit => AttachmentLimit;
            volumes::mounted_at_shutdown => VolumesMountedAtShutdown;
            volumes::untagged_volume => UntaggedVolume;
            volumes::orphaned_volume => OrphanedVolume;
            kubelet::eviction_threshold => EvictionThresholdMet;
            kubelet::oom_kill => OomKill;
            kubelet::pids (SETTINGS) => PidExhaustion;
            kubelet::memory_stall (SETTINGS) => MemoryStall;
            kubelet::saturation (SETTINGS) => NodeSaturated;
            kubelet::system_pod_starved => SystemPodStarved;
            instance::steal (SETTINGS) => CpuSteal;
            network::conntrack (SETTINGS) => ConntrackPressure;
            network::neighbours (SETTINGS) => NeighbourTableFull;
            instance::clock (SETTINGS) => ClockDrift;
            instance::reboots (SETTINGS) => UnexpectedReboot, RebootLoop;
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
pub enum SubjectType {
    /// The machine.
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
}

impl SubjectType {
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
        }
    }
}

/// What a finding is about. Its type and id are the key of the finding; the rest helps the reader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// What sort of thing.
    #[serde(rename = "type")]
    pub of: SubjectType,
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
}

impl Subject {
    /// A subject by its key alone.
    pub fn new(of: SubjectType, id: impl Into<String>) -> Self {
        Self { of, id: id.into(), pod: None, pv: None, volume: None }
    }

    /// The machine itself.
    #[must_use]
    pub fn node() -> Self {
        Self::new(SubjectType::Node, "node")
    }

    fn key(&self) -> (SubjectType, &str) {
        (self.of, &self.id)
    }
}

impl PartialEq for Subject {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Subject {}

impl PartialOrd for Subject {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Subject {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.of {
            SubjectType::Node => f.write_str("node"),
            of => write!(f, "{} {}", of.name(), self.id),
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
    pub subject: Subject,
    /// One sentence that an operator can act on.
    pub message: String,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
    /// What to do next.
    pub advice: String,
}

/// What a judge could not see.
#[derive(Clone, Debug, PartialEq)]
pub enum Blind {
    /// It saw all it needs.
    No,
    /// It saw nothing that its verdict could rest on.
    All(Unknown),
    /// It could not judge these subjects.
    Of(BTreeMap<Subject, Unknown>),
    /// It saw what it raised, and not enough to say that nothing else is so.
    Rest(Unknown),
}

impl Blind {
    /// Why this subject could not be judged, if so.
    #[must_use]
    pub fn to(&self, subject: &Subject) -> Option<&Unknown> {
        match self {
            Self::No => None,
            Self::All(why) | Self::Rest(why) => Some(why),
            Self::Of(subjects) => subjects.get(subject),
        }
    }
}

/// What one judge says of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The kind that was judged.
    pub kind: Kind,
    /// What is so now.
    pub raised: Vec<Finding>,
    /// What could not be judged.
    pub blind: Blind,
    /// What the judge wants to know.
    pub asks: Vec<Question>,
    /// Raised objects whose severity rests on what is not known, so that it may be higher than found.
    pub severity_unknown: BTreeMap<Subject, Unknown>,
}

impl Judgement {
    /// Everything was seen and nothing is wrong, so far.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, raised: Vec::new(), blind: Blind::No, asks: Vec::new(), severity_unknown: BTreeMap::new() }
    }

    /// Nothing could be judged.
    #[must_use]
    pub fn blind(kind: Kind, why: &Unknown) -> Self {
        Self { blind: Blind::All(why.clone()), ..Self::new(kind) }
    }

    /// One subject could not be judged.
    pub fn blind_to(&mut self, subject: Subject, why: &Unknown) {
        match &mut self.blind {
            Blind::Of(subjects) => {
                subjects.entry(subject).or_insert_with(|| why.clone());
            }
            Blind::No => self.blind = Blind::Of(BTreeMap::from([(subject, why.clone())])),
            Blind::All(_) | Blind::Rest(_) => {}
        }
    }
}

/// How the note of a [`Headroom`] begins that has no threshold because none could be read.
pub const THRESHOLD_UNKNOWN: &str = "the threshold is not known";

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
    /// What a reader must know beside the figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}
