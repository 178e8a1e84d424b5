//! What is in a file below the root.

use std::fs::File;
use std::hash::Hasher;

use super::held::{Held, HeldFile, LONGEST};
use super::read::{digest, drain, small};
use super::text::{one_number, whole_line, whole_text};
use super::{Bounds, End, Root, TextLine, each_line};
use crate::facts::{Cause, Unknown};

impl Root {
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
}
