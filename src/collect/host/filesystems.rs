//! Filesystems that are alive, in whatever namespace: `/sys/fs/ext4` and `/sys/fs/xfs`.

use crate::facts::{Cause, Filesystem, FilesystemKey, Filesystems, FsType, Part, Unknown};

use super::block::plain_name;
use super::failures::Failures;
use super::root::{Root, below, quote};

/// The types, with what in their directories is no filesystem.
const TYPES: [(FsType, &[&str]); 2] = [(FsType::Ext4, &["features"]), (FsType::Xfs, &["stats", "debug"])];

/// All live ext4 and xfs filesystems. A kernel without one of the two shows none of that type.
///
/// # Errors
/// When `/sys/fs` cannot be listed.
pub fn live(root: &Root) -> Result<Filesystems, Unknown> {
    let present = root.list("sys/fs")?;
    let mut failures = Failures::default();
    let mut found = Vec::new();
    for (fstype, others) in TYPES {
        let name = fstype.to_string();
        if !present.iter().any(|(present, _)| *present == name) {
            continue;
        }
        let dir = format!("sys/fs/{name}");
        // The directory is the module's: it goes with it.
        for (device, _) in failures.optional(root.list(&dir)).unwrap_or_default() {
            if others.contains(&&*device) {
                continue;
            }
            let state = match fstype {
                FsType::Ext4 => ext4(root, &below(&dir, &device)),
                FsType::Xfs => Some(Filesystem::default()),
            };
            found.extend(state.map(|state| (FilesystemKey { fstype, device: plain_name(&device) }, state)));
        }
    }
    Ok(Filesystems::with_incomplete(found, failures.into_incomplete()))
}

/// What an ext4 filesystem remembers of its errors; `None` where its last holder let go meanwhile.
fn ext4(root: &Root, dir: &str) -> Option<Filesystem> {
    let errors: Part<u64> = if_there(root.number_again(&below(dir, "errors_count"))).into();
    if errors.is_absent() && !root.exists(dir) {
        return None;
    }
    let mut state = Filesystem { errors, ..Filesystem::default() };
    if matches!(state.errors, Part::Known(errors) if errors > 0) {
        let time = if_there(seconds(root, &below(dir, "last_error_time")));
        // Zero where the clock was not yet set, or where no time was kept.
        state.last_error = time.map(|time| time.filter(|time| *time > 0).and_then(|time| time.try_into().ok())).into();
        // It only adds to the evidence.
        let function = root.text(&below(dir, "last_error_func")).ok();
        state.last_error_function = function.filter(|function| !function.is_empty());
    }
    Some(state)
}

/// A file that this kernel does not have says nothing; one that cannot be read is not known.
fn if_there<T>(read: Result<T, Unknown>) -> Result<Option<T>, Unknown> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(why) if why.cause == Cause::Missing => Ok(None),
        Err(why) => Err(why),
    }
}

/// Older kernels write this number without the end of a line.
fn seconds(root: &Root, path: &str) -> Result<u64, Unknown> {
    let text = root.text(path)?;
    text.parse().map_err(|_| root.malformed(path, format_args!("expected seconds, found {}", quote(&text))))
}

