//! Reading an open file to its end, within a limit.

use std::fs::File;
use std::hash::Hasher;
use std::io::{self, Read};

use nix::errno::Errno;

use super::{Root, SMALL};
use crate::facts::{Cause, Unknown};

/// Nearly every small file is shorter than this.
const SHORT: usize = 1 << 10;

/// Why a file could not be read to its end.
pub enum NotRead {
    /// The kernel's error.
    Io(io::Error),
    /// It holds more than so many bytes.
    TooLarge(usize),
}

impl NotRead {
    pub(super) fn at(self, root: &Root, path: &str) -> Unknown {
        match self {
            Self::Io(error) => root.unknown(path, Errno::from_raw(error.raw_os_error().unwrap_or(0))),
            Self::TooLarge(limit) => {
                let why = format!("{} holds more than {limit} bytes, which is more than it should", root.name(path));
                Unknown::new(Cause::TooLarge, why)
            }
        }
    }
}

/// Hands on the bytes of a small file; a short one needs no memory of its own.
pub(super) fn small<T>(file: &File, make: impl FnOnce(&[u8]) -> T) -> Result<T, NotRead> {
    let mut room = [0; SHORT];
    let mut length = 0;
    while let Some(rest) = room.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match some(file, rest)? {
            0 => return Ok(make(room.get(..length).unwrap_or_default())),
            more => length = length.saturating_add(more),
        }
    }
    let mut bytes = room.to_vec();
    fill(file, SMALL, &mut bytes)?;
    Ok(make(&bytes))
}

/// How much one call reads.
fn some(mut file: &File, room: &mut [u8]) -> Result<usize, NotRead> {
    loop {
        match file.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read.map_err(NotRead::Io),
        }
    }
}

/// Reads a file over what the buffer held.
pub(super) fn drain(file: &File, limit: usize, buffer: &mut Vec<u8>) -> Result<(), NotRead> {
    buffer.clear();
    fill(file, limit, buffer)
}

fn fill(file: &File, limit: usize, buffer: &mut Vec<u8>) -> Result<(), NotRead> {
    let room = limit.saturating_sub(buffer.len()).saturating_add(1);
    file.take(room.try_into().unwrap_or(u64::MAX)).read_to_end(buffer).map_err(NotRead::Io)?;
    if buffer.len() > limit {
        buffer.clear();
        return Err(NotRead::TooLarge(limit));
    }
    Ok(())
}

/// Reads a file without keeping it: for a table that rarely changes and is large.
pub(super) fn digest(file: &File, limit: usize, hasher: &mut impl Hasher) -> Result<(), NotRead> {
    let mut piece = [0; 16 << 10];
    let mut length = 0usize;
    loop {
        let more = some(file, &mut piece)?;
        if more == 0 {
            return Ok(());
        }
        length = length.saturating_add(more);
        if length > limit {
            return Err(NotRead::TooLarge(limit));
        }
        hasher.write(piece.get(..more).unwrap_or_default());
    }
}
