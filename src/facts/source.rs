//! The one list of sources: what each says, how often it is read, how long its word stands.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DevId, Reading, VolumeId};

/// Calls a macro with every source: variant, field of the view, type, name, seconds between reads, the
/// provider that it belongs to, what of `daemonset/` shows it, where it looks.
///
/// Everything that must exist once for each source is made from this list, so a source is added in one line. They are
/// read in this order: the kubelet's configuration before what lies in the directory that it names, mounts before devices.
macro_rules! for_each_source {
    ($call:ident) => {
        $call! {
            MemInfo, meminfo, crate::facts::MemInfo, "meminfo", 10, Host, Base, "/proc/meminfo";
            VmStat, vmstat, crate::facts::VmStat, "vmstat", 10, Host, Base, "/proc/vmstat";
            CpuTimes, cpu, crate::facts::CpuTimes, "cpu", 10, Host, Base, "/proc/stat";
            LoadAvg, load, crate::facts::LoadAvg, "loadavg", 10, Host, Base, "/proc/loadavg";
            Pressure, pressure, crate::facts::Pressure, "pressure", 10, Host, Base, "/proc/pressure";
            KubeletConfig, kubelet_config, crate::facts::KubeletConfig, "kubelet-config", 300, Host, Distribution, "the kubelet's configuration";
            KubeletConfigz, kubelet_configz, crate::facts::KubeletConfigz, "kubelet-configz", 600, Kubelet, KubeletApi, "the kubelet's /configz";
            KubeletStats, kubelet_stats, crate::facts::KubeletStats, "kubelet-stats", 60, Kubelet, KubeletApi, "the kubelet's /stats/summary";
            KubeletMetrics, kubelet_metrics, crate::facts::KubeletMetrics, "kubelet-metrics", 60, Kubelet, KubeletApi, "the kubelet's /metrics";
            PodsApi, pods_api, crate::facts::Pods, "pods-api", 60, Kubelet, PodsApi, "the kubelet's PodsAPI (pods-api.sock)";
            Mounts, mounts, crate::facts::Mounts, "mounts", 10, Host, Base, "/proc/1/mountinfo";
            MountHolders, mount_holders, crate::facts::MountHolders, "mount-holders", 0, Host, Base, "/proc/PID/mountinfo";
            DeletedFiles, deleted_files, crate::facts::DeletedFiles, "deleted-files", 0, Host, Holders, "/proc/PID/fd";
            BlockDevices, block, crate::facts::BlockDevices, "block", 10, Host, Base, "/sys/dev/block";
            NvmeControllers, nvme, crate::facts::NvmeControllers, "nvme", 10, Host, Base, "/sys/class/nvme";
            EbsStatistics, ebs_statistics, crate::facts::EbsStatistics, "ebs-statistics", 10, Host, NvmeStats, "the statistics of NVMe controllers";
            Filesystems, filesystems, crate::facts::Filesystems, "filesystems", 10, Host, Base, "/sys/fs";
            XfsProbe, xfs_probe, crate::facts::XfsProbes, "xfs-probe", 60, Host, Directories, "statx of xfs filesystems";
            Cgroups, cgroups, crate::facts::Cgroups, "cgroups", 10, Host, Base, "/sys/fs/cgroup";
            PodCgroups, pod_cgroups, crate::facts::PodCgroups, "pod-cgroups", 30, Host, Base, "/sys/fs/cgroup/kubepods";
            PodCpu, pod_cpu, crate::facts::PodCpus, "pod-cpu", 60, Host, Base, "cpu.stat of the pods' control groups";
            ServiceCgroups, service_cgroups, crate::facts::ServiceCgroups, "service-cgroups", 30, Host, Base, "the control groups of services";
            NodeFs, nodefs, crate::facts::DiskUsage, "nodefs", 10, Host, Base, "statfs of the kubelet's directory";
            ImageFs, imagefs, crate::facts::DiskUsage, "imagefs", 10, Host, Distribution, "statfs of the images' directory";
            OtherFilesystems, other_filesystems, crate::facts::OtherFilesystems, "other-filesystems", 60, Host, Base, "statfs of / and /tmp";
            KubeletDirs, kubelet_dirs, crate::facts::KubeletDirs, "kubelet-dirs", 60, Host, Directories, "the kubelet's directories";
            Limits, limits, crate::facts::Limits, "limits", 10, Host, Base, "/proc/sys";
            Conntrack, conntrack, crate::facts::Conntrack, "conntrack", 10, Host, Base, "/proc/sys/net/netfilter";
            Neighbors, neighbors, crate::facts::Neighbors, "neighbors", 30, Host, Base, "/proc/net/stat";
            ElasticInterfaces, elastic_interfaces, crate::facts::ElasticInterfaces, "elastic-interfaces", 60, Host, Base, "/sys/bus/pci/devices";
            EnaStatistics, ena_statistics, crate::facts::EnaStatistics, "ena-statistics", 30, Host, Base, "SIOCETHTOOL";
            BranchLinks, branch_links, crate::facts::BranchLinks, "branch-links", 0, Host, Base, "links, rules and routes (netlink)";
            PodAddresses, pod_addresses, crate::facts::PodAddresses, "pod-addresses", 0, Host, Base, "the VPC CNI's ipamd (127.0.0.1:61679)";
            DnsProbes, dns_probes, crate::facts::DnsProbes, "dns", 30, Host, Dns, "DNS servers (UDP port 53)";
            PodIdentityAgent, pod_identity_agent, crate::facts::PodIdentityAgent, "pod-identity-agent", 30, Host, Base, "/proc/net/tcp";
            Clock, clock, crate::facts::ClockState, "clock", 30, Host, Base, "adjtimex";
            KernelLog, kmsg, crate::facts::KernelLog, "kmsg", 10, Host, Kmsg, "/dev/kmsg";
            HungTaskCount, hung_task_count, crate::facts::HungTaskCount, "hung-task-count", 10, Host, Base, "/proc/sys/kernel/hung_task_detect_count";
            SavedLogs, saved_logs, crate::facts::SavedLogs, "pstore", 600, Host, Pstore, "/sys/fs/pstore";
            Talkers, talkers, crate::facts::Talkers, "talkers", 0, Host, Base, "/proc/PID/net/tcp";
            Tasks, tasks, crate::facts::Tasks, "tasks", 0, Host, Base, "/proc/PID/stat";
            Boot, boot, crate::facts::Boot, "boot", 60, Host, Base, "/proc/sys/kernel";
            BootHistory, boots, crate::facts::BootHistory, "boots", 60, Host, Base, "the state directory";
            Node, node, crate::facts::Node, "node", 60, Api, Base, "the Node of this node (watched)";
            Pods, pods, crate::facts::Pods, "pods", 60, Api, Base, "the pods of this node (watched)";
            AgentConfigMap, agent_config, crate::facts::AgentConfigMap, "agent-configmap", 600, Api, Base, "ConfigMap barnacle (watched)";
            AgentDaemonSet, agents, crate::facts::AgentDaemonSet, "agent-daemonset", 3600, Api, Base, "the agent's DaemonSet";
            CsiNode, csi_node, crate::facts::CsiNode, "csinode", 3600, Api, Base, "the CSINode of this node";
            CniNode, cni_node, crate::facts::CniNode, "cninode", 3600, Api, Base, "the CNINode of this node";
            VpcCniConfig, vpc_cni, crate::facts::VpcCniConfig, "vpc-cni-configmap", 3600, Api, Base, "ConfigMap kube-system/amazon-vpc-cni";
            VolumeAttachments, attachments, crate::facts::Answers<crate::facts::VolumeAttachment>, "volume-attachments", 0, Api, Base, "VolumeAttachments by name";
            PersistentVolumes, pvs, crate::facts::Answers<crate::facts::PersistentVolume>, "persistent-volumes", 0, Api, Base, "PersistentVolumes by name";
            StorageClasses, storage_classes, crate::facts::Answers<crate::facts::VolumeClass>, "storage-classes", 0, Api, Base, "StorageClasses by name";
            AttributesClasses, attributes_classes, crate::facts::Answers<crate::facts::VolumeClass>, "volume-attributes-classes", 0, Api, Base, "VolumeAttributesClasses by name";
            NodeLeases, node_leases, crate::facts::Answers<crate::facts::NodeLease>, "node-leases", 0, Api, KubeletApi, "the Lease of this node, by name";
            PendingPods, pending_pods, crate::facts::Pods, "pending-pods", 60, Api, Cluster, "pods without a node (watched by barnacle cluster)";
            AgentReports, agent_reports, crate::facts::AgentReports, "agent-reports", 600, Api, Cluster, "Nodes: when agents last reported (listed by barnacle cluster)";
            PodServices, pod_services, crate::facts::PodServices, "pod-services", 0, Api, OwnKubeconfig, "Services of the pods' namespaces (listed by check --pods)";
            FormerPods, former_pods, crate::facts::Answers<crate::facts::Pod>, "former-pods", 0, Api, Base, "pods that left this node, by name";
            Ec2Attached, ec2_attached, crate::facts::Ec2Attached, "ec2-attached", 0, Ec2, Ec2, "EC2: what is attached to this instance";
            Ec2Volumes, ec2_volumes, crate::facts::Answers<crate::facts::Ec2Volume>, "ec2-volumes", 0, Ec2, Ec2, "EC2: volumes by id";
            Ec2Interfaces, ec2_interfaces, crate::facts::Ec2Interfaces, "ec2-interfaces", 0, Ec2, Ec2, "EC2: branch ENIs of this instance";
            Ec2Subnets, ec2_subnets, crate::facts::Ec2Subnets, "ec2-subnets", 0, Ec2, Ec2, "EC2: subnets that this instance has addresses from";
            Imds, imds, crate::facts::Imds, "imds", 60, Imds, Base, "IMDS: how it answers";
            ImdsInstance, imds_instance, crate::facts::ImdsInstance, "imds-instance", 3600, Imds, Base, "IMDS: which instance this is";
            ImdsNotices, imds_notices, crate::facts::ImdsNotices, "imds-notices", 60, Imds, Base, "IMDS: how the instance may end";
            ImdsCredentials, imds_credentials, crate::facts::ImdsCredentials, "imds-credentials", 300, Imds, Base, "IMDS: until when the role's credentials are good";
            VolumeSweep, volume_sweep, crate::facts::VolumeSweep, "volume-sweep", 86400, Ec2, Cluster, "EC2: volumes that are attached nowhere (read by barnacle cluster)";
        }
    };
}
pub(crate) use for_each_source;

