//! What ext4 with its journal, XFS and btrfs write.

use super::{cut, is_built, name};
use crate::facts::{DeviceName, KernelEvent};

/// How ext4 begins to say that it does not mount (6.1 and 6.12).
const REFUSED: [&str; 15] = [
    "VFS: Can't find ext4 filesystem",
    "couldn't mount",
    "bad geometry",
    "error loading journal",
    "unable to read superblock",
    "get root inode failed",
    "group descriptors corrupted",
    "can't read group descriptor ",
    "corrupt root inode",
    "filesystem too large to mount",
    "unsupported inode size",
    "no journal found",
    "required journal recovery suppressed",
    "write access unavailable, cannot proceed",
    "Unrecognized mount option ",
];

/// `error (device X): …`, `error (device X) in …`, `(X): Remounting filesystem read-only`, `(X): Delayed block allocation failed …` and
/// `(X): failed to convert unwritten extents …`.
pub(super) fn ext4(rest: &str) -> Option<KernelEvent> {
    if let Some(rest) = rest.strip_prefix("error (device ") {
        let (device, _) = rest.split_once(')')?;
        return Some(KernelEvent::Ext4Error { device: name(device)? });
    }
    let (device, said) = rest.strip_prefix('(')?.split_once("): ")?;
    let device = name(device)?;
    if said.starts_with("Remounting filesystem read-only") {
        return Some(KernelEvent::RemountedReadOnly { device });
    }
    // "This should not happen!! Data will be lost" follows the first; from 6.18 on some kernels go on after the second with "or update inode size".
    const LOST: [&str; 2] =
        ["Delayed block allocation failed for inode ", "failed to convert unwritten extents to written extents"];
    if LOST.iter().any(|begin| said.starts_with(begin)) {
        return Some(KernelEvent::Ext4DataLost { device });
    }
    refused(device, said, &REFUSED)
}

/// `X): …`. A shutdown has had many wordings; what follows each ("Please unmount the filesystem and rectify
/// the problem(s)") is repeated by every later failure and says nothing new.
pub(super) fn xfs(rest: &str) -> Option<KernelEvent> {
    const REFUSED: [&str; 6] = [
        "Filesystem has duplicate UUID",
        "Filesystem has null UUID",
        "Invalid superblock magic number",
        "SB validate failed",
        "Superblock has unknown",
        "log mount",
    ];
    const CORRUPT: [&str; 4] = [
        "Corruption detected. Unmount and run xfs_repair",
        "Internal error ",
        "Metadata corruption detected at ",
        "Metadata CRC error detected at ",
    ];
    const SHUT_DOWN: [&str; 3] =
        ["hutting down filesystem", "has been shut down due to log error", "User initiated shutdown"];
    let (device, said) = rest.split_once("): ")?;
    let device = name(device)?;
    if said.starts_with("Mounting V") || said.starts_with("Unmounting Filesystem") {
        Some(KernelEvent::XfsMountChanged { device })
    } else if SHUT_DOWN.iter().any(|words| said.contains(words)) {
        Some(KernelEvent::XfsShutdown { device })
    } else if let Some(operation) = xfs_io_error(said).filter(|_| is_built(&device)) {
        Some(KernelEvent::IoError { device, operation: operation.to_owned() })
    } else if CORRUPT.iter().any(|begin| said.starts_with(begin)) {
        Some(KernelEvent::XfsCorruption { device })
    } else {
        refused(device, said, &REFUSED)
    }
}

/// The operation that failed, where what XFS says is that one did: `writeback error on …`, `Failing async write on buffer block …`,
/// `metadata I/O error in "FUNCTION" at daddr 0x… len N error N`, up to 4.16 `metadata I/O error: block 0x… ("FUNCTION") error N numblks N`.
fn xfs_io_error(said: &str) -> Option<&'static str> {
    /// What was read is no metadata (EBADMSG, EUCLEAN): the device served it.
    const CORRUPT: [&str; 2] = ["74", "117"];
    if ["writeback error on ", "Failing async write on buffer block "].iter().any(|begin| said.starts_with(begin)) {
        return Some("WRITE");
    }
    let rest = said.strip_prefix("metadata I/O error")?;
    let (_, rest) = rest.rsplit_once(" error ")?;
    let number = rest.split(' ').next().unwrap_or_default();
    (number.parse::<u32>().is_ok() && !CORRUPT.contains(&number)).then_some("")
}

