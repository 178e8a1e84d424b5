//! Reading below one root directory, so that no file can hang, swamp or mislead us.
//!
//! Every path is resolved inside the root (`openat2` with `RESOLVE_IN_ROOT`): a link, absolute or not, never
//! leads out of it. Only regular files are read, without blocking, and never more than a limit.

mod folder;
mod held;
mod lines;
mod read;

use std::borrow::Cow;
use std::ffi::CStr;
use std::fs::File;
use std::hash::Hasher;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, makedev};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use rustix::fs::{FileType, RawDir};

use crate::facts::{Cause, Unknown};
pub use folder::Folder;
use held::{Held, HeldFile, LONGEST};
pub use lines::{Bounds, End, TextLine, each_line};
use read::{digest, drain, small};

/// Enough for every file of `/proc` and `/sys` that is not a table.
pub const SMALL: usize = 256 << 10;
/// More names than this no directory has that is read here, but for `proc`; of a longer list a part would pass for the whole.
const MAX_NAMES: usize = 200_000;

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

/// What stands for `/sys`, but for the control groups in it: a container has its own, which shows the host's devices.
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

    /// Takes what is below `sys`, but not the control groups, from another directory.
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
    /// On a copy, what only a system call can tell (statfs, adjtimex, the kernel's log) would be told of the
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
            Some((sys, below)) if !below.strip_prefix("/fs/cgroup").is_some_and(is_end_or_slash) => {
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

    /// Reads a file into a buffer, which is emptied first.
    ///
    /// # Errors
    /// When it cannot be opened or read, is no regular file, or holds more than `limit` bytes.
    pub fn read_into(&self, path: &str, limit: usize, buffer: &mut Vec<u8>) -> Result<(), Unknown> {
        self.drain(path, &self.file(path)?, limit, buffer)
    }

    /// Reads what an open file has from its present position on.
    ///
    /// # Errors
    /// When it cannot be read or holds more than `limit` bytes.
    pub fn drain(&self, path: &str, file: &File, limit: usize, buffer: &mut Vec<u8>) -> Result<(), Unknown> {
        drain(file, limit, buffer).map_err(|e| e.at(self, path))
    }

    /// Reads an open file line by line, in the memory of one line; see [`each_line`].
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn each_line(
        &self,
        path: &str,
        file: &File,
        bounds: Bounds,
        on_bytes: impl FnMut(&[u8]),
        on_line: impl FnMut(TextLine<'_>) -> bool,
    ) -> Result<End, Unknown> {
        each_line(file, bounds, on_bytes, on_line).map_err(|e| e.at(self, path))
    }

    /// Reads what an open file has from its present position on, and keeps nothing of it but a hash.
    ///
    /// # Errors
    /// As [`Root::drain`].
    pub fn digest(&self, path: &str, file: &File, limit: usize, hasher: &mut impl Hasher) -> Result<(), Unknown> {
        digest(file, limit, hasher).map_err(|e| e.at(self, path))
    }

    /// The bytes of a small file.
    ///
    /// # Errors
    /// As [`Root::read_into`].
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>, Unknown> {
        self.read(path, |bytes| Ok(bytes.to_vec()))
    }

    /// A small file through its parser, which says what it expected.
    ///
    /// # Errors
    /// As [`Root::read_into`], and what the parser says.
    pub fn read<T>(&self, path: &str, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, Unknown> {
        let made = small(&self.file(path)?, parse).map_err(|e| e.at(self, path))?;
        made.map_err(|reason| self.malformed(path, reason))
    }

    /// As [`Root::read`], for a short file of the kernel that is read on every pass: it stays open, where there is room.
    ///
    /// # Errors
    /// As [`Root::read`].
    pub fn read_again<T>(&self, path: &str, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, Unknown> {
        // Only the kernel's own files fail to be read when they are gone.
        if !self.is_kernels(path) {
            return self.read(path, parse);
        }
        let mut room = [0; LONGEST];
        let taken = self.with_held(|held| held.take(path));
        let read = taken.and_then(|(path, mut file)| Some((path, file.read(&mut room)?, file)));
        let (path_of, length, file) = match read {
            Some(read) => read,
            None => {
                let mut file = HeldFile::new(self.file(path)?);
                // It is long, or says by its error what is wrong.
                let Some(length) = file.read(&mut room) else { return self.read(path, parse) };
                (path.to_owned(), length, file)
            }
        };
        self.with_held(|held| {
            held.keep(path_of, file);
            None::<()>
        });
        parse(room.get(..length).unwrap_or_default()).map_err(|reason| self.malformed(path, reason))
    }

    /// Does something with what is held open; nothing where a thread ended while it did.
    fn with_held<T>(&self, work: impl FnOnce(&mut Held) -> Option<T>) -> Option<T> {
        self.held.lock().ok().and_then(|mut held| work(&mut held))
    }

    /// The text of a small file without white space at its ends; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// As [`Root::read_into`].
    pub fn text(&self, path: &str) -> Result<String, Unknown> {
        self.read(path, whole_text)
    }

    /// The text of a file of one line, as [`Root::text`]; without the end of its line it may be cut off.
    ///
    /// # Errors
    /// As [`Root::read_into`], and when the line does not end.
    pub fn line(&self, path: &str) -> Result<String, Unknown> {
        self.read(path, whole_line)
    }

    /// The one number in a small file.
    ///
    /// # Errors
    /// As [`Root::read_into`], and when it holds no decimal number and the end of its line: without that it may be
    /// cut off, and would be another number.
    pub fn number(&self, path: &str) -> Result<u64, Unknown> {
        self.read(path, one_number)
    }

    /// As [`Root::number`], by [`Root::read_again`].
    ///
    /// # Errors
    /// As [`Root::number`].
    pub fn number_again(&self, path: &str) -> Result<u64, Unknown> {
        self.read_again(path, one_number)
    }

    /// A file was read and is not what its format says.
    pub fn malformed(&self, path: &str, expected: impl std::fmt::Display) -> Unknown {
        Unknown::new(Cause::Malformed, format!("{}: {expected}", self.name(path)))
    }

    /// The names in a directory, in no order. Nothing in it is touched.
    ///
    /// # Errors
    /// When it cannot be opened as a directory or read to its end.
    pub fn list(&self, path: &str) -> Result<Vec<(String, EntryKind)>, Unknown> {
        let mut names = Vec::new();
        self.each(path, |name, kind| names.push((name.to_owned(), kind)))?;
        Ok(names)
    }

    /// Tells each name in a directory, in no order; for large ones of which little is wanted.
    ///
    /// # Errors
    /// As [`Root::list`].
    pub fn each(&self, path: &str, mut publish: impl FnMut(&str, EntryKind)) -> Result<(), Unknown> {
        let dir = self.directory(path)?;
        self.entries(path, &dir, |name, kind| publish(&lossy(name.to_bytes()), kind))
    }

    /// Opens a directory of which several files are read: its path is then walked once.
    ///
    /// # Errors
    /// When it is no directory, or cannot be opened.
    pub fn folder(&self, path: &str) -> Result<Folder<'_>, Unknown> {
        Folder::new(self, path)
    }

    /// The names in a directory, each with what [`Root::link`] says of it.
    ///
    /// # Errors
    /// As [`Root::list`].
    pub fn links(&self, path: &str) -> Result<Vec<NamedLink>, Unknown> {
        let dir = self.directory(path)?;
        let mut links = Vec::new();
        self.entries(path, &dir, |name, _| {
            // A name of one part leads nowhere else, so it need not be resolved inside the root.
            let link = readlinkat(&dir, name).map(|text| lossy(text.as_bytes()).into_owned());
            let name = lossy(name.to_bytes());
            let link = link.map_err(|e| self.unknown(&below(path, &name), e));
            links.push((name.into_owned(), link));
        })?;
        Ok(links)
    }

    fn directory(&self, path: &str) -> Result<OwnedFd, Unknown> {
        self.open_at(path, DIRECTORY).map_err(|e| self.unknown(path, e))
    }

    fn entries(&self, path: &str, dir: &OwnedFd, mut publish: impl FnMut(&CStr, EntryKind)) -> Result<(), Unknown> {
        // readdir would ask for the directory's attributes and for 32 KiB, each time.
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut entries = RawDir::new(dir, &mut buffer);
        let mut count = 0usize;
        while let Some(entry) = entries.next() {
            count = count.saturating_add(1);
            if count > MAX_NAMES {
                let why = format!("{} holds more than {MAX_NAMES} names", self.name(path));
                return Err(Unknown::new(Cause::TooLarge, why));
            }
            let entry = entry.map_err(|e| self.unknown(path, Errno::from_raw(e.raw_os_error())))?;
            let kind = match entry.file_type() {
                FileType::Directory => EntryKind::Directory,
                FileType::Symlink => EntryKind::Link,
                FileType::RegularFile => EntryKind::File,
                _ => EntryKind::Other,
            };
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                publish(entry.file_name(), kind);
            }
        }
        Ok(())
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

/// The text of bytes; those that are not UTF-8 become U+FFFD. Nearly all are, and are checked in one go.
#[must_use]
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

fn whole_text(bytes: &[u8]) -> Result<String, String> {
    Ok(lossy(bytes).trim().to_owned())
}

pub(super) fn whole_line(bytes: &[u8]) -> Result<String, String> {
    let text = lossy(bytes);
    let line = text.strip_suffix('\n').ok_or_else(|| format!("expected a line that ends, found {}", quote(&text)))?;
    Ok(line.trim().to_owned())
}

fn one_number(bytes: &[u8]) -> Result<u64, String> {
    let text = lossy(bytes);
    let number = text.strip_suffix('\n').and_then(|line| line.trim().parse().ok());
    number.ok_or_else(|| format!("expected one decimal number on a line, found {}", quote(&text)))
}

fn is_end_or_slash(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

/// At most 40 characters of a text, quoted, for an error message.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::hash::DefaultHasher;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn tree() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn cause<T: std::fmt::Debug>(result: Result<T, Unknown>, names: &str) -> Cause {
        let unknown = result.unwrap_err();
        assert!(unknown.why.contains(names), "{} names no {names}", unknown.why);
        unknown.cause
    }

    #[test]
    fn a_missing_file_is_unknown_and_named() {
        let (_dir, root) = tree();
        assert_eq!(cause(root.text("proc/meminfo"), "proc/meminfo"), Cause::Missing);
        assert_eq!(cause(root.list("proc/none"), "proc/none"), Cause::Missing);
    }

    #[test]
    fn a_fifo_in_a_files_place_does_not_block() {
        let (dir, root) = tree();
        nix::unistd::mkfifo(&dir.path().join("proc/meminfo"), Mode::S_IRWXU).unwrap();
        assert_eq!(cause(root.text("proc/meminfo"), "is a FIFO"), Cause::WrongType);
    }

    #[test]
    fn a_directory_in_a_files_place_is_named() {
        let (_dir, root) = tree();
        assert_eq!(cause(root.text("proc"), "is a directory"), Cause::WrongType);
    }

    #[test]
    fn a_sparse_gibibyte_is_not_swallowed() {
        let (dir, root) = tree();
        let file = File::create(dir.path().join("proc/vmstat")).unwrap();
        file.set_len(1 << 30).unwrap();
        assert_eq!(cause(root.text("proc/vmstat"), "more than"), Cause::TooLarge);
    }

    #[test]
    fn no_link_leads_out_of_the_root() {
        let (dir, root) = tree();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        fs::write(dir.path().join("inside"), "inside").unwrap();
        symlink(outside.path().join("secret"), dir.path().join("absolute")).unwrap();
        symlink("../../../../../../../../etc/hostname", dir.path().join("relative")).unwrap();
        symlink("/inside", dir.path().join("within")).unwrap();
        assert_eq!(cause(root.text("absolute"), "absolute"), Cause::Missing);
        assert_eq!(cause(root.text("relative"), "relative"), Cause::Missing);
        assert_eq!(root.text("within").unwrap(), "inside");
        assert_eq!(cause(root.text("../../etc/hostname"), "etc/hostname"), Cause::Missing);
    }

    #[test]
    fn magic_links_are_not_followed_below_a_root() {
        let root = Root::open(Path::new("/proc/self/root")).unwrap();
        assert!(root.confined);
        assert_eq!(cause(root.list("proc/self/root/etc"), "proc/self/root"), Cause::WrongType);
    }

    #[test]
    fn a_denied_file_is_denied() {
        let (dir, root) = tree();
        let path = dir.path().join("proc/kmsg");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let denied = as_another_user(move || root.text("proc/kmsg"));
        assert_eq!(cause(denied, "permission denied"), Cause::Denied);
    }

    #[test]
    fn only_the_kernels_log_is_taken_for_it() {
        let (dir, root) = tree();
        assert_eq!(cause(root.kernel_log(), "dev/kmsg"), Cause::Missing);
        fs::create_dir(dir.path().join("dev")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("dev/kmsg"), Mode::S_IRWXU).unwrap();
        assert_eq!(cause(root.kernel_log(), "character device 1:11"), Cause::WrongType);
    }

    #[test]
    fn a_hash_is_that_of_the_whole_file() {
        let (dir, root) = tree();
        let hash = |bytes: &[u8]| {
            fs::write(dir.path().join("t"), bytes).unwrap();
            let mut hasher = DefaultHasher::new();
            root.digest("t", &root.file("t").unwrap(), 40_000, &mut hasher).map(|()| hasher.finish())
        };
        let of = |bytes: &[u8]| {
            let mut hasher = DefaultHasher::new();
            hasher.write(bytes);
            Ok(hasher.finish())
        };
        let long = vec![b'x'; 40_000];
        let mut other = long.clone();
        other[39_999] = b'y';
        for bytes in [b"", &b"one\n"[..], &long, &other] {
            assert_eq!(hash(bytes), of(bytes), "{} bytes", bytes.len());
        }
        assert_ne!(hash(&long), hash(&other));
        assert_eq!(cause(hash(&[b'x'; 40_001]), "more than 40000"), Cause::TooLarge);
    }

    #[test]
    fn a_directory_tells_what_stands_in_it_without_looking_at_it() {
        let (dir, root) = tree();
        fs::write(dir.path().join("proc/file"), "").unwrap();
        symlink("../nowhere", dir.path().join("proc/link")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("proc/fifo"), Mode::S_IRWXU).unwrap();
        for number in 0..2_000 {
            fs::create_dir(dir.path().join(format!("proc/{number}"))).unwrap();
        }
        let mut names = root.list("proc").unwrap();
        names.sort();
        let (others, numbers): (Vec<_>, Vec<_>) = names.into_iter().partition(|(name, _)| name.parse::<u32>().is_err());
        assert_eq!(numbers.len(), 2_000, "more than fit one call");
        assert!(numbers.iter().all(|(_, kind)| *kind == EntryKind::Directory));
        let kinds = [("fifo", EntryKind::Other), ("file", EntryKind::File), ("link", EntryKind::Link)];
        assert_eq!(others, kinds.map(|(name, kind)| (name.to_owned(), kind)));
        let mut links = root.links("proc").unwrap();
        links.retain(|(name, link)| name == "link" || (name == "file" && link.is_err()));
        links.sort_by(|a, b| a.0.cmp(&b.0));
        assert!(links[0].1.as_ref().unwrap_err().why.contains("proc/file"));
        assert_eq!(links[1], ("link".to_owned(), Ok("../nowhere".to_owned())));
    }

    #[test]
    fn an_open_directory_reads_its_own_files_alone() {
        let (dir, root) = tree();
        fs::write(dir.path().join("proc/state"), "live\n").unwrap();
        fs::write(dir.path().join("above"), "above\n").unwrap();
        symlink("state", dir.path().join("proc/link")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("proc/fifo"), Mode::S_IRWXU).unwrap();
        fs::create_dir(dir.path().join("proc/inner")).unwrap();
        fs::write(dir.path().join("proc/inner/state"), "inner\n").unwrap();
        symlink("state", dir.path().join("proc/inner/link")).unwrap();
        symlink("../..", dir.path().join("proc/inner/out")).unwrap();
        let folder = root.folder("proc").unwrap();
        assert_eq!(folder.line("state").unwrap(), "live");
        for (name, expected) in [
            ("none", Cause::Missing),
            ("link", Cause::WrongType),
            ("fifo", Cause::WrongType),
            ("../above", Cause::WrongType),
            ("..", Cause::WrongType),
            ("inner", Cause::WrongType),
            ("inner/none", Cause::Missing),
            ("inner/link", Cause::WrongType),
            ("inner/out/above", Cause::WrongType),
            ("inner/../../above", Cause::WrongType),
            ("/above", Cause::WrongType),
        ] {
            assert_eq!(cause(folder.text(name), &format!("proc/{name}")), expected, "{name}");
        }
        assert_eq!(folder.line("inner/state").unwrap(), "inner");
        let inner = folder.folder("inner").unwrap();
        assert_eq!((inner.path(), inner.line("state").unwrap().as_str()), ("proc/inner", "inner"));
        for (name, expected) in [("none", Cause::Missing), ("state", Cause::WrongType), ("inner/out", Cause::WrongType)]
        {
            assert_eq!(cause(folder.folder(name).map(|_| ()), &format!("proc/{name}")), expected, "{name}");
        }
        assert_eq!(cause(root.folder("above").map(|_| ()), "above is no directory"), Cause::WrongType);
        assert_eq!(cause(root.folder("above/below").map(|_| ()), "above/below"), Cause::Missing);
    }

    #[test]
    fn a_small_file_is_read_whole_whatever_its_length() {
        let (dir, root) = tree();
        for length in [0, 1, 1023, 1024, 1025, 5000, SMALL] {
            let bytes: Vec<u8> = (0..length).map(|at| b'a' + u8::try_from(at % 26).unwrap()).collect();
            fs::write(dir.path().join("f"), &bytes).unwrap();
            assert!(root.bytes("f").unwrap() == bytes, "{length}");
        }
        fs::write(dir.path().join("f"), vec![b'x'; SMALL + 1]).unwrap();
        assert_eq!(cause(root.bytes("f"), "holds more than 262144 bytes"), Cause::TooLarge);
    }

    #[test]
    fn a_line_ends() {
        let (dir, root) = tree();
        for (text, line) in [("live\n", Some("live")), (" \n", Some("")), ("liv", None), ("", None)] {
            fs::write(dir.path().join("state"), text).unwrap();
            assert_eq!(root.line("state").ok().as_deref(), line, "{text:?}");
        }
        assert_eq!(cause(root.line("state"), "expected a line that ends"), Cause::Malformed);
    }

    #[test]
    fn numbers_are_numbers() {
        let (dir, root) = tree();
        fs::write(dir.path().join("n"), "42\n").unwrap();
        fs::write(dir.path().join("t"), [0xff, b'1']).unwrap();
        fs::write(dir.path().join("e"), "").unwrap();
        fs::write(dir.path().join("c"), "4").unwrap();
        assert_eq!(root.number("n").unwrap(), 42);
        assert_eq!(cause(root.number("t"), "expected one decimal number"), Cause::Malformed);
        assert_eq!(cause(root.number("e"), "found \"\""), Cause::Malformed);
        assert_eq!(cause(root.number("c"), "on a line, found \"4\""), Cause::Malformed, "it may be the 4 of 42");
    }

    #[test]
    fn sys_may_be_another_directory_but_for_its_control_groups() {
        let (dir, root) = tree();
        let other = tempfile::tempdir().unwrap();
        for (dir, text) in [(dir.path(), "below\n"), (other.path(), "own\n")] {
            for name in ["sys/fs/cgroup/x", "fs/cgroup/x", "sys/fs/cgroups", "fs/cgroups", "system", "sys/x", "x"] {
                fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
                fs::write(dir.join(name), text).unwrap();
            }
        }
        assert_eq!(root.text("sys/x").unwrap(), "below");
        let root = root.with_sys(other.path()).unwrap();
        for (path, text) in [
            ("sys/fs/cgroup/x", "below"),
            ("sys/fs/cgroups", "own"),
            ("sys/x", "own"),
            ("system", "below"),
            ("x", "below"),
        ] {
            assert_eq!(root.text(path).unwrap(), text, "{path}");
            let place = if text == "own" { other.path() } else { dir.path() };
            assert!(root.name(path).starts_with(place.to_str().unwrap()), "{path} is called {}", root.name(path));
        }
        assert!(root.list("sys").unwrap().iter().any(|(name, _)| name == "sys"), "the other directory itself");
        assert_eq!(root.name("sys/none"), other.path().join("none").display().to_string());
    }

    #[test]
    fn a_file_that_is_only_held_by_its_mount_is_not_read() {
        let (dir, root) = tree();
        fs::write(dir.path().join("config"), "old\n").unwrap();
        let file = root.open_at("config", OFlag::O_PATH).unwrap();
        fs::write(dir.path().join("next"), "new\n").unwrap();
        fs::rename(dir.path().join("next"), dir.path().join("config")).unwrap();
        assert_eq!(cause(root.expect_regular("config", &file), "replaced since it was mounted"), Cause::Stale);
        assert_eq!(root.text("config").unwrap(), "new");
    }

    #[test]
    fn a_copy_of_a_machine_is_not_a_live_one() {
        let (_dir, root) = tree();
        assert!(!root.is_live());
        let root = Root::open(Path::new("/")).unwrap();
        assert!(root.is_live() && !root.is_partial());
        assert!(Root::open(Path::new("/proc/self/root")).unwrap().is_partial());
    }
}
