//! The instance itself.

pub mod clock;
pub mod cpu_credits;
pub mod cpu_lockup;
pub mod credential_storm;
pub mod credentials;
pub mod ends;
pub mod hung_task;
pub mod imds;
pub mod kernel_fault;
pub mod pod_identity;
pub mod reboots;
pub mod steal;