/// `Detected IO errors while flushing file data on X-8`: the number is that of the journal's inode. A journal on a device of its own has none,
/// and the name is not that of the disk that failed.
pub(super) fn not_flushed(rest: &str) -> Option<KernelEvent> {
    let journal = rest.strip_prefix("Detected IO errors while flushing file data on ")?;
    let (device, inode) = journal.trim_end().rsplit_once('-')?;
    // The number of dm-0 is part of its name.
    let is_inside = device != "dm" && !inode.is_empty() && inode.bytes().all(|byte| byte.is_ascii_digit());
    let device = name(&device.replace('!', "/")).filter(|_| is_inside)?;
    Some(KernelEvent::IoError { device, operation: "WRITE".to_owned() })
}

/// `COMM(PID) possible memory allocation deadlock size N in FUNCTION (mode:0x250)`
pub(super) fn xfs_waits_for_memory(rest: &str) -> Option<KernelEvent> {
    // From the end: a command may hold these words.
    let (task, rest) = rest.rsplit_once(") possible memory allocation deadlock size ")?;
    let (command, pid) = task.rsplit_once('(')?;
    let (bytes, _) = rest.split_once(" in ")?;
    let (pid, bytes) = (pid.parse().ok()?, bytes.parse().ok()?);
    Some(KernelEvent::XfsWaitsForMemory { command: command.to_owned(), pid, bytes })
}

/// ` error (device X): …`, `: error (device X) in …`, ` info (device X: state EA): forced readonly`. From 5.18 on letters for the state
/// of the filesystem follow the name, in some versions without the colon.
pub(super) fn btrfs(rest: &str) -> Option<KernelEvent> {
    const REFUSED: [&str; 3] = ["open_ctree failed", "failed to read ", "superblock "];
    const DUPLICATE: &str = "duplicate device ";
    let rest = rest.trim_start_matches(": ").trim_start();
    // Another filesystem of the same id is mounted: it names no filesystem, and the device that was refused.
    if let Some(said) = rest.strip_prefix("warning: ").filter(|said| said.starts_with(DUPLICATE)) {
        let device = said.strip_prefix(DUPLICATE)?.strip_prefix("/dev/")?.split(' ').next()?;
        return Some(KernelEvent::MountRefused { device: name(device)?, why: cut(said) });
    }
    let (level, rest) = rest.split_once(" (device ")?;
    let (device, said) = rest.split_once(')')?;
    let device = device.split_once(" state ").map_or(device, |(device, _)| device);
    let device = name(device.strip_suffix(':').unwrap_or(device))?;
    let said = said.strip_prefix(": ").unwrap_or(said);
    match level {
        "info" if said.starts_with("forced readonly") => Some(KernelEvent::RemountedReadOnly { device }),
        "error" | "critical" => refused(device.clone(), said, &REFUSED).or(Some(KernelEvent::BtrfsError { device })),
        _ => None,
    }
}

/// Why a filesystem is not mounted, by how the kernel begins to say it.
fn refused(device: DeviceName, said: &str, begins: &[&str]) -> Option<KernelEvent> {
    let is_one = begins.iter().any(|begin| said.starts_with(begin));
    is_one.then(|| KernelEvent::MountRefused { device, why: cut(said) })
}

#[cfg(test)]
mod tests {
    use super::super::recognize;
    use super::*;

    fn device(name: &str) -> String {
        name.to_owned()
    }

