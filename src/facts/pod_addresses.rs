//! Addresses of ordinary pods, as the VPC CNI has them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Part;

/// The addresses that the VPC CNI's ipamd gives to pods, of the first network card: a pod has its address from that one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PodAddresses {
    /// Addresses on all interfaces together.
    pub total: u64,
    /// Those that pods have.
    pub assigned: u64,
    /// Those that a pod gave back within the last 30 seconds: ipamd does not give them away before.
    pub cooling: u64,
    /// Interfaces that have addresses for pods.
    pub interfaces: u64,
    /// The subnets of these interfaces; absent where ipamd does not name them.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub subnets: Part<BTreeSet<String>>,
    /// The pods that have one, as `namespace/name`, where ipamd names them: kubelets up to 1.35 report an address only after the first
    /// image of the pod was pulled.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub pods: BTreeSet<String>,
}

impl PodAddresses {
    /// Those that the next pods get.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.total.saturating_sub(self.assigned).saturating_sub(self.cooling)
    }
}

super::partial::read_whole!(PodAddresses);
