//! The kernel: its boots, its clock, its limits, its log.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BootId, DevId, DeviceName, Inventory, Part, Unknown};

/// Bits of `/proc/sys/kernel/tainted` that mean trouble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Taint(pub u64);

impl Taint {
    /// A bit of it.
    #[must_use]
    pub fn has(self, bit: TaintBit) -> bool {
        self.0 >> bit as u32 & 1 == 1
    }

    /// What the set bits mean, for people: only those that are trouble.
    pub fn troubles(self) -> impl Iterator<Item = &'static str> {
        const BITS: [(u32, &str); 5] = [
            (4, "a machine check (hardware error)"),
            (5, "a bad page"),
            (7, "an oops or BUG"),
            (9, "a warning"),
            (14, "a soft lockup"),
        ];
        BITS.into_iter().filter(move |(bit, _)| self.0 >> bit & 1 == 1).map(|(_, text)| text)
    }
}

/// Bits that show a fault of the kernel or of the machine, by their number. The kernel never clears them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaintBit {
    /// `M`: a machine check.
    MachineCheck = 4,
    /// `B`: a page in a bad state.
    BadPage = 5,
    /// `D`: an oops or BUG.
    Died = 7,
    /// `L`: a soft lockup.
    SoftLockup = 14,
}

/// What this boot is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// `/proc/sys/kernel/random/boot_id`.
    pub id: BootId,
    /// `/proc/sys/kernel/osrelease`.
    pub kernel: String,
    /// `/proc/sys/kernel/hostname`: the node's name for people until the cluster's is known.
    pub hostname: String,
    /// `/proc/sys/kernel/tainted`.
    pub taint: Part<Taint>,
}

/// One boot, as an agent that ran in it wrote it down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootRecord {
    /// Its id.
    pub id: BootId,
    /// When an agent first looked in this boot.
    pub first_seen: Timestamp,
    /// When it began, by the time since boot at that first look; absent in records of older agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Timestamp>,
    /// When an agent last looked in this boot.
    pub last_seen: Timestamp,
    /// When the last agent of this boot received a signal to stop; absent where it never did, as in a crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Timestamp>,
    /// Taint bits when last seen.
    #[serde(default)]
    pub taint: Taint,
    /// Pods that were on the node when last seen, as `namespace/name`, without those that each node has or that are its own; absent
    /// where they were not known.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub pods: Part<BTreeSet<String>>,
}

impl BootRecord {
    /// When it began, as far as that is known: a machine may have been up for long before an agent first looked.
    #[must_use]
    pub fn began(&self) -> Timestamp {
        self.began.unwrap_or(self.first_seen)
    }
}

/// The boots of this node that agents lived through, oldest first, this one last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootHistory {
    /// At most 32.
    pub boots: Vec<BootRecord>,
    /// Boots that are missing from the list; absent where no agent had a reason to miss one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<MissedBoots>,
}

/// Boots that are not in the history: its file was lost, or no agent ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedBoots {
    /// Boots that began before this time may be missing.
    pub before: Timestamp,
    /// Why they are.
    pub why: Unknown,
}

impl BootHistory {
    /// Why boots that began at this time or later may be missing, if so.
    #[must_use]
    pub fn missed_since(&self, time: Timestamp) -> Option<&MissedBoots> {
        self.missed.as_ref().filter(|missed| missed.before > time)
    }
}

/// `adjtimex(2)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockState {
    /// STA_UNSYNC is clear.
    #[serde(alias = "synchronised")]
    pub synchronized: bool,
    /// The kernel's bound on the error, in microseconds; grows by 500 ppm while no time source disciplines the clock.
    pub max_error_us: u64,
    /// Estimated error in microseconds.
    pub estimated_error_us: u64,
}

/// How many tasks the kernel found blocked since boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HungTaskCount {
    /// `/proc/sys/kernel/hung_task_detect_count`; absent before Linux 6.13.
    pub detected: Part<u64>,
}

/// What a task does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// There is none of this number.
    Gone,
    /// It waits in the kernel and takes no signal (state D).
    Blocked {
        /// Its name.
        command: String,
        /// The kernel's function that it waits in, where that may be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waits_in: Option<String>,
    },
    /// It is in another state.
    Other {
        /// Its name.
        command: String,
    },
}

/// The tasks that were asked about, by their number in the host's pid namespace.
pub type Tasks = Inventory<u32, TaskState>;

/// Limits of the whole machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// `/proc/sys/kernel/pid_max`; absent in a container, which sees only its own (from 6.14 on).
    pub pid_max: Part<u64>,
    /// `/proc/sys/kernel/threads-max`.
    pub threads_max: Part<u64>,
    /// Open file descriptions, from `/proc/sys/fs/file-nr`.
    pub files: Part<u64>,
    /// Their limit; absent where it is none in practice (2^63 and the like).
    pub files_max: Part<u64>,
    /// `/proc/sys/vm/min_free_kbytes`, in bytes: what the kernel keeps free.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub min_free: Part<u64>,
    /// Whether the kernel writes of blocked tasks to its log; absent in recordings of older versions and in copies of a machine
    /// without the files.
    #[serde(default, skip_serializing_if = "Part::is_absent")]
    pub hung_task_reports: Part<HungTaskReports>,
}

