//! The instance itself.

pub mod clock;
pub mod cpu_lockup;
pub mod hung_task;
pub mod kernel_fault;
pub mod reboots;
pub mod steal;
