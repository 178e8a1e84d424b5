//! The kubelet's configuration and directories.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Inventory, Part, PodUid, Unknown};

/// What the kubelet's eviction manager watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EvictionSignal {
    /// Memory of the whole machine.
    #[serde(rename = "memory.available")]
    Memory,
    /// Memory of all pods against the limit of kubepods. It has the threshold of `memory.available`.
    #[serde(rename = "allocatableMemory.available")]
    AllocatableMemory,
    /// Space on the filesystem of the kubelet's directory.
    #[serde(rename = "nodefs.available")]
    NodeFs,
    /// Inodes on it.
    #[serde(rename = "nodefs.inodesFree")]
    NodeFsInodes,
    /// Space on the filesystem of the container images.
    #[serde(rename = "imagefs.available")]
    ImageFs,
    /// Inodes on it.
    #[serde(rename = "imagefs.inodesFree")]
    ImageFsInodes,
    /// Process ids (threads count).
    #[serde(rename = "pid.available")]
    Pid,
}

impl EvictionSignal {
    /// All of them, in the order in which reports list them.
    pub const ALL: [Self; 7] = [
        Self::Memory,
        Self::AllocatableMemory,
        Self::NodeFs,
        Self::NodeFsInodes,
        Self::ImageFs,
        Self::ImageFsInodes,
        Self::Pid,
    ];

    /// The name in the kubelet's configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory.available",
            Self::AllocatableMemory => "allocatableMemory.available",
            Self::NodeFs => "nodefs.available",
            Self::NodeFsInodes => "nodefs.inodesFree",
            Self::ImageFs => "imagefs.available",
            Self::ImageFsInodes => "imagefs.inodesFree",
            Self::Pid => "pid.available",
        }
    }

    /// Whether it counts bytes: the others count inodes or process ids.
    #[must_use]
    pub fn in_bytes(self) -> bool {
        matches!(self, Self::Memory | Self::AllocatableMemory | Self::NodeFs | Self::ImageFs)
    }
}

impl fmt::Display for EvictionSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No signal of this name (or one, like `containerfs`, that the kubelet overwrites).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an eviction signal that barnacle recomputes")]
pub struct NotASignal;

impl FromStr for EvictionSignal {
    type Err = NotASignal;

    fn from_str(name: &str) -> Result<Self, NotASignal> {
        Self::ALL.into_iter().find(|signal| signal.name() == name).ok_or(NotASignal)
    }
}

/// How a threshold is given.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThresholdValue {
    /// In bytes, inodes or process ids.
    Quantity(u64),
    /// As a share of capacity, 0 to 1, in the kubelet's own precision.
    Percentage(f32),
}

impl ThresholdValue {
    /// The threshold for this capacity, rounded as the kubelet rounds: a 32-bit fraction, widened, then cut off.
    #[must_use]
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Quantity(quantity) => quantity,
            Self::Percentage(share) => (capacity as f64 * f64::from(share)) as u64,
        }
    }
}

/// As the kubelet's configuration would have it: `100Mi`, `10%`.
impl fmt::Display for ThresholdValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
        match self {
            Self::Quantity(quantity) => {
                let whole = UNITS.into_iter().find(|(unit, _)| *quantity > 0 && quantity.is_multiple_of(*unit));
                let (unit, suffix) = whole.unwrap_or((1, ""));
                write!(f, "{}{suffix}", quantity / unit)
            }
            // In thousandths of a percent: the 32-bit share of 10 % is not quite a tenth.
            Self::Percentage(share) => write!(f, "{}%", (f64::from(*share) * 100_000.0).round() / 1000.0),
        }
    }
}

/// One threshold of the kubelet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// Met while available is strictly below this.
    pub value: ThresholdValue,
    /// For a soft one, how long it must be met before pods are evicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Duration>,
    /// Once met, it stays met until this much more than the threshold is available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_reclaim: Option<ThresholdValue>,
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)?;
        if let Some(grace) = self.grace {
            write!(f, " for {} s", grace.as_secs_f64())?;
        }
        match self.min_reclaim {
            Some(reclaim) => write!(f, ", minimum reclaim {reclaim}"),
            None => Ok(()),
        }
    }
}

/// The kubelet's own hard thresholds on Linux, the same from 1.31 to 1.38: in force where nothing says otherwise.
#[must_use]
pub fn default_thresholds() -> BTreeMap<EvictionSignal, Threshold> {
    use EvictionSignal::{AllocatableMemory, ImageFs, ImageFsInodes, Memory, NodeFs, NodeFsInodes};
    use ThresholdValue::{Percentage, Quantity};
    let memory = Quantity(100 << 20);
    let hard = [
        (Memory, memory),
        (AllocatableMemory, memory),
        (NodeFs, Percentage(0.1)),
        (NodeFsInodes, Percentage(0.05)),
        (ImageFs, Percentage(0.15)),
        (ImageFsInodes, Percentage(0.05)),
    ];
    hard.map(|(signal, value)| (signal, Threshold { value, grace: None, min_reclaim: None })).into()
}

