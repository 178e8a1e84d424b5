//! What is in a directory below the root.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::readlinkat;
use rustix::fs::{FileType, RawDir};

use super::{DIRECTORY, EntryKind, Folder, NamedLink, Root, below, lossy};
use crate::facts::{Cause, Unknown};

/// No directory that is read here has more names, but for `proc`; of a longer list a part would pass for the whole.
const MAX_NAMES: usize = 200_000;

impl Root {
    /// The names in a directory, in no order. Nothing in it is touched.
    ///
    /// # Errors
    /// When it cannot be opened as a directory or read to its end.
    pub fn list(&self, path: &str) -> Result<Vec<(String, EntryKind)>, Unknown> {
        let mut names = Vec::new();
        self.each(path, |name, kind| names.push((name.to_owned(), kind)))?;
        Ok(names)
    }

    /// Passes on each name in a directory, in no order; for large ones of which little is wanted.
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

    pub(super) fn directory(&self, path: &str) -> Result<OwnedFd, Unknown> {
        self.open_at(path, DIRECTORY).map_err(|e| self.unknown(path, e))
    }

    pub(super) fn entries(
        &self,
        path: &str,
        dir: &OwnedFd,
        mut publish: impl FnMut(&CStr, EntryKind),
    ) -> Result<(), Unknown> {
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
}
