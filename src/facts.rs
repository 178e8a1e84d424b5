//! The vocabulary: plain types that collectors fill and detectors read. No I/O, no clock, no decisions.
//!
//! Every type here can be written to a recording and shown to every user who may see the node's findings,
//! so nothing secret may enter one.

mod attachable;
mod block;
mod branch_eni;
mod branch_links;
mod burstable;
mod cgroup;
mod cluster;
mod cpu;
mod deleted_files;
mod dns;
mod ebs;
mod ec2;
mod ec2_interface;
mod ec2_subnet;
mod filesystem;
mod imds;
mod instance_type;
mod inventory;
mod kernel;
mod kubelet;
mod kubelet_metrics;
mod kubelet_stats;
mod memory;
mod mounts;
mod network;
mod node_time;
mod partial;
mod paths;
mod pod_addresses;
mod pod_cpu;
mod reading;
mod saved_logs;
mod source;
mod tri;
mod volume_path;

pub use attachable::{AttachableName, IN_TREE_EBS, attachment_name, handle_hash, is_hash_of};
pub use block::{BlockDevice, BlockDevices, DeviceName, IoStat, Mapped, NvmeController, NvmeControllers, VolumeId};
pub use branch_eni::{
    CUSTOM_NETWORKING, POD_ENI, PodNetwork, SECURITY_GROUPS_FOR_PODS, SandboxCondition, SandboxTrouble,
};
pub use branch_links::{
    BranchLinks, Link, MAIN_TABLE, MAX_VLAN, MacAddress, PodVlan, Route, RoutingRule, VLAN_TABLES, vlan_link,
    vlan_of_link, vlan_of_table,
};
pub use burstable::{Burstable, CreditBalance, CreditMode};
pub use cgroup::{
    Cgroup, CgroupDriver, CgroupLevel, CgroupVersion, Cgroups, ContainerCgroup, LimitHit, OomCounts, PidCounts,
    PodCgroup, PodCgroups, PodUid, Qos, RootMemory, ServiceCgroups, container_id_of, id_of_group, pod_of_scope,
    pod_uid_of,
};
pub use cluster::{
    AgentConfigMap, AgentDaemonSet, AgentReport, AgentReports, Answer, Answers, CONTAINER_ID, CniNode, CsiDriver,
    CsiNode, FailingContainer, FieldWriter, ForPods, KnownPod, MAX_FAILING, MAX_MUTE, MAX_SERVED, MUTE_ANNOTATION,
    NODE_LABELS, Node, NodeCondition, PersistentVolume, Pod, PodLifecycle, PodPhase, PodResources, PodServices,
    PodStorage, Pods, RestartPolicy, StartFailure, VolumeAttachment, VolumeClass, VpcCniConfig,
};
pub use cpu::{CpuTimes, LoadAvg, percent_of_ticks};
pub use deleted_files::{DeletedFiles, FilesHolder, HeldFiles, OpenFile};
pub use dns::{DnsOutcome, DnsProbes, DnsServer, DnsTarget, MAX_OUTCOMES};
pub use ebs::{
    EbsFigures, EbsStatistics, EbsType, Exceeded, LatencyBin, OperationCount, Page, StatisticsPage, VolumeStatistics,
};
pub use ec2::{
    CLUSTER_TAG, CSI_NAME_TAG, ETCD_TAG, Ec2Attached, Ec2Attachment, Ec2AttachmentState, Ec2Place, Ec2Volume,
    Ec2VolumeState, OLD_CLUSTER_TAG, PV_NAME_TAG, ROLE_TAG, VolumeSweep, names_owner, region_of,
};
pub use ec2_interface::{
    BRANCH_DESCRIPTION, CNI_DESCRIPTION, ENI_INSTANCE_TAG, Ec2Interface, Ec2Interfaces, EniUse, InterfaceSweep,
    TRUNK_DESCRIPTION, is_ec2_id, names_eni_owner,
};
pub use ec2_subnet::{CNI_ROLE_TAG, Ec2Subnet, Ec2Subnets, InstanceSubnet, names_subnet_use};
pub use filesystem::{
    DiskUsage, Filesystem, FilesystemKey, Filesystems, FsType, OtherFilesystems, XfsProbes, XfsState,
};
pub use imds::{
    AutoscalingTarget, Imds, ImdsCredentials, ImdsInstance, ImdsNotices, ImdsRequests, ImdsState, LifeCycle,
    Maintenance, RoleCredentials, SpotAction, SpotNotice, instance_type,
};
pub use instance_type::{EbsRate, InstanceType, VolumePlaces};
pub use inventory::{Absent, Inventory, NotAbsent};
pub use kernel::{
    Boot, BootHistory, BootRecord, ClockState, HungTaskCount, HungTaskReports, INCOMPLETE_FOR, KernelEvent, KernelLog,
    KernelRecord, Limits, MemoryNodes, MissedBoots, Taint, TaintBit, TaskState, Tasks, fault_flag,
};
pub use kubelet::{
    ClientLimits, ConfigOrigin, EvictionSignal, KubeletConfig, KubeletConfigz, KubeletDirs, KubeletOptions,
    KubeletVersion, MemoryReservation, PodDir, StagingDir, Threshold, ThresholdValue, Thresholds, VolumeData,
    VolumeDir, default_thresholds, leaks_memory,
};
pub use kubelet_metrics::{KubeletMetrics, NodeLease, RuntimeCalls, Timing};
pub use kubelet_stats::{ContainerStats, DiskAmount, KubeletStats, PodStats};
pub use memory::{MemInfo, MemoryUse, Pressure, PressureFile, Stall, VmStat};
pub use mounts::{DevId, HeldBy, MAX_HOLDERS, MountEntry, MountHolder, MountHolders, MountId, Mounts};
pub use network::{
    Conntrack, ElasticInterfaces, EnaAllowances, EnaStatistics, LinkLocal, NeighborTable, Neighbors, PodIdentityAgent,
    Talker, Talkers,
};
pub use node_time::{BootId, NodeTime};
pub use partial::Partial;
pub use paths::{is_at_or_below, is_below};
pub use pod_addresses::PodAddresses;
pub use pod_cpu::{CpuLimit, PodCpu, PodCpus};
pub use reading::{Cause, Component, Part, Reading, Unknown};
pub use saved_logs::{SavedLog, SavedLogs};
pub(crate) use source::for_each_source;
pub use source::{Lookup, Observation, Provider, ShownBy, Source, SourceSet, SourceType, sources};
pub use tri::{No, Tri};
pub use volume_path::VolumePath;
