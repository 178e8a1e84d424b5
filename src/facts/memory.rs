//! Memory and pressure. All sizes in bytes.

use serde::{Deserialize, Serialize};

use super::{Part, Unknown};

/// `/proc/meminfo`, the fields that detectors read, in bytes (the kernel's kB are KiB).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemInfo {
    /// MemTotal: what the kubelet calls capacity.
    pub total: u64,
    /// MemFree.
    pub free: u64,
    /// MemAvailable: the kernel's own guess of what can be had without swapping; absent before 3.14.
    pub available: Option<u64>,
    /// SwapTotal.
    pub swap_total: u64,
    /// SwapFree.
    pub swap_free: u64,
    /// What memory is used for; absent where a line of it is.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub used_for: Part<MemoryUse>,
    /// Hugetlb: huge pages of all sizes, used or not; absent where the kernel has none.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub huge_pages: Part<u64>,
    /// What compressed swap takes of memory: `mm_stat` of `/sys/block/zram*`; absent where there is no such swap.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub zram: Part<u64>,
    /// What the cache of ZFS (its ARC, `/proc/spl/kstat/zfs/arcstats`) can give back: `size` without `c_min`. `/proc/meminfo` has it in no
    /// line; absent where ZFS is not loaded.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub arc: Part<u64>,
    /// HardwareCorrupted: memory that the kernel has taken out of use since the boot, as its hardware is defective; absent where the
    /// kernel is built without.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub corrupted: Part<u64>,
}

/// Lines of `/proc/meminfo`, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Buffers.
    pub buffers: u64,
    /// Cached, which Shmem is a part of.
    pub cached: u64,
    /// AnonPages.
    pub anon: u64,
    /// Shmem: tmpfs and shared memory, which only swap can take out of memory.
    pub shmem: u64,
    /// SReclaimable.
    pub slab_reclaimable: u64,
}

impl MemoryUse {
    /// What the kernel gives back when memory runs short: page cache and reclaimable slab.
    #[must_use]
    pub fn reclaimable(&self) -> u64 {
        self.buffers.saturating_add(self.cached.saturating_sub(self.shmem)).saturating_add(self.slab_reclaimable)
    }
}

/// `/proc/vmstat`, the counters that detectors read. Each is absent where the kernel has none of that name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStat {
    /// Processes killed by the OOM killer since boot, at any level (4.13 and later).
    pub oom_kill: Option<u64>,
    /// Pages scanned by processes that had to reclaim for themselves.
    pub pgscan_direct: Option<u64>,
    /// Page faults that had to read from disk.
    pub pgmajfault: Option<u64>,
}

/// One line of a PSI file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    /// Share of the last 10 s in percent, a decaying average.
    pub avg10: f32,
    /// Share of the last 60 s in percent.
    pub avg60: f32,
    /// Share of the last 300 s in percent.
    pub avg300: f32,
    /// Stalled time in all, in microseconds.
    pub total_us: u64,
}

/// One PSI file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PressureFile {
    /// Time in which some task waited.
    pub some: Stall,
    /// Time in which every task waited; absent for cpu before 5.13.
    pub full: Option<Stall>,
}

/// `/proc/pressure/{cpu,memory,io}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// Waiting for a CPU. Throttling of limited containers counts here too.
    pub cpu: Part<PressureFile>,
    /// Waiting for memory (reclaim, refault, swap-in).
    pub memory: Part<PressureFile>,
    /// Waiting for block I/O.
    pub io: Part<PressureFile>,
}

super::partial::read_whole!(MemInfo, VmStat);

impl super::Partial for Pressure {
    fn incomplete(&self) -> Option<&Unknown> {
        None
    }

    fn unread(&self) -> Option<&Unknown> {
        [&self.cpu, &self.memory, &self.io].into_iter().find_map(Part::unread)
    }
}
