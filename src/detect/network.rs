//! Network interfaces of pods, and tables of the host's network.

mod branch;
pub mod branch_eni_exhaustion;
pub mod branch_eni_held;
pub mod branch_eni_leak;
pub mod branch_link_mismatch;
pub mod conntrack;
pub mod dns_slow;
pub mod eni_allowance;
pub mod neighbors;
pub mod orphan_vlan_link;
pub mod pod_ip_exhaustion;
pub mod pod_stuck_without_ip;
mod subnets;
mod vlan;
mod waiting;