/// All hard or all soft thresholds. What is only assumed cannot be had by the way that detectors take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Thresholds {
    /// Everything that decides over them was read: these are in force, and no others.
    Read(BTreeMap<EvictionSignal, Threshold>),
    /// Something that decides over them could not be read.
    Assumed {
        /// In force all the same: what was read wins over what could not be.
        read: BTreeMap<EvictionSignal, Threshold>,
        /// What is in force if nothing that could not be read says otherwise.
        guess: BTreeMap<EvictionSignal, Threshold>,
        /// What could not be read.
        why: Unknown,
    },
}

impl Thresholds {
    /// The threshold in force for a signal, if there is one.
    ///
    /// # Errors
    /// Why it is not known whether there is one, and which.
    pub fn of(&self, signal: EvictionSignal) -> Result<Option<&Threshold>, &Unknown> {
        match self {
            Self::Read(read) => Ok(read.get(&signal)),
            Self::Assumed { read, why, .. } => read.get(&signal).map(Some).ok_or(why),
        }
    }

    /// What it is assumed to be, for people to look at: only where [`Self::of`] does not know.
    #[must_use]
    pub fn assumed(&self, signal: EvictionSignal) -> Option<&Threshold> {
        match self {
            Self::Read(_) => None,
            Self::Assumed { read, guess, .. } => guess.get(&signal).filter(|_| !read.contains_key(&signal)),
        }
    }

    /// Why some are only assumed, if so.
    #[must_use]
    pub fn why_assumed(&self) -> Option<&Unknown> {
        match self {
            Self::Read(_) => None,
            Self::Assumed { why, .. } => Some(why),
        }
    }
}

/// Where the configuration was had from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigOrigin {
    /// From the running kubelet's command line and the files it names.
    Process {
        /// The kubelet's process id.
        pid: u32,
        /// Time since boot at which it was started; absent in recordings of earlier versions.
        #[serde(default, skip_serializing_if = "Part::is_absent")]
        started: Part<Duration>,
        /// Files read, in the order of their precedence.
        files: Vec<String>,
    },
    /// From the running kubelet's own answer (`/configz`): no collector has this, the view makes it of two sources.
    Configz {
        /// The kubelet's process id.
        pid: u32,
        /// Time since boot at which it was started.
        started: Duration,
        /// Where the command line and the files say otherwise, a sentence for each setting.
        contradictions: Vec<String>,
    },
    /// From a file where a distribution keeps it; no kubelet was found running. Where one may run all the same, its
    /// thresholds are assumed.
    Files {
        /// Files read, in the order of their precedence.
        files: Vec<String>,
    },
    /// From a kubelet that ran here and has ended, where no other has taken its place: what the next one is started with is assumed.
    Stopped {
        /// The process id that it had.
        pid: u32,
        /// Files read, in the order of their precedence.
        files: Vec<String>,
    },
    /// A kubelet runs here, and what it was started with was not found. Recordings of earlier versions call it `defaults`.
    #[serde(alias = "defaults")]
    NotFound,
    /// No kubelet runs here.
    NoKubelet,
}

/// The kubelet's settings that detectors read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KubeletConfig {
    /// Where it was had from.
    pub origin: ConfigOrigin,
    /// `--root-dir`.
    pub root_dir: String,
    /// Hard thresholds.
    pub hard: Thresholds,
    /// Soft thresholds.
    pub soft: Thresholds,
    /// Whether `enforceNodeAllocatable` has `pods`: only then there is an `allocatableMemory` signal.
    pub enforces_pods: bool,
    /// What else decides over eviction.
    #[serde(default)]
    pub options: KubeletOptions,
}

/// Settings beside the thresholds that decide over eviction. What is not set is absent, what could not be read is unknown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KubeletOptions {
    /// Signals whose hard threshold is there by `mergeDefaultEvictionSettings` alone, which kubelets before 1.33 ignore.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub merged_defaults: BTreeSet<EvictionSignal>,
    /// The feature gate `HugepageAwareEviction`, which is there and on from 1.37.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub huge_page_aware: Part<bool>,
    /// `evictionPressureTransitionPeriod`.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub pressure_transition: Part<Duration>,
    /// `memoryReservationPolicy`, from 1.37.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub memory_reservation: Part<MemoryReservation>,
    /// The feature gate `EventedPLEG`, which is alpha.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub evented_pleg: Part<bool>,
    /// The limits of the kubelet's own client of the API server, where the kubelet's answer has them: files are not read for them.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub client: Part<ClientLimits>,
}

