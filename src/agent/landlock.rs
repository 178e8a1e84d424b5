//! Landlock: this process gives away, for good, every write but those to its own directory.
//!
//! It holds also where a mount says otherwise: `readOnly` in a manifest covers one mount and none below it. Kernels have it
//! from 5.13 on, a container's seccomp profile may refuse it; then we go on without, and say so. The calls are made
//! here and not by a crate: three of them, and no type of theirs is needed elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tracing::warn;

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
/// Character devices, directories, regular files, sockets, FIFOs, block devices, links: seven rights.
const MAKE_ALL: u64 = 0x7f << 6;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
/// ABI 2: moving to another directory.
const REFER: u64 = 1 << 13;
/// ABI 3.
const TRUNCATE: u64 = 1 << 14;
/// ABI 5: commands to devices.
const IOCTL_DEV: u64 = 1 << 15;

/// What a file may be allowed where it is written to without being made.
const WRITE_ALONE: u64 = WRITE_FILE;
/// What our own directory needs: a file beside the old one, then in its place.
const OWN_DIRECTORY: u64 = WRITE_FILE | TRUNCATE | MAKE_REG | MAKE_DIR | REMOVE_FILE;

/// `landlock_create_ruleset` with this flag returns the version.
const VERSION: u32 = 1;
const PATH_BENEATH: libc::c_int = 1;

/// Writes that are kept: where the kernel takes a pressure trigger, and where the kubelet looks for last words.
const KEPT: [&str; 2] = [crate::wake::PRESSURE, "/dev/termination-log"];

/// `struct landlock_ruleset_attr` of ABI 1, which later kernels take as well.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: RawFd,
}

/// Takes every write from this thread and those that it will start, but for one directory; where devices may be sent
/// commands, below the directory of those. The version that did it.
///
/// # Errors
/// Why the kernel does not do it; nothing is changed then but that no program may gain rights.
pub fn restrict(directory: Option<&Path>, devices: Option<&Path>) -> Result<u32, String> {
    let abi = version().map_err(|e| format!("this kernel or the container's seccomp profile has no Landlock: {e}"))?;
    let handled = handled(abi);
    let ruleset = create(handled).map_err(|e| format!("landlock_create_ruleset: {e}"))?;
    if let Some(directory) = directory {
        // It is made here, as what is above it can no longer be written to afterwards.
        let made =
            std::fs::create_dir_all(directory).and_then(|()| allow(&ruleset, directory, OWN_DIRECTORY & handled));
        // A directory that cannot be had needs no write: all are taken away.
        if let Err(why) = made {
            warn!(%why, "state-dir {}: nothing is kept there", directory.display());
        }
    }
    // Controllers come and go, so their directory is named and not each of them.
    if let (Some(devices), 1..) = (devices, IOCTL_DEV & handled)
        && let Err(why) = allow(&ruleset, devices, IOCTL_DEV & handled)
    {
        warn!(%why, "{}: no device there can be sent a command", devices.display());
    }
    for path in KEPT {
        // Neither is everywhere.
        let _ = allow(&ruleset, Path::new(path), WRITE_ALONE & handled);
    }
    // SAFETY: it takes four plain numbers and changes a flag of this thread alone.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).map_err(|e| format!("no_new_privs: {e}"))?;
    // SAFETY: the descriptor is an open ruleset, which lives until the call is over.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0u32) };
    check(done).map_err(|e| format!("landlock_restrict_self: {e}"))?;
    Ok(abi)
}

/// What this version can take away and we never do.
fn handled(abi: u32) -> u64 {
    let first = EXECUTE | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_ALL;
    let later = [(2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)];
    later.into_iter().filter(|(from, _)| abi >= *from).fold(first, |all, (_, right)| all | right)
}

fn version() -> io::Result<u32> {
    // SAFETY: with this flag the call reads no memory of ours: the kernel wants no address and a size of zero.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<RulesetAttr>(), 0usize, VERSION) };
    check(version).map(|version| u32::try_from(version).unwrap_or(0))
}

fn create(handled_access_fs: u64) -> io::Result<OwnedFd> {
    let attr = RulesetAttr { handled_access_fs };
    // SAFETY: the address is that of a struct of the size that is given, which outlives the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, std::mem::size_of::<RulesetAttr>(), 0u32)
    };
    let fd = RawFd::try_from(check(fd)?).map_err(io::Error::other)?;
    // SAFETY: the kernel made this descriptor just now for this process, and nothing else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn allow(ruleset: &OwnedFd, path: &Path, allowed_access: u64) -> io::Result<()> {
    let parent = File::options().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path)?;
    let rule = PathBeneath { allowed_access, parent_fd: parent.as_raw_fd() };
    // SAFETY: both descriptors are open and the address is that of a struct of this kind of rule; all outlive the call.
    let done =
        unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), PATH_BENEATH, &raw const rule, 0u32) };
    check(done).map(drop)
}

