//! The instance itself.

pub mod clock;
pub mod reboots;
pub mod steal;