macro_rules! declare {
    ($($variant:ident, $field:ident, $type:ty, $name:literal, $every:literal, $provider:ident, $shown:ident, $place:literal;)*) => {
        /// Something that can be observed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Source {
            $(#[doc = $place] #[serde(rename = $name)] $variant,)*
        }

        impl Source {
            /// Every source.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Name in metrics, JSON and settings.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Where it looks, for people.
            #[must_use]
            pub fn place(self) -> &'static str {
                match self { $(Self::$variant => $place,)* }
            }

            /// Time between two reads; zero for what is read only when a detector asks.
            #[must_use]
            pub fn every(self) -> Duration {
                Duration::from_secs(match self { $(Self::$variant => $every,)* })
            }

            /// What of `daemonset/` shows it.
            #[must_use]
            pub fn shown_by(self) -> ShownBy {
                match self { $(Self::$variant => ShownBy::$shown,)* }
            }

            /// Who reads it.
            #[must_use]
            pub fn provider(self) -> Provider {
                match self { $(Self::$variant => Provider::$provider,)* }
            }
        }

        /// Each source as a type: what reads it, and what rests on it, names that.
        pub mod sources {
            use super::{Observation, Source, SourceType};
            use crate::facts::Reading;

            $(#[doc = $place]
            #[derive(Debug)]
            pub struct $variant;

            impl SourceType for $variant {
                const SOURCE: Source = Source::$variant;
                type Value = $type;

                fn observation(reading: Reading<$type>) -> Observation {
                    Observation::$variant(reading)
                }
            })*
        }

        /// One answer of one source. A recording is a list of these.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Observation {
            $(#[doc = $place] #[serde(rename = $name)] $variant(Reading<$type>),)*
        }

        impl Observation {
            /// Whose answer it is.
            #[must_use]
            pub fn source(&self) -> Source {
                match self { $(Self::$variant(_) => Source::$variant,)* }
            }

            /// Why it says nothing, if so.
            #[must_use]
            pub fn why_unknown(&self) -> Option<&super::Unknown> {
                match self { $(Self::$variant(reading) => reading.known().err(),)* }
            }

            /// The answer of a source that could not be read.
            #[must_use]
            pub fn unknown(source: Source, why: super::Unknown) -> Self {
                match source { $(Source::$variant => Self::$variant(Reading::Unknown(why)),)* }
            }
        }
    };
}
for_each_source!(declare);