fn check<T: Copy + Into<i64>>(result: T) -> io::Result<i64> {
    if result.into() < 0 { Err(io::Error::last_os_error()) } else { Ok(result.into()) }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the test does what the agent never does")]
mod tests {
    use std::fs;

    use super::*;
    use crate::collect::host::unrestricted_thread::UnrestrictedThread;

    /// Runs on a thread of its own: what is given away there is kept here.
    fn alone<T: Send>(test: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(test).join().unwrap())
    }

    /// What `holders` is for: other processes' working directories and open files.
    #[test]
    fn other_processes_are_hidden_but_from_the_thread_that_began_before() {
        if let Err(why) = version() {
            return println!("skipped: this kernel has no Landlock: {why}");
        }
        let Some(unrestricted_thread) = UnrestrictedThread::start() else {
            return println!("skipped: without CAP_SYS_PTRACE");
        };
        let mut other = std::process::Command::new("sleep").arg("1000").current_dir("/tmp").spawn().unwrap();
        let (cwd, files) = (format!("/proc/{}/cwd", other.id()), format!("/proc/{}/fdinfo", other.id()));
        let look = move || (fs::read_link(&cwd).ok(), fs::read_dir(&files).is_ok());
        let seen = alone(|| {
            let before = look();
            restrict(None, None).unwrap();
            [before, look(), unrestricted_thread.run(look.clone()).unwrap()]
        });
        other.kill().unwrap();
        other.wait().unwrap();
        let tmp = Some("/tmp".into());
        assert_eq!(seen, [(tmp.clone(), true), (None, false), (tmp, true)]);
    }

    #[test]
    fn nothing_but_the_own_directory_can_be_written_to() {
        if let Err(why) = version() {
            return println!("skipped: this kernel has no Landlock: {why}");
        }
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = other.path().join("there");
        fs::write(&file, "before").unwrap();
        let dir = own.path().join("made/by/us");
        alone(|| {
            assert!(restrict(Some(&dir), None).unwrap() >= 1);
            fs::write(dir.join("next"), "after").unwrap();
            fs::rename(dir.join("next"), dir.join("state.json")).unwrap();
            fs::write(dir.join("state.json"), "again").unwrap();
            let denied = [
                fs::write(&file, "after"),
                fs::write(other.path().join("new"), ""),
                fs::remove_file(&file),
                fs::create_dir(other.path().join("dir")),
                fs::rename(dir.join("state.json"), other.path().join("state.json")),
                std::os::unix::fs::symlink("x", other.path().join("link")),
                // What runs as another program may start others; this one never does.
                std::process::Command::new("/bin/true").status().map(drop),
            ];
            for (index, result) in denied.into_iter().enumerate() {
                let kind = result.map_err(|error| error.kind());
                let crossing = Err(io::ErrorKind::CrossesDevices);
                assert!(kind == Err(io::ErrorKind::PermissionDenied) || kind == crossing, "{index}: {kind:?}");
            }
            assert_eq!(fs::read_to_string(&file).unwrap(), "before", "reading is left");
        });
        fs::write(&file, "after").unwrap();
        assert_eq!(fs::read_to_string(dir.join("state.json")).unwrap(), "again");
    }

    #[test]
    fn devices_take_commands_only_where_that_is_wished() {
        let abi = version().unwrap_or(0);
        if abi < 5 {
            return println!("skipped: this kernel's Landlock knows of no commands to devices");
        }
        // A random source is a device that answers every process: how much it has.
        let asked = || {
            let random = File::open("/dev/urandom").unwrap();
            let mut entropy: libc::c_int = 0;
            // SAFETY: RNDGETENTCNT writes one number to the address, which is that of a live local.
            let done = unsafe { libc::ioctl(random.as_raw_fd(), 0x8004_5200_u32 as libc::Ioctl, &raw mut entropy) };
            check(done).map(drop).map_err(|error| error.kind())
        };
        let (kept, taken) = (
            alone(|| restrict(None, Some(Path::new("/dev"))).map(|_| asked()).unwrap()),
            alone(|| restrict(None, None).map(|_| asked()).unwrap()),
        );
        assert_eq!((kept, taken), (Ok(()), Err(io::ErrorKind::PermissionDenied)));
    }

    #[test]
    fn each_version_takes_what_it_knows() {
        assert_eq!(handled(1) & (REFER | TRUNCATE | IOCTL_DEV), 0);
        assert_eq!(handled(4) & (REFER | TRUNCATE | IOCTL_DEV), REFER | TRUNCATE);
        assert_eq!(handled(1), 0b1_1111_1111_0011, "as the kernel's header has them");
        assert_eq!(handled(9), 0xfff3);
    }

    #[test]
    fn without_a_directory_to_keep_all_writes_are_taken() {
        if version().is_err() {
            return println!("skipped: this kernel has no Landlock");
        }
        let other = tempfile::tempdir().unwrap();
        let (abi, written) = alone(|| {
            let abi = restrict(Some(Path::new("/proc/none/of/ours")), None);
            (abi, fs::write(other.path().join("new"), "").map_err(|error| error.kind()))
        });
        assert!(abi.unwrap() >= 1);
        assert_eq!(written, Err(io::ErrorKind::PermissionDenied));
    }
}
