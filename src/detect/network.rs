//! Network interfaces of pods, and tables of the host's network.

mod branch;
pub mod branch_eni_exhaustion;
pub mod branch_eni_held;
pub mod branch_eni_leak;
pub mod conntrack;
pub mod eni_allowance;
pub mod neighbors;
pub mod pod_stuck_without_ip;