/// A source as a type: [`sources`] has one for each.
pub trait SourceType {
    /// What it is called.
    const SOURCE: Source;
    /// What it reads.
    type Value: super::Partial + 'static;

    /// Its answer.
    fn observation(reading: Reading<Self::Value>) -> Observation;
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who reads a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The machine: files and system calls.
    Host,
    /// The API server. What is watched comes by itself; its seconds say how old its word may grow.
    Api,
    /// The kubelet of this node: its HTTPS endpoint, and its socket.
    Kubelet,
    /// EC2, on a budget that is a share of the account's.
    Ec2,
    /// The metadata service of the instance.
    Imds,
}

/// What of `daemonset/` shows a source to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownBy {
    /// The base.
    Base,
    /// The component of the node's distribution.
    Distribution,
    /// The component `directories`.
    Directories,
    /// The component `kmsg`; `nvme-stats` as well, which is privileged.
    Kmsg,
    /// The component `holders`.
    Holders,
    /// The component `pstore`.
    Pstore,
    /// The component `dns`.
    Dns,
    /// The component `nvme-stats`.
    NvmeStats,
    /// The component `kubelet-api`.
    KubeletApi,
    /// The component `pods-api`.
    PodsApi,
    /// The component `ec2`.
    Ec2,
    /// `barnacle cluster` alone: it is of the cluster and not of the node.
    Cluster,
    /// `check --pods` with an operator's own kubeconfig alone: no agent has the right.
    OwnKubeconfig,
}