/// The limits of the kubelet's own client of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientLimits {
    /// `kubeAPIQPS`: requests a second; a negative number is no limit.
    pub qps: i64,
    /// `kubeAPIBurst`: requests at once.
    pub burst: i64,
}

impl KubeletOptions {
    /// All of them unknown for one reason.
    #[must_use]
    pub fn unread(why: &Unknown) -> Self {
        let boxed = || Box::new(why.clone());
        Self {
            merged_defaults: BTreeSet::new(),
            huge_page_aware: Part::Unknown(boxed()),
            pressure_transition: Part::Unknown(boxed()),
            memory_reservation: Part::Unknown(boxed()),
            evented_pleg: Part::Unknown(boxed()),
            client: Part::Unknown(boxed()),
        }
    }

    /// For how long a pressure condition lasts after its signal was last below a threshold.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn pressure_lasts(&self) -> Result<Duration, &Unknown> {
        /// The kubelet's default.
        const FIVE_MINUTES: Duration = Duration::from_secs(300);
        Ok(self.pressure_transition.seen()?.copied().unwrap_or(FIVE_MINUTES))
    }
}

/// `memoryReservationPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryReservation {
    /// No group has `memory.min`.
    None,
    /// The kernel never takes what Guaranteed pods request (`memory.min`), page cache included.
    Tiered,
}

/// The first two numbers of a kubelet's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KubeletVersion(pub u32, pub u32);

impl KubeletVersion {
    /// From this version on `mergeDefaultEvictionSettings` counts.
    pub const MERGES_DEFAULTS: Self = Self(1, 33);
    /// From here on PLEG lists each second also with the feature gate `EventedPLEG`.
    pub const LISTS_EACH_SECOND: Self = Self(1, 37);
    /// From this version on huge pages are subtracted from `memory.available`.
    pub const KNOWS_HUGE_PAGES: Self = Self(1, 37);

    /// Reads `v1.37.2-eks-1234567`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (major, rest) = text.strip_prefix('v')?.split_once('.')?;
        let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// Whether a kubelet of this version (`v1.36.2-eks-1234567`) leaks memory at each sync of a pod: 1.36.0 to 1.36.2 do
/// (kubernetes/kubernetes#139850).
#[must_use]
pub fn leaks_memory(version: &str) -> bool {
    let patch = version.strip_prefix("v1.36.").map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    matches!(patch.flatten(), Some("0" | "1" | "2"))
}

/// What the kubelet says of its own configuration (`/configz`): flags, files and defaults together. Only the settings
/// that detectors read are kept: the rest may hold secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KubeletConfigz {
    /// Hard thresholds: these are in force, and no others.
    pub hard: BTreeMap<EvictionSignal, Threshold>,
    /// Soft thresholds: these are in force, and no others.
    pub soft: BTreeMap<EvictionSignal, Threshold>,
    /// Whether `enforceNodeAllocatable` has `pods`.
    pub enforces_pods: bool,
    /// What else decides over eviction. Merged defaults are in `hard` as they are in force.
    #[serde(default)]
    pub options: KubeletOptions,
}

/// `vol_data.json`, as the kubelet's CSI plugin writes it before it mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeData {
    /// `driverName`.
    pub driver: String,
    /// `volumeHandle`.
    pub handle: String,
    /// `specVolID`: the PersistentVolume; absent in the staging directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pv: Option<String>,
    /// `attachmentID`: the VolumeAttachment; absent in the staging directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<String>,
}

/// `pods/UID/volumes/PLUGIN/NAME`, without a look at what is mounted there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeDir {
    /// Plugin directory, such as `kubernetes.io~csi`.
    pub plugin: String,
    /// Name of the PersistentVolume or of the volume in the pod.
    pub name: String,
    /// Its `vol_data.json`; absent where there is none, where it is not readable, or where the plugin has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<VolumeData>,
}

/// `pods/UID`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodDir {
    /// When the directory last changed (mtime): an entry came or went.
    pub changed: Timestamp,
    /// What is left in `volumes` and `volumeDevices`.
    pub volumes: Vec<VolumeDir>,
}

/// `plugins/kubernetes.io/csi/DRIVER/HASH`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagingDir {
    /// CSI driver name.
    pub driver: String,
    /// Its `vol_data.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<VolumeData>,
}

/// What stands in the kubelet's directories.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KubeletDirs {
    /// By pod UID.
    pub pods: Inventory<PodUid, PodDir>,
    /// By the hash of the volume handle.
    pub staging: Inventory<String, StagingDir>,
    /// What a directory holds that could not be read, the first of it. The lists are no less whole for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<Unknown>,
}

super::partial::read_whole!(KubeletConfigz);

impl super::Partial for KubeletConfig {
    fn incomplete(&self) -> Option<&Unknown> {
        None
    }

