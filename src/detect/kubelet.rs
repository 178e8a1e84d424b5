//! What makes the kubelet evict, and what makes the node slow.

pub mod agent_not_reporting;
pub mod deleted_files_held;
pub mod eviction_blind;
pub mod eviction_cannot_save;
pub mod eviction_forecast;
pub mod eviction_threshold;
pub mod filesystem_unwatched;
pub mod forecast;
pub mod in_force;
pub mod kubelet_restarted;
pub mod kubelet_slow;
pub mod memory_stall;
mod names;
pub mod oom_kill;
pub mod pids;
pub mod saturation;
pub mod signals;
pub mod storage_forecast;
pub mod system_pod_evictable;
pub mod system_pod_rejected;
pub mod system_pod_starved;
pub mod threshold_missing;
pub mod victims;