/// How many numbers hold a set, 64 sources each.
const WORDS: usize = 4;

/// A set of sources.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceSet([u64; WORDS]);

impl SourceSet {
    /// No source.
    pub const NONE: Self = Self([0; WORDS]);
    /// As many sources as there may be.
    pub const ROOM: usize = 64 * WORDS;

    /// What detectors of volumes compare with one another, so that it is read together: half of it newer than the rest would show what is
    /// not so. Which sources these are no list says: a new one that is compared with them belongs here.
    pub const VOLUMES: Self =
        Self::of(&[Source::Mounts, Source::BlockDevices, Source::NvmeControllers, Source::Filesystems]);
    /// The same of killed processes.
    pub const KILLS: Self =
        Self::of(&[Source::Cgroups, Source::VmStat, Source::MemInfo, Source::HungTaskCount, Source::KernelLog]);

    /// This source alone.
    #[must_use]
    pub const fn one(source: Source) -> Self {
        let mut set = Self::NONE;
        // In bounds: a test holds that there are no more sources than ROOM, and the compiler evaluates this in constants.
        #[expect(clippy::indexing_slicing, reason = "checked above")]
        {
            set.0[source as usize / 64] = 1 << (source as usize % 64);
        }
        set
    }

    /// These sources.
    #[must_use]
    pub const fn of(sources: &[Source]) -> Self {
        let mut set = Self::NONE;
        let mut rest = sources;
        while let [first, tail @ ..] = rest {
            set = set.with(Self::one(*first));
            rest = tail;
        }
        set
    }

