//! `barnacle remedy`: what reads, writes and listens for the remedies. What is decided is in `crate::remedy`.

mod acting_thread;
#[cfg(test)]
mod crash;
mod directory;
pub mod drill;
mod events;
pub mod executor;
mod journal_file;
mod live;
#[cfg(test)]
mod namespace;
mod performer;
pub mod planner;
pub mod slots;

use std::path::Path;

use anyhow::{Context, bail};

use crate::config::Config;
use crate::remedy::journal::Journal;

pub use journal_file::JournalFile;
pub use live::ask;

/// The directory of the journal.
///
/// # Errors
/// When none is set.
fn state_dir(config: &Config) -> anyhow::Result<&Path> {
    let dir = config.state_dir.as_deref().context("a journal needs a directory: give --state-dir DIR")?;
    Ok(Path::new(dir))
}

/// The journal in the state directory, for a reader.
///
/// # Errors
/// When there is none, it cannot be read, or is damaged.
pub fn read_journal(config: &Config) -> anyhow::Result<Journal> {
    let dir = state_dir(config)?;
    match journal_file::read(dir) {
        Ok(Some((journal, _))) => Ok(journal),
        Ok(None) => {
            bail!("{} has no journal (remedy.journal): no planner has run with this state directory", dir.display())
        }
        Err(why) => bail!(why),
    }
}
