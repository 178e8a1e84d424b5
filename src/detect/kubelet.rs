//! What makes the kubelet evict, and what makes the node slow.

pub mod eviction_threshold;
pub mod memory_stall;
mod names;
pub mod oom_kill;
pub mod pids;
pub mod saturation;
pub mod signals;
pub mod system_pod_starved;