    /// Every source of the host that is read by the clock.
    #[must_use]
    pub fn periodic() -> Self {
        Source::ALL.iter().copied().filter(|s| s.provider() == Provider::Host && !s.every().is_zero()).collect()
    }

    /// Every source that this provider has.
    #[must_use]
    pub fn of_provider(provider: Provider) -> Self {
        Source::ALL.iter().copied().filter(|s| s.provider() == provider).collect()
    }

    /// Whether this source is in it.
    #[must_use]
    pub const fn has(self, source: Source) -> bool {
        self.meets(Self::one(source))
    }

    /// Whether they have a source in common.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        a & e != 0 || b & f != 0 || c & g != 0 || d & h != 0
    }

    /// Those of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        Self([a | e, b | f, c | g, d | h])
    }

    /// Those that are in each of them.
    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        self.without(self.without(other))
    }

    /// Those that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        Self([a & !e, b & !f, c & !g, d & !h])
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        !self.meets(self)
    }

    /// In the order of the list.
    pub fn iter(self) -> impl Iterator<Item = Source> {
        Source::ALL.iter().copied().filter(move |s| self.has(*s))
    }
}

impl FromIterator<Source> for SourceSet {
    fn from_iter<I: IntoIterator<Item = Source>>(sources: I) -> Self {
        sources.into_iter().fold(Self::NONE, |set, source| set.with(Self::one(source)))
    }
}

impl fmt::Debug for SourceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Source::name)).finish()
    }
}

/// What a detector wants to know before it accuses, because it costs too much to know always.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lookup {
    /// Which other mount namespaces hold this device mounted.
    MountHolders(DevId),
    /// What deleted files that are open hold of the filesystem of this device.
    DeletedFiles(DevId),
    /// The pods' groups, now and not in half a minute.
    PodCgroups,
    /// What the task of this number does.
    Task(u32),
    /// Which pods have connections to the metadata service and the like.
    Talkers,
    /// What the VPC CNI made for pods with branch ENIs.
    BranchLinks,
    /// Which addresses of pods the VPC CNI has.
    PodAddresses,
    /// The VolumeAttachment of this name.
    VolumeAttachment(String),
    /// The PersistentVolume of this name.
    PersistentVolume(String),
    /// The StorageClass of this name.
    StorageClass(String),
    /// The VolumeAttributesClass of this name.
    AttributesClass(String),
    /// The pod of this namespace and name, which this node no longer has: is it elsewhere, and does it wait?
    FormerPod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The Lease of this node by its name: when did the kubelet renew it?
    NodeLease(String),
    /// Our own CSINode, now and not in an hour.
    CsiNode,
    /// Our own CNINode, now and not in an hour.
    CniNode,
    /// What EC2 says is attached to this instance.
    Ec2Attached,
    /// What EC2 says of this volume, wherever it is attached.
    Ec2Volume(VolumeId),
    /// Which branch ENIs EC2 has of this instance: one answer, and a later one that may confirm it.
    Ec2Interfaces {
        /// How long after the first answer the second one is to come, in seconds.
        apart_seconds: u64,
    },
    /// How many addresses EC2 has left in the subnets of this instance's VPC and availability zone.
    Ec2Subnets,
}

// A question has its own words: which source answers it, and by which name, no list of sources can say.
impl Lookup {
    /// The namespace and name of the API server's object that is asked for; none of what others answer.
    #[must_use]
    pub fn object(&self) -> Option<(Option<&str>, &str)> {
        match self {
            Self::VolumeAttachment(name)
            | Self::PersistentVolume(name)
            | Self::StorageClass(name)
            | Self::AttributesClass(name)
            | Self::NodeLease(name) => Some((None, name)),
            Self::FormerPod { namespace, name } => Some((Some(namespace), name)),
            Self::MountHolders(_)
            | Self::DeletedFiles(_)
            | Self::PodCgroups
            | Self::Task(_)
            | Self::Talkers
            | Self::BranchLinks
            | Self::PodAddresses
            | Self::CsiNode
            | Self::CniNode
            | Self::Ec2Attached
            | Self::Ec2Volume(_)
            | Self::Ec2Interfaces { .. }
            | Self::Ec2Subnets => None,
        }
    }

