//! What of the machine each profile of the DaemonSet shows: the other half of what can be found there.

use crate::facts::Source;
use crate::finding::Kind;

/// The base, or the base with one component over it (`daemonset/components`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The base.
    Observe,
    /// That of the node's distribution: the kubelet's configuration and the filesystem of the images.
    Distribution,
    /// The kubelet's `plugins` and `pods`.
    Directories,
    /// The kernel's log.
    Kmsg,
    /// Statistics of NVMe controllers; privileged, so that the kernel's log comes with it.
    NvmeStats,
    /// EC2, where something gives a reason to ask.
    Ec2,
}

impl Profile {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 6] =
        [Self::Observe, Self::Distribution, Self::Directories, Self::Kmsg, Self::NvmeStats, Self::Ec2];

    /// What the README calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Observe => "`observe`",
            Self::Distribution => "+ distribution",
            Self::Directories => "+ `directories`",
            Self::Kmsg => "+ `kmsg`",
            Self::NvmeStats => "+ `nvme-stats`",
            Self::Ec2 => "+ `ec2`",
        }
    }
}

/// How much of a source is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// As on the machine itself.
    Whole,
    /// It is known but for this, which matters to these kinds.
    But(&'static str, &'static [Kind]),
    /// It is known but for this, without which these kinds are not evaluated.
    Without(&'static str, &'static [Kind]),
    /// It is Unknown.
    Nothing,
}

/// What a profile shows of a source.
#[must_use]
pub fn sight(profile: Profile, source: Source) -> Sight {
    let only_in = |only: Profile, otherwise: Sight| if profile == only { Sight::Whole } else { otherwise };
    match source {
        Source::ImageFs => only_in(Profile::Distribution, Sight::Nothing),
        Source::KubeletDirs => only_in(Profile::Directories, Sight::Nothing),
        Source::KernelLog if profile == Profile::NvmeStats => Sight::Whole,
        Source::KernelLog => only_in(Profile::Kmsg, Sight::Nothing),
        Source::EbsStatistics => only_in(Profile::NvmeStats, Sight::Nothing),
        Source::Ec2Attached | Source::Ec2Volumes => only_in(Profile::Ec2, Sight::Nothing),
        Source::KubeletConfig => only_in(
            Profile::Distribution,
            Sight::Without("no thresholds of a kubelet that has a configuration file", &[Kind::EvictionThresholdMet]),
        ),
        Source::XfsProbe => only_in(
            Profile::Directories,
            Sight::But("of xfs, the kubelet's own filesystem alone is asked", &[Kind::FilesystemError]),
        ),
        Source::Limits => Sight::But(
            "no pid_max of the machine from Linux 6.14 on",
            &[Kind::PidExhaustion, Kind::EvictionThresholdMet],
        ),
        Source::MemInfo
        | Source::VmStat
        | Source::CpuTimes
        | Source::LoadAvg
        | Source::Pressure
        | Source::Mounts
        | Source::MountHolders
        | Source::BlockDevices
        | Source::NvmeControllers
        | Source::Filesystems
        | Source::Cgroups
        | Source::PodCgroups
        | Source::NodeFs
        | Source::Conntrack
        | Source::Neighbours
        | Source::ElasticInterfaces
        | Source::Clock
        | Source::Boot
        | Source::BootHistory
        | Source::Node
        | Source::Pods
        | Source::AgentConfigMap
        | Source::AgentDaemonSet
        | Source::CsiNode
        | Source::CniNode
        | Source::VpcCniConfig
        | Source::VolumeAttachments
        | Source::PersistentVolumes
        | Source::StorageClasses
        | Source::AttributesClasses
        | Source::FormerPods => Sight::Whole,
        // Of the cluster and not of the node: `barnacle cluster` alone reads it.
        Source::PendingPods | Source::VolumeSweep => Sight::Nothing,
    }
}