    #[test]
    fn what_btrfs_reports_names_its_device() {
        let error = |name: &str| Some(KernelEvent::BtrfsError { device: device(name) });
        for (line, event) in [
            (
                "BTRFS: error (device nvme2n1) in __btrfs_update_delayed_inode:1075: errno=-5 IO failure",
                error("nvme2n1"),
            ),
            (
                "BTRFS: error (device dm-0 state A) in btrfs_run_delayed_refs:2150: errno=-28 No space left",
                error("dm-0"),
            ),
            (
                "BTRFS error (device nvme1n1): bdev /dev/nvme1n1 errs: wr 1, rd 0, flush 0, corrupt 0, gen 0",
                error("nvme1n1"),
            ),
            ("BTRFS critical (device sdb1 state EA): corrupt leaf: root=5 block=30408704 slot=0", error("sdb1")),
            (
                "BTRFS info (device dm-0 state EA): forced readonly",
                Some(KernelEvent::RemountedReadOnly { device: device("dm-0") }),
            ),
            (
                "BTRFS error (device nvme1n1): open_ctree failed: -22",
                Some(KernelEvent::MountRefused { device: device("nvme1n1"), why: "open_ctree failed: -22".to_owned() }),
            ),
            (
                "BTRFS warning: duplicate device /dev/nvme2n1 devid 1 generation 8 scanned by mount (4711)",
                Some(KernelEvent::MountRefused {
                    device: device("nvme2n1"),
                    why: "duplicate device /dev/nvme2n1 devid 1 generation 8 scanned by mount (4711)".to_owned(),
                }),
            ),
            ("BTRFS warning: duplicate device ", None),
            ("BTRFS info (device nvme1n1): using crc32c (crc32c-intel) checksum algorithm", None),
            ("BTRFS warning (device nvme1n1): Skipping commit of aborted transaction.", None),
            ("BTRFS: Transaction aborted (error -28)", None),
        ] {
            assert_eq!(recognize(line), event, "{line}");
        }
    }

    #[test]
    fn ext4_errors_name_their_device() {
        let error = Some(KernelEvent::Ext4Error { device: device("nvme1n1") });
        let text =
            "EXT4-fs error (device nvme1n1): ext4_find_entry:1455: inode #2: comm ls: reading directory lblock 0";
        assert_eq!(recognize(text), error);
        assert_eq!(recognize("EXT4-fs error (device nvme1n1) in ext4_setattr:5900: Journal has aborted"), error);
        let text = "EXT4-fs (dm-0): Remounting filesystem read-only";
        assert_eq!(recognize(text), Some(KernelEvent::RemountedReadOnly { device: device("dm-0") }));
        assert_eq!(recognize("EXT4-fs (vda): mounted filesystem 00 r/w without journal. Quota mode: none."), None);
        assert_eq!(recognize("EXT4-fs warning (device vda): x: Remounting filesystem read-only"), None);
    }

    #[test]
    fn an_xfs_shutdown_has_many_wordings() {
        for said in [
            "Log I/O Error (0x2) detected at xlog_ioend_work+0x6e/0x70 [xfs] (fs/xfs/xfs_log.c:1378).  Shutting down filesystem.",
            "Corruption of in-memory data detected.  Shutting down filesystem",
            "log I/O error -5, shutting down filesystem",
            "I/O Error Detected. Shutting down filesystem",
            "Filesystem has been shut down due to log error (0x2).",
            "User initiated shutdown received. Shutting down filesystem",
            "User initiated shutdown (0x1) received.",
        ] {
            let shut = Some(KernelEvent::XfsShutdown { device: device("nvme2n1") });
            assert_eq!(recognize(&format!("XFS (nvme2n1): {said}")), shut, "{said}");
        }
        for said in
            ["Please unmount the filesystem and rectify the problem(s)", "log I/O error -5", "Ending clean mount"]
        {
            assert_eq!(recognize(&format!("XFS (nvme2n1): {said}")), None, "{said}");
        }
    }

    #[test]
    fn a_refused_mount_keeps_the_kernels_reason() {
        let refused =
            |device_name: &str, why: &str| KernelEvent::MountRefused { device: device(device_name), why: why.into() };
        let twin = "Filesystem has duplicate UUID 9d3f1d3c-6d5b-4d35-8f6e-0a1b2c3d4e5f - can't mount";
        assert_eq!(recognize(&format!("XFS (nvme2n1): {twin}")), Some(refused("nvme2n1", twin)));
        let features = "couldn't mount because of unsupported optional features (10000)";
        assert_eq!(recognize(&format!("EXT4-fs (nvme3n1): {features}")), Some(refused("nvme3n1", features)));
        let long = format!("log mount {}", "é".repeat(500));
        assert_eq!(
            recognize(&format!("XFS (a): {long}")),
            Some(refused("a", &format!("log mount {}", "é".repeat(110))))
        );
        assert_eq!(recognize("EXT4-fs (nvme3n1): mounted filesystem with ordered data mode"), None);
    }

