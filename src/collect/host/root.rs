//! Reading below one root directory, so that no file can hang, swamp or mislead us.
//!
//! Every path is resolved inside the root (`openat2` with `RESOLVE_IN_ROOT`): a link, absolute or not, never
//! leads out of it. Only regular files are read, without blocking, and never more than a limit.

mod files;
mod folder;
mod held;
mod lines;
mod listing;
mod read;
#[cfg(test)]
mod tests;
mod text;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, makedev};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use rustix::fs::{AtFlags, StatxFlags, statx};

use crate::facts::{Cause, DevId, OpenFile, Unknown};
pub use folder::Folder;
use held::Held;
pub use lines::{Bounds, End, TextLine, each_line};
pub(super) use text::whole_line;
pub use text::{lossy, quote};

/// Enough for every file of `/proc` and `/sys` that is not a table.
pub const SMALL: usize = 256 << 10;

/// How a directory is opened.
const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY);

/// A path as it stands below a root.
pub(crate) fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// The directory that stands for `/`.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    path: PathBuf,
    live: bool,
    /// Below `proc` and `sys` there are only the kernel's own files.
    kernel: bool,
    confined: bool,
    sys: Option<Sys>,
    held: Mutex<Held>,
}

/// What of `/sys` is taken from the host: a container's own has other control groups, and nothing that the kernel saved.
const HOSTS_OWN: [&str; 2] = ["/fs/cgroup", "/fs/pstore"];

/// What stands for `/sys`, but for [`HOSTS_OWN`]: a container has its own, which shows the host's devices.
#[derive(Debug)]
struct Sys {
    dir: OwnedFd,
    path: PathBuf,
}

/// What stands under a name in a directory, as the directory itself says; never by looking at the thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A regular file.
    File,
    /// Anything else, or the filesystem does not say.
    Other,
}

/// A name in a directory, and the text of the link that stands there.
pub type NamedLink = (String, Result<String, Unknown>);

/// Opens of one path before the machine is taken to be too busy for it.
const BUSY_TRIES: usize = 32;