/// Whether the kernel reports tasks that are blocked for minutes, by `/proc/sys/kernel/hung_task_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HungTaskReports {
    /// It does.
    On,
    /// `hung_task_warnings` is 0: it has written as many reports as it may in one boot (10 unless set).
    Spent,
    /// `hung_task_timeout_secs` is 0, or the kernel is built without.
    Off,
}

impl Limits {
    /// What of it could not be read, the first of it.
    #[must_use]
    pub fn unread(&self) -> Option<&Unknown> {
        [&self.files, &self.pid_max, &self.threads_max].into_iter().find_map(Part::unread)
    }
}

/// Why a task may use these memory nodes alone, as the kernel lists them (`0-1,3`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryNodes {
    /// Its cpuset allows no others.
    Cpuset(String),
    /// Its memory policy allows no others.
    Policy(String),
}

/// A kernel message that some detector reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum KernelEvent {
    /// `oom-kill:constraint=…`: the OOM killer chose a victim.
    OomKill {
        /// The group whose limit was hit; absent when the machine itself ran out.
        limit: Option<String>,
        /// The victim's group.
        victim: String,
        /// The victim's command name.
        command: String,
        /// The victim's process id in the host's namespace.
        pid: u32,
        /// The memory nodes that ran out, where it may use no others.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nodes: Option<MemoryNodes>,
        /// The limit that was reached, in bytes, where the kernel wrote it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit_bytes: Option<u64>,
    },
    /// `…ut of memory: Killed process N (X) …` of a process that no `oom-kill:` line names: the kernel limits the rate of those.
    OomKilled {
        /// The victim's command name.
        command: String,
        /// The victim's process id in the host's namespace.
        pid: u32,
        /// Whether a group's limit was reached; else the machine ran out.
        in_group: bool,
        /// The victim's group, where that is killed as a whole.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    /// `EXT4-fs error (device X): …`
    Ext4Error {
        /// Device.
        device: DeviceName,
    },
    /// `EXT4-fs (X): Delayed block allocation failed for inode …` or `EXT4-fs (X): failed to convert unwritten extents to written extents …`:
    /// data that was written has no place on the disk, or is not recorded there, and is lost.
    Ext4DataLost {
        /// Device.
        device: DeviceName,
    },
    /// `device-mapper: verity: M:N: data block … is corrupted`: what was read does not match its hash.
    VerityCorruption {
        /// The device that was read, on which device mapper's stands.
        device: DevId,
    },
    /// `BTRFS error (device X): …`, `BTRFS critical (device X): …` or `BTRFS: error (device X) in …`
    BtrfsError {
        /// Device.
        device: DeviceName,
    },
    /// `EXT4-fs (X): Remounting filesystem read-only` or `BTRFS info (device X): forced readonly`
    RemountedReadOnly {
        /// Device.
        device: DeviceName,
    },
    /// `XFS (X): … Shutting down filesystem`
    XfsShutdown {
        /// Device.
        device: DeviceName,
    },
    /// `XFS (X): Mounting V5 Filesystem` or `Unmounting Filesystem`: whatever was before is over.
    XfsMountChanged {
        /// Device.
        device: DeviceName,
    },
    /// `XFS (X): Filesystem has duplicate UUID … - can't mount` and the like: why a filesystem was not mounted.
    MountRefused {
        /// Device.
        device: DeviceName,
        /// The kernel's text, cut.
        why: String,
    },
    /// `I/O error, dev X, sector N op …` (with or without `blk_update_request:` before it)
    IoError {
        /// Device.
        device: DeviceName,
        /// `READ`, `WRITE`, `FLUSH`, …; empty where the kernel does not say.
        operation: String,
    },
    /// `nvme nvmeN: pci function …` or `blkfront: xvdX: …`: a disk came under this name, which was another one's before.
    DiskFound {
        /// Controller of NVMe, or disk.
        name: DeviceName,
    },
    /// `nvme nvmeN: I/O … timeout, …`
    NvmeTimeout {
        /// Controller.
        controller: DeviceName,
    },
    /// `nvme nvmeN: Device not ready; aborting initialisation, …` and the like: the controller came, and the driver does not use it.
    NvmeGivenUp {
        /// Controller.
        controller: DeviceName,
        /// The kernel's text, cut.
        why: String,
    },
    /// `INFO: task X:N blocked for more than S seconds.`
    HungTask {
        /// Command name.
        command: String,
        /// Process id in the host's namespace.
        pid: u32,
    },
    /// `XFS: X(N) possible memory allocation deadlock size S in …`, which it writes each few seconds while it waits (up to 6.8).
    XfsWaitsForMemory {
        /// Command name.
        command: String,
        /// Process id in the host's namespace.
        pid: u32,
        /// Bytes that it needs in one piece.
        bytes: u64,
    },
    /// `watchdog: BUG: soft lockup - CPU#N stuck for Ns! [X:N]`
    SoftLockup {
        /// The CPU.
        cpu: u32,
        /// For how long, in seconds.
        seconds: u64,
        /// Command name of what ran there.
        command: String,
        /// Its process id in the host's namespace.
        pid: u32,
    },
    /// `watchdog: Watchdog detected hard LOCKUP on cpu N`
    HardLockup {
        /// The CPU.
        cpu: u32,
    },
    /// `BUG: workqueue lockup - pool cpus=N … stuck for Ns!`
    WorkqueueLockup {
        /// For how long none of its work was done, in seconds.
        seconds: u64,
    },
    /// `rcu: INFO: rcu_sched self-detected stall on CPU` or `… detected stalls on CPUs/tasks:`
    RcuStall,
    /// `BUG: …`, `kernel BUG at …`, `Oops: …`, `general protection fault…`, `mce: [Hardware Error]: …`
    Fault {
        /// The kernel's text, cut.
        text: String,
    },
    /// `nfs: server X not responding, …` or `nfs: server X OK`
    NfsServer {
        /// The server as it was given to mount.
        server: String,
        /// Whether it answers again.
        answers: bool,
    },
    /// `XFS (X): Corruption detected. …` and the like, which do not end in a shutdown by themselves.
    XfsCorruption {
        /// Device.
        device: DeviceName,
    },
}