    /// The source that answers.
    #[must_use]
    pub fn source(&self) -> Source {
        match self {
            Self::MountHolders(_) => Source::MountHolders,
            Self::DeletedFiles(_) => Source::DeletedFiles,
            Self::PodCgroups => Source::PodCgroups,
            Self::Task(_) => Source::Tasks,
            Self::Talkers => Source::Talkers,
            Self::BranchLinks => Source::BranchLinks,
            Self::PodAddresses => Source::PodAddresses,
            Self::VolumeAttachment(_) => Source::VolumeAttachments,
            Self::PersistentVolume(_) => Source::PersistentVolumes,
            Self::StorageClass(_) => Source::StorageClasses,
            Self::AttributesClass(_) => Source::AttributesClasses,
            Self::FormerPod { .. } => Source::FormerPods,
            Self::NodeLease(_) => Source::NodeLeases,
            Self::CsiNode => Source::CsiNode,
            Self::CniNode => Source::CniNode,
            Self::Ec2Attached => Source::Ec2Attached,
            Self::Ec2Volume(_) => Source::Ec2Volumes,
            Self::Ec2Interfaces { .. } => Source::Ec2Interfaces,
            Self::Ec2Subnets => Source::Ec2Subnets,
        }
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MountHolders(dev) => write!(f, "which other mount namespaces have device {dev}"),
            Self::DeletedFiles(dev) => write!(f, "which processes have deleted files of device {dev} open"),
            Self::PodCgroups => f.write_str("the pods' control groups"),
            Self::Talkers => f.write_str("connections to the metadata service, by pod"),
            Self::BranchLinks => f.write_str("links, rules and routes of pods with branch ENIs"),
            Self::PodAddresses => f.write_str("the addresses of pods that the VPC CNI has"),
            Self::Task(pid) => write!(f, "what task {pid} does"),
            Self::VolumeAttachment(name) => write!(f, "VolumeAttachment {name}"),
            Self::PersistentVolume(name) => write!(f, "PersistentVolume {name}"),
            Self::StorageClass(name) => write!(f, "StorageClass {name}"),
            Self::AttributesClass(name) => write!(f, "VolumeAttributesClass {name}"),
            Self::FormerPod { namespace, name } => write!(f, "pod {namespace}/{name}"),
            Self::NodeLease(name) => write!(f, "Lease {name}"),
            Self::CsiNode => f.write_str("the CSINode of this node"),
            Self::CniNode => f.write_str("the CNINode of this node"),
            Self::Ec2Attached => f.write_str("EC2: what is attached to this instance"),
            Self::Ec2Volume(volume) => write!(f, "EC2: volume {}", volume.as_str()),
            Self::Ec2Interfaces { .. } => f.write_str("EC2: branch ENIs of this instance"),
            Self::Ec2Subnets => f.write_str("EC2: subnets that this instance has addresses from"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set = SourceSet::of(&[Source::Mounts, Source::BootHistory]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Source::Mounts, Source::BootHistory]);
        assert!(set.meets(SourceSet::of(&[Source::Mounts])));
        assert!(!set.meets(SourceSet::of(&[Source::Clock])));
        assert!(Source::ALL.len() <= SourceSet::ROOM);
        assert!(set.without(set).is_empty() && !set.is_empty());
    }

    #[test]
    fn what_is_asked_for_is_not_read_by_the_clock() {
        assert!(!SourceSet::periodic().has(Source::MountHolders));
        assert!(SourceSet::periodic().has(Source::Mounts));
    }
}
