//! The state file: its form, and how it is read.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::MachineIds;
use crate::facts::{BootHistory, Cause, Unknown};
use crate::ledger::LedgerState;
use crate::report::events;

/// Version of the file's form; another one is not read.
pub(super) const VERSION: u32 = 1;
/// A file of this form is never larger. Each part of it has a bound of its own.
pub(super) const MAX_BYTES: u64 = 4 << 20;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    pub version: u32,
    /// The machine whose agent wrote it; without ids where they could not be read, or by an agent before 0.2.
    #[serde(default)]
    pub machine: MachineIds,
    #[serde(default)]
    pub boots: BootHistory,
    #[serde(default)]
    pub findings: LedgerState,
    /// What was published to the API server.
    #[serde(default)]
    pub published: events::PublishedEvents,
    /// Why what an earlier agent wrote is lost, where it was there.
    #[serde(skip)]
    pub lost: Option<Unknown>,
}

pub(super) fn read(file: &Path) -> Kept {
    match try_read(file) {
        Ok(kept) => kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
        Err(error) => {
            let aside = file.with_extension("unreadable");
            let kept = fs::rename(file, &aside).map_or_else(
                |e| format!("it cannot be moved out of the way: {e}"),
                |()| format!("it is kept as {}", aside.display()),
            );
            warn!(
                file = %file.display(), %error,
                "the state file cannot be read, so earlier findings and boots are not known; boots are counted from now on, \
                 and reboots are not evaluated until these suffice; {kept}"
            );
            let why = format!("{}: could not be read ({error}), so earlier boots are not known", file.display());
            Kept { lost: Some(Unknown::new(cause_of(&error), why)), ..Kept::default() }
        }
    }
}

pub(super) fn try_read(file: &Path) -> io::Result<Kept> {
    // Not to wait for a writer, should a FIFO stand there.
    let handle = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(file)?;
    if !handle.metadata()?.is_file() {
        return Err(io::Error::other("expected a regular file"));
    }
    let mut text = Vec::new();
    handle.take(MAX_BYTES).read_to_end(&mut text)?;
    whole(&text)
}

/// Reads what an agent wrote down: the boots, and since when findings stand.
///
/// # Errors
/// When it is not of this form or version.
pub fn parse(text: &[u8]) -> io::Result<(BootHistory, LedgerState)> {
    whole(text).map(|kept| (kept.boots, kept.findings))
}

pub(super) fn whole(text: &[u8]) -> io::Result<Kept> {
    let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let kept: Kept = serde_json::from_slice(text).map_err(malformed)?;
    if kept.version == VERSION {
        Ok(kept)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("version {} is not {VERSION}", kept.version)))
    }
}

pub(super) fn cause_of(error: &io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Cause::Denied,
        io::ErrorKind::InvalidData => Cause::Malformed,
        _ => Cause::Failed,
    }
}