/// How the kernel begins to report a fault of its own, or of the machine (4.14 to 6.18, x86 and arm64), and the flag that it sets
/// with it: none of a corrected error.
const FAULTS: [(&str, Option<TaintBit>); 15] = [
    ("BUG: kernel NULL pointer dereference", Some(TaintBit::Died)),
    ("BUG: unable to handle ", Some(TaintBit::Died)),
    ("kernel BUG at ", Some(TaintBit::Died)),
    ("Oops: ", Some(TaintBit::Died)),
    ("Internal error: ", Some(TaintBit::Died)),
    ("general protection fault", Some(TaintBit::Died)),
    ("Unable to handle kernel ", Some(TaintBit::Died)),
    ("BUG: Bad page ", Some(TaintBit::BadPage)),
    ("BUG: KFENCE: ", Some(TaintBit::BadPage)),
    ("BUG: KASAN: ", Some(TaintBit::BadPage)),
    ("BUG: Bad rss-counter state", None),
    ("mce: [Hardware Error]: Machine check events logged", None),
    ("mce: [Hardware Error]: ", Some(TaintBit::MachineCheck)),
    ("mce: Uncorrected hardware memory error", Some(TaintBit::MachineCheck)),
    ("Memory failure: 0x", None),
];

/// Whether a line of the kernel's log reports a fault, and which flag the kernel sets with it.
#[must_use]
pub fn fault_flag(line: &str) -> Option<Option<TaintBit>> {
    let listed = FAULTS.iter().find(|(begin, _)| line.starts_with(begin)).map(|(_, flag)| *flag);
    let died = || is_die(line).then_some(Some(TaintBit::Died));
    let slab = || is_slab(line).then_some(Some(TaintBit::BadPage));
    listed.or_else(died).or_else(slab)
}

/// `divide error: 0000 [#1] SMP PTI`: how x86 up to 6.9 reports any exception that kills the kernel's task.
fn is_die(line: &str) -> bool {
    let Some((what, rest)) = line.split_once(": ") else { return false };
    let Some((code, rest)) = rest.split_once(" [#") else { return false };
    let count = rest.split(']').next().unwrap_or_default();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == ' ' || c == '-';
    what.chars().all(is_word)
        && code.len() == 4
        && code.bytes().all(|b| b.is_ascii_hexdigit())
        && count.parse::<u32>().is_ok()
}

/// `BUG kmalloc-64 (Not tainted): Poison overwritten`: the allocator found memory that was overwritten.
fn is_slab(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("BUG ") else { return false };
    let Some((cache, state)) = rest.split_once(" (") else { return false };
    !cache.contains(' ') && (state.starts_with("Not tainted)") || state.starts_with("Tainted: "))
}

/// One message with its header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelRecord {
    /// The log's sequence number.
    pub seq: u64,
    /// Time since boot by printk's clock.
    pub up: Duration,
    /// What it says.
    pub event: KernelEvent,
}

/// The latest messages that some detector reads, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelLog {
    /// At most 256 of this boot.
    pub records: Arc<[KernelRecord]>,
    /// Records of any kind that could not be read: at least so many.
    pub lost: u64,
    /// How many were lost and when: what they reported may go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Unknown>,
    /// The same while the last loss is not older than [`INCOMPLETE_FOR`]: what is over in a moment may be among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<Unknown>,
}

/// For so long after a loss the log does not show that something did not happen.
pub const INCOMPLETE_FOR: Duration = Duration::from_secs(900);

super::partial::read_whole!(Boot, BootHistory, ClockState, HungTaskCount);
super::partial::entries_read_whole!(TaskState);

impl super::Partial for Limits {
    fn incomplete(&self) -> Option<&Unknown> {
        None
    }

    fn unread(&self) -> Option<&Unknown> {
        self.unread()
    }
}

impl super::Partial for KernelLog {
    fn incomplete(&self) -> Option<&Unknown> {
        self.incomplete.as_ref()
    }
}
