//! Branch ENIs: network interfaces that the VPC resource controller gives to pods with security groups of their own.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Part, PodVlan};

/// The resource that a pod with a security group of its own requests, one for each branch ENI.
pub const POD_ENI: &str = "vpc.amazonaws.com/pod-eni";

/// The feature of a CNINode by which the VPC CNI asks for branch ENIs.
pub const SECURITY_GROUPS_FOR_PODS: &str = "SecurityGroupsForPods";

/// The feature of a CNINode that names an ENIConfig: the controller makes branch ENIs in the subnet of that one.
pub const CUSTOM_NETWORKING: &str = "CustomNetworking";

/// What a pod says of its network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodNetwork {
    /// Branch ENIs that its containers request together; absent where none does.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub requests: Part<u64>,
    /// Ids of the branch ENIs that its annotation names, in its order. The annotation outlives the ENIs.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub branch_enis: Part<Vec<String>>,
    /// The VLAN of the first of them.
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub vlan: Part<Box<PodVlan>>,
    /// Its condition `PodReadyToStartContainers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxCondition>,
    /// When it was bound to its node: since when its condition `PodScheduled` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<Timestamp>,
    /// When the last of its containers ended, where all have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
    /// That it has an address (`status.podIP`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_address: bool,
    /// That it uses the network of its node (`spec.hostNetwork`), and needs nothing of the CNI.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub of_host: bool,
}

impl PodNetwork {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether the kubelet has a pod's sandbox with its network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxCondition {
    /// Whether it is ready; absent where the kubelet does not know.
    pub ready: Option<bool>,
    /// Why it is not; kubelets before 1.37 leave that out.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// What a kubelet from 1.37 on says of a sandbox, where that can only be the network's trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxTrouble {
    /// It is there and has no address.
    WithoutIp,
    /// It was taken down again, as after a failure of the CNI.
    NotReady,
}

impl SandboxCondition {
    /// What its message says; a pod without any sandbox may as well wait for its volumes.
    #[must_use]
    pub fn trouble(&self) -> Option<SandboxTrouble> {
        match self.message.as_str() {
            "pod sandbox has no IP address" => Some(SandboxTrouble::WithoutIp),
            "pod sandbox is not ready" => Some(SandboxTrouble::NotReady),
            _ => None,
        }
    }
}