super::read_from_root! { Filesystems: live; }

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::collect::host::mountinfo::MountTable;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = dir.path().join("sys/fs").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn key(fstype: FsType, device: &str) -> FilesystemKey {
        FilesystemKey { fstype, device: device.into() }
    }

    #[test]
    fn live_filesystems_are_found_with_their_errors() {
        let (_dir, root) = machine(&[
            ("ext4/features/lazy_itable_init", "supported\n"),
            ("ext4/nvme0n1/errors_count", "0\n"),
            ("ext4/nvme0n1/last_error_time", "1700000000\n"),
            ("ext4/nvme1n1/errors_count", "3\n"),
            ("ext4/nvme1n1/last_error_time", "1763698800\n"),
            ("ext4/nvme1n1/last_error_func", "ext4_find_entry\n"),
            ("ext4/cciss!c0d0p1/errors_count", "1\n"),
            ("ext4/cciss!c0d0p1/last_error_time", "0\n"),
            ("ext4/cciss!c0d0p1/last_error_func", "\n"),
            ("xfs/stats/stats", "x"),
            ("xfs/debug/x", "x"),
            ("xfs/dm-0/error/fail_at_unmount", "1\n"),
        ]);
        let found = live(&root).unwrap();
        assert_eq!((found.len(), found.incomplete()), (4, None));
        let part = |read: Option<i64>| read.map_or(Part::Absent, Part::Known);
        let state = |errors: Option<u64>, last_error, function: Option<&str>| Filesystem {
            errors: errors.map_or(Part::Absent, Part::Known),
            last_error: part(last_error),
            last_error_function: function.map(str::to_owned),
        };
        for (key, expected) in [
            (key(FsType::Ext4, "nvme0n1"), state(Some(0), None, None)),
            (key(FsType::Ext4, "nvme1n1"), state(Some(3), Some(1_763_698_800), Some("ext4_find_entry"))),
            (key(FsType::Ext4, "cciss/c0d0p1"), state(Some(1), None, None)),
            (key(FsType::Xfs, "dm-0"), state(None, None, None)),
        ] {
            assert_eq!(found.get(&key), Some(&expected), "{key:?}");
        }
    }

    #[test]
    fn a_kernel_without_a_type_has_none_of_it_and_one_without_any_is_not_known() {
        let (dir, root) = machine(&[("btrfs/features/x", "1")]);
        let found = live(&root).unwrap();
        assert_eq!((found.len(), found.incomplete()), (0, None));
        fs::remove_dir_all(dir.path().join("sys")).unwrap();
        assert_eq!(live(&root).unwrap_err().cause, Cause::Missing);
    }

    #[test]
    fn an_old_kernel_keeps_no_count_and_a_broken_one_is_not_known_of_its_filesystem_alone() {
        let (_dir, root) = machine(&[("ext4/nvme1n1/delayed_allocation_blocks", "0")]);
        let found = live(&root).unwrap();
        assert_eq!(
            (found.get(&key(FsType::Ext4, "nvme1n1")), found.incomplete()),
            (Some(&Filesystem::default()), None)
        );
        let (_dir, root) = machine(&[("ext4/nvme1n1/errors_count", "many"), ("ext4/nvme2n1/errors_count", "0\n")]);
        let found = live(&root).unwrap();
        let errors = |device| &found.get(&key(FsType::Ext4, device)).unwrap().errors;
        assert!(errors("nvme1n1").unread().unwrap().why.contains("nvme1n1/errors_count"), "{found:?}");
        assert_eq!((errors("nvme2n1"), found.incomplete()), (&Part::Known(0), None));
    }

    #[test]
    fn what_is_mounted_is_alive() {
        let (dir, root) = machine(&[("ext4/nvme1n1/errors_count", "0\n")]);
        fs::create_dir_all(dir.path().join("proc/1")).unwrap();
        fs::write(dir.path().join("proc/1/mountinfo"), "29 1 259:1 / / rw - ext4 /dev/nvme1n1 rw\n").unwrap();
        let found = live(&root).unwrap();
        assert_eq!(found.incomplete(), None);
        let mounts = MountTable::default()
            .read(&root, &crate::collect::kubelet::place::KubeletPaths::plain("/var/lib/kubelet"))
            .unwrap();
        for mount in mounts.values() {
            let device = mount.source.strip_prefix("/dev/").unwrap();
            assert!(found.get(&key(FsType::Ext4, device)).is_some(), "{mount:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_files_hold_it_is_alive(count in "\\PC{0,24}", time in "\\PC{0,24}|[0-9]{1,21}") {
            let (_dir, root) = machine(&[("ext4/a/errors_count", &count), ("ext4/a/last_error_time", &time)]);
            let found = live(&root).unwrap();
            let state = found.get(&key(FsType::Ext4, "a")).unwrap();
            prop_assert!(!state.errors.is_absent());
            prop_assert!(state.last_error.seen().is_ok_and(|time| time.is_none_or(|time| *time > 0)) || state.last_error.unread().is_some());
        }
    }
}
