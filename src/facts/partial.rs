//! Which values may be read in part.

use super::{
    AgentConfigMap, AgentDaemonSet, Answers, Boot, BootHistory, Cgroups, ClockState, CniNode, Conntrack, CpuTimes,
    CsiNode, DiskUsage, Ec2Attached, ElasticInterfaces, Inventory, KernelLog, KubeletConfig, KubeletDirs, Limits,
    LoadAvg, MemInfo, Neighbours, Node, Pressure, Unknown, VmStat, VolumeSweep, VpcCniConfig,
};

/// A value of a source: each type says whether a part of it can be missing, so that a new list cannot be taken for whole by default.
pub trait Partial {
    /// What could not be read, if anything: what is not in it may be there.
    fn gap(&self) -> Option<&Unknown>;
}

impl<K: Ord, V> Partial for Inventory<K, V> {
    fn gap(&self) -> Option<&Unknown> {
        Inventory::gap(self)
    }
}

impl Partial for KubeletDirs {
    fn gap(&self) -> Option<&Unknown> {
        self.pods.gap().or(self.staging.gap())
    }
}

impl Partial for Ec2Attached {
    fn gap(&self) -> Option<&Unknown> {
        self.volumes.gap()
    }
}

impl Partial for VolumeSweep {
    fn gap(&self) -> Option<&Unknown> {
        self.volumes.gap()
    }
}

/// Each answer is known or unknown by itself, and a name that was not asked for is not in it.
impl<T> Partial for Answers<T> {
    fn gap(&self) -> Option<&Unknown> {
        None
    }
}

/// Read as a whole or not at all.
macro_rules! whole {
    ($($type:ty),* $(,)?) => {
        $(impl Partial for $type {
            fn gap(&self) -> Option<&Unknown> {
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
    KernelLog,
    KubeletConfig,
    Limits,
    LoadAvg,
    MemInfo,
    Neighbours,
    Node,
    Pressure,
    VmStat,
    VpcCniConfig,
);
