//! Filesystems that are alive, in whatever namespace: `/sys/fs/ext4`, `/sys/fs/xfs` and `/sys/fs/btrfs`.

use crate::facts::{Cause, Filesystem, FilesystemKey, Filesystems, FsType, Part, Unknown};

use super::block::plain_name;
use super::failures::Failures;
use super::root::{Root, below, quote};

/// The types, with what in their directories is no filesystem.
const TYPES: [(FsType, &[&str]); 3] =
    [(FsType::Ext4, &["features"]), (FsType::Xfs, &["stats", "debug"]), (FsType::Btrfs, &["features", "debug"])];

/// Far more devices than a filesystem has.
const MAX_DEVICES: usize = 64;

/// All live ext4, xfs and btrfs filesystems. A kernel without one of them shows none of that type.
///
/// # Errors
/// When `/sys/fs` cannot be listed.
pub fn live(root: &Root) -> Result<Filesystems, Unknown> {
    let present = root.list("sys/fs")?;
    let mut failures = Failures::default();
    let mut found = Vec::new();
    for (fstype, others) in TYPES {
        let of_type = fstype.to_string();
        if !present.iter().any(|(present, _)| *present == of_type) {
            continue;
        }
        let dir = format!("sys/fs/{of_type}");
        // The directory is the module's: it goes with it.
        for (name, _) in failures.optional(root.list(&dir)).unwrap_or_default() {
            if others.contains(&&*name) {
                continue;
            }
            let (state, device) = match fstype {
                FsType::Ext4 => (ext4(root, &below(&dir, &name)), Some(name.clone())),
                FsType::Xfs => (Some(Filesystem::default()), Some(name.clone())),
                FsType::Btrfs => {
                    let state = failures.optional(btrfs(root, &below(&dir, &name)));
                    let first = state.as_ref().and_then(|state| state.devices.first().cloned());
                    (state, first)
                }
            };
            let key = device.map(|device| FilesystemKey { fstype, device: plain_name(&device) });
            let state = state.map(|state| Filesystem { instance: root.instance(&below(&dir, &name)), ..state });
            found.extend(key.zip(state));
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

/// What a btrfs filesystem counts of its devices' errors. Its directory is called by its UUID.
fn btrfs(root: &Root, dir: &str) -> Result<Filesystem, Unknown> {
    let mut devices: Vec<_> =
        root.list(&below(dir, "devices"))?.into_iter().map(|(name, _)| plain_name(&name)).collect();
    devices.sort_unstable();
    devices.truncate(MAX_DEVICES);
    let errors = if_there(root.list(&below(dir, "devinfo"))).and_then(|numbers| {
        let mut sum = None;
        for (number, _) in numbers.unwrap_or_default().into_iter().take(MAX_DEVICES) {
            let path = below(&below(&below(dir, "devinfo"), &number), "error_stats");
            if let Some(errors) = if_there(root.read(&path, parse_error_stats))? {
                sum = Some(errors.saturating_add(sum.unwrap_or(0)));
            }
        }
        Ok(sum)
    });
    Ok(Filesystem { errors: errors.into(), devices, ..Filesystem::default() })
}

/// Adds up `error_stats` of a device: lines such as `write_errs 0`.
///
/// # Errors
/// When a line is no name and number, or the last one is cut off.
pub fn parse_error_stats(bytes: &[u8]) -> Result<u64, String> {
    let whole = bytes.strip_suffix(b"\n").ok_or("ends before the end of a line, expected NAME NUMBER")?;
    let mut sum = 0u64;
    for line in String::from_utf8_lossy(whole).lines() {
        let number = line.split_once(' ').and_then(|(_, number)| number.parse::<u64>().ok());
        let number = number.ok_or_else(|| format!("expected NAME NUMBER, found {}", quote(line)))?;
        sum = sum.saturating_add(number);
    }
    Ok(sum)
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
            ..Filesystem::default()
        };
        for (key, expected) in [
            (key(FsType::Ext4, "nvme0n1"), state(Some(0), None, None)),
            (key(FsType::Ext4, "nvme1n1"), state(Some(3), Some(1_763_698_800), Some("ext4_find_entry"))),
            (key(FsType::Ext4, "cciss/c0d0p1"), state(Some(1), None, None)),
            (key(FsType::Xfs, "dm-0"), state(None, None, None)),
        ] {
            assert_eq!(bare(&found, &key), Some(expected), "{key:?}");
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
    fn btrfs_counts_errors_for_each_of_its_devices() {
        const UUID: &str = "btrfs/0b5e7d0e-4a44-4f7e-8b14-6f3a6d5c9a01";
        let stats = |write: u64| {
            format!("write_errs {write}\nread_errs 1\nflush_errs 0\ncorruption_errs 0\ngeneration_errs 0\n")
        };
        let at = |file: &str| format!("{UUID}/{file}");
        let (one, two) = (stats(2), stats(0));
        let paths = ["devices/nvme2n1/size", "devices/nvme1n1/size", "devinfo/1/error_stats", "devinfo/2/error_stats"];
        let paths = paths.map(at);
        let texts = ["1", "1", one.as_str(), two.as_str()];
        let files: Vec<(&str, &str)> = paths.iter().map(String::as_str).zip(texts).collect();
        let (dir, root) = machine(&[files.as_slice(), &[("btrfs/features/x", "1")]].concat());
        let found = live(&root).unwrap();
        let key = key(FsType::Btrfs, "nvme1n1");
        let expected = Filesystem {
            errors: Part::Known(4),
            devices: vec!["nvme1n1".into(), "nvme2n1".into()],
            ..Filesystem::default()
        };
        assert_eq!((found.len(), bare(&found, &key)), (1, Some(expected)));
        let stats_of_one = dir.path().join("sys/fs").join(at("devinfo/1/error_stats"));
        fs::write(&stats_of_one, "write_errs 2\nread_er").unwrap();
        assert!(live(&root).unwrap().get(&key).unwrap().errors.unread().is_some());
        // Before 5.14 there is no such file.
        fs::remove_file(stats_of_one).unwrap();
        fs::remove_file(dir.path().join("sys/fs").join(at("devinfo/2/error_stats"))).unwrap();
        assert_eq!(live(&root).unwrap().get(&key).unwrap().errors, Part::Absent);
    }

    #[test]
    fn an_old_kernel_keeps_no_count_and_a_broken_one_is_not_known_of_its_filesystem_alone() {
        let (_dir, root) = machine(&[("ext4/nvme1n1/delayed_allocation_blocks", "0")]);
        let found = live(&root).unwrap();
        assert_eq!(
            (bare(&found, &key(FsType::Ext4, "nvme1n1")), found.incomplete()),
            (Some(Filesystem::default()), None)
        );
        let (_dir, root) = machine(&[("ext4/nvme1n1/errors_count", "many"), ("ext4/nvme2n1/errors_count", "0\n")]);
        let found = live(&root).unwrap();
        let errors = |device| &found.get(&key(FsType::Ext4, device)).unwrap().errors;
        assert!(errors("nvme1n1").unread().unwrap().why.contains("nvme1n1/errors_count"), "{found:?}");
        assert_eq!((errors("nvme2n1"), found.incomplete()), (&Part::Known(0), None));
    }

    /// Without the number of its directory, which is another one in each run.
    fn bare(found: &Filesystems, key: &FilesystemKey) -> Option<Filesystem> {
        found.get(key).map(|found| Filesystem { instance: None, ..found.clone() })
    }

    #[test]
    fn a_filesystem_that_was_mounted_again_is_another_one() {
        let (dir, root) = machine(&[("xfs/nvme1n1/stats/stats", "x"), ("ext4/nvme2n1/errors_count", "0\n")]);
        let instance = |fstype, name| live(&root).unwrap().get(&key(fstype, name)).unwrap().instance;
        let all = || (instance(FsType::Xfs, "nvme1n1"), instance(FsType::Ext4, "nvme2n1"));
        let before = all();
        assert_eq!((before.0.is_some(), all()), (true, before));
        fs::remove_dir_all(dir.path().join("sys/fs/xfs/nvme1n1")).unwrap();
        fs::create_dir_all(dir.path().join("sys/fs/xfs/nvme1n1")).unwrap();
        fs::write(dir.path().join("sys/fs/ext4/nvme2n1/errors_count"), "1\n").unwrap();
        let after = all();
        assert!(after.0 != before.0 && after.1 == before.1, "{before:?} {after:?}");
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
        fn no_bytes_make_error_stats_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse_error_stats(&bytes);
        }

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