    #[test]
    fn an_xfs_mount_ends_whatever_was_before() {
        for said in [
            "Mounting V5 Filesystem",
            "Mounting V5 Filesystem 9d3f1d3c-6d5b-4d35-8f6e-0a1b2c3d4e5f",
            "Mounting V4 filesystem in no-recovery mode. Filesystem will be inconsistent.",
            "Unmounting Filesystem",
            "Unmounting Filesystem 9d3f1d3c-6d5b-4d35-8f6e-0a1b2c3d4e5f",
        ] {
            let changed = Some(KernelEvent::XfsMountChanged { device: device("md127") });
            assert_eq!(recognize(&format!("XFS (md127): {said}")), changed, "{said}");
        }
    }

    #[test]
    fn an_error_that_a_journal_or_xfs_met_names_the_device_below() {
        let error = |name: &str, operation: &str| {
            Some(KernelEvent::IoError { device: device(name), operation: operation.to_owned() })
        };
        for (line, event) in [
            ("JBD2: Detected IO errors while flushing file data on nvme1n1-8", error("nvme1n1", "WRITE")),
            ("JBD2: Detected IO errors while flushing file data on dm-2-8", error("dm-2", "WRITE")),
            ("JBD2: Detected IO errors while flushing file data on cciss!c0d0-8", error("cciss/c0d0", "WRITE")),
            // A journal on a device of its own.
            ("JBD2: Detected IO errors while flushing file data on nvme1n1", None),
            ("JBD2: Detected IO errors while flushing file data on dm-2", None),
            ("JBD2: Detected IO errors while flushing file data on nvme1n1-", None),
            ("JBD2: Detected IO errors while flushing file data on -8", None),
            ("JBD2: I/O error when updating journal superblock for nvme1n1-8.", None),
            (
                "XFS (dm-0): metadata I/O error in \"xfs_buf_ioend_handle_error+0x10c/0x4a0 [xfs]\" at daddr 0x80008 len 32 error 28",
                error("dm-0", ""),
            ),
            (
                "XFS (md127): metadata I/O error: block 0x1044a20 (\"xfs_buf_iodone_callback_error\") error 5 numblks 32",
                error("md127", ""),
            ),
            ("XFS (dm-0): Failing async write on buffer block 0x80008. Retrying async write.", error("dm-0", "WRITE")),
            ("XFS (dm-0): writeback error on sector 8", error("dm-0", "WRITE")),
            // What was read is damaged, which other lines say.
            ("XFS (dm-3): metadata I/O error in \"xfs_trans_read_buf_map\" at daddr 0xb1d960 len 32 error 117", None),
            ("XFS (dm-3): metadata I/O error: block 0x48b9ff80 (\"xfs_trans_read_buf_map\") error 74 numblks 8", None),
            ("XFS (dm-3): metadata I/O error in \"a\" at daddr 0x1 len 8 error x", None),
            // The block layer has a line of its own of a disk.
            ("XFS (nvme1n1): metadata I/O error in \"xfs_read_agf+0x1\" at daddr 0x1 len 1 error 5", None),
            ("XFS (nvme1n1): Failing async write on buffer block 0x80008. Retrying async write.", None),
        ] {
            assert_eq!(recognize(line), event, "{line}");
        }
    }

    #[test]
    fn corruption_that_xfs_survives_is_no_shutdown() {
        for text in [
            "Internal error xfs_iunlink_remove at line 2038 of file fs/xfs/xfs_inode.c.  Caller xfs_ifree+0x33/0x130 [xfs]",
            "Corruption detected. Unmount and run xfs_repair",
            "Metadata corruption detected at xfs_agi_verify+0x10 [xfs], xfs_agi block 0x2",
            "Metadata CRC error detected at xfs_agf_read_verify+0x10 [xfs], xfs_agf block 0x1",
        ] {
            let corrupt = Some(KernelEvent::XfsCorruption { device: device("nvme1n1") });
            assert_eq!(recognize(&format!("XFS (nvme1n1): {text}")), corrupt, "{text}");
        }
        let shut = Some(KernelEvent::XfsShutdown { device: device("nvme1n1") });
        assert_eq!(
            recognize(
                "XFS (nvme1n1): Corruption of in-memory data (0x8) detected at x (y).  Shutting down filesystem."
            ),
            shut
        );
    }
}
