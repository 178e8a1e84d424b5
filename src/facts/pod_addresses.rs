//! Addresses of ordinary pods, as the VPC CNI has them.

use serde::{Deserialize, Serialize};

/// The addresses that the VPC CNI's ipamd gives to pods, of the first network card: a pod has its address from that one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl PodAddresses {
    /// Those that the next pods get.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.total.saturating_sub(self.assigned).saturating_sub(self.cooling)
    }
}

super::partial::read_whole!(PodAddresses);