impl Root {
    /// Opens the directory that all paths are taken to be below.
    ///
    /// # Errors
    /// When it cannot be opened as a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(path, flags, Mode::empty())?;
        let confined = path != Path::new("/");
        let mut root = Self {
            dir,
            path: path.to_owned(),
            live: false,
            kernel: false,
            confined,
            sys: None,
            held: Mutex::default(),
        };
        root.live = root.procfs_is_real();
        root.kernel = root.live;
        Ok(root)
    }

    /// The root of this process, whatever machine is looked at.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn own() -> Result<Self, Unknown> {
        Self::open(Path::new("/")).map_err(|e| Unknown::new(Cause::Failed, format!("/ could not be opened: {e}")))
    }

    /// Takes what is below `sys`, but not the control groups and pstore, from another directory.
    ///
    /// # Errors
    /// When it cannot be opened as a directory.
    pub fn with_sys(self, path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(path, flags, Mode::empty())?;
        Ok(Self { sys: Some(Sys { dir, path: path.to_owned() }), ..self })
    }

    /// Whether this root is a running machine's: its `proc` is the kernel's own, not a copy of it.
    ///
    /// On a copy, what only a system call can show (statfs, adjtimex, the kernel's log) would be read of the
    /// wrong machine.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Whether only parts of a running machine may stand below this root, as in a container that mounts them: what is
    /// not there may be on the machine all the same.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.live && self.confined
    }

    /// Takes what is below `proc` and `sys` for the kernel's own, as on a running machine, though it is a copy.
    ///
    /// For benchmarks: a generated tree then costs what a machine costs.
    #[must_use]
    pub fn as_kernel(self) -> Self {
        Self { kernel: true, ..self }
    }

    /// Takes a temporary tree for a running machine, seen from outside of any container.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn into_machine(self) -> Self {
        Self { live: true, confined: false, ..self }
    }

    fn procfs_is_real(&self) -> bool {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        self.open_at("proc", flags)
            .is_ok_and(|dir| fstatfs(dir).is_ok_and(|fs| fs.filesystem_type() == PROC_SUPER_MAGIC))
    }

    /// How a path below this root is called outside it.
    #[must_use]
    pub fn name(&self, path: &str) -> String {
        let (_, dir, below) = self.place(path.trim_start_matches('/'));
        dir.join(below).display().to_string()
    }

    /// Where a path is really had from: a directory, its name, and the path below it.
    fn place<'a>(&'a self, path: &'a str) -> (&'a OwnedFd, &'a Path, &'a str) {
        let of_sys = |sys| Some((sys, path.strip_prefix("sys").filter(|below| is_end_or_slash(below))?));
        match self.sys.as_ref().and_then(of_sys) {
            Some((sys, below)) if !HOSTS_OWN.iter().any(|own| below.strip_prefix(own).is_some_and(is_end_or_slash)) => {
                (&sys.dir, &sys.path, below.trim_start_matches('/'))
            }
            _ => (&self.dir, &self.path, path),
        }
    }

    /// Why this path could not be used, for people.
    pub fn unknown(&self, path: &str, error: Errno) -> Unknown {
        let name = self.name(path);
        let (cause, text) = match error {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ENODEV | Errno::ESRCH => {
                (Cause::Missing, "is not there".to_owned())
            }
            Errno::EACCES | Errno::EPERM => (Cause::Denied, "may not be read: permission denied".to_owned()),
            Errno::EOPNOTSUPP => (Cause::Unsupported, "is switched off in this kernel".to_owned()),
            Errno::ELOOP | Errno::EXDEV => {
                (Cause::WrongType, "is reached through a link that may not be followed".to_owned())
            }
            Errno::EISDIR => (Cause::WrongType, "is a directory, expected a file".to_owned()),
            other => (Cause::Failed, format!("could not be read: {}", other.desc())),
        };
        Unknown::new(cause, format!("{name} {text}"))
    }

    fn open_at(&self, path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
        let (dir, _, path) = self.place(path.trim_start_matches('/'));
        let path = if path.is_empty() { "." } else { path };
        // openat2 refuses flags that O_PATH would ignore.
        let careful = if flags.contains(OFlag::O_PATH) { OFlag::empty() } else { OFlag::O_NONBLOCK | OFlag::O_NOCTTY };
        let flags = flags | OFlag::O_CLOEXEC | careful;
        if self.confined {
            let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
            // The kernel gives up where anything on the machine was renamed or mounted meanwhile, and says to try again.
            let open = || openat2(dir.as_fd(), path, OpenHow::new().flags(flags).resolve(resolve));
            let busy = |result: &Result<OwnedFd, Errno>| matches!(result, Err(Errno::EAGAIN));
            (0..BUSY_TRIES).map(|_| open()).find(|result| !busy(result)).unwrap_or(Err(Errno::EAGAIN))
        } else {
            openat(dir.as_fd(), path, flags, Mode::empty())
        }
    }

    /// Opens a regular file for reading; opening never waits for a writer or a carrier.
    ///
    /// # Errors
    /// Names the path and what stands there instead.
    pub fn file(&self, path: &str) -> Result<File, Unknown> {
        // O_PATH first: opening a FIFO, a device or a socket can have an effect, looking at it has none.
        // Below a real /proc or /sys there are none, so the second open is saved there.
        let kernel = self.is_kernels(path);
        if !kernel {
            let seen = self.open_at(path, OFlag::O_PATH).map_err(|e| self.unknown(path, e))?;
            self.expect_regular(path, &seen)?;
        }
        let fd = self.open_at(path, OFlag::O_RDONLY).map_err(|e| self.unknown(path, e))?;
        if !kernel {
            self.expect_regular(path, &fd)?;
        }
        Ok(File::from(fd))
    }

    fn is_kernels(&self, path: &str) -> bool {
        self.kernel && (path.starts_with("proc/") || path.starts_with("sys/"))
    }

    fn expect_regular(&self, path: &str, fd: &OwnedFd) -> Result<(), Unknown> {
        let stat = fstat(fd).map_err(|e| self.unknown(path, e))?;
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        let kind = match kind {
            SFlag::S_IFREG if stat.st_nlink > 0 => return Ok(()),
            // A single file that is mounted stays the old one when another takes its name on the host.
            SFlag::S_IFREG => {
                let why = format!("{} was deleted or replaced since it was mounted here", self.name(path));
                return Err(Unknown::new(Cause::Stale, why));
            }
            SFlag::S_IFIFO => "a FIFO",
            SFlag::S_IFDIR => "a directory",
            SFlag::S_IFSOCK => "a socket",
            _ => "a device",
        };
        Err(Unknown::new(Cause::WrongType, format!("{} is {kind}, expected a regular file", self.name(path))))
    }

    /// Opens the kernel's log at its oldest record. Reading never waits.
    ///
    /// # Errors
    /// As [`Root::device`].
    pub fn kernel_log(&self) -> Result<File, Unknown> {
        self.device("dev/kmsg", (1, 11), "the kernel's log")
    }

    /// Opens a character device, which only the kernel's log and NVMe controllers may be, for reading and without waiting.
    ///
    /// # Errors
    /// When it cannot be opened, or something else than the device of this number stands there.
    pub fn device(&self, path: &str, (major, minor): (u64, u64), what: &str) -> Result<File, Unknown> {
        let expect_it = |fd: &OwnedFd| {
            let stat = fstat(fd).map_err(|e| self.unknown(path, e))?;
            let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
            if kind == SFlag::S_IFCHR && stat.st_rdev == makedev(major, minor) {
                return Ok(());
            }
            let why = format!("{} is not {what}, expected character device {major}:{minor}", self.name(path));
            Err(Unknown::new(Cause::WrongType, why))
        };
        // As in [`Root::file`]: opening another device could have an effect, looking at it has none.
        expect_it(&self.open_at(path, OFlag::O_PATH).map_err(|e| self.unknown(path, e))?)?;
        let fd = self.open_at(path, OFlag::O_RDONLY).map_err(|e| self.unknown(path, e))?;
        expect_it(&fd)?;
        Ok(File::from(fd))
    }

    /// A handle on a socket, which is neither opened nor connected to. A link in its place is not followed.
    ///
    /// # Errors
    /// When it is not there, or something else stands there.
    pub fn socket(&self, path: &str) -> Result<OwnedFd, Unknown> {
        let handle = self.open_at(path, OFlag::O_PATH | OFlag::O_NOFOLLOW).map_err(|e| self.unknown(path, e))?;
        let stat = fstat(&handle).map_err(|e| self.unknown(path, e))?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK {
            return Ok(handle);
        }
        Err(Unknown::new(Cause::WrongType, format!("{} is something else, expected a socket", self.name(path))))
    }

    /// The text of a symbolic link, not followed.
    ///
    /// # Errors
    /// When it is not there or no link.
    pub fn link(&self, path: &str) -> Result<String, Unknown> {
        let nofollow = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        let fd = self.open_at(path, nofollow).map_err(|e| self.unknown(path, e))?;
        let text = readlinkat(&fd, "").map_err(|e| self.unknown(path, e))?;
        Ok(text.to_string_lossy().into_owned())
    }

    /// Whether something stands there, without reading it.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.open_at(path, OFlag::O_PATH).is_ok()
    }

    /// When a file or directory was last written, by the clock of the machine that wrote it.
    ///
    /// # Errors
    /// When it is not there, or its filesystem does not say.
    pub fn modified(&self, path: &str) -> Result<SystemTime, Unknown> {
        let handle = self.handle(path)?;
        let failed = |error: std::io::Error| Unknown::new(Cause::Failed, format!("stat {}: {error}", self.name(path)));
        File::from(handle).metadata().and_then(|of| of.modified()).map_err(failed)
    }

    /// A number that distinguishes a directory from others that had its name before. `None` where that is not known.
    #[must_use]
    pub fn instance(&self, path: &str) -> Option<u64> {
        let handle = self.open_at(path, OFlag::O_PATH).ok()?;
        let stat = statx(&handle, "", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::BTIME).ok()?;
        // The kernel's own files have no time of birth, and numbers that are not given again soon.
        let born = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME).then_some(stat.stx_btime);
        let born = born.map_or(0, |born| born.tv_sec.unsigned_abs().rotate_left(32) ^ u64::from(born.tv_nsec));
        Some(stat.stx_ino ^ born)
    }

    /// What a process's open file is. The descriptor is followed to the file itself, wherever that is, which may wait for a server: so
    /// only for one that is known to be on a disk of the node, and on a running machine.
    ///
    /// # Errors
    /// When it is not open any more, or may not be looked at.
    pub fn open_file(&self, pid: u32, descriptor: u32) -> Result<OpenFile, Unknown> {
        let dir = format!("proc/{pid}/fd");
        let failed =
            |e: rustix::io::Errno| self.unknown(&format!("{dir}/{descriptor}"), Errno::from_raw(e.raw_os_error()));
        let descriptors = self.open_at(&dir, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(|e| self.unknown(&dir, e))?;
        let wanted = StatxFlags::INO | StatxFlags::NLINK | StatxFlags::BLOCKS;
        let stat = statx(&descriptors, descriptor.to_string(), AtFlags::STATX_DONT_SYNC, wanted).map_err(failed)?;
        Ok(OpenFile {
            dev: DevId { major: stat.stx_dev_major, minor: stat.stx_dev_minor },
            inode: stat.stx_ino,
            links: stat.stx_nlink.into(),
            blocks: stat.stx_blocks,
        })
    }

    /// A handle on a file or directory that is neither opened nor read, for `fstat` and `fstatfs`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn handle(&self, path: &str) -> Result<OwnedFd, Unknown> {
        self.open_at(path, OFlag::O_PATH).map_err(|e| self.unknown(path, e))
    }
}

/// A name in a directory as a path.
#[must_use]
pub fn below(dir: &str, name: &str) -> String {
    [dir, "/", name].concat()
}

fn is_end_or_slash(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

/// A temporary tree with these files.
#[cfg(test)]
pub(crate) fn tree_of(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let file = dir.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

/// Does it in a thread without root's right to read anything; only that thread has another uid for files.
#[cfg(test)]
pub(crate) fn as_another_user<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
        what()
    });
    thread.join().unwrap()
}
