//! The witnesses: they answer with observations. I/O lives here, judgement does not.

pub mod clock;
pub mod cluster;
pub mod ec2;
mod eyes;
pub mod host;
pub mod kubelet;
pub mod terminal;

pub use cluster::Cluster;
pub use ec2::Ec2;
pub use eyes::Eyes;
pub use host::{Host, HostSettings};
