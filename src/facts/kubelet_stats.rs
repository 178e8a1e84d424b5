//! What the kubelet measures of each pod, by its own answer to `GET /stats/summary`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Inventory, Part, PodUid};

/// Pods with a running container, by the UID that the node calls them by: the kubelet has no figures of others.
pub type KubeletStats = Inventory<PodUid, PodStats>;

/// Room on a filesystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskAmount {
    /// `usedBytes`
    pub bytes: u64,
    /// `inodesUsed`; absent where the runtime does not count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
}

/// What the kubelet measures of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerStats {
    /// Its writable layer (`rootfs`).
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub layer: Part<DiskAmount>,
    /// Its logs (`logs`).
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub logs: Part<DiskAmount>,
}

/// What the kubelet measures of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodStats {
    /// Logs, writable layers and volumes on the node's own disk together (`ephemeral-storage`).
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub storage: Part<DiskAmount>,
    /// Its processes, not threads (`process_stats.process_count`).
    #[serde(skip_serializing_if = "Part::is_absent")]
    pub processes: Part<u64>,
    /// Its containers that run, by name.
    pub containers: BTreeMap<String, ContainerStats>,
    /// Bytes of its volumes that are of no claim, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, u64>,
    /// Volumes of it that are not kept, as it has too many: of which claims there may be some.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub volumes_left_out: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

super::partial::entries_read_whole!(PodStats);
