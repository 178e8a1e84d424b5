//! Which values may be read in part.

use super::{
    AgentConfigMap, AgentDaemonSet, Answers, Boot, BootHistory, Cgroups, ClockState, CniNode, Conntrack, CpuTimes,
    CsiNode, DiskUsage, Ec2Attached, ElasticInterfaces, Imds, ImdsCredentials, ImdsInstance, ImdsNotices, Inventory,
    KernelLog, KubeletConfig, KubeletConfigz, KubeletDirs, Limits, LoadAvg, MemInfo, Neighbors, Node, PodIdentityAgent,
    Pressure, Unknown, VmStat, VolumeSweep, VpcCniConfig,
};

/// A value of a source: each type says whether a part of it can be missing, so that a new list cannot be taken for whole by default.
pub trait Partial {
    /// What could not be read, if anything: what is not in it may be there.
    fn incomplete(&self) -> Option<&Unknown>;
}

impl<K: Ord, V> Partial for Inventory<K, V> {
    fn incomplete(&self) -> Option<&Unknown> {
        Inventory::incomplete(self)
    }
}

impl Partial for KubeletDirs {
    fn incomplete(&self) -> Option<&Unknown> {
        self.pods.incomplete().or(self.staging.incomplete())
    }
}

impl Partial for Ec2Attached {
    fn incomplete(&self) -> Option<&Unknown> {
        self.volumes.incomplete()
    }
}

impl Partial for VolumeSweep {
    fn incomplete(&self) -> Option<&Unknown> {
        self.volumes.incomplete()
    }
}

/// Each answer is known or unknown by itself, and a name that was not asked for is not in it.
impl<T> Partial for Answers<T> {
    fn incomplete(&self) -> Option<&Unknown> {
        None
    }
}

impl Partial for KernelLog {
    fn incomplete(&self) -> Option<&Unknown> {
        self.incomplete.as_ref()
    }
}

/// Read as a whole or not at all.
macro_rules! whole {
    ($($type:ty),* $(,)?) => {
        $(impl Partial for $type {
            fn incomplete(&self) -> Option<&Unknown> {
                None
            }
        })*
    };
}
whole!(
    AgentConfigMap,
    AgentDaemonSet,
    Boot,
    BootHistory,
    Cgroups,
    ClockState,
    CniNode,
    Conntrack,
    CpuTimes,
    CsiNode,
    DiskUsage,
    ElasticInterfaces,
    Imds,
    ImdsCredentials,
    ImdsInstance,
    ImdsNotices,
    KubeletConfig,
    KubeletConfigz,
    Limits,
    LoadAvg,
    MemInfo,
    Neighbors,
    Node,
    PodIdentityAgent,
    Pressure,
    VmStat,
    VpcCniConfig,
);
