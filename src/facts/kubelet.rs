//! The kubelet's configuration and directories.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Inventory, PodUid, Unknown};

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

/// Where the configuration was had from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigOrigin {
    /// From the running kubelet's command line and the files it names.
    Process {
        /// The kubelet's process id.
        pid: u32,
        /// Files read, in the order of their precedence.
        files: Vec<String>,
        /// Why a file that it names is not seen from here: what that one sets is taken to be the default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unseen: Option<String>,
    },
    /// From a file where a distribution keeps it; no kubelet was found running.
    Files {
        /// Files read, in the order of their precedence.
        files: Vec<String>,
    },
    /// Nothing was found: these are the kubelet's defaults.
    Defaults,
}

/// The kubelet's settings that judges read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KubeletConfig {
    /// Where it was had from.
    pub origin: ConfigOrigin,
    /// `--root-dir`.
    pub root_dir: String,
    /// Hard thresholds in force.
    pub hard: BTreeMap<EvictionSignal, Threshold>,
    /// Soft thresholds in force.
    pub soft: BTreeMap<EvictionSignal, Threshold>,
    /// Whether `enforceNodeAllocatable` has `pods`: only then there is an `allocatableMemory` signal.
    pub enforces_pods: bool,
}

impl Default for KubeletConfig {
    /// The kubelet's defaults on Linux, the same from 1.31 to 1.36.
    fn default() -> Self {
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
        let hard = hard.map(|(signal, value)| (signal, Threshold { value, grace: None, min_reclaim: None }));
        Self {
            origin: ConfigOrigin::Defaults,
            root_dir: "/var/lib/kubelet".into(),
            hard: hard.into(),
            soft: BTreeMap::new(),
            enforces_pods: true,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
