//! What of the machine each profile of the DaemonSet shows: the other half of what can be found there.

use crate::facts::{ShownBy, Source};
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
    /// Files of other processes.
    Holders,
    /// What the kernel saved when it died.
    Pstore,
    /// How DNS servers answer.
    Dns,
    /// Statistics of NVMe controllers; privileged, so that the kernel's log comes with it.
    NvmeStats,
    /// The kubelet's own configuration, as it answers it.
    KubeletApi,
    /// The kubelet's own view of its pods.
    PodsApi,
    /// EC2, where something gives a reason to ask.
    Ec2,
}

impl Profile {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 11] = [
        Self::Observe,
        Self::Distribution,
        Self::Directories,
        Self::Kmsg,
        Self::Holders,
        Self::Pstore,
        Self::Dns,
        Self::NvmeStats,
        Self::KubeletApi,
        Self::PodsApi,
        Self::Ec2,
    ];

    fn shows(self, source: Source) -> bool {
        match source.shown_by() {
            ShownBy::Base => true,
            ShownBy::Distribution => self == Self::Distribution,
            ShownBy::Directories => self == Self::Directories,
            ShownBy::Kmsg => matches!(self, Self::Kmsg | Self::NvmeStats),
            ShownBy::Holders => self == Self::Holders,
            ShownBy::Pstore => self == Self::Pstore,
            ShownBy::Dns => self == Self::Dns,
            ShownBy::NvmeStats => self == Self::NvmeStats,
            ShownBy::KubeletApi => self == Self::KubeletApi,
            ShownBy::PodsApi => self == Self::PodsApi,
            ShownBy::Ec2 => self == Self::Ec2,
            ShownBy::Cluster | ShownBy::OwnKubeconfig => false,
        }
    }

    /// Whether a source should be readable in this profile. What it does not show, or only in part, says nothing by not being read.
    #[must_use]
    pub fn expects(self, source: Source) -> bool {
        match visibility(self, source) {
            Visibility::Full | Visibility::Without(..) => true,
            Visibility::Partial(..) => self.shows(source),
            Visibility::Hidden => false,
        }
    }

    /// The component of `daemonset/` that shows a source, where the base does not.
    #[must_use]
    pub fn component_for(source: Source) -> Option<&'static str> {
        match source.shown_by() {
            ShownBy::Base | ShownBy::Cluster | ShownBy::OwnKubeconfig => None,
            ShownBy::Distribution => Some("the component of the distribution"),
            ShownBy::Directories => Some("component directories"),
            ShownBy::Kmsg => Some("component kmsg"),
            ShownBy::Holders => Some("component holders"),
            ShownBy::Pstore => Some("component pstore"),
            ShownBy::Dns => Some("component dns"),
            ShownBy::NvmeStats => Some("component nvme-stats"),
            ShownBy::KubeletApi => Some("component kubelet-api"),
            ShownBy::PodsApi => Some("component pods-api"),
            ShownBy::Ec2 => Some("component ec2"),
        }
    }

    /// What the README calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Observe => "`observe`",
            Self::Distribution => "+ distribution",
            Self::Directories => "+ `directories`",
            Self::Kmsg => "+ `kmsg`",
            Self::Holders => "+ `holders`",
            Self::Pstore => "+ `pstore`",
            Self::Dns => "+ `dns`",
            Self::NvmeStats => "+ `nvme-stats`",
            Self::KubeletApi => "+ `kubelet-api`",
            Self::PodsApi => "+ `pods-api`",
            Self::Ec2 => "+ `ec2`",
        }
    }
}

/// How much of a source is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// As on the machine itself.
    Full,
    /// It is known but for this, which matters to these kinds.
    Partial(&'static str, &'static [Kind]),
    /// It is known but for this, without which these kinds are not evaluated.
    Without(&'static str, &'static [Kind]),
    /// It is Unknown.
    Hidden,
}

/// What a profile shows of a source. What it shows in part, and for whom that matters, is by hand: it is about files in a source, which
/// no list has.
#[must_use]
pub fn visibility(profile: Profile, source: Source) -> Visibility {
    match (profile.shows(source), source) {
        (true, Source::Limits) => Visibility::Partial(
            "from Linux 6.14 on the machine's pid_max is not read",
            &[Kind::PidExhaustion, Kind::EvictionThresholdMet, Kind::EvictionForecast, Kind::EvictionBlind],
        ),
        (true, _) => Visibility::Full,
        // The kubelet's answer has what its file would say.
        (false, Source::KubeletConfig) if profile == Profile::KubeletApi => Visibility::Full,
        // Where it is not asked its command line and files count.
        (false, Source::KubeletConfigz) => Visibility::Partial("the kubelet is not asked", &[]),
        (false, Source::KubeletConfig) => Visibility::Without(
            "the thresholds in the kubelet's configuration file are not read",
            &[Kind::EvictionThresholdMet, Kind::EvictionForecast, Kind::EvictionBlind],
        ),
        // What it adds to a threshold that is met is a name.
        (false, Source::DeletedFiles) => {
            Visibility::Partial("deleted files that are open are not read", &[Kind::DeletedFilesHeld])
        }
        (false, Source::XfsProbe) => {
            Visibility::Partial("of xfs, only the kubelet's own filesystem is probed", &[Kind::FilesystemError])
        }
        (false, _) => Visibility::Hidden,
    }
}
