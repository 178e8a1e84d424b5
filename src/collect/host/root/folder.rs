//! A directory that is held open while several of its files are read.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

use super::read::small;
use super::text::{whole_line, whole_text};
use super::{DIRECTORY, EntryKind, Root, below, lossy};
use crate::facts::{Cause, Unknown};

/// An open directory.
#[derive(Debug)]
pub struct Folder<'a> {
    root: &'a Root,
    path: String,
    dir: OwnedFd,
}

impl<'a> Folder<'a> {
    pub(super) fn new(root: &'a Root, path: &str) -> Result<Self, Unknown> {
        let dir = root.open_at(path, DIRECTORY).map_err(|e| match e {
            Errno::ENOTDIR if root.exists(path) => no_directory(root, path),
            e => root.unknown(path, e),
        })?;
        Ok(Self { root, path: path.to_owned(), dir })
    }

    /// A directory in it; no link is followed.
    ///
    /// # Errors
    /// As [`Root::folder`].
    pub fn folder(&self, name: &str) -> Result<Self, Unknown> {
        let (root, path) = (self.root, self.of(name));
        let dir = self.open(name, DIRECTORY).map_err(|e| match e {
            Errno::ENOTDIR if self.open(name, OFlag::O_PATH).is_ok() => no_directory(root, &path),
            e => root.unknown(&path, e),
        })?;
        Ok(Self { root, path, dir })
    }

    /// Its path, as it was opened.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path of what is in it.
    #[must_use]
    pub fn of(&self, name: &str) -> String {
        below(&self.path, name)
    }

    /// Passes on each name in it, in no order.
    ///
    /// # Errors
    /// When it cannot be read to its end.
    pub fn each(&self, mut publish: impl FnMut(&str, EntryKind)) -> Result<(), Unknown> {
        self.root.entries(&self.path, &self.dir, |name, kind| publish(&lossy(name.to_bytes()), kind))
    }

    /// Passes on the directories in it, in no order.
    ///
    /// # Errors
    /// When it cannot be read to its end.
    pub fn each_directory(&self, mut publish: impl FnMut(&str)) -> Result<(), Unknown> {
        self.root.entries(&self.path, &self.dir, |name, kind| {
            if kind == EntryKind::Directory {
                publish(&lossy(name.to_bytes()));
            }
        })
    }

    /// One of its files through its parser, as [`Root::read`]; no link is followed.
    ///
    /// # Errors
    /// As [`Root::read`], and when the name leads out of this directory.
    pub fn read<T>(&self, name: &str, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, Unknown> {
        let made = small(&self.file(name)?, parse).map_err(|e| e.at(self.root, &self.of(name)))?;
        made.map_err(|reason| self.malformed(name, reason))
    }

    /// The same for a file that stays open, as [`Root::read_again`]: of whatever directory has this path now.
    ///
    /// # Errors
    /// As [`Root::read`].
    pub fn read_again<T>(&self, name: &str, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, Unknown> {
        self.root.read_again(&self.of(name), parse)
    }

    /// The text of one of its files, as [`Root::text`].
    ///
    /// # Errors
    /// As [`Folder::read`].
    pub fn text(&self, name: &str) -> Result<String, Unknown> {
        self.read(name, whole_text)
    }

    /// The text of one of its files of one line, as [`Root::line`].
    ///
    /// # Errors
    /// As [`Folder::read`], and when the line does not end.
    pub fn line(&self, name: &str) -> Result<String, Unknown> {
        self.read(name, whole_line)
    }

    /// One of its files was read and is not what its format says.
    pub fn malformed(&self, name: &str, expected: impl std::fmt::Display) -> Unknown {
        self.root.malformed(&self.of(name), expected)
    }

    /// As [`Root::file`].
    fn file(&self, name: &str) -> Result<File, Unknown> {
        let kernel = self.root.is_kernels(&self.path);
        let unknown = |e| self.root.unknown(&self.of(name), e);
        if !kernel {
            self.root.expect_regular(&self.of(name), &self.open(name, OFlag::O_PATH).map_err(unknown)?)?;
        }
        let fd = self.open(name, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).map_err(unknown)?;
        if !kernel {
            self.root.expect_regular(&self.of(name), &fd)?;
        }
        Ok(File::from(fd))
    }

    fn open(&self, name: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        if name.starts_with('/') || (name.contains("..") && name.split('/').any(|part| part == "..")) {
            return Err(Errno::EXDEV);
        }
        // A single name that may be no link leads nowhere else, so openat2 is not needed.
        if self.root.confined && name.contains('/') {
            let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
            return openat2(self.dir.as_fd(), name, OpenHow::new().flags(flags).resolve(resolve));
        }
        openat(self.dir.as_fd(), name, flags, Mode::empty())
    }
}

/// Something else in its place is not the same as nothing there.
fn no_directory(root: &Root, path: &str) -> Unknown {
    Unknown::new(Cause::WrongType, format!("{} is no directory, expected one", root.name(path)))
}