    /// Of no kubelet there is no file that should be readable.
    fn unread(&self) -> Option<&Unknown> {
        let assumed = self.hard.why_assumed().or(self.soft.why_assumed());
        assumed.filter(|_| self.origin != ConfigOrigin::NoKubelet)
    }
}

impl super::Partial for KubeletDirs {
    fn incomplete(&self) -> Option<&Unknown> {
        self.pods.incomplete().or(self.staging.incomplete())
    }

    fn unread(&self) -> Option<&Unknown> {
        super::Partial::incomplete(self).or(self.unread.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assumed_threshold_is_not_given_as_one_in_force() {
        let guess = default_thresholds();
        let memory = guess[&EvictionSignal::Memory];
        let why = Unknown::new(crate::facts::Cause::Missing, "config.yaml is not there");
        let assumed = Thresholds::Assumed { read: [(EvictionSignal::Memory, memory)].into(), guess, why: why.clone() };
        assert_eq!(assumed.of(EvictionSignal::Memory), Ok(Some(&memory)));
        assert_eq!((assumed.of(EvictionSignal::NodeFs), assumed.of(EvictionSignal::Pid)), (Err(&why), Err(&why)));
        assert_eq!(assumed.assumed(EvictionSignal::Memory), None);
        assert!(assumed.assumed(EvictionSignal::NodeFs).is_some());
        let read = Thresholds::Read([(EvictionSignal::Memory, memory)].into());
        assert_eq!((read.of(EvictionSignal::NodeFs), read.assumed(EvictionSignal::NodeFs)), (Ok(None), None));
    }

    #[test]
    fn thresholds_read_back_as_they_were_written() {
        let why = Unknown::new(crate::facts::Cause::Missing, "config.yaml is not there");
        let assumed = Thresholds::Assumed { read: BTreeMap::new(), guess: default_thresholds(), why };
        for thresholds in [Thresholds::Read(default_thresholds()), Thresholds::Read(BTreeMap::new()), assumed] {
            let text = serde_json::to_string(&thresholds).unwrap();
            assert_eq!(serde_json::from_str::<Thresholds>(&text).unwrap(), thresholds, "{text}");
        }
        let recorded = r#"{"memory.available":{"value":{"quantity":104857600}}}"#;
        assert!(matches!(serde_json::from_str(recorded).unwrap(), Thresholds::Read(read) if read.len() == 1));
    }

    #[test]
    fn a_threshold_is_shown_as_the_configuration_has_it() {
        let of = |value| Threshold { value, grace: None, min_reclaim: None };
        for (value, text) in [
            (ThresholdValue::Quantity(100 << 20), "100Mi"),
            (ThresholdValue::Quantity(5 << 30), "5Gi"),
            (ThresholdValue::Quantity(1500), "1500"),
            (ThresholdValue::Quantity(0), "0"),
            (ThresholdValue::Percentage(0.1), "10%"),
            (ThresholdValue::Percentage(0.125), "12.5%"),
        ] {
            assert_eq!(of(value).to_string(), text);
        }
        let value = ThresholdValue::Quantity(1 << 30);
        let soft = Threshold { value, grace: Some(Duration::from_secs(90)), min_reclaim: Some(value) };
        assert_eq!(soft.to_string(), "1Gi for 90 s, minimum reclaim 1Gi");
    }

    #[test]
    fn a_version_is_its_first_two_numbers() {
        let of = KubeletVersion::parse;
        assert_eq!(
            (of("v1.37.2-eks-1234567"), of("v1.38.0-beta.0")),
            (Some(KubeletVersion(1, 37)), Some(KubeletVersion(1, 38)))
        );
        assert!(of("v1.9.0") < Some(KubeletVersion::MERGES_DEFAULTS));
        assert_eq!((of(""), of("1.37"), of("v1"), of("v1.x")), (None, None, None, None));
    }

    #[test]
    fn three_versions_leak() {
        for (version, leaks) in [
            ("v1.36.2-eks-1234567", true),
            ("v1.36.0", true),
            ("v1.36.3", false),
            ("v1.36.20", false),
            ("v1.35.2", false),
            ("v1.37.0", false),
            ("v1.36.", false),
            ("", false),
        ] {
            assert_eq!(leaks_memory(version), leaks, "{version}");
        }
    }

    #[test]
    fn percentages_are_cut_as_the_kubelet_cuts_them() {
        let of = |percent: f32, capacity| ThresholdValue::Percentage(percent / 100.0).of(capacity);
        assert_eq!(of(10.0, 107_374_182_400), 10_737_418_400);
        assert_eq!(of(15.0, 107_374_182_400), 16_106_128_000);
        assert_eq!(of(5.0, 8_221_233_152), 411_061_663);
        assert_eq!(of(10.0, 85_886_742_528), 8_588_674_380);
        assert_eq!(of(5.0, 41_932_800), 2_096_640);
        assert_eq!(of(10.0, 62_722), 6_272);
    }
}
