//! The collectors: they answer with observations. I/O lives here, decisions do not.

mod bounded;
pub mod clock;
pub mod cluster;
pub mod ec2;
pub mod host;
mod host_reader;
pub mod imds;
pub mod kubelet;
pub mod netlink;
mod task;
pub mod terminal;

pub use cluster::{Cluster, pod_services};
pub use ec2::Ec2;
pub use host::{Host, HostSettings};
pub use host_reader::HostReader;
pub use task::Task;
